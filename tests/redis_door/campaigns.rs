//! Campaigns over several instances: changes reach all, decisions stand in one order, budgets hold.

use std::sync::Arc;
use std::time::Duration;

use hongbao::domain::{Campaign, CampaignState, Kind, Refusal, Request, Status, WaitReason};
use hongbao::gateway::port::{Accepting, CampaignChange, Looking};
use hongbao::intake::redis::campaigns::Funding;
use hongbao::intake::redis::registry::CampaignRegistry;
use hongbao::intake::redis::sweep::{SweepOptions, Sweeper};
use hongbao::intake::redis::{Held, UnitId};
use hongbao::redis::Command;

use crate::support::{PATIENCE, await_until};
use crate::world::{World, batch, campaign, cancel, fund, keys, now_ms, pay, state, submission, told, word};

#[tokio::test(flavor = "multi_thread")]
async fn changes_reach_every_instance_within_a_second() {
    let world = World::new();
    let (one, two) = (world.instance(), world.instance());
    one.campaign("c", 1_000).await;
    assert_eq!(
        word(&two.submit(submission(pay("a", 5))).await),
        "accepted",
        "asked for, as it was not known"
    );
    one.change("c", CampaignChange::Pause).await.unwrap();
    let second = Duration::from_secs(1);
    let is_state = |state| (two.registry.get("s", "c").unwrap().state == state).then_some(());
    await_until("the pause to be known", second, || is_state(CampaignState::Paused));
    assert_eq!(word(&two.submit(submission(pay("b", 5))).await), "campaign_paused");
    two.change("c", CampaignChange::Resume).await.unwrap();
    await_until("the release", second, || (!one.releases.lock().unwrap().is_empty()).then_some(()));
    assert_eq!(one.releases.lock().unwrap()[0].reasons, [WaitReason::CampaignPaused]);
    two.change("c", CampaignChange::Close).await.unwrap();
    assert_eq!(one.change("c", CampaignChange::Resume).await.unwrap_err().code, Refusal::CampaignClosed);
    // Numbers are those of the stream, also for who comes late.
    for id in ["d", "e"] {
        two.campaign(id, 5).await;
    }
    let late = world.instance();
    let names = |registry: &CampaignRegistry| {
        registry.catch_up().unwrap();
        let shared = registry.registry().read().unwrap();
        shared.iter().map(|campaign| campaign.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&late.registry), ["c", "d", "e"]);
    assert_eq!(names(&one.registry), names(&late.registry));
    assert!(late.releases.lock().unwrap().is_empty(), "history sets nothing free");
    let limited = Campaign { per_payee_count: Some(1), ..campaign("f", 5) };
    let refused = one.change("f", CampaignChange::Put(Box::new(limited))).await.unwrap_err();
    assert_eq!(refused.code, Refusal::InvalidField);
    world.server.await_synced();
    assert!(!world.server.has_multi_in_aof());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_never_funds_past_a_budget() {
    let world = World::new();
    let (one, two) = (world.instance(), world.instance());
    one.campaign("c", 100).await;
    let registries = [one.registry.clone(), two.registry.clone()];
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let registry = registries[thread % 2].clone();
            std::thread::spawn(move || {
                let reserve = |n: usize| {
                    let id = format!("f-{thread}-{n}");
                    let record = fund(Kind::Fund, &id, 3).record;
                    let funding = Funding::of(&Request::decode(&record).unwrap(), now_ms());
                    registry.reserve(&funding.unwrap()).map_err(|refused| told(&refused))
                };
                (0..10).map(reserve).collect::<Vec<_>>()
            })
        })
        .collect();
    let told: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let reserved = told.iter().filter(|told| matches!(told, Ok(true))).count();
    assert_eq!(reserved, 33, "33 x 3 fit in 100: {told:?}");
    assert!(told.iter().all(|told| matches!(told, Ok(true)) || told == &Err("budget_exhausted".to_owned())));
    for registry in registries {
        registry.catch_up().unwrap();
        assert_eq!(registry.committed("s", "c"), 99);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn funding_that_failed_gives_its_room_back() {
    let world = World::new();
    let one = world.instance();
    one.campaign("c", 100).await;
    // Whatever is appended is settled at once, by name.
    let settle = async |id: &'static str, status: Status, kind: Kind, amount: u64| {
        let (office, view) = (one.office.clone(), world.view.clone());
        let call = tokio::spawn(async move { office.submit_and_wait(fund(kind, id, amount)).await });
        await_until("it to be appended", PATIENCE, || {
            world.appended_ids().contains(&id.to_owned()).then_some(())
        });
        view.put(&Request { kind, party: "", ..pay(id, amount) }, status);
        state(call.await.unwrap())
    };
    assert_eq!(settle("a", Status::Succeeded, Kind::Fund, 60).await, "SUCCEEDED");
    assert_eq!(state(one.office.submit_and_wait(fund(Kind::Fund, "b", 41)).await), "budget_exhausted");
    assert_eq!(settle("d", Status::Failed, Kind::Fund, 40).await, "FAILED");
    assert_eq!(one.registry.committed("s", "c"), 60);
    assert_eq!(settle("e", Status::Succeeded, Kind::Defund, 20).await, "SUCCEEDED");
    assert_eq!(one.registry.committed("s", "c"), 40);
    // A repeat reserves nothing more, another amount under the id is a conflict and takes nothing away.
    assert_eq!(state(one.office.submit_and_wait(fund(Kind::Fund, "a", 60)).await), "SUCCEEDED");
    assert_eq!(state(one.office.submit_and_wait(fund(Kind::Fund, "a", 1)).await), "id_conflict");
    assert_eq!(one.registry.committed("s", "c"), 40);
    let standing = one.office.campaign("s".to_owned(), "c".to_owned()).await.unwrap().unwrap();
    assert_eq!((standing.books.funded, standing.books.funding_pending), (40, 0));
    let lower = CampaignChange::Put(Box::new(campaign("c", 39)));
    assert_eq!(one.change("c", lower).await.unwrap_err().conflicts, ["budget"]);
    let low_balance = |release: &hongbao::intake::redis::campaigns::Release| {
        release.reasons.contains(&WaitReason::LowBalance)
    };
    assert!(one.releases.lock().unwrap().iter().any(low_balance), "what waits for money is looked at again");

    // Nobody waits for this one any more: whoever needs its room finds out.
    let abandoned = fund(Kind::Fund, "gone", 60);
    let funding = Funding::of(&Request::decode(&abandoned.record).unwrap(), now_ms());
    assert_eq!(one.registry.reserve(&funding.unwrap()), Ok(true));
    assert_eq!(state(one.office.submit_and_wait(fund(Kind::Fund, "h", 1)).await), "budget_exhausted");
    world.view.put(&Request { kind: Kind::Fund, party: "", ..pay("gone", 60) }, Status::Failed);
    assert_eq!(settle("h", Status::Succeeded, Kind::Fund, 60).await, "SUCCEEDED");
    assert_eq!(one.registry.committed("s", "c"), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_cannot_be_read_stops_decisions_and_says_so() {
    let world = World::new();
    let (one, two) = (world.instance(), world.instance());
    one.campaign("c", 100).await;
    world.server.cli(&["XADD", "h:campaigns", "*", "e", "{\"version\":3}"]);
    let refused = two.change("d", CampaignChange::Put(Box::new(campaign("d", 1)))).await.unwrap_err();
    assert_eq!(refused.code, Refusal::NotAccepting);
    assert!(refused.detail.contains("version 3"), "{}", refused.detail);
    assert!(two.registry.failure().is_some());
    // Lost data is told, not decided upon.
    let world = World::new();
    let one = world.instance();
    one.campaign("c", 100).await;
    world.server.cli(&["FLUSHALL"]);
    let refused = one.change("c", CampaignChange::Pause).await.unwrap_err();
    assert!(refused.detail.contains("has lost its data"), "{}", refused.detail);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_was_lost_is_noticed_though_another_goes_on_and_a_deleted_entry_stops_nobody() {
    let world = World::new();
    let (one, two) = (world.instance(), world.instance());
    one.campaign("c", 100).await;
    one.campaign("d", 100).await;
    two.registry.catch_up().unwrap();
    // The last entry is deleted by hand: whoever has read it goes on.
    let last = world.server.cli(&["XREVRANGE", "h:campaigns", "+", "-", "COUNT", "1"]);
    let last = last.lines().next().unwrap().trim().to_owned();
    world.server.cli(&["XDEL", "h:campaigns", &last]);
    one.campaign("e", 100).await;
    two.registry.catch_up().unwrap();
    assert!(two.registry.get("s", "e").is_some() && two.registry.failure().is_none());
    // The end is lost with a server, and an instance that comes anew appends where it was.
    let dump: Vec<u8> =
        redis::cmd("DUMP").arg("h:campaigns").query(&mut world.server.connect()).expect("a dump");
    one.campaign("f", 100).await;
    two.registry.catch_up().unwrap();
    let restore = |dump: &[u8]| {
        redis::cmd("RESTORE")
            .arg("h:campaigns")
            .arg(0)
            .arg(dump)
            .arg("REPLACE")
            .exec(&mut world.server.connect())
            .expect("restored");
    };
    restore(&dump);
    let three = world.instance();
    three.registry.catch_up().unwrap();
    three.campaign("g", 100).await;
    for instance in [&one, &two] {
        let refused = instance.change("c", CampaignChange::Pause).await.unwrap_err();
        assert!(refused.detail.contains("has lost its data"), "{}", refused.detail);
        assert!(instance.registry.failure().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn funding_that_was_reserved_and_never_asked_for_is_asked_for_again() {
    let world = World::new();
    let one = world.instance();
    one.campaign("c", 1_000).await;
    let reserve = |id: &str, at: u64| {
        let record = fund(Kind::Fund, id, 3).record;
        let request = Request::decode(&record).unwrap();
        let funding = Funding::of(&request, at).unwrap();
        assert_eq!(one.registry.reserve(&funding), Ok(true));
    };
    // More than are looked at in one turn, of a door that died long ago.
    for n in 0..120 {
        reserve(&format!("f-{n}"), 1_000 + n);
    }
    await_until("all to be asked for", PATIENCE, || {
        let mut ids = world.appended_ids();
        ids.sort();
        ids.dedup();
        (ids.len() == 120).then_some(())
    });
    assert_eq!(world.appended_ids().len(), 120, "each once");
    for n in 0..120 {
        world.view.put(&Request { kind: Kind::Fund, party: "", ..pay(&format!("f-{n}"), 3) }, Status::Failed);
    }
    await_until("the room to be given back", PATIENCE, || {
        (one.registry.committed("s", "c") == 0).then_some(())
    });
    assert_eq!(world.appended_ids().len(), 120);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_a_closed_campaign_are_forgotten_after_their_retention() {
    let world = World::new();
    let one = world.instance();
    one.campaign("c", 1_000).await;
    one.campaign("open", 1_000).await;
    let (head, items) = batch("b", &[("i-1", 5), ("i-2", 6)]);
    one.office.submit(Some(head), items).await.unwrap();
    assert_eq!(
        word(&one.submit(submission(Request { campaign: "open", ..pay("kept", 5) })).await),
        "accepted"
    );
    assert_eq!(word(&one.submit(cancel("unseen")).await), "accepted");
    one.change("c", CampaignChange::Close).await.unwrap();
    let held = Arc::new(Held::new("me".to_owned(), usize::from(crate::world::SHARDS)));
    let options = SweepOptions { retention_ms: 1_000, pause: Duration::ZERO, ..SweepOptions::default() };
    let registry = one.registry.registry().clone();
    let mut sweeper = Sweeper::new(world.link(), keys(), held.clone(), registry, options);
    let fields = || {
        let mut link = world.link();
        let shards = (0..crate::world::SHARDS).map(UnitId);
        let buckets = shards.flat_map(|shard| keys().id_buckets(shard));
        let count = |key: String| {
            hongbao::redis::reply::int("HLEN", link.call(Command::new("HLEN", key)).unwrap()).unwrap()
        };
        buckets.map(count).sum::<i64>()
    };
    assert_eq!(fields(), 6, "two items, their batch's head and list, one of another campaign, a cancel");
    let later = now_ms() + 2_000;
    sweeper.sweep(later, &|| false).unwrap();
    assert_eq!(fields(), 6, "units of others are not swept");
    for unit in (0..crate::world::SHARDS).map(UnitId) {
        held.gained(unit, 1);
    }
    sweeper.sweep(now_ms(), &|| false).unwrap();
    assert_eq!(fields(), 6, "not before the retention has passed");
    sweeper.sweep(later, &|| false).unwrap();
    assert_eq!(fields(), 1);
    let found = one.office.find("s".to_owned(), vec!["i-1".to_owned(), "kept".to_owned()]).await.unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true]);
    assert_eq!(word(&one.submit(submission(pay("i-1", 5))).await), "campaign_closed");
    world.server.await_synced();
    assert!(!world.server.has_multi_in_aof());
}
