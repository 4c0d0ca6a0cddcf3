//! The brownout of a demo: what became of the work while the wallet bore a part of the pace, and after it.
//!
//! Nothing is refused and nothing fails; calls take longer, and the adaptive limit has to find what is left, and later that it is
//! all there again. Pure. Absent: the making ([`super::incident`]); judgement.

use serde::Serialize;

use super::incident::{self, Ridden, told};
use super::meter::{Curve, Meter};
use super::picture::grouped;

/// As it stands in the last line of `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub incident: incident::Report,
    /// What the wallet bore, and what was settled meanwhile, a second.
    pub capacity_per_s: u64,
    pub settled_per_s: u64,
}

impl Report {
    pub fn of(ridden: &Ridden, capacity_per_s: u64, meter: &Meter, pace_per_s: u64) -> Report {
        Report {
            incident: ridden.report(meter, pace_per_s),
            capacity_per_s,
            settled_per_s: meter.mean_between(Curve::Settled, ridden.began, ridden.ended),
        }
    }

    /// For the summary, line by line.
    pub fn words(&self) -> Vec<String> {
        let (length, from) = self.incident.times();
        let has_opened = self.incident.breaker.iter().any(|turn| turn.to == "open");
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
            self.incident.backlog_words(),
        ];
        if let Some(ms) = self.incident.full_rate_after_ms {
            lines.push(format!("             once the wallet was well: at the full rate after {}", told(ms)));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::incident::{Kind, Turn};
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
        let incident = &report.incident;
        assert_eq!((report.settled_per_s, incident.full_rate_after_ms), (50, Some(0)));
        assert_eq!((incident.backlog_before, incident.backlog_max), (100, 500));
        let words = report.words().join("\n");
        for part in ["bore 50/s for 2.0 s, from 2.0 s on", "50/s were settled", "stayed closed", "100 to 500"]
        {
            assert!(words.contains(part), "{part:?} in {words}");
        }
        let breaker = vec![turn(0, "closed"), turn(2_100, "open")];
        let opened = Report { incident: incident::Report { breaker, ..incident.clone() }, ..report };
        assert!(opened.words()[1].ends_with("the breaker opened"));
    }
}
