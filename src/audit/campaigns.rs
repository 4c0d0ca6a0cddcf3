//! The campaigns: what each may spend, what it spent, what it has promised.
//!
//! *Reserved* is accepted and not final; *spent* is paid disbursements less what reversals brought back. Both
//! move with the states of requests. At the end the two together stay within the newest budget. Absent: the
//! campaign's account, which the books guard.

use serde::Deserialize;

use super::breach::{BreachKind, Breaches, name};
use super::table::{Key, Keyed, NONE, Table, key_of};

/// What the audit reads of a campaign's stored JSON; other members are ignored. `spent` stands only in the
/// checkpoint: what its removed requests moved.
#[derive(Deserialize)]
struct Definition {
    client: String,
    id: String,
    budget: u64,
    #[serde(default)]
    spent: i64,
}

struct Campaign {
    key: Key,
    name: String,
    /// The newest; `None`: requests name it, and it was never defined.
    budget: Option<u64>,
    reserved: u64,
    spent: i128,
}

impl Keyed for Campaign {
    fn key(&self) -> Key {
        self.key
    }
}

pub struct Campaigns {
    table: Table<Campaign>,
    /// The campaign asked for last: requests of one campaign come in runs.
    newest: (Vec<u8>, u32),
    scratch: Vec<u8>,
}

impl Campaigns {
    pub fn new() -> Campaigns {
        Campaigns { table: Table::new(), newest: (Vec::new(), NONE), scratch: Vec::new() }
    }

    pub fn count(&self) -> usize {
        self.table.rows().iter().filter(|campaign| campaign.budget.is_some()).count()
    }

    /// Takes in a definition; a later one of the same campaign replaces its budget.
    pub fn define(&mut self, number: u32, json: &[u8], breaches: &mut Breaches) {
        let definition: Definition = match serde_json::from_slice(json) {
            Ok(definition) => definition,
            Err(error) => {
                let detail = || format!("campaign {number} is not defined in words we know: {error}");
                return breaches.add(BreachKind::Malformed, || format!("campaign {number}"), detail);
            }
        };
        let row = self.find(definition.client.as_bytes(), definition.id.as_bytes());
        let campaign = self.table.get_mut(row).expect("it was found");
        campaign.budget = Some(definition.budget);
        campaign.spent += i128::from(definition.spent);
    }

    /// The row of a campaign.
    pub fn find(&mut self, client: &[u8], id: &[u8]) -> u32 {
        let (newest, row) = &self.newest;
        let is_newest = newest.len() == client.len() + 1 + id.len()
            && newest.starts_with(client)
            && newest[client.len()] == b':'
            && newest.ends_with(id);
        if is_newest && *row != NONE {
            return *row;
        }
        let key = key_of(&mut self.scratch, &[client, b":", id]);
        let label = &self.scratch;
        let make = || Campaign { key, name: name(label), budget: None, reserved: 0, spent: 0 };
        let (row, _) = self.table.find_or_insert(key, make);
        self.newest = (self.scratch.clone(), row);
        row
    }

    pub fn reserve(&mut self, row: u32, amount: u64) {
        if let Some(campaign) = self.table.get_mut(row) {
            campaign.reserved = campaign.reserved.saturating_add(amount);
        }
    }

    pub fn release(&mut self, row: u32, amount: u64) {
        if let Some(campaign) = self.table.get_mut(row) {
            campaign.reserved = campaign.reserved.saturating_sub(amount);
        }
    }

    /// Counts money out of a campaign, or back in where `amount` is below zero.
    pub fn spend(&mut self, row: u32, amount: i128) {
        if let Some(campaign) = self.table.get_mut(row) {
            campaign.spent += amount;
        }
    }

    /// At the end: no campaign has spent and promised more than its budget.
    pub fn finish(&self, breaches: &mut Breaches) {
        for campaign in self.table.rows() {
            let Campaign { name, reserved, spent, .. } = campaign;
            let is_within = match campaign.budget {
                Some(budget) => spent + i128::from(*reserved) <= i128::from(budget),
                None => *spent <= 0,
            };
            if !is_within {
                let budget = campaign.budget.map_or("none".into(), |budget| budget.to_string());
                breaches.add(
                    BreachKind::Overspent,
                    || name.clone(),
                    || format!("campaign {name}: spent {spent}, reserved {reserved}, budget {budget}"),
                );
            }
        }
    }
}
