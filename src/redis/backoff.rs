//! When to try again what failed: at once, then ever later, spread so that many do not come at the same moment.
//!
//! Pure: `now` and a roll of the dice are given.

use std::time::{Duration, Instant};

pub(super) const WAIT_MIN: Duration = Duration::from_millis(50);
pub(super) const WAIT_MAX: Duration = Duration::from_millis(1000);

#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    next: Option<Instant>,
    since: Option<Instant>,
}

impl Backoff {
    /// How long it is still to be left alone; nothing: it may be tried.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        self.next.and_then(|next| next.checked_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// `roll` is between 0 and 1.
    pub fn failed(&mut self, now: Instant, roll: f64) {
        let most = (WAIT_MIN * 2 * (1 << self.failures.min(8))).min(WAIT_MAX);
        self.failures = self.failures.saturating_add(1);
        self.next = Some(now + most / 2 + (most / 2).mul_f64(roll.clamp(0.0, 1.0)));
        self.since.get_or_insert(now);
    }

    /// It broke off and may be tried again at once.
    pub fn broke(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    pub fn succeeded(&mut self) {
        *self = Backoff::default();
    }

    /// Since when it has been failing.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }
}

/// A number between 0 and 1, another one each time.
pub(super) fn roll() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(0u8) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_between_its_bounds_and_ends_with_success() {
        let start = Instant::now();
        for (roll, expect) in [(0.0, [50, 100, 200, 400, 500, 500]), (1.0, [100, 200, 400, 800, 1000, 1000])]
        {
            let mut backoff = Backoff::default();
            assert_eq!((backoff.wait(start), backoff.since()), (None, None));
            for millis in expect {
                backoff.failed(start, roll);
                assert_eq!(backoff.wait(start), Some(Duration::from_millis(millis)));
                assert_eq!(backoff.wait(start + Duration::from_millis(millis)), None);
            }
            backoff.failed(start + WAIT_MAX, roll);
            assert_eq!(backoff.since(), Some(start), "the first failure tells since when");
            backoff.succeeded();
            assert_eq!((backoff.wait(start), backoff.since()), (None, None));
        }
    }

    #[test]
    fn what_broke_off_may_be_tried_at_once() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        backoff.broke(now);
        assert_eq!((backoff.wait(now), backoff.since()), (None, Some(now)));
        assert!((0.0..1.0).contains(&roll()) && roll() != roll());
    }
}
