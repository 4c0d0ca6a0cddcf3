//! The outcome log on a real Redis: what is recorded when, and what a server that is away, wrong or full does to it.

mod reading;
mod sample;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hongbao::domain::Status;
use hongbao::intake::redis::UnitId;
use hongbao::outcome::redis::{Announcer, Item};
use hongbao::outcome::{Appended, OutcomeLog};
use hongbao::redis::Command;

use reading::told_in;
use sample::{Opened, open, open_with, run};
use support::redis::{Fsync, RedisServer, Setup};
use support::{PATIENCE, await_until};

pub fn start() -> RedisServer {
    RedisServer::start(Setup::new(Fsync::Always))
}

const PAID: Status = Status::Succeeded;

fn append(opened: &Opened, items: &[(&str, u16, Status)]) {
    let (outcomes, requests) = run(items);
    opened.log.append(&outcomes, requests.clone()).unwrap();
}

fn take(opened: &Opened) -> Appended {
    await_until("a run to be durable", PATIENCE, || opened.log.take_durable())
}

#[test]
fn runs_are_recorded_by_unit_and_come_back_in_order() {
    let server = start();
    let opened = open(&server);
    append(&opened, &[("a", 0, PAID), ("b", 2, PAID), ("c", 0, Status::Failed)]);
    let first = take(&opened);
    append(&opened, &[("d", 2, PAID)]);
    append(&opened, &[("e", 1, PAID), ("f", 1, PAID)]);
    let (second, third) = (take(&opened), take(&opened));
    assert_eq!([first.count, second.count, third.count], [3, 1, 2]);
    assert_eq!((first.place, first.end, second.place), (0, second.place, first.bytes.len() as u64));
    assert_eq!(third.end, opened.log.appended_end());
    assert!(!opened.log.has_durable() && opened.log.take_durable().is_none());
    let states = |unit| told_in(&server, unit);
    assert_eq!(states(0), ["a SUCCEEDED", "c FAILED"]);
    assert_eq!(states(1), ["e SUCCEEDED", "f SUCCEEDED"]);
    assert_eq!(states(2), ["b SUCCEEDED", "d SUCCEEDED"]);
    assert!(opened.news.load(Ordering::Relaxed) >= 1);
    let health = opened.log.health();
    assert_eq!((health.failing, health.waiting_count), (None, 0));
    assert!(!server.has_multi_in_aof(), "one key and one command a script");
}

#[test]
fn nothing_is_durable_while_redis_stands_still_or_is_away() {
    let mut server = start();
    let opened = open(&server);
    append(&opened, &[("warm", 0, PAID)]);
    take(&opened);
    server.sigstop();
    append(&opened, &[("a", 0, PAID)]);
    append(&opened, &[("b", 1, PAID)]);
    // The round times out, and its fate is unknown.
    let reason = await_until("the failure to be told", PATIENCE, || opened.log.health().failing);
    assert!(reason.contains("outcomes cannot be recorded"), "{reason}");
    assert!(!opened.log.has_durable());
    assert_eq!(opened.log.health().waiting_count, 2);
    server.sigcont();
    assert_eq!(take(&opened).count + take(&opened).count, 2);
    server.sigkill();
    append(&opened, &[("c", 0, PAID), ("d", 0, PAID)]);
    await_until("the failure to be told", PATIENCE, || opened.log.health().failing);
    assert!(!opened.log.has_durable());
    server.restart();
    assert_eq!(take(&opened).count, 2);
    await_until("the failure to be over", PATIENCE, || opened.log.health().failing.is_none().then_some(()));
    let mut all = told_in(&server, 0);
    all.dedup();
    assert_eq!(all, ["warm SUCCEEDED", "a SUCCEEDED", "c SUCCEEDED", "d SUCCEEDED"]);
}

#[test]
fn a_key_of_the_wrong_type_gives_up_its_unit_and_no_other() {
    let server = start();
    let opened = open(&server);
    server.cli(&["SET", "{hb:1}:outcomes", "not a stream"]);
    append(&opened, &[("a", 0, PAID), ("b", 1, PAID), ("c", 2, PAID)]);
    assert_eq!(take(&opened).count, 3);
    assert_eq!(opened.refused.lock().unwrap()[..], [UnitId(1)], "told before it could be acknowledged");
    let steps = opened.notebook.steps.lock().unwrap().clone();
    assert_eq!(steps, ["park a,c", "unpark a,c", "done a,c"], "what is not on record goes on waiting");
    assert_eq!(
        (told_in(&server, 0), told_in(&server, 2)),
        (vec!["a SUCCEEDED".into()], vec!["c SUCCEEDED".into()])
    );
    // Mended, and read again.
    server.cli(&["DEL", "{hb:1}:outcomes"]);
    append(&opened, &[("b", 1, PAID)]);
    take(&opened);
    assert_eq!(told_in(&server, 1), ["b SUCCEEDED"]);
    assert_eq!(opened.refused.lock().unwrap().len(), 1);
}

#[test]
fn a_full_redis_takes_outcomes_all_the_same() {
    let server = start();
    let opened = open(&server);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    append(&opened, &[("a", 0, PAID)]);
    take(&opened);
    assert_eq!(told_in(&server, 0), ["a SUCCEEDED"]);
}

#[test]
fn outcomes_wait_for_the_wallet_to_be_durable() {
    let server = start();
    let opened = open(&server);
    opened.gate.next.store(5, Ordering::Release);
    append(&opened, &[("a", 0, PAID)]);
    opened.gate.next.store(9, Ordering::Release);
    append(&opened, &[("b", 0, PAID)]);
    opened.gate.past.store(4, Ordering::Release);
    opened.log.wake();
    assert!(told_in(&server, 0).is_empty() && !opened.log.has_durable());
    opened.gate.past.store(5, Ordering::Release);
    opened.log.wake();
    assert_eq!(take(&opened).count, 1);
    assert_eq!(told_in(&server, 0), ["a SUCCEEDED"]);
    opened.gate.past.store(9, Ordering::Release);
    assert_eq!(take(&opened).count, 1, "found without being woken");
}

#[test]
fn what_waits_is_parked_before_anybody_is_told() {
    let server = start();
    let opened = open(&server);
    *opened.notebook.commands.lock().unwrap() = vec![("park", "shelf".into()), ("unpark", "old".into())];
    server.cli(&["SET", "shelf", "in the way"]);
    append(&opened, &[("a", 0, Status::Queued)]);
    let reason = await_until("the failure to be told", PATIENCE, || opened.log.health().failing);
    assert!(reason.contains("shelf"), "{reason}");
    assert_eq!(told_in(&server, 0), ["a QUEUED"], "recorded first");
    assert!(!opened.log.has_durable());
    assert_eq!(*opened.notebook.steps.lock().unwrap(), ["park a"], "and nothing behind it began");
    server.cli(&["DEL", "shelf"]);
    take(&opened);
    assert_eq!(*opened.notebook.steps.lock().unwrap(), ["park a", "unpark a", "done a"]);
    assert_eq!(server.cli(&["LRANGE", "shelf", "0", "-1"]), "a");
    assert_eq!(server.cli(&["LRANGE", "old", "0", "-1"]), "a");
}

/// Announces to a list.
struct Lists(&'static str);

impl Announcer for Lists {
    fn announce(&self, items: &[Item<'_>]) -> Vec<Command> {
        items.iter().map(|item| Command::new("RPUSH", self.0).arg(item.request.id)).collect()
    }
}

#[test]
fn others_are_told_afterwards_and_nobody_waits_for_it() {
    let server = start();
    let opened = open_with(&server, Arc::new(Lists("results")));
    append(&opened, &[("a", 0, PAID), ("b", 1, PAID)]);
    take(&opened);
    await_until("the announcement", PATIENCE, || {
        (server.cli(&["LRANGE", "results", "0", "-1"]) == "a\nb").then_some(())
    });
    server.cli(&["DEL", "results"]);
    server.cli(&["SET", "results", "in the way"]);
    append(&opened, &[("c", 0, PAID)]);
    take(&opened);
    await_until("the failure to be counted", PATIENCE, || {
        (opened.log.health().unannounced_count == 1).then_some(())
    });
    assert_eq!(opened.log.health().failing, None);
}

#[test]
fn what_cannot_be_read_stops_the_service() {
    let server = start();
    let opened = open(&server);
    let (outcomes, _) = run(&[("a", 0, PAID)]);
    opened.log.append(&outcomes, vec![vec![0u8; 8].into()]).unwrap();
    let reason = await_until("the poison", PATIENCE, || opened.poison.reason());
    assert!(reason.contains("scribe"), "{reason}");
    let (outcomes, requests) = run(&[("b", 0, PAID)]);
    assert!(opened.log.append(&outcomes, requests.clone()).is_err());
}

#[test]
#[ignore = "a measurement: cargo test --release --test redis_outcomes -- --ignored --nocapture"]
fn outcomes_a_second() {
    let server = RedisServer::start(Setup::new(Fsync::EverySecond));
    let opened = open(&server);
    let ids: Vec<String> = (0..1_024).map(|n| format!("order-2026-{n:013}")).collect();
    let items: Vec<(&str, u16, Status)> =
        ids.iter().enumerate().map(|(n, id)| (id.as_str(), (n % 3) as u16, PAID)).collect();
    let (outcomes, requests) = run(&items);
    let began = std::time::Instant::now();
    let (mut appended, mut taken) = (0, 0);
    while taken < 2_000 {
        while appended < 2_000 && appended - taken < 64 {
            opened.log.append(&outcomes, requests.clone()).unwrap();
            appended += 1;
        }
        while opened.log.take_durable().is_some() {
            taken += 1;
        }
        std::thread::yield_now();
    }
    let per_s = 2_000.0 * 1_024.0 / began.elapsed().as_secs_f64();
    let health = opened.log.health();
    let bytes_each = health.frame_bytes as f64 / (2_000.0 * 1_024.0);
    println!("{per_s:.0} outcomes/s, {bytes_each:.1} bytes each, {} frames", health.frame_count);
}
