//! The process ends between every two durable steps; after the restart nothing is lost and nothing doubled.
//!
//! The points are `hongbao::crash::POINTS`; the binary aborts at one of them while a script runs, is started
//! again without, and the script is sent again with the same ids. That the process died of the abort shows
//! that the point was reached.

mod support;

use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt;

use serde_json::{Value, json};
use support::{PATIENCE, Reply, Server, Setup, audit, await_until, call, must_be_clean};

const ABORTED: i32 = 6;

/// What is called, its body, and the ids with amounts that its answer acknowledges.
type Call = (&'static str, String, Vec<(String, u64)>);

/// The calls of the script, in order, and what each acknowledges.
fn script() -> Vec<Call> {
    let pay = |id: &str, amount: u64| {
        let body = json!({"id": id, "campaign": "c", "payee": "ann", "amount": amount, "currency": "CNY"});
        ("POST /v1/disbursements", body.to_string(), vec![(id.to_owned(), amount)])
    };
    let items: Vec<Value> =
        (0..30).map(|n| json!({"id": format!("i{n}"), "payee": "ben", "amount": 1})).collect();
    let batch = json!({"id": "b", "campaign": "c", "currency": "CNY", "total_count": 30, "total_amount": 30,
        "items": items});
    let of_batch = (0..30).map(|n| (format!("i{n}"), 1)).collect();
    vec![
        pay("r1", 10),
        pay("r1", 10),
        ("POST /v1/batches", batch.to_string(), of_batch),
        // Waits for money that never comes.
        pay("large", 5_000),
        ("POST /v1/disbursements/large/cancel", "{}".to_owned(), vec![]),
        (
            "POST /v1/disbursements/r1/reverse",
            json!({"id": "back", "amount": 10, "reason": "t"}).to_string(),
            vec![("back".to_owned(), 10)],
        ),
        pay("r2", 7),
    ]
}

fn is_answer(reply: &Reply) -> bool {
    [200, 202, 409].contains(&reply.code)
}

/// Runs the script until it is through or the service is gone; what was acknowledged.
fn run(server: &mut Server) -> Vec<(String, u64)> {
    let mut acknowledged = Vec::new();
    for (what, body, ids) in script() {
        let answered = await_until(what, PATIENCE, || match call(&server.address, what, &body) {
            // Before its original has settled, a reversal is refused; the client comes back.
            Ok(reply) if reply.code == 422 && what.ends_with("reverse") => None,
            Ok(reply) if is_answer(&reply) => Some(true),
            Ok(reply) if reply.code == 503 => Some(false),
            Ok(reply) => panic!("{what} {body}: {} {}", reply.code, reply.text),
            Err(_) => Some(false),
        });
        if !answered {
            return acknowledged;
        }
        acknowledged.extend(ids);
    }
    acknowledged
}

/// Aborts at the `skip + 1`-th time the point is reached.
fn check(point: &str, skip: u32) {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(&folder.path().join("data")).set("parking.retry_ms=50");
    let server = setup.start();
    server.campaign("c", 10_000, 1_000);
    // So that a snapshot is there, which the next one replaces.
    server.end_well();
    let action = if skip == 0 { "return".to_owned() } else { format!("{skip}*off->return") };
    let mut server = setup.clone().env("FAILPOINTS", &format!("{point}={action}")).start();
    let mut acknowledged = run(&mut server);
    let status = match server.ended() {
        Some(status) => status,
        // Snapshots are taken when it stops.
        None => server.terminate(),
    };
    assert_eq!(status.signal(), Some(ABORTED), "{point} was not reached: {status}");
    let mut server = setup.start();
    for (id, amount) in &acknowledged {
        let standing = server.must(&format!("GET /v1/disbursements/{id}"), "", 200);
        assert_eq!(standing["amount"], *amount, "{point}: {standing}");
    }
    acknowledged.extend(run(&mut server));
    for (id, state) in [("r1", "REVERSED"), ("large", "CANCELED"), ("r2", "SUCCEEDED"), ("i29", "SUCCEEDED")]
    {
        server.await_status(id, state);
    }
    server.await_drained();
    let campaign = server.must("GET /v1/campaigns/c", "", 200);
    let counts = json!({"SUCCEEDED": 31, "CANCELED": 1, "REVERSED": 1});
    assert_eq!(
        (&campaign["spent"], &campaign["reserved"], &campaign["counts"]),
        (&json!(37), &json!(0), &counts),
        "{point}: {campaign}"
    );
    let rest = json!({"id": "rest", "amount": 1_000 - 37}).to_string();
    assert_eq!(server.must("POST /v1/campaigns/c/defund", &rest, 200)["status"], "SUCCEEDED", "{point}");
    server.end_well();
    let acks = folder.path().join("acks");
    let lines: String = acknowledged.iter().map(|(id, amount)| format!("default {id} {amount}\n")).collect();
    std::fs::write(&acks, lines).unwrap();
    must_be_clean(&setup.data, &acks);
}

#[test]
fn at_every_point() {
    let mut table: Vec<(&str, u32)> = hongbao::crash::POINTS.map(|point| (point, 0)).to_vec();
    // Later in the script, and between the later parts of a snapshot.
    for point in
        ["accept::after_append", "ledger::after_append", "record::after_append", "commit::before_ack"]
    {
        // More often than this no point is reached for sure: what comes close together is settled together.
        table.extend([(point, 1), (point, 2)]);
    }
    table.extend((1..4).map(|skip| ("checkpoint::between_parts", skip)));
    let reached: HashSet<&str> = table.iter().map(|(point, _)| *point).collect();
    assert_eq!(reached.len(), hongbao::crash::POINTS.len(), "a name stands twice");
    for (point, skip) in table {
        println!("{point} {skip}");
        check(point, skip);
    }
}

/// Waits for something in the audit of a folder that is in use.
fn await_audit(server: &Server, what: &str, seen: impl Fn(&Value) -> bool) {
    await_until(what, PATIENCE, || {
        let (_, report, _) = audit(&server.data, None, false);
        seen(&report).then_some(())
    });
}

/// The crash comes between the wallet's record and the outcome; a cancel is taken before the request comes up
/// again. It was paid, and a cancel must not say otherwise.
#[test]
fn a_cancel_that_comes_after_the_money() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(&folder.path().join("data"));
    let server = setup.start();
    server.campaign("c", 100, 100);
    server.end_well();
    let server = setup.clone().env("FAILPOINTS", "record::before_append=pause").start();
    // In one batch with others before it, which will hold it back behind the cancel.
    let ids: Vec<String> = (0..5).map(|n| format!("before{n}")).chain(["r".to_owned()]).collect();
    let items: Vec<Value> = ids.iter().map(|id| json!({"id": id, "payee": "ann", "amount": 5})).collect();
    let pay = json!({"id": "b", "campaign": "c", "currency": "CNY", "total_count": 6, "total_amount": 30,
        "items": items});
    server.must("POST /v1/batches", &pay.to_string(), 202);
    await_audit(&server, "the money to have moved", |report| report["paid_pending"] == 6);
    server.kill();
    // The request is held on its way to the wallet while the cancel is accepted behind it.
    let server = setup.clone().env("FAILPOINTS", "settle::before_transfer=pause").start();
    let address = server.address.clone();
    // Its answer waits for the wallet, which never comes.
    let cancel = std::thread::spawn(move || call(&address, "POST /v1/disbursements/r/cancel", "{}"));
    await_audit(&server, "the cancel to be durable", |report| {
        let kinds = report["requests_by_kind"].as_array();
        kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind["name"] == "cancels"))
    });
    server.kill();
    assert!(cancel.join().unwrap().is_err(), "nobody may have said that it is canceled");
    let server = setup.clone().set("shaping.transfers_per_s=2").start();
    server.await_status("r", "SUCCEEDED");
    server.await_drained();
    let late = server.must("POST /v1/disbursements/r/cancel", "{}", 409);
    assert_eq!(late["code"], "not_cancelable", "{late}");
    assert_eq!(server.must("GET /v1/disbursements/r", "", 200)["status"], "SUCCEEDED");
    assert_eq!(server.must("GET /v1/campaigns/c", "", 200)["spent"], 30);
    server.end_well();
    let acks = folder.path().join("acks");
    std::fs::write(&acks, "default r 5\n").unwrap();
    must_be_clean(&setup.data, &acks);
}
