//! The adaptive limit by tables, and against wallets in virtual time that are full, slow, lossy or silent.

use super::*;

const MS: u64 = 1_000_000;

/// A wallet with a queue, asked by one sender at the limit's pace; transfers are a fluid.
struct Model {
    queue: f64,
    offered: f64,
    refused: f64,
    served: f64,
}

fn run(limit: &mut Limit, model: &mut Model, from_ms: u64, for_ms: u64, lease: f64, capacity: f64) {
    (model.offered, model.refused, model.served) = (0.0, 0.0, 0.0);
    for ms in (from_ms..from_ms + for_ms).step_by(10) {
        let rate = limit.value().map_or(lease, |value| (value as f64).min(lease));
        let arriving = rate * 0.01;
        let room = (capacity * 0.2 - model.queue).max(0.0);
        let taken = arriving.min(room);
        model.queue += taken;
        let served = model.queue.min(capacity * 0.01);
        model.queue -= served;
        model.offered += arriving;
        model.refused += arriving - taken;
        model.served += served;
        let took_ns = (5.0 * MS as f64 + model.queue / capacity * 1e9) as u64;
        let sample = Sample {
            took_ns,
            healthy: served.round() as u64,
            overloaded: (arriving - taken).round() as u64,
            under_way: 1,
            ..Sample::default()
        };
        limit.record(ms * MS, sample);
    }
}

#[test]
fn finds_a_capacity_that_nobody_configured_down_and_up() {
    let mut limit = Limit::new(Measure::RatePerS, 10);
    let mut model = Model { queue: 0.0, offered: 0.0, refused: 0.0, served: 0.0 };
    run(&mut limit, &mut model, 0, 5_000, 30_000.0, 50_000.0);
    assert_eq!(limit.value(), None, "nothing is in the way");
    assert_eq!(limit.moves(), Moves::default());
    let mut now = 5_000;
    for capacity in [10_000.0, 30_000.0, 5_000.0, 20_000.0] {
        run(&mut limit, &mut model, now, 5_000, 30_000.0, capacity);
        run(&mut limit, &mut model, now + 5_000, 5_000, 30_000.0, capacity);
        assert!(model.refused / model.offered < 0.02, "{capacity}: {}", model.refused / model.offered);
        let used = model.served / 5.0 / capacity;
        assert!(used > 0.85, "{capacity}: {used}");
        now += 10_000;
    }
}

#[test]
fn a_wallet_that_is_slower_and_not_congested_is_not_starved() {
    let mut limit = Limit::new(Measure::UnderWay, 1);
    for ms in (0..30_000).step_by(10) {
        let took_ns = if ms < 5_000 { 5 * MS } else { 100 * MS };
        let under_way = limit.value().unwrap_or(64).min(64);
        let sample = Sample { took_ns, healthy: 10, under_way, ..Sample::default() };
        limit.record(ms * MS, sample);
    }
    assert!(limit.value().is_none_or(|value| value >= 60), "{:?}", limit.value());
}

#[test]
fn who_is_behind_catches_up_as_long_as_nothing_is_in_the_way() {
    let grown = |behind: f64| {
        let mut limit = Limit::new(Measure::RatePerS, 1);
        limit.record(100 * MS, Sample { overloaded: 100, under_way: 1, ..Sample::default() });
        let before = limit.value().expect("cut");
        limit.set_behind(behind);
        for step in 2..40 {
            let value = limit.value().expect("limited");
            let sample = Sample { took_ns: MS, healthy: value / 10, under_way: 1, ..Sample::default() };
            limit.record(step * 100 * MS, sample);
            if limit.value().expect("limited") >= 2 * before {
                return step;
            }
        }
        40
    };
    assert_eq!((grown(-1.0), grown(0.0)), (15, 15));
    assert_eq!((grown(0.4), grown(2.0), grown(1e9)), (6, 3, 3));
}

#[test]
fn who_has_a_narrower_way_than_others_is_not_driven_against_it() {
    let mut limit = Limit::new(Measure::RatePerS, 1);
    limit.set_behind(10.0);
    let (mut refused, mut taken) = (0, 0);
    for step in 1..600 {
        let tried = limit.value().unwrap_or(1_000).min(1_000) / 10;
        let healthy = tried.min(20);
        let sample =
            Sample { took_ns: MS, healthy, overloaded: tried - healthy, under_way: 1, ..Sample::default() };
        limit.record(step * 100 * MS, sample);
        if step > 100 {
            (refused, taken) = (refused + tried - healthy, taken + healthy);
        }
    }
    let share = refused as f64 / (refused + taken) as f64;
    assert!(share < 0.06, "{share:.3} of it refused");
    assert!(taken > 500 * 17, "{taken} of 10,000 taken");
}

#[test]
fn where_nothing_is_answered_in_time_less_is_sent_however_slow_calls_are() {
    let mut limit = Limit::new(Measure::RatePerS, 1);
    for ms in (0..12_000).step_by(10) {
        let is_well = ms < 2_000;
        let (healthy, lost) = if is_well { (10, 0) } else { (0, 10) };
        let took_ns = if is_well { 1_100 * MS } else { 2_000 * MS };
        let sample =
            Sample { took_ns, healthy, lost, timed_out: !is_well, under_way: 1, ..Sample::default() };
        limit.record((2_000 + ms) * MS, sample);
    }
    assert!(limit.value().is_some_and(|value| value < 500), "{:?}", limit.value());
}

#[test]
fn a_wallet_that_came_back_far_slower_is_not_held_against_what_it_was() {
    let mut limit = Limit::new(Measure::RatePerS, 10);
    let calls = |limit: &mut Limit, from_ms: u64, took_ms: u64| {
        for ms in (from_ms..from_ms + 5_000).step_by(10) {
            let sample = Sample { took_ns: took_ms * MS, healthy: 10, under_way: 1, ..Sample::default() };
            limit.record(ms * MS, sample);
        }
    };
    calls(&mut limit, 0, 5);
    limit.restart(5_000 * MS);
    assert_eq!(limit.latency_floor_ns(), None);
    calls(&mut limit, 5_800, 800);
    assert_eq!((limit.value(), limit.latency_floor_ns()), (None, Some(800 * MS)));
}

#[test]
fn a_network_that_loses_a_part_of_everything_does_not_starve_it() {
    for lost_in_ten in [2, 3] {
        let (mut limit, mut dice) = (Limit::new(Measure::RatePerS, 1), 7u64);
        let (mut sent, mut credit) = (0.0, 0.0);
        for ms in (0..20_000).step_by(10) {
            let rate = limit.value().unwrap_or(10_000).min(10_000);
            credit += rate as f64 / 100.0;
            let count = credit as u64;
            credit -= count as f64;
            if count == 0 {
                continue;
            }
            sent += if ms >= 10_000 { count as f64 } else { 0.0 };
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let is_lost = (dice >> 33) % 10 < lost_in_ten;
            let (healthy, lost) = if is_lost { (0, count) } else { (count, 0) };
            let took_ns = if is_lost { 400 * MS } else { 5 * MS };
            let sample =
                Sample { took_ns, healthy, lost, timed_out: is_lost, under_way: 1, ..Sample::default() };
            limit.record(ms * MS, sample);
        }
        assert!(sent > 90_000.0, "{lost_in_ten} of ten lost: {sent} sent in ten seconds");
    }
}

#[test]
fn a_call_held_up_now_and_then_is_no_queue_however_rare_calls_are() {
    // Between two calls, ms; every how many-th is slow; the limit there may be.
    for (pause_ms, slow_of, is_limited) in [(60, 3, false), (90, 2, false), (240, 3, false), (60, 1, true)] {
        let mut limit = Limit::new(Measure::RatePerS, 1);
        for call in 0..10_000 / pause_ms {
            let is_slow = call > 20 && call % slow_of == 0;
            let took_ns = if is_slow { 120 * MS } else { 5 * MS };
            let sample = Sample { took_ns, healthy: 1, under_way: 1, ..Sample::default() };
            limit.record(call * pause_ms * MS, sample);
        }
        let is_seen = limit.value().is_some();
        assert_eq!(is_seen, is_limited, "every {pause_ms} ms, one of {slow_of} slow: {:?}", limit.value());
    }
}

#[test]
fn silence_is_a_queue() {
    let mut limit = Limit::new(Measure::RatePerS, 1);
    for ms in (0..3_000).step_by(10) {
        let is_well = ms < 1_000;
        let (healthy, lost) = if is_well { (100, 0) } else { (0, 100) };
        let took_ns = if is_well { 5 * MS } else { 400 * MS };
        limit.record(
            ms * MS,
            Sample { took_ns, healthy, lost, timed_out: !is_well, under_way: 1, ..Sample::default() },
        );
    }
    assert!(limit.value().is_some_and(|value| value < 5_000), "{:?}", limit.value());
}

#[test]
fn grows_out_of_a_fraction() {
    let mut limit = Limit::new(Measure::UnderWay, 1);
    limit.record(100 * MS, Sample { overloaded: 5, under_way: 2, ..Sample::default() });
    assert_eq!(limit.value(), Some(1), "1.9, and no more than one can be under way");
    for step in 2..40 {
        let under_way = limit.value().unwrap_or(1);
        limit.record(step * 100 * MS, Sample { took_ns: MS, healthy: 5, under_way, ..Sample::default() });
    }
    assert!(limit.value() > Some(8), "{:?}", limit.value());
}

#[test]
fn refusals_halve_at_most_and_the_floor_stands() {
    let mut limit = Limit::new(Measure::UnderWay, 2);
    let mut at_floor = Vec::new();
    for step in 1..40 {
        let sample = Sample { overloaded: 5, under_way: 16, ..Sample::default() };
        limit.record(step * 100 * MS, sample);
        if step == 1 {
            assert_eq!(limit.value(), Some(15));
            let Moves { down, up, answered, overloaded, .. } = limit.moves();
            assert_eq!((down, up, answered, overloaded), (1, 0, 5, 5), "what made it");
        }
        if limit.value == Some(2.0) {
            at_floor.push(limit.moves().down);
        }
    }
    assert_eq!(limit.value(), Some(2));
    assert!(at_floor.len() > 10 && at_floor[1..].windows(2).all(|pair| pair[0] == pair[1]), "{at_floor:?}");
}

#[test]
fn a_few_slow_calls_are_no_queue() {
    let slow = |healthy, under_way| Sample { took_ns: 60 * MS, healthy, under_way, ..Sample::default() };
    let mut limit = Limit::new(Measure::RatePerS, 1);
    limit.record(100 * MS, Sample { took_ns: 5 * MS, ..slow(1, 1) });
    // One a tenth of a second, and each was slow: nothing is known before there were twenty in a row.
    for tenth in 2..21 {
        limit.record(tenth * 100 * MS, slow(1, 1));
    }
    assert_eq!(limit.value(), None);
    // A thousand a second go well; then the processor is busy with something else for twenty seconds.
    for tenth in 21..30 {
        limit.record(tenth * 100 * MS, Sample { took_ns: 5 * MS, ..slow(100, 4) });
    }
    for tenth in 30..120 {
        let took_ns = (60 + tenth * 37 % 50) * MS;
        let healthy = limit.value().unwrap_or(1_000) / 10;
        limit.record(tenth * 100 * MS, Sample { took_ns, ..slow(healthy, 4) });
    }
    assert!(limit.value().is_some_and(|value| value >= 125), "{:?}", limit.value());
}

#[test]
fn what_came_back_before_a_rest_is_not_spread_over_it() {
    for rest_ms in [1_000, 30_000] {
        let mut limit = Limit::new(Measure::RatePerS, 1);
        let call = |ms: u64, took_ms: u64, healthy: u64| {
            (ms * MS, Sample { took_ns: took_ms * MS, healthy, under_way: 1, ..Sample::default() })
        };
        for ms in (10..1_000).step_by(10) {
            let (at, sample) = call(ms, 5, 10);
            limit.record(at, sample);
        }
        // A few slow ones, too few to tell; then a rest, and slow ones again.
        for ms in (1_010..1_060).step_by(10).chain([1_060 + rest_ms, 1_070 + rest_ms]) {
            let (at, sample) = call(ms, 120, 50);
            limit.record(at, sample);
        }
        assert!(limit.value().is_none_or(|value| value >= 400), "{rest_ms}: {:?}", limit.value());
    }
}

#[test]
fn slow_calls_one_after_the_other_are_seen_though_they_come_back_seldom() {
    let mut limit = Limit::new(Measure::RatePerS, 1);
    for call in 0..10 {
        let took_ns = if call < 2 { 5 * MS } else { 700 * MS };
        let sample = Sample { took_ns, healthy: 50, under_way: 1, ..Sample::default() };
        limit.record((1_000 + call * 700) * MS, sample);
    }
    assert!(limit.value().is_some());
}
