//! Batches: one list of items under one id, told item by item, listed whole before anything of it is settled.

use hongbao::domain::{Refusal, Status};
use hongbao::gateway::port::{Accepting, CampaignChange, ListQuery, Looking};

use crate::world::{World, batch, owner_mode, pay, submission, word};

fn query(cursor: Option<String>) -> ListQuery {
    ListQuery {
        client: "s".to_owned(),
        batch: Some("b".to_owned()),
        limit: 2,
        cursor,
        ..ListQuery::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_stands_for_its_items() {
    let world = World::new();
    let (one, two) = (world.instance(), world.instance());
    one.campaign("c", 1_000_000).await;
    assert_eq!(word(&one.submit(submission(pay("i-0", 9))).await), "accepted", "under no batch");
    let items = [("i-0", 9), ("i-1", 5), ("i-1", 5), ("i-2", 5), ("i-3", 7)];
    let submit = async |office: &hongbao::app::redis::office::RedisOffice, items: &[(&str, u64)]| {
        let (head, submissions) = batch("b", items);
        office.submit(Some(head), submissions).await
    };
    let first = submit(&one.office, &items).await.unwrap();
    let words: Vec<String> = first.iter().map(word).collect();
    assert_eq!(words, ["repeated QUEUED", "accepted", "repeated QUEUED", "accepted", "accepted"]);
    let again = submit(&two.office, &items).await.unwrap();
    assert!(again.iter().all(|verdict| word(verdict) == "repeated QUEUED"));
    let other = submit(&two.office, &items[..4]).await.unwrap_err();
    assert_eq!((other.code, other.conflicts), (Refusal::IdConflict, vec!["total_count", "total_amount"]));
    let swapped = [("i-0", 9), ("i-1", 5), ("i-1", 5), ("i-2", 7), ("i-4", 5)];
    assert_eq!(submit(&one.office, &swapped).await.unwrap_err().conflicts, ["items"]);

    let standing = two.office.batch("s".to_owned(), "b".to_owned()).await.unwrap().unwrap();
    let accepted = Status::Accepted as usize - 1;
    assert_eq!((standing.tally.count[accepted], standing.tally.amount[accepted]), (3, 17));
    assert!(!standing.is_complete);
    let mut listed = Vec::new();
    let mut cursor = None;
    loop {
        let page = two.office.list(query(cursor)).await.unwrap();
        listed.extend(page.data.into_iter().map(|standing| standing.id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(listed, ["i-1", "i-2", "i-3"], "every item of it, none of them settled");
    world.settle(Status::Succeeded);
    let standing = one.office.batch("s".to_owned(), "b".to_owned()).await.unwrap().unwrap();
    assert_eq!(standing.tally.count[Status::Succeeded as usize - 1], 3);
    assert!(standing.is_complete);
    let paid = ListQuery { status: Some(Status::Succeeded), limit: 1_000, ..query(None) };
    assert_eq!(one.office.list(paid).await.unwrap().data.len(), 3);
    let failed = ListQuery { status: Some(Status::Failed), limit: 1_000, ..query(None) };
    assert_eq!(one.office.list(failed).await.unwrap().data.len(), 0);
    assert_eq!(one.office.batch("s".to_owned(), "none".to_owned()).await.unwrap(), None);
    world.server.await_synced();
    assert!(!world.server.has_multi_in_aof());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_refused_whole_leaves_its_id_free_and_a_part_may_follow() {
    let world = World::new();
    let one = world.instance();
    one.campaign("c", 1_000_000).await;
    one.change("c", CampaignChange::Pause).await.unwrap();
    let (head, items) = batch("b", &[("i-1", 5)]);
    let verdicts = one.office.submit(Some(head), items).await.unwrap();
    assert_eq!(verdicts.iter().map(word).collect::<Vec<_>>(), ["campaign_paused"]);
    one.change("c", CampaignChange::Resume).await.unwrap();
    let (head, items) = batch("b", &[("i-1", 5), ("i-2", 6)]);
    let verdicts = one.office.submit(Some(head.clone()), items.clone()).await.unwrap();
    assert_eq!(verdicts.iter().map(word).collect::<Vec<_>>(), ["accepted", "accepted"]);
    // Known ones are told through a pause.
    one.change("c", CampaignChange::Pause).await.unwrap();
    let verdicts = one.office.submit(Some(head), items).await.unwrap();
    assert!(verdicts.iter().all(|verdict| word(verdict) == "repeated QUEUED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_batch_through_two_doors_at_once_is_one_batch() {
    let world = World::new();
    let (one, two) = (world.instance(), world.instance());
    one.campaign("c", 1_000_000).await;
    two.registry.catch_up().unwrap();
    for round in 0..20 {
        let id = format!("b-{round}");
        let names: Vec<String> = (0..50).map(|n| format!("{id}-{n}")).collect();
        let items: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 5)).collect();
        let other: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 6)).collect();
        let call = |office: &hongbao::app::redis::office::RedisOffice, items: &[(&str, u64)]| {
            let (office, (head, submissions)) = (office.clone(), batch(&id, items));
            tokio::spawn(async move { office.submit(Some(head), submissions).await })
        };
        // The last one stands for another batch, whichever comes first.
        let calls = [call(&one.office, &items), call(&two.office, &items), call(&two.office, &other)];
        let (mut accepted, mut refused) = (0, 0);
        for told in calls {
            match told.await.unwrap() {
                Ok(verdicts) => accepted += verdicts.iter().filter(|v| word(v) == "accepted").count(),
                Err(conflict) => {
                    assert_eq!(conflict.code, Refusal::IdConflict);
                    refused += 1;
                }
            }
        }
        assert_eq!(accepted, 50, "round {round}");
        assert!(refused == 1 || refused == 2, "either batch may have been first: {refused}");
        let standing = one.office.batch("s".to_owned(), id).await.unwrap().unwrap();
        assert_eq!(standing.tally.count.iter().sum::<u64>(), 50, "all items are written down");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_look_ups_a_batch_is_listed_once_it_is_settled() {
    let world = World::new();
    let one = world.instance_with(owner_mode());
    one.campaign("c", 1_000).await;
    let (head, items) = batch("b", &[("i-1", 5), ("i-2", 6)]);
    one.office.submit(Some(head), items).await.unwrap();
    let refused = one.office.list(query(None)).await.unwrap_err();
    assert_eq!(refused.code, Refusal::NotAccepting);
    world.settle(Status::Succeeded);
    assert_eq!(one.office.list(query(None)).await.unwrap().data.len(), 2);
    let standing = one.office.batch("s".to_owned(), "b".to_owned()).await.unwrap().unwrap();
    assert!(standing.is_complete);
}
