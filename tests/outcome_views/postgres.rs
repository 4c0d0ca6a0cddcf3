//! The view that a fleet shares, over streams and a real PostgreSQL.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hongbao::domain::{Kind, Status};
use hongbao::outcome::following::Following;
use hongbao::outcome::postgres::{PostgresView, PostgresViewOptions, migrate};
use hongbao::outcome::view::{
    FollowStreams, FromStreams, ListRows, StandingRow, State, Worker, WorkerOptions,
};
use hongbao::outcome::{OutcomeView, Told};
use proptest::prelude::*;

use crate::contract::{Rig, every_page, frames, holds, interruptions};
use crate::streams::Streams;
use crate::support::postgres::{Postgres, Setup};
use crate::support::{PATIENCE, await_until};
use crate::{paid, request};

fn options(url: &str) -> PostgresViewOptions {
    PostgresViewOptions { url: url.to_owned(), connections_max: 4 }
}

fn migrated(url: &str) -> hongbao::postgres::Migration {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(migrate(url)).unwrap()
}

fn view(url: &str) -> Arc<PostgresView> {
    Arc::new(PostgresView::open(&options(url)).unwrap())
}

struct Shared {
    url: String,
    view: Arc<PostgresView>,
    streams: Arc<Streams>,
    following: Following,
}

fn open(url: &str, streams: Arc<Streams>) -> Shared {
    let following = Following::new(streams.clone());
    Shared { url: url.to_owned(), view: view(url), streams, following }
}

impl Rig for Shared {
    fn apply(&mut self) -> Result<bool, String> {
        let applied = self.view.apply_streams(&mut self.following, 1_000);
        applied.map(|applied| applied.advanced).map_err(|error| error.to_string())
    }

    fn reopen(&mut self) {
        self.view = view(&self.url);
        self.following = Following::new(self.streams.clone());
    }

    fn view(&self) -> &dyn OutcomeView {
        &*self.view
    }

    fn order(&self, rows: &mut [([u8; 16], StandingRow)]) {
        rows.sort_by(|(a_digest, a), (b_digest, b)| {
            (a.accepted_at, &a.id, a_digest).cmp(&(b.accepted_at, &b.id, b_digest))
        });
    }
}

const EMPTY: &str = "TRUNCATE hongbao_view_requests, hongbao_view_batches, hongbao_view_tallies,
    hongbao_view_burned, hongbao_view_credits, hongbao_view_streams RESTART IDENTITY";

#[test]
fn says_what_the_model_says() {
    let server = Postgres::start(Setup::default());
    let url = server.database("fleet");
    migrated(&url);
    let config = ProptestConfig {
        cases: 48,
        failure_persistence: None,
        max_shrink_iters: 100,
        ..ProptestConfig::default()
    };
    proptest!(config, |(frames in frames(), interruptions in interruptions(), frames_max in 1usize..4)| {
        server.sql("fleet", EMPTY);
        holds(&frames, &interruptions, frames_max, |streams| open(&url, streams));
    });
}

#[test]
fn tables_are_made_once_and_others_are_refused_by_name() {
    let server = Postgres::start(Setup::default());
    let url = server.database("fleet");
    let refusal = |url: &str| PostgresView::open(&options(url)).err().unwrap().to_string();
    assert!(refusal(&url).contains("run `hongbao migrate`"));
    let made: Vec<_> = thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| migrated(&url)));
        both.map(|made| made.join().unwrap()).into()
    });
    assert_eq!(made[0].identity, made[1].identity);
    assert_eq!(view(&url).identity(), made[0].identity);
    let again = migrated(&url);
    assert_eq!((again.from, again.to, &again.identity), (1, 1, &made[0].identity));
    server.sql("fleet", "UPDATE hongbao_view_schema SET version = 9");
    assert!(refusal(&url).contains("version 9"));
    let wrong = url.replace(":secret@", ":hidden@").replace("fleet", "nowhere");
    let said = refusal(&wrong);
    assert!(said.contains("nowhere") && !said.contains("hidden"), "{said}");
    assert!(refusal("postgres://u:hidden@h/d?sslmode=require").contains("TLS"));
    assert!(!refusal("postgres://u:hidden@h:x/d").contains("hidden"));
}

#[test]
fn two_that_read_one_stream_apply_nothing_twice() {
    let server = Postgres::start(Setup::default());
    let url = server.database("fleet");
    migrated(&url);
    let streams = Arc::new(Streams::default());
    let ids: Vec<String> = (0..300).map(|number| format!("r-{number:03}")).collect();
    for chunk in ids.chunks(5) {
        let facts: Vec<Told<'_>> = chunk.iter().map(|id| paid(id)).collect();
        streams.push(0, &facts);
    }
    let applied: u64 = thread::scope(|scope| {
        let instances = [(); 3].map(|()| {
            scope.spawn(|| {
                let mut instance = open(&url, streams.clone());
                let mut fenced = 0;
                loop {
                    match instance.view.apply_streams(&mut instance.following, 1_000) {
                        Ok(applied) if !applied.advanced => break,
                        Ok(_) => {}
                        Err(error) => {
                            assert!(error.to_string().contains("another instance"), "{error}");
                            fenced += 1;
                        }
                    }
                }
                fenced
            })
        });
        instances.map(|instance| instance.join().unwrap()).into_iter().sum()
    });
    assert!(applied > 0, "they never met");
    let tally = view(&url).campaign("shop", "spring", None).unwrap().unwrap();
    assert_eq!(tally.count[Status::Succeeded as usize - 1], 300);
    assert_eq!(tally.amount[Status::Succeeded as usize - 1], 2_100);
    assert_eq!(view(&url).progress().facts, 300);
}

fn reversal<'a>(id: &'a str, original: &'a str) -> Told<'a> {
    let mut told = paid(id);
    told.request.kind = Kind::Reversal;
    told.request.original = original;
    told
}

#[test]
fn what_crosses_between_instances_never_misses() {
    let server = Postgres::start(Setup::default());
    let url = server.database("fleet");
    migrated(&url);
    let streams = Arc::new(Streams::default());
    let ids: Vec<[String; 2]> =
        (0..200).map(|number| [format!("r-{number:03}"), format!("back-{number:03}")]).collect();
    for chunk in ids.chunks(4) {
        let paid_ones: Vec<Told<'_>> = chunk.iter().map(|[id, _]| paid(id)).collect();
        let back: Vec<Told<'_>> = chunk.iter().map(|[id, back]| reversal(back, id)).collect();
        streams.push(0, &paid_ones);
        streams.push(1, &back);
    }
    thread::scope(|scope| {
        for stream in [0, 1] {
            let (streams, url) = (&streams, &url);
            scope.spawn(move || {
                // An instance that owns one of the units.
                let own = Arc::new(Streams::of(streams, stream));
                let mut instance = open(url, own);
                while instance.view.apply_streams(&mut instance.following, 1_000).unwrap().advanced {}
            });
        }
    });
    let view = view(&url);
    let all = ListRows { client: "shop".into(), limit: 1_000, ..ListRows::default() };
    let rows = every_page(&*view, &ListRows { kind: Some(Kind::Disbursement), ..all });
    assert_eq!(rows.len(), 200);
    let missed: Vec<&str> =
        rows.iter().filter(|row| row.status != Status::Reversed).map(|row| row.id.as_str()).collect();
    assert!(missed.is_empty(), "not reversed: {missed:?}");
    assert_eq!(server.sql("fleet", "SELECT count(*) FROM hongbao_view_credits"), "0");
    let tally = view.campaign("shop", "spring", None).unwrap().unwrap();
    assert_eq!(tally.count[Status::Reversed as usize - 1], 200);
    assert_eq!(tally.count[Status::Succeeded as usize - 1], 0);
}

#[test]
fn the_worker_comes_back_when_the_database_does() {
    let mut server = Postgres::start(Setup::default());
    let url = server.database("fleet");
    migrated(&url);
    let streams = Arc::new(Streams::default());
    streams.push(0, &[paid("r-1")]);
    let shared = view(&url);
    let worker_options = WorkerOptions {
        idle_max: Duration::from_secs(600),
        backoff_min: Duration::from_millis(10),
        backoff_max: Duration::from_millis(100),
        ..WorkerOptions::default()
    };
    let work = Arc::new(FollowStreams::new(shared.clone(), streams.clone()));
    let handle = Worker::start(work, worker_options).unwrap();
    await_until("the first", PATIENCE, || (handle.health().state == State::Idle).then_some(()));
    server.kill_hard();
    streams.push(1, &[paid("r-2"), paid("r-1")]);
    handle.wake();
    await_until("the failure", PATIENCE, || {
        matches!(handle.health().state, State::Failed { .. }).then_some(())
    });
    assert!(shared.find("shop", &["r-1".to_owned()]).is_err());
    server.restart();
    await_until("the others", PATIENCE, || (handle.health().progress.facts == 3).then_some(()));
    let found = shared.find("shop", &["r-2".to_owned(), "r-1".to_owned(), "r-3".to_owned()]).unwrap();
    let states: Vec<Option<Status>> = found.iter().map(|row| row.as_ref().map(|row| row.status)).collect();
    assert_eq!(states, [Some(Status::Succeeded), Some(Status::Succeeded), None]);
    assert_eq!(handle.lag().distance, 0);
    handle.stop();
}

#[test]
fn texts_that_a_database_cannot_hold_do_not_stop_it() {
    let server = Postgres::start(Setup::default());
    let url = server.database("fleet");
    migrated(&url);
    let streams = Arc::new(Streams::default());
    let odd = Told { request: hongbao::domain::Request { remark: "a\0b", ..request("r-1") }, ..paid("r-1") };
    streams.push(0, &[odd]);
    let mut shared = open(&url, streams);
    shared.apply().unwrap();
    let found = shared.view.find("shop", &["r-1".to_owned()]).unwrap();
    assert_eq!(found[0].as_ref().unwrap().remark, "a\u{fffd}b");
}

#[test]
#[ignore = "a measurement: cargo test --release --test outcome_views -- --ignored --nocapture"]
fn facts_a_second() {
    let server = Postgres::start(Setup { fsync: true, settings: Vec::new() });
    let url = server.database("fleet");
    migrated(&url);
    let streams = Arc::new(Streams::default());
    let ids: Vec<String> = (0..100_000).map(|number| format!("order-2026-{number:013}")).collect();
    for chunk in ids.chunks(1_000) {
        let facts: Vec<Told<'_>> = chunk.iter().map(|id| paid(id)).collect();
        streams.push(0, &facts);
    }
    streams.state().frames_max = 5;
    let mut shared = open(&url, streams);
    let began = std::time::Instant::now();
    while shared.apply().unwrap() {}
    println!("{:.0} facts/s into PostgreSQL", 100_000.0 / began.elapsed().as_secs_f64());
}
