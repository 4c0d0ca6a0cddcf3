//! What a run came to: objectives, what makes it void, what makes it a loss, and the words for it.
//!
//! What holds: a loss outweighs everything; a void run proves nothing and passes nothing. Pure.

use crate::result::{Check, Ids, Objective, Outcome, RunResult, Verdict, Witness};
use crate::words::{grouped, micros, seconds};

/// Ids and the like that are named among the complaints.
const TOLD_MAX: usize = 5;

/// Everything that the scenario asks for, held against what was measured.
pub fn objectives(result: &RunResult) -> Vec<Objective> {
    let wanted = &result.scenario.objectives;
    let mut list = Vec::new();
    let mut at_most =
        |what: &str, limit: Option<f64>, measured: Option<f64>, show: &dyn Fn(f64) -> String| {
            let Some(limit) = limit else { return };
            list.push(Objective {
                what: what.to_owned(),
                limit: format!("at most {}", show(limit)),
                measured: measured.map_or_else(|| "not measured".to_owned(), show),
                // What was not measured was not shown to hold.
                passed: measured.is_some_and(|measured| measured <= limit),
            });
        };
    let ms = |ms: f64| micros((ms * 1e3) as u64);
    let of = |us: u64, count: u64| (count > 0).then_some(us as f64 / 1e3);
    let accept = result.accept;
    at_most("half of the promises within", wanted.accept_p50_ms, of(accept.p50, accept.count), &ms);
    at_most("99 of 100 promises within", wanted.accept_p99_ms, of(accept.p99, accept.count), &ms);
    at_most("999 of 1,000 promises within", wanted.accept_p999_ms, of(accept.p999, accept.count), &ms);
    let settle = result.settle;
    let settle_s = (settle.count > 0).then_some(settle.p99 as f64 / 1e6);
    at_most("99 of 100 settled within", wanted.settle_p99_s, settle_s, &seconds);
    let counts = &result.counts;
    let should = (counts.submitted + counts.unsent).max(1) as f64;
    let percent = |share: f64| format!("{:.3} %", share * 100.0);
    let refused = counts.refused_total() as f64 / should;
    at_most("share refused", wanted.refused_share_max, Some(refused), &percent);
    let rate = |per_s: f64| format!("{}/s", grouped(per_s as u64));
    let peak = result.wallet_peak_per_s.map(|peak| peak as f64);
    at_most("most sent to the wallet in a second", wanted.wallet_peak_per_s, peak, &rate);
    let drained = result.drained_s.map(|at| (at - result.load_end_s).max(0.0));
    at_most("nothing left open after the load within", wanted.drained_within_s, drained, &seconds);
    if let Some(least) = wanted.accept_per_s_min {
        let measured = result.summary.accept_per_s as f64;
        list.push(Objective {
            what: "accepted a second over the load".to_owned(),
            limit: format!("at least {}", rate(least)),
            measured: rate(measured),
            passed: measured >= least,
        });
    }
    if let Some(search) = &result.scenario.search {
        let lowest = result.search.iter().map(|step| step.per_s as u64).min().unwrap_or(0);
        let best = result.summary.capacity_per_s.map(grouped);
        list.push(Objective {
            what: "requests a second that meet the limit".to_owned(),
            limit: format!("99 of 100 promises within {}", ms(search.accept_p99_ms)),
            passed: best.is_some(),
            measured: best
                .unwrap_or_else(|| format!("none; the least that was tried were {}", grouped(lowest))),
        });
    }
    let left = result.check.ids.as_ref().map(|ids| ids.pending);
    list.push(Objective {
        what: "every promise final in the end".to_owned(),
        limit: format!("within {} of the load's end", seconds(result.scenario.setup.settle_within_s)),
        measured: match left {
            None => "not measured".to_owned(),
            Some(0) => "all".to_owned(),
            Some(left) => format!("{} still open", grouped(left)),
        },
        passed: left == Some(0),
    });
    list
}

fn void_reasons(result: &RunResult) -> Vec<String> {
    let (counts, settings) = (&result.counts, &result.scenario.generator);
    let mut reasons = Vec::new();
    let late = counts.late as f64 / (counts.calls.max(1)) as f64;
    if late > settings.lag_share_max {
        reasons.push(format!(
            "the load generator itself was more than {} ms late with {:.1} % of its calls (worst {}; allowed {:.1} %): \
             give it a core of its own, or a second machine",
            settings.lag_ms,
            late * 100.0,
            micros(counts.lag_us_max),
            settings.lag_share_max * 100.0
        ));
    }
    if counts.unsent > 0 {
        reasons.push(format!("{} requests that were due were never sent", grouped(counts.unsent)));
    }
    reasons.extend(result.check.gaps.iter().map(|gap| format!("a part could not be checked: {gap}")));
    reasons
}

fn losses(check: &Check, violations: u64) -> Vec<String> {
    let of = |count: fn(&Ids) -> u64| check.ids.as_ref().map_or(0, count);
    let table = [
        (check.lost.unwrap_or(0), "promised and lost"),
        (check.double_paid.unwrap_or(0), "accounts were paid too much"),
        (check.short_paid.unwrap_or(0), "accounts were paid too little"),
        (of(|ids| ids.altered), "with an amount that was never asked for"),
        (of(|ids| ids.paid_unasked), "paid though they were refused or failed"),
        (violations, "answers broke a promise of the door"),
    ];
    let mut found: Vec<String> = table
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, words)| format!("{}: {words}", grouped(count)))
        .collect();
    if check.books_balanced == Some(false) {
        found.push("the books do not balance".to_owned());
    }
    found
}

/// Among the complaints of a run that somebody ended before its time.
pub const INTERRUPTED: &str = "it was interrupted before its end";

/// The verdict; `interrupted`: somebody ended the run before its time.
pub fn judge(result: &RunResult, interrupted: bool, failures: &[String]) -> Verdict {
    let mut voids = void_reasons(result);
    voids.extend(failures.iter().cloned());
    if interrupted {
        voids.push(INTERRUPTED.to_owned());
    }
    let losses = losses(&result.check, result.counts.violations.count);
    let missed: Vec<String> = result
        .objectives
        .iter()
        .filter(|objective| !objective.passed)
        .map(|objective| format!("{}: {}, {}", objective.what, objective.measured, objective.limit))
        .collect();
    let outcome = match (losses.is_empty(), voids.is_empty(), missed.is_empty()) {
        (false, ..) => Outcome::Loss,
        (_, false, _) => Outcome::Void,
        (.., false) => Outcome::Fail,
        (true, true, true) => Outcome::Pass,
    };
    let headline = match outcome {
        Outcome::Loss => "LOSS: money went astray".to_owned(),
        Outcome::Void if interrupted => {
            "VOID (interrupted): what was promised until then was checked, and nothing else is proven"
                .to_owned()
        }
        Outcome::Void => "VOID: this run proves nothing".to_owned(),
        Outcome::Fail => format!(
            "FAIL: every payment is right{}, but not everything that was asked for held",
            by_whose_word(result.check.counted_at)
        ),
        Outcome::Pass => format!(
            "PASS: every promise was kept exactly once{}, within all limits",
            by_whose_word(result.check.counted_at)
        ),
    };
    let mut complaints = losses;
    complaints.extend(voids);
    complaints.extend(missed);
    let told: Vec<&String> = result.check.told.iter().chain(&result.counts.violations.told).collect();
    complaints.extend(told.iter().take(TOLD_MAX).map(|words| (*words).clone()));
    if told.len() > TOLD_MAX {
        complaints.push("and more of the kind; result.json tells the first twenty".to_owned());
    }
    Verdict { outcome, headline, words: sentences(result), complaints }
}

/// After what was found right: who found it so.
fn by_whose_word(counted_at: Witness) -> &'static str {
    match counted_at {
        Witness::Wallet => "",
        Witness::Audit => " by hongbao's own ledger and audit",
        Witness::Hongbao => " by hongbao's own word (nothing was counted at the wallet)",
    }
}

/// What happened, sentence by sentence.
fn sentences(result: &RunResult) -> Vec<String> {
    let (check, counts) = (&result.check, &result.counts);
    let mut words = Vec::new();
    let peak = result.series.offered.iter().copied().fold(0.0, f64::max);
    let length = result.load_end_s - result.load_begin_s;
    words.push(format!(
        "In {} there came {} requests, {} a second at the peak.",
        seconds(length),
        grouped(counts.offered),
        grouped(peak as u64)
    ));
    let refused = counts.refused_total();
    let refused = if refused == 0 {
        "none was refused".to_owned()
    } else {
        format!("{} were refused", grouped(refused))
    };
    words.push(format!(
        "{} payouts were promised and {refused}; half of the answers came within {}, 99 of 100 within {}.",
        grouped(counts.accepted),
        micros(result.accept.p50),
        micros(result.accept.p99)
    ));
    words.push(became_of_them(check));
    if let Some(claims) = &result.claims {
        words.push(format!(
            "Beside them {} users claimed red packets at the campaign's own backend: {} were promised a share, 99 of 100 \
             within {}, and {} were paid.",
            grouped(claims.claims),
            grouped(claims.promised),
            micros(claims.accept.p99),
            grouped(claims.paid)
        ));
    }
    if let Some(peak) = result.wallet_peak_per_s {
        words.push(format!(
            "The most that the wallet was sent within one second were {} transfers.",
            grouped(peak)
        ));
    }
    if let Some(drained) = result.drained_s.filter(|at| *at > result.load_end_s + 0.5) {
        words.push(format!(
            "The last was settled {} after the last request.",
            seconds(drained - result.load_end_s)
        ));
    }
    if counts.unsent + counts.retried > 0 {
        words.push(format!(
            "{} calls had to be sent again{}.",
            grouped(counts.retried),
            match check.ids.as_ref().filter(|ids| ids.unanswered > 0) {
                Some(ids) => format!(
                    "; {} requests never had a definite answer, {} of them were paid",
                    grouped(ids.unanswered),
                    grouped(ids.unanswered_paid)
                ),
                None => String::new(),
            }
        ));
    }
    words.extend(capacity(result));
    words
}

/// Of what was promised.
fn became_of_them(check: &Check) -> String {
    let Some(ids) = &check.ids else {
        return "What became of them could not be looked up.".to_owned();
    };
    let is_well = (check.lost, ids.pending) == (Some(0), 0)
        && check.double_paid.unwrap_or(0) == 0
        && check.books_balanced == Some(true)
        && check.gaps.is_empty();
    if is_well {
        let failed = match ids.failed {
            0 => String::new(),
            failed => format!(", {} ended unpaid with a reason", grouped(failed)),
        };
        return format!(
            "Every one of them was looked up: {} were paid, each once{}{failed}; none was lost.",
            grouped(ids.succeeded),
            by_whose_word(check.counted_at)
        );
    }
    let too_much = match check.double_paid {
        Some(accounts) => format!("; {} accounts have too much", grouped(accounts)),
        None => String::new(),
    };
    format!(
        "Of these, {} were paid, {} are still open and {} are lost{too_much}.",
        grouped(ids.succeeded),
        grouped(ids.pending),
        grouped(check.lost.unwrap_or(0)),
    )
}

/// What a search found, where it did.
fn capacity(result: &RunResult) -> Option<String> {
    let best = result.summary.capacity_per_s?;
    let has_end = result.search.iter().any(|step| !step.passed && step.per_s as u64 > best);
    let best = grouped(best);
    Some(if has_end {
        format!("The highest rate that met the limit was {best} requests a second.")
    } else {
        format!("At least {best} requests a second meet the limit: the search ended before one missed.")
    })
}

#[cfg(test)]
mod tests;
