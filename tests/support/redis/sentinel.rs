//! A Redis under Sentinel: one master, replicas, and three sentinels that agree within three seconds that it
//! is gone.
//!
//! What a failover loses is what the replica had not got: replication is asynchronous, as everywhere.

use std::time::Duration;

use redis::Connection;

use super::super::{PATIENCE, await_until};
use super::{Fsync, RedisServer, Setup};

/// What the sentinels call it.
pub const MASTER: &str = "hongbao";
const SENTINELS: usize = 3;
/// Above a second: at and below it a sentinel first asks an instance that it has just learnt of as late as it gives it
/// up, so that each failover may set off another, and the master that just took writes is replaced by one without.
const DOWN_AFTER_MS: u32 = 2_000;

pub struct SentinelSet {
    /// The first master, then the replicas; who is master now the sentinels say.
    pub nodes: Vec<RedisServer>,
    pub sentinels: Vec<RedisServer>,
}

impl SentinelSet {
    /// Every node with this setup; returns when each replica follows and each sentinel knows all others.
    pub fn start(setup: &Setup, replicas: usize) -> SentinelSet {
        let master = RedisServer::start(setup.clone());
        let replica = |_| RedisServer::start(setup.clone().replica_of(master.port()));
        let replicas: Vec<RedisServer> = (0..replicas).map(replica).collect();
        let mut nodes = vec![master];
        nodes.extend(replicas);
        let (port, password) = (nodes[0].port(), setup.password.clone());
        let sentinels = (0..SENTINELS).map(|_| sentinel(port, password.as_deref())).collect();
        let set = SentinelSet { nodes, sentinels };
        set.await_whole();
        set
    }

    /// Waits until each replica is in step with the master and each sentinel knows all others.
    pub fn await_whole(&self) {
        let running = self.nodes.iter().filter(|node| node.is_running()).count();
        for sentinel in &self.sentinels {
            await_until("a sentinel to know the others", PATIENCE, || {
                let known = |field| self.told(sentinel, field).parse().unwrap_or(0);
                let whole =
                    known("num-other-sentinels") == SENTINELS - 1 && known("num-slaves") >= running - 1;
                (whole && self.told(sentinel, "flags") == "master").then_some(())
            });
        }
        await_until("the replicas to be in step", PATIENCE, || self.in_step(running - 1).then_some(()));
    }

    fn in_step(&self, replicas: usize) -> bool {
        let master = self.master();
        let online = |line: &str| line.starts_with("slave") && line.contains("state=online");
        let info = self.nodes[master].try_cli(&["INFO", "replication"]).unwrap_or_default();
        info.lines().filter(|line| online(line)).count() == replicas
    }

    /// A field of what a sentinel knows of the master.
    fn told(&self, sentinel: &RedisServer, field: &str) -> String {
        let told = sentinel.try_cli(&["SENTINEL", "MASTER", MASTER]).unwrap_or_default();
        let lines: Vec<&str> = told.lines().collect();
        let at = lines.iter().position(|line| *line == field);
        at.and_then(|at| lines.get(at + 1)).map_or_else(String::new, |value| (*value).to_owned())
    }

    /// The port that all sentinels name; nothing while they differ.
    pub fn master_port(&self) -> Option<u16> {
        let named = self.sentinels.iter().map(|sentinel| {
            let said = sentinel.try_cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]).ok()?;
            said.lines().nth(1)?.parse::<u16>().ok()
        });
        let named: Option<Vec<u16>> = named.collect();
        named.filter(|ports| ports.iter().all(|port| *port == ports[0])).map(|ports| ports[0])
    }

    /// Which of the nodes is the master, once the sentinels agree.
    pub fn master(&self) -> usize {
        let port = await_until("the sentinels to agree on a master", PATIENCE, || self.master_port());
        self.nodes.iter().position(|node| node.port() == port).expect("one of ours")
    }

    /// `redis://` addresses of the sentinels.
    pub fn sentinel_urls(&self) -> Vec<String> {
        self.sentinels.iter().map(RedisServer::url).collect()
    }

    /// Kills the master; which one it was.
    pub fn kill_master(&mut self) -> usize {
        let master = self.master();
        self.nodes[master].sigkill();
        master
    }

    /// Waits until another than this node is master and takes writes; which.
    pub fn await_other_master(&self, than: usize) -> usize {
        await_until("another master", PATIENCE, || {
            let port = self.master_port()?;
            let node = self.nodes.iter().position(|node| node.port() == port)?;
            let is_master = node != than && self.nodes[node].info("role").as_deref() == Some("master");
            is_master.then_some(node)
        })
    }

    /// A plain connection to whoever is master.
    pub fn connect(&self) -> Connection {
        self.nodes[self.master()].connect()
    }
}

fn sentinel(master: u16, password: Option<&str>) -> RedisServer {
    let auth =
        password.map_or_else(String::new, |password| format!("sentinel auth-pass {MASTER} {password}\n"));
    let failover_ms = Duration::from_secs(5).as_millis();
    RedisServer::run("redis-sentinel", Setup::new(Fsync::NoFile), move |port| {
        format!(
            "bind 127.0.0.1\nport {port}\nsentinel monitor {MASTER} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}\n\
             sentinel failover-timeout {MASTER} {failover_ms}\nsentinel parallel-syncs {MASTER} 1\n{auth}"
        )
    })
}
