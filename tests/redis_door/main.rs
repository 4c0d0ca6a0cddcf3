//! Accepting through a real Redis: one id, one acceptance, whoever asks and whatever breaks; batches, cancels,
//! campaigns and their budgets over several instances.

mod batches;
mod campaigns;
mod cluster;
mod folds;
mod repeats;
mod speed;
#[path = "../support/mod.rs"]
mod support;
mod trouble;
mod world;

use std::collections::HashMap;

use hongbao::domain::{Lane, Request, Status};
use hongbao::gateway::port::{Accepting, Looking, Verdict};
use hongbao::intake::redis::door::{DoorOptions, Replicas};

use support::redis::{Fsync, RedisServer, Setup};
use world::{World, cancel, each, owner_mode, pay, state, submission, word};

#[tokio::test(flavor = "multi_thread")]
async fn one_id_is_accepted_once_however_many_doors_it_comes_through() {
    let world = World::new();
    let (one, two) = (world.instance(), world.instance());
    one.campaign("c", 1_000_000).await;
    two.registry.catch_up().unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for round in 0..40u64 {
        for instance in [&one, &two] {
            for _ in 0..2 {
                let (office, ids) = (instance.office.clone(), (0..25).map(move |n| format!("r-{round}-{n}")));
                let submissions = ids.clone().map(|id| submission(pay(&id, round + 1))).collect();
                calls.spawn(async move { (ids.collect::<Vec<_>>(), each(&office, submissions).await) });
            }
        }
    }
    let mut accepted: HashMap<String, usize> = HashMap::new();
    while let Some(told) = calls.join_next().await {
        let (ids, verdicts) = told.unwrap();
        for (id, verdict) in ids.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Accepted { .. } => *accepted.entry(id).or_default() += 1,
                Verdict::Repeated(standing) => {
                    assert_eq!((standing.id, standing.status), (id, Status::Queued))
                }
                Verdict::Refused(refused) => panic!("{id}: {refused:?}"),
            }
        }
    }
    assert_eq!(accepted.len(), 1_000);
    assert!(accepted.values().all(|count| *count == 1), "one door has it, the others know it");
    let mut ids = world.appended_ids();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 1_000, "each stands in a list");
    world.server.await_synced();
    assert!(!world.server.has_multi_in_aof());
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_of_known_and_unknown_ids() {
    let world = World::new();
    let one = world.instance();
    one.campaign("c", 1_000).await;
    let past = Request { not_after: 1, ..pay("late", 5) };
    let elsewhere = Request { campaign: "nowhere", ..pay("x", 5) };
    let same = |id, amount| submission(pay(id, amount));
    // In one call, in order.
    let call = vec![
        same("a", 5),
        same("a", 5),
        same("a", 6),
        submission(past),
        same("late", 5),
        submission(past),
        submission(elsewhere),
    ];
    let words = one.office_submit(call.clone()).await;
    let expected = [
        "accepted",
        "repeated QUEUED",
        "id_conflict",
        "expired",
        "accepted",
        "repeated QUEUED",
        "campaign_unknown",
    ];
    assert_eq!(words, expected);
    let mut appended = world.appended_ids();
    appended.sort();
    assert_eq!(appended, ["a", "late"], "what is told twice in one go is appended once");
    // The same again: what is known is told, whatever else would be said of it.
    let words = one.office_submit(call.clone()).await;
    let queued = "repeated QUEUED";
    assert_eq!(words, [queued, queued, "id_conflict", queued, queued, queued, "campaign_unknown"]);
    let Verdict::Refused(conflict) = one.submit(same("a", 6)).await else { panic!("another amount") };
    assert_eq!(conflict.conflicts, ["amount"]);
    world.settle(Status::Succeeded);
    let before = world.appended_ids().len();
    assert_eq!(word(&one.submit(same("a", 5)).await), "repeated SUCCEEDED");
    assert_eq!(world.appended_ids().len(), before, "what has an outcome is not appended again");
    let found = one.office.find("s".to_owned(), vec!["a".to_owned(), "b".to_owned()]).await.unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
    let refused = one.registry.failure();
    assert_eq!(refused, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_registered_and_in_no_list_is_appended_by_the_retry() {
    let world = World::new();
    let one = world.instance();
    one.campaign("c", 1_000).await;
    let request = Request { remark: "恭喜", accepted_at: 77, lane: Lane::Bulk, ..pay("a", 5) };
    let record = submission(request).record;
    let stamped = Request::decode(&record).unwrap();
    // A door registers it, and dies.
    let mut value = Vec::new();
    hongbao::intake::redis::identity::encode_known(&stamped, &mut value);
    let pairs = [(&b"s:a"[..], value.as_slice())];
    let register =
        hongbao::intake::redis::identity::register(&world::keys().ids(stamped.key_hash), pairs.into_iter());
    world.link().call(register).unwrap();
    assert!(world.appended().is_empty());
    let Verdict::Repeated(standing) = one.submit(submission(pay("a", 5))).await else {
        panic!("it is known")
    };
    assert_eq!((standing.status, standing.accepted_at, &*standing.remark), (Status::Queued, 77, "恭喜"));
    let appended = world.appended();
    let pushed = Request::decode(&appended[0]).unwrap();
    assert_eq!((appended.len(), pushed.id, pushed.accepted_at, pushed.lane), (1, "a", 77, Lane::Bulk));
    assert_eq!(
        (pushed.digest, pushed.remark, pushed.batch),
        (stamped.digest, "恭喜", ""),
        "as it was registered"
    );
    assert_eq!(pushed.key_hash, stamped.key_hash);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancels_burn_what_is_not_final() {
    let world = World::new();
    let one = world.instance();
    one.campaign("c", 1_000).await;
    assert_eq!(word(&one.submit(submission(pay("paid", 5))).await), "accepted");
    world.settle(Status::Succeeded);
    assert_eq!(word(&one.submit(submission(pay("waits", 5))).await), "accepted");
    assert_eq!(word(&one.submit(cancel("paid")).await), "not_cancelable");
    let before = world.appended().len();
    assert_eq!(word(&one.submit(cancel("waits")).await), "accepted");
    assert_eq!(word(&one.submit(cancel("unseen")).await), "accepted");
    let appended = world.appended();
    assert_eq!(appended.len(), before + 2);
    let held: Vec<(&str, Lane, bool)> = appended
        .iter()
        .map(|record| (Request::decode(record).unwrap(), hongbao::domain::record::holds_id(record)))
        .filter(|(request, _)| !request.original.is_empty())
        .map(|(request, holds)| {
            (if request.id == "unseen" { "unseen" } else { "waits" }, request.lane, holds)
        })
        .collect();
    assert_eq!(held, [("waits", Lane::Control, false), ("unseen", Lane::Control, true)]);
    let Verdict::Refused(conflict) = one.submit(submission(pay("unseen", 5))).await else { panic!("burned") };
    assert!(conflict.detail.contains("canceled before it was seen"), "{conflict:?}");
    // Told by the wallet's word, in the end.
    world.view.put(&pay("waits", 5), Status::Canceled);
    assert_eq!(state(one.office.submit_and_wait(cancel("waits")).await), "CANCELED");
    assert_eq!(word(&one.submit(cancel("unseen")).await), "repeated QUEUED");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_look_ups_the_202_says_so() {
    let world = World::new();
    let one = world.instance_with(owner_mode());
    one.campaign("c", 1_000).await;
    for _ in 0..2 {
        let Verdict::Accepted { guarantee, .. } = one.submit(submission(pay("a", 5))).await else { panic!() };
        assert!(guarantee.is_duplicate_check_deferred);
        assert_eq!(guarantee.durability.as_deref(), Some("fsync"));
    }
    assert_eq!(world.appended_ids(), ["a", "a"]);
    let found = one.office.find("s".to_owned(), vec!["a".to_owned()]).await.unwrap();
    assert_eq!(found, [None], "known once it is settled");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_202_says_how_many_replicas_confirmed_it() {
    let world = World::new();
    let replicas = Some(Replicas { count: 2, timeout_ms: 300, count_min: 0 });
    let one = world.instance_with(DoorOptions { replicas, ..DoorOptions::default() });
    one.campaign("c", 1_000).await;
    let durability = async |id: &str| {
        let Verdict::Accepted { guarantee, .. } = one.submit(submission(pay(id, 5))).await else { panic!() };
        guarantee.durability.unwrap().to_string()
    };
    assert_eq!(durability("alone").await, "fsync", "none confirmed it");
    let _replica = RedisServer::start(Setup::new(Fsync::NoFile).replica_of(world.server.port()));
    support::await_until("the replica to follow", support::PATIENCE, || {
        (world.server.cli(&["WAIT", "1", "100"]) == "1").then_some(())
    });
    // One that has only just followed takes longer than is waited for, one or the other time.
    let mut followed = String::new();
    for n in 0..20 {
        followed = durability(&format!("followed-{n}")).await;
        if followed == "replicated:1" {
            break;
        }
    }
    assert_eq!(followed, "replicated:1");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_replicas_must_confirm_nothing_is_accepted_without_them() {
    let world = World::new();
    let replicas = Some(Replicas { count: 1, timeout_ms: 500, count_min: 1 });
    let one = world.instance_with(DoorOptions { replicas, ..DoorOptions::default() });
    one.campaign("c", 1_000).await;
    for _ in 0..2 {
        assert_eq!(word(&one.submit(submission(pay("alone", 5))).await), "append_unknown unknown");
    }
    let _replica = RedisServer::start(Setup::new(Fsync::NoFile).replica_of(world.server.port()));
    support::await_until("the replica to follow", support::PATIENCE, || {
        (world.server.cli(&["WAIT", "1", "100"]) == "1").then_some(())
    });
    // On a busy machine one or the other takes a replica longer than is waited for.
    let mut confirmed = None;
    for n in 0..20 {
        match one.submit(submission(pay(&format!("followed-{n}"), 5))).await {
            Verdict::Accepted { guarantee, .. } => {
                confirmed = Some(guarantee);
                break;
            }
            other => assert_eq!(word(&other), "append_unknown unknown"),
        }
    }
    let guarantee = confirmed.expect("it was confirmed");
    assert_eq!(guarantee.durability.as_deref(), Some("replicated:1"));
    assert_eq!(word(&one.submit(submission(pay("alone", 5))).await), "repeated QUEUED", "the retry");
}
