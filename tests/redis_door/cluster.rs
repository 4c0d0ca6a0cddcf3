//! Accepting through a Cluster, whose nodes die, come back, and give slots away: what is known of one of them says nothing
//! of the others.

use std::time::Duration;

use hongbao::domain::Request;
use hongbao::gateway::port::Verdict;
use hongbao::intake::redis::UnitId;
use hongbao::intake::redis::door::{DoorOptions, Replicas};

use crate::support::redis::cluster::ClusterSet;
use crate::support::redis::{Fsync, Setup};
use crate::support::{PATIENCE, await_until};
use crate::world::{Instance, World, keys, pay, submission, word};

fn hosts(nodes: &ClusterSet) -> Vec<String> {
    nodes.nodes[..3].iter().map(|node| node.address().to_string()).collect()
}

fn world(nodes: &ClusterSet) -> World {
    World { url: Some(format!("redis+cluster://{}", hosts(nodes).join(","))), ..World::new() }
}

/// The shard that knows an id, and has its request if that came alone.
fn shard(id: &str) -> UnitId {
    keys().units().shard_of(Request::decode(&submission(pay(id, 5)).record).unwrap().key_hash)
}

fn node(nodes: &ClusterSet, id: &str) -> usize {
    nodes.owner(nodes.slot_of(&keys().owner(shard(id))), 0).unwrap()
}

/// An id at a node that has the campaigns not, so that they are followed on without it; and one at another node.
fn two_nodes(nodes: &ClusterSet) -> [String; 2] {
    let campaigns = nodes.owner(nodes.slot_of(&keys().campaigns()), 0).unwrap();
    let first = (0..).map(|n| format!("r-{n}")).find(|id| node(nodes, id) != campaigns).unwrap();
    let other = (0..).map(|n| format!("o-{n}")).find(|id| node(nodes, id) != node(nodes, &first)).unwrap();
    [first, other]
}

/// How often it stands in the lists of the shard that knows it.
fn appended_at_home(world: &World, id: &str) -> usize {
    let records = world.appended_to(shard(id));
    records.iter().filter(|record| Request::decode(record).unwrap().id == id).count()
}

/// Sends it until it is told how it stands.
async fn repeat(instance: &Instance, id: &str) {
    let mut told = String::new();
    for _ in 0..200 {
        told = word(&instance.submit(submission(pay(id, 5))).await);
        if told == "repeated QUEUED" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{id}: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirected_append_does_not_claim_the_replicas_of_another_server() {
    let nodes = ClusterSet::start(&Setup::new(Fsync::NoFile), 3, true);
    let hosts = hosts(&nodes);
    let world = world(&nodes);
    let replicas = Some(Replicas { count: 1, timeout_ms: 500, count_min: 0 });
    let options = DoorOptions { replicas, thread_count: 1, ..DoorOptions::default() };
    let one = world.instance_with(options);
    one.campaign("c", 1_000).await;
    let durability = async |id: &str| {
        let Verdict::Accepted { guarantee, .. } = one.submit(submission(pay(id, 5))).await else {
            panic!("{id}")
        };
        guarantee.durability.unwrap().to_string()
    };
    await_until("the replicas to follow", PATIENCE, || {
        nodes.nodes[..3].iter().all(|node| node.cli(&["WAIT", "1", "100"]) == "1").then_some(())
    });
    assert_eq!(durability("before").await, "replicated:1");
    // The list of another id goes to a slot that is on its way; it is empty, so that the append is asked for elsewhere.
    let id = (0..100).map(|n| format!("r-{n}")).find(|id| shard(id) != shard("before")).unwrap();
    let slot = nodes.slot_of(&keys().owner(shard(&id)));
    let from = nodes.owner(slot, 0).unwrap();
    let (key, mut link) = (keys().owner(shard(&id)), world.link());
    assert_eq!(link.server_of(key.as_bytes()), None, "nothing was asked yet");
    link.call(hongbao::redis::Command::new("EXISTS", &key)).unwrap();
    assert_eq!(link.server_of(key.as_bytes()), Some(hosts[from].clone()));
    let migration = nodes.begin_migration(slot, from, (from + 1) % 3);
    assert_eq!(durability(&id).await, "fsync", "what was asked elsewhere is not known to follow");
    while migration.move_keys(100) > 0 {}
    migration.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_node_of_a_list_lost_is_appended_again_though_the_node_of_its_id_did_not() {
    let mut nodes = ClusterSet::start(&Setup::new(Fsync::NoFile), 3, true);
    let world = world(&nodes);
    let one = world.instance();
    one.campaign("c", 1_000).await;
    // A call goes to the shard of its first request whole, so that ids of it stand elsewhere than their list.
    let [first, other] = two_nodes(&nodes);
    let told = one.office_submit(vec![submission(pay(&first, 5)), submission(pay(&other, 5))]).await;
    assert_eq!(told, ["accepted", "accepted"]);
    assert_eq!(word(&one.submit(submission(pay(&other, 5))).await), "repeated QUEUED");
    let appended = |world: &World| world.appended_ids().iter().filter(|id| **id == other).count();
    let keys = keys();
    assert_eq!(appended(&world), 1, "it is known to stand in its list");
    let (dead, lists) = (node(&nodes, &first), keys.queues(shard(&first)));
    let slot = nodes.slot_of(&keys.owner(shard(&first)));
    nodes.kill_master(dead);
    let promoted = nodes.await_other_owner(slot, dead);
    // What had not reached the replica.
    for queue in lists {
        nodes.nodes[promoted].cli(&["DEL", &keys.list(shard(&first), queue)]);
    }
    assert_eq!(appended(&world), 0, "it is lost");
    let mut told = String::new();
    for _ in 0..200 {
        told = word(&one.submit(submission(pay(&other, 5))).await);
        if told == "repeated QUEUED" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(
        (told.as_str(), appended(&world)),
        ("repeated QUEUED", 1),
        "whoever is told that it waits has it in a list"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_node_is_away_what_stands_elsewhere_is_not_appended_again() {
    let setup = Setup::new(Fsync::NoFile).set("cluster-require-full-coverage", "no");
    let mut nodes = ClusterSet::start(&setup, 3, false);
    let world = world(&nodes);
    let one = world.instance();
    one.campaign("c", 1_000).await;
    let [away, stands] = two_nodes(&nodes);
    let elsewhere = (0..).map(|n| format!("e-{n}")).find(|id| shard(id) == shard(&stands)).unwrap();
    assert_eq!(word(&one.submit(submission(pay(&stands, 5))).await), "accepted");
    // A call goes to the shard of its first request whole.
    let told = one.office_submit(vec![submission(pay(&away, 5)), submission(pay(&elsewhere, 5))]).await;
    assert_eq!(told, ["accepted", "accepted"]);
    // These know of no append but by what others note.
    let others: Vec<Instance> = (0..8).map(|_| world.instance()).collect();
    let dead = node(&nodes, &away);
    nodes.kill_master(dead);
    for _ in 0..20 {
        repeat(&one, &stands).await;
    }
    // A slow machine breaks a connection of its own now and then.
    let count = appended_at_home(&world, &stands);
    assert!((1..4).contains(&count), "its server is well, and it is known to stand there: {count}");
    for _ in 0..20 {
        repeat(&one, &elsewhere).await;
    }
    let count = appended_at_home(&world, &elsewhere);
    assert!((1..4).contains(&count), "its server is away, and it is appended where it can be: {count}");
    let before = appended_at_home(&world, &stands);
    for other in &others {
        repeat(other, &stands).await;
    }
    let more = appended_at_home(&world, &stands) - before;
    assert!((1..4).contains(&more), "once where nothing is known, and that is noted: {more}");
    let told = word(&one.submit(submission(pay(&away, 5))).await);
    assert_ne!(told, "repeated QUEUED", "nobody can say that it waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_void_what_is_known_of_their_own_node() {
    let nodes = ClusterSet::start(&Setup::new(Fsync::NoFile), 3, false);
    let world = world(&nodes);
    let one = world.instance_with(DoorOptions { thread_count: 1, ..DoorOptions::default() });
    one.campaign("c", 1_000).await;
    let [broken, stands] = two_nodes(&nodes);
    for id in [&broken, &stands] {
        assert_eq!(word(&one.submit(submission(pay(id, 5))).await), "accepted");
    }
    for _ in 0..10 {
        nodes.nodes[node(&nodes, &broken)].cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        repeat(&one, &stands).await;
    }
    // A slow machine breaks a connection of its own now and then.
    let count = appended_at_home(&world, &stands);
    assert!((1..4).contains(&count), "another node's connection says nothing of it: {count}");
    repeat(&one, &broken).await;
    assert!(appended_at_home(&world, &broken) > 1, "behind its connection may be another server");
}
