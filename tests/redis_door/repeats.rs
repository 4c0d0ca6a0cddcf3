//! Repeats of what has no outcome yet: told how it stands, and appended again no more often than is needed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hongbao::domain::Request;
use hongbao::intake::redis::door::{DoorOptions, Outlook};
use hongbao::intake::redis::identity;

use crate::world::{World, cancel, keys, now_ms, pay, submission, word};

#[tokio::test(flavor = "multi_thread")]
async fn repeats_of_what_stands_in_a_list_are_not_appended_again() {
    let world = World::new();
    let (one, two) = (world.instance(), world.instance());
    one.campaign("c", 1_000_000).await;
    assert_eq!(word(&one.submit(submission(pay("a", 5))).await), "accepted");
    for _ in 0..100 {
        assert_eq!(word(&one.submit(submission(pay("a", 5))).await), "repeated QUEUED");
    }
    assert_eq!(world.appended_ids(), ["a"], "the door that took it in knows that it did");
    for _ in 0..100 {
        assert_eq!(word(&two.submit(submission(pay("a", 5))).await), "repeated QUEUED");
    }
    assert_eq!(world.appended_ids(), ["a", "a"], "one that cannot know appends it once");
    // All at once, and in one call too.
    assert_eq!(word(&one.submit(submission(pay("b", 5))).await), "accepted");
    let many: Vec<_> = (0..50).map(|_| submission(pay("b", 5))).collect();
    let words: Vec<String> = two.office_submit(many).await;
    assert!(words.iter().all(|word| word == "repeated QUEUED"), "{words:?}");
    assert_eq!(world.appended_ids().iter().filter(|id| *id == "b").count(), 2);
    for _ in 0..20 {
        assert_eq!(word(&one.submit(cancel("a")).await), "accepted");
    }
    let cancels = world.appended();
    let cancels = cancels.iter().filter(|record| Request::decode(record).unwrap().original == "a").count();
    assert_eq!(cancels, 1, "it is asked for once");
    world.server.await_synced();
    assert!(!world.server.has_multi_in_aof());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_appended_again_is_noted_for_all() {
    let world = World::new();
    let one = world.instance();
    one.campaign("c", 1_000).await;
    assert_eq!(word(&one.submit(submission(pay("a", 5))).await), "accepted");
    // Those to come know nothing of it but what its id says.
    let (two, three) = (world.instance(), world.instance());
    // Connected, so that it knows since when it does.
    assert_eq!(word(&three.submit(submission(pay("x", 5))).await), "accepted");
    assert_eq!(word(&two.submit(submission(pay("a", 5))).await), "repeated QUEUED");
    let key = keys().ids(Request::decode(&submission(pay("a", 5)).record).unwrap().key_hash);
    let looked = world.link().call(identity::look(&key, [&b"s:a"[..]].into_iter())).unwrap();
    let value = identity::looked(looked, 1).unwrap().remove(0).unwrap();
    let known = identity::KnownId::new("s", "a", value).unwrap();
    assert!(known.appended_again_at().is_some_and(|at| at.abs_diff(crate::world::now_ms()) < 60_000));
    for _ in 0..20 {
        assert_eq!(word(&three.submit(submission(pay("a", 5))).await), "repeated QUEUED");
    }
    let count = world.appended_ids().iter().filter(|id| *id == "a").count();
    // Each of the threads of the third one may have made its connection only now.
    assert!((2..=4).contains(&count), "{count}");
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_add_nothing_where_there_is_no_room() {
    let world = World::new();
    let one = world.instance_with(DoorOptions { backlog_max: 20, ..DoorOptions::default() });
    one.campaign("c", 1_000).await;
    let ids: Vec<String> = (0..20).map(|n| format!("r-{n}")).collect();
    for id in &ids {
        assert_eq!(word(&one.submit(submission(pay(id, 5))).await), "accepted");
    }
    let calm = one.outlook.lock().unwrap().clone();
    for full in [Outlook { backlog: 20, ..calm.clone() }, Outlook { is_full: true, ..calm.clone() }] {
        // Another door, that has seen none of it.
        let two = world.instance_with(DoorOptions { backlog_max: 20, ..DoorOptions::default() });
        for instance in [&one, &two] {
            *instance.outlook.lock().unwrap() = full.clone();
            assert_eq!(word(&instance.submit(submission(pay("new", 5))).await), "backlog_full");
        }
        for id in &ids {
            assert_eq!(word(&one.submit(submission(pay(id, 5))).await), "repeated QUEUED");
            assert_eq!(word(&two.submit(submission(pay(id, 5))).await), "backlog_full unknown");
        }
        assert_eq!(world.appended_ids().len(), 20, "{full:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_restarted_redis_may_have_lost_is_appended_again() {
    let mut world = World::new();
    let one = world.instance_with(DoorOptions { thread_count: 1, ..DoorOptions::default() });
    one.campaign("c", 1_000).await;
    assert_eq!(word(&one.submit(submission(pay("a", 5))).await), "accepted");
    world.server.sigkill();
    world.server.restart();
    let mut told = String::new();
    for _ in 0..200 {
        told = word(&one.submit(submission(pay("a", 5))).await);
        if told == "repeated QUEUED" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(told, "repeated QUEUED");
    assert_eq!(
        world.appended_ids(),
        ["a", "a"],
        "another connection: what was confirmed on the old one may be gone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_thread_finds_the_connection_gone_none_believes_what_was_confirmed_on_it() {
    let world = World::new();
    for round in 0..10 {
        // Of its two threads, one has served nothing when the connections break.
        let one = world.instance();
        one.campaign("c", 1_000).await;
        let id = format!("a-{round}");
        assert_eq!(word(&one.submit(submission(pay(&id, 5))).await), "accepted");
        let shard =
            keys().units().shard_of(Request::decode(&submission(pay(&id, 5)).record).unwrap().key_hash);
        for queue in keys().queues(shard) {
            world.server.cli(&["DEL", &keys().list(shard, queue)]);
        }
        world.server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        let mut told = String::new();
        for _ in 0..200 {
            told = word(&one.submit(submission(pay(&id, 5))).await);
            if told == "repeated QUEUED" {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(told, "repeated QUEUED");
        assert!(world.appended_ids().contains(&id), "{id} is told to wait, and is in no list");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_noted_before_a_connection_was_seen_to_be_gone_is_not_believed() {
    // A gathering reads the clock when it begins, and may find out much later.
    let is_early = Arc::new(AtomicBool::new(false));
    let early = is_early.clone();
    let clock = Arc::new(move || now_ms() - if early.swap(false, Ordering::SeqCst) { 5_000 } else { 0 });
    let world = World { clock, ..World::new() };
    let one = world.instance_with(DoorOptions { thread_count: 1, ..DoorOptions::default() });
    let two = world.instance();
    one.campaign("c", 1_000).await;
    assert_eq!(word(&one.submit(submission(pay("a", 5))).await), "accepted");
    assert_eq!(word(&two.submit(submission(pay("a", 5))).await), "repeated QUEUED");
    assert_eq!(world.appended_ids(), ["a", "a"], "the second time it was noted");
    let shard = keys().units().shard_of(Request::decode(&submission(pay("a", 5)).record).unwrap().key_hash);
    for queue in keys().queues(shard) {
        world.server.cli(&["DEL", &keys().list(shard, queue)]);
    }
    world.server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    let mut told = String::new();
    for _ in 0..200 {
        is_early.store(true, Ordering::SeqCst);
        told = word(&one.submit(submission(pay("a", 5))).await);
        if told == "repeated QUEUED" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(told, "repeated QUEUED");
    assert!(world.appended_ids().contains(&"a".to_owned()), "it is told to wait, and is in no list");
}
