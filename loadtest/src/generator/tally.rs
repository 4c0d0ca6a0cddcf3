//! What a lane counts: per tenth of a second, per second, and over all.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Length of a bin.
pub const BIN_MS: u64 = 100;
/// Latencies are kept up to an hour, to three digits.
const LATENCY_US_MAX: u64 = 3_600_000_000;
/// Violations that are told in full.
const VIOLATIONS_TOLD: usize = 20;

/// Requests in a tenth of a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bin {
    /// By when they were due.
    pub offered: u32,
    /// Fresh ones, by when they were acknowledged.
    pub accepted: u32,
    /// Fresh ones, by when they were refused for good.
    pub refused: u32,
    /// Calls, by when they were sent again.
    pub retried: u32,
}

/// What must not happen, and did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Violations {
    pub count: u64,
    /// The first of them.
    pub told: Vec<String>,
}

impl Violations {
    pub fn add(&mut self, words: impl FnOnce() -> String) {
        self.count += 1;
        if self.told.len() < VIOLATIONS_TOLD {
            self.told.push(words());
        }
    }

    pub fn merge(&mut self, other: &Violations) {
        self.count += other.count;
        let free = VIOLATIONS_TOLD.saturating_sub(self.told.len());
        self.told.extend(other.told.iter().take(free).cloned());
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Requests due, odd ones included.
    pub offered: u64,
    pub calls: u64,
    /// Fresh requests that were sent at least once.
    pub submitted: u64,
    pub accepted: u64,
    /// Fresh requests refused for good, by code.
    pub refused: BTreeMap<String, u64>,
    pub duplicates_sent: u64,
    pub duplicates_recognised: u64,
    pub conflicts_sent: u64,
    pub conflicts_refused: u64,
    pub invalid_sent: u64,
    pub invalid_refused: u64,
    /// Calls sent again, and why, by status code or what went wrong.
    pub retried: u64,
    pub retried_by_cause: BTreeMap<String, u64>,
    /// Retries that waited as long as `Retry-After` said.
    pub retry_after_honoured: u64,
    /// Calls released later than the stated lag by the generator itself, and the worst lag.
    pub late: u64,
    pub lag_us_max: u64,
    /// Calls that found no free connection when they were due.
    pub waited: u64,
    /// Requests due that were never sent.
    pub unsent: u64,
    /// Requests sent that never had a definite answer.
    pub unanswered: u64,
    pub connects: u64,
    pub connections_lost: u64,
    pub violations: Violations,
}

impl Counts {
    pub fn merge(&mut self, other: &Counts) {
        let pairs = [
            (&mut self.offered, other.offered),
            (&mut self.calls, other.calls),
            (&mut self.submitted, other.submitted),
            (&mut self.accepted, other.accepted),
            (&mut self.duplicates_sent, other.duplicates_sent),
            (&mut self.duplicates_recognised, other.duplicates_recognised),
            (&mut self.conflicts_sent, other.conflicts_sent),
            (&mut self.conflicts_refused, other.conflicts_refused),
            (&mut self.invalid_sent, other.invalid_sent),
            (&mut self.invalid_refused, other.invalid_refused),
            (&mut self.retried, other.retried),
            (&mut self.retry_after_honoured, other.retry_after_honoured),
            (&mut self.late, other.late),
            (&mut self.waited, other.waited),
            (&mut self.unsent, other.unsent),
            (&mut self.unanswered, other.unanswered),
            (&mut self.connects, other.connects),
            (&mut self.connections_lost, other.connections_lost),
        ];
        pairs.into_iter().for_each(|(sum, more)| *sum += more);
        self.lag_us_max = self.lag_us_max.max(other.lag_us_max);
        for (mine, others) in
            [(&mut self.refused, &other.refused), (&mut self.retried_by_cause, &other.retried_by_cause)]
        {
            others.iter().for_each(|(name, count)| *mine.entry(name.clone()).or_default() += count);
        }
        self.violations.merge(&other.violations);
    }

    pub fn refused_total(&self) -> u64 {
        self.refused.values().sum()
    }
}

/// An empty histogram of microseconds.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are fixed and sound")
}

/// Latencies of the calls that were acknowledged within one second.
#[derive(Debug)]
pub struct Interval {
    /// Since the epoch.
    pub second: u64,
    pub single: Histogram<u64>,
    pub batch: Histogram<u64>,
}

/// What one lane counts.
#[derive(Debug)]
pub struct Tally {
    pub counts: Counts,
    pub bins: Vec<Bin>,
    pub current: Interval,
}

impl Tally {
    pub fn new() -> Tally {
        let current = Interval { second: 0, single: latencies(), batch: latencies() };
        Tally { counts: Counts::default(), bins: Vec::new(), current }
    }

    pub fn bin(&mut self, at_us: u64) -> &mut Bin {
        let index = (at_us / (BIN_MS * 1_000)) as usize;
        if index >= self.bins.len() {
            self.bins.resize(index + 1, Bin::default());
        }
        &mut self.bins[index]
    }

    /// Counts a call that was acknowledged; the finished interval, when a second is over.
    pub fn acknowledged(&mut self, due_us: u64, now_us: u64, is_batch: bool) -> Option<Interval> {
        let done = self.turn_to(now_us / 1_000_000);
        let latency = now_us.saturating_sub(due_us).max(1);
        let histogram = if is_batch { &mut self.current.batch } else { &mut self.current.single };
        histogram.saturating_record(latency);
        done
    }

    /// The interval before this second, if it is over and holds anything.
    pub fn turn_to(&mut self, second: u64) -> Option<Interval> {
        if second <= self.current.second {
            return None;
        }
        let next = Interval { second, single: latencies(), batch: latencies() };
        let done = std::mem::replace(&mut self.current, next);
        (done.single.len() + done.batch.len() > 0).then_some(done)
    }
}
