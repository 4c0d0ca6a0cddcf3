//! A power failure at every write and sync boundary in turn, over a disk that forgets all it was not asked to
//! sync.
//!
//! The whole service runs on `SimStorage`; a scripted client works against its door until the disk dies, the
//! service is started again on what a real disk may have kept, and the client does what the README says: it
//! sends again, with the same ids, whatever it has no answer to. Then nothing acknowledged may be missing, no
//! answer may have been taken back, and the books must be those of a run without any failure. The checker is
//! checked too: without syncs it must find something. `HONGBAO_BOUNDARIES` says how many boundaries are tried
//! (all of them if it is large), `HONGBAO_SEED` repeats a run's choices.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use hongbao::app::{Extras, Service};
use hongbao::config::{self, Config, Sources};
use hongbao::journal::Storage;
use hongbao::journal::sim::SimStorage;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use support::{PATIENCE, await_until, env_number, seed};
use tokio::runtime::Runtime;
use tower::ServiceExt;

/// A service on a simulated disk, and its door.
struct World {
    service: Option<Service>,
    router: Router,
    runtime: Runtime,
    sim: SimStorage,
}

fn small_config() -> Config {
    let mut config = config::load(&Sources::default()).unwrap();
    // Far below what a configuration may say, so that a short script meets new segments and snapshots.
    config.segment_bytes = 64 << 10;
    config.checkpoint_bytes = 12 << 10;
    config.pipeline.retry.first_ms = 20;
    config.pipeline.slot_count = 256;
    config
}

/// The disk died, or the service did: what the client sees is no answer.
#[derive(Debug)]
struct Dead;

impl World {
    fn open(sim: &SimStorage) -> anyhow::Result<World> {
        let storage: Arc<dyn Storage> = Arc::new(sim.clone());
        let extras = Extras { storage: Some(storage), with_view: false, ..Extras::default() };
        let service = Service::start(small_config(), extras)?;
        let router = hongbao::server::gateway(&service)?.into_router();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(World { service: Some(service), router, runtime, sim: sim.clone() })
    }

    fn call(&self, what: &str, body: &str) -> Result<(u16, Value), Dead> {
        let (method, path) = what.split_once(' ').expect("method and path");
        let request = axum::http::Request::builder().method(method).uri(path);
        let request = request.header("content-type", "application/json");
        let request = request.body(Body::from(body.to_owned())).expect("a request");
        let router = self.router.clone();
        let mut answer = self.runtime.spawn(async move {
            let response = router.oneshot(request).await.expect("the door never fails");
            let code = response.status().as_u16();
            let bytes = response.into_body().collect().await.expect("a body in memory").to_bytes();
            (code, serde_json::from_slice::<Value>(&bytes).unwrap_or(Value::Null))
        });
        self.runtime.block_on(async {
            loop {
                match tokio::time::timeout(Duration::from_millis(20), &mut answer).await {
                    Ok(answer) => break answer.map_err(|_| Dead),
                    Err(_) if self.sim.is_dead() => {
                        answer.abort();
                        break Err(Dead);
                    }
                    Err(_) => {}
                }
            }
        })
    }

    fn stop(mut self) -> anyhow::Result<()> {
        let drain_max = if self.sim.is_dead() { Duration::ZERO } else { Duration::from_secs(10) };
        drop(self.router);
        self.service.take().map_or(Ok(()), |service| service.stop(drain_max))
    }
}

/// What the client has on paper.
#[derive(Default)]
struct Notes {
    /// Acknowledged, with the amount.
    acknowledged: BTreeMap<String, u64>,
    /// Final states that it was told.
    told: BTreeMap<String, String>,
}

const OPEN: &str = "POST /v1/disbursements";

fn pay(id: &str, payee: &str, amount: u64) -> (String, u64, String) {
    let note = "x".repeat(500);
    let body = json!({"id": id, "campaign": "c", "payee": payee, "amount": amount, "currency": "CNY",
        "metadata": {"note": note}});
    (id.to_owned(), amount, body.to_string())
}

/// The script. Each step is sent until it has an answer; every answer that promises something is noted.
struct Client<'a> {
    world: &'a World,
    notes: &'a mut Notes,
}

impl Client<'_> {
    /// Posts a request; 200 and 202 acknowledge it.
    fn post(&mut self, what: &str, ids: &[(String, u64)], body: &str) -> Result<Value, Dead> {
        let (code, answer) = self.world.call(what, body)?;
        match code {
            200 | 202 => {
                self.notes.acknowledged.extend(ids.iter().cloned());
                Ok(answer)
            }
            503 => Err(Dead),
            _ => panic!("{what} {body}: {code} {answer}"),
        }
    }

    fn pay(&mut self, id: &str, payee: &str, amount: u64) -> Result<(), Dead> {
        let (id, amount, body) = pay(id, payee, amount);
        self.post(OPEN, &[(id, amount)], &body).map(drop)
    }

    /// Waits for the state, and notes it if it is final.
    fn see(&mut self, id: &str, status: &str) -> Result<(), Dead> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let (code, answer) = self.world.call(&format!("GET /v1/disbursements/{id}"), "")?;
            if code == 503 {
                return Err(Dead);
            }
            if answer["final"] == true {
                self.notes.told.insert(id.to_owned(), answer["status"].to_string());
            }
            // Sent again, the script meets what it had settled the first time.
            if answer["status"] == status || answer["final"] == true {
                return Ok(());
            }
            if self.world.sim.is_dead() {
                return Err(Dead);
            }
            assert!(Instant::now() < deadline, "{id} is never {status}: {code} {answer}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The reversal has succeeded; that the original is REVERSED follows at once.
    fn see_reversed(&mut self, id: &str) -> Result<(), Dead> {
        loop {
            let (_, answer) = self.world.call(&format!("GET /v1/disbursements/{id}"), "")?;
            if answer["status"] == "REVERSED" {
                return Ok(());
            }
            if self.world.sim.is_dead() {
                return Err(Dead);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn fund(&mut self, id: &str, amount: u64) -> Result<(), Dead> {
        let body = json!({"id": id, "amount": amount}).to_string();
        self.post("POST /v1/campaigns/c/fund", &[(id.to_owned(), amount)], &body)?;
        self.see(id, "SUCCEEDED")
    }

    fn batch(&mut self, id: &str, count: u64) -> Result<(), Dead> {
        let ids: Vec<(String, u64)> = (0..count).map(|n| (format!("{id}-{n}"), 2)).collect();
        let items = ids.iter().map(|(id, amount)| json!({"id": id, "payee": "ben", "amount": amount}));
        let body = json!({"id": id, "campaign": "c", "currency": "CNY", "total_count": count,
            "total_amount": 2 * count, "items": items.collect::<Vec<_>>()});
        self.post("POST /v1/batches", &ids, &body.to_string()).map(drop)
    }

    fn cancel(&mut self, id: &str) -> Result<(), Dead> {
        self.post(&format!("POST /v1/disbursements/{id}/cancel"), &[], "{}")?;
        self.see(id, "CANCELED")
    }

    fn reverse(&mut self, of: &str, id: &str, amount: u64) -> Result<(), Dead> {
        let body = json!({"id": id, "amount": amount, "reason": "a test"}).to_string();
        let what = format!("POST /v1/disbursements/{of}/reverse");
        self.post(&what, &[(id.to_owned(), amount)], &body)?;
        self.see(id, "SUCCEEDED")
    }

    fn run(&mut self) -> Result<(), Dead> {
        let (code, answer) = self.world.call("PUT /v1/campaigns/c", r#"{"budget":1000,"currency":"CNY"}"#)?;
        if code != 200 {
            assert_eq!(code, 503, "{answer}");
            return Err(Dead);
        }
        self.fund("f1", 300)?;
        for n in 0..6 {
            self.pay(&format!("r{n}"), "ann", 10)?;
        }
        self.see("r5", "SUCCEEDED")?;
        self.batch("b1", 20)?;
        // More than is funded: it waits, until it is canceled, or there is money.
        self.pay("late", "cid", 250)?;
        self.pay("lost", "cid", 260)?;
        self.pay("r0", "ann", 10)?;
        self.see("late", "QUEUED")?;
        self.cancel("lost")?;
        self.cancel("unseen")?;
        self.fund("f2", 300)?;
        self.see("late", "SUCCEEDED")?;
        self.reverse("r1", "back1", 10)?;
        self.reverse("r2", "back2", 4)?;
        self.batch("b2", 30)?;
        for n in 6..14 {
            self.pay(&format!("r{n}"), "dan", 5)?;
        }
        self.see("r13", "SUCCEEDED")?;
        self.see("b2-29", "SUCCEEDED")?;
        self.see_reversed("r1")
    }
}

/// Paid once, however often it was sent: six to ann, the batches, the late one, eight to dan, less what was
/// taken back.
const SPENT: u64 = 6 * 10 + 20 * 2 + 250 + 30 * 2 + 8 * 5 - 10 - 4;

#[derive(Default)]
struct Outcome {
    /// What is wrong, if anything.
    violation: Option<String>,
    /// How far the disk came.
    changes: u64,
}

/// One run: the disk dies after `dies_after` changes, and keeps what `seed` says.
fn run(dies_after: Option<u64>, seed: u64, without_sync: bool) -> Outcome {
    let sim = SimStorage::new();
    sim.knobs(|knobs| knobs.without_sync = without_sync);
    if let Some(n) = dies_after {
        sim.fail_after(n);
    }
    let mut notes = Notes::default();
    if let Ok(world) = World::open(&sim) {
        let ended = Client { world: &world, notes: &mut notes }.run();
        assert!(ended.is_ok() || sim.is_dead(), "the script ended early on a disk that is well");
        // It cannot stop well on a dead disk, and must not hang.
        let _ = world.stop();
    }
    let changes = sim.changes();
    let left = sim.crash(seed);
    left.knobs(|knobs| knobs.without_sync = false);
    Outcome { violation: go_on(&left, &mut notes).err(), changes }
}

/// The restart, the rest of the script, and every check.
fn go_on(left: &SimStorage, notes: &mut Notes) -> Result<(), String> {
    let world = World::open(left).map_err(|error| format!("it does not start again: {error:#}"))?;
    let seen = still_there(&world, notes);
    if let Err(violation) = seen {
        // The first finding counts; what stops badly now is its consequence.
        let _ = world.stop();
        return Err(violation);
    }
    let carried_out =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Client { world: &world, notes }.run()));
    let books = match carried_out {
        Ok(Ok(())) => books(&world),
        Ok(Err(Dead)) => Err("the service died again on a disk that is well".to_owned()),
        Err(_) => Err("the script could not be carried out again".to_owned()),
    };
    let stopped = world.stop().map_err(|error| format!("it does not stop: {error:#}"));
    books.and(stopped).and(audit(left, notes))
}

/// Whatever was acknowledged or told before the failure.
fn still_there(world: &World, notes: &Notes) -> Result<(), String> {
    for (id, amount) in &notes.acknowledged {
        let (code, answer) =
            world.call(&format!("GET /v1/disbursements/{id}"), "").map_err(|_| "no answer".to_owned())?;
        if code != 200 || answer["amount"] != *amount {
            return Err(format!("{id} was acknowledged with {amount}, and is: {code} {answer}"));
        }
    }
    for (id, status) in &notes.told {
        let (_, answer) =
            world.call(&format!("GET /v1/disbursements/{id}"), "").map_err(|_| "no answer".to_owned())?;
        let now = answer["status"].to_string();
        if now != *status && !(status == "\"SUCCEEDED\"" && now == "\"REVERSED\"") {
            return Err(format!("{id} was told to be {status}, and is {answer}"));
        }
    }
    Ok(())
}

fn equal(what: &str, is: &Value, should: Value) -> Result<(), String> {
    if *is == should { Ok(()) } else { Err(format!("{what} is {is}, not {should}")) }
}

/// The service's own books, and that its wallet holds exactly what was not paid.
fn books(world: &World) -> Result<(), String> {
    let call = |what: &str, body: &str| {
        world.call(what, body).map(|(_, answer)| answer).map_err(|_| format!("no answer to {what}"))
    };
    let campaign = call("GET /v1/campaigns/c", "")?;
    let totals = |campaign: &Value| {
        json!(["funded", "spent", "reserved", "counts"].map(|name| campaign[name].clone()))
    };
    let counts = json!({"SUCCEEDED": 64, "CANCELED": 1, "REVERSED": 1});
    equal("the campaign", &totals(&campaign), json!([600, SPENT, 0, counts]))?;
    let ledger = &world.service.as_ref().expect("it runs").ledger;
    let (debits, credits) =
        ledger.with_state(|state, _| state.accounts.totals()).map_err(|error| error.to_string())?;
    if debits != credits {
        return Err(format!("debits {debits}, credits {credits}"));
    }
    let balances = ledger.with_state(|state, _| {
        let numbers = 0..state.accounts.len() as u32;
        let balance = |number| {
            let account = state.accounts.get(number);
            (
                String::from_utf8_lossy(state.accounts.name(number)).into_owned(),
                account.credits.wrapping_sub(account.debits),
            )
        };
        numbers.map(balance).collect::<BTreeMap<String, u64>>()
    });
    let balances = json!(balances.map_err(|error| error.to_string())?);
    for (account, balance) in [
        ("campaign:default:c", 600 - SPENT),
        ("person:ann", 46),
        ("person:ben", 100),
        ("person:cid", 250),
        ("person:dan", 40),
    ] {
        equal(account, &balances[account], json!(balance))?;
    }
    Ok(())
}

/// The independent reading, on a copy of the disk.
fn audit(left: &SimStorage, notes: &Notes) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    std::fs::create_dir(&journal).unwrap();
    for name in left.list().unwrap() {
        std::fs::write(journal.join(&name), left.contents(&name).unwrap()).unwrap();
    }
    let acks = folder.path().join("acks");
    let line = |(id, amount): (&String, &u64)| format!("default {id} {amount}\n");
    std::fs::write(&acks, notes.acknowledged.iter().map(line).collect::<String>()).unwrap();
    let options = hongbao::audit::Options {
        data_dir: folder.path().to_owned(),
        acks: Some(acks),
        anchor: None,
        expect_drained: true,
    };
    let report = hongbao::audit::audit(&options, None, &mut |_| {}).map_err(|error| error.to_string())?;
    if report.is_clean() { Ok(()) } else { Err(format!("{report}")) }
}

#[test]
fn at_every_boundary() {
    let seed = seed();
    let whole = run(None, seed, false);
    assert_eq!(whole.violation, None);
    let tried = env_number("HONGBAO_BOUNDARIES", 60).clamp(1, whole.changes);
    let began = Instant::now();
    for turn in 0..tried {
        let n = turn * whole.changes / tried;
        let seed = if turn % 4 == 0 { 0 } else { seed ^ n };
        let outcome = run(Some(n), seed, false);
        assert_eq!(outcome.violation, None, "boundary {n} of {}, seed {seed}", whole.changes);
    }
    println!("{tried} of {} boundaries in {:?}", whole.changes, began.elapsed());
}

#[test]
fn without_syncs_the_checker_sees_it() {
    let changes = run(None, 0, false).changes;
    let found: Vec<String> =
        (1..=6).filter_map(|part| run(Some(changes * part / 7), 0, true).violation).collect();
    println!("{found:#?}");
    assert!(found.len() >= 4, "a disk that syncs nothing must be noticed: {found:?}");
}

/// The disk is full while snapshots are taken, and then is not: the next one must stand for all.
#[test]
fn a_failed_snapshot_takes_no_id_with_it() {
    let sim = SimStorage::new();
    let world = World::open(&sim).unwrap();
    let mut notes = Notes::default();
    let mut client = Client { world: &world, notes: &mut notes };
    world.call("PUT /v1/campaigns/c", r#"{"budget":1000,"currency":"CNY"}"#).unwrap();
    client.fund("f1", 300).unwrap();
    let has = |name: &str| sim.list().unwrap().iter().any(|file| file == name).then_some(());
    await_until("a spare segment", PATIENCE, || has("spare-1"));
    sim.knobs(|knobs| knobs.space_left_bytes = Some(0));
    for n in 0..15 {
        client.pay(&format!("full{n}"), "ann", 1).unwrap();
    }
    await_until("a snapshot that failed", PATIENCE, || has("snap-desk-ids-00000001.part"));
    sim.knobs(|knobs| knobs.space_left_bytes = None);
    for n in 0..15 {
        client.pay(&format!("free{n}"), "ann", 1).unwrap();
    }
    await_until("a snapshot", PATIENCE, || has("snap-manifest"));
    let left = sim.crash(0);
    world.stop().unwrap();
    let world = World::open(&left).unwrap();
    assert_eq!(still_there(&world, &notes), Ok(()));
    let mut client = Client { world: &world, notes: &mut notes };
    client.pay("full0", "ann", 1).unwrap();
    client.pay("last", "ann", 1).unwrap();
    client.see("last", "SUCCEEDED").unwrap();
    let campaign = world.call("GET /v1/campaigns/c", "").unwrap().1;
    assert_eq!(campaign["spent"], 31, "each was paid once: {campaign}");
    world.stop().unwrap();
}
