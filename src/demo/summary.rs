//! The end of a run: one line of JSON, a verdict in words, and what spoils it.
//!
//! What holds: the client's own count, the service's and the audit's must agree; nothing is good that one of
//! them does not confirm. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::home::Before;
use super::meter::{Curve, Meter};
use super::picture::{grouped, seconds};
use super::tally::Counts;
use super::{brownout, estimates, outage};
use crate::audit::Report;
use crate::domain::Status;

const SECOND: Duration = Duration::from_secs(1);

/// Microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

impl Percentiles {
    pub fn of(histogram: &Histogram<u64>) -> Percentiles {
        let at = |percentile| histogram.value_at_percentile(percentile);
        Percentiles { p50: at(50.0), p99: at(99.0), p999: at(99.9), max: histogram.max() }
    }
}

/// Everything that was seen of a run.
pub struct Seen<'a> {
    pub counts: &'a Counts,
    pub accept_us: &'a Histogram<u64>,
    pub settle_us: &'a Histogram<u64>,
    pub meter: &'a Meter,
    pub report: &'a Report,
    pub before: Before,
    /// What the service says it accepted in this run.
    pub service_accepted: u64,
    /// Acknowledged in the burst, and how long it took.
    pub burst: (u64, Duration),
    pub durability: &'a str,
    /// It was stopped before everything was final.
    pub interrupted: bool,
    pub failure: Option<String>,
    /// Where the requests were not in the journal that was audited: final outcomes by the service's own count, all,
    /// succeeded and failed. The audit then holds the client's list against the wallet's books.
    pub elsewhere: Option<(u64, u64, u64)>,
    pub estimates: Option<estimates::Report>,
    pub outage: Option<outage::Report>,
    pub brownout: Option<brownout::Report>,
}

/// The last line of `--json`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    pub submitted: u64,
    pub accepted: u64,
    pub duplicates: u64,
    pub refused: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub unknown: u64,
    /// Not final and not unknown.
    pub pending: u64,
    pub lost: u64,
    pub double_paid: u64,
    pub books_balanced: bool,
    /// Acknowledged requests over the length of the burst.
    pub accept_per_s: u64,
    /// From the first settled to the last.
    pub settle_per_s: u64,
    /// Per call, from when it was due.
    pub accept_us: Percentiles,
    /// Of the requests sent alone, from accepted_at to settled_at as the service tells them.
    pub settle_us: Percentiles,
    pub wallet_peak_per_s: u64,
    pub durability: String,
    pub accept_peak_per_s: u64,
    pub refused_by_code: BTreeMap<String, u64>,
    pub settle_us_sampled: u64,
    pub retried: u64,
    /// What the door told of when a request would be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimates: Option<estimates::Report>,
    /// Where the wallet went down on the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outage: Option<outage::Report>,
    /// Where it bore less for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brownout: Option<brownout::Report>,
    /// What spoils the verdict.
    pub complaints: Vec<String>,
}

impl Summary {
    pub fn of(seen: &Seen<'_>) -> Summary {
        let Seen { counts, meter, report, before, .. } = seen;
        let states = report.requests_by_state.iter();
        let unknown: u64 =
            states.filter(|state| state.name == Status::Unknown.as_str()).map(|state| state.count).sum();
        let (burst_accepted, burst_took) = seen.burst;
        let burst_us = burst_took.as_micros().max(1);
        Summary {
            submitted: counts.submitted,
            accepted: counts.accepted,
            duplicates: counts.duplicates,
            refused: counts.refused_total(),
            succeeded: seen
                .elsewhere
                .map_or(report.succeeded.saturating_sub(before.succeeded), |(_, done, _)| done),
            failed: seen.elsewhere.map_or(report.failed.saturating_sub(before.failed), |(.., failed)| failed),
            unknown,
            pending: report.pending.saturating_sub(unknown),
            lost: report.lost,
            double_paid: report.double_paid,
            books_balanced: report.books_balanced,
            accept_per_s: (u128::from(burst_accepted) * 1_000_000 / burst_us) as u64,
            settle_per_s: meter.mean_per_s(Curve::Settled),
            accept_us: Percentiles::of(seen.accept_us),
            settle_us: Percentiles::of(seen.settle_us),
            wallet_peak_per_s: meter.peak_per_s(Curve::Settled, SECOND),
            durability: seen.durability.to_owned(),
            accept_peak_per_s: meter.peak_per_s(Curve::Accepted, SECOND),
            refused_by_code: counts.refused.clone(),
            settle_us_sampled: seen.settle_us.len(),
            retried: counts.retried,
            estimates: seen.estimates,
            outage: seen.outage.clone(),
            brownout: seen.brownout.clone(),
            complaints: complaints(seen),
        }
    }

    pub fn is_good(&self) -> bool {
        self.complaints.is_empty()
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("counts and texts")
    }

    /// The verdict in words.
    pub fn words(&self, wallet_per_s: u64) -> String {
        let codes: Vec<String> =
            self.refused_by_code.iter().map(|(code, count)| format!("{} {code}", grouped(*count))).collect();
        let of_which = if codes.is_empty() { String::new() } else { format!(": {}", codes.join(", ")) };
        let us = |us: u64| format!("{}.{} ms", us / 1_000, us % 1_000 / 100);
        let mut lines = vec![
            format!("  asked      {}", grouped(self.submitted)),
            format!(
                "  accepted   {}, durably ({}); {}/s in the burst, {}/s in its best second",
                grouped(self.accepted),
                self.durability,
                grouped(self.accept_per_s),
                grouped(self.accept_peak_per_s)
            ),
            format!(
                "             an answer took {} (p50), {} (p99), counted from when the call was due",
                us(self.accept_us.p50),
                us(self.accept_us.p99)
            ),
            format!("  refused    {}{of_which}", grouped(self.refused)),
            format!("  repeated   {}, recognised and not paid again", grouped(self.duplicates)),
            format!(
                "  settled    {} paid, {} not, {} open; {}/s, at most {} in any second (pace {}/s)",
                grouped(self.succeeded),
                grouped(self.failed),
                grouped(self.pending + self.unknown),
                grouped(self.settle_per_s),
                grouped(self.wallet_peak_per_s),
                grouped(wallet_per_s)
            ),
            format!(
                "  audit      lost {}, paid twice {}, books {}",
                grouped(self.lost),
                grouped(self.double_paid),
                if self.books_balanced { "balance" } else { "DO NOT BALANCE" }
            ),
        ];
        if self.settle_us_sampled > 0 {
            let half = seconds(Duration::from_micros(self.settle_us.p50));
            let last = seconds(Duration::from_micros(self.settle_us.max));
            let line =
                format!("             half of them within {half} of being accepted, the last after {last}");
            lines.insert(lines.len() - 1, line);
        }
        let more = [
            self.estimates.map(|estimates| estimates.words()),
            self.outage.as_ref().map(outage::Report::words),
            self.brownout.as_ref().map(brownout::Report::words),
        ];
        let at = lines.len() - 1;
        lines.splice(at..at, more.into_iter().flatten().flatten());
        lines.push(format!("  verdict    {}", self.verdict()));
        lines.join("\n")
    }
}

impl Summary {
    fn verdict(&self) -> String {
        match (self.complaints.as_slice(), self.pending + self.unknown) {
            ([], 0) => "good: every acknowledged request was settled exactly once".to_owned(),
            ([], open) => format!("stopped early: nothing lost or paid twice, {} still wait", grouped(open)),
            (complaints, _) => format!("NOT GOOD: {}", complaints.join("; ")),
        }
    }
}

/// What does not agree.
fn complaints(seen: &Seen<'_>) -> Vec<String> {
    let Seen { counts, report, before, service_accepted, .. } = seen;
    let mut complaints: Vec<String> = seen.failure.iter().cloned().collect();
    let mut check = |holds: bool, complaint: &dyn Fn() -> String| {
        if !holds {
            complaints.push(complaint());
        }
    };
    for breach in &report.breaches {
        check(false, &|| {
            format!("the audit found {} ×{}: {}", breach_name(breach), breach.count, breach.detail)
        });
    }
    check(report.lost == 0, &|| format!("{} acknowledged requests are lost", report.lost));
    check(report.double_paid == 0, &|| format!("{} requests were paid twice", report.double_paid));
    check(report.books_balanced, &|| "the books do not balance".to_owned());
    let first = counts.first_surprise.as_deref().unwrap_or("no reason known");
    check(counts.surprises == 0, &|| {
        format!("{} answers were not as they must be: {first}", counts.surprises)
    });
    check(counts.given_up == 0 || seen.interrupted, &|| {
        format!("{} requests got no answer: {first}", counts.given_up)
    });
    // A request that got no answer may have been accepted all the same.
    let counted = |found: u64| (counts.accepted..=counts.accepted + counts.given_up).contains(&found);
    if let Some((settled, ..)) = seen.elsewhere {
        // A request that came again after a failure may have its outcome recorded again.
        check(settled >= counts.accepted || seen.interrupted, &|| {
            format!("the client was told of {} accepted requests, and {settled} are final", counts.accepted)
        });
    } else {
        let requests = (report.requests + report.removed.requests).saturating_sub(before.requests);
        check(counted(requests), &|| {
            format!(
                "the client was told of {} accepted requests, the journal holds {requests}",
                counts.accepted
            )
        });
    }
    check(counted(*service_accepted), &|| {
        format!(
            "the client was told of {} accepted requests, the service counts {service_accepted}",
            counts.accepted
        )
    });
    let (all, earlier) = (report.succeeded + report.failed + report.pending, report.removed.final_count);
    check(all + earlier == report.requests + report.removed.requests, &|| {
        format!("{all} requests have a state, of {}", report.requests)
    });
    check(report.pending == 0 || seen.interrupted, &|| format!("{} requests are not final", report.pending));
    complaints
}

fn breach_name(breach: &crate::audit::Breach) -> String {
    serde_json::to_string(&breach.kind).unwrap_or_default().trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::tally::latencies;
    use super::*;
    use crate::audit::{Breach, BreachKind};

    fn report() -> Report {
        Report {
            segments: 1,
            frames: 9,
            entries: 9,
            bytes: 9,
            next_sequence: 9,
            torn_tail_bytes: 0,
            from_checkpoint: false,
            wallet: crate::audit::Wallet::Here,
            removed: Default::default(),
            requests: 100,
            requests_by_kind: Vec::new(),
            requests_again: 0,
            batches: 1,
            queues: 1,
            queued: 0,
            requests_by_state: Vec::new(),
            outcomes: Default::default(),
            transfers: Default::default(),
            accounts: 3,
            campaigns: 1,
            totals: Vec::new(),
            succeeded: 98,
            failed: 2,
            pending: 0,
            waiting_visibly: 0,
            paid_pending: 0,
            refused_unrecorded: 0,
            amount_succeeded: 500,
            acks: None,
            lost: 0,
            double_paid: 0,
            books_balanced: true,
            breaches: Vec::new(),
            breaches_total: 0,
        }
    }

    fn counts() -> Counts {
        let refused = [("id_conflict".to_owned(), 4)].into();
        Counts { submitted: 109, accepted: 100, duplicates: 5, refused, ..Counts::default() }
    }

    fn summary(counts: &Counts, report: &Report, service_accepted: u64, before: Before) -> Summary {
        let mut times = latencies();
        (1..=1_000).for_each(|ms| times.record(ms * 1_000).unwrap());
        Summary::of(&Seen {
            counts,
            accept_us: &times,
            settle_us: &times,
            meter: &Meter::default(),
            report,
            before,
            service_accepted,
            burst: (50, Duration::from_millis(500)),
            durability: "fsync",
            interrupted: false,
            failure: None,
            elsewhere: None,
            estimates: Some(estimates::Report {
                all: estimates::Part { count: 9, error_percent_median: 1.5, error_percent_p90: 12.0 },
                in_line_when_it_began: None,
                others: None,
            }),
            outage: None,
            brownout: None,
        })
    }

    #[test]
    fn the_line_has_the_agreed_keys() {
        let summary = summary(&counts(), &report(), 100, Before::default());
        assert!(summary.is_good(), "{:?}", summary.complaints);
        let line = summary.to_json();
        assert!(!line.contains('\n'));
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        let agreed = "submitted accepted duplicates refused succeeded failed unknown pending lost double_paid \
                      books_balanced accept_per_s settle_per_s accept_us settle_us wallet_peak_per_s durability";
        for key in agreed.split_whitespace() {
            assert!(json.get(key).is_some(), "{key} in {line}");
        }
        for key in ["p50", "p99", "p999", "max"] {
            assert!(json["accept_us"][key].is_u64() && json["settle_us"][key].is_u64(), "{key}");
        }
        assert_eq!((json["accept_per_s"].as_u64(), json["refused"].as_u64()), (Some(100), Some(4)));
        let p50 = json["accept_us"]["p50"].as_u64().unwrap();
        assert!((499_000..=501_000).contains(&p50), "{p50}");
        assert_eq!(json["estimates"]["error_percent_p90"].as_f64(), Some(12.0));
        let words = summary.words(10);
        assert!(words.ends_with("settled exactly once") && words.contains("1.5 % (median), 12.0 % (p90)"));
    }

    #[test]
    fn whatever_does_not_agree_spoils_the_verdict() {
        let breach =
            Breach { kind: BreachKind::Double, count: 1, detail: "twice".to_owned(), ids: Vec::new() };
        let none = Before::default();
        let table: [(Counts, Report, u64, Before, &str); 9] = [
            (counts(), Report { lost: 1, ..report() }, 100, none, "1 acknowledged requests are lost"),
            (counts(), Report { double_paid: 1, ..report() }, 100, none, "paid twice"),
            (counts(), Report { books_balanced: false, ..report() }, 100, none, "do not balance"),
            (counts(), Report { breaches: vec![breach], ..report() }, 100, none, "double ×1: twice"),
            (counts(), report(), 101, none, "the service counts 101"),
            (Counts { accepted: 99, ..counts() }, report(), 100, none, "the journal holds 100"),
            (counts(), report(), 100, Before { requests: 1, ..none }, "the journal holds 99"),
            (Counts { surprises: 1, ..counts() }, report(), 100, none, "not as they must be"),
            (counts(), Report { succeeded: 97, pending: 1, ..report() }, 100, none, "not final"),
        ];
        for (counts, report, service_accepted, before, expected) in table {
            let summary = summary(&counts, &report, service_accepted, before);
            let said = summary.complaints.join("; ");
            assert!(!summary.is_good() && said.contains(expected), "{expected:?} in {said:?}");
            assert!(summary.words(10).contains("NOT GOOD"));
        }
    }
}
