//! Two made-up runs: what is counted, what is told only, what is not there.

use super::*;
use crate::dice::{Dice, unit};
use crate::observe::{Process, ProcessLook};
use crate::record::SecondRow;
use crate::scenario::Scenario;

/// A run of so many seconds whose latencies are so many times the usual, give or take a tenth.
fn run(seconds: u64, times: f64, seed: u64) -> RunResult {
    let mut dice = Dice::new(seed);
    let mut noisy = |value: f64| value * (0.9 + 0.2 * unit(dice.roll()));
    let mut result = RunResult::blank(Scenario::load("steady").unwrap(), "x");
    result.load_end_s = seconds as f64;
    result.accept_rows = (0..seconds)
        .map(|at_s| {
            let p50_us = noisy(900.0 * times) as u64;
            SecondRow { at_s, count: 100, p50_us, p90_us: 2 * p50_us, p99_us: 5 * p50_us, max_us: 9 * p50_us }
        })
        .collect();
    result.accept.count = 100 * seconds;
    result.accept.p99 = noisy(4_500.0 * times) as u64;
    result.series.step_s = 0.5;
    let mut series = |rate: f64| (0..seconds * 2).map(|_| noisy(rate)).collect::<Vec<f64>>();
    (result.series.offered, result.series.accepted) = (series(100.0), series(100.0));
    result.series.refused = vec![0.0; seconds as usize * 2];
    result.series.retried = vec![0.0; seconds as usize * 2];
    result
}

fn says(changes: &[Change], what: &str) -> Says {
    let found = changes.iter().find(|change| change.what.starts_with(what));
    found.unwrap_or_else(|| panic!("{what}: {changes:?}")).says
}

#[test]
fn a_few_seconds_prove_nothing_and_a_minute_does() {
    let accept = "accept latency, 99 %";
    let of = |seconds, times| compare(&run(seconds, 1.0, 1), &run(seconds, times, 2));
    let table = [
        (6, 3.0, Says::TooShort),
        (60, 1.0, Says::WithinNoise),
        (60, 1.02, Says::WithinNoise),
        (60, 2.0, Says::Worse),
        (60, 0.5, Says::Better),
    ];
    for (seconds, times, expected) in table {
        let changes = of(seconds, times);
        assert_eq!(says(&changes, accept), expected, "{seconds} s, {times}: {changes:?}");
        // One value a run says nothing of its noise, however different.
        assert_eq!(says(&changes, "accept latency over the run, 99 %"), Says::NotJudged, "{changes:?}");
    }
    assert!(headline(&of(6, 3.0)).starts_with("Too short to tell"));
    assert_eq!(headline(&of(60, 1.0)), "Nothing changed beyond noise");
    assert!(headline(&of(60, 2.0)).starts_with("B against A: 2 worse, 0 better"), "half, and 99 %");
    let alike = compare(&run(6, 1.0, 1), &run(6, 1.0, 1));
    assert!(
        alike.iter().all(|change| matches!(change.says, Says::WithinNoise | Says::NotMeasured)),
        "{alike:?}"
    );
}

#[test]
fn what_was_not_measured_is_neither_nothing_nor_better() {
    let (mut a, b) = (run(60, 1.0, 1), run(60, 1.0, 2));
    let look = |at_s| ProcessLook { at_s, cores: 0.5, rss_bytes: 80 << 20 };
    let looks = (0..240).map(|n| look(f64::from(n) * 0.25)).collect();
    a.processes.push(Process { name: "instance-0".to_owned(), looks });
    a.drained_s = Some(63.0);
    let changes = compare(&a, &b);
    for (what, shown) in
        [("memory", "80 MiB"), ("processor time", "5.0 ms"), ("time to settle the rest", "3.0 s")]
    {
        let change = changes.iter().find(|change| change.what.starts_with(what)).unwrap();
        assert_eq!((change.says, change.b.as_str()), (Says::NotMeasured, "not measured"), "{change:?}");
        assert!(change.a == shown || what == "processor time", "{change:?}");
        assert_eq!((change.change, change.change_words()), (None, "-".to_owned()));
    }
    assert!(words(&a, &b).contains("not measured"));
    assert!(!changes.iter().any(|change| change.what.starts_with("highest rate")), "neither is a search");
}

#[test]
fn one_that_is_lost_is_one_too_many() {
    let (mut a, mut b) = (run(6, 1.0, 1), run(6, 1.0, 1));
    a.check.lost = Some(0);
    b.check.lost = Some(1);
    assert_eq!(says(&compare(&a, &b), "lost or paid twice"), Says::Worse);
    assert_eq!(says(&compare(&b, &a), "lost or paid twice"), Says::Better);
}
