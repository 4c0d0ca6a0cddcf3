//! What the faults do to a caller, and that they never touch the money.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{PATIENCE, await_until, call};
use crate::{balance, batch, look_up, pay, results, set, start, totals, transfer};

#[test]
fn a_lost_reply_was_carried_out_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder.path().join("w"), &["--fault", "drop_after_rate=1"]);
    let body = batch(10_000, &[transfer("s:1", "funding:s", "person:a", 7)]);
    for attempts in 1..=3 {
        assert!(call(&server.address, "POST /v1/transfers", &body).is_err(), "no reply");
        let seen = totals(&server);
        assert_eq!((&seen["transfers"], &seen["replies_lost"]), (&json!(attempts), &json!(attempts)));
        assert_eq!((&seen["executed"], &seen["repeated"]), (&json!(1), &json!(attempts - 1)), "{seen}");
    }
    set(&server, json!({"drop_after_rate": 0}));
    assert_eq!(look_up(&server, &["s:1"]), ["succeeded"]);
    assert_eq!(balance(&server, "person:a").0, 7);
}

#[test]
fn what_fails_before_it_is_carried_out_did_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder.path().join("w"), &[]);
    let body = batch(10_000, &[transfer("s:1", "funding:s", "person:a", 7)]);
    set(&server, json!({"error_rate": 1}));
    for _ in 0..20 {
        let reply = server.call("POST /v1/transfers", &body);
        assert!(matches!(reply.code, 500 | 503), "{}", reply.text);
        assert_eq!(reply.header("retry-after").is_some(), reply.code == 503, "{}", reply.head);
    }
    set(&server, json!({"error_rate": 0, "drop_before_rate": 1}));
    assert!(call(&server.address, "POST /v1/transfers", &body).is_err(), "no reply");
    set(&server, json!({"drop_before_rate": 0, "timeout_rate": 1}));
    let address = server.address.clone();
    let waiting = std::thread::spawn(move || call(&address, "POST /v1/transfers", &body));
    await_until("the call to vanish", PATIENCE, || (totals(&server)["dropped"] == 2).then_some(()));
    set(&server, json!({"timeout_rate": 0}));
    assert_eq!(look_up(&server, &["s:1"]), ["not_found"]);
    assert_eq!(totals(&server)["executed"], 0);
    let refused = server.must("PUT /faults", r#"{"eror_rate":1}"#, 422);
    assert_eq!(refused["code"], "unknown_field");
    assert!(refused["detail"].as_str().unwrap().contains("error_rate"), "{refused}");
    // The vanished call does not hold up an orderly stop, and is not answered by it.
    server.end_well();
    assert!(waiting.join().unwrap().is_err());
}

#[test]
fn a_refusal_is_recorded_and_final() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder.path().join("w"), &["--fault", r#"frozen=["person:bob"]"#]);
    let (bob, ann) =
        (transfer("s:1", "funding:s", "person:bob", 7), transfer("s:2", "funding:s", "person:ann", 7));
    assert_eq!(pay(&server, &[bob.clone(), ann]), ["failed payee_frozen", "succeeded"]);
    let later = json!({"frozen": [], "refusals": {"person:eve": "wallet_overloaded"}});
    set(&server, later);
    let eve = transfer("s:3", "funding:s", "person:eve", 7);
    assert_eq!(pay(&server, &[bob, eve.clone()]), ["failed payee_frozen", "failed wallet_overloaded"]);
    set(&server, json!({"refusals": {}}));
    assert_eq!(pay(&server, &[eve]), ["succeeded"], "a code that may pass leaves the id free");
    assert_eq!(pay(&server, &[transfer("s:4", "funding:s", "person:bob", 7)]), ["succeeded"]);
}

#[test]
fn what_is_undecided_at_the_deadline_is_unknown_and_the_same_id_tells() {
    let folder = tempfile::tempdir().unwrap();
    let slow = ["--fault", "slow_accounts=[\"person:slow\"]", "--fault", "slow_ms=2000"];
    let server = start(&folder.path().join("w"), &slow);
    let entries =
        [transfer("s:1", "funding:s", "person:slow", 7), transfer("s:2", "funding:s", "person:a", 7)];
    let began = Instant::now();
    let reply = server.must("POST /v1/transfers", &batch(200, &entries), 200);
    assert_eq!(results(&reply), ["unknown", "unknown"], "the slow account held back the whole batch");
    assert!((200..1_500).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert_eq!(look_up(&server, &["s:1", "s:2"]), ["succeeded", "succeeded"]);
    assert_eq!(pay(&server, &entries[1..]), ["succeeded"]);
    assert_eq!(totals(&server)["executed"], 2);
}

#[test]
fn capacity_and_pauses_take_their_time() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder.path().join("w"), &["--fault", "capacity_per_s=400"]);
    let entries: Vec<_> = (0..200).map(|n| transfer(&format!("s:{n}"), "funding:s", "person:a", 1)).collect();
    let took = |entries: &[serde_json::Value]| {
        let began = Instant::now();
        assert!(pay(&server, entries).iter().all(|result| result == "succeeded"));
        began.elapsed()
    };
    assert!(took(&entries) >= Duration::from_millis(450), "200 at 400 a second");
    set(&server, json!({"capacity_per_s": null, "pause_s": 0.5}));
    assert!(took(&entries[..1]) >= Duration::from_millis(400), "paused");
    let received = server.must("GET /received", "", 200);
    assert!(received["transfers_peak_per_s"].as_u64().unwrap() >= 200, "{received}");
    set(&server, json!({"capacity_per_s": 10, "queue_max": 50}));
    let reply = server.call("POST /v1/transfers", &batch(1_000, &entries));
    assert_eq!(reply.code, 503, "{}", reply.text);
}
