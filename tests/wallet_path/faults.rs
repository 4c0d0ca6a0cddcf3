//! Faults between the two, one at a time.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::proxy::FaultProxy;
use crate::support::{PATIENCE, await_until, call, env_number};
use crate::{Scene, metric, seconds};

fn directly(address: &str) -> String {
    address.to_owned()
}

#[test]
fn a_tenth_of_the_replies_is_lost_after_execution() {
    let count = env_number("HONGBAO_WALLET_COUNT", 20_000);
    let mut scene = Scene::start(&["drop_after_rate=0.1"], &[], directly);
    let before = scene.received()["transfers"].as_u64().unwrap();
    let began = Instant::now();
    scene.pay("r", count, |n| format!("p{}", n % 5_000));
    scene.await_final();
    let received = scene.received();
    let touches = (received["transfers"].as_u64().unwrap() - before) as f64 / count as f64;
    println!("{count} transfers in {:.1} s, {touches:.3} item touches each, {received}", seconds(began));
    assert!(received["replies_lost"].as_u64().unwrap() > 0, "{received}");
    assert!(touches <= 1.25, "{touches} item touches a transfer");
    scene.must_agree();
}

#[test]
fn requests_lost_before_execution_and_black_holes_fail_nobody() {
    let count = env_number("HONGBAO_WALLET_COUNT", 20_000) / 2;
    let mut proxy = None;
    let mut scene = Scene::start(&["drop_before_rate=0.1"], &["stored_value.deadline_ms=500"], |wallet| {
        let started = FaultProxy::start(wallet.parse().unwrap());
        let address = started.address().to_string();
        proxy = Some(started);
        address
    });
    let proxy = proxy.unwrap();
    scene.pay("r", count / 2, |n| format!("p{}", n % 5_000));
    for _ in 0..2 {
        proxy.blackhole(true);
        let failed =
            |scene: &Scene| metric(scene.service(), "hongbao_wallet_failed_calls_total{kind=\"timed_out\"}");
        let before = failed(&scene);
        // Something is under way all the time.
        scene.pay(&format!("h{before}"), 500, |n| format!("p{n}"));
        await_until("calls to time out", PATIENCE, || (failed(&scene) > before).then_some(()));
        proxy.blackhole(false);
        proxy.cut();
    }
    scene.pay("s", count / 2, |n| format!("p{}", n % 5_000));
    scene.await_final();
    scene.must_agree();
}

#[test]
fn a_frozen_wallet_holds_everything_and_then_all_is_paid() {
    let freeze = env_number("HONGBAO_FREEZE_S", 3);
    let rate = 5_000;
    let sets = [format!("shaping.transfers_per_s={rate}"), "stored_value.deadline_ms=1000".to_owned()];
    let mut scene = Scene::start(&[], &sets.each_ref().map(String::as_str), directly);
    scene.pay("warm", 5_000, |n| format!("p{n}"));
    scene.await_final();
    let resident = |scene: &Scene| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", scene.service().pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().to_owned();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1_024
    };
    let before = resident(&scene);
    scene.set_faults(json!({"pause_s": freeze}));
    let back_at = Instant::now() + Duration::from_secs(freeze);
    let mut backlog = 0;
    while Instant::now() < back_at {
        scene.pay(&format!("f{backlog}"), 2_000, |n| format!("p{n}"));
        backlog += 2_000;
        await_until("a moment", PATIENCE, || {
            (Instant::now() >= back_at - Duration::from_millis(100) || backlog % 2_000 == 0).then_some(())
        });
        std::thread::sleep(Duration::from_millis(200).min(back_at.saturating_duration_since(Instant::now())));
    }
    let ready = scene.service().must("GET /readyz", "", 200);
    let grown = resident(&scene).saturating_sub(before);
    scene.await_final();
    let took = seconds(back_at);
    let bound = 10.0 + backlog as f64 / rate as f64;
    println!(
        "{backlog} waited out {freeze} s; final {took:.1} s after the return (bound {bound:.1}), {grown} MiB more, {ready}"
    );
    assert!(took <= bound, "{took} s after the return, bound {bound}");
    assert!(grown < 100, "{grown} MiB grown while it was frozen");
    assert!(ready["wallet_state"].as_str().unwrap().starts_with("held back"), "{ready}");
    scene.must_agree();
}

/// A percentile of what paying the good ones took, in ms, by the times that the service tells: the 99th of 100,000. Of
/// fewer, those that share the first batches with the slow payee, before it is known, are more than one in a hundred.
fn settle_ms(scene: &Scene, prefix: &str, count: u64, skip: impl Fn(u64) -> bool) -> u64 {
    let percentile = if count >= 100_000 { 99 } else { 90 };
    let mut took = Vec::new();
    for page in 0..count.div_ceil(1_000) {
        let ids: Vec<String> = (page * 1_000..((page + 1) * 1_000).min(count))
            .filter(|n| !skip(*n))
            .map(|n| format!("{prefix}-{n}"))
            .collect();
        let body = json!({ "ids": ids }).to_string();
        let found = scene.service().must("POST /v1/disbursements/lookup", &body, 200);
        for row in found["data"].as_array().unwrap() {
            assert_eq!(row["status"], "SUCCEEDED", "{row}");
            let at = |key: &str| {
                hongbao::request::rfc3339::parse(row[key].as_str().unwrap())
                    .unwrap_or_else(|| panic!("{row}"))
            };
            took.push(at("settled_at") - at("accepted_at"));
        }
    }
    took.sort_unstable();
    took[(took.len() - 1) * percentile / 100]
}

#[test]
fn one_payee_that_holds_up_its_batches_delays_no_others() {
    let count = env_number("HONGBAO_WALLET_COUNT", 20_000).min(100_000);
    // At a pace below what the wallet bears, so that what is measured is not a queue.
    let mut scene = Scene::start(&["latency_ms=5"], &["shaping.transfers_per_s=4000"], directly);
    let slow = |n: u64| n % 1_000 == 500;
    // In portions, as they would come.
    let portions = |scene: &mut Scene, prefix: &str, payee: &dyn Fn(u64) -> String| {
        let began = Instant::now();
        for from in (0..count).step_by(400) {
            let due = Duration::from_millis(from / 3);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            let items: Vec<Value> = (from..(from + 400).min(count))
                .map(|n| json!({"id": format!("{prefix}-{n}"), "payee": payee(n), "amount": 1}))
                .collect();
            let body = json!({"id": format!("b-{prefix}-{from}"), "campaign": "k", "currency": "CNY",
                "total_count": items.len(), "total_amount": items.len(), "items": items});
            scene.service().must("POST /v1/batches", &body.to_string(), 202);
            scene.acks.extend((from..(from + 400).min(count)).map(|n| (format!("{prefix}-{n}"), 1)));
        }
        let paid = |scene: &Scene| metric(scene.service(), "hongbao_outcomes_total{status=\"SUCCEEDED\"}");
        let good = (0..count).filter(|n| !slow(*n)).count() as f64;
        (paid(scene), good)
    };
    portions(&mut scene, "without", &|n| format!("p{n}"));
    scene.await_final();
    let without = settle_ms(&scene, "without", count, slow);
    scene.set_faults(json!({"slow_accounts": ["person:slow"], "slow_ms": 60_000}));
    portions(&mut scene, "with", &|n| if slow(n) { "slow".to_owned() } else { format!("p{n}") });
    await_until("the good ones to be paid", PATIENCE, || {
        let ready = call(&scene.service().address, "GET /readyz", "").ok()?.body;
        (ready["backlog"] == "0").then_some(())
    });
    let parked = scene.service().must("GET /readyz", "", 200)["parked"].clone();
    let with = settle_ms(&scene, "with", count, slow);
    println!(
        "p99 (p90 of fewer than 100,000) of the good ones: {with} ms with the slow payee, {without} ms without; {parked} of it wait apart"
    );
    assert_ne!(parked, "0", "those of the slow payee wait visibly");
    assert!(with as f64 <= 1.5 * without as f64 + 30.0, "{with} ms with, {without} ms without");
    scene.set_faults(json!({"slow_accounts": []}));
    scene.await_final();
    scene.must_agree();
}

#[test]
fn refused_credentials_are_told_and_cost_nothing() {
    let mut scene = Scene::start(&[], &["stored_value.http.authorization=Bearer right-one"], directly);
    // A wallet of the same books that wants another key.
    let address = scene.wallet().address.clone();
    let data = scene.wallet_data();
    scene.wallet.take().unwrap().end_well();
    let mut command = crate::support::hongbao();
    command
        .args(["wallet", "--listen", &address, "--authorization", "Bearer other-one", "--data"])
        .arg(&data);
    let strict = crate::support::Server::listening(command, &data).unwrap();
    scene.pay("r", 100, |n| format!("p{n}"));
    await_until("the refusal to be told", PATIENCE, || {
        let ready = scene.service().must("GET /readyz", "", 200);
        let state = ready["wallet_state"].as_str()?.to_owned();
        assert!(!state.contains("right-one"), "a secret in {state}");
        state.starts_with("stopped").then_some(())
    });
    strict.end_well();
    scene.wallet = Some(crate::start_wallet(&data, &address, &[]));
    scene.await_final();
    scene.must_agree();
}

#[test]
fn an_outage_that_leaves_nothing_to_try_does_not_shut_the_door_for_good() {
    let mut proxy = None;
    let sets = ["accept.wait_s_max=1", "breaker.open_ms_max=500"];
    let mut scene = Scene::start(&[], &sets, |wallet| {
        let started = FaultProxy::start(wallet.parse().unwrap());
        let address = started.address().to_string();
        proxy = Some(started);
        address
    });
    let proxy = proxy.unwrap();
    proxy.refuse(true);
    proxy.cut();
    // Fewer than the tries that it takes to close again.
    scene.pay("r", 5, |n| format!("p{n}"));
    let is_in = |scene: &Scene, state: &str| {
        metric(scene.service(), &format!("hongbao_breaker{{state=\"{state}\"}}")) == 1.0
    };
    await_until("the breaker to open", PATIENCE, || (!is_in(&scene, "closed")).then_some(()));
    // As long as it takes to be told that it will last longer than anything may wait.
    let since = Instant::now();
    await_until("a long outage", PATIENCE, || (since.elapsed() > Duration::from_secs(4)).then_some(()));
    proxy.refuse(false);
    await_until("what waited to be paid", PATIENCE, || {
        (metric(scene.service(), "hongbao_backlog") == 0.0).then_some(())
    });
    // Each that is taken is tried, and after some the breaker is closed.
    let mut asked = 0;
    let mut ask = || {
        asked += 1;
        let id = format!("more-{asked}");
        let body = json!({"id": id, "campaign": "k", "payee": "ann", "amount": 1, "currency": "CNY"});
        scene.service().call("POST /v1/disbursements", &body.to_string()).code
    };
    await_until("the breaker to be closed", PATIENCE, || {
        ask();
        is_in(&scene, "closed").then_some(())
    });
    assert_eq!(ask(), 202);
    scene.await_final();
}
