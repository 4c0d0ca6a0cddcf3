//! Hears of every durable outcome: how fast work is done, and how long a backlog will therefore take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::app::Clock;
use crate::intake::redis::anomaly::FleetLoad;
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

/// What waits in the fleet and how long it will take, for an instance that has `own` in the units it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    pub backlog: u64,
    pub wait_ms: u64,
}

impl Ahead {
    /// Units are shared out evenly: what the others have is about as much each. Whoever holds none goes by the board.
    pub fn of(own: u64, (held, units): (u64, u64), fleet: FleetLoad, wait_ms: impl Fn(u64) -> u64) -> Ahead {
        match own.saturating_mul(units).checked_div(held) {
            Some(backlog) => Ahead { backlog, wait_ms: wait_ms(own) },
            None => {
                let measured = fleet.depth.saturating_mul(1_000).checked_div(fleet.settled_per_s);
                Ahead { backlog: fleet.depth, wait_ms: measured.unwrap_or_else(|| wait_ms(fleet.depth)) }
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_without_units_goes_by_what_the_fleet_has() {
        let fleet = FleetLoad { depth: 5_000, settled_per_s: 100 };
        let unmeasured = FleetLoad { settled_per_s: 0, ..fleet };
        let wait_ms = |backlog: u64| backlog / 10;
        // own, held and all units, the board; backlog and wait
        let table = [
            (40, (4, 16), fleet, (160, 4)),
            (0, (16, 16), fleet, (0, 0)),
            (0, (0, 16), fleet, (5_000, 50_000)),
            (0, (0, 16), unmeasured, (5_000, 500)),
            (0, (0, 16), FleetLoad::default(), (0, 0)),
        ];
        for (row, (own, units, fleet, (backlog, expected))) in table.into_iter().enumerate() {
            let ahead = Ahead::of(own, units, fleet, wait_ms);
            assert_eq!(ahead, Ahead { backlog, wait_ms: expected }, "row {row}");
        }
    }
}
