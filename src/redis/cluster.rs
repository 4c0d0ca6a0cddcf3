//! A Cluster: a round goes to all the nodes it concerns at once, each command to the node that has its slot.
//!
//! ```text
//! commands ─ by slot ─> nodes: connect where needed ─> write to all ─> read from all ─┐
//!     ▲                                                                               │
//!     └── MOVED, ASK, NOSCRIPT: not executed, so sent again, where the order allows ──┘
//! ```
//!
//! Plain connections and a slot map of our own, because the `redis` crate's cluster client does not say which of
//! several commands may have been executed: it answers a pipeline with one error, and tries again on its own what
//! a broken connection left open. Here a node that fails takes only its own commands with it. The order of the
//! commands of one slot is kept. The map is renewed when a node says that it is wrong or cannot be reached, at
//! most every [`RENEWAL_WAIT`].

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::Value;

use super::again::{self, Again};
use super::command::Command;
use super::error::Failure;
use super::node::Node;
use super::slots::{SlotMap, slot_of};
use super::url::Address;
use super::wire::{Access, Item};

/// A command that is sent from node to node more often than this stays refused.
const HOPS_MAX: usize = 5;
const RENEWAL_WAIT: Duration = Duration::from_millis(50);

type Fate = Result<Value, Failure>;

/// A command that is to be sent, by its place in the round.
struct Step {
    at: usize,
    /// Not to the owner of its slot, but to the node that is importing it.
    ask: Option<Address>,
}

pub(super) struct Cluster {
    seeds: Vec<Address>,
    nodes: HashMap<Address, Node>,
    map: SlotMap,
    /// Something said that the map is wrong.
    is_stale: bool,
    renewed_at: Option<Instant>,
    /// Why the map could not be had, when it could not.
    failed: String,
    /// No node at all could be asked, since.
    lost_since: Option<Instant>,
    /// Commands that another node than the one they were sent to had to be asked for.
    redirected_count: u64,
    /// Maps that were not as the one before.
    remapped_count: u64,
}

impl Cluster {
    pub fn new(seeds: Vec<Address>) -> Cluster {
        Cluster {
            seeds,
            nodes: HashMap::new(),
            map: SlotMap::default(),
            is_stale: true,
            renewed_at: None,
            failed: String::new(),
            lost_since: None,
            redirected_count: 0,
            remapped_count: 0,
        }
    }

    pub fn redirected_count(&self) -> u64 {
        self.redirected_count
    }

    pub fn remapped_count(&self) -> u64 {
        self.remapped_count
    }

    /// Who has the slot of this key, by the map.
    pub fn owner(&self, key: &[u8]) -> Option<&Address> {
        self.map.owner(slot_of(key))
    }

    /// The connection to who has the slot of this key, if there is one.
    pub fn connection(&self, key: &[u8]) -> Option<u64> {
        self.nodes.get(self.owner(key)?)?.connection()
    }

    /// Since when some master that is in the map has not been reached.
    pub fn down_since(&self) -> Option<Instant> {
        let masters = self.map.masters().iter().filter_map(|master| self.nodes.get(master)?.down_since());
        masters.chain(self.lost_since).min()
    }

    pub fn round(&mut self, access: &Access, commands: &[Command]) -> Vec<Fate> {
        let unsent = || Err(Failure::NotSent("it was not its turn".to_owned()));
        let mut results: Vec<Fate> = commands.iter().map(|_| unsent()).collect();
        let mut steps: Vec<Step> = (0..commands.len()).map(|at| Step { at, ask: None }).collect();
        for hop in 0..=HOPS_MAX {
            self.renew(access);
            let sent = self.send(access, commands, &steps, &mut results);
            steps = if hop < HOPS_MAX { self.again(commands, &results, sent) } else { Vec::new() };
            if steps.is_empty() {
                break;
            }
        }
        results
    }

    /// The same commands to every master, whatever their keys: the masters' names with their results.
    pub fn everywhere(
        &mut self,
        access: &Access,
        commands: &[Command],
    ) -> Result<Vec<(String, Vec<Fate>)>, Failure> {
        self.renew(access);
        if self.map.masters().is_empty() {
            return Err(Failure::NotSent(self.failed.clone()));
        }
        let all: Vec<usize> = (0..commands.len()).collect();
        let groups = self.map.masters().iter().map(|master| (master.clone(), all.clone())).collect();
        let items: Vec<Item<'_>> = commands.iter().map(|command| Item { command, asking: false }).collect();
        let answered = self.exchange(access, &items, groups);
        let named = answered.into_iter().map(|(address, _, fates)| (address.to_string(), fates));
        Ok(named.collect())
    }

    /// A round at one master, by its name.
    pub fn round_at(&mut self, access: &Access, name: &str, commands: &[Command]) -> Vec<Fate> {
        self.renew(access);
        let master = self.map.masters().iter().find(|master| master.to_string() == name).cloned();
        match master {
            Some(master) => {
                let node = self.nodes.entry(master).or_insert_with_key(|master| Node::at(master.clone()));
                node.round(access, commands)
            }
            None => {
                let unsent = || Err(Failure::NotSent(format!("the Cluster has no master {name}")));
                commands.iter().map(|_| unsent()).collect()
            }
        }
    }

    /// Sends what is to be sent and fills in the results; answers which node each step went to.
    fn send(
        &mut self,
        access: &Access,
        commands: &[Command],
        steps: &[Step],
        results: &mut [Fate],
    ) -> Vec<(usize, Address)> {
        let mut groups: Vec<(Address, Vec<usize>)> = Vec::new();
        let mut places: HashMap<Address, usize> = HashMap::new();
        for (step_at, step) in steps.iter().enumerate() {
            let key = commands[step.at].key();
            let owner = match &step.ask {
                Some(address) => Some(address.clone()),
                None if key.is_empty() => self.any_master(),
                None => self.map.owner(slot_of(key)).cloned(),
            };
            let Some(owner) = owner else {
                self.is_stale = true;
                results[step.at] = Err(Failure::NotSent(self.nobody(key)));
                continue;
            };
            let place = *places.entry(owner).or_insert_with_key(|owner| {
                groups.push((owner.clone(), Vec::new()));
                groups.len() - 1
            });
            groups[place].1.push(step_at);
        }
        let items: Vec<Item<'_>> = steps
            .iter()
            .map(|step| Item { command: &commands[step.at], asking: step.ask.is_some() })
            .collect();
        let mut sent = Vec::with_capacity(steps.len());
        for (address, step_ats, fates) in self.exchange(access, &items, groups) {
            for (step_at, fate) in step_ats.into_iter().zip(fates) {
                let at = steps[step_at].at;
                results[at] = fate;
                sent.push((at, address.clone()));
            }
        }
        sent.sort_unstable_by_key(|(at, _)| *at);
        sent
    }

    /// Each group of items to its node: all are written to before the first is read from.
    fn exchange(
        &mut self,
        access: &Access,
        items: &[Item<'_>],
        groups: Vec<(Address, Vec<usize>)>,
    ) -> Vec<(Address, Vec<usize>, Vec<Fate>)> {
        let connected_by = Instant::now() + access.connect_timeout;
        let mut answered = Vec::with_capacity(groups.len());
        let mut ready = Vec::with_capacity(groups.len());
        for (address, ats) in groups {
            let node = self.nodes.entry(address.clone()).or_insert_with(|| Node::at(address.clone()));
            match node.ready(access, connected_by) {
                Ok(()) => ready.push((address, ats)),
                Err(failure) => {
                    let fates = ats.iter().map(|_| Err(failure.clone())).collect();
                    answered.push((address, ats, fates));
                }
            }
        }
        let deadline = Instant::now() + access.response_timeout;
        let mut flights = Vec::with_capacity(ready.len());
        for (address, ats) in ready {
            let own: Vec<Item<'_>> = ats.iter().map(|at| items[*at]).collect();
            let flight = self.node(&address).write(&own, deadline);
            flights.push((address, ats, own, flight));
        }
        for (address, ats, own, flight) in flights {
            // One that kept us waiting must not cost the others their replies, which came meanwhile.
            let grace = Instant::now() + access.response_timeout / 4;
            let fates = self.node(&address).read(&own, &flight, deadline.max(grace));
            answered.push((address, ats, fates));
        }
        let failed = |fate: &Fate| matches!(fate, Err(Failure::NotSent(_) | Failure::Unknown(_)));
        let lost =
            |fate: &Fate| failed(fate) || fate.as_ref().is_err_and(|failure| failure.is_code("CLUSTERDOWN"));
        self.is_stale |= answered.iter().any(|(_, _, fates)| fates.iter().any(lost));
        answered
    }

    fn node(&mut self, address: &Address) -> &mut Node {
        self.nodes.get_mut(address).expect("a node is made ready before it is written to")
    }

    /// What is to be sent again, and where. Every redirection corrects the map.
    fn again(&mut self, commands: &[Command], results: &[Fate], sent: Vec<(usize, Address)>) -> Vec<Step> {
        let mut moved = Vec::new();
        let mut steps = Vec::new();
        for (at, from) in &sent {
            let ask = match again::again(&results[*at], from) {
                Some(Again::Script) if commands[*at].script_of().is_some() => None,
                Some(Again::Moved { slot, to }) => {
                    moved.push((slot, to));
                    None
                }
                Some(Again::Ask(to)) => {
                    self.redirected_count += 1;
                    Some(to)
                }
                Some(Again::Script) | None => continue,
            };
            steps.push(Step { at: *at, ask });
        }
        self.is_stale |= !moved.is_empty();
        self.redirected_count += moved.len() as u64;
        moved.iter().for_each(|(slot, to)| self.map.set(*slot, to));
        let may = again::in_order(steps.iter().map(|step| step.at).collect(), commands, results);
        steps.retain(|step| may.binary_search(&step.at).is_ok());
        steps
    }

    fn any_master(&self) -> Option<Address> {
        let masters = self.map.masters();
        let connected = |master: &&Address| self.nodes.get(*master).is_some_and(Node::is_connected);
        masters.iter().find(connected).or(masters.first()).cloned()
    }

    fn nobody(&self, key: &[u8]) -> String {
        match (self.map.masters().is_empty(), key.is_empty()) {
            (true, _) => self.failed.clone(),
            (false, false) => format!("no node of the Cluster has the slot {}", slot_of(key)),
            (false, true) => "no node of the Cluster is known".to_owned(),
        }
    }

    /// Reads the map anew where that is due, from the first node that tells it.
    fn renew(&mut self, access: &Access) {
        let is_due = self.renewed_at.is_none_or(|at| at.elapsed() >= RENEWAL_WAIT);
        if !self.is_stale || !is_due {
            return;
        }
        let deadline = Instant::now() + access.connect_timeout;
        let question = [Command::routed("CLUSTER", "").arg("SLOTS")];
        let mut reasons = Vec::new();
        for address in self.whom_to_ask() {
            let node = self.nodes.entry(address.clone()).or_insert_with(|| Node::at(address.clone()));
            let answer = node.ready(access, deadline).and_then(|()| node.round(access, &question).remove(0));
            match answer.map(|reply| SlotMap::read(&reply, &address)) {
                Ok(Some(map)) if !map.masters().is_empty() => {
                    self.remapped_count += u64::from(self.map != map);
                    self.map = map;
                    self.nodes.retain(|address, _| self.map.masters().contains(address));
                    self.is_stale = false;
                    self.lost_since = None;
                    self.renewed_at = Some(Instant::now());
                    return;
                }
                Ok(Some(_)) => reasons.push(format!("{address}: it knows no slots")),
                Ok(None) => reasons.push(format!("{address}: its answer to CLUSTER SLOTS is none")),
                Err(failure) => reasons.push(failure.to_string()),
            }
        }
        self.renewed_at = Some(Instant::now());
        self.lost_since.get_or_insert_with(Instant::now);
        self.failed = format!("no node of the Cluster told its slots: {}", reasons.join("; "));
    }

    /// Nodes that are connected, then the others that are known, then those that the URL names.
    fn whom_to_ask(&self) -> Vec<Address> {
        let mut all: Vec<&Address> = self.map.masters().iter().chain(&self.seeds).collect();
        all.sort_by_key(|address| !self.nodes.get(address).is_some_and(Node::is_connected));
        let mut once: Vec<Address> = Vec::with_capacity(all.len());
        for address in all {
            if !once.contains(address) {
                once.push(address.clone());
            }
        }
        once
    }
}
