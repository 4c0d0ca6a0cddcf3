//! Hears of every durable outcome: how fast work is done, and how long what comes now will therefore take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::app::Clock;
use crate::intake::{Informed, Settled};
use crate::shaping::{Course, Forecast, Others, Promises, Seen};

/// Settled requests a second from which on it is a burst, and the least time that this is judged by.
const BURST_PER_S: f64 = 10_000.0;
const BURST_LOOK_MIN: Duration = Duration::from_millis(20);

type LookAtQueues = dyn Fn(&mut Vec<Seen>) -> u64 + Send + Sync;

/// What the forecast asks for.
pub struct Sources {
    /// How the queues of the units held here stand, those that are paced; and how often units have changed hands.
    pub queues: Box<LookAtQueues>,
    /// How fast work may go.
    pub course: Box<dyn Fn() -> Course + Send + Sync>,
    /// What the other live instances have.
    pub others: Box<dyn Fn() -> Others + Send + Sync>,
}

pub struct Hearing {
    forecast: Mutex<Looking>,
    sources: OnceLock<Sources>,
    clock: Clock,
    finished: AtomicU64,
    /// When a burst was asked for last, what was finished by then, and whether it was one.
    burst: Mutex<(Instant, u64, bool)>,
}

struct Looking {
    forecast: Forecast,
    seen: Vec<Seen>,
    hands: u64,
    outlook: Outlook,
}

/// What waits in the fleet, and how long what comes now will take.
#[derive(Clone, Debug, Default)]
pub struct Outlook {
    pub backlog: u64,
    pub promises: Arc<Promises>,
}

impl Hearing {
    /// `transfers_per_s`: the configured pace, 0 for none; it alone is known until there are [`Sources`].
    pub fn new(fair_queue_count: u8, transfers_per_s: u64, clock: Clock) -> Hearing {
        let forecast = Forecast::new(fair_queue_count, Course::paced(transfers_per_s));
        let looking = Looking { forecast, seen: Vec::new(), hands: 0, outlook: Outlook::default() };
        let burst = Mutex::new((Instant::now(), 0, false));
        let (sources, finished) = (OnceLock::new(), AtomicU64::new(0));
        Hearing { forecast: Mutex::new(looking), sources, clock, finished, burst }
    }

    /// Only the first call counts.
    pub fn hear_from(&self, sources: Sources) {
        self.sources.get_or_init(|| sources);
    }

    fn looking(&self) -> MutexGuard<'_, Looking> {
        self.forecast.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.looking().forecast.rate_per_s() as u64
    }

    /// What this instance does of it, as far as that was measured.
    pub fn own_per_s(&self) -> u64 {
        self.looking().forecast.own_per_s()
    }

    /// As of now, or of a few milliseconds ago.
    pub fn outlook(&self) -> Outlook {
        let now = (self.clock)();
        let mut looking = self.looking();
        let Looking { forecast, seen, hands, outlook } = &mut *looking;
        if let (true, Some(sources)) = (forecast.is_due(now), self.sources.get()) {
            let hands_now = (sources.queues)(seen);
            if std::mem::replace(hands, hands_now) != hands_now {
                forecast.change_hands(now);
            }
            let own: u64 = seen.iter().map(|queue| queue.waiting).sum();
            let others = (sources.others)();
            let promises = Arc::new(forecast.look(now, seen, others, (sources.course)()));
            *outlook = Outlook { backlog: own.saturating_add(others.waiting), promises };
        }
        outlook.clone()
    }
}

impl Informed for Hearing {
    fn settled(&self, settled: Settled) -> Result<(), Settled> {
        let finished = settled.rows.iter().filter(|row| row.status.is_final()).count() as u64;
        self.finished.fetch_add(finished, Ordering::Relaxed);
        let Some(sources) = self.sources.get() else { return Ok(()) };
        let mut looking = self.looking();
        let Looking { forecast, seen, .. } = &mut *looking;
        (sources.queues)(seen);
        let unread = seen.iter().map(|queue| queue.unread).sum();
        forecast.done((self.clock)(), finished, unread, (sources.course)());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Kind, Status};
    use crate::intake::desk::memory::SettledRow;

    #[test]
    fn what_is_heard_becomes_an_outlook_with_the_fleet_in_it() {
        let now = Arc::new(AtomicU64::new(1_000));
        let clock = now.clone();
        let hearing = Hearing::new(1, 1_000, Arc::new(move || clock.load(Ordering::Relaxed)));
        assert_eq!(hearing.outlook().promises.whole_ms(0), 0, "nothing is known yet");
        let mut others = Others::default();
        others.add(1_600, 700, true);
        hearing.hear_from(Sources {
            queues: Box::new(|seen| {
                let waiting = |waiting| Seen { come: waiting, waiting, unread: waiting };
                seen.clear();
                seen.extend([waiting(0), waiting(399)]);
                0
            }),
            course: Box::new(|| Course::paced(1_000)),
            others: Box::new(move || others),
        });
        let row = |status| SettledRow { status, ..row() };
        for _ in 0..100 {
            now.fetch_add(10, Ordering::Relaxed);
            // Two of three are final: 200 a second.
            let rows = vec![row(Status::Succeeded), row(Status::Queued), row(Status::Failed)];
            assert!(hearing.settled(Settled { rows, end: 0 }).is_ok());
        }
        assert_eq!(hearing.finished(), 200);
        let outlook = hearing.outlook();
        assert_eq!(outlook.backlog, 1_999);
        let wait_ms = outlook.promises.wait_ms(1, 0);
        assert!((2_150..2_300).contains(&wait_ms), "2,000 at 900 a second: {wait_ms}");
    }

    fn row() -> SettledRow {
        SettledRow {
            key_hash: 0,
            request_place: 0,
            follows_place: 0,
            outcome_place: 0,
            status: Status::Succeeded,
            kind: Kind::Disbursement,
            lane: None,
            campaign_number: 0,
            amount: 1,
            reason: None,
            at: 0,
            next_attempt_at: 0,
            attempts: 0,
        }
    }
}
