//! What goes over the wire: one request a call, its headers and its body, and connections that are kept.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json as value};

use super::{Act, PATIENCE, SECRET, Scripted, batch, json, keeps_saying, reply, says};
use crate::domain::{Amount, Currency, Transfer, TransferKind};
use crate::stored_value::TransferBatch;
use crate::stored_value::contract::Transfers;
use crate::stored_value::http::{HttpOptions, HttpWallet, exchange};
use crate::stored_value::remote::{CallError, RemoteWallet};

const ONE: &str = r#"{"results":[{"id":"shop:1","status":"succeeded"}]}"#;

#[tokio::test]
async fn a_call_says_who_asks_what() {
    let server = Scripted::start(keeps_saying(json(ONE))).await;
    let wallet = server.wallet();
    let ids = || vec!["shop:1".to_owned()];
    wallet.transfer(batch(&["shop:1"]), Duration::from_secs(10)).await.unwrap();
    wallet.burn(ids(), PATIENCE).await.unwrap();
    wallet.lookup(ids(), PATIENCE).await.unwrap();
    // The reply is no identity; what was asked counts here.
    wallet.identity().await.unwrap_err();

    let seen = server.requests();
    let lines: Vec<&str> = seen.iter().map(|seen| seen.head.lines().next().unwrap()).collect();
    assert_eq!(
        lines,
        [
            "POST /v1/transfers HTTP/1.1",
            "POST /v1/transfers/burn HTTP/1.1",
            "POST /v1/transfers/lookup HTTP/1.1",
            "GET /v1/identity HTTP/1.1"
        ]
    );
    for seen in &seen {
        assert_eq!(seen.header("authorization"), Some(SECRET));
        assert_eq!(seen.header("user-agent"), Some(concat!("hongbao/", env!("CARGO_PKG_VERSION"))));
        assert_eq!(seen.header("accept"), Some("application/json"));
        assert_eq!(seen.header("host"), Some(server.address.to_string().as_str()));
        assert_eq!(seen.header("accept-encoding"), None);
    }
    assert_eq!(seen[0].header("content-type"), Some("application/json"));
    let bodies: Vec<Value> =
        seen[..3].iter().map(|seen| serde_json::from_slice(&seen.body).unwrap()).collect();
    let entry = value!({"id": "shop:1", "kind": "transfer", "debit": "campaign:shop:spring",
        "credit": "person:li", "amount": 188, "currency": "CNY"});
    // 10 s less the margin for the way.
    assert_eq!(bodies[0], value!({"deadline_ms": 9_800, "transfers": [entry]}));
    assert_eq!(bodies[1], value!({"ids": ["shop:1"]}));
    assert_eq!(bodies[2], value!({"ids": ["shop:1"]}));
    assert_eq!(server.connections.load(Ordering::SeqCst), 1, "the connection is kept");
}

#[tokio::test]
async fn every_call_is_a_trace_of_its_own() {
    let server = Scripted::start(keeps_saying(json("{}"))).await;
    let wallet = server.wallet();
    let mut traces = std::collections::HashSet::new();
    for _ in 0..3 {
        let error = wallet.transfer(batch(&["shop:1"]), PATIENCE).await.unwrap_err().to_string();
        let seen = server.requests().pop().unwrap();
        let parts: Vec<&str> = seen.header("traceparent").unwrap().split('-').collect();
        let hexadecimal = |text: &str| text.bytes().all(|byte| b"0123456789abcdef".contains(&byte));
        assert!(parts.iter().all(|part| hexadecimal(part)), "{parts:?}");
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2]);
        assert_eq!((parts[0], parts[3]), ("00", "01"));
        assert!(error.contains(&format!("(trace {})", parts[1])), "{error}");
        traces.insert(parts[1].to_owned());
    }
    assert_eq!(traces.len(), 3);
}

#[tokio::test]
async fn every_kind_goes_out_as_the_contract_spells_it() {
    let mut batch = TransferBatch::default();
    let kinds = [TransferKind::Hold, TransferKind::Post, TransferKind::Void, TransferKind::Reverse];
    for kind in kinds {
        batch.push(&Transfer {
            kind,
            id: b"shop:\"1\\",
            key_hash: 0,
            digest: [0; 16],
            debit: b"",
            credit: "person:李".as_bytes(),
            amount: Amount::new(1).unwrap(),
            currency: Currency::parse("XAF").unwrap(),
            of: b"shop:0",
        });
    }
    let server = Scripted::start(says(json("{}"))).await;
    server.wallet().transfer(batch.into(), PATIENCE).await.unwrap_err();
    let body = server.requests().pop().unwrap().body;
    let sent: Transfers<'_> = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        sent.transfers.iter().map(|entry| &*entry.kind).collect::<Vec<_>>(),
        ["hold", "post", "void", "reverse"]
    );
    for entry in &sent.transfers {
        assert_eq!((&*entry.id, &*entry.of, &*entry.credit), ("shop:\"1\\", "shop:0", "person:李"));
    }
}

#[tokio::test]
async fn nothing_to_ask_asks_nothing() {
    let server = Scripted::start(vec![Act::Hang]).await;
    let wallet = server.wallet();
    assert_eq!(wallet.transfer(batch(&[]), PATIENCE).await, Ok(Vec::new()));
    assert_eq!(wallet.burn(Vec::new(), PATIENCE).await, Ok(Vec::new()));
    assert_eq!(wallet.lookup(Vec::new(), PATIENCE).await, Ok(Vec::new()));
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_path_before_v1_is_kept_and_no_authorization_sends_none() {
    let server = Scripted::start(keeps_saying(json(ONE))).await;
    for suffix in ["/pay/wallet", "/pay/wallet/"] {
        let mut options = server.options();
        options.url.push_str(suffix);
        options.authorization.clear();
        HttpWallet::new(&options).unwrap().transfer(batch(&["shop:1"]), PATIENCE).await.unwrap();
        let seen = server.requests().pop().unwrap();
        assert!(seen.head.starts_with("POST /pay/wallet/v1/transfers HTTP/1.1"), "{}", seen.head);
        assert_eq!(seen.header("authorization"), None);
    }
}

#[tokio::test]
async fn idle_connections_are_kept_up_to_the_bound() {
    let server = Scripted::start(keeps_saying(json(ONE))).await;
    let options = HttpOptions { connections_max: 2, ..server.options() };
    let wallet = HttpWallet::new(&options).unwrap();
    for _ in 0..50 {
        wallet.transfer(batch(&["shop:1"]), PATIENCE).await.unwrap();
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1, "one caller needs one connection");
    let several = |_| wallet.transfer(batch(&["shop:1"]), PATIENCE);
    let calls: Vec<_> = (0..8).map(several).map(tokio::spawn).collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(server.requests().len(), 58, "each was sent once");
    let kept = async {
        while server.open.load(Ordering::SeqCst) > 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, kept).await.expect("more idle connections than the bound");
    assert!(server.connections.load(Ordering::SeqCst) > 2, "the burst needed more");
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_replaced() {
    let server = Scripted::start(says(json(ONE))).await;
    let wallet = server.wallet();
    for call in 1..=3 {
        // The server may close just as the call goes out: unknown is the honest answer then, and it is not resent.
        let asked = wallet.transfer(batch(&["shop:1"]), PATIENCE).await;
        assert!(asked.is_ok() || format!("{asked:?}").contains("broke before a reply"), "{call}: {asked:?}");
    }
    assert!(server.connections.load(Ordering::SeqCst) > 1);
}

#[tokio::test]
async fn a_request_on_a_kept_connection_that_breaks_is_not_sent_again() {
    let script = vec![Act::ReadHead, Act::ReadBody, Act::Send(json(ONE)), Act::ReadHead, Act::ReadBody];
    let server = Scripted::start(script).await;
    let wallet = server.wallet();
    wallet.transfer(batch(&["shop:1"]), PATIENCE).await.unwrap();
    let got = wallet.transfer(batch(&["shop:1"]), PATIENCE).await;
    assert!(matches!(&got, Err(CallError::Unknown(reason)) if reason.contains("broke before")), "{got:?}");
    assert_eq!((server.connections.load(Ordering::SeqCst), server.requests().len()), (1, 2));
}

#[tokio::test]
async fn a_refusal_before_the_body_is_read_is_heard() {
    // As servers with a bound on bodies do it: the answer goes out after the head, and the rest is never read.
    let refusal = reply("413 Content Too Large", &["connection: close"], "");
    let server = Scripted::start(vec![Act::ReadHead, Act::Send(refusal), Act::Hang]).await;
    let ids: Vec<String> = (0..50_000).map(|index| format!("shop:{index}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let got = server.wallet().transfer(batch(&ids), PATIENCE).await;
    assert!(matches!(got, Err(CallError::TooLarge(_))), "{got:?}");
}

#[test]
fn the_wallet_is_told_a_little_less_time() {
    for (waits_ms, told_ms) in [(10_000, 9_800), (2_000, 1_800), (1_000, 900), (100, 90), (10, 9)] {
        let told = exchange::deadline_told(Duration::from_millis(waits_ms));
        assert_eq!(told, Duration::from_millis(told_ms), "{waits_ms}");
    }
}

#[tokio::test]
async fn a_full_batch_comes_back_in_order() {
    let ids: Vec<String> = (0..1_000).map(|index| format!("shop:{index}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let result = |id: &&str| value!({"id": id, "status": "succeeded", "wallet_ref": format!("ref-{id}")});
    let body = value!({"results": ids.iter().map(result).collect::<Vec<_>>()}).to_string();
    let server = Scripted::start(says(json(&body))).await;
    let got = server.wallet().transfer(batch(&ids), PATIENCE).await.unwrap();
    assert!(got.iter().zip(&ids).all(|(answer, id)| answer.wallet_ref == format!("ref-{id}")));
    assert_eq!(got.len(), ids.len());
}
