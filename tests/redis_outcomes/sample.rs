//! Outcomes and their requests, made by hand, and a log over a server with hooks that a test can see into.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hongbao::digest::Stamper;
use hongbao::domain::{Amount, Currency, Kind, Outcome, Request, Status};
use hongbao::intake::redis::{Keys, UnitId, Units, units};
use hongbao::outcome::redis::{
    Announcer, Barrier, Item, LogOptions, LogParts, NoAnnouncer, Parker, RedisOutcomeLog,
};
use hongbao::redis::{Command, Target};
use hongbao::ring::Poison;

use crate::support::redis::RedisServer;

pub const UNITS: u16 = 3;

pub fn keys() -> Arc<Keys> {
    Arc::new(Keys::new("hb", Units { shard_count: UNITS, fair_queue_count: 2, foreign: Vec::new() }))
}

pub fn target(server: &RedisServer) -> Target {
    Target {
        url: server.url(),
        connect_timeout: Duration::from_millis(500),
        response_timeout: Duration::from_millis(500),
        ..Target::default()
    }
}

/// A run of outcomes with their requests: ids, units and states as given.
pub fn run(items: &[(&str, u16, Status)]) -> (Vec<u8>, Vec<Bytes>) {
    let mut outcomes = Vec::new();
    let mut requests = Vec::new();
    for (number, (id, unit, status)) in items.iter().enumerate() {
        let currency = Currency::parse("CNY").unwrap();
        let mut request =
            Request::new(Kind::Disbursement, "shop", id, "spring", Amount::new(7).unwrap(), currency);
        request.party = "ann";
        request.accepted_at = 1_000;
        Stamper::default().stamp(&mut request);
        let place = units::place(UnitId(*unit), number as u64);
        let outcome = Outcome {
            status: *status,
            code: None,
            reason: None,
            kind: request.kind,
            lane: Some(request.lane),
            request_place: place,
            follows_place: place,
            key_hash: request.key_hash,
            at: 2_000,
            next_attempt_at: 0,
            attempts: 1,
            campaign_number: 0,
            amount: 7,
            wallet_ref: "",
        };
        outcome.encode(&mut outcomes);
        let mut record = Vec::new();
        request.encode(&mut record);
        requests.push(Bytes::from(record));
    }
    (outcomes, requests)
}

/// A barrier that a test moves.
#[derive(Default)]
pub struct Gate {
    pub next: AtomicU64,
    pub past: AtomicU64,
}

impl Barrier for Gate {
    fn mark(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    fn is_past(&self, mark: u64) -> bool {
        self.past.load(Ordering::Acquire) >= mark
    }
}

/// Parks by pushing ids on lists, and writes down what it was asked.
#[derive(Default)]
pub struct Notebook {
    pub commands: Mutex<Vec<(&'static str, String)>>,
    pub steps: Mutex<Vec<String>>,
}

impl Notebook {
    fn step(&self, what: &str, items: &[Item<'_>]) -> Vec<Command> {
        let ids: Vec<&str> = items.iter().map(|item| item.request.id).collect();
        self.steps.lock().unwrap().push(format!("{what} {}", ids.join(",")));
        let commands = self.commands.lock().unwrap();
        let of_step = commands.iter().filter(|(step, _)| *step == what);
        of_step.map(|(_, key)| Command::new("RPUSH", key).arg(ids.join(","))).collect()
    }
}

impl Parker for Notebook {
    fn park(&self, items: &[Item<'_>]) -> Vec<Command> {
        self.step("park", items)
    }

    fn unpark(&self, items: &[Item<'_>]) -> Vec<Command> {
        self.step("unpark", items)
    }

    fn done(&self, items: &[Item<'_>]) {
        self.step("done", items);
    }
}

/// A log over the server, and what its hooks saw.
pub struct Opened {
    pub log: RedisOutcomeLog,
    pub gate: Arc<Gate>,
    pub notebook: Arc<Notebook>,
    pub poison: Poison,
    /// How often there was news.
    pub news: Arc<AtomicU64>,
    /// Units of which nothing could be recorded.
    pub refused: Arc<Mutex<Vec<UnitId>>>,
}

pub fn open(server: &RedisServer) -> Opened {
    open_with(server, Arc::new(NoAnnouncer))
}

pub fn open_with(server: &RedisServer, announcer: Arc<dyn Announcer>) -> Opened {
    let (gate, notebook) = (Arc::new(Gate::default()), Arc::new(Notebook::default()));
    let poison = Poison::default();
    let options = LogOptions {
        items_max: 100_000,
        backoff_min: Duration::from_millis(5),
        backoff_max: Duration::from_millis(50),
    };
    let refused: Arc<Mutex<Vec<UnitId>>> = Arc::default();
    let told = refused.clone();
    let parts = LogParts {
        target: target(server),
        keys: keys(),
        barrier: gate.clone(),
        parker: notebook.clone(),
        announcer,
        on_refused: Box::new(move |unit| told.lock().unwrap().push(unit)),
        poison: poison.clone(),
        on_poison: Arc::new(|| {}),
    };
    let log = RedisOutcomeLog::start(options, parts).unwrap();
    let news = Arc::new(AtomicU64::new(0));
    let counted = news.clone();
    log.on_news(Box::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    }));
    Opened { log, gate, notebook, poison, news, refused }
}
