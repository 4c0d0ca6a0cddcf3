//! Hears of every durable outcome: how fast work is done, and how long a backlog will therefore take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::app::Clock;
use crate::intake::{Informed, Settled};
use crate::shaping::DrainRate;

/// Settled requests a second from which on it is a burst, and the least time that this is judged by.
const BURST_PER_S: f64 = 10_000.0;
const BURST_LOOK_MIN: Duration = Duration::from_millis(20);

pub struct Hearing {
    drain: Mutex<DrainRate>,
    clock: Clock,
    /// Requests that are waiting here, as of the last look at the queues.
    backlog: AtomicU64,
    finished: AtomicU64,
    /// When a burst was asked for last, what was finished by then, and whether it was one.
    burst: Mutex<(Instant, u64, bool)>,
}

impl Hearing {
    /// `transfers_per_s`: the configured pace, 0 for none.
    pub fn new(transfers_per_s: u64, clock: Clock) -> Hearing {
        let drain = Mutex::new(DrainRate::new(transfers_per_s));
        let burst = Mutex::new((Instant::now(), 0, false));
        Hearing { drain, clock, backlog: AtomicU64::new(0), finished: AtomicU64::new(0), burst }
    }

    /// Final outcomes since the start.
    pub fn finished(&self) -> u64 {
        self.finished.load(Ordering::Relaxed)
    }

    /// Whether so much is being settled that others should leave the processors to it.
    pub fn is_burst(&self) -> bool {
        let mut burst = self.burst.lock().unwrap_or_else(PoisonError::into_inner);
        let (asked_at, before, was_one) = *burst;
        let elapsed = asked_at.elapsed();
        if elapsed < BURST_LOOK_MIN {
            return was_one;
        }
        let finished = self.finished();
        let is_one = (finished - before) as f64 / elapsed.as_secs_f64() > BURST_PER_S;
        *burst = (Instant::now(), finished, is_one);
        is_one
    }

    pub fn per_s(&self) -> u64 {
        self.drain.lock().unwrap_or_else(PoisonError::into_inner).per_s() as u64
    }

    /// How long `backlog` requests of the units held here will take.
    pub fn wait_ms(&self, backlog: u64) -> u64 {
        self.backlog.store(backlog, Ordering::Relaxed);
        self.drain.lock().unwrap_or_else(PoisonError::into_inner).wait_ms(backlog)
    }
}

impl Informed for Hearing {
    fn settled(&self, settled: Settled) -> Result<(), Settled> {
        let finished = settled.rows.iter().filter(|row| row.status.is_final()).count() as u64;
        self.finished.fetch_add(finished, Ordering::Relaxed);
        let has_more = self.backlog.load(Ordering::Relaxed) > finished;
        let mut drain = self.drain.lock().unwrap_or_else(PoisonError::into_inner);
        drain.done((self.clock)(), finished, has_more);
        Ok(())
    }
}
