//! Which servers are behind units, by the connections of a link: what was known of a unit's keys may hold no more where
//! another one may be.
//!
//! What holds: a server that fails, or comes back, concerns its own units and no others. Keys of one unit are always at one
//! server, and a connection leads to one server for as long as it lasts.

use super::keys::Keys;
use super::units::UnitId;
use crate::redis::{Command, Link};

/// How a link stood when it was looked at last.
#[derive(Debug)]
pub struct Servers {
    /// A key of each unit.
    keys: Vec<String>,
    changes: u64,
    redirected_count: u64,
    connections: Vec<Option<u64>>,
}

impl Servers {
    /// Of units by number, from the first on. Nothing was looked at yet.
    pub fn new(keys: &Keys, count: usize) -> Servers {
        let keys: Vec<String> = keys.units().ids().take(count).map(|unit| keys.owner(unit)).collect();
        Servers { changes: 0, redirected_count: 0, connections: vec![None; keys.len()], keys }
    }

    /// A question about every unit, for whichever server has it.
    pub fn questions(&self) -> Vec<Command> {
        self.keys.iter().map(|key| Command::new("EXISTS", key)).collect()
    }

    /// Whether the link had been connected when it was looked at last.
    pub fn was_connected(&self) -> bool {
        self.changes != 0
    }

    /// The units behind which another server may be than when this was asked last, or none that can be reached.
    pub fn changed(&mut self, link: &Link) -> Vec<UnitId> {
        let changes = link.changes();
        if std::mem::replace(&mut self.changes, changes) == changes {
            return Vec::new();
        }
        let redirected_count = link.redirected_count();
        // Which units were asked for elsewhere is not told.
        let is_any = std::mem::replace(&mut self.redirected_count, redirected_count) != redirected_count;
        let mut changed = Vec::new();
        for (unit, (key, held)) in self.keys.iter().zip(&mut self.connections).enumerate() {
            let connection = link.connection_of(key.as_bytes());
            if std::mem::replace(held, connection) != connection || is_any {
                changed.push(UnitId(unit as u16));
            }
        }
        changed
    }
}
