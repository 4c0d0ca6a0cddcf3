//! Which clients have anything in lists of their own, whose ids no door has seen.
//!
//! What is pushed to a foreign list is judged when it is read, and its id stands in no bucket: the wallet is what
//! recognises it. So an acceptance is exact about duplicates only for a client of whose lists nothing ever came, and
//! says that the check is deferred for the others. What holds: a list is asked for in the round that registers, so
//! that what was pushed before is not missed. Once something was there, it is not asked for again.

use crate::intake::redis::{Keys, UnitId};
use crate::redis::{Command, Failure, Value, reply};

struct List {
    client: String,
    unit: UnitId,
    is_used: bool,
    /// It could not be asked in the round under way.
    is_unsure: bool,
}

pub struct Listed {
    lists: Vec<List>,
    /// Those that were asked for in the round under way.
    asked: Vec<usize>,
}

impl Listed {
    pub fn new(keys: &Keys) -> Listed {
        let units = keys.units();
        let of_clients = units.foreign.iter().enumerate().map(|(number, list)| List {
            client: list.client.clone(),
            unit: UnitId(units.shard_count + number as u16),
            is_used: false,
            is_unsure: false,
        });
        Listed { lists: of_clients.collect(), asked: Vec::new() }
    }

    /// Adds the questions of a round; answers how many there are.
    pub fn ask(&mut self, keys: &Keys, commands: &mut Vec<Command>) -> usize {
        self.asked = (0..self.lists.len()).filter(|number| !self.lists[*number].is_used).collect();
        commands.extend(self.asked.iter().map(|number| {
            let unit = self.lists[*number].unit;
            let queue = keys.queues(unit)[0];
            let [a, b] = keys.sealed(unit, queue);
            // Its outcomes stay when all of them were trimmed.
            // Asked for by one key, which the others share a slot with.
            Command::new("EXISTS", keys.list(unit, queue)).arg(a).arg(b).arg(keys.outcomes(unit))
        }));
        self.asked.len()
    }

    /// Takes in the answers. What could not be asked is taken to be used, for this round.
    pub fn learn(&mut self, results: Vec<Result<Value, Failure>>) {
        for (number, result) in self.asked.iter().zip(results) {
            let count = result.and_then(|value| reply::int("EXISTS", value));
            let list = &mut self.lists[*number];
            (list.is_used, list.is_unsure) = (count.as_ref().is_ok_and(|count| *count > 0), count.is_err());
        }
    }

    /// Whether ids of this client may stand in lists.
    pub fn is_listed(&self, client: &str) -> bool {
        self.lists.iter().any(|list| (list.is_used || list.is_unsure) && list.client == client)
    }
}
