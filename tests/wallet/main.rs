//! The reference wallet as its callers meet it: the contract over HTTP, what survives a kill, what the faults do,
//! and whether `wallet check` finds the wallets that are wrong.

#[path = "../support/mod.rs"]
mod support;

mod contract;
mod durability;
mod faults;
mod wrong;

use std::path::Path;

use serde_json::{Value, json};
use support::{Said, Server, hongbao};

/// Starts a wallet on a free port.
pub fn try_start(data: &Path, args: &[&str]) -> Result<Server, Said> {
    let mut command = hongbao();
    command.args(["wallet", "--listen", "127.0.0.1:0", "--set", "log.filter=warn", "--data"]);
    command.arg(data).args(args);
    Server::listening(command, data)
}

pub fn start(data: &Path, args: &[&str]) -> Server {
    try_start(data, args).unwrap_or_else(|said| panic!("the wallet did not start: {said:?}"))
}

pub fn transfer(id: &str, debit: &str, credit: &str, amount: u64) -> Value {
    json!({"id": id, "kind": "transfer", "debit": debit, "credit": credit, "amount": amount, "currency": "CNY"})
}

pub fn batch(deadline_ms: u64, entries: &[Value]) -> String {
    json!({"deadline_ms": deadline_ms, "transfers": entries}).to_string()
}

/// `status code` of each entry.
pub fn results(body: &Value) -> Vec<String> {
    let said = |result: &Value| {
        let code = result["code"].as_str().unwrap_or("");
        format!("{} {code}", result["status"].as_str().unwrap_or("?")).trim().to_owned()
    };
    body["results"].as_array().unwrap_or_else(|| panic!("no results: {body}")).iter().map(said).collect()
}

pub fn pay(server: &Server, entries: &[Value]) -> Vec<String> {
    results(&server.must("POST /v1/transfers", &batch(10_000, entries), 200))
}

pub fn look_up(server: &Server, ids: &[&str]) -> Vec<String> {
    results(&server.must("POST /v1/transfers/lookup", &json!({"ids": ids}).to_string(), 200))
}

pub fn set(server: &Server, faults: Value) {
    server.must("PUT /faults", &faults.to_string(), 200);
}

/// Balance and amount on hold of an account.
pub fn balance(server: &Server, account: &str) -> (i64, u64) {
    let body = server.must(&format!("GET /balances?account={account}"), "", 200);
    assert!(body["sums"].as_object().unwrap().values().all(|sum| *sum == 0), "{body}");
    let row = &body["accounts"][0];
    (row["balance"].as_i64().unwrap_or(0), row["held"].as_u64().unwrap_or(0))
}

pub fn totals(server: &Server) -> Value {
    server.must("GET /received", "", 200)["totals"].clone()
}
