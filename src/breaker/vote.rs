//! What one instance thinks of the wallet, from its own calls of late.
//!
//! The state machine is the crate `failsafe`'s, with a failure policy of ours: a failure rate over a short window
//! with a minimum volume. Of that crate only "closed" and "tripped" are used. Its half open would admit any number
//! of calls and let the first success close it, and it reads a clock of its own; so it is told to stay dead for good
//! ([`FOREVER`]), and who may probe, when, and what closes it again is decided here and by the fleet. Its mutex is
//! not reentrant: the policy touches nothing but the window.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use failsafe::{FailurePolicy, StateMachine};

use super::classify::Counts;

const BUCKETS: u64 = 10;
/// Calls that must have failed, in the window or one after the other: networks lose a reply now and then.
const BAD_CALLS_MIN: u32 = 3;
/// So many that failed one after the other make what was before them say nothing of now: a wallet that dies at a high rate
/// is not to be sent to for as long as it takes to outweigh its successes.
const STREAK_CALLS: u32 = 8;
/// As long as a process may live.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// When an instance by itself thinks that the wallet is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteRule {
    pub window_ms: u64,
    /// Transfers in the window below which nothing is thought.
    pub volume_min: u64,
    pub failure_percent: u64,
}

impl VoteRule {
    fn bucket_of(&self, at_ms: u64) -> u64 {
        at_ms / (self.window_ms / BUCKETS).max(1)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    counts: Counts,
    bad_calls: u32,
}

/// Counts of the last `window_ms`, in tenths of it.
#[derive(Debug)]
struct Window {
    rule: VoteRule,
    buckets: [Bucket; BUCKETS as usize],
    bad_in_a_row: u32,
    /// Counts of these.
    streak: Counts,
    /// The number of the bucket written last: time over its width.
    last: u64,
}

impl Window {
    fn advance(&mut self, now_ms: u64) {
        let number = self.rule.bucket_of(now_ms);
        for passed in (self.last + 1..=number).take(BUCKETS as usize) {
            self.buckets[(passed % BUCKETS) as usize] = Bucket::default();
        }
        if number > self.last + BUCKETS {
            self.buckets = Default::default();
        }
        self.last = self.last.max(number);
    }

    fn add(&mut self, now_ms: u64, counts: &Counts) {
        self.advance(now_ms);
        let is_bad = 2 * counts.unhealthy() >= counts.total();
        let bucket = &mut self.buckets[(self.last % BUCKETS) as usize];
        bucket.counts = bucket.counts.plus(*counts);
        bucket.bad_calls += u32::from(is_bad);
        if !is_bad {
            (self.bad_in_a_row, self.streak) = Default::default();
            return;
        }
        self.bad_in_a_row = self.bad_in_a_row.saturating_add(1);
        self.streak = self.streak.plus(*counts);
        if self.bad_in_a_row == STREAK_CALLS {
            self.buckets = Default::default();
            self.buckets[(self.last % BUCKETS) as usize] =
                Bucket { counts: self.streak, bad_calls: STREAK_CALLS };
        }
    }

    fn sum(&self) -> Counts {
        self.buckets.iter().fold(Counts::default(), |sum, bucket| sum.plus(bucket.counts))
    }

    /// Whether so many transfers, and enough calls, failed.
    fn fails(&self, volume_min: u64) -> bool {
        let bad_calls: u32 = self.buckets.iter().map(|bucket| bucket.bad_calls).sum();
        bad_calls.max(self.bad_in_a_row) >= BAD_CALLS_MIN
            && self.sum().fails(volume_min, self.rule.failure_percent)
    }

    fn clear(&mut self) {
        (self.buckets, self.bad_in_a_row, self.streak) = Default::default();
    }
}

/// The failure policy given to `failsafe`. It is asked after the window was brought up to date.
struct Policy(Arc<Mutex<Window>>);

impl FailurePolicy for Policy {
    fn record_success(&mut self) {}

    fn mark_dead_on_failure(&mut self) -> Option<Duration> {
        let window = lock(&self.0);
        window.fails(window.rule.volume_min).then_some(FOREVER)
    }

    fn revived(&mut self) {
        lock(&self.0).clear();
    }
}

pub struct Vote {
    machine: StateMachine<Policy, ()>,
    window: Arc<Mutex<Window>>,
    /// What it was that tripped it, and when.
    tripped: Option<(u64, Counts)>,
}

impl Vote {
    pub fn new(rule: VoteRule) -> Vote {
        let window =
            Window { rule, buckets: Default::default(), bad_in_a_row: 0, streak: Counts::default(), last: 0 };
        let window = Arc::new(Mutex::new(window));
        Vote { machine: StateMachine::new(Policy(window.clone()), ()), window, tripped: None }
    }

    pub fn set_rule(&mut self, rule: VoteRule) {
        let mut window = lock(&self.window);
        if window.rule.window_ms != rule.window_ms {
            window.clear();
            window.last = 0;
        }
        window.rule = rule;
    }

    /// What came of a call; answers whether this is what tripped it.
    pub fn record(&mut self, now_ms: u64, counts: &Counts) -> bool {
        if self.tripped.is_some() || counts.total() == 0 {
            return false;
        }
        lock(&self.window).add(now_ms, counts);
        if counts.unhealthy() > 0 {
            self.machine.on_error();
        } else {
            self.machine.on_success();
        }
        if self.machine.is_call_permitted() {
            return false;
        }
        self.tripped = Some((now_ms, lock(&self.window).sum()));
        true
    }

    /// The same, and it trips nothing.
    pub fn note(&mut self, now_ms: u64, counts: &Counts) {
        if counts.total() > 0 {
            lock(&self.window).add(now_ms, counts);
        }
    }

    /// Whether what was counted then still counts.
    pub fn is_in_window(&self, then_ms: u64, now_ms: u64) -> bool {
        let rule = lock(&self.window).rule;
        rule.bucket_of(now_ms) < rule.bucket_of(then_ms) + BUCKETS
    }

    /// Since when it has been tripped.
    pub fn tripped_at_ms(&self) -> Option<u64> {
        self.tripped.map(|(at, _)| at)
    }

    /// Whether it would have the fleet stop: it is tripped, or would be with more volume.
    pub fn is_for_stopping(&self, now_ms: u64) -> bool {
        self.tripped.is_some() || {
            let mut window = lock(&self.window);
            window.advance(now_ms);
            window.fails(1)
        }
    }

    /// The last window's counts; of a tripped one, those that tripped it.
    pub fn counts(&self, now_ms: u64) -> Counts {
        match self.tripped {
            Some((_, counts)) => counts,
            None => {
                let mut window = lock(&self.window);
                window.advance(now_ms);
                window.sum()
            }
        }
    }

    /// Forgets everything: another epoch has begun, or a probe of its own went well.
    pub fn reset(&mut self) {
        self.tripped = None;
        self.machine.reset();
        lock(&self.window).clear();
    }
}

fn lock(window: &Mutex<Window>) -> MutexGuard<'_, Window> {
    window.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::super::classify::Class;
    use super::*;

    const RULE: VoteRule = VoteRule { window_ms: 500, volume_min: 20, failure_percent: 50 };

    #[test]
    fn trips_on_rate_with_volume_within_the_window_only() {
        // (ms, class, count): does the last one trip it?
        type Row<'a> = (&'a [(u64, Class, u64)], bool);
        use Class::{Healthy, Overload, Timeout, Unknown};
        let table: [Row; 8] = [
            (&[(0, Unknown, 7), (1, Unknown, 6), (2, Unknown, 6)], false),
            (&[(0, Unknown, 7), (1, Unknown, 6), (2, Unknown, 7)], true),
            (&[(0, Unknown, 500), (1, Unknown, 500)], false),
            (&[(0, Healthy, 21), (10, Timeout, 7), (10, Timeout, 7), (10, Timeout, 6)], false),
            (&[(0, Healthy, 20), (10, Overload, 7), (10, Overload, 7), (10, Overload, 6)], true),
            (&[(0, Healthy, 900), (600, Timeout, 10), (600, Timeout, 5), (600, Timeout, 5)], true),
            (&[(0, Unknown, 15), (600, Timeout, 9), (600, Timeout, 10)], false),
            (&[(0, Unknown, 30), (600, Timeout, 30), (1_200, Timeout, 30)], true),
        ];
        for (calls, expected) in table {
            let mut vote = Vote::new(RULE);
            let trips: Vec<bool> =
                calls.iter().map(|(ms, class, n)| vote.record(7_000 + ms, &Counts::of(*class, *n))).collect();
            assert_eq!(trips.last(), Some(&expected), "{calls:?}");
            assert_eq!(vote.tripped_at_ms().is_some(), expected);
        }
    }

    #[test]
    fn enough_failures_in_a_row_outweigh_what_was_before_them() {
        let mut vote = Vote::new(RULE);
        vote.record(1_000, &Counts::of(Class::Healthy, 1_000));
        let mut trips = (0..8).map(|call| vote.record(1_010 + call, &Counts::of(Class::Unknown, 3)));
        assert_eq!(trips.position(|trips| trips), Some(7));
        drop(trips);
        assert_eq!(vote.counts(1_020), Counts::of(Class::Unknown, 24), "and are the evidence");
        vote.reset();
        vote.record(2_000, &Counts::of(Class::Healthy, 1_000));
        for call in 0..40 {
            let class = if call % 8 == 7 { Class::Healthy } else { Class::Unknown };
            assert!(!vote.record(2_010 + call, &Counts::of(class, 3)), "{call}");
        }
    }

    #[test]
    fn a_success_does_not_close_it_and_its_counts_stay_as_evidence() {
        let mut vote = Vote::new(RULE);
        let trip = |vote: &mut Vote, ms| (0..3).any(|_| vote.record(ms, &Counts::of(Class::Timeout, 10)));
        assert!(trip(&mut vote, 1_000));
        assert!(!vote.record(1_100, &Counts::of(Class::Healthy, 999)));
        assert!(vote.tripped_at_ms().is_some());
        assert_eq!(vote.counts(9_000).timeout, 30);
        vote.reset();
        assert_eq!((vote.tripped_at_ms(), vote.counts(9_000).total()), (None, 0));
        assert!(trip(&mut vote, 9_000), "and it trips again");
    }
}
