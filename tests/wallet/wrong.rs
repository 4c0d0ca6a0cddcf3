//! `hongbao wallet check` against the wallet that keeps the contract, and against wallets that each break one
//! promise: the check must name it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Json, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use crate::start;
use crate::support::run;

/// What is wrong with a wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    PaysTwiceOnRepeat,
    PaysTwiceInOneBatch,
    ChecksThenActs,
    PaysOtherBodies,
    ForgetsBurns,
    BurnsWhatWasPaid,
    AnswersOutOfOrder,
    FailsTheBatchForOneEntry,
    RecordsLowBalance,
    RecordsLookups,
    ReversesTooMuch,
    NewIdentityEachTime,
    PaysInstantlyButAnswersLate,
    TakesFewEntries,
    RefusesUnknownFields,
    TakesNothingFromTheAccount,
}

#[derive(Default)]
struct Books {
    balances: HashMap<String, i64>,
    /// The money fields and the result by id; a burn has none.
    records: HashMap<String, (Value, String)>,
    reversed: HashMap<String, i64>,
}

struct Wallet {
    wrong: Wrong,
    books: Mutex<Books>,
}

fn text<'v>(entry: &'v Value, field: &str) -> &'v str {
    entry[field].as_str().unwrap_or("")
}

impl Books {
    fn move_money(&mut self, debit: &str, credit: &str, amount: i64, wrong: Wrong) -> &'static str {
        let from = self.balances.entry(debit.to_owned()).or_default();
        if !debit.starts_with("funding:") && *from < amount {
            return "failed low_balance";
        }
        if wrong != Wrong::TakesNothingFromTheAccount {
            *from -= amount;
        }
        *self.balances.entry(credit.to_owned()).or_default() += amount;
        "succeeded"
    }

    fn decide(&mut self, entry: &Value, wrong: Wrong) -> String {
        let id = text(entry, "id");
        if let Some((body, result)) = self.records.get(id) {
            let is_burn = body.is_null();
            if is_burn && wrong != Wrong::ForgetsBurns {
                return "failed burned".to_owned();
            }
            if !is_burn && body != entry && wrong != Wrong::PaysOtherBodies {
                return "failed id_conflict".to_owned();
            }
            if !is_burn && wrong != Wrong::PaysTwiceOnRepeat && (body == entry) {
                return result.clone();
            }
        }
        let (debit, credit) = (text(entry, "debit"), text(entry, "credit"));
        let amount = entry["amount"].as_i64().unwrap_or(0);
        if text(entry, "kind") == "reverse" {
            let of = text(entry, "of");
            let paid = self.records.get(of).filter(|(_, result)| result == "succeeded");
            let paid = paid.map_or(0, |(body, _)| body["amount"].as_i64().unwrap_or(0));
            let back = self.reversed.get(of).copied().unwrap_or(0) + amount;
            if back > paid && wrong != Wrong::ReversesTooMuch {
                return "failed amount_limit".to_owned();
            }
            self.reversed.insert(of.to_owned(), back);
        }
        let result = self.move_money(debit, credit, amount, wrong).to_owned();
        if result == "succeeded" || wrong == Wrong::RecordsLowBalance {
            self.records.insert(id.to_owned(), (entry.clone(), result.clone()));
        }
        result
    }
}

fn result(id: &str, said: &str) -> Value {
    let (status, code) = said.split_once(' ').unwrap_or((said, ""));
    if code.is_empty() {
        json!({"id": id, "status": status})
    } else {
        json!({"id": id, "status": status, "code": code})
    }
}

/// The known fields of an entry, or why it is refused.
fn known(entry: &Value, wrong: Wrong) -> Result<Value, &'static str> {
    const FIELDS: [&str; 8] = ["id", "kind", "debit", "credit", "amount", "currency", "of", "memo"];
    let object = entry.as_object().ok_or("no object")?;
    let is_known = |name: &String| FIELDS.contains(&name.as_str());
    if wrong == Wrong::RefusesUnknownFields && !object.keys().all(is_known) {
        return Err("unknown field");
    }
    let kind = matches!(text(entry, "kind"), "transfer" | "reverse");
    let currency = text(entry, "currency");
    let currency = currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_uppercase());
    let amount = entry["amount"].as_u64().unwrap_or(0);
    if !kind || !currency || amount == 0 {
        return Err("invalid field");
    }
    Ok(object.iter().filter(|(name, _)| is_known(name)).map(|(k, v)| (k.clone(), v.clone())).collect())
}

fn refusal(status: StatusCode) -> Response {
    (status, Json(json!({"status": status.as_u16(), "code": "refused"}))).into_response()
}

async fn transfers(State(wallet): State<Arc<Wallet>>, Json(body): Json<Value>) -> Response {
    let wrong = wallet.wrong;
    let Some(entries) = body["transfers"].as_array() else {
        return refusal(StatusCode::UNPROCESSABLE_ENTITY);
    };
    let limit = if wrong == Wrong::TakesFewEntries { 100 } else { 1_000 };
    if entries.len() > limit {
        return refusal(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let Ok(entries) = entries.iter().map(|entry| known(entry, wrong)).collect::<Result<Vec<Value>, _>>()
    else {
        return refusal(StatusCode::UNPROCESSABLE_ENTITY);
    };
    let lock = || wallet.books.lock().unwrap_or_else(PoisonError::into_inner);
    let seen_before = lock().records.contains_key(text(&entries[0], "id"));
    if wrong == Wrong::ChecksThenActs {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let mut said: Vec<String> = Vec::new();
    for entry in &entries {
        let mut books = lock();
        let twice = match wrong {
            Wrong::ChecksThenActs => !seen_before,
            Wrong::PaysTwiceInOneBatch => entries.iter().filter(|other| *other == entry).count() > 1,
            _ => false,
        };
        if twice {
            books.records.remove(text(entry, "id"));
        }
        said.push(books.decide(entry, wrong));
    }
    if wrong == Wrong::FailsTheBatchForOneEntry && said.iter().any(|said| said != "succeeded") {
        said = vec!["failed wallet_refused".to_owned(); said.len()];
    }
    if wrong == Wrong::PaysInstantlyButAnswersLate {
        let deadline_ms = body["deadline_ms"].as_u64().unwrap_or(0);
        let late_ms = if deadline_ms < 1_000 { deadline_ms + 1_500 } else { 0 };
        tokio::time::sleep(std::time::Duration::from_millis(late_ms)).await;
    }
    let mut results: Vec<Value> =
        entries.iter().zip(&said).map(|(entry, said)| result(text(entry, "id"), said)).collect();
    if wrong == Wrong::AnswersOutOfOrder {
        results.reverse();
    }
    Json(json!({"results": results})).into_response()
}

async fn ids(wallet: &Wallet, body: &Value, mut tell: impl FnMut(&mut Books, &str) -> String) -> Response {
    let mut books = wallet.books.lock().unwrap_or_else(PoisonError::into_inner);
    let ids = body["ids"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let results: Vec<Value> = ids.map(|id| result(id, &tell(&mut books, id))).collect();
    Json(json!({"results": results})).into_response()
}

async fn lookup(State(wallet): State<Arc<Wallet>>, Json(body): Json<Value>) -> Response {
    let tell = |books: &mut Books, id: &str| {
        let found = match books.records.get(id) {
            Some((body, _)) if body.is_null() => "failed burned".to_owned(),
            Some((_, result)) => result.clone(),
            None => "not_found".to_owned(),
        };
        if wallet.wrong == Wrong::RecordsLookups && found == "not_found" {
            books.records.insert(id.to_owned(), (Value::Null, String::new()));
        }
        found
    };
    ids(&wallet, &body, tell).await
}

async fn burn(State(wallet): State<Arc<Wallet>>, Json(body): Json<Value>) -> Response {
    let tell = |books: &mut Books, id: &str| match books.records.get(id) {
        Some((body, result)) if !body.is_null() && wallet.wrong != Wrong::BurnsWhatWasPaid => result.clone(),
        _ => {
            books.records.insert(id.to_owned(), (Value::Null, String::new()));
            "burned".to_owned()
        }
    };
    ids(&wallet, &body, tell).await
}

async fn identity(State(wallet): State<Arc<Wallet>>) -> Json<Value> {
    let fixed = uuid::Uuid::from_u128(7);
    let fresh = wallet.wrong == Wrong::NewIdentityEachTime;
    let identity = if fresh { uuid::Uuid::new_v4() } else { fixed };
    Json(json!({"identity": identity.to_string()}))
}

/// Serves a wallet on a free port and says where.
async fn serve(wrong: Wrong) -> String {
    let router = Router::new()
        .route("/v1/identity", get(identity))
        .route("/v1/transfers", post(transfers))
        .route("/v1/transfers/lookup", post(lookup))
        .route("/v1/transfers/burn", post(burn))
        .with_state(Arc::new(Wallet { wrong, books: Mutex::default() }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

#[test]
fn each_broken_promise_is_named() {
    // What is wrong, and the promise that the check must find broken.
    let table = [
        (Wrong::Nothing, ""),
        (Wrong::PaysTwiceOnRepeat, "repeat"),
        (Wrong::PaysTwiceInOneBatch, "duplicate_in_batch"),
        (Wrong::ChecksThenActs, "concurrency"),
        (Wrong::PaysOtherBodies, "conflict"),
        (Wrong::ForgetsBurns, "burn_unseen"),
        (Wrong::BurnsWhatWasPaid, "burn_paid"),
        (Wrong::AnswersOutOfOrder, "order"),
        (Wrong::FailsTheBatchForOneEntry, "item_failure"),
        (Wrong::RecordsLowBalance, "low_balance"),
        (Wrong::RecordsLookups, "lookup"),
        (Wrong::ReversesTooMuch, "reverse"),
        (Wrong::NewIdentityEachTime, "identity"),
        (Wrong::PaysInstantlyButAnswersLate, "deadline"),
        (Wrong::TakesFewEntries, "entries_1000"),
        (Wrong::RefusesUnknownFields, "unknown_fields"),
        (Wrong::TakesNothingFromTheAccount, "transfer"),
    ];
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (wrong, promise) in table {
        let url = runtime.block_on(serve(wrong));
        let said = run(&["wallet", "check", &url, "--json"]);
        let report: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{wrong:?}: {said:?}"));
        let verdict = |name: &str| {
            let of = report["promises"].as_array().unwrap().iter().find(|promise| promise["name"] == name);
            of.unwrap_or_else(|| panic!("{name} is not a promise"))["verdict"].clone()
        };
        assert_eq!(said.code, Some(i32::from(wrong != Wrong::Nothing)), "{wrong:?}: {report:#}");
        assert_eq!(report["kept"], wrong == Wrong::Nothing, "{wrong:?}");
        if promise.is_empty() {
            // Holds need not be offered.
            assert_eq!(verdict("hold_post"), "not_offered", "{report:#}");
        } else {
            assert_eq!(verdict(promise), "fail", "{wrong:?}: {report:#}");
        }
    }
}

#[test]
fn the_reference_wallet_keeps_every_promise_at_its_best_and_when_it_is_slow() {
    let folder = tempfile::tempdir().unwrap();
    let key = "Bearer of the check";
    let server = start(&folder.path().join("w"), &["--authorization", key]);
    let url = format!("http://{}/", server.address);
    for faults in [json!({}), json!({"latency_ms": 60, "jitter_ms": 20})] {
        server.must(&format!("PUT /faults\nAuthorization: {key}"), &faults.to_string(), 200);
        let said = run(&["wallet", "check", &url, "--authorization", key]);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert_eq!(said.out.matches("\npass").count() + 1, 23, "every promise is kept: {}", said.out);
    }
    let said = run(&["wallet", "check", &url]);
    assert_eq!(said.code, Some(1), "without credentials: {said:?}");
}
