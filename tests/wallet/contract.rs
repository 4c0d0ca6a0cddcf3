//! The calls, their answers and their refusals.

use serde_json::json;

use crate::support::run;
use crate::{balance, batch, look_up, pay, results, start, transfer};

#[test]
fn every_kind_and_what_is_on_record_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder.path().join("w"), &[]);
    let about = |id: &str, kind: &str, of: &str, amount: u64| json!({"id": id, "kind": kind, "of": of, "amount": amount, "currency": "CNY"});
    let mut hold = transfer("s:h1", "campaign:s:c", "person:b", 30);
    hold["kind"] = "hold".into();
    let mut dollars = about("s:p0", "post", "s:h1", 30);
    dollars["currency"] = "USD".into();
    let mut back = about("s:r1", "reverse", "s:1", 15);
    (back["debit"], back["credit"]) = ("person:a".into(), "campaign:s:c".into());
    let mut back_again = back.clone();
    (back_again["id"], back_again["amount"]) = ("s:r2".into(), 6.into());
    // One batch, in order; what each answers.
    let steps = [
        (transfer("s:f", "funding:s", "campaign:s:c", 100), "succeeded"),
        (transfer("s:1", "campaign:s:c", "person:a", 20), "succeeded"),
        (transfer("s:1", "campaign:s:c", "person:a", 20), "succeeded"),
        (transfer("s:1", "campaign:s:c", "person:a", 21), "failed id_conflict"),
        (transfer("s:2", "campaign:s:c", "person:a", 200), "failed low_balance"),
        (hold, "succeeded"),
        (transfer("s:3", "campaign:s:c", "person:a", 60), "failed low_balance"),
        (dollars, "failed wallet_refused"),
        (about("s:p1", "post", "s:h1", 29), "failed amount_limit"),
        (about("s:v0", "void", "s:h1", 29), "failed amount_limit"),
        (about("s:p2", "post", "s:h1", 30), "succeeded"),
        (about("s:p3", "post", "s:h1", 30), "failed wallet_refused"),
        (about("s:v1", "void", "s:h1", 30), "failed wallet_refused"),
        (back, "succeeded"),
        (back_again, "failed amount_limit"),
    ];
    let entries: Vec<_> = steps.iter().map(|(entry, _)| entry.clone()).collect();
    let expected: Vec<_> = steps.iter().map(|(_, expected)| *expected).collect();
    assert_eq!(pay(&server, &entries), expected);

    assert_eq!(balance(&server, "campaign:s:c"), (65, 0));
    assert_eq!(
        look_up(&server, &["s:1", "s:2", "s:p3"]),
        ["succeeded", "not_found", "failed wallet_refused"]
    );
    let found = server.must("POST /v1/transfers/lookup", r#"{"ids":["s:1"]}"#, 200);
    assert_eq!(found["results"][0]["amount"], 20);
    let burned = server.must("POST /v1/transfers/burn", r#"{"ids":["s:9","s:9","s:1","s:p3"]}"#, 200);
    assert_eq!(results(&burned), ["burned", "burned", "succeeded", "failed wallet_refused"]);
    assert_eq!(pay(&server, &[transfer("s:9", "campaign:s:c", "person:a", 1)]), ["failed burned"]);
    assert_eq!(look_up(&server, &["s:9"]), ["failed burned"]);
    let spec = server.must("GET /openapi.json", "", 200);
    assert!(spec["paths"]["/v1/transfers/burn"]["post"].is_object(), "{spec}");
}

#[test]
fn refusals_are_problems_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder.path().join("w"), &["--authorization", "Bearer right"]);
    let key = "Authorization: Bearer right";
    let fund = transfer("s:f", "funding:s", "campaign:s:c", 100);
    let good = batch(1_000, std::slice::from_ref(&fund));
    let one_bad = batch(1_000, &[fund.clone(), transfer("s:2", "funding:s", "campaign:s:c", 0)]);
    let many = batch(1_000, &vec![json!({"id":"","kind":"","amount":0,"currency":""}); 10_001]);
    let huge = "x".repeat(9 << 20);
    // Call, headers, body, status, what the answer says.
    let post = "POST /v1/transfers";
    let table = [
        (post, "", &good, 401, "unauthorized"),
        (post, "Authorization: Bearer wrong", &good, 401, "unauthorized"),
        ("GET /v1/identity", "", &String::new(), 401, "unauthorized"),
        ("GET /received", "", &String::new(), 401, "unauthorized"),
        ("PUT /faults", "", &"{}".to_owned(), 401, "unauthorized"),
        ("GET /v1/nowhere", key, &String::new(), 404, "not_found"),
        ("GET /v1/transfers", key, &String::new(), 405, "method_not_allowed"),
        (post, &format!("{key}\nContent-Type: text/plain"), &good, 415, "unsupported_media_type"),
        (post, key, &"{".to_owned(), 400, "malformed_json"),
        (post, key, &one_bad, 422, "\"/transfers/1/amount\""),
        (post, key, &many, 413, "body_too_large"),
        (post, key, &huge, 413, "body_too_large"),
    ];
    for (call, headers, body, status, says) in table {
        let reply = server.call(&format!("{call}\n{headers}"), body);
        let shown: String = reply.text.chars().take(300).collect();
        assert_eq!(reply.code, status, "{call} {headers}: {shown}");
        assert!(reply.text.contains(says), "{call} {headers}: {shown}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{call}");
    }
    assert_eq!(server.must("GET /healthz", "", 200)["alive"], true);
    let reply = server.must(&format!("POST /v1/transfers/lookup\n{key}"), r#"{"ids":["s:f"]}"#, 200);
    assert_eq!(results(&reply), ["not_found"]);
    assert_eq!(results(&server.must(&format!("{post}\n{key}"), &good, 200)), ["succeeded"]);
}

#[test]
fn the_command_line() {
    // Arguments, exit code, what must be said.
    let table: [(&[&str], i32, &str); 6] = [
        (&["wallet", "--listen", "0.0.0.0:0"], 2, "--authorization"),
        (&["wallet", "--fault", "eror_rate=1"], 2, "error_rate"),
        (&["wallet", "--fault", "error_rate=7"], 2, "0 to 1"),
        (&["wallet", "--help"], 0, "check"),
        (&["wallet", "check", "nonsense"], 2, "http://"),
        (&["wallet", "check", "http://127.0.0.1:1"], 1, "FAIL         identity"),
    ];
    for (args, code, says) in table {
        let said = run(args);
        assert_eq!(said.code, Some(code), "{args:?}: {said:?}");
        assert!(format!("{}{}", said.out, said.err).contains(says), "{args:?}: no {says:?} in {said:?}");
    }
}
