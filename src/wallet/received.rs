//! What the wallet saw: counts since the start, and per tenth of a second for the last ten minutes, so that a
//! test can prove what reached it and how fast. Pure: `now` (since the start) is passed in.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

const BUCKET_MS: u64 = 100;
const BUCKETS_PER_S: u64 = 1_000 / BUCKET_MS;
/// Ten minutes.
const BUCKETS_MAX: usize = 6_000;

/// Counts of one span of time. Entries are counted when they arrive, what became of them when it is decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub calls: u64,
    /// Entries of `POST /v1/transfers`.
    pub transfers: u64,
    pub burns: u64,
    pub lookups: u64,
    /// Transfers carried out for the first time and with success: the money that moved.
    pub executed: u64,
    /// Transfers and burns whose id was on record already.
    pub repeated: u64,
    /// Transfers answered `unknown` because their deadline passed.
    pub unknown: u64,
    /// Calls refused because too many waited, or answered with an error on purpose.
    pub refused: u64,
    /// Calls never answered, or cut off before anything was done.
    pub dropped: u64,
    /// Calls carried out whose reply was lost on purpose.
    pub replies_lost: u64,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        let pairs = [
            (&mut self.calls, other.calls),
            (&mut self.transfers, other.transfers),
            (&mut self.burns, other.burns),
            (&mut self.lookups, other.lookups),
            (&mut self.executed, other.executed),
            (&mut self.repeated, other.repeated),
            (&mut self.unknown, other.unknown),
            (&mut self.refused, other.refused),
            (&mut self.dropped, other.dropped),
            (&mut self.replies_lost, other.replies_lost),
        ];
        pairs.into_iter().for_each(|(sum, more)| *sum += more);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Milliseconds since the start at which it began.
    pub at_ms: u64,
    #[serde(flatten)]
    pub counts: Counts,
}

/// The body of `GET /received`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedBody {
    pub now_ms: u64,
    pub bucket_ms: u64,
    pub totals: Counts,
    /// The most in any ten buckets in a row.
    pub transfers_peak_per_s: u64,
    pub calls_peak_per_s: u64,
    /// Those of the last ten minutes in which anything happened, oldest first.
    pub buckets: Vec<Bucket>,
}

#[derive(Debug, Default)]
pub struct Received {
    totals: Counts,
    buckets: VecDeque<Bucket>,
    transfers_peak: u64,
    calls_peak: u64,
}

impl Received {
    pub fn count(&mut self, now: Duration, counts: Counts) {
        self.totals.add(&counts);
        let at_ms = now.as_millis() as u64 / BUCKET_MS * BUCKET_MS;
        match self.buckets.back_mut() {
            // Two threads may bring their counts in the wrong order; a tenth of a second is no matter.
            Some(last) if last.at_ms >= at_ms => last.counts.add(&counts),
            _ => self.buckets.push_back(Bucket { at_ms, counts }),
        }
        if self.buckets.len() > BUCKETS_MAX {
            self.buckets.pop_front();
        }
        let newest = self.buckets.back().map_or(0, |bucket| bucket.at_ms);
        let since = (newest + BUCKET_MS).saturating_sub(BUCKETS_PER_S * BUCKET_MS);
        let window = self.buckets.iter().rev().take_while(|bucket| bucket.at_ms >= since);
        let (transfers, calls) = window.fold((0, 0), |(transfers, calls), bucket| {
            (transfers + bucket.counts.transfers, calls + bucket.counts.calls)
        });
        self.transfers_peak = self.transfers_peak.max(transfers);
        self.calls_peak = self.calls_peak.max(calls);
    }

    pub fn body(&self, now: Duration) -> ReceivedBody {
        let now_ms = now.as_millis() as u64;
        let oldest = now_ms.saturating_sub(BUCKETS_MAX as u64 * BUCKET_MS);
        ReceivedBody {
            now_ms,
            bucket_ms: BUCKET_MS,
            totals: self.totals,
            transfers_peak_per_s: self.transfers_peak,
            calls_peak_per_s: self.calls_peak,
            buckets: self.buckets.iter().filter(|bucket| bucket.at_ms >= oldest).copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_over_any_second() {
        let mut received = Received::default();
        // Arrivals at (ms, transfers); the peak so far.
        let table =
            [(0, 10, 10), (950, 10, 20), (1_050, 10, 20), (1_899, 5, 25), (5_000, 24, 25), (5_990, 2, 26)];
        for (at, transfers, peak) in table {
            received.count(Duration::from_millis(at), Counts { calls: 1, transfers, ..Counts::default() });
            let body = received.body(Duration::from_millis(at));
            assert_eq!(body.transfers_peak_per_s, peak, "at {at}");
        }
        let body = received.body(Duration::from_millis(6_000));
        assert_eq!((body.totals.transfers, body.totals.calls), (61, 6));
        assert_eq!(body.buckets.iter().map(|b| b.counts.transfers).sum::<u64>(), 61);
        assert!(received.body(Duration::from_secs(3_600)).buckets.is_empty());
    }
}
