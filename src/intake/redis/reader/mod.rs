//! The reader: one thread and one connection that seal, read ahead and acknowledge for all units this instance owns.
//!
//! ```text
//!  Held ──> follow ──> plan ──> one round ──> apply ──> local queues ──> pipeline
//!                       ▲     LRANGE, bury,               │
//!                       │     ack, seal, EXISTS           │ what is done
//!                       └─────────────────────────────────┘
//! ```
//!
//! What holds: an element is acknowledged once all its requests are done and what was unreadable of it is buried,
//! under the epoch under which it was read; what a unit that was lost had in the local queues is dropped. No answer,
//! and no state of the keys, makes it panic or loop hot. Idle, it looks at every unit with one command each
//! `poll_ms_max`. Absent: what elements mean, who owns what.

mod apply;
mod parts;
mod plan;
mod state;
mod take;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use self::state::{List, UnitState};
use super::contents::Contents;
use super::credit::Credit;
use super::held::Held;
use super::keys::Keys;
use super::queues::{Entry, Ticket};
use super::seal::Fence;
use super::servers::Servers;
use super::window::{Mismatch, Weight};
use crate::redis::{Failure, Link};
use crate::ring::Listener;

/// Between looks at lists in which something was found.
const POLL_FIRST: Duration = Duration::from_millis(1);

pub use self::parts::{Anomaly, OnAnomaly, ReaderOptions, ReaderParts, Shared};

pub struct Reader {
    link: Link,
    keys: Keys,
    held: Arc<Held>,
    options: ReaderOptions,
    credit: Credit,
    parts: ReaderParts,
    shared: Arc<Shared>,
    units: Vec<UnitState>,
    lists: Vec<List>,
    /// The last era that was given to a window.
    era: u32,
    /// Where planning begins: with another unit every round.
    first_unit: usize,
    next_look: Instant,
    next_depth: Instant,
    interval: Duration,
    /// Redis could not be reached in the last round.
    is_cut_off: bool,
    /// Behind the lists, when their lengths were doubted last.
    servers: Servers,
    done: Vec<Ticket>,
    contents: Contents,
    /// Read in this round, by queue.
    staged: Vec<Vec<Entry>>,
}

impl Reader {
    pub fn new(
        link: Link,
        keys: Keys,
        held: Arc<Held>,
        options: ReaderOptions,
        parts: ReaderParts,
        shared: Arc<Shared>,
    ) -> Reader {
        let (units, lists) = state::of(&keys);
        let servers = Servers::new(&keys, keys.units().len());
        let max = Weight { requests: options.requests_max, bytes: options.bytes_max };
        let now = Instant::now();
        Reader {
            link,
            keys,
            held,
            options,
            credit: Credit { max },
            parts,
            staged: (0..shared.queues.count()).map(|_| Vec::new()).collect(),
            shared,
            units,
            lists,
            era: 0,
            first_unit: 0,
            next_look: now,
            next_depth: now,
            interval: POLL_FIRST,
            is_cut_off: false,
            servers,
            done: Vec::new(),
            contents: Contents::default(),
        }
    }

    /// Works until it is stopped.
    pub fn run(mut self) {
        let listener = self.shared.bell.clone().listen();
        while !self.shared.has_stopped() {
            if !self.turn() {
                self.wait(&listener);
            }
        }
    }

    /// One round, if there is anything to do in it.
    fn turn(&mut self) -> bool {
        self.take_done();
        self.follow();
        let now = Instant::now();
        if self.shared.take_woken() {
            (self.next_look, self.interval) = (now, POLL_FIRST);
        }
        let round = self.plan(now);
        let has_look = round.has_look;
        let has_commands = !round.commands.is_empty();
        let found = has_commands && {
            let results = self.link.round(&round.commands);
            let found = self.apply(round, results);
            self.doubt_if_reconnected();
            found
        };
        if found {
            self.interval = POLL_FIRST;
        } else if has_look {
            self.interval = (self.interval * 2).min(Duration::from_millis(self.options.poll_ms_max.max(1)));
        }
        if has_look {
            self.next_look = Instant::now() + self.interval;
        }
        self.tell_depths();
        has_commands
    }

    /// Behind a new connection may be a server that restarted, and brought back what was trimmed last; so may a replica
    /// that took a master's place.
    fn doubt_if_reconnected(&mut self) {
        let was_connected = self.servers.was_connected();
        for unit in self.servers.changed(&self.link) {
            if was_connected {
                let lists = self.units[usize::from(unit.0)].lists.clone();
                self.lists[lists].iter_mut().for_each(|list| list.window.restored());
            }
        }
    }

    fn wait(&self, listener: &Listener) {
        let retries =
            self.units.iter().filter_map(|unit| unit.retry_at.into_iter().chain(unit.bury_after).min());
        let now = Instant::now();
        let deadline = retries.filter(|at| *at > now).chain([self.next_look]).min();
        let shared = &self.shared;
        let ready = || shared.has_stopped() || shared.is_woken() || shared.queues.has_done();
        listener.wait_until(deadline.expect("one at least"), ready);
    }

    fn take_done(&mut self) {
        self.shared.queues.take_done(&mut self.done);
        for ticket in &self.done {
            let list = &mut self.lists[ticket.list as usize];
            if list.era == ticket.era {
                list.window.done(ticket.position);
            }
        }
    }

    /// Begins with what was gained, ends with what was lost, tells when what is to be left is quiet.
    fn follow(&mut self) {
        let mut has_dropped = false;
        for unit in 0..self.units.len() {
            let (id, own) = (self.units[unit].id, self.units[unit].fence.as_ref().map(|fence| fence.epoch));
            let (epoch, is_leaving) = (self.held.epoch(id), self.held.is_leaving(id));
            let has_stayed = self.units[unit].is_leaving && !is_leaving;
            if own != epoch || (has_stayed && epoch.is_some()) {
                has_dropped |= own.is_some();
                self.begin(unit, epoch);
            } else if epoch.is_some() && is_leaving && !self.units[unit].is_leaving {
                self.leave(unit);
            }
            if self.units[unit].is_leaving && !self.held.is_quiet(id) && self.is_quiet(unit) {
                self.held.set_quiet(id);
            }
        }
        if has_dropped {
            self.drop_unread();
        }
    }

    /// A unit is gained, lost, or gained anew.
    fn begin(&mut self, unit: usize, epoch: Option<u64>) {
        self.clear_trouble(unit);
        self.shared.change_hands();
        let incarnation = self.held.incarnation().to_owned();
        let owner_key = self.units[unit].owner_key.clone();
        let fence = epoch.map(|epoch| Fence { owner_key, epoch, incarnation });
        self.units[unit].begin(fence);
        for list in self.units[unit].lists.clone() {
            self.renew(list);
            let list = &mut self.lists[list];
            // Acks of another epoch are refused, however late.
            (list.window, list.live_count, list.is_hot) = (Default::default(), 0, epoch.is_some());
        }
        self.interval = POLL_FIRST;
    }

    /// Gives a list a fresh window; what was read of it is to be dropped by [`Reader::drop_unread`].
    fn renew(&mut self, list: usize) {
        self.era = self.era.wrapping_add(1);
        let list = &mut self.lists[list];
        (list.window, list.era) = (list.window.renewed(), self.era);
        (list.is_spoilt, list.is_stopped) = (false, false);
    }

    fn drop_unread(&mut self) {
        let lists = &self.lists;
        let is_of_now = |ticket: Ticket| lists[ticket.list as usize].era == ticket.era;
        self.shared.queues.drop_unread(is_of_now);
        self.units.iter_mut().for_each(|unit| unit.graves.retain(|grave| is_of_now(grave.ticket)));
    }

    /// Reads no more of a unit; what was handed out already goes on to its end.
    fn leave(&mut self, unit: usize) {
        let lists = &mut self.lists;
        self.units[unit].is_leaving = true;
        self.shared.queues.drop_unread(|ticket| {
            let list = &mut lists[ticket.list as usize];
            let is_left = list.unit == unit && list.era == ticket.era;
            if is_left {
                list.window.forget(1);
            }
            !is_left
        });
        for grave in self.units[unit].graves.drain(..) {
            self.lists[grave.ticket.list as usize].window.forget(1);
        }
    }

    fn is_quiet(&self, unit: usize) -> bool {
        self.lists[self.units[unit].lists.clone()].iter().all(|list| {
            list.window.under_way() == 0 && !list.window.is_acking() && list.window.next_ack().is_none()
        })
    }

    /// The keys of a list are not what they must be: it begins again, after a pause.
    fn spoil(&mut self, list: usize, mismatch: Mismatch) {
        let List { unit, sealed, is_spoilt, .. } = &mut self.lists[list];
        *is_spoilt = true;
        let (unit, key) = (*unit, sealed[mismatch.side as usize].clone());
        self.units[unit].pause(Instant::now());
        let anomaly = Anomaly::LengthChanged { key, expected: mismatch.expected, found: mismatch.found };
        self.tell_anomaly(unit, &anomaly);
    }

    fn renew_spoilt(&mut self) {
        let spoilt: Vec<usize> = (0..self.lists.len()).filter(|list| self.lists[*list].is_spoilt).collect();
        spoilt.iter().for_each(|list| self.renew(*list));
        if !spoilt.is_empty() {
            self.drop_unread();
        }
    }

    fn tell_anomaly(&mut self, unit: usize, anomaly: &Anomaly) {
        tracing::error!(unit = self.keys.unit_name(self.units[unit].id), "{anomaly}");
        (self.parts.on_anomaly)(self.units[unit].id, anomaly);
    }

    /// Tells of one that lasts when it begins.
    fn tell_anomaly_once(&mut self, unit: usize, anomaly: Anomaly) {
        if self.units[unit].trouble.as_deref() != Some(anomaly.to_string().as_str()) {
            self.tell_anomaly(unit, &anomaly);
            self.note_trouble(unit, anomaly.to_string());
        }
    }

    /// Says what keeps a unit from working, when it begins.
    fn set_trouble(&mut self, unit: usize, what: String) {
        if self.units[unit].trouble.as_deref() != Some(what.as_str()) {
            tracing::error!(unit = self.keys.unit_name(self.units[unit].id), "{what}");
            self.note_trouble(unit, what);
        }
    }

    fn note_trouble(&mut self, unit: usize, what: String) {
        self.shared.set_trouble(self.units[unit].id, what.clone());
        self.units[unit].trouble = Some(what);
    }

    fn clear_trouble(&mut self, unit: usize) {
        if self.units[unit].trouble.take().is_some() {
            let id = self.units[unit].id;
            tracing::info!(unit = self.keys.unit_name(id), "works again");
            self.shared.clear_trouble(id);
        }
    }

    /// Says once that Redis cannot be reached, and once that it can be again.
    fn say_reached(&mut self, unreached: Option<Failure>) {
        match &unreached {
            Some(failure) if !self.is_cut_off => tracing::warn!("the intake is not read: {failure}"),
            None if self.is_cut_off => tracing::info!("the intake is read again"),
            _ => {}
        }
        self.is_cut_off = unreached.is_some();
    }

    fn tell_depths(&self) {
        let (mut elements, mut waiting) = (0, vec![0; self.staged.len()]);
        let mut requests = 0;
        for list in &self.lists {
            elements += list.elements();
            waiting[list.queue_position] += list.requests_waiting();
            requests += list.window.held().requests;
        }
        requests += waiting.iter().sum::<u64>();
        self.shared.elements.store(elements, Ordering::Relaxed);
        self.shared.requests.store(requests, Ordering::Relaxed);
        waiting.into_iter().enumerate().for_each(|(at, count)| self.shared.queues.set_waiting(at, count));
    }
}
