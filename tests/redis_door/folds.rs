//! What folds must not do: take decisions with them that nothing else has, hide that some were lost, or make everybody
//! read them again and again. The registries follow nothing by themselves, but for the last test, so that each step is one of
//! the test's.

use std::fmt::Write as _;

use hongbao::domain::{Amount, Campaign, CampaignState, Kind, Request};
use hongbao::gateway::port::CampaignChange;
use hongbao::intake::redis::campaigns::{Entry, Fold, Funding, Step};
use hongbao::intake::redis::registry::CampaignRegistry;

use crate::support::{PATIENCE, await_until};
use crate::world::{World, campaign, fund, keys, now_ms, told};

fn registry(world: &World) -> CampaignRegistry {
    let registry = CampaignRegistry::new(world.link(), &keys(), Box::new(|_| {}));
    registry.catch_up().unwrap();
    registry
}

fn put(registry: &CampaignRegistry, id: &str) {
    let change = CampaignChange::Put(Box::new(campaign(id, 1_000)));
    registry.change("s", id, &change, now_ms()).unwrap();
}

fn append(world: &World, entries: impl Iterator<Item = Entry>) {
    let mut pipe = redis::pipe();
    for entry in entries {
        pipe.cmd("XADD").arg(keys().campaigns()).arg("*").arg("e").arg(entry.encode()).ignore();
    }
    pipe.exec(&mut world.server.connect()).unwrap();
}

/// More decisions than a stream may have.
fn append_history(world: &World, id: &str) {
    let states = [CampaignState::Paused, CampaignState::Active].into_iter().cycle();
    let entry = |state| Entry::Campaign(Box::new(Campaign { state, ..campaign(id, 1_000) }));
    append(world, states.take(6_000).map(entry));
}

/// What the registry's thread does now and then, in its order; twice, so that what is made is trimmed by.
fn keep_short(registry: &CampaignRegistry) {
    for _ in 0..2 {
        registry.catch_up().unwrap();
        registry.keep_short().unwrap();
    }
}

/// The stream as it is.
fn dump(world: &World) -> Vec<u8> {
    redis::cmd("DUMP").arg(keys().campaigns()).query(&mut world.server.connect()).unwrap()
}

/// Redis goes back to what it was.
fn restore(world: &World, dump: &[u8]) {
    let mut command = redis::cmd("RESTORE");
    command.arg(keys().campaigns()).arg(0).arg(dump).arg("REPLACE");
    command.exec(&mut world.server.connect()).unwrap();
}

fn length(world: &World) -> usize {
    redis::cmd("XLEN").arg(keys().campaigns()).query(&mut world.server.connect()).unwrap()
}

/// What the last entry of the stream is, and its id.
fn last(world: &World) -> (String, Entry) {
    type Entries = Vec<(String, Vec<(String, Vec<u8>)>)>;
    let mut command = redis::cmd("XREVRANGE");
    command.arg(keys().campaigns()).arg("+").arg("-").arg("COUNT").arg(1);
    let mut entries: Entries = command.query(&mut world.server.connect()).unwrap();
    let (id, mut fields) = entries.remove(0);
    (id, Entry::decode(&fields.remove(0).1).unwrap())
}

#[test]
fn a_fold_that_was_lost_trims_nothing() {
    let world = World::new();
    let one = registry(&world);
    put(&one, "c");
    append_history(&world, "c");
    one.catch_up().unwrap();
    let before = dump(&world);
    one.keep_short().unwrap();
    append_history(&world, "c");
    one.catch_up().unwrap();
    one.keep_short().unwrap();
    one.catch_up().unwrap();
    let two = registry(&world);
    // Redis goes back to where there was no fold. The second one has seen so.
    restore(&world, &before);
    assert!(two.catch_up().unwrap_err().to_string().contains("has lost its data"));
    two.keep_short().expect("nothing is tried any more");
    assert_eq!(length(&world), 6_001);
    let told = one.keep_short().expect_err("there is nothing to go by").to_string();
    assert!(told.contains("GONE"), "{told}");
    assert_eq!(length(&world), 6_001, "nothing is trimmed");
    assert_eq!(registry(&world).get("s", "c").map(|held| held.state), Some(CampaignState::Active));
}

#[test]
fn what_was_lost_before_a_fold_is_told_by_who_had_read_it() {
    let world = World::new();
    let (one, two) = (registry(&world), registry(&world));
    put(&one, "c");
    two.catch_up().unwrap();
    let before = dump(&world);
    // The last that one reads before it is cut off had not reached the server that takes over. Two never saw it.
    put(&one, "d");
    restore(&world, &before);
    append_history(&world, "c");
    keep_short(&two);
    let (Some(told), None) = (one.catch_up().err(), two.failure()) else { panic!("the loss is hidden") };
    assert!(told.to_string().contains("has lost its data"), "{told}");
    assert!(one.failure().is_some());
}

#[test]
fn who_was_cut_off_for_a_fold_goes_on_and_who_was_for_two_says_so() {
    let world = World::new();
    let [one, short, long] = [(); 3].map(|()| registry(&world));
    put(&one, "c");
    for registry in [&short, &long] {
        registry.catch_up().unwrap();
    }
    // The second fold trims what is before the first.
    for kept in [1 + 6_000 + 2, 2 + 6_000 + 2] {
        append_history(&world, "c");
        keep_short(&one);
        assert_eq!(length(&world), kept);
        // It finds what it read last every time: the first decision, and then one that is before the second fold only.
        short.catch_up().unwrap();
        assert_eq!(short.get("s", "c"), one.get("s", "c"));
    }
    let told = long.catch_up().unwrap_err().to_string();
    assert!(told.contains("was cut off") && told.contains("Restart this instance"), "{told}");
    let change = CampaignChange::Put(Box::new(campaign("d", 1_000)));
    assert!(long.change("s", "d", &change, now_ms()).is_err(), "it decides nothing");
    assert_eq!(long.failure(), Some(told));
    assert!(long.is_overtaken() && !short.is_overtaken());
    let commands = || world.server.info("total_commands_processed").unwrap().parse::<u64>().unwrap();
    let before = commands();
    assert!(long.catch_up().is_err());
    assert_eq!(commands() - before, 1, "it reads nothing any more: the one is this question");
}

#[test]
fn who_polls_reads_a_fold_once() {
    let world = World::new();
    let one = registry(&world);
    let many = (0..1_000).map(|n| Entry::Campaign(Box::new(campaign(&format!("c-{n}"), 1_000))));
    append(&world, many);
    append_history(&world, "c-0");
    keep_short(&one);
    let two = registry(&world);
    append_history(&world, "c-0");
    for registry in [&one, &two] {
        keep_short(registry);
        registry.catch_up().unwrap();
    }
    assert!(length(&world) < 6_010, "it is trimmed: {}", length(&world));
    let sent = || world.server.info("total_net_output_bytes").unwrap().parse::<u64>().unwrap();
    let before = sent();
    for _ in 0..50 {
        assert_eq!(one.catch_up().unwrap() + two.catch_up().unwrap(), 0);
    }
    let bytes = sent() - before;
    assert!(bytes < 100_000, "{bytes} bytes, and the fold of a thousand campaigns alone has more");
}

#[test]
fn a_fold_whose_maker_got_no_further_is_covered_by_who_finds_it() {
    let world = World::new();
    let (one, two) = (registry(&world), registry(&world));
    put(&one, "c");
    put(&one, "d");
    let (through, _) = last(&world);
    let campaigns = ["c", "d"].map(|id| (*one.get("s", id).unwrap()).clone()).to_vec();
    append(&world, std::iter::once(Entry::Fold(Box::new(Fold { through, campaigns, fundings: Vec::new() }))));
    for registry in [&one, &two] {
        registry.catch_up().unwrap();
        registry.keep_short().unwrap();
        registry.catch_up().unwrap();
    }
    assert!(matches!(last(&world).1, Entry::Campaign(same) if *same == *one.get("s", "c").unwrap()));
    assert_eq!(length(&world), 4, "the last two folds, each with one behind it");
    for registry in [&one, &two] {
        registry.keep_short().unwrap();
        assert_eq!((registry.failure(), registry.catch_up().unwrap()), (None, 0));
    }
}

#[test]
fn a_fold_of_what_was_read_is_not_gone_through() {
    let world = World::new();
    let one = registry(&world);
    put(&one, "c");
    let (through, _) = last(&world);
    // One that says something else shows who goes through it.
    let other = Campaign { budget: Amount::new(7).unwrap(), ..campaign("c", 1_000) };
    let fold = Fold { through, campaigns: vec![other], fundings: Vec::new() };
    append(&world, std::iter::once(Entry::Fold(Box::new(fold))));
    one.catch_up().unwrap();
    let (fold, _) = last(&world);
    redis::cmd("XTRIM")
        .arg(keys().campaigns())
        .arg("MINID")
        .arg(fold)
        .exec(&mut world.server.connect())
        .unwrap();
    let budget = |registry: &CampaignRegistry| registry.get("s", "c").unwrap().budget.minor_units();
    assert_eq!(budget(&one), 1_000, "it was at the entry that the fold goes up to");
    assert_eq!(budget(&registry(&world)), 7, "who begins reads the fold");
}

#[test]
fn what_is_too_much_for_a_fold_stays_as_it_is() {
    let world = World::new();
    let one = registry(&world);
    // Names of two megabytes stand for very many campaigns.
    let long = |n: usize| {
        let mut id = "x".repeat(2 << 20);
        write!(id, "{n}").unwrap();
        id
    };
    append(&world, (0..5).map(|n| Entry::Campaign(Box::new(campaign(&long(n), 1_000)))));
    append(&world, std::iter::once(Entry::Campaign(Box::new(campaign("c", 1_000)))));
    append_history(&world, "c");
    one.catch_up().unwrap();
    for _ in 0..2 {
        one.keep_short().unwrap();
        assert_eq!((one.catch_up().unwrap(), length(&world)), (0, 6_006));
    }
    assert_eq!(registry(&world).get("s", "c").map(|held| held.state), Some(CampaignState::Active));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_history_is_folded_and_trimmed_and_nobody_loses_a_decision() {
    let world = World::new();
    let one = world.instance();
    // One that stands still now and then, and is far behind afterwards.
    let sleeping = CampaignRegistry::new(world.link(), &keys(), Box::new(|_| {}));
    for id in ["c", "d"] {
        one.campaign(id, 1_000).await;
    }
    let funding = |id: &str, amount| {
        let record = fund(Kind::Fund, id, amount).record;
        Funding::of(&Request::decode(&record).unwrap(), now_ms()).unwrap()
    };
    assert_eq!(one.registry.reserve(&funding("f-1", 40)), Ok(true));
    one.registry.conclude("s", "f-1", Step::Done).unwrap();
    sleeping.catch_up().unwrap();
    let key = keys().campaigns();
    let mut connection = world.server.connect();
    let length =
        |connection: &mut redis::Connection| redis::cmd("XLEN").arg(&key).query::<usize>(connection).unwrap();
    // Paused and resumed for months.
    let definition =
        |state| Campaign { state, ..one.registry.get("s", "d").map(|held| (*held).clone()).unwrap() };
    let [paused, active] = [CampaignState::Paused, CampaignState::Active]
        .map(|state| Entry::Campaign(Box::new(definition(state))).encode());
    for fold_count in 1..=2 {
        let mut pipe = redis::pipe();
        for n in 0..6_000 {
            let entry = if n % 2 == 0 { &paused } else { &active };
            pipe.cmd("XADD").arg(&key).arg("*").arg("e").arg(entry).ignore();
        }
        let before = length(&mut connection);
        pipe.exec(&mut connection).unwrap();
        // The second fold trims what is before the first.
        await_until("it to be folded and trimmed", PATIENCE, || {
            let length = length(&mut connection);
            let is_done = if fold_count == 1 { length > before + 6_000 } else { length < before + 6_000 };
            is_done.then_some(())
        });
        sleeping.catch_up().unwrap();
    }
    one.change("d", CampaignChange::Pause).await.unwrap();
    sleeping.catch_up().unwrap();
    assert_eq!(sleeping.failure(), None, "what it had read is there");
    let late = world.instance();
    for registry in [&one.registry, &sleeping, &late.registry] {
        let shared = registry.registry().read().unwrap();
        let names: Vec<_> = shared.iter().map(|held| (held.id.clone(), held.state)).collect();
        let expected = [("c", CampaignState::Active), ("d", CampaignState::Paused)];
        assert_eq!(names, expected.map(|(id, state)| (id.to_owned(), state)));
        assert_eq!(registry.committed("s", "c"), 40);
    }
    let reserve = |id, amount| late.registry.reserve(&funding(id, amount)).map_err(|refused| told(&refused));
    assert_eq!(reserve("f-1", 40), Ok(false), "it was done");
    assert_eq!(reserve("f-2", 961), Err("budget_exhausted".to_owned()), "exact as before");
    // What is lost behind a fold is noticed as ever.
    sleeping.catch_up().unwrap();
    redis::cmd("DEL").arg(&key).exec(&mut connection).unwrap();
    assert!(sleeping.catch_up().unwrap_err().to_string().contains("has lost its data"));
    world.server.await_synced();
    assert!(!world.server.has_multi_in_aof());
}
