//! The real service under load is killed with SIGKILL at random moments, again and again, and restarted.
//!
//! What must hold at the end: every request that was acknowledged is there and was paid exactly once, the
//! books balance, and nobody was paid what nobody asked for. Clients do what the README tells them: on
//! anything but an answer, send the same id again. `HONGBAO_KILLS` says how often (4), `HONGBAO_SEED` repeats
//! a run's choices.

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use support::{Dice, PATIENCE, Server, Setup, await_until, call, env_number, must_be_clean, seed};

const CLIENTS: u64 = 3;
const FUNDED: u64 = 1_000_000_000;

/// What the clients share.
#[derive(Default)]
struct Field {
    /// Where the service is; empty while it is down.
    address: Mutex<String>,
    acknowledged: AtomicU64,
    /// No new requests; what is unanswered is sent until it is answered.
    finish: AtomicBool,
}

/// One call's worth of requests: id and amount each.
#[derive(Clone)]
struct Parcel {
    batch: Option<String>,
    items: Vec<(String, u64)>,
}

impl Parcel {
    fn call(&self) -> (&'static str, String) {
        match &self.batch {
            None => {
                let (id, amount) = &self.items[0];
                let body = json!({"id": id, "campaign": "k", "payee": payee(id), "amount": amount, "currency": "CNY",
                    "metadata": {"note": "x".repeat(800)}});
                ("POST /v1/disbursements", body.to_string())
            }
            Some(batch) => {
                let item = |(id, amount): &(String, u64)| {
                    json!({"id": id, "payee": payee(id), "amount": amount,
                    "metadata": {"note": "x".repeat(800)}})
                };
                let items: Vec<Value> = self.items.iter().map(item).collect();
                let total: u64 = self.items.iter().map(|(_, amount)| amount).sum();
                let body = json!({"id": batch, "campaign": "k", "currency": "CNY", "total_count": items.len(),
                    "total_amount": total, "items": items});
                ("POST /v1/batches", body.to_string())
            }
        }
    }
}

fn payee(id: &str) -> String {
    format!("p{}", id.bytes().map(u64::from).sum::<u64>() % 50)
}

/// A client: new requests, now and then an old one again, and whatever had no answer until it has one.
fn client(name: u64, seed: u64, field: &Field) -> Vec<(String, u64)> {
    let mut dice = Dice(seed ^ (name << 32));
    let mut acknowledged: Vec<(String, u64)> = Vec::new();
    let mut done: Vec<Parcel> = Vec::new();
    let mut open: Option<Parcel> = None;
    let mut next = 0u64;
    loop {
        let address = field.address.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if open.is_none() && field.finish.load(Ordering::Acquire) {
            return acknowledged;
        }
        if address.is_empty() {
            std::thread::yield_now();
            continue;
        }
        let again = dice.roll(8) == 0 && !done.is_empty();
        let parcel = open.take().unwrap_or_else(|| {
            if again {
                return done[dice.roll(done.len() as u64) as usize].clone();
            }
            let count = if dice.roll(3) == 0 { 20 + dice.roll(180) } else { 1 };
            let batch = (count > 1).then(|| format!("b{name}-{next}"));
            let items = (0..count).map(|n| (format!("r{name}-{next}-{n}"), 1 + dice.roll(100))).collect();
            next += 1;
            Parcel { batch, items }
        });
        let (what, body) = parcel.call();
        match call(&address, what, &body) {
            Ok(reply) if [200, 202].contains(&reply.code) => {
                if let Some(refused) = reply.body.get("refused_count") {
                    assert_eq!(*refused, 0, "{}", reply.text);
                }
                acknowledged.extend(parcel.items.iter().cloned());
                field.acknowledged.fetch_add(parcel.items.len() as u64, Ordering::AcqRel);
                done.push(parcel);
            }
            // Not an answer to this request: it may or may not be accepted.
            Ok(reply) if reply.code == 503 => open = Some(parcel),
            Ok(reply) => panic!("{what} {body}: {} {}", reply.code, reply.text),
            Err(_) => open = Some(parcel),
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_paid_twice() {
    let kills = env_number("HONGBAO_KILLS", 4);
    let seed = seed();
    let mut dice = Dice(seed);
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(&folder.path().join("data"))
        .set("data.checkpoint_bytes=1048576")
        .set("data.segment_bytes=8388608");
    let field = Arc::new(Field::default());
    let mut server = setup.start();
    server.campaign("k", FUNDED, FUNDED);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|name| {
            let field = field.clone();
            std::thread::spawn(move || client(name, seed, &field))
        })
        .collect();
    let publish = |address: &str| address.clone_into(&mut field.address.lock().unwrap());
    for kill in 0..kills {
        publish(&server.address);
        // Somewhere in the next few hundred or thousand acknowledgements, or at once.
        let until = field.acknowledged.load(Ordering::Acquire) + [0, 1, 300, 4_000][dice.roll(4) as usize];
        let until = until + dice.roll(500);
        await_until("acknowledgements", PATIENCE, || {
            (field.acknowledged.load(Ordering::Acquire) >= until).then_some(())
        });
        publish("");
        server.kill();
        server = setup.start();
        println!("kill {kill}: {} acknowledged", field.acknowledged.load(Ordering::Acquire));
    }
    publish(&server.address);
    field.finish.store(true, Ordering::Release);
    let acknowledged: Vec<(String, u64)> =
        clients.into_iter().flat_map(|client| client.join().expect("a client ends well")).collect();
    server.await_drained();
    check_books(&server, &acknowledged);
    server.end_well();
    let acks = folder.path().join("acks");
    let lines: String = acknowledged.iter().map(|(id, amount)| format!("default {id} {amount}\n")).collect();
    std::fs::write(&acks, lines).unwrap();
    let report = must_be_clean(&setup.data, &acks);
    let (lines, settled) = (&report["acks"]["lines"], &report["acks"]["settled"]);
    println!("{kills} kills, {lines} acknowledged, {settled} settled, {} segments", report["segments"]);
    assert_eq!(lines, settled);
    assert!(report["segments"].as_u64() >= Some(1));
}

/// The service's own books, which a restart has rebuilt many times: every request succeeded once, and all the
/// money that is left can be taken out.
fn check_books(server: &Server, acknowledged: &[(String, u64)]) {
    let asked: HashMap<&str, u64> = acknowledged.iter().map(|(id, amount)| (&**id, *amount)).collect();
    let amount: u64 = asked.values().sum();
    let campaign = server.must("GET /v1/campaigns/k", "", 200);
    assert_eq!(campaign["counts"], json!({"SUCCEEDED": asked.len()}), "{campaign}");
    assert_eq!((&campaign["spent"], &campaign["reserved"]), (&amount.into(), &0.into()), "{campaign}");
    await_until("the view to list each of them once", PATIENCE, || {
        let listed = listed(server);
        assert!(listed.len() <= asked.len(), "{} are listed, {} were asked for", listed.len(), asked.len());
        (listed.len() == asked.len() && listed.iter().all(|id| asked.contains_key(&**id))).then_some(())
    });
    let rest = json!({"id": "rest", "amount": FUNDED - amount}).to_string();
    let taken = server.must("POST /v1/campaigns/k/defund", &rest, 200);
    assert_eq!(taken["status"], "SUCCEEDED", "the wallet holds what was not paid: {taken}");
}

/// Every page of what the view says has succeeded.
fn listed(server: &Server) -> Vec<String> {
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let what =
            format!("GET /v1/disbursements?campaign=k&kind=disbursement&status=SUCCEEDED&limit=1000{cursor}");
        let page = server.must(&what, "", 200);
        let rows = page["data"].as_array().expect("a page has data");
        ids.extend(rows.iter().filter_map(|row| row["id"].as_str()).map(str::to_owned));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}
