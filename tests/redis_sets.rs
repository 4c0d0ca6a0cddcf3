//! Several Redis servers together, as the tests start them: under Sentinel and as a Cluster.

mod support;

use redis::Commands;
use support::redis::cluster::ClusterSet;
use support::redis::sentinel::SentinelSet;
use support::redis::{Fsync, RedisServer, Setup};
use support::{PATIENCE, await_until};

/// Of `list`; zero while there is no answer.
fn length(node: &RedisServer) -> u64 {
    node.try_cli(&["LLEN", "list"]).ok().and_then(|length| length.parse().ok()).unwrap_or(0)
}

#[test]
fn sentinels_put_a_replica_in_a_dead_masters_place() {
    let mut set = SentinelSet::start(&Setup::new(Fsync::Always).password("secret"), 2);
    assert_eq!((set.nodes.len(), set.sentinels.len(), set.master()), (3, 3, 0));
    set.connect().rpush::<_, _, ()>("list", "before").unwrap();
    await_until("the replicas to have it", PATIENCE, || {
        set.nodes.iter().all(|node| length(node) == 1).then_some(())
    });
    let dead = set.kill_master();
    let master = set.await_other_master(dead);
    assert_ne!(master, dead);
    set.connect().rpush::<_, _, ()>("list", "after").unwrap();
    set.nodes[dead].restart();
    await_until("the old master to follow the new one", PATIENCE, || {
        (length(&set.nodes[dead]) == 2).then_some(())
    });
    assert_eq!(set.nodes[dead].info("role").as_deref(), Some("slave"));
    set.await_whole();
}

#[test]
fn a_slot_moves_with_its_keys() {
    let set = ClusterSet::start(&Setup::new(Fsync::NoFile), 3, false);
    let slot = set.slot_of("{shard}:0");
    let from = set.owner(slot, 0).unwrap();
    let to = (from + 1) % 3;
    for n in 0..25 {
        set.nodes[from].cli(&["RPUSH", &format!("{{shard}}:{n}"), "a", "b"]);
    }
    let migration = set.begin_migration(slot, from, to);
    assert_eq!(migration.move_keys(10), 10);
    let answers: Vec<String> = (0..25)
        .map(|n| set.nodes[from].try_cli(&["LLEN", &format!("{{shard}}:{n}")]).unwrap_or_else(|error| error))
        .collect();
    let asked = answers.iter().filter(|answer| answer.starts_with(&format!("ASK {slot} "))).count();
    assert_eq!((asked, answers.iter().filter(|answer| *answer == "2").count()), (10, 15), "{answers:?}");
    assert_eq!((migration.move_keys(100), migration.move_keys(100)), (15, 0));
    migration.finish();
    assert_eq!(set.nodes[to].cli(&["LLEN", "{shard}:7"]), "2");
    let moved = set.nodes[from].try_cli(&["LLEN", "{shard}:7"]).unwrap_err();
    assert!(moved.starts_with(&format!("MOVED {slot} ")), "{moved}");
    set.migrate_slot(slot, to, from);
    assert_eq!(set.nodes[from].cli(&["LLEN", "{shard}:24"]), "2");
    let client = redis::cluster::ClusterClient::new(set.urls()).unwrap();
    let length: u64 = client.get_connection().unwrap().llen("{shard}:24").unwrap();
    assert_eq!(length, 2);
}

#[test]
fn a_replica_takes_a_dead_masters_slots() {
    let mut set = ClusterSet::start(&Setup::new(Fsync::NoFile).password("secret"), 3, true);
    assert_eq!(set.nodes.len(), 6);
    let slot = set.slot_of("list");
    let dead = set.owner(slot, 0).unwrap();
    set.nodes[dead].cli(&["RPUSH", "list", "a"]);
    await_until("the replica to have it", PATIENCE, || {
        (set.nodes[dead + 3].info("master_repl_offset") == set.nodes[dead].info("master_repl_offset"))
            .then_some(())
    });
    set.kill_master(dead);
    assert_eq!(set.await_other_owner(slot, dead), dead + 3);
    assert_eq!(set.nodes[dead + 3].cli(&["RPUSH", "list", "b"]), "2");
}
