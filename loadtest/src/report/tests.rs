//! The page of a made-up run: whole, self-contained, and safe against what names may hold.

use super::*;
use crate::record::{Percentiles, SecondRow};
use crate::result::{Series, StateSpan};
use crate::timeline::Event;

pub(super) fn made_up() -> RunResult {
    let mut result = RunResult::blank(crate::scenario::Scenario::load("smoke").unwrap(), "0a1b2c3d");
    let rise = |top: f64| (0..40).map(|n| if n < 10 { top } else { top / 4.0 }).collect::<Vec<f64>>();
    result.series = Series {
        step_s: 0.5,
        offered: rise(4_000.0),
        accepted: rise(3_900.0),
        refused: vec![0.0; 40],
        retried: vec![0.0; 40],
        settled: vec![1_500.0; 40],
        wallet: vec![1_500.0; 40],
        backlog: (0..40).map(|n| f64::from(40 - n) * 100.0).collect(),
    };
    let row = |at_s| SecondRow { at_s, count: 10, p50_us: 900, p90_us: 2_000, p99_us: 9_000, max_us: 40_000 };
    result.accept_rows = (0..20).map(row).collect();
    result.accept_curve = vec![(0.0, 500), (90.0, 2_000), (99.0, 9_000)];
    result.accept = Percentiles { p50: 900, p90: 2_000, p99: 9_000, p999: 20_000, max: 40_000, count: 200 };
    result.load_end_s = 10.0;
    result.drained_s = Some(18.0);
    result.events.push(Event {
        at_s: 3.0,
        until_s: Some(5.0),
        on: "wallet".to_owned(),
        kind: "freeze".to_owned(),
        words: "frozen".to_owned(),
        failure: None,
    });
    let state = "held back: <script>alert(1)</script>".to_owned();
    result.states.push(StateSpan { on: "breaker of instance-0".to_owned(), from_s: 3.2, to_s: 5.4, state });
    result.verdict = crate::verdict::judge(&result, false, &[]);
    result
}

#[test]
fn the_page_is_whole_and_opens_without_a_network() {
    let html = of_run(&made_up());
    for part in [
        "The rush and the valley",
        "Latency over time",
        "Latency by percentile",
        "Faults and what held back",
        "Where it ran",
    ] {
        assert!(html.contains(part), "{part}");
    }
    for outside in ["http://", "https://", "<link rel=\"stylesheet", "src=", "@import", "url("] {
        assert!(!html.contains(outside), "the page reaches for {outside}");
    }
    // What a manager should see at a glance is written where it is.
    assert!(html.contains("taken in, to be settled later") && html.contains("the valley, filled"));
    assert!(html.contains(">wallet: frozen</text>"));
    assert!(!html.contains("<script>alert"), "names are text, never markup");
    assert!(html.contains("prefers-color-scheme:dark"));
    assert!(!html.contains("NaN") && !html.contains("inf"), "no number went wrong");
    assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
}

#[test]
fn a_run_in_which_nothing_happened_has_a_page_too() {
    let html = of_run(&RunResult::blank(crate::scenario::Scenario::load("steady").unwrap(), "x"));
    assert!(html.contains("Nothing was broken on purpose") && !html.contains("NaN"));
}

#[test]
fn two_runs_are_drawn_over_each_other() {
    let (mut a, mut b) = (made_up(), made_up());
    b.accept_rows.iter_mut().for_each(|row| row.p99_us *= 2);
    let html = of_two(&a, &b);
    assert!(html.contains("Too short to tell") && html.contains("too short"), "{html}");
    for run in [&mut a, &mut b] {
        run.accept_rows = (0..60).map(|at_s| SecondRow { at_s, ..run.accept_rows[0] }).collect();
    }
    let html = of_two(&a, &b);
    assert!(html.contains("1 worse, 0 better"), "{html}");
    assert!(html.contains("B: accepted") && !html.contains("NaN"));
}

#[test]
fn a_long_run_has_no_more_points_than_can_be_seen() {
    let mut result = made_up();
    let row = |at_s| SecondRow {
        at_s,
        count: 10,
        p50_us: 900,
        p90_us: 2_000,
        p99_us: 9_000 + at_s,
        max_us: 90_000,
    };
    result.accept_rows = (0..43_200).map(row).collect();
    result.series.step_s = 60.0;
    result.series.offered = vec![100.0; 720];
    let html = of_run(&result);
    assert!(html.len() < 600_000, "{} bytes", html.len());
    assert!(html.contains("the worst second of each 73"));
    assert!(html.contains("The rush, close up") && !of_run(&made_up()).contains("The rush, close up"));
}
