//! What the door says when Redis stands still, is full, is gone, or may not be used; and that a retry is safe then.

use std::sync::Arc;

use hongbao::domain::Status;
use hongbao::gateway::port::{Accepting, Looking, Verdict};
use hongbao::intake::redis::door::{DoorOptions, Outlook};
use hongbao::shaping::Promises;

use crate::support::{PATIENCE, await_until};
use crate::world::{World, batch, each, owner_mode, pay, submission, told, word};

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_stands_still_leaves_it_unknown_and_the_retry_is_safe() {
    let world = World::new();
    // One that is connected: whoever cannot connect has sent nothing, and says so.
    let one = world.instance_with(DoorOptions { thread_count: 1, ..DoorOptions::default() });
    one.campaign("c", 1_000).await;
    assert_eq!(word(&one.submit(submission(pay("before", 5))).await), "accepted");
    world.server.sigstop();
    let submit = submission(pay("a", 5));
    assert_eq!(word(&one.submit(submit.clone()).await), "append_unknown unknown");
    world.server.sigcont();
    let mut told = String::new();
    for _ in 0..100 {
        told = word(&one.submit(submit.clone()).await);
        // The door's connection comes back by itself; until then nothing is sent.
        if told != "not_accepting" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(told == "accepted" || told == "repeated QUEUED", "{told}");
    assert!(world.appended_ids().iter().filter(|id| *id == "a").count() >= 1);
    assert_eq!(word(&one.submit(submit).await), "repeated QUEUED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_gone_accepts_nothing_and_says_so() {
    let mut world = World::new();
    let options = DoorOptions { thread_count: 1, ..DoorOptions::default() };
    let (one, hasty) = (world.instance_with(options), world.instance_with(owner_mode()));
    one.campaign("c", 1_000).await;
    hasty.registry.catch_up().unwrap();
    assert_eq!(word(&one.submit(submission(pay("before", 5))).await), "accepted");
    world.server.sigkill();
    for instance in [&one, &hasty] {
        // The first may find out by being cut off.
        instance.submit(submission(pay("first", 5))).await;
        assert_eq!(word(&instance.submit(submission(pay("a", 5))).await), "not_accepting");
    }
    let found = one.office.find("s".to_owned(), vec!["before".to_owned()]).await.unwrap_err();
    assert_eq!(told(&found), "not_accepting");
    world.server.restart();
    await_until("the door to come back", PATIENCE, || {
        let told = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(one.submit(submission(pay("a", 5))))
        });
        (word(&told) != "not_accepting").then_some(())
    });
    assert_eq!(word(&one.submit(submission(pay("before", 5))).await), "repeated QUEUED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_takes_nothing_new_and_tells_what_it_knows() {
    let world = World::new();
    let (one, two) = (world.instance(), world.instance());
    one.campaign("c", 1_000).await;
    assert_eq!(word(&one.submit(submission(pay("settled", 5))).await), "accepted");
    world.settle(Status::Succeeded);
    assert_eq!(word(&one.submit(submission(pay("waits", 5))).await), "accepted");
    let (head, items) = batch("b", &[("i-1", 5)]);
    one.office.submit(Some(head.clone()), items.clone()).await.unwrap();
    world.server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = one.submit(submission(pay("new", 5))).await;
    assert_eq!(word(&refused), "backlog_full");
    let Verdict::Refused(refused) = refused else { panic!() };
    assert_eq!(refused.retry_after_s, Some(2));
    assert_eq!(word(&one.submit(submission(pay("settled", 5))).await), "repeated SUCCEEDED");
    // This one appended it a moment ago; the other one cannot know whether it stands in a list.
    assert_eq!(word(&one.submit(submission(pay("waits", 5))).await), "repeated QUEUED");
    assert_eq!(word(&two.submit(submission(pay("waits", 5))).await), "backlog_full unknown");
    let (other, more) = batch("b2", &[("i-2", 5)]);
    assert_eq!(
        told(&one.office.submit(Some(other.clone()), more.clone()).await.unwrap_err()),
        "backlog_full"
    );
    let known = two.office.submit(Some(head), items).await.unwrap();
    assert_eq!(known.iter().map(word).collect::<Vec<_>>(), ["backlog_full unknown"]);
    // Campaigns can be paused all the same.
    one.change("c", hongbao::gateway::port::CampaignChange::Pause).await.unwrap();
    world.server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    one.change("c", hongbao::gateway::port::CampaignChange::Resume).await.unwrap();
    assert_eq!(word(&one.submit(submission(pay("new", 5))).await), "accepted");
    assert_eq!(one.office.submit(Some(other), more).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn admission_never_hides_what_is_known() {
    let world = World::new();
    let one = world.instance();
    one.campaign("c", 1_000).await;
    assert_eq!(word(&one.submit(submission(pay("a", 5))).await), "accepted");
    let calm = one.outlook.lock().unwrap().clone();
    // outlook, of a new one, of a known one
    let table = [
        (Outlook { backlog: u64::MAX / 2, ..calm.clone() }, "backlog_full", "repeated QUEUED"),
        (
            Outlook { promises: Arc::new(Promises::flat(1 << 40)), ..calm.clone() },
            "backlog_full",
            "repeated QUEUED",
        ),
        (Outlook { is_full: true, ..calm.clone() }, "backlog_full", "repeated QUEUED"),
        (
            Outlook { closed: Some("Redis has lost its data".to_owned()), ..calm.clone() },
            "not_accepting",
            "not_accepting unknown",
        ),
        (calm, "accepted", "repeated QUEUED"),
    ];
    for (outlook, new, known) in table {
        *one.outlook.lock().unwrap() = outlook.clone();
        let told = (
            word(&one.submit(submission(pay("b", 5))).await),
            word(&one.submit(submission(pay("a", 5))).await),
        );
        assert_eq!(told, (new.to_owned(), known.to_owned()), "{outlook:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once_and_what_was_taken_in_is_answered() {
    let world = World::new();
    let one = world.instance_with(DoorOptions { ops_max: 4, thread_count: 1, ..DoorOptions::default() });
    one.campaign("c", 100_000).await;
    world.server.sigstop();
    let calls: Vec<_> = (0..20)
        .map(|n| {
            let (office, id) = (one.office.clone(), format!("r-{n}"));
            tokio::spawn(async move { each(&office, vec![submission(pay(&id, 1))]).await })
        })
        .collect();
    let mut words = std::collections::BTreeMap::<String, usize>::new();
    for call in calls {
        *words.entry(word(&call.await.unwrap()[0])).or_default() += 1;
    }
    world.server.sigcont();
    assert!(words["backlog_full"] >= 12, "{words:?}");
    assert!(
        words
            .keys()
            .all(|word| ["backlog_full", "append_unknown unknown", "not_accepting"].contains(&&**word)),
        "{words:?}"
    );
}
