//! A Redis Cluster: masters that share the slots evenly, replicas if wanted, slots that move step by step.

use super::super::{PATIENCE, await_until};
use super::{RedisServer, Setup, free_port};

pub const SLOTS: u16 = 16_384;
/// How long a node may be silent before the others hold it for dead.
const NODE_TIMEOUT_MS: u32 = 1_000;
/// How long a node may take to give a key to another.
const MOVE_TIMEOUT_MS: &str = "5000";

pub struct ClusterSet {
    /// The first masters, then the replicas: the replica of master `i` is at `masters + i`.
    pub nodes: Vec<RedisServer>,
    masters: usize,
}

impl ClusterSet {
    /// `masters` nodes with an even share of the slots, each with a replica or none.
    pub fn start(setup: &Setup, masters: usize, with_replicas: bool) -> ClusterSet {
        let count = if with_replicas { 2 * masters } else { masters };
        let set = ClusterSet { nodes: (0..count).map(|_| node(setup)).collect(), masters };
        for (at, node) in set.nodes.iter().enumerate() {
            node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]);
        }
        for (at, node) in set.nodes[..masters].iter().enumerate() {
            let [first, next] = [at, at + 1].map(|at| at * usize::from(SLOTS) / masters);
            node.cli(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &(next - 1).to_string()]);
        }
        for node in &set.nodes[1..] {
            let [port, bus] = [node.port(), bus_port(node)].map(|port| port.to_string());
            set.nodes[0].cli(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        set.await_known();
        for at in masters..count {
            let master = set.id(at - masters);
            // It must have heard of its master as such; until then it is refused.
            await_until("a replica to have a master", PATIENCE, || {
                set.nodes[at].try_cli(&["CLUSTER", "REPLICATE", &master]).ok()
            });
        }
        for at in masters..count {
            await_until("a replica to be in step", PATIENCE, || {
                (set.nodes[at].info("master_link_status").as_deref() == Some("up")).then_some(())
            });
        }
        set.await_ok();
        set
    }

    fn await_known(&self) {
        let count = self.nodes.len().to_string();
        for node in &self.nodes {
            await_until("a node to know all others", PATIENCE, || {
                let info = node.cli(&["CLUSTER", "INFO"]);
                (cluster_info(&info, "cluster_known_nodes") == Some(&count)).then_some(())
            });
        }
    }

    /// Waits until every node that runs holds the cluster for whole.
    pub fn await_ok(&self) {
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            await_until("the cluster to be whole", PATIENCE, || {
                let info = node.cli(&["CLUSTER", "INFO"]);
                (cluster_info(&info, "cluster_state") == Some("ok")).then_some(())
            });
        }
    }

    /// The id that the cluster knows a node by.
    pub fn id(&self, node: usize) -> String {
        self.nodes[node].cli(&["CLUSTER", "MYID"])
    }

    /// `redis://` addresses of the nodes.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RedisServer::url).collect()
    }

    /// The slot of a key, as a node computes it.
    pub fn slot_of(&self, key: &str) -> u16 {
        let node = self.nodes.iter().find(|node| node.is_running()).expect("a node that runs");
        node.cli(&["CLUSTER", "KEYSLOT", key]).parse().expect("a slot")
    }

    /// Which node serves a slot, as `seen_by` knows it.
    pub fn owner(&self, slot: u16, seen_by: usize) -> Option<usize> {
        let told = self.nodes[seen_by].cli(&["CLUSTER", "NODES"]);
        let line = told.lines().find(|line| serves(line, slot))?;
        // id, host:port@bus, …
        let port = line.split(' ').nth(1)?.split('@').next()?.rsplit(':').next()?.parse::<u16>().ok()?;
        self.nodes.iter().position(|node| node.port() == port)
    }

    /// Moves a slot with its keys.
    pub fn migrate_slot(&self, slot: u16, from: usize, to: usize) {
        let migration = self.begin_migration(slot, from, to);
        while migration.move_keys(100) > 0 {}
        migration.finish();
    }

    /// From now on `from` answers ASK for keys of the slot that it does not have, and `to` takes them.
    pub fn begin_migration(&self, slot: u16, from: usize, to: usize) -> Migration<'_> {
        let [from_id, to_id] = [from, to].map(|node| self.id(node));
        let text = slot.to_string();
        self.nodes[to].cli(&["CLUSTER", "SETSLOT", &text, "IMPORTING", &from_id]);
        self.nodes[from].cli(&["CLUSTER", "SETSLOT", &text, "MIGRATING", &to_id]);
        Migration { set: self, slot, from, to }
    }

    /// Kills the node that began as master `i`.
    pub fn kill_master(&mut self, i: usize) {
        assert!(i < self.masters, "there are {} masters", self.masters);
        self.nodes[i].sigkill();
    }

    /// Waits until another than `dead` serves the slot; which. The cluster must have a replica of it.
    pub fn await_other_owner(&self, slot: u16, dead: usize) -> usize {
        let seen_by = self.nodes.iter().position(RedisServer::is_running).expect("a node that runs");
        let owner = await_until("another owner of the slot", PATIENCE, || {
            self.owner(slot, seen_by).filter(|owner| *owner != dead)
        });
        self.await_ok();
        owner
    }
}

/// A slot under way.
pub struct Migration<'a> {
    set: &'a ClusterSet,
    slot: u16,
    from: usize,
    to: usize,
}

impl Migration<'_> {
    /// Moves up to so many keys; how many.
    pub fn move_keys(&self, max: usize) -> usize {
        let (from, to) = (&self.set.nodes[self.from], &self.set.nodes[self.to]);
        let keys = from.cli(&["CLUSTER", "GETKEYSINSLOT", &self.slot.to_string(), &max.to_string()]);
        let keys: Vec<&str> = keys.lines().filter(|key| !key.is_empty()).collect();
        if keys.is_empty() {
            return 0;
        }
        let port = to.port().to_string();
        let mut args = vec!["MIGRATE", "127.0.0.1", &port, "", "0", MOVE_TIMEOUT_MS];
        if let Some(password) = &to.setup.password {
            args.extend(["AUTH", password]);
        }
        args.push("KEYS");
        args.extend(&keys);
        from.cli(&args);
        keys.len()
    }

    /// Gives the slot to its new owner, and waits until every node that runs knows.
    pub fn finish(self) {
        let (slot, owner) = (self.slot.to_string(), self.set.id(self.to));
        let others = (0..self.set.nodes.len()).filter(|node| *node != self.to);
        for node in std::iter::once(self.to).chain(others) {
            let server = &self.set.nodes[node];
            // A replica hears it from its master.
            if server.is_running() && server.info("role").as_deref() == Some("master") {
                server.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &owner]);
            }
        }
        for node in (0..self.set.nodes.len()).filter(|node| self.set.nodes[*node].is_running()) {
            await_until("a node to know the new owner", PATIENCE, || {
                (self.set.owner(self.slot, node) == Some(self.to)).then_some(())
            });
        }
    }
}

/// Whether this line of `CLUSTER NODES` says that its node serves the slot.
fn serves(line: &str, slot: u16) -> bool {
    line.split(' ').skip(8).any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        // A slot under way stands in brackets and is no number.
        let bounds = (first.parse::<u16>(), last.parse::<u16>());
        matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&slot))
    })
}

fn cluster_info<'a>(info: &'a str, field: &str) -> Option<&'a str> {
    let mut fields = info.lines().filter_map(|line| line.trim_end().split_once(':'));
    fields.find(|(name, _)| *name == field).map(|(_, value)| value)
}

fn node(setup: &Setup) -> RedisServer {
    let timeout = NODE_TIMEOUT_MS.to_string();
    let setup = setup.clone().set("cluster-enabled", "yes").set("cluster-node-timeout", &timeout);
    let text = setup.clone();
    // Its bus has a port of its own: the usual one, 10,000 above, may be anybody's.
    RedisServer::run("redis-server", setup, move |port| {
        format!("{}cluster-port {}\n", text.text(port), free_port())
    })
}

fn bus_port(node: &RedisServer) -> u16 {
    node.cli(&["CONFIG", "GET", "cluster-port"])
        .lines()
        .nth(1)
        .and_then(|port| port.parse().ok())
        .expect("a port")
}
