//! Bad batches: refused as a whole, or item by item.

use std::sync::Arc;

use super::fake::Fake;
use super::{check, door, send};
use crate::gateway::Options;

const BATCH: &str = "POST /v1/batches";
const GOOD: &str = r#"{"id":"i-1","payee":"ann","amount":5}"#;

fn batch(total_count: usize, total_amount: u64, items: &[&str]) -> String {
    format!(
        r#"{{"id":"b","campaign":"spring","currency":"CNY","total_count":{total_count},
            "total_amount":{total_amount},"items":[{}]}}"#,
        items.join(",")
    )
}

#[tokio::test]
async fn refused_as_a_whole() {
    let table: [(String, &str, &str); 13] = [
        (
            batch(2, 10, &[GOOD]),
            "422 totals_mismatch /total_amount:mismatch /total_count:mismatch",
            "there are 1",
        ),
        (batch(1, 6, &[GOOD]), "422 totals_mismatch /total_amount:mismatch", "add up to 5"),
        (batch(1, 5, &[]), "422 invalid_field /items:out_of_range", "at least one"),
        (batch(0, 0, &[GOOD]), "422 invalid_field /total_amount:out_of_range /total_count:out_of_range", "1"),
        (
            batch(2, 10, &[GOOD, r#"{"id":"i-2","payee":"ann","amount":-5}"#]),
            "422 invalid_field /items/1/amount:out_of_range",
            "negative",
        ),
        (
            batch(2, 10, &[GOOD, "7"]),
            "422 invalid_field /items/1:wrong_type",
            "must be an object, not a number",
        ),
        (
            batch(1, 5, &[GOOD]).replace(r#""currency":"CNY","#, ""),
            "422 invalid_field /items/0/currency:missing_field",
            "is missing",
        ),
        (
            batch(1, 5, &[GOOD]).replace("\"items\"", "\"item\""),
            "422 invalid_field /item:unknown_field /items:missing_field",
            "did you mean",
        ),
        (
            batch(1, 5, &[GOOD]).replace("\"spring\"", "\"closed\""),
            "422 campaign_closed [0 campaign_closed]",
            "no item",
        ),
        (
            batch(1, 5, &[GOOD]).replace("\"spring\"", "\"full\""),
            "429 backlog_full [0 backlog_full]",
            "no item",
        ),
        (
            batch(1, 5, &[GOOD]).replace("\"spring\"", "\"torn\""),
            "503 append_unknown [0 append_unknown]",
            "\"accepted\":\"unknown\"",
        ),
        (
            batch(1, 5, &["{}"]).replace("\"CNY\"", "5"),
            "422 invalid_field /currency:wrong_type /items/0/amount:missing_field /items/0/currency:missing_field /items/0/id:missing_field /items/0/payee:missing_field",
            "",
        ),
        ("[]".to_owned(), "422 invalid_field :wrong_type", ""),
    ];
    for (body, expect, says) in table {
        check(BATCH, &body, expect, says).await;
    }
}

#[tokio::test]
async fn refused_item_by_item() {
    let table: [(String, &str, &str); 8] = [
        (batch(2, 10, &[GOOD, GOOD]), "202 ACCEPTED", "\"accepted_count\":1,\"duplicate_count\":1"),
        (
            batch(2, 11, &[GOOD, r#"{"id":"i-1","payee":"ann","amount":6}"#]),
            "202 ACCEPTED [1 id_conflict]",
            "\"conflicts\":[\"amount\"]",
        ),
        (
            batch(2, 10, &[GOOD, r#"{"id":"i 2","payee":"ann","amount":5}"#]),
            "202 ACCEPTED [1 invalid_field]",
            "/items/1/id",
        ),
        (
            batch(2, 10, &[GOOD, r#"{"id":"i-2","paye":"a","amount":5,"payee":"a"}"#]),
            "202 ACCEPTED [1 unknown_field]",
            "payee",
        ),
        (
            batch(2, 5, &[GOOD, r#"{"id":"i-2","payee":"ann","amount":0}"#]),
            "202 ACCEPTED [1 invalid_field]",
            "at least 1",
        ),
        (
            batch(2, 10, &[GOOD, r#"{"id":"i-2","payee":"a","payer":"b","amount":5}"#]),
            "202 ACCEPTED [1 invalid_field]",
            "/items/1/merchant",
        ),
        (
            batch(1, 5, &[r#"{"id":"i","payer":"a","merchant":"m","agreement":"g","amount":5}"#]),
            "202 ACCEPTED",
            "",
        ),
        (
            batch(2, 10, &[GOOD, r#"{"id":"i-2","payee":"a","amount":5,"currency":"USD"}"#]),
            "202 ACCEPTED [1 invalid_field]",
            "must be the batch's currency, CNY",
        ),
    ];
    for (body, expect, says) in table {
        check(BATCH, &body, expect, says).await;
    }
}

#[tokio::test]
async fn too_many_items() {
    let router = door(&Arc::new(Fake::default()), &Options::default());
    let got = send(&router, BATCH, &[], &batch(10_001, 1, &vec!["{}"; 10_001])).await;
    assert_eq!(got.status, 422);
    assert!(got.text.contains("at most 10000 items, not 10001"), "{}", &got.text[..500]);
    let errors = got.body["errors"].as_array().unwrap();
    assert!(errors.len() <= 1_001, "the list of faults is bounded: {}", errors.len());
}
