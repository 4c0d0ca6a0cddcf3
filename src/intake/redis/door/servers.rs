//! Which servers are behind the shards, by the connections of a door thread: where another one may be, what was noted of a
//! shard is given up.
//!
//! What holds: a server that fails, or comes back, costs the notes of its own shards and no others. Without this a repeat of
//! whatever stands in another server's list would be appended at each go, for as long as one server is away.

use super::queue::Push;
use super::rounds::Clerk;
use crate::intake::redis::{Keys, UnitId};
use crate::redis::{Command, Link, Shape};

/// How a link stood when it was looked at last.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Servers {
    changes: u64,
    redirected_count: u64,
    /// A shard each.
    connections: Vec<Option<u64>>,
}

impl Servers {
    fn of(link: &Link, keys: &Keys) -> Servers {
        Servers {
            changes: link.changes(),
            redirected_count: link.redirected_count(),
            connections: shards(keys).map(|shard| link.connection_of(keys.owner(shard).as_bytes())).collect(),
        }
    }
}

fn shards(keys: &Keys) -> impl Iterator<Item = UnitId> + use<> {
    (0..keys.units().shard_count).map(UnitId)
}

impl Clerk {
    /// Connects before anything is served, as far as that is possible now: a connection that is made later may be to a
    /// server that lost what the other threads know of.
    pub fn connect(&mut self) {
        self.link.round(&self.looks_at_lists());
        self.servers = Servers::of(&self.link, &self.keys);
    }

    /// What was appended is known for as long as the same servers are behind the same connections. What others noted up to
    /// now may be on the one that is gone.
    pub fn know_servers(&mut self) {
        if self.link.changes() == self.servers.changes {
            return;
        }
        let before = std::mem::replace(&mut self.servers, Servers::of(&self.link, &self.keys));
        // Which shards were asked for elsewhere is not told.
        let is_any = before.redirected_count != self.servers.redirected_count;
        let now = (self.now_ms)();
        let connections = before.connections.iter().zip(&self.servers.connections);
        for (shard, (before, after)) in shards(&self.keys).zip(connections) {
            if is_any || before != after {
                self.lately.forget(shard, now);
            }
        }
    }

    /// In a Cluster an id was looked up at another node than the one that has the list, and that one may have lost
    /// what it confirmed. Which list a repeat stands in is not known before, so all shards are asked for.
    pub fn ask_for_lists(&mut self, pushes: &[Push]) {
        if pushes.is_empty() || self.link.shape() != Shape::Cluster {
            return;
        }
        let results = self.link.round(&self.looks_at_lists());
        self.know_servers();
        let now = (self.now_ms)();
        for (shard, _) in shards(&self.keys).zip(results).filter(|(_, result)| result.is_err()) {
            self.lately.forget(shard, now);
        }
    }

    /// A question about every shard, for whichever server has it.
    fn looks_at_lists(&self) -> Vec<Command> {
        shards(&self.keys).map(|shard| Command::new("EXISTS", self.keys.owner(shard))).collect()
    }
}
