//! Several Redis servers: what a failover keeps, and slots that move.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::load::{Load, body};
use crate::support::redis::cluster::ClusterSet;
use crate::support::redis::sentinel::{MASTER, SentinelSet};
use crate::support::redis::{Fsync, RedisServer, Setup};
use crate::support::{self, PATIENCE, await_until};
use crate::world::World;

const PAUSE: Duration = Duration::from_millis(5);

fn hosts(servers: &[RedisServer]) -> String {
    let hosts: Vec<String> = servers.iter().map(|server| server.address().to_string()).collect();
    hosts.join(",")
}

/// Waits until the producer had so many more acknowledged.
fn await_acked(load: &Load, more: u64) {
    let mark = load.acked() + more;
    await_until("the producer to go on", PATIENCE, || (load.acked() >= mark).then_some(()));
}

/// Everything that said `replicated:1` was on the replica that took over. What was accepted while no replica followed
/// said less; whoever has no outcome for it sends it again.
fn settle(world: &mut World, load: Load, servers: &[&RedisServer]) {
    let acks = load.stop();
    world.acks.extend(acks.iter().map(|ack| (ack.id.clone(), ack.amount)));
    world.await_drained(servers);
    let lost: BTreeSet<String> = world.unpaid().into_iter().collect();
    let said_less = acks.iter().filter(|ack| ack.durability != "replicated:1").count();
    println!("{} acknowledged, {said_less} of them said less; {} lost", acks.len(), lost.len());
    for ack in acks.iter().filter(|ack| lost.contains(&ack.id)) {
        assert_ne!(ack.durability, "replicated:1", "{ack:?} is lost");
        let n = ack.id.rsplit('-').next().and_then(|n| n.parse().ok()).expect("a number");
        let reply = world.at(0).call("POST /v1/disbursements", &body(&ack.id, n));
        assert!(matches!(reply.code, 200 | 202), "{}", reply.text);
    }
}

#[test]
fn a_failover_by_sentinels_keeps_what_a_replica_had() {
    let mut set = SentinelSet::start(&Setup::new(Fsync::EverySecond), 1);
    let url = format!("redis+sentinel://{}/{MASTER}", hosts(&set.sentinels));
    let mut world = World::start(&url, 1, &["intake.redis.replicas_min=1"]);
    let load = Load::post(world.addresses(), "http", 50, PAUSE);
    await_acked(&load, 1_000);
    let dead = set.kill_master();
    let master = set.await_other_master(dead);
    // Nothing can be replicated until the old one follows.
    set.nodes[dead].restart();
    await_acked(&load, 500);
    let servers = [&set.nodes[master]];
    settle(&mut world, load, &servers);
    world.must_agree(&servers);
}

#[test]
fn slots_that_move_and_a_master_that_dies_keep_what_a_replica_had() {
    let mut set = ClusterSet::start(&Setup::new(Fsync::EverySecond), 3, true);
    let url = format!("redis+cluster://{}", hosts(&set.nodes));
    let mut world = World::start(&url, 1, &["intake.redis.replicas_min=1"]);
    let load = Load::post(world.addresses(), "http", 50, PAUSE);
    await_acked(&load, 1_000);
    let slot = set.slot_of("{hongbao:3}:owner");
    let from = set.owner(slot, 0).unwrap();
    set.migrate_slot(slot, from, (from + 1) % 3);
    await_acked(&load, 500);
    let slot = set.slot_of("{hongbao:5}:owner");
    let dead = set.owner(slot, 0).unwrap();
    set.kill_master(dead);
    set.await_other_owner(slot, dead);
    set.nodes[dead].restart();
    await_acked(&load, 500);
    let masters: Vec<&RedisServer> =
        set.nodes.iter().filter(|node| node.info("role").as_deref() == Some("master")).collect();
    settle(&mut world, load, &masters);
    world.must_agree(&masters);
}

#[test]
fn the_start_is_refused_where_replicas_that_must_confirm_do_not_follow() {
    let server = RedisServer::start(Setup::new(Fsync::EverySecond));
    let folder = tempfile::tempdir().unwrap();
    let setup = support::Setup::new(&folder.path().join("data"))
        .set("intake.kind=redis")
        .set(&format!("intake.redis.url={}", server.url()))
        .set("intake.redis.durability_min=replicated:1");
    let said = setup.try_start().err().expect("nobody follows");
    assert!(said.err.contains("0 replicas, and 1 are wanted"), "{said:?}");
    let _replica = RedisServer::start(Setup::new(Fsync::NoFile).replica_of(server.port()));
    await_until("the replica to follow", PATIENCE, || {
        (server.cli(&["WAIT", "1", "100"]) == "1").then_some(())
    });
    drop(setup.start());
}
