//! The brownout of a demo: what became of the work while the wallet bore a part of the pace, and after it.
//!
//! Nothing is refused and nothing fails; calls take longer, and the adaptive limit has to find what is left, and later that it is
//! all there again. Pure. Absent: the making ([`super::incident`]); judgement.

use std::time::Duration;

use serde::Serialize;

use super::incident::{Ridden, Turn, ms};
use super::meter::{Curve, Meter};
use super::outage::full_rate_after_ms;
use super::picture::{grouped, seconds};

/// As it stands in the last line of `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Since the run's start.
    pub began_ms: u64,
    pub ended_ms: u64,
    /// What the wallet bore, and what was settled meanwhile, a second.
    pub capacity_per_s: u64,
    pub settled_per_s: u64,
    /// After the end: nine tenths of the pace are used over a second.
    pub full_rate_after_ms: Option<u64>,
    pub backlog_before: u64,
    pub backlog_max: u64,
    /// How the breaker stood from when on.
    pub breaker: Vec<Turn>,
}

impl Report {
    pub fn of(ridden: &Ridden, capacity_per_s: u64, meter: &Meter, pace_per_s: u64) -> Report {
        Report {
            began_ms: ms(ridden.began),
            ended_ms: ms(ridden.ended),
            capacity_per_s,
            settled_per_s: meter.mean_between(Curve::Settled, ridden.began, ridden.ended),
            full_rate_after_ms: full_rate_after_ms(ridden, meter, pace_per_s),
            backlog_before: meter.backlog_at(ridden.began),
            backlog_max: meter.backlog_max(ridden.began),
            breaker: ridden.turns.clone(),
        }
    }

    /// For the summary, line by line.
    pub fn words(&self) -> Vec<String> {
        let told = |ms: u64| seconds(Duration::from_millis(ms));
        let (length, from) = (told(self.ended_ms - self.began_ms), told(self.began_ms));
        let has_opened = self.breaker.iter().any(|turn| turn.to == "open");
        let mut lines = vec![
            format!(
                "  brownout   the wallet bore {}/s for {length}, from {from} on",
                grouped(self.capacity_per_s)
            ),
            format!(
                "             {}/s were settled meanwhile; the breaker {}",
                grouped(self.settled_per_s),
                if has_opened { "opened" } else { "stayed closed" }
            ),
            format!(
                "             the backlog rose from {} to {}",
                grouped(self.backlog_before),
                grouped(self.backlog_max)
            ),
        ];
        if let Some(ms) = self.full_rate_after_ms {
            lines.push(format!("             once the wallet was well: at the full rate after {}", told(ms)));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::super::incident::Kind;
    use super::super::meter::Sample;
    use super::*;

    #[test]
    fn what_is_told_of_it() {
        let mut meter = Meter::default();
        for tenth in 0..=100u64 {
            // 100/s, and 50/s from 2 s to 4 s.
            let settled = 10 * tenth - 5 * tenth.clamp(20, 40).saturating_sub(20);
            let (at, backlog) = (Duration::from_millis(tenth * 100), 5 * tenth);
            meter.add(Sample { at, settled, backlog, ..Sample::default() });
        }
        let turn = |at_ms, to| Turn { at_ms, to };
        let ridden = Ridden {
            kind: Kind::brownout(100),
            began: Duration::from_secs(2),
            began_at: 0,
            ended: Duration::from_secs(4),
            turns: vec![turn(0, "closed")],
            calls_while_open: 0,
            tries: 0,
        };
        let report = Report::of(&ridden, 50, &meter, 100);
        assert_eq!((report.settled_per_s, report.full_rate_after_ms), (50, Some(0)));
        assert_eq!((report.backlog_before, report.backlog_max), (100, 500));
        let words = report.words().join("\n");
        for part in ["bore 50/s for 2.0 s, from 2.0 s on", "50/s were settled", "stayed closed", "100 to 500"]
        {
            assert!(words.contains(part), "{part:?} in {words}");
        }
        let opened = Report { breaker: vec![turn(0, "closed"), turn(2_100, "open")], ..report };
        assert!(opened.words()[1].ends_with("the breaker opened"));
    }
}
