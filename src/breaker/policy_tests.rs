//! The policy as tables: what the board shows, and which state follows.

use std::collections::BTreeMap;

use super::super::board::{Member, Said, View};
use super::super::classify::Counts;
use super::*;

const NOW: u64 = 1_000_000;

/// An instance: healthy and failed transfers of its window, whether it is for stopping, probes.
type Row = (u64, u64, bool, (u64, u64));

fn view(phase: Phase, rows: &[Row]) -> View {
    let settings = Settings { rate_per_s: 1_000, calls_max: 10, ..Settings::default() };
    let mut state = State::new(settings, NOW - 1_000);
    (state.phase, state.epoch) = (phase, 3);
    let member = |(healthy, timeout, is_for_stopping, (probes_ok, probes_bad)): &Row| {
        let counts = Counts { healthy: *healthy, timeout: *timeout, ..Counts::default() };
        let (epoch, is_for_stopping) = (3, *is_for_stopping);
        let (probes_ok, probes_bad) = (*probes_ok, *probes_bad);
        let said = Said { epoch, counts, is_for_stopping, probes_ok, probes_bad, ..Said::default() };
        Member { seen_ms: NOW - 50, said, ..Member::default() }
    };
    let members: BTreeMap<String, Member> =
        rows.iter().enumerate().map(|(n, row)| (n.to_string(), member(row))).collect();
    View { now_ms: NOW, state, members }
}

fn next(phase: Phase, rows: &[Row]) -> Option<&'static str> {
    decide(&view(phase, rows)).map(|state| state.phase.as_str())
}

const WELL: Row = (50, 0, false, (0, 0));
const ILL: Row = (10, 90, true, (0, 0));
const IDLE: Row = (0, 0, false, (0, 0));

#[test]
fn trips_on_volume_rate_and_a_majority_of_those_with_volume() {
    let table: [(&[Row], Option<&str>); 11] = [
        (&[WELL, WELL], None),
        (&[ILL], Some("open")),
        (&[ILL, WELL], None),
        (&[ILL, WELL, WELL], None),
        (&[ILL, ILL, WELL], Some("open")),
        (&[ILL, IDLE, IDLE], Some("open")),
        (&[(0, 3, true, (0, 0))], None),
        (&[(0, 4, true, (0, 0))], Some("open")),
        (&[(0, 3, true, (0, 0)); 6], None),
        (&[(0, 4, true, (0, 0)); 6], Some("open")),
        (&[(60, 40, true, (0, 0))], None),
    ];
    for (rows, expected) in table {
        assert_eq!(next(Phase::Closed, rows), expected, "{rows:?}");
        let ramp = Phase::Ramp { cap_permille: 200, step_at_ms: NOW + 1 };
        assert_eq!(next(ramp, rows), expected, "in the ramp: {rows:?}");
    }
}

#[test]
fn what_was_said_in_another_epoch_or_long_ago_has_no_vote() {
    for spoil in [(|member: &mut Member| member.said.epoch = 2) as fn(&mut Member), |member: &mut Member| {
        member.seen_ms = NOW - 600
    }] {
        let mut view = view(Phase::Closed, &[ILL, ILL, WELL]);
        assert!(decide(&view).is_some());
        view.members.values_mut().for_each(spoil);
        assert_eq!(decide(&view), None);
    }
}

#[test]
fn half_open_closes_after_k_and_reopens_past_n_less_k() {
    let probes = |list: &[(u64, u64)]| -> Vec<Row> { list.iter().map(|p| (0, 0, false, *p)).collect() };
    type Case<'a> = (&'a [(u64, u64)], Option<&'a str>);
    let table: [Case<'_>; 8] = [
        (&[(0, 0), (0, 0)], None),
        (&[(3, 0), (2, 0)], None),
        (&[(3, 0), (3, 0)], Some("ramp")),
        (&[(0, 1)], None),
        (&[(0, 2)], Some("open")),
        (&[(0, 1), (0, 0)], None),
        (&[(2, 2), (4, 0), (0, 0), (0, 0)], Some("ramp")),
        (&[(0, 3), (0, 0), (0, 0), (0, 0)], Some("open")),
    ];
    for (list, expected) in table {
        assert_eq!(next(Phase::HalfOpen, &probes(list)), expected, "{list:?}");
    }
}

#[test]
fn each_opening_in_a_row_is_longer_up_to_a_bound_and_calm_forgives() {
    let mut view = view(Phase::Closed, &[ILL]);
    for expected_ms in [500, 1_000, 2_000, 4_000, 4_000] {
        let open = decide(&view).expect("it trips");
        assert_eq!(open.phase, Phase::Open { until_ms: NOW + expected_ms });
        assert!(
            open.history.back().is_some_and(|change| change.reason.contains("90 of 100 transfers failed"))
        );
        view.state = open;
        assert_eq!(decide(&view), None, "not before its time");
        view.state.phase = Phase::Closed;
        view.members.values_mut().for_each(|member| member.said.epoch = view.state.epoch);
    }
    view.members.clear();
    view.state.since_ms = NOW - view.state.settings.calm_ms;
    assert_eq!(decide(&view).map(|state| state.opens_in_a_row), Some(0));
}

#[test]
fn the_ramp_comes_back_in_steps() {
    let mut view = view(Phase::Ramp { cap_permille: 100, step_at_ms: NOW }, &[WELL]);
    let mut caps = vec![view.state.terms().cap_rate_per_s];
    while let Some(state) = decide(&view) {
        view.state = state;
        caps.push(view.state.terms().cap_rate_per_s);
        view.now_ms += view.state.settings.ramp_step_ms;
        view.members.values_mut().for_each(|member| member.seen_ms = view.now_ms);
        if view.state.phase == Phase::Closed {
            break;
        }
    }
    assert_eq!((caps[0], caps[1], caps.last()), (100, 140, Some(&1_000)));
    assert!(caps.windows(2).all(|pair| pair[1] <= pair[0] + pair[0] / 2 + 1), "{caps:?}");
}

#[test]
fn an_operators_word_stands_until_auto() {
    let view = view(Phase::Closed, &[ILL, ILL]);
    let closed = view.state.wished(NOW, Wish::Close, "ann", "known to be harmless");
    assert_eq!(decide(&View { state: closed, ..view.clone() }), None, "it would trip");
    let open = view.state.wished(NOW, Wish::Open, "ann", "maintenance");
    let later = View { now_ms: NOW + 10_000_000, state: open.clone(), ..view.clone() };
    assert_eq!((decide(&later), open.terms().cap()), (None, Amount::default()));
    let auto = open.wished(NOW, Wish::Auto, "ann", "done");
    assert_eq!((auto.phase, auto.held), (Phase::HalfOpen, None), "it tries first");
    let by: Vec<&str> = auto.history.iter().map(|change| change.by.as_str()).collect();
    assert_eq!(by, ["ann", "ann"]);
}

#[test]
fn an_epoch_begins_with_an_opening_and_with_nothing_else() {
    let state = State::new(Settings { rate_per_s: 10, ..Settings::default() }, NOW);
    let open = state.wished(NOW, Wish::Open, "ann", "why");
    assert_eq!((state.epoch, open.epoch), (1, 2));
    let more = open.with_settings(NOW, Settings { rate_per_s: 20, ..Settings::default() }, "bob", "more");
    assert_eq!((more.epoch, more.phase, more.version), (2, open.phase, open.version + 1));
    assert_eq!(more.wished(NOW, Wish::Open, "ann", "still").epoch, 2);
}

#[test]
fn a_clock_that_goes_back_keeps_nothing_open_and_no_step_waiting() {
    let mut view = view(Phase::Open { until_ms: NOW + 4_000 }, &[]);
    assert_eq!(decide(&view), None);
    view.now_ms -= 1;
    let state = decide(&view).expect("longer than it may be open");
    assert_eq!(state.phase, Phase::HalfOpen);
    assert!(state.history.back().is_some_and(|change| change.reason.contains("clock went back")));
    view.state.phase = Phase::Ramp { cap_permille: 100, step_at_ms: NOW + 3_600_000 };
    assert!(matches!(decide(&view).map(|s| s.phase), Some(Phase::Ramp { cap_permille: 140, .. })));
    let held = view.state.wished(NOW, Wish::Open, "ann", "why");
    assert_eq!(decide(&View { state: held, ..view.clone() }), None, "an operator's word has no time");
    view.state = State { opens_in_a_row: 3, phase: Phase::Closed, since_ms: NOW + 3_600_000, ..view.state };
    assert_eq!(decide(&view).map(|state| state.opens_in_a_row), Some(0));
}

#[test]
fn a_number_that_was_never_written_is_refused_by_name() {
    let good = State::new(Settings { rate_per_s: 10, ..Settings::default() }, NOW);
    good.check().expect("as it begins");
    good.wished(NOW, Wish::Open, "ann", "why").check().expect("for ever");
    type Spoil = fn(&mut State);
    let table: [(Spoil, &str); 6] = [
        (|state| state.version = u64::MAX, "larger"),
        (|state| state.phase = Phase::Open { until_ms: NEVER_MS + 1 }, "larger"),
        (|state| state.phase = Phase::Ramp { cap_permille: 1_001, step_at_ms: 1 }, "larger"),
        (|state| state.settings.rate_per_s = 1 << 60, "shaping.transfers_per_s"),
        (|state| state.settings.open_ms = u64::MAX, "breaker.open_ms"),
        (|state| state.settings.window_ms = 0, "breaker.window_ms"),
    ];
    for (spoil, expected) in table {
        let mut state = good.clone();
        spoil(&mut state);
        let why = state.check().expect_err(expected);
        assert!(why.contains(expected), "{why}");
    }
}
