//! Bad input, each row with its clear problem: the list of issue 2, and what else the border meets.

use std::sync::Arc;

use serde_json::json;

use super::fake::Fake;
use super::{check, disbursement, door, send, two_clients};
use crate::gateway::Options;

const PAY: &str = "POST /v1/disbursements";

#[tokio::test]
async fn disbursements() {
    let long = json!({ "id": "x".repeat(65) }).to_string();
    let remark = json!({ "remark": "红".repeat(86) }).to_string();
    let metadata = json!({ "metadata": { "a": "x".repeat(4096) } }).to_string();
    let table: [(&str, &str, &str); 37] = [
        (r#"{"amout": 1}"#, "422 unknown_field /amout:unknown_field", "did you mean \\\"amount\\\""),
        (r#"{"zzz": 1}"#, "422 unknown_field /zzz:unknown_field", "known are id, campaign, payee"),
        (r#"{"payer": "bob"}"#, "422 unknown_field /payer:unknown_field", "did you mean \\\"payee\\\""),
        (r#"{"payer": 7}"#, "422 invalid_field /payer:wrong_type", "must be a string, not a number"),
        (r#"{"amount": null}"#, "422 invalid_field /amount:missing_field", "is missing"),
        (
            r#"{"id": null, "payee": null}"#,
            "422 invalid_field /id:missing_field /payee:missing_field",
            "1 more",
        ),
        (
            r#"{"amount": "88"}"#,
            "422 invalid_field /amount:wrong_type",
            "must be a whole number, not a string",
        ),
        (r#"{"amount": true}"#, "422 invalid_field /amount:wrong_type", "not a boolean"),
        (r#"{"amount": [1]}"#, "422 invalid_field /amount:wrong_type", "not an array"),
        (r#"{"amount": 0}"#, "422 invalid_field /amount:out_of_range", "at least 1"),
        (r#"{"amount": -1}"#, "422 invalid_field /amount:out_of_range", "must not be negative"),
        (r#"{"amount": 0.88}"#, "422 invalid_field /amount:invalid_value", "minor units"),
        (r#"{"amount": 88.0}"#, "422 invalid_field /amount:invalid_value", "fraction"),
        (r#"{"amount": 9007199254740992}"#, "422 invalid_field /amount:out_of_range", "9007199254740991"),
        (r#"{"currency": "cny"}"#, "422 invalid_field /currency:invalid_value", "ISO 4217"),
        (r#"{"currency": "ABC"}"#, "422 invalid_field /currency:invalid_value", "ISO 4217"),
        (r#"{"currency": "XXX"}"#, "422 invalid_field /currency:invalid_value", "ISO 4217"),
        (r#"{"currency": 156}"#, "422 invalid_field /currency:wrong_type", "must be a string"),
        (r#"{"currency": "USD"}"#, "422 invalid_field", "scripted"),
        (r#"{"id": ""}"#, "422 invalid_field /id:invalid_value", "must not be empty"),
        (&long, "422 invalid_field /id:invalid_value", "at most 64"),
        (r#"{"id": "a b"}"#, "422 invalid_field /id:invalid_value", "holds ' '"),
        (r#"{"id": "红包"}"#, "422 invalid_field /id:invalid_value", "allowed are"),
        (r#"{"payee": "a\nb"}"#, "422 invalid_field /payee:invalid_value", "allowed are"),
        (r#"{"lane": "fast"}"#, "422 invalid_field /lane:invalid_value", "realtime"),
        (r#"{"lane": "control"}"#, "422 invalid_field /lane:invalid_value", "realtime"),
        (r#"{"not_after": "tomorrow"}"#, "422 invalid_field /not_after:invalid_value", "RFC 3339"),
        (r#"{"not_after": 1767225600}"#, "422 invalid_field /not_after:wrong_type", "must be a string"),
        (r#"{"not_after": "2025-12-31T23:59:59Z"}"#, "422 expired", "scripted"),
        (
            r#"{"not_before": "2026-02-01T00:00:00Z", "not_after": "2026-02-01T00:00:00Z"}"#,
            "422 invalid_field /not_before:mismatch",
            "before not_after",
        ),
        (&remark, "422 invalid_field /remark:out_of_range", "at most 256 bytes"),
        (&metadata, "422 invalid_field /metadata:out_of_range", "at most 4096 bytes"),
        (r#"{"metadata": "x"}"#, "422 invalid_field /metadata:wrong_type", "must be an object"),
        (r#"{"metadata": [1]}"#, "422 invalid_field /metadata:wrong_type", "must be an object"),
        (r#"{"campaign": "nowhere"}"#, "422 campaign_unknown", "\"accepted\":\"no\""),
        (r#"{"campaign": "closed"}"#, "422 campaign_closed", "\"accepted\":\"no\""),
        (r#"{"campaign": "broke"}"#, "422 budget_exhausted", "\"accepted\":\"no\""),
    ];
    for (with, expect, says) in table {
        check(PAY, &disbursement(with), expect, says).await;
    }
    check(PAY, &disbursement(r#"{"campaign": "full"}"#), "429 backlog_full", "\"accepted\":\"no\"").await;
    check(PAY, &disbursement(r#"{"campaign": "torn"}"#), "503 append_unknown", "\"accepted\":\"unknown\"")
        .await;
}

#[tokio::test]
async fn what_waits() {
    let many = json!({ "ids": vec!["x"; 1_001] }).to_string();
    let release = "POST /v1/parked/release";
    let table: [(&str, &str, &str, &str); 12] = [
        (release, "{}", "422 invalid_field :missing_field", "ids, reason or campaign"),
        (release, r#"{"reason": null}"#, "422 invalid_field :missing_field", "ids, reason or campaign"),
        (release, r#"{"reason": "lowbalance"}"#, "422 invalid_field /reason:invalid_value", "low_balance"),
        (release, r#"{"reason": "backlog"}"#, "422 invalid_field /reason:invalid_value", "no_answer"),
        (release, r#"{"reason": 1}"#, "422 invalid_field /reason:wrong_type", "must be a string"),
        (release, r#"{"ids": "x"}"#, "422 invalid_field /ids:wrong_type", "must be an array"),
        (release, r#"{"ids": ["a b"]}"#, "422 invalid_field /ids/0:invalid_value", "holds ' '"),
        (release, &many, "422 invalid_field /ids:out_of_range", "at most 1000"),
        (release, r#"{"campagn": "c"}"#, "422 unknown_field /campagn:unknown_field", "campaign"),
        (
            "GET /v1/parked?reason=paused",
            "",
            "422 invalid_field ?reason:invalid_value",
            "is no reason to wait",
        ),
        ("GET /v1/parked?limit=0", "", "422 invalid_field ?limit:out_of_range", "1 to 1000"),
        ("GET /v1/parked?payee=x", "", "422 unknown_field ?payee:unknown_field", "is no filter"),
    ];
    for (call, body, expect, says) in table {
        check(call, body, expect, says).await;
    }
}

#[tokio::test]
async fn bodies_that_are_no_object() {
    let deep = "[".repeat(100_000);
    let table: [(&str, &str, &str); 15] = [
        ("", "415 unsupported_media_type", "Content-Type"),
        (" ", "400 malformed_json", "line 1 column 1"),
        ("{", "400 malformed_json", "line 1 column 1"),
        ("{\"id\": \"r-1\",\n \"amount\": }", "400 malformed_json", "line 2 column 12"),
        ("{\"id\": \"r-1\"} x", "400 malformed_json", "trailing characters"),
        ("{'id': 1}", "400 malformed_json", "line 1 column 2"),
        ("{\"amount\": 01}", "400 malformed_json", "line 1"),
        ("{\"amount\": NaN}", "400 malformed_json", "line 1"),
        ("{\"\\ud800\": 1}", "400 malformed_json", "line 1"),
        (&deep, "400 malformed_json", "line 1"),
        ("null", "422 invalid_field :wrong_type", "must be an object, not null"),
        ("7", "422 invalid_field :wrong_type", "not a number"),
        ("[]", "422 invalid_field :wrong_type", "not an array"),
        // What serde derives would take as the fields in their order.
        (
            "[\"r-1\",\"spring\",\"ann\",null,null,null,88,\"CNY\",null,null,null,null,null]",
            "422 invalid_field :wrong_type",
            "not an array",
        ),
        (
            "{\"id\":\"\\ud800\",\"campaign\":\"c\",\"payee\":\"p\",\"amount\":1,\"amount\":2,\"currency\":\"CNY\"}",
            "422 invalid_field /amount:repeated_field /id:invalid_value",
            "more than once",
        ),
    ];
    for (body, expect, says) in table {
        check(PAY, body, expect, says).await;
    }
}

#[tokio::test]
async fn collections() {
    let whole =
        r#"{"id":"k","campaign":"c","payer":"p","merchant":"m","agreement":"a","amount":1,"currency":"CNY"}"#;
    let table = [
        (whole.to_owned(), "202 ACCEPTED", "k"),
        (
            disbursement("{}"),
            "422 invalid_field /agreement:missing_field /merchant:missing_field /payee:unknown_field \
             /payer:missing_field",
            "did you mean \\\"payer\\\"",
        ),
        (whole.replace("\"a\"", "\"\""), "422 invalid_field /agreement:invalid_value", "empty"),
    ];
    for (body, expect, says) in table {
        check("POST /v1/collections", &body, expect, says).await;
    }
}

#[tokio::test]
async fn other_bodies() {
    let ids = |count: usize| json!({ "ids": vec!["a"; count] }).to_string();
    let put = r#"{"budget":100,"currency":"CNY"}"#;
    let table: [(&str, &str, &str, &str); 15] = [
        ("POST /v1/disbursements/lookup", "{}", "422 invalid_field /ids:missing_field", ""),
        (
            "POST /v1/disbursements/lookup",
            r#"{"ids":["a",7]}"#,
            "422 invalid_field /ids:wrong_type",
            "strings",
        ),
        (
            "POST /v1/disbursements/lookup",
            r#"{"ids":["a","b c"]}"#,
            "422 invalid_field /ids/1:invalid_value",
            "",
        ),
        ("POST /v1/disbursements/lookup", &ids(1_001), "422 invalid_field /ids:out_of_range", "at most 1000"),
        ("POST /v1/disbursements/lookup", &ids(1_000), "200", "not_found"),
        ("PUT /v1/campaigns/c", "{}", "422 invalid_field /budget:missing_field /currency:missing_field", ""),
        ("PUT /v1/campaigns/c", &put.replace("100", "0"), "422 invalid_field /budget:out_of_range", ""),
        (
            "PUT /v1/campaigns/c",
            &put.replace("budget", "bugdet"),
            "422 invalid_field /budget:missing_field /bugdet:unknown_field",
            "did you mean",
        ),
        ("PUT /v1/campaigns/c%20d", put, "422 invalid_field /id:invalid_value", ""),
        ("POST /v1/campaigns/spring/fund", r#"{"id":"f"}"#, "422 invalid_field /amount:missing_field", ""),
        ("POST /v1/campaigns/nowhere/fund", r#"{"id":"f","amount":5}"#, "404 not_found", "nowhere"),
        ("POST /v1/campaigns/nowhere/pause", "", "404 not_found", ""),
        (
            "POST /v1/campaigns/spring/close",
            r#"{"why":"x"}"#,
            "422 unknown_field /why:unknown_field",
            "nothing is expected",
        ),
        ("POST /v1/disbursements/x/reverse", r#"{"id":"v"}"#, "422 invalid_field /reason:missing_field", ""),
        ("POST /v1/disbursements/x/reverse", r#"{"id":"v","reason":"r"}"#, "404 not_found", ""),
    ];
    for (call, body, expect, says) in table {
        check(call, body, expect, says).await;
    }
}

#[tokio::test]
async fn queries_routes_and_methods() {
    let table: [(&str, &str, &str); 16] = [
        (
            "GET /v1/disbursements?campain=c",
            "422 unknown_field ?campain:unknown_field",
            "did you mean \\\"campaign\\\"",
        ),
        ("GET /v1/disbursements?status=PAID", "422 invalid_field ?status:invalid_value", "SUCCEEDED"),
        ("GET /v1/disbursements?limit=1001", "422 invalid_field ?limit:out_of_range", "1 to 1000"),
        ("GET /v1/disbursements?limit=0", "422 invalid_field ?limit:out_of_range", ""),
        ("GET /v1/disbursements?limit=1&limit=2", "422 invalid_field ?limit:repeated_field", ""),
        (
            "GET /v1/disbursements?accepted_from=now",
            "422 invalid_field ?accepted_from:invalid_value",
            "RFC 3339",
        ),
        (
            "GET /v1/disbursements?payee=a%20b&kind=x",
            "422 invalid_field ?kind:invalid_value ?payee:invalid_value",
            "",
        ),
        ("GET /v1/disbursements/nobody", "404 not_found", "nobody"),
        ("GET /v1/disbursements/a%20b", "422 invalid_field /id:invalid_value", ""),
        ("GET /v1/disbursements/%ff", "422 invalid_field", "UTF-8"),
        ("GET /v1/batches/nobody", "404 not_found", ""),
        ("GET /v1/campaigns/nobody", "404 not_found", ""),
        ("GET /v1/disbursement", "404 not_found", "/openapi.json"),
        ("GET /", "404 not_found", ""),
        ("DELETE /v1/disbursements/r-1", "405 method_not_allowed", "DELETE"),
        ("POST /healthz", "405 method_not_allowed", ""),
    ];
    for (call, expect, says) in table {
        check(call, "", expect, says).await;
    }
    let router = door(&Arc::new(Fake::default()), &Options::default());
    let got = send(&router, "PATCH /v1/disbursements", &[], "").await;
    let mut allowed: Vec<&str> = got.headers["allow"].to_str().unwrap().split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
    assert_eq!(send(&router, "OPTIONS /v1/disbursements", &[], "").await.status, 204);
    assert_eq!(send(&router, "HEAD /healthz", &[], "").await.status, 200);
}

#[tokio::test]
async fn headers() {
    let body = disbursement("{}");
    let table: [(&str, &str, &str); 9] = [
        ("content-type", "text/plain", "415 unsupported_media_type"),
        ("content-type", "application/x-www-form-urlencoded", "415 unsupported_media_type"),
        ("content-type", "", "415 unsupported_media_type"),
        ("content-type", "application/json; charset=utf-8", "202 ACCEPTED"),
        ("content-type", "Application/JSON", "202 ACCEPTED"),
        ("idempotency-key", "r-1", "202 ACCEPTED"),
        ("idempotency-key", "\"r-1\"", "202 ACCEPTED"),
        ("idempotency-key", "r-2", "422 invalid_field /id:mismatch"),
        ("content-length", "9000000", "413 body_too_large"),
    ];
    for (name, value, expect) in table {
        let router = door(&Arc::new(Fake::default()), &Options::default());
        let got = send(&router, PAY, &[(name, value)], &body).await;
        assert_eq!(got.gist(), expect, "{name}: {value}");
    }
    let small = Options { body_bytes_max: 64, ..Options::default() };
    let got = send(&door(&Arc::new(Fake::default()), &small), PAY, &[], &body).await;
    assert_eq!(got.gist(), "413 body_too_large");
}

#[tokio::test]
async fn credentials() {
    let fake = Arc::new(Fake::default());
    let router = door(&fake, &two_clients());
    let pay = disbursement("{}");
    let table: [(&str, &str, &str, &str); 10] = [
        (PAY, "", &pay, "401 unauthorized"),
        (PAY, "Basic a2V5", &pay, "401 unauthorized"),
        (PAY, "Bearer", &pay, "401 unauthorized"),
        (PAY, "Bearer key-of-the-shop-2", &pay, "401 unauthorized"),
        (PAY, "Bearer key-of-the-shop-1", &pay, "202 ACCEPTED"),
        (PAY, "bearer key-of-the-shop-1", &pay, "200 ACCEPTED"),
        ("GET /v1/disbursements/r-1", "Bearer key-of-the-mall-1", "", "404 not_found"),
        // The same id of another client is another request.
        (PAY, "Bearer key-of-the-mall-1", &pay, "202 ACCEPTED"),
        ("GET /v1/disbursements/r-1", "", "", "401 unauthorized"),
        ("GET /healthz", "", "", "200"),
    ];
    for (call, authorization, body, expect) in table {
        let got = send(&router, call, &[("authorization", authorization)], body).await;
        assert_eq!(got.gist(), expect, "{call} {authorization}");
    }
    for row in crate::gateway::routes::table().iter().filter(|row| row.path.starts_with("/v1/")) {
        let method = match row.method {
            axum::routing::MethodFilter::GET => "GET",
            axum::routing::MethodFilter::PUT => "PUT",
            _ => "POST",
        };
        let got = send(&router, &format!("{method} {}", row.path.replace("{id}", "x")), &[], "").await;
        assert_eq!(got.gist(), "401 unauthorized", "{method} {}", row.path);
    }
}
