//! The wallet ill or dead, the one that tries killed, one instance with a broken network, and an operator's word.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::fleet::{Fleet, bound, is_asked, rate, unix_ms};
use crate::load::Load;
use crate::received::{self, Received};
use crate::support::{PATIENCE, await_until, env_number};

/// After what time a fleet whose wallet is ill has stopped.
fn trip_ms_max() -> u64 {
    bound(1_000, 2_000)
}

/// And after what time more each instance has.
fn spread_ms_max() -> u64 {
    bound(200, 500)
}

fn recovery_ms_max() -> u64 {
    bound(10_000, 15_000)
}

/// When the fleet stopped, Unix ms, after something that happened at `from_ms`.
fn await_trip(fleet: &Fleet, from_ms: u64) -> u64 {
    await_until("the fleet to stop", PATIENCE, || {
        let history = fleet.view().state.history;
        history
            .into_iter()
            .find(|change| change.to == "open" && change.at_ms >= from_ms)
            .map(|change| change.at_ms)
    })
}

/// What is to be added to Unix ms for the wallet's own time.
fn offset(fleet: &Fleet) -> i64 {
    let before = unix_ms();
    let now = received::now_ms(fleet.wallet());
    now as i64 - ((before + unix_ms()) / 2) as i64
}

/// Waits for a second of at least nine (eight) tenths of the budget after `from_ms` of the wallet's clock; how long it took.
fn await_recovery(fleet: &Fleet, from_ms: u64) -> u64 {
    let mut last = Received { now_ms: 0, buckets: Vec::new() };
    let deadline = Instant::now() + Duration::from_millis(2 * recovery_ms_max());
    await_until("the wallet to be used again", PATIENCE, || {
        last = received::since(fleet.wallet(), from_ms);
        assert!(Instant::now() < deadline, "{}\n{:?}\n{}", last.picture(), fleet.changes(0), fleet.said());
        let seconds = last.seconds(|bucket| bucket.executed);
        let at = seconds.iter().position(|executed| *executed * 10 >= rate() * bound(9, 8))?;
        Some(100 * (at as u64 + 10))
    })
}

fn must_not_stop_again(fleet: &Fleet, from_ms: u64) {
    fleet.await_phase("closed", PATIENCE);
    let again: Vec<_> = fleet
        .changes(from_ms)
        .into_iter()
        .filter(|(from, to, _)| to == "open" && from != "half_open")
        .collect();
    assert!(again.is_empty(), "a second outage from the ramp: {again:?}");
}

/// The backlog is to last through all of the test.
fn prepared(sets: &[&str]) -> (Fleet, Vec<Load>) {
    let fleet = Fleet::start(0, sets);
    let load = fleet.load(["o0", "o1", "o2"], 3);
    fleet.await_backlog(rate());
    (fleet, load)
}

#[test]
fn all_stop_at_once_when_the_wallet_is_ill_and_come_back_gently() {
    // Open for so long that it can be seen that nobody sends.
    let (mut fleet, load) = prepared(&["breaker.open_ms=1500"]);
    let (mut trip_max, mut recovery_max) = (0, 0);
    for trial in 0..env_number("HONGBAO_FLEET_TRIALS", 1) {
        let began = unix_ms();
        fleet.set_faults(json!({"error_rate": 1.0}));
        let tripped = await_trip(&fleet, began);
        trip_max = trip_max.max(tripped - began);
        let tried = await_until("the first tries", PATIENCE, || {
            let history = fleet.view().state.history;
            let tried = history.iter().find(|change| change.to == "half_open" && change.at_ms > tripped);
            tried.map(|change| change.at_ms)
        });
        // Two rounds of tries at least, so that they can be counted.
        await_until("a second opening", PATIENCE, || {
            let history = fleet.view().state.history;
            history.iter().any(|change| change.to == "open" && change.at_ms > tried).then_some(())
        });
        let ill = received::since(fleet.wallet(), 0);
        let offset = offset(&fleet);
        let at_wallet = |unix_ms: u64| (unix_ms as i64 + offset) as u64;
        // From the first whole tenth after the time allowed to the last before the tries.
        let quiet_from = at_wallet(tripped + spread_ms_max()).div_ceil(100) * 100;
        let strays = ill.sum(quiet_from, at_wallet(tried).saturating_sub(100), |bucket| bucket.entries);
        assert_eq!(strays, 0, "sent though the fleet had stopped\n{}", ill.picture());
        let probed = ill.sum(at_wallet(tried), u64::MAX, |bucket| bucket.calls);
        let entries = ill.sum(at_wallet(tried), u64::MAX, |bucket| bucket.entries);
        let rounds = fleet.changes(tripped).iter().filter(|(_, to, _)| to == "half_open").count() as u64;
        assert!(
            probed <= 6 * rounds && entries <= 8 * probed,
            "{probed} tries of {entries} in {rounds} rounds"
        );
        let back = unix_ms();
        fleet.set_faults(json!({"error_rate": 0.0}));
        recovery_max = recovery_max.max(await_recovery(&fleet, at_wallet(back)));
        must_not_stop_again(&fleet, back);
        println!(
            "{trial}: stopped after {} ms, none sent {} ms later, {probed} tries of {entries} transfers in {rounds} \
             rounds",
            tripped - began,
            spread_ms_max()
        );
    }
    received::since(fleet.wallet(), 0).must_keep_the_budget();

    fleet.kill_wallet();
    let died = unix_ms();
    let tripped = await_trip(&fleet, died);
    trip_max = trip_max.max(tripped - died);
    fleet.restart_wallet();
    let back = unix_ms();
    recovery_max = recovery_max.max(await_recovery(&fleet, 0));
    must_not_stop_again(&fleet, back);
    // Repeats included.
    received::since(fleet.wallet(), 0).must_keep_the_budget();
    println!("the worst: stopped after {trip_max} ms, recovered after {recovery_max} ms");
    assert!(trip_max <= trip_ms_max(), "stopped after {trip_max} ms");
    assert!(recovery_max <= recovery_ms_max(), "recovered after {recovery_max} ms");
    fleet.must_agree(load);
}

#[test]
fn a_wallet_that_takes_calls_and_answers_none_is_stopped_for_long_before_their_deadline() {
    let (fleet, load) = prepared(&["stored_value.deadline_ms=5000"]);
    let began = unix_ms();
    fleet.wallet().signal(Signal::STOP);
    let tripped = await_trip(&fleet, began);
    fleet.wallet().signal(Signal::CONT);
    let (back, at_wallet) = (unix_ms(), received::now_ms(fleet.wallet()));
    let trip_ms = tripped - began;
    println!("stopped {trip_ms} ms after the wallet hung");
    assert!(trip_ms <= bound(1_000, 3_000), "{trip_ms} ms: {:?}", fleet.changes(0));
    let recovery_ms = await_recovery(&fleet, at_wallet);
    must_not_stop_again(&fleet, back);
    assert!(recovery_ms <= recovery_ms_max(), "recovered after {recovery_ms} ms");
    received::since(fleet.wallet(), 0).must_keep_the_budget();
    fleet.must_agree(load);
}

#[test]
fn a_killed_prober_delays_nothing_past_its_permit_and_an_operators_word_holds() {
    // Who is killed has the only permit.
    let (mut fleet, load) = prepared(&["breaker.permits_max=1", "breaker.probes_ok_min=3"]);
    // An operator stops a fleet that is well.
    let opened = unix_ms();
    let said = fleet.breaker(&["open", "--by", "ann", "--reason", "the wallet is being moved"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let offset = offset(&fleet);
    let quiet = ((unix_ms() + spread_ms_max()) as i64 + offset) as u64;
    await_until("a while", PATIENCE, || (received::now_ms(fleet.wallet()) > quiet + 1_500).then_some(()));
    let seen = received::since(fleet.wallet(), quiet.div_ceil(100) * 100);
    assert_eq!(seen.sum(0, u64::MAX, |bucket| bucket.entries), 0, "{}", seen.picture());
    let change = fleet.changes(opened);
    assert_eq!(change.len(), 1, "{change:?}");
    assert_eq!(change[0].2, "ann: the wallet is being moved");
    await_until("readiness to tell", PATIENCE, || {
        let told = fleet.fact(1, "breaker") == "open" && fleet.fact(1, "breaker_by") == "ann";
        told.then_some(())
    });
    let shown = fleet.breaker(&["show"]);
    assert_eq!(shown.code, Some(1), "nothing is sent: {shown:?}");
    assert!(shown.out.contains("by ann: the wallet is being moved"), "{}", shown.out);
    let metrics = fleet.at(1).call("GET /metrics", "").text;
    assert!(metrics.contains("hongbao_breaker{state=\"open\"} 1"), "{metrics}");
    assert_eq!(fleet.breaker(&["auto", "--by", "ann", "--reason", "moved"]).code, Some(0));
    fleet.await_phase("closed", PATIENCE);

    // Whoever has a permit is killed while it tries.
    let ill = unix_ms();
    fleet.set_faults(json!({"error_rate": 1.0}));
    await_trip(&fleet, ill);
    fleet.set_faults(json!({"error_rate": 0.0, "latency_ms": 900.0}));
    let incarnation = |n: usize| {
        let log = fleet.at(n).stderr();
        log.lines().find_map(|line| {
            line.split("breaker_as=").nth(1).map(|name| name.trim().trim_matches('"').to_owned())
        })
    };
    let names: Vec<Option<String>> = (0..3).map(incarnation).collect();
    let (prober, half_open_ms) = await_until("somebody to try", PATIENCE, || {
        let view = fleet.view();
        let is_trying = |name: &Option<String>| {
            let member = view.members.get(name.as_ref().expect("it says who it is"))?;
            (member.permit_epoch == view.state.epoch && member.permit_until_ms > view.now_ms).then_some(())
        };
        (view.state.phase.as_str() == "half_open").then_some(())?;
        let n = names.iter().position(|name| is_trying(name).is_some())?;
        Some((n, view.state.since_ms))
    });
    fleet.instances[prober].take().expect("it runs").kill();
    fleet.set_faults(json!({"latency_ms": 0.0}));
    let closed = fleet.await_phase("closed", PATIENCE);
    let ramp =
        fleet.view().state.history.into_iter().rfind(|change| change.to == "ramp").expect("a ramp").at_ms;
    println!(
        "tries succeeded {} ms after the first permit, closed {} ms after it",
        ramp - half_open_ms,
        closed - half_open_ms
    );
    let tried_ms = ramp - half_open_ms;
    assert!(tried_ms <= 2_000 + bound(1_500, 4_000), "{tried_ms} ms: {:?}", fleet.changes(0));
    assert!(!is_asked() || tried_ms >= 1_000, "{tried_ms} ms: nobody was killed while it tried");
    fleet.must_agree(load);
}

#[test]
fn who_is_cut_off_from_the_wallet_stops_alone_and_others_do_its_work() {
    let (fleet, load) = prepared(&["stored_value.deadline_ms=2000"]);
    let began = received::now_ms(fleet.wallet());
    fleet.to_wallet[0].refuse(true);
    fleet.to_wallet[0].cut();
    await_until("it to say that it is alone", PATIENCE, || {
        (fleet.fact(0, "breaker") == "alone").then_some(())
    });
    let alone = Instant::now();
    await_until("its units to be elsewhere", PATIENCE, || {
        let units = |n: usize| fleet.fact(n, "units").parse::<usize>().unwrap_or(0);
        (units(0) == 0 && units(1) + units(2) == 13).then_some(())
    });
    println!("its units were elsewhere {:?} after it knew", alone.elapsed());
    let from = received::now_ms(fleet.wallet());
    await_until("two seconds of the others", PATIENCE, || {
        (received::now_ms(fleet.wallet()) >= from + 2_100).then_some(())
    });
    let seen = received::since(fleet.wallet(), began);
    let used = seen.rate(from, from + 2_000) / rate() as f64;
    println!("{used:.3} of the budget used by the others");
    assert!(used >= bound(0.8, 0.6), "{used:.3}\n{}\n{}", seen.picture(), fleet.said());
    assert!(fleet.changes(0).is_empty(), "the fleet stopped for one: {:?}", fleet.changes(0));
    fleet.to_wallet[0].refuse(false);
    await_until("it to be well and to work again", PATIENCE, || {
        (fleet.fact(0, "breaker") == "closed" && fleet.fact(0, "units") != "0").then_some(())
    });
    received::since(fleet.wallet(), 0).must_keep_the_budget();
    fleet.must_agree(load);
}
