//! Two campaigns in different fair queues of one lane: a small one does not wait behind a hundred times as much.

use std::time::{Duration, Instant};

use hongbao::domain::Lane;
use hongbao::intake::QueueId;
use serde_json::json;

use crate::fleet::{Fleet, rate};
use crate::load::body;
use crate::support::{PATIENCE, await_until, call, env_number};

const COUNT: u64 = 150;
const PAUSE: Duration = Duration::from_millis(20);
/// Below this a wait is what a machine that tests are built on is busy with; `HONGBAO_FLEET_WAIT_MS=0` takes nothing so.
const WAIT_MS_MIN: u64 = 250;

/// Pays a trickle from a campaign; the 99th percentile of what it took, ms, by the times that the service tells.
fn trickle(fleet: &Fleet, campaign: &str, prefix: &str) -> u64 {
    let doors = fleet.addresses();
    let began = Instant::now();
    for n in 0..COUNT {
        std::thread::sleep((PAUSE * n as u32).saturating_sub(began.elapsed()));
        let body = body(&format!("{prefix}-{n}"), n)
            .replace(r#""campaign":"k""#, &format!(r#""campaign":"{campaign}""#));
        let reply =
            call(&doors[n as usize % doors.len()], "POST /v1/disbursements", &body).expect("an answer");
        assert!(matches!(reply.code, 200 | 202), "{}", reply.text);
    }
    let ids: Vec<String> = (0..COUNT).map(|n| format!("{prefix}-{n}")).collect();
    let ids = json!({ "ids": ids }).to_string();
    let rows = await_until("the trickle to be paid", PATIENCE, || {
        let found = fleet.at(0).call("POST /v1/disbursements/lookup", &ids).body;
        let rows = found["data"].as_array()?.clone();
        rows.iter().all(|row| row["status"] == "SUCCEEDED").then_some(rows)
    });
    let at = |row: &serde_json::Value, key: &str| {
        hongbao::request::rfc3339::parse(row[key].as_str().unwrap()).unwrap_or_else(|| panic!("{row}"))
    };
    let mut took: Vec<u64> = rows.iter().map(|row| at(row, "settled_at") - at(row, "accepted_at")).collect();
    took.sort_unstable();
    took[(took.len() - 1) * 99 / 100]
}

#[test]
fn a_small_campaign_beside_a_large_one_waits_little_longer_than_alone() {
    let fleet = Fleet::start(0, &["stored_value.deadline_ms=2000"]);
    // Another fair queue than that of `k`, which the producers pay from.
    let queues = hongbao::config::raw::Raw::default().intake.fair_queues;
    let queue = |campaign: &str| QueueId::of(Lane::Realtime, campaign, queues).fair;
    let small = (0..).map(|n| format!("small-{n}")).find(|name| queue(name) != queue("k")).expect("another");
    fleet.at(0).campaign(&small, 1 << 40, 1 << 40);
    let alone = trickle(&fleet, &small, "alone");
    let load = fleet.load(["big0", "big1", "big2"], 3);
    await_until("a hundred times as much of the other", PATIENCE, || {
        let backlog: u64 = (0..3).map(|n| fleet.fact(n, "backlog").parse::<u64>().unwrap_or(0)).sum();
        (backlog >= rate()).then_some(())
    });
    let beside = trickle(&fleet, &small, "beside");
    println!("the 99th percentile: {alone} ms alone, {beside} ms beside the large one");
    let bound = 3 * alone.max(env_number("HONGBAO_FLEET_WAIT_MS", WAIT_MS_MIN));
    assert!(beside <= bound, "{beside} ms, alone {alone} ms\n{}", fleet.said());
    fleet.must_agree(load);
}
