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
        let is_audit = |line: &String| line.trim_start().starts_with("audit");
        let at = lines.iter().position(is_audit).unwrap_or(lines.len());
        lines.splice(at..at, self.fleet.words(budget_per_s));
        lines.join("\n")
    }
}

impl Fleet {
    fn words(&self, budget_per_s: u64) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(ms) = self.stopped_within_ms {
            lines.push(format!("             once the first instance had stopped, all had within {ms} ms"));
        }
        let members = self.instances.iter().map(|at| format!("{} {}", at.name, grouped(at.gauges.settled())));
        lines.push(format!("  fleet      settled by {}", members.collect::<Vec<_>>().join(", ")));
        lines.push(format!(
            "  wallet     carried out {} transfers, of {} that were due; {} more were known to it ({} replies lost)",
            grouped(self.wallet_executed),
            grouped(self.wallet_executed_due),
            grouped(self.wallet_repeated),
            grouped(self.wallet_replies_lost)
        ));
        let (whole, part) = (self.wallet_peak_permille / 1_000, self.wallet_peak_permille % 1_000);
        lines.push(format!(
            "             was asked at most {} in any second, repeats included: {whole}.{part:03} of the budget of {}",
            grouped(self.wallet_peak_per_s),
            grouped(budget_per_s)
        ));
        lines
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
