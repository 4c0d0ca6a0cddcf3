//! What keeps an instance from owning anything: lost data, another wallet, other shards, another view.

use std::time::Duration;

use hongbao::intake::redis::board::{self, WalletRecord};
use hongbao::intake::redis::{Keys, Units};
use hongbao::redis::{Value, reply};

use crate::instance::{Instance, Setup, UNIT_COUNT, WALLET, keys};
use crate::server::Server;
use crate::support::{PATIENCE, await_until};

const ALL: usize = UNIT_COUNT as usize;

fn holds(instance: &Instance, count: usize) {
    let what = format!("{} to hold {count}", instance.incarnation());
    await_until(&what, PATIENCE, || (instance.held.count() == count).then_some(()));
}

fn stumbles(instance: &Instance, code: &str) -> String {
    let what = format!("{} to say {code}", instance.incarnation());
    await_until(&what, PATIENCE, || (instance.anomaly() == Some(code)).then_some(()));
    holds(instance, 0);
    instance.standing.door_closed().expect("the door is closed")
}

fn exists(server: &Server, key: &str) -> bool {
    server.ask(&["EXISTS", key]) == Value::Int(1)
}

#[test]
fn lost_data_is_told_and_nothing_is_set_up_in_its_place() {
    for what in ["all", "wallet", "shards", "owner"] {
        let server = Server::start();
        let one = Instance::start(&server, "one");
        holds(&one, ALL);
        let owner = keys().owner(one.units()[0]);
        match what {
            "all" => server.ask(&["FLUSHALL"]),
            "owner" => server.ask(&["DEL", &owner]),
            other => server.ask(&["DEL", &keys().board(other)]),
        };
        let told = stumbles(&one, "data_gone");
        assert!(told.contains("FLUSHALL") && told.contains("append-only"), "{told}");
        assert_eq!(one.standing.figures().lost, ALL as u64, "{what}");
        // It goes on saying so on the board, and writes nothing else.
        server.ask(&["DEL", &keys().board("instances")]);
        await_until("two more heartbeats", PATIENCE, || {
            exists(&server, &keys().board("instances")).then_some(())
        });
        server.ask(&["DEL", &keys().board("instances")]);
        await_until("another heartbeat", PATIENCE, || {
            exists(&server, &keys().board("instances")).then_some(())
        });
        let gone =
            if what == "owner" { owner } else { keys().board(if what == "all" { "wallet" } else { what }) };
        assert!(!exists(&server, &gone), "{gone}");
        assert_eq!((one.anomaly(), one.held.count()), (Some("data_gone"), 0));
    }
}

#[test]
fn another_wallet_owns_nothing_until_an_operator_says_so() {
    let server = Server::start();
    let one = Instance::start(&server, "one");
    holds(&one, ALL);
    let two = Instance::of(&server, "two", Setup { wallet: Some("another"), ..Setup::default() }).unwrap();
    let told = stumbles(&two, "wallet_differs");
    for word in [WALLET, "another", "hongbao fleet wallet set another --reason"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert_eq!(one.held.count(), ALL, "the others are not concerned");
    let record = WalletRecord::new("another", 1, "an operator", "moved");
    server.link().call(board::set_wallet(&keys(), &record)).unwrap();
    stumbles(&one, "wallet_differs");
    holds(&two, ALL);
    assert_eq!((two.anomaly(), two.standing.door_closed()), (None, None));
}

#[test]
fn a_wallet_that_has_not_said_who_it_is_owns_nothing_and_closes_nothing() {
    let server = Server::start();
    let one = Instance::of(&server, "one", Setup { wallet: None, ..Setup::default() }).unwrap();
    await_until("its heartbeat", PATIENCE, || exists(&server, &keys().board("instances")).then_some(()));
    let two = Instance::start(&server, "two");
    holds(&two, ALL);
    assert_eq!((one.held.count(), one.standing.door_closed()), (0, None));
}

#[test]
fn other_shards_are_refused_at_the_start_by_both_numbers() {
    let server = Server::start();
    let one = Instance::start(&server, "one");
    holds(&one, ALL);
    let units = Units { shard_count: 3, fair_queue_count: 2, foreign: Vec::new() };
    let refused = Instance::of(&server, "two", Setup { keys: Keys::new("t", units), ..Setup::default() });
    let told = refused.err().expect("refused").to_string();
    assert!(told.contains("7/2") && told.contains("3/2") && told.contains("intake.redis.shards"), "{told}");
    let short = Setup { ttl: Duration::from_millis(499), ..Setup::default() };
    let told = Instance::of(&server, "two", short).err().expect("refused").to_string();
    assert!(told.contains("499") && told.contains("500"), "{told}");
}

#[test]
fn who_came_later_with_another_view_waits_until_the_first_has_gone() {
    let server = Server::start();
    let mut one = Instance::of(&server, "one", Setup { view: None, ..Setup::default() }).unwrap();
    holds(&one, ALL);
    let mut two = Instance::of(&server, "two", Setup { view: None, ..Setup::default() }).unwrap();
    let told = stumbles(&two, "view_private");
    assert!(told.contains("one (") && told.contains("shared view"), "{told}");
    let three = Instance::start(&server, "three");
    let told = stumbles(&three, "view_differs");
    assert!(told.contains("the-view"), "{told}");
    assert_eq!((one.anomaly(), one.held.count()), (None, ALL));
    one.stop(PATIENCE);
    // Of the two that waited, the one that was there first.
    holds(&two, ALL);
    two.crash();
    holds(&three, ALL);
    assert_eq!(three.anomaly(), None);
}

#[test]
fn what_is_no_lease_and_what_is_no_entry_stop_only_themselves() {
    let server = Server::start();
    let units: Vec<_> = crate::instance::units().ids().collect();
    server.ask(&["SET", &keys().owner(units[2]), "not a lease"]);
    server.ask(&["RPUSH", &keys().owner(units[3]), "a list"]);
    let instances = keys().board("instances");
    server.ask(&[
        "HSET",
        &instances,
        "odd",
        "x",
        "dead",
        "{\"seen_at\":1,\"format\":1}",
        "newer-dead",
        "{\"seen_at\":2,\"format\":9}",
    ]);
    let one = Instance::start(&server, "one");
    holds(&one, ALL - 2);
    await_until("the dead to be removed", PATIENCE, || {
        let fields = reply::array("HKEYS", server.ask(&["HKEYS", &instances])).unwrap();
        let names: Vec<String> =
            fields.into_iter().map(|field| reply::text("HKEYS", field).unwrap().unwrap()).collect();
        (!names.iter().any(|name| name.ends_with("dead")) && names.contains(&"odd".to_owned())).then_some(())
    });
    assert_eq!(one.anomaly(), None);
    server.ask(&["DEL", &keys().owner(units[2]), &keys().owner(units[3])]);
    // It was never ours: once it is deleted, the unit is like a new one.
    holds(&one, ALL);
    assert_eq!(one.anomaly(), None);
}
