//! A request that crashes the process is found, set aside as `crash_suspect`, and everybody else is paid.
//!
//! The panic is injected into the real binary on one id among many (`HONGBAO_SUSPECT_COUNT`, 20,000): once
//! while that request is being worked on, and once in the wallet, where nobody can tell whose fault it was and
//! the batch has to be halved. Whoever runs the service restarts it whenever it ends, and does nothing else.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{PATIENCE, Server, Setup, await_until, env_number, must_be_clean};

const PAGE: u64 = 1_000;

fn submit(server: &Server, count: u64) -> String {
    server.campaign("c", 10 * count, 10 * count);
    let mut acks = String::new();
    for first in (0..count).step_by(PAGE as usize) {
        let ids: Vec<u64> = (first..count.min(first + PAGE)).collect();
        let item = |n: &u64| json!({"id": format!("r{n}"), "payee": format!("p{}", n % 100), "amount": 2});
        let items: Vec<Value> = ids.iter().map(item).collect();
        let body = json!({"id": format!("b{first}"), "campaign": "c", "currency": "CNY", "items": items,
            "total_count": ids.len(), "total_amount": 2 * ids.len()});
        server.must("POST /v1/batches", &body.to_string(), 202);
        acks.extend(ids.iter().map(|n| format!("default r{n} 2\n")));
    }
    acks
}

/// One start: how it ended, or the server that has drained.
fn start(setup: &Setup) -> Result<Server, (Option<i32>, String)> {
    let mut server = setup.try_start().map_err(|said| (said.code, said.err))?;
    let ended = await_until("the crash, or the end of the backlog", PATIENCE * 4, || {
        if let Some(status) = server.ended() {
            return Some(Err(status.code()));
        }
        let ready = support::call(&server.address, "GET /readyz", "").ok()?;
        (ready.code == 200 && ready.body["backlog"] == "0").then_some(Ok(()))
    });
    match ended {
        Ok(()) => Ok(server),
        Err(code) => {
            let said = await_until("its last words", Duration::from_secs(5), || {
                Some(server.stderr()).filter(|said| said.contains("restart the service"))
            });
            Err((code, said))
        }
    }
}

/// Restarts until the backlog is gone; how many starts crashed.
fn check(point: &str, crashes_max: usize) -> usize {
    let count = env_number("HONGBAO_SUSPECT_COUNT", 20_000);
    let poison = format!("r{}", count / 2);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Setup::new(&data).set("shaping.transfers_per_s=1").set("accept.wait_s_max=31536000").start();
    let acks = submit(&server, count);
    server.end_well();
    let setup = Setup::new(&data).env("FAILPOINTS", &format!("{point}=return({poison})"));
    let mut crashes = 0;
    let server = loop {
        match start(&setup) {
            Ok(server) => break server,
            Err((code, said)) => {
                assert_eq!(code, Some(2), "{said}");
                assert!(said.contains("injected"), "the reason is told: {said}");
                crashes += 1;
                assert!(crashes <= crashes_max, "it still crashes at start {crashes}: {said}");
            }
        }
    };
    let standing = server.await_status(&poison, "FAILED");
    assert_eq!(
        (&standing["code"], &standing["final"]),
        (&json!("crash_suspect"), &json!(true)),
        "{standing}"
    );
    let campaign = server.must("GET /v1/campaigns/c", "", 200);
    assert_eq!(campaign["counts"], json!({"SUCCEEDED": count - 1, "FAILED": 1}), "{campaign}");
    server.end_well();
    let path = folder.path().join("acks");
    std::fs::write(&path, acks).unwrap();
    must_be_clean(&data, &path);
    crashes
}

#[test]
fn who_is_named_twice_is_set_aside_at_the_third_start() {
    assert_eq!(check("settle::item", 2), 2);
}

#[test]
fn who_hides_in_a_batch_is_found_by_halving() {
    // A batch of 4,096 is halved twelve times, and the last one must be named twice.
    println!("{} crashes", check("ledger::batch", 20));
}
