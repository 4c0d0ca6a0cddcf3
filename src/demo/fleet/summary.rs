//! The verdict on a fleet: what one instance is judged by, and what the wallet counted.
//!
//! What holds: money and budget are judged by the wallet alone; a fleet is not good if its breaker did not open before a wallet that
//! was down. Pure.

use std::time::Duration;

use serde::Serialize;

use super::super::picture::grouped;
use super::super::summary::Summary;
use super::gauges::Gauges;
use super::proof::Proof;

/// Of the budget, in percent, that may reach the wallet in any second.
const PEAK_PERCENT_MAX: u64 = 105;

/// The last line of `--json`: that of one instance, and the fleet.
#[derive(Clone, Debug, Serialize)]
pub struct FleetSummary {
    #[serde(flatten)]
    summary: Summary,
    fleet: Fleet,
}

#[derive(Clone, Debug, Serialize)]
struct Fleet {
    instances: Vec<Member>,
    /// By the wallet's own count: carried out for the first time, and how many that must be.
    wallet_executed: u64,
    wallet_executed_due: u64,
    /// Entries that it knew already; replies that it lost on purpose.
    wallet_repeated: u64,
    wallet_replies_lost: u64,
    /// The most entries in any second, and that in thousandths of the budget.
    wallet_peak_per_s: u64,
    wallet_peak_permille: u64,
    /// From the first instance that stopped sending to the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_within_ms: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
struct Member {
    name: String,
    #[serde(flatten)]
    gauges: Gauges,
}

impl FleetSummary {
    pub fn of(
        mut summary: Summary,
        members: Vec<(String, Gauges)>,
        proof: &Proof,
        stopped: Option<Duration>,
        budget_per_s: u64,
        interrupted: bool,
    ) -> FleetSummary {
        let totals = proof.received.totals;
        let peak = proof.peak_per_s();
        let fleet = Fleet {
            instances: members.into_iter().map(|(name, gauges)| Member { name, gauges }).collect(),
            wallet_executed: totals.executed,
            wallet_executed_due: proof.executed_due,
            wallet_repeated: totals.repeated,
            wallet_replies_lost: totals.replies_lost,
            wallet_peak_per_s: peak,
            wallet_peak_permille: peak * 1_000 / budget_per_s.max(1),
            stopped_within_ms: stopped.map(|spread| spread.as_millis() as u64),
        };
        summary.complaints.extend(complaints(&summary, &fleet, proof, interrupted));
        FleetSummary { summary, fleet }
    }

    pub fn is_good(&self) -> bool {
        self.summary.is_good()
    }

    pub fn complaints(&self) -> &[String] {
        &self.summary.complaints
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("counts and texts")
    }

    /// The verdict in words.
    pub fn words(&self, budget_per_s: u64) -> String {
        let words = self.summary.words(budget_per_s);
        let mut lines: Vec<String> = words.lines().map(str::to_owned).collect();
        let begins = |what: &'static str| move |line: &String| line.trim_start().starts_with(what);
        if let (Some(ms), Some(at)) = (self.fleet.stopped_within_ms, lines.iter().position(begins("outage")))
        {
            let line = format!("             once the first instance had stopped, all had within {ms} ms");
            lines.insert(at + 1, line);
        }
        let at = lines.iter().position(begins("audit")).unwrap_or(lines.len());
        lines.splice(at..at, self.fleet.words(budget_per_s));
        lines.join("\n")
    }
}

impl Fleet {
    fn words(&self, budget_per_s: u64) -> Vec<String> {
        let members = self.instances.iter().map(|at| format!("{} {}", at.name, grouped(at.gauges.settled())));
        let settled = format!("  fleet      settled by {}", members.collect::<Vec<_>>().join(", "));
        let carried_out = format!(
            "  wallet     carried out {} transfers, of {} that were due; {} more were known to it ({} replies lost)",
            grouped(self.wallet_executed),
            grouped(self.wallet_executed_due),
            grouped(self.wallet_repeated),
            grouped(self.wallet_replies_lost)
        );
        let (whole, part) = (self.wallet_peak_permille / 1_000, self.wallet_peak_permille % 1_000);
        let asked = format!(
            "             was asked at most {} in any second, repeats included: {whole}.{part:03} of the budget of {}",
            grouped(self.wallet_peak_per_s),
            grouped(budget_per_s)
        );
        vec![settled, carried_out, asked]
    }
}

/// What does not agree, beside what spoils a run of one instance.
fn complaints(summary: &Summary, fleet: &Fleet, proof: &Proof, interrupted: bool) -> Vec<String> {
    let mut complaints = Vec::new();
    let (executed, due) = (fleet.wallet_executed, fleet.wallet_executed_due);
    if executed > due || (executed < due && !interrupted) {
        complaints.push(format!("the wallet carried out {executed} transfers, and {due} were due"));
    }
    if !interrupted {
        complaints.extend(proof.wrong.iter().cloned());
    }
    if fleet.wallet_peak_permille > PEAK_PERCENT_MAX * 10 {
        let permille = fleet.wallet_peak_permille;
        complaints.push(format!("a second of the wallet had {permille} thousandths of the budget"));
    }
    if let Some(outage) = &summary.outage
        && outage.opened_after_ms.is_none()
        && !interrupted
    {
        complaints.push("the wallet was down, and the breaker did not open".to_owned());
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::super::super::incident;
    use super::super::super::outage::{Bucket, Counts, Received, Report};
    use super::*;

    fn proof(executed: u64, peak: u64, wrong: &[&str]) -> Proof {
        let totals = Counts { executed, ..Counts::default() };
        let buckets = vec![Bucket { at_ms: 0, counts: Counts { transfers: peak, ..totals } }];
        let received = Received { now_ms: 1_000, bucket_ms: 100, totals, buckets };
        let wrong = wrong.iter().map(|text| (*text).to_owned()).collect();
        Proof { received, ahead_ms: 0, executed_due: 100, wrong }
    }

    fn outage(opened_after_ms: Option<u64>) -> Report {
        Report {
            incident: incident::Report {
                began_ms: 0,
                ended_ms: 3_000,
                full_rate_after_ms: None,
                backlog_before: 0,
                backlog_max: 0,
                breaker: Vec::new(),
            },
            opened_after_ms,
            calls_while_open: 0,
            tries: 0,
            closed_after_ms: None,
        }
    }

    #[test]
    fn what_the_wallet_counted_decides() {
        // proof, when the breaker opened, interrupted, the complaint
        let table = [
            (proof(100, 1_050, &[]), Some(90), false, None),
            (proof(101, 1_000, &[]), Some(90), false, Some("carried out 101 transfers, and 100 were due")),
            (proof(101, 1_000, &[]), Some(90), true, Some("carried out 101 transfers, and 100 were due")),
            (proof(99, 1_000, &[]), Some(90), false, Some("carried out 99 transfers")),
            (proof(99, 1_000, &["a has 1, not 0"]), None, true, None),
            (proof(100, 1_000, &["a has 1, not 0"]), Some(90), false, Some("a has 1, not 0")),
            (proof(100, 1_051, &[]), Some(90), false, Some("1051 thousandths")),
            (proof(100, 1_000, &[]), None, false, Some("did not open")),
        ];
        for (proof, opened, interrupted, expected) in table {
            let summary = Summary { outage: Some(outage(opened)), ..Summary::default() };
            let members = vec![("i1".to_owned(), Gauges { succeeded: 60, ..Gauges::default() })];
            let spread = Some(Duration::from_millis(40));
            let judged = FleetSummary::of(summary, members, &proof, spread, 1_000, interrupted);
            let said = judged.complaints().join("; ");
            assert_eq!(judged.is_good(), expected.is_none(), "{said}");
            assert!(said.contains(expected.unwrap_or("")), "{expected:?} in {said:?}");
            let words = judged.words(1_000);
            for part in ["all had within 40 ms", "settled by i1 60", "of 100 that were due"] {
                assert!(words.contains(part), "{part:?} in {words}");
            }
            let json: serde_json::Value = serde_json::from_str(&judged.to_json()).unwrap();
            assert_eq!(
                (json["fleet"]["instances"][0]["succeeded"].as_u64(), json["lost"].as_u64()),
                (Some(60), Some(0))
            );
        }
    }
}
