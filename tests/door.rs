//! Every call of `/v1` over the real service, end to end, and every bad input with its clear problem.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use support::{PATIENCE, Server, Setup, await_until};

const PAY: &str = "POST /v1/disbursements";
const BATCH: &str = "POST /v1/batches";

fn fresh(sets: &[&str]) -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let setup = sets.iter().fold(Setup::new(&folder.path().join("data")), |setup, set| setup.set(set));
    let server = setup.set("parking.retry_ms=50").start();
    (folder, server)
}

fn pay(id: &str, campaign: &str, amount: u64) -> String {
    json!({"id": id, "campaign": campaign, "payee": "ann", "amount": amount, "currency": "CNY"}).to_string()
}

/// RFC 3339 so many milliseconds from now.
fn in_ms(ms: u64) -> String {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_millis(ms);
    let (days, rest) = (at.as_secs() / 86_400, at.as_secs() % 86_400);
    // Days to a civil date (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + u64::from(month <= 2);
    let (h, m, s, ms) = (rest / 3_600, rest / 60 % 60, rest % 60, at.subsec_millis());
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{ms:03}Z")
}

/// One call: `expect` is the code and words that must stand in the body.
fn check(server: &Server, what: &str, body: &str, expect: &str) -> Value {
    let reply = server.call(what, body);
    let mut words = expect.split(" | ");
    let code: u16 = words.next().unwrap().parse().unwrap();
    assert_eq!(reply.code, code, "{what} {body:.300}: {}", reply.text);
    for word in words {
        assert!(reply.text.contains(word), "{what} {body:.300}: no {word} in {}", reply.text);
    }
    if code >= 400 {
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{what}: {}", reply.head);
        assert_eq!(reply.body["accepted"], "no", "{what}: {}", reply.text);
        assert_eq!(reply.body["status"], code, "{what}: {}", reply.text);
    }
    reply.body
}

#[test]
fn a_campaign_and_its_requests_from_end_to_end() {
    let (_folder, server) = fresh(&[]);
    let put = r#"{"budget":1000,"currency":"CNY","amount_max":300}"#;
    check(&server, "PUT /v1/campaigns/c", put, r#"200 | "state":"active" | "left":1000"#);
    check(&server, "POST /v1/campaigns/c/fund", r#"{"id":"f1","amount":600}"#, r#"200 | SUCCEEDED"#);
    check(&server, "POST /v1/campaigns/c/fund", r#"{"id":"f1","amount":600}"#, r#"200 | SUCCEEDED"#);
    check(
        &server,
        "POST /v1/campaigns/c/fund",
        r#"{"id":"f2","amount":500}"#,
        "422 | budget_exhausted | 400",
    );
    let lower = r#"{"budget":500,"currency":"CNY"}"#;
    check(&server, "PUT /v1/campaigns/c", lower, "409 | id_conflict | budget");

    let accepted = server.call(PAY, &pay("r1", "c", 100));
    assert_eq!((accepted.code, accepted.header("location")), (202, Some("/v1/disbursements/r1")));
    assert_eq!(
        (&accepted.body["status"], &accepted.body["durability"]),
        (&json!("ACCEPTED"), &json!("fsync"))
    );
    let done = server.await_status("r1", "SUCCEEDED");
    assert_eq!((&done["final"], &done["attempts"], &done["payee"]), (&json!(true), &json!(1), &json!("ann")));
    check(&server, PAY, &pay("r1", "c", 100), "200 | SUCCEEDED");
    check(&server, PAY, &pay("r1", "c", 101), r#"409 | id_conflict | "conflicts":["amount"]"#);
    check(&server, &format!("{PAY}\nIdempotency-Key: other"), &pay("r9", "c", 1), "422 | mismatch");
    check(&server, &format!("{PAY}\nIdempotency-Key: r2"), &pay("r2", "c", 50), "202");
    check(&server, PAY, &pay("r9", "c", 301), "422 | amount_limit");

    let collection = json!({"id": "k1", "campaign": "c", "payer": "ann", "merchant": "shop", "agreement": "a1",
        "amount": 30, "currency": "CNY"});
    check(&server, "POST /v1/collections", &collection.to_string(), "202");
    let collected = server.await_status("k1", "SUCCEEDED");
    assert_eq!((&collected["payer"], &collected["merchant"]), (&json!("ann"), &json!("shop")));
    check(&server, "GET /v1/collections/k1", "", r#"200 | "agreement":"a1""#);

    let found = check(&server, "POST /v1/disbursements/lookup", r#"{"ids":["r1","nobody","k1"]}"#, "200");
    assert_eq!(found["not_found"], json!(["nobody"]));
    check(&server, "GET /v1/disbursements/nobody", "", "404 | not_found");

    check(&server, "POST /v1/disbursements/r1/reverse", r#"{"id":"v1","amount":40,"reason":"half"}"#, "202");
    server.await_status("v1", "SUCCEEDED");
    check(&server, "GET /v1/disbursements/r1", "", "200 | SUCCEEDED");
    check(
        &server,
        "POST /v1/disbursements/r1/reverse",
        r#"{"id":"v2","amount":61,"reason":"more"}"#,
        "422 | amount_limit | 60 of it is left",
    );
    check(&server, "POST /v1/disbursements/r1/reverse", r#"{"id":"v3","amount":60,"reason":"rest"}"#, "202");
    server.await_status("r1", "REVERSED");
    check(&server, "POST /v1/disbursements/r1/reverse", r#"{"id":"v4","amount":1,"reason":"x"}"#, "422");

    let free = check(&server, "GET /v1/campaigns/c", "", r#"200 | "spent":80 | "reserved":0"#);
    assert_eq!(free["funded"], 600, "{free}");
    // The collection counts against the budget, but moved nothing out of the campaign's account.
    check(&server, "POST /v1/campaigns/c/defund", r#"{"id":"d1","amount":551}"#, "422 | budget_exhausted");
    check(&server, "POST /v1/campaigns/c/defund", r#"{"id":"d2","amount":550}"#, "200 | SUCCEEDED");

    check(&server, "POST /v1/campaigns/c/pause", "", r#"200 | "state":"paused""#);
    check(&server, PAY, &pay("r3", "c", 1), "422 | campaign_paused");
    check(&server, "POST /v1/campaigns/c/resume", "{}", r#"200 | "state":"active""#);
    check(&server, "POST /v1/campaigns/c/close", "", r#"200 | "state":"closed""#);
    check(&server, PAY, &pay("r3", "c", 1), "422 | campaign_closed");
    check(&server, "POST /v1/campaigns/c/resume", "", "422 | campaign_closed");
    check(&server, PAY, &pay("r2", "c", 50), "200 | SUCCEEDED");
}

#[test]
fn batches_and_lists() {
    let (_folder, server) = fresh(&[]);
    server.campaign("c", 1_000, 1_000);
    let batch = |items: Value, count: u64, amount: u64| {
        json!({"id": "b", "campaign": "c", "currency": "CNY", "items": items, "total_count": count,
            "total_amount": amount})
        .to_string()
    };
    // An item that is there twice, one that claims its id for another amount, one that is no item.
    let items = json!([{"id": "i0", "payee": "ann", "amount": 10}, {"id": "i1", "payee": "ben", "amount": 20},
        {"id": "i0", "payee": "ann", "amount": 10}, {"id": "i1", "payee": "ben", "amount": 21},
        {"id": "i2", "payee": "", "amount": 5}]);
    let body = batch(items, 5, 66);
    let answer = check(&server, BATCH, &body, "202");
    let counts = |answer: &Value| {
        ["accepted_count", "duplicate_count", "refused_count"].map(|name| answer[name].clone())
    };
    assert_eq!(counts(&answer), [json!(2), json!(1), json!(2)], "{answer}");
    assert_eq!(
        (&answer["refused"][0]["code"], &answer["refused"][0]["index"]),
        (&json!("id_conflict"), &json!(3))
    );
    assert_eq!(answer["refused"][1]["errors"][0]["pointer"], "/items/4/payee", "{answer}");
    let again = check(&server, BATCH, &body, "200");
    assert_eq!(counts(&again), [json!(0), json!(3), json!(2)], "{again}");
    check(&server, BATCH, &body.replace("66", "67"), "422 | totals_mismatch | /total_amount");
    await_until("the batch's end", PATIENCE, || {
        let standing = check(&server, "GET /v1/batches/b", "", "200");
        (standing["counts"]["SUCCEEDED"] == 2).then(|| assert_eq!(standing["amounts"]["SUCCEEDED"], 30))
    });
    check(&server, "GET /v1/batches/none", "", "404 | not_found");
    check(&server, "POST /v1/batches/b/cancel", "", r#"200 | "not_cancelable_count":2"#);

    for n in 0..7 {
        check(&server, PAY, &pay(&format!("p{n}"), "c", 1), "202");
    }
    await_until("the view to have all", PATIENCE, || {
        let page =
            check(&server, "GET /v1/disbursements?campaign=c&status=SUCCEEDED&kind=disbursement", "", "200");
        (page["data"].as_array().map(Vec::len) == Some(9)).then_some(())
    });
    let (mut cursor, mut seen) = (String::new(), Vec::new());
    loop {
        let what = format!("GET /v1/disbursements?campaign=c&kind=disbursement&limit=4{cursor}");
        let page = check(&server, &what, "", "200");
        seen.extend(
            page["data"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    seen.sort();
    assert_eq!(seen, ["i0", "i1", "p0", "p1", "p2", "p3", "p4", "p5", "p6"]);
    let ben = check(&server, "GET /v1/disbursements?payee=ben", "", "200");
    assert_eq!((ben["data"].as_array().map(Vec::len), &ben["has_more"]), (Some(1), &json!(false)));
    check(&server, "GET /v1/disbursements?cursor=made-up", "", "422 | cursor");
    check(&server, "GET /v1/disbursements?limit=1001", "", "422 | ?limit");
    check(&server, "GET /v1/disbursements?staus=FAILED", "", "422 | status");
}

#[test]
fn canceled_before_it_is_paid() {
    let (_folder, server) = fresh(&["shaping.transfers_per_s=1"]);
    server.campaign("c", 1_000, 1_000);
    for n in 0..5 {
        check(&server, PAY, &pay(&format!("r{n}"), "c", 10), "202");
    }
    check(&server, "GET /v1/disbursements/r4", "", "200 | QUEUED | backlog");
    check(&server, "POST /v1/disbursements/r4/cancel", "", r#"200 | "status":"CANCELED" | "final":true"#);
    check(&server, "POST /v1/disbursements/r4/cancel", "", "200 | CANCELED");
    check(&server, PAY, &pay("r4", "c", 10), "200 | CANCELED");
    // An id that was never seen is burned for good.
    check(&server, "POST /v1/disbursements/unseen/cancel", "", "200 | CANCELED");
    check(&server, "GET /v1/disbursements/unseen", "", "200 | CANCELED");
    check(&server, PAY, &pay("unseen", "c", 10), "409 | id_conflict | canceled");
    let items: Vec<Value> =
        (0..4).map(|n| json!({"id": format!("i{n}"), "payee": "x", "amount": 1})).collect();
    let batch = json!({"id": "b", "campaign": "c", "currency": "CNY", "items": items, "total_count": 4,
        "total_amount": 4});
    check(&server, BATCH, &batch.to_string(), "202");
    await_until("the view to know the batch", PATIENCE, || {
        let standing = check(&server, "GET /v1/batches/b", "", "200");
        (standing["accepted_count"] == 4).then_some(())
    });
    check(&server, "POST /v1/batches/b/cancel", "", r#"200 | "canceled_count":4"#);
    let campaign = check(&server, "GET /v1/campaigns/c", "", "200");
    assert_eq!(campaign["counts"]["CANCELED"], 5, "{campaign}");
    server.await_status("r3", "SUCCEEDED");
    assert_eq!(server.must("GET /v1/campaigns/c", "", 200)["spent"], 40);
    check(&server, "POST /v1/disbursements/r3/cancel", "", "409 | not_cancelable");
}

#[test]
fn what_waits_says_why_and_until_when() {
    let (_folder, server) = fresh(&[]);
    server.campaign("c", 1_000, 100);
    check(&server, PAY, &pay("large", "c", 300), "202");
    let waiting = await_until("the reason", PATIENCE, || {
        let standing = check(&server, "GET /v1/disbursements/large", "", "200");
        (standing["reason"] == "low_balance").then_some(standing)
    });
    assert_eq!((&waiting["status"], &waiting["final"]), (&json!("QUEUED"), &json!(false)));
    assert!(waiting["next_attempt_at"].is_string(), "{waiting}");
    let mut late: Value = serde_json::from_str(&pay("late", "c", 300)).unwrap();
    late["not_after"] = json!(in_ms(400));
    check(&server, PAY, &late.to_string(), "202");
    let expired = server.await_status("late", "EXPIRED");
    assert_eq!((&expired["final"], &expired["code"]), (&json!(true), &json!("expired")));
    check(&server, "POST /v1/campaigns/c/fund", r#"{"id":"f2","amount":200}"#, "200 | SUCCEEDED");
    server.await_status("large", "SUCCEEDED");
    check(&server, "POST /v1/campaigns/c/fund", r#"{"id":"f3","amount":10}"#, "200");
    let mut early: Value = serde_json::from_str(&pay("early", "c", 10)).unwrap();
    early["not_before"] = json!(in_ms(700));
    check(&server, PAY, &early.to_string(), "202");
    await_until("the reason", PATIENCE, || {
        let standing = check(&server, "GET /v1/disbursements/early", "", "200");
        (standing["reason"] == "not_due").then_some(())
    });
    let paid = server.await_status("early", "SUCCEEDED");
    assert!(paid["settled_at"].as_str() >= early["not_before"].as_str(), "{paid}");
}

#[test]
fn a_client_sees_only_its_own() {
    let (_folder, server) =
        fresh(&["gateway.clients.shop=secret-of-the-shop", "gateway.clients.mall=secret-of-the-mall"]);
    let with = |key: &str, what: &str| format!("{what}\nAuthorization: Bearer {key}");
    let (shop, mall) = ("secret-of-the-shop", "secret-of-the-mall");
    let put = r#"{"budget":100,"currency":"CNY"}"#;
    check(&server, "PUT /v1/campaigns/c", put, "401 | unauthorized");
    check(&server, &with("wrong", "PUT /v1/campaigns/c"), put, "401 | unauthorized");
    check(&server, &with(shop, "PUT /v1/campaigns/c"), put, "200");
    check(&server, &with(shop, "POST /v1/campaigns/c/fund"), r#"{"id":"f","amount":100}"#, "200");
    check(&server, &with(shop, PAY), &pay("r", "c", 10), "202");
    for what in ["GET /v1/campaigns/c", "GET /v1/disbursements/r"] {
        check(&server, &with(shop, what), "", "200");
        check(&server, &with(mall, what), "", "404 | not_found");
    }
    check(&server, &with(mall, PAY), &pay("r", "c", 10), "422 | campaign_unknown");
    check(&server, &with(mall, "PUT /v1/campaigns/c"), put, r#"200 | "funded":0"#);
    check(&server, &with(mall, PAY), &pay("r", "c", 20), "202");
    let mine = check(&server, &with(shop, "GET /v1/disbursements/r"), "", "200");
    assert_eq!(mine["amount"], 10);
    check(&server, "GET /healthz", "", "200");
}

#[test]
fn bad_input_is_told_plainly() {
    let (_folder, server) = fresh(&["gateway.body_bytes_max=2097152"]);
    server.campaign("c", 1_000, 0);
    server.campaign("closed", 1_000, 0);
    check(&server, "POST /v1/campaigns/closed/close", "", "200");
    let with = |field: &str, value: Value| {
        let mut body: Value = serde_json::from_str(&pay("r", "c", 5)).unwrap();
        match value {
            Value::Null => drop(body.as_object_mut().unwrap().remove(field)),
            value => body[field] = value,
        }
        body.to_string()
    };
    let item = json!({"id": "i", "payee": "ann", "amount": 1});
    let batch = |count: usize, total: u64| {
        json!({"id": "b", "campaign": "c", "currency": "CNY", "total_count": count, "total_amount": total,
            "items": vec![item.clone(); count.min(10_001)]})
        .to_string()
    };
    let table: Vec<(&str, String, &str)> = vec![
        (PAY, "{".to_owned(), "400 | malformed_json"),
        (PAY, with("amout", json!(1)), r#"422 | unknown_field | /amout | \"amount\""#),
        (PAY, with("payee", Value::Null), "422 | missing_field | /payee"),
        (PAY, with("amount", json!("5")), "422 | wrong_type | /amount"),
        (PAY, with("amount", json!(0)), "422 | out_of_range | /amount"),
        (PAY, with("amount", json!(-5)), "422 | out_of_range | /amount"),
        (PAY, with("amount", json!(0.5)), "422 | invalid_value | /amount"),
        (PAY, with("amount", json!(1u64 << 53)), "422 | out_of_range | /amount | 9007199254740991"),
        (PAY, with("currency", json!("ABC")), "422 | invalid_value | /currency | ISO 4217"),
        (PAY, with("currency", json!("USD")), "422 | invalid_field | CNY"),
        (PAY, with("id", json!("")), "422 | /id | empty"),
        (PAY, with("id", json!("x".repeat(65))), "422 | /id | 64"),
        (PAY, with("id", json!("a b")), "422 | /id | allowed"),
        (PAY, with("campaign", json!("nowhere")), "422 | campaign_unknown | nowhere"),
        (PAY, with("campaign", json!("closed")), "422 | campaign_closed"),
        (PAY, with("amount", json!(1_001)), "422 | budget_exhausted | 1000"),
        (PAY, with("not_after", json!("2020-01-01T00:00:00Z")), "422 | expired"),
        (PAY, with("not_after", json!("soon")), "422 | /not_after | RFC 3339"),
        (PAY, format!("\"{}\"", "x".repeat(3 << 20)), "413 | body_too_large"),
        (
            "POST /v1/disbursements\nContent-Type: text/plain",
            pay("r", "c", 5),
            "415 | unsupported_media_type",
        ),
        (BATCH, batch(10_001, 10_001), "422 | /items | 10000"),
        (BATCH, batch(2, 3), "422 | totals_mismatch | /total_amount"),
        (BATCH, batch(0, 1), "422 | /items"),
        ("DELETE /v1/disbursements", String::new(), "405 | method_not_allowed"),
        ("GET /v2/nothing", String::new(), "404 | not_found | /v2/nothing"),
        ("POST /v1/campaigns/none/fund", r#"{"id":"f","amount":1}"#.to_owned(), "404 | not_found"),
    ];
    for (what, body, expect) in table {
        check(&server, what, &body, expect);
    }
    check(&server, "GET /v1/disbursements/r", "", "404");
    let campaign = check(&server, "GET /v1/campaigns/c", "", "200");
    assert_eq!((&campaign["left"], &campaign["reserved"]), (&json!(1_000), &json!(0)), "nothing was taken");
}

#[test]
fn half_sent_and_slow_requests_are_given_up() {
    let (_folder, server) = fresh(&["gateway.header_timeout_ms=300", "gateway.body_timeout_ms=300"]);
    let half_head = "POST /v1/disbursements HTTP/1.1\r\nHost: x\r\n";
    let half_body = "POST /v1/disbursements HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
        Content-Length: 100\r\n\r\n{\"id\":";
    for (sent, answer) in [(half_head, ""), (half_body, "408")] {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(sent.as_bytes()).unwrap();
        let mut text = String::new();
        // It ends, because the server ends it; by a reset if it likes.
        let _ = stream.read_to_string(&mut text);
        assert!(text.contains(answer), "{sent:?}: {text}");
    }
    check(&server, "GET /readyz", "", r#"200 | "ready":true"#);
    let mut gone = TcpStream::connect(&server.address).unwrap();
    gone.write_all(half_body.as_bytes()).unwrap();
    drop(gone);
    check(&server, "GET /metrics", "", "200 | hongbao_accepted_total");
    check(&server, "GET /openapi.json", "", "200 | /v1/disbursements/{id}/reverse");
}

#[test]
fn a_batch_is_its_items() {
    let (_folder, server) = fresh(&[]);
    server.campaign("c", 10_000, 1_000);
    let batch = |id: &str, items: &[(&str, u64)]| {
        let total: u64 = items.iter().map(|(_, amount)| amount).sum();
        let item = |(id, amount): &(&str, u64)| json!({"id": id, "payee": "ann", "amount": amount});
        let items: Vec<Value> = items.iter().map(item).collect();
        json!({"id": id, "campaign": "c", "currency": "CNY", "total_count": items.len(), "total_amount": total,
            "items": items})
        .to_string()
    };
    let table = [
        ("b1", vec![("u1", 100), ("u2", 100)], "202"),
        ("b1", vec![("u1", 100), ("u2", 100)], r#"200 | "duplicate_count":2"#),
        // New ids under the same head would pay again.
        ("b1", vec![("u3", 100), ("u4", 100)], r#"409 | id_conflict | "conflicts":["items"]"#),
        ("b1", vec![("u1", 100)], "409 | id_conflict | total_count"),
        // Of which nothing was accepted, nothing is kept.
        ("b2", vec![("u1", 7), ("u2", 7)], "422"),
        ("b2", vec![("u5", 7)], "202"),
    ];
    for (id, items, expected) in table {
        check(&server, "POST /v1/batches", &batch(id, &items), expected);
    }
    server.await_drained();
    await_until("the batch to be final", PATIENCE, || {
        let batch = server.must("GET /v1/batches/b1", "", 200);
        (batch["final"] == true).then(|| assert_eq!(batch["accepted_count"], 2, "{batch}"))
    });
    check(&server, "GET /v1/campaigns/c", "", r#"200 | "spent":207"#);
}
