//! Verdicts as a table: what was found, and what it makes of the run.

use super::*;
use crate::result::RunResult;
use crate::result::Witness::{Audit, Hongbao, Wallet};

/// A run in which everything went well.
fn good() -> RunResult {
    let scenario = crate::scenario::Scenario::load("smoke").unwrap();
    let mut result = RunResult::blank(scenario, "test");
    result.counts.calls = 1_000;
    result.counts.submitted = 1_000;
    result.counts.accepted = 1_000;
    result.check.acknowledged = 1_000;
    result.check.ids = Some(Ids { succeeded: 1_000, ..Ids::default() });
    result.check.lost = Some(0);
    result.check.books_balanced = Some(true);
    result.accept.count = 1_000;
    result.wallet_peak_per_s = Some(100);
    result
}

#[test]
fn the_verdict_says_who_counted() {
    for (counted_at, says) in [
        (Wallet, "exactly once, within"),
        (Audit, "own ledger and audit"),
        (Hongbao, "nothing was counted at the wallet"),
    ] {
        let mut result = good();
        result.check.counted_at = counted_at;
        let verdict = judge(&result, false, &[]);
        assert!(
            verdict.headline.starts_with("PASS") && verdict.headline.contains(says),
            "{}",
            verdict.headline
        );
        assert_eq!(verdict.words.concat().contains("own word"), counted_at == Hongbao, "{:?}", verdict.words);
    }
}

#[test]
fn what_spoils_a_run() {
    type Spoil = fn(&mut RunResult);
    let table: [(&str, Spoil, Outcome); 12] = [
        ("nothing", |_| (), Outcome::Pass),
        ("slow", |r| r.accept.p99 = 3_000_000, Outcome::Fail),
        (
            "refused",
            |r| {
                r.counts.refused.insert("backlog_full".to_owned(), 1);
            },
            Outcome::Fail,
        ),
        ("still open", |r| r.check.ids_mut().pending = 1, Outcome::Fail),
        ("wallet flooded", |r| r.wallet_peak_per_s = Some(1_000_000), Outcome::Fail),
        ("generator late", |r| r.counts.late = 60, Outcome::Void),
        ("unsent", |r| r.counts.unsent = 1, Outcome::Void),
        ("not checked", |r| r.check.gaps.push("x".to_owned()), Outcome::Void),
        (
            "lost",
            |r| {
                r.check.lost = Some(1);
                r.counts.late = 500
            },
            Outcome::Loss,
        ),
        ("double", |r| r.check.double_paid = Some(1), Outcome::Loss),
        ("unbalanced", |r| r.check.books_balanced = Some(false), Outcome::Loss),
        ("conflict accepted", |r| r.counts.violations.add(|| "x".to_owned()), Outcome::Loss),
    ];
    for (name, spoil, expected) in table {
        let mut result = good();
        spoil(&mut result);
        result.objectives = objectives(&result);
        let verdict = judge(&result, false, &[]);
        assert_eq!(verdict.outcome, expected, "{name}: {:?}", verdict.complaints);
        assert_eq!(verdict.complaints.is_empty(), expected == Outcome::Pass, "{name}");
    }
    let mut result = good();
    result.objectives = objectives(&result);
    assert_eq!(judge(&result, true, &[]).outcome, Outcome::Void);
}

#[test]
fn a_search_passes_by_a_rate_that_meets_the_limit_and_says_whether_it_found_an_end() {
    use crate::result::SearchStep;
    let step = |per_s: f64, passed: bool| SearchStep {
        per_s,
        accepted_per_s: per_s,
        accept: crate::record::Percentiles::default(),
        passed,
        why_not: String::new(),
    };
    for (steps, expected, says) in [
        (vec![step(10.0, true), step(20.0, false)], Outcome::Pass, "The highest rate"),
        (vec![step(10.0, true), step(20.0, true)], Outcome::Pass, "At least 20 requests"),
        (vec![step(10.0, false), step(5.0, false)], Outcome::Fail, "the least that was tried were 5"),
    ] {
        let mut result = good();
        result.scenario = crate::scenario::Scenario::load("capacity").unwrap();
        result.wallet_peak_per_s = None;
        result.summary.capacity_per_s =
            steps.iter().filter(|step| step.passed).map(|step| step.per_s as u64).max();
        result.search = steps;
        result.objectives = objectives(&result);
        let verdict = judge(&result, false, &[]);
        let told = format!("{:?} {:?}", verdict.words, verdict.complaints);
        assert_eq!(verdict.outcome, expected, "{told}");
        assert!(told.contains(says), "{told}");
    }
}
