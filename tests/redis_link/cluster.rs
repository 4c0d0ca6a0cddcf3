//! A Cluster of three masters: rounds over all of them, slots that move, nodes that hang and die.

use std::time::Duration;

use hongbao::redis::{Command, Failure, Link, Script, Shape, Target, Value, reply, slot_of};
use rustix::process::Signal;

use crate::servers::{Server, free_port};
use crate::{await_until, get, one, set, told};

static PUSH: Script = Script::new("push", "return redis.call('RPUSH', KEYS[1], ARGV[1])");
static BOTH: Script =
    Script::new("both", "return redis.call('EXISTS', KEYS[1]) + redis.call('EXISTS', KEYS[2])");

const RANGES: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

struct Nodes(Vec<Server>);

impl Nodes {
    fn start() -> Nodes {
        let servers = RANGES.map(|_| {
            let bus = free_port().to_string();
            Server::launch(&[
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "2000",
                "--cluster-require-full-coverage",
                "no",
            ])
        });
        let nodes = Nodes(servers.into());
        for (at, server) in nodes.0.iter().enumerate() {
            server.await_up();
            let (first, last) = RANGES[at];
            nodes.cluster(at, &["ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            nodes.cluster(at, &["SET-CONFIG-EPOCH", &(at + 1).to_string()]);
        }
        let bus = |at: usize| {
            let text = nodes.cluster(at, &["NODES"]);
            text.split(['@', ',', ' ']).nth(2).unwrap().to_owned()
        };
        for at in 1..nodes.0.len() {
            nodes.cluster(0, &["MEET", "127.0.0.1", &nodes.0[at].port.to_string(), &bus(at)]);
        }
        for at in 0..nodes.0.len() {
            await_until("the Cluster's agreement", || {
                let info = nodes.cluster(at, &["INFO"]);
                let all =
                    info.contains("cluster_slots_assigned:16384") && info.contains("cluster_known_nodes:3");
                (info.contains("cluster_state:ok") && all).then_some(())
            });
        }
        nodes
    }

    /// `CLUSTER …` at one of them.
    fn cluster(&self, at: usize, args: &[&str]) -> String {
        let value = self.0[at].link().call(Command::routed("CLUSTER", "").arg(args)).unwrap();
        reply::text("CLUSTER", value).unwrap().unwrap()
    }

    fn id(&self, at: usize) -> String {
        self.cluster(at, &["MYID"])
    }

    /// What a node believes of all: id, epoch and slots of each.
    fn view(&self, at: usize) -> Vec<String> {
        let text = self.cluster(at, &["NODES"]);
        let mut view: Vec<String> = text
            .lines()
            .map(|line| {
                let fields: Vec<&str> = line.split(' ').collect();
                let slots = fields[8..].iter().filter(|slots| !slots.starts_with('[')).copied();
                format!("{} {} {}", fields[0], fields[6], slots.collect::<Vec<_>>().join(" "))
            })
            .collect();
        view.sort();
        view
    }

    fn await_agreement(&self) {
        await_until("one view of who has which slot", || {
            let first = self.view(0);
            (1..self.0.len()).all(|at| self.view(at) == first).then_some(())
        });
    }

    fn owner(slot: u16) -> usize {
        RANGES.iter().position(|(first, last)| (*first..=*last).contains(&slot)).unwrap()
    }

    /// The first is not there: the others are found without it.
    fn link(&self) -> Link {
        let seeds: Vec<String> = self.0.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        let url = format!("redis+cluster://127.0.0.1:{},{}", free_port(), seeds[1..].join(","));
        let quick = Duration::from_millis(500);
        Link::new(&Target { connect_timeout: quick, response_timeout: quick, ..Target::new(url) }).unwrap()
    }
}

fn push(key: &str, value: &str) -> Command {
    Command::script(&PUSH, &[key.as_bytes()]).arg(value)
}

/// A key of a node's slots.
fn key_at(node: usize, prefix: &str) -> String {
    let mut keys = (0..).map(|number| format!("{prefix}{number}"));
    keys.find(|key| Nodes::owner(slot_of(key.as_bytes())) == node).unwrap()
}

#[test]
fn rounds_over_all_nodes_while_slots_move_and_nodes_fail() {
    let mut nodes = Nodes::start();
    let mut link = nodes.link();
    assert_eq!(link.shape(), Shape::Cluster);
    every_slot_has_its_node(&nodes, &mut link);
    a_slot_on_its_way(&nodes, &mut link);
    nothing_is_lost_doubled_or_reordered_while_a_slot_wanders(&nodes, &mut link);
    a_hanging_node_keeps_only_its_own(&nodes, &mut link);
    a_dead_node_loses_only_its_own(&mut nodes, &mut link);
}

fn every_slot_has_its_node(nodes: &Nodes, link: &mut Link) {
    let slot = slot_of(b"{x}:1").to_string();
    assert_eq!(one(&mut nodes.0[0].link(), Command::routed("CLUSTER", "").arg(&["KEYSLOT", "{x}:1"])), slot);
    let keys: Vec<String> = (0..300).map(|number| format!("key:{number}")).collect();
    let twice =
        |key: &String| [Command::new("RPUSH", key).arg("a"), push(key, "b"), Command::new("LLEN", key)];
    let round: Vec<Command> = keys.iter().flat_map(twice).collect();
    assert_eq!(told(&link.round(&round)), ["1", "2", "2"].repeat(300));
    let ping = Command::routed("PING", "");
    assert_eq!(told(&link.round(&[ping.clone(), ping])).concat(), "simple-string(\"PONG\")".repeat(2));
    let sizes = link.everywhere(&[Command::routed("DBSIZE", "")]).unwrap();
    let sizes: Vec<i64> =
        sizes.into_iter().map(|(_, mut of)| reply::int("DBSIZE", of.remove(0).unwrap()).unwrap()).collect();
    assert_eq!((sizes.len(), sizes.iter().sum::<i64>()), (3, 300));
    assert!(sizes.iter().all(|size| *size > 50), "{sizes:?}");
    assert_eq!(one(link, Command::new("DEL", "key:1").arg("key:2")), "refused CROSSSLOT");
    assert_eq!(link.down_since(), None);
}

/// One slot is handed from the first node to the second: half of its keys moved, then all, then the slot.
fn a_slot_on_its_way(nodes: &Nodes, link: &mut Link) {
    let tag = key_at(0, "moving");
    let slot = slot_of(tag.as_bytes()).to_string();
    let key = |name: &str| format!("{{{tag}}}:{name}");
    let (stays, gone, new) = (key("stays"), key("gone"), key("new"));
    assert_eq!(told(&link.round(&[set(&stays, "1"), set(&gone, "2")])), ["ok", "ok"]);
    let migrate = |name: &str| {
        let port = nodes.0[1].port.to_string();
        let value = nodes.0[0].link().call(Command::routed("MIGRATE", "").arg(&[
            "127.0.0.1",
            &port,
            name,
            "0",
            "5000",
        ]));
        assert_eq!(value, Ok(Value::Okay));
    };
    nodes.cluster(1, &["SETSLOT", &slot, "IMPORTING", &nodes.id(0)]);
    nodes.cluster(0, &["SETSLOT", &slot, "MIGRATING", &nodes.id(1)]);
    migrate(&gone);

    // What is there is answered there, what is gone and what is new is asked for at the other.
    let elsewhere = key_at(2, "elsewhere");
    let round =
        [get(&stays), get(&gone), push(&new, "a"), set(&elsewhere, "3"), push(&new, "b"), get(&stays)];
    assert_eq!(told(&link.round(&round)), ["1", "2", "1", "ok", "2", "1"]);
    let asking = [Command::routed("ASKING", ""), Command::new("LLEN", &new)];
    assert_eq!(told(&nodes.0[1].link().round(&asking)), ["ok", "2"], "the new one is where the slot goes");
    let split = Command::script(&BOTH, &[stays.as_bytes(), gone.as_bytes()]);
    assert_eq!(one(link, split.clone()), "refused TRYAGAIN");

    migrate(&stays);
    for at in [1, 0, 2] {
        nodes.cluster(at, &["SETSLOT", &slot, "NODE", &nodes.id(1)]);
    }
    let round = [get(&stays), push(&new, "c"), set(&elsewhere, "4"), push(&new, "d"), get(&gone), split];
    assert_eq!(told(&link.round(&round)), ["1", "3", "ok", "4", "2", "2"], "MOVED, and followed");
    assert_eq!(one(&mut nodes.0[1].link(), Command::new("LLEN", &new)), "4");
}

/// A slot goes to and fro between two nodes, key by key, under load on its keys.
fn nothing_is_lost_doubled_or_reordered_while_a_slot_wanders(nodes: &Nodes, link: &mut Link) {
    const WANDERINGS: usize = 12;
    let tag = key_at(0, "wandering");
    let slot = slot_of(tag.as_bytes()).to_string();
    let keys: Vec<String> = (0..8).map(|number| format!("{{{tag}}}:{number}")).collect();
    let wander = |turn: usize| {
        let (from, to) = if turn.is_multiple_of(2) { (0, 1) } else { (1, 0) };
        nodes.cluster(to, &["SETSLOT", &slot, "IMPORTING", &nodes.id(from)]);
        nodes.cluster(from, &["SETSLOT", &slot, "MIGRATING", &nodes.id(to)]);
        let port = nodes.0[to].port.to_string();
        for key in &keys {
            let migrate = Command::routed("MIGRATE", "").arg(&["127.0.0.1", &port, key, "0", "5000"]);
            let moved = nodes.0[from].link().call(migrate);
            assert!(moved.is_ok(), "{moved:?}");
        }
        for at in [to, from, 2] {
            nodes.cluster(at, &["SETSLOT", &slot, "NODE", &nodes.id(to)]);
        }
        // Else the next turn meets a node that was told of the slot, and has then heard old gossip about it.
        nodes.await_agreement();
    };
    let mut acknowledged: Vec<Vec<String>> = vec![Vec::new(); keys.len()];
    let mut refused = 0;
    std::thread::scope(|scope| {
        let wandering = scope.spawn(|| (0..WANDERINGS).for_each(wander));
        let mut number = 0;
        while !wandering.is_finished() {
            let sent: Vec<(usize, String)> = (0..3 * keys.len())
                .map(|_| {
                    number += 1;
                    (number % keys.len(), number.to_string())
                })
                .collect();
            let round: Vec<Command> = sent.iter().map(|(key, text)| push(&keys[*key], text)).collect();
            for (result, (key, text)) in link.round(&round).into_iter().zip(sent) {
                match result {
                    Ok(_) => acknowledged[key].push(text),
                    Err(Failure::Refused { .. }) => refused += 1,
                    Err(failure) => panic!("{failure}"),
                }
            }
        }
        wandering.join().unwrap();
    });
    for (key, expect) in keys.iter().zip(&acknowledged) {
        let list = reply::array("LRANGE", link.call(Command::new("LRANGE", key).arg(0).arg(-1)).unwrap());
        let list: Vec<Result<Value, Failure>> = list.unwrap().into_iter().map(Ok).collect();
        assert_eq!(&told(&list), expect);
    }
    let count: usize = acknowledged.iter().map(Vec::len).sum();
    assert!(count > 1000 && refused * 20 < count, "{count} done, {refused} refused");
}

fn a_hanging_node_keeps_only_its_own(nodes: &Nodes, link: &mut Link) {
    let keys = [0, 1, 2].map(|at| key_at(at, "hang"));
    let round = || keys.each_ref().map(|key| Command::new("INCR", key));
    assert_eq!(told(&link.round(&round())), ["1", "1", "1"]);
    for hanging in [0, 2] {
        let before = told(&link.round(&keys.each_ref().map(|key| get(key))));
        nodes.0[hanging].signal(Signal::STOP);
        let results = told(&link.round(&round()));
        let expect: Vec<String> = (0..3)
            .map(|at| match at == hanging {
                true => "unknown".to_owned(),
                false => (before[at].parse::<u64>().unwrap() + 1).to_string(),
            })
            .collect();
        assert_eq!(results, expect);
        assert!(link.down_since().is_some());
        nodes.0[hanging].signal(Signal::CONT);
        await_until("the node's return", || link.call(get(&keys[hanging])).ok());
        let after = (before[hanging].parse::<u64>().unwrap() + 2).to_string();
        assert_eq!(
            one(link, Command::new("INCR", &keys[hanging])),
            after,
            "the unknown one was executed once"
        );
        assert_eq!(link.down_since(), None);
    }
}

fn a_dead_node_loses_only_its_own(nodes: &mut Nodes, link: &mut Link) {
    let keys = [0, 1, 2].map(|at| key_at(at, "dead"));
    let round = || keys.each_ref().map(|key| set(key, "1"));
    nodes.0[2].kill();
    let results = link.round(&round());
    assert_eq!(told(&results), ["ok", "ok", "unsent"], "its close was seen before anything was written");
    assert!(
        matches!(&results[2], Err(Failure::NotSent(reason)) if reason.contains("127.0.0.1")),
        "{results:?}"
    );
    assert_eq!(told(&link.round(&round()))[..2], ["ok", "ok"]);
    nodes.0[2].restart();
    await_until("the node's return", || link.call(set(&keys[2], "2")).ok());
    assert_eq!(told(&link.round(&round())), ["ok", "ok", "ok"]);
}
