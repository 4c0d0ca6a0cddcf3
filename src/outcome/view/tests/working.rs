//! The worker: catches up, sleeps, is woken, steps back, fails in the open and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::super::{Lag, State, View, ViewHandle, ViewWorker, WorkerOptions};
use super::log::{Fault, Log, request};

struct Rig {
    _folder: tempfile::TempDir,
    log: Arc<Log>,
    handle: ViewHandle,
}

fn options() -> WorkerOptions {
    WorkerOptions {
        gather: Duration::from_millis(1),
        paused_interval: Duration::from_millis(20),
        // Longer than any test: whoever is not woken does not move.
        idle_max: Duration::from_secs(600),
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(10),
        ..WorkerOptions::default()
    }
}

fn accept(log: &Log, first: u64, count: u64) {
    for number in first..first + count {
        log.accept(number * 100, &request(&format!("r-{number}"), number));
    }
}

fn rig(log: Log, options: WorkerOptions) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let view = Arc::new(View::open(&folder.path().join("view.sqlite")).unwrap());
    let log = Arc::new(log);
    let handle = ViewWorker::start(view, log.clone(), options).unwrap();
    Rig { _folder: folder, log, handle }
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn catches_up_sleeps_and_is_woken() {
    let log = Log::default();
    accept(&log, 0, 500);
    let rig = rig(log, WorkerOptions { facts_max: 64, ..options() });
    wait_until("idle", || rig.handle.health().state == State::Idle);
    assert_eq!(rig.handle.health().progress.facts, 500);
    assert_eq!(rig.handle.lag(), Lag::default());

    accept(&rig.log, 500, 10);
    assert_eq!(rig.handle.lag(), Lag { distance: 10, facts_estimated: 10 });
    rig.handle.wake();
    wait_until("caught up", || rig.handle.lag() == Lag::default());
    rig.handle.stop();
    rig.handle.stop();
    assert_eq!(rig.handle.health().state, State::Stopped);
}

#[test]
fn a_paused_worker_moves_a_little_and_goes_on_after() {
    let busy = Arc::new(AtomicBool::new(true));
    let log = Log::default();
    accept(&log, 0, 2_000);
    let pause_while = {
        let busy = busy.clone();
        Arc::new(move || busy.load(Ordering::Relaxed))
    };
    let started = Instant::now();
    let rig = rig(log, WorkerOptions { facts_paused_max: 5, pause_while, ..options() });
    wait_until("some progress", || rig.handle.health().progress.facts >= 15);
    assert_eq!(rig.handle.health().state, State::Paused);
    let chunks_max = started.elapsed().as_millis() as u64 / 20 + 1;
    assert!(rig.handle.health().progress.facts <= 5 * chunks_max, "one small chunk an interval");
    busy.store(false, Ordering::Relaxed);
    wait_until("caught up", || rig.handle.lag() == Lag::default());
}

#[test]
fn failures_are_shown_contained_and_overcome() {
    for (fault, expected) in [(Fault::Error, "the disk is gone"), (Fault::Panic, "the disk is on fire")] {
        let log = Log::default();
        accept(&log, 0, 50);
        log.break_after(Some((20, fault)));
        let rig = rig(log, options());
        wait_until(
            "failed more than once",
            || matches!(rig.handle.health().state, State::Failed { failures, .. } if failures > 1),
        );
        match rig.handle.health().state {
            State::Failed { reason, .. } => assert!(reason.contains(expected), "{reason}"),
            state => panic!("{state:?}"),
        }
        assert_eq!(rig.handle.health().progress.facts, 0);
        rig.log.break_after(None);
        wait_until("caught up", || rig.handle.lag() == Lag::default());
        assert_eq!(rig.handle.view().progress().facts, 50);
    }
}
