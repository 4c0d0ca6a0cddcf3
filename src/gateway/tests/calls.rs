//! What the calls answer when all is well, and what they hand to the ports.

use std::sync::Arc;

use serde_json::{Value, json};

use super::fake::{Fake, refused};
use super::{disbursement, door, send};
use crate::digest;
use crate::domain::{Kind, Lane, Refusal, Request, Status};
use crate::gateway::Options;
use crate::gateway::port::Refused;

#[tokio::test]
async fn a_request_from_acceptance_to_reversal() {
    let fake = Arc::new(Fake::default());
    let router = door(&fake, &Options::default());
    let body =
        disbursement(r#"{"id": "a/b+c", "remark": "恭喜\n", "metadata": {"k": [1, 2]}, "lane": "bulk"}"#);
    let got = send(&router, "POST /v1/disbursements", &[], &body).await;
    assert_eq!(got.headers["location"], "/v1/disbursements/a%2Fb%2Bc");
    let expected = json!({
        "id": "a/b+c", "status": "ACCEPTED", "durability": "fsync",
        "accepted_at": "2026-01-01T00:00:00.000Z", "estimated_completion_at": "2026-01-01T00:01:00.000Z",
    });
    assert_eq!((got.status, got.body), (202, expected));

    let mut standing = json!({
        "id": "a/b+c", "status": "ACCEPTED", "final": false, "campaign": "spring", "payee": "ann",
        "amount": 88, "currency": "CNY", "remark": "恭喜\n", "metadata": {"k": [1, 2]}, "attempts": 0,
        "accepted_at": "2026-01-01T00:00:00.000Z", "updated_at": "2026-01-01T00:00:00.000Z",
    });
    let got = send(&router, "POST /v1/disbursements", &[], &body).await;
    assert_eq!((got.status, &got.body), (200, &standing), "a repeat gets the present state");
    let got = send(&router, "POST /v1/disbursements", &[], &body.replace("88", "89")).await;
    assert_eq!((got.gist().as_str(), &got.body["conflicts"]), ("409 id_conflict", &json!(["amount"])));
    for alias in ["disbursements", "collections"] {
        let got = send(&router, &format!("GET /v1/{alias}/a%2Fb%2Bc"), &[], "").await;
        assert_eq!((got.status, &got.body), (200, &standing));
    }

    let reverse = "POST /v1/disbursements/a%2Fb%2Bc/reverse";
    let got = send(&router, reverse, &[], r#"{"id":"v","reason":"wrong"}"#).await;
    assert_eq!(got.gist(), "422 invalid_field :mismatch", "nothing was paid yet");
    fake.set_status("a/b+c", Status::Succeeded);
    let got = send(&router, reverse, &[], r#"{"id":"v","reason":"wrong","amount":89}"#).await;
    assert_eq!(got.gist(), "422 invalid_field /amount:out_of_range");
    let got = send(&router, reverse, &[], r#"{"id":"v","reason":"wrong"}"#).await;
    assert_eq!(got.gist(), "202 ACCEPTED");
    let got = send(&router, "POST /v1/disbursements/a%2Fb%2Bc/cancel", &[], "").await;
    assert_eq!(got.gist(), "409 not_cancelable");
    standing["status"] = json!("SUCCEEDED");

    let records = fake.records();
    let (pay, back) =
        (Request::decode(&records[0].record).unwrap(), Request::decode(&records[3].record).unwrap());
    assert_eq!((pay.client, pay.lane, records[0].lane_given), ("default", Lane::Bulk, true));
    assert_eq!(pay.metadata, r#"{"k":[1,2]}"#);
    assert_eq!((back.kind, back.original, back.party), (Kind::Reversal, "a/b+c", "ann"));
    assert_eq!((back.amount, back.remark, records[3].lane_given), (pay.amount, "wrong", false));
    let mut stamped = pay;
    digest::Stamper::default().stamp(&mut stamped);
    assert_eq!(stamped, pay, "what is handed on is stamped");
}

#[tokio::test]
async fn an_acceptance_says_how_sure_it_is() {
    let fake = Arc::new(Fake::default());
    let router = door(&fake, &Options::default());
    // the campaign, what is told of durability and of duplicates
    let table = [
        ("spring", json!("fsync"), Value::Null),
        ("hasty", json!("fsync"), json!("deferred")),
        ("copied", json!("replicated:1"), Value::Null),
    ];
    for (campaign, durability, duplicate_check) in table {
        let one = disbursement(&format!(r#"{{"id": "{campaign}", "campaign": "{campaign}"}}"#));
        let batch = json!({
            "id": campaign, "campaign": campaign, "currency": "CNY", "total_count": 1, "total_amount": 5,
            "items": [{ "id": format!("{campaign}-1"), "payee": "ann", "amount": 5 }],
        });
        for (call, body) in [("POST /v1/disbursements", one), ("POST /v1/batches", batch.to_string())] {
            let got = send(&router, call, &[], &body).await;
            assert_eq!(got.status, 202, "{}", got.text);
            let told = (&got.body["durability"], &got.body["duplicate_check"]);
            assert_eq!(told, (&durability, &duplicate_check), "{call} of {campaign}");
        }
    }
}

#[tokio::test]
async fn a_repeat_whose_time_has_passed_gets_its_state() {
    let fake = Arc::new(Fake::default());
    let router = door(&fake, &Options::default());
    let body = disbursement("{}");
    assert_eq!(send(&router, "POST /v1/disbursements", &[], &body).await.status, 202);
    let late = disbursement(r#"{"not_after": "2025-12-31T00:00:00Z"}"#);
    assert_eq!(send(&router, "POST /v1/disbursements", &[], &late).await.gist(), "200 ACCEPTED");
}

#[tokio::test]
async fn cancels() {
    let fake = Arc::new(Fake::default());
    let router = door(&fake, &Options::default());
    let got = send(&router, "POST /v1/disbursements/never-seen/cancel", &[], "").await;
    assert_eq!(got.gist(), "200 CANCELED");
    assert!(got.body.get("amount").is_none() && got.body.get("campaign").is_none(), "{}", got.text);
    let got = send(&router, "POST /v1/disbursements/never-seen/cancel", &[], "{}").await;
    assert_eq!(got.gist(), "200 CANCELED");
    let record = fake.records().remove(0).record;
    let burn = Request::decode(&record).unwrap();
    assert_eq!((burn.kind, burn.original, burn.lane), (Kind::Cancel, "never-seen", Lane::Control));
    assert_eq!(burn.key_hash, digest::key_hash_of("default", "never-seen"));
}

fn items(count: usize) -> Value {
    (0..count).map(|n| json!({ "id": format!("i-{n}"), "payee": "ann", "amount": 5 })).collect()
}

#[tokio::test]
async fn a_batch_from_acceptance_to_cancel() {
    let fake = Arc::new(Fake::default());
    let router = door(&fake, &Options::default());
    let body = json!({
        "id": "b", "campaign": "spring", "currency": "CNY", "total_count": 5, "total_amount": 25,
        "items": items(5),
    });
    let got = send(&router, "POST /v1/batches", &[], &body.to_string()).await;
    let mut expected = json!({
        "id": "b", "status": "ACCEPTED", "total_count": 5, "accepted_count": 5, "duplicate_count": 0,
        "refused_count": 0, "durability": "fsync", "estimated_completion_at": "2026-01-01T00:01:00.000Z",
        "refused": [],
    });
    assert_eq!((got.status, got.body), (202, expected.clone()));
    assert_eq!(got.headers["location"], "/v1/batches/b");
    let records = fake.records();
    let item = Request::decode(&records[4].record).unwrap();
    assert_eq!((item.id, item.campaign, item.batch, item.currency.as_str()), ("i-4", "spring", "b", "CNY"));
    let got = send(&router, "POST /v1/batches", &[], &body.to_string()).await;
    expected["accepted_count"] = json!(0);
    expected["duplicate_count"] = json!(5);
    expected.as_object_mut().unwrap().remove("estimated_completion_at");
    assert_eq!((got.status, got.body), (200, expected));

    fake.set_status("i-0", Status::Succeeded);
    fake.set_status("i-1", Status::Unknown);
    let got = send(&router, "GET /v1/batches/b", &[], "").await;
    assert_eq!(got.gist(), "200 PROCESSING");
    assert_eq!(got.body["counts"], json!({ "ACCEPTED": 3, "UNKNOWN": 1, "SUCCEEDED": 1 }));
    assert_eq!(got.body["amounts"], json!({ "ACCEPTED": 15, "UNKNOWN": 5, "SUCCEEDED": 5 }));
    let got = send(&router, "POST /v1/batches/b/cancel", &[], "").await;
    let expected = json!({
        "id": "b", "total_count": 5, "canceled_count": 3, "not_cancelable_count": 1, "pending_count": 1,
    });
    assert_eq!((got.status, got.body), (200, expected));
    fake.set_status("i-1", Status::Failed);
    assert_eq!(send(&router, "GET /v1/batches/b", &[], "").await.gist(), "200 FINISHED");
    assert_eq!(send(&router, "POST /v1/batches/x/cancel", &[], "").await.gist(), "404 not_found");
}

#[tokio::test]
async fn pages_and_lookups() {
    let fake = Arc::new(Fake::default());
    let router = door(&fake, &Options::default());
    for id in ["a", "b", "c"] {
        let body = disbursement(&json!({ "id": id }).to_string());
        assert_eq!(send(&router, "POST /v1/disbursements", &[], &body).await.status, 202);
    }
    let call = "GET /v1/disbursements?campaign=spring&payee=ann&status=ACCEPTED&limit=2\
                &accepted_from=2026-01-01T08:00:00%2B08:00&kind=disbursement";
    let first = send(&router, call, &[], "").await;
    assert_eq!((first.body["data"].as_array().unwrap().len(), &first.body["has_more"]), (2, &json!(true)));
    let cursor = first.body["next_cursor"].as_str().unwrap();
    let second = send(&router, &format!("{call}&cursor={cursor}"), &[], "").await;
    assert_eq!(second.body["data"][0]["id"], "c");
    assert_eq!((&second.body["next_cursor"], &second.body["has_more"]), (&json!(null), &json!(false)));
    let query = fake.listed().remove(0);
    assert_eq!((query.client.as_str(), query.limit, query.accepted_from), ("default", 2, super::NOW));
    assert_eq!((query.party.as_deref(), query.kind), (Some("ann"), Some(Kind::Disbursement)));

    let got = send(&router, "POST /v1/disbursements/lookup", &[], r#"{"ids":["c","x","a"]}"#).await;
    let data = got.body["data"].as_array().unwrap();
    let ids: Vec<&str> = data.iter().map(|body| body["id"].as_str().unwrap()).collect();
    assert_eq!((ids, &got.body["not_found"]), (vec!["c", "a"], &json!(["x"])));
}

#[tokio::test]
async fn what_waits_and_its_release() {
    let router = door(&Arc::new(Fake::default()), &Options::default());
    for id in ["a", "b"] {
        let body = disbursement(&json!({ "id": id }).to_string());
        assert_eq!(send(&router, "POST /v1/disbursements", &[], &body).await.status, 202);
    }
    let page = send(&router, "GET /v1/parked?reason=low_balance&campaign=spring&limit=7", &[], "").await.body;
    assert_eq!((&page["next_cursor"], &page["has_more"]), (&json!("7"), &json!(true)));
    assert_eq!(page["counts"], json!({ "low_balance": 2 }), "none where there are none");
    assert_eq!((&page["data"][1]["id"], &page["data"][1]["payee"]), (&json!("b"), &json!("ann")));
    assert_eq!(page["data"][1]["waiting_since"], "2026-01-01T00:00:00.000Z");
    let last = send(&router, "GET /v1/parked?cursor=7", &[], "").await.body;
    assert_eq!((&last["next_cursor"], &last["has_more"]), (&json!(null), &json!(false)));
    let table = [
        (r#"{"reason":"low_balance"}"#, 1_000),
        (r#"{"campaign":"c","ids":["a","b"]}"#, 102),
        (r#"{"ids":[]}"#, 0),
        (r#"{"ids":["a"],"campaign":"c","reason":"no_answer"}"#, 1_101),
    ];
    for (body, released) in table {
        let got = send(&router, "POST /v1/parked/release", &[], body).await;
        assert_eq!((got.status, &got.body), (200, &json!({ "released": released })), "{body}");
    }
}

#[tokio::test]
async fn a_campaign_from_creation_to_close() {
    let router = door(&Arc::new(Fake::default()), &Options::default());
    let body = r#"{"budget":100,"currency":"CNY","amount_max":20,"per_payee_count":1,"lane":"bulk",
                   "ends_at":"2026-02-01T00:00:00Z"}"#;
    let got = send(&router, "PUT /v1/campaigns/c", &[], body).await;
    let mut expected = json!({
        "id": "c", "state": "active", "currency": "CNY", "budget": 100, "amount_max": 20,
        "per_payee_count": 1, "ends_at": "2026-02-01T00:00:00.000Z", "lane": "bulk", "funded": 0,
        "funding_pending": 0, "spent": 0, "reserved": 0, "left": 100, "counts": {}, "amounts": {},
        "created_at": "2026-01-01T00:00:00.000Z", "updated_at": "2026-01-01T00:00:00.000Z",
    });
    assert_eq!((got.status, &got.body), (200, &expected));
    for (verb, state) in [("pause", "paused"), ("resume", "active"), ("close", "closed")] {
        let got = send(&router, &format!("POST /v1/campaigns/c/{verb}"), &[], "").await;
        expected["state"] = json!(state);
        assert_eq!((got.status, &got.body), (200, &expected), "{verb}");
    }
    assert_eq!(send(&router, "GET /v1/campaigns/c", &[], "").await.body, expected);
    for verb in ["fund", "defund"] {
        let body = json!({ "id": verb, "amount": 7 }).to_string();
        let got = send(&router, &format!("POST /v1/campaigns/c/{verb}"), &[], &body).await;
        assert_eq!(got.gist(), "200 SUCCEEDED", "{verb}");
        assert_eq!((&got.body["amount"], &got.body["currency"]), (&json!(7), &json!("CNY")));
    }
}

#[tokio::test]
async fn refusals_of_the_ports_pass_through() {
    let fake = Arc::new(Fake::default());
    let router = door(&fake, &Options::default());
    let batch = json!({
        "id": "b", "campaign": "spring", "currency": "CNY", "total_count": 1, "total_amount": 5, "items": items(1),
    });
    let calls = [
        ("POST /v1/disbursements", disbursement("{}")),
        ("POST /v1/batches", batch.to_string()),
        ("POST /v1/disbursements/x/cancel", String::new()),
        ("POST /v1/campaigns/spring/fund", r#"{"id":"f","amount":5}"#.to_owned()),
    ];
    for (code, unknown) in [
        (Refusal::BacklogFull, false),
        (Refusal::NotAccepting, false),
        (Refusal::AppendUnknown, true),
        (Refusal::CampaignClosed, false),
    ] {
        fake.script(Refused { retry_after_s: Some(7), ..refused(code, "scripted") });
        for (call, body) in &calls {
            let got = send(&router, call, &[], body).await;
            assert_eq!(got.gist(), format!("{} {}", code.http_status(), code.as_str()), "{call}");
            assert_eq!(got.body["accepted"], if unknown { "unknown" } else { "no" }, "{call}");
            let waits = matches!(code.http_status(), 429 | 503).then_some("7");
            assert_eq!(got.headers.get("retry-after").map(|value| value.to_str().unwrap()), waits);
        }
    }
}

#[tokio::test]
async fn the_service_itself() {
    let fake = Arc::new(Fake::default());
    let router = door(&fake, &Options::default());
    let got = send(&router, "GET /readyz", &[], "").await;
    assert_eq!((got.status, got.body), (200, json!({ "ready": true, "backlog": "7" })));
    fake.set_unready();
    let got = send(&router, "GET /readyz", &[], "").await;
    assert_eq!((got.status, &got.body["reason"]), (503, &json!("the disk is full")));
    assert_eq!(send(&router, "GET /healthz", &[], "").await.body, json!({ "alive": true }));
    let got = send(&router, "GET /metrics", &[], "").await;
    assert!(got.text.contains("hongbao_up 1"));
    assert!(got.headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
}
