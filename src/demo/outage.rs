//! The outage of a demo: what the breaker did about a wallet that closed every connection for a few seconds.
//!
//! What holds: the calls that reached the wallet are its own count, in its own tenths of a second, and only tenths that lie wholly
//! in the time in question are counted. Pure, but for the asking. Absent: the making ([`super::incident`]); judgement.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::client::Connection;
use super::incident::{self, Ridden, Turn, ms, told};
use super::meter::Meter;
use super::picture::grouped;

/// Left out at both ends of a time in which the breaker was open: calls that were on the way when it opened, and tries
/// that were made before it was seen that it is half open.
const EDGE: Duration = Duration::from_millis(100);
/// The wallet's clock is asked so often; the fastest answer tells it best.
const CLOCK_LOOKS: u32 = 5;

/// The part of `GET /received` that is needed.
#[derive(Debug, Deserialize)]
pub struct Received {
    pub now_ms: u64,
    pub bucket_ms: u64,
    pub totals: Counts,
    pub buckets: Vec<Bucket>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Counts {
    pub calls: u64,
    /// Entries, repeats included.
    pub transfers: u64,
    pub burns: u64,
    /// Transfers carried out for the first time.
    pub executed: u64,
    pub repeated: u64,
    pub replies_lost: u64,
}

#[derive(Debug, Deserialize)]
pub struct Bucket {
    pub at_ms: u64,
    #[serde(flatten)]
    pub counts: Counts,
}

/// What the wallet received, and what its clock is ahead of the run's.
pub(super) async fn received(wallet: &mut Connection, since: Instant) -> anyhow::Result<(Received, i64)> {
    let mut best: Option<(Duration, Received, i64)> = None;
    for _ in 0..CLOCK_LOOKS {
        let asked = since.elapsed();
        let answer = wallet.get("/received").await.context("what the wallet received")?.answer;
        let took = since.elapsed() - asked;
        let received: Received = serde_json::from_slice(&answer.body).context("what the wallet received")?;
        let ahead_ms = received.now_ms as i64 - ms(asked + took / 2) as i64;
        if best.as_ref().is_none_or(|(fastest, ..)| took < *fastest) {
            best = Some((took, received, ahead_ms));
        }
    }
    best.map(|(_, received, ahead_ms)| (received, ahead_ms)).context("the wallet was not asked")
}

/// Calls in the tenths that lie wholly in times in which the breaker was open, their edges left out.
pub(super) fn calls_while_open(received: &Received, ahead_ms: i64, turns: &[Turn], over_ms: u64) -> u64 {
    let ends = turns.iter().skip(1).map(|turn| turn.at_ms).chain([over_ms]);
    let open = turns.iter().zip(ends).filter(|(turn, _)| turn.to == "open");
    let at_wallet = |at_ms: u64| at_ms as i64 + ahead_ms;
    let counted = open.flat_map(|(turn, end_ms)| {
        let (from, to) = (at_wallet(turn.at_ms + ms(EDGE)), at_wallet(end_ms) - ms(EDGE) as i64);
        let whole = move |bucket: &&Bucket| {
            bucket.at_ms as i64 >= from && (bucket.at_ms + received.bucket_ms) as i64 <= to
        };
        received.buckets.iter().filter(whole)
    });
    counted.map(|bucket| bucket.counts.calls).sum()
}

/// As it stands in the last line of `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub incident: incident::Report,
    /// The first opening, after the beginning.
    pub opened_after_ms: Option<u64>,
    /// Calls that reached the wallet while the breaker was open, by its own count.
    pub calls_while_open: u64,
    /// Calls made with a permit while it was half open.
    pub tries: u64,
    /// After the end: the whole budget is let go.
    pub closed_after_ms: Option<u64>,
}

impl Report {
    pub fn of(ridden: &Ridden, meter: &Meter, pace_per_s: u64) -> Report {
        let opened_after_ms = ridden.first("open", ridden.began);
        Report {
            incident: ridden.report(meter, pace_per_s),
            opened_after_ms,
            calls_while_open: ridden.calls_while_open,
            tries: ridden.tries,
            closed_after_ms: opened_after_ms.and_then(|_| ridden.first("closed", ridden.ended)),
        }
    }

    /// For the summary, line by line.
    pub fn words(&self) -> Vec<String> {
        let (down, from) = self.incident.times();
        let opened = match self.opened_after_ms {
            Some(after) => format!("the breaker opened after {}", told(after)),
            None => "the breaker did not open".to_owned(),
        };
        let mut lines =
            vec![format!("  outage     the wallet was down for {down}, from {from} on; {opened}")];
        if self.opened_after_ms.is_some() {
            lines.push(format!(
                "             calls that reached it meanwhile: {} while that was open, {} tries while half open",
                grouped(self.calls_while_open),
                grouped(self.tries)
            ));
        }
        lines.push(self.incident.backlog_words());
        let after = |what: &str, ms: Option<u64>| ms.map(|ms| format!("{what} {}", told(ms)));
        let closed = after("closed again after", self.closed_after_ms);
        let full = after("at the full rate after", self.incident.full_rate_after_ms);
        let back: Vec<String> = closed.into_iter().chain(full).collect();
        if !back.is_empty() {
            lines.push(format!("             once the wallet was well: {}", back.join(", ")));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::super::incident::Kind;
    use super::super::meter::Sample;
    use super::*;

    fn turns(list: &[(u64, &'static str)]) -> Vec<Turn> {
        list.iter().map(|(at_ms, to)| Turn { at_ms: *at_ms, to }).collect()
    }

    #[test]
    fn only_whole_tenths_of_open_times_are_counted() {
        // Each tenth of the wallet's first two seconds can be told from the sum.
        let counts = |calls| Counts { calls, ..Counts::default() };
        let bucket = |tenth: u64| Bucket { at_ms: tenth * 100, counts: counts(1 << tenth) };
        let buckets = (0..20).map(bucket).collect();
        let received = Received { now_ms: 2_000, bucket_ms: 100, totals: Counts::default(), buckets };
        let open = turns(&[(0, "closed"), (250, "open"), (700, "half_open"), (720, "open")]);
        // Open from 250 to 700, so from 350 to 600: tenths 4 and 5; from 720 to 1,200, so from 820 to 1,100: 9 and 10.
        let expected = 0b110_0011_0000;
        assert_eq!(calls_while_open(&received, 0, &open, 1_200), expected);
        assert_eq!(calls_while_open(&received, 500, &open, 1_200), expected << 5, "its clock is ahead");
        assert_eq!(calls_while_open(&received, 0, &turns(&[(0, "closed")]), 2_000), 0);
    }

    /// Accepts 100/s throughout; settles 100/s but from 2 s to 5 s.
    fn meter() -> Meter {
        let mut meter = Meter::default();
        for tenth in 0..=100u64 {
            let settled = 10 * (tenth.min(20) + tenth.saturating_sub(50));
            let (at, accepted) = (Duration::from_millis(tenth * 100), tenth * 10);
            meter.add(Sample { at, accepted, settled, backlog: accepted - settled, ..Sample::default() });
        }
        meter
    }

    #[test]
    fn what_is_told_of_it() {
        let ridden = Ridden {
            kind: Kind::Outage,
            began_at: 0,
            began: Duration::from_secs(2),
            ended: Duration::from_secs(4),
            turns: turns(&[
                (0, "closed"),
                (2_300, "open"),
                (2_900, "half_open"),
                (2_950, "open"),
                (4_200, "ramp"),
                (6_500, "closed"),
            ]),
            calls_while_open: 0,
            tries: 9,
        };
        let report = Report::of(&ridden, &meter(), 100);
        assert_eq!((report.opened_after_ms, report.closed_after_ms), (Some(300), Some(2_500)));
        // A tenth of the second may be missing.
        assert_eq!(report.incident.full_rate_after_ms, Some(900));
        assert_eq!((report.incident.backlog_before, report.incident.backlog_max), (0, 300));
        let words = report.words().join("\n");
        for part in [
            "down for 2.0 s, from 2.0 s on",
            "opened after 0.3 s",
            ": 0 while",
            "9 tries",
            "0 to 300",
            "2.5 s",
        ] {
            assert!(words.contains(part), "{part:?} in {words}");
        }
        let calm = Ridden { turns: turns(&[(0, "closed")]), ..ridden };
        let calm = Report::of(&calm, &meter(), 1_000_000);
        assert_eq!((calm.opened_after_ms, calm.incident.full_rate_after_ms), (None, None));
        assert!(calm.words()[0].ends_with("the breaker did not open"));
    }
}
