//! The port [`Shelf`] over the sorted sets of the units that this instance owns, and what the scribe asks about them.
//!
//! Bounded over all owned units together by the rule of `intake::embedded::parking`: a queue may hold as many as are
//! still free. What is due is handed out from memory, where the [loader](super::loader) puts it; a request is due when
//! the server's clock and this machine's both say so, so that neither a slow nor a fast one has it go round in circles.
//! What holds: a request that was handed out stays in its set until what follows it is durable there; one of a unit
//! that was lost meanwhile is forgotten here, and is its new owner's.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;

use super::member::Member;
use super::scripts::Fence;
use super::yard::{Known, Yard};
use crate::domain::{Lane, Outcome, Request, UnixMs, record};
use crate::intake::redis::units::{self, UnitId};
use crate::intake::redis::{Held, Keys};
use crate::intake::{Due, QueueId, Shelf};
use crate::redis::Command;
use crate::ring::Bell;

#[derive(Clone, Copy, Debug)]
pub struct ShelfOptions {
    /// Parked requests in all units that this instance owns.
    pub count_max: usize,
    /// Due requests that are kept ready in memory.
    pub ready_count_max: usize,
}

impl Default for ShelfOptions {
    fn default() -> ShelfOptions {
        ShelfOptions { count_max: 1_000_000, ready_count_max: 4_096 }
    }
}

/// An outcome of a request, on its way to becoming durable.
#[derive(Clone, Copy, Debug)]
pub struct Followed<'a> {
    pub outcome: Outcome<'a>,
    /// The request, as encoded.
    pub record: &'a Bytes,
}

/// Parked requests as this process knows them.
#[derive(Clone)]
pub struct ParkedShelf {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub keys: Keys,
    pub held: Arc<Held>,
    pub options: ShelfOptions,
    /// Wakes the loader.
    pub bell: Bell,
    /// The loader is to look.
    pub is_wanted: AtomicBool,
    on_news: OnceLock<Box<dyn Fn() + Send + Sync>>,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    /// By unit.
    pub yards: Vec<Option<Yard>>,
    /// Time and place of what may be handed out.
    pub ready: BTreeSet<(UnixMs, u64)>,
    by_queue: HashMap<QueueId, usize>,
    total: usize,
    pub last_number: u64,
    /// The loader left due ones behind because enough were ready.
    pub is_starved: bool,
    feed_waits: bool,
}

impl Shared {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the loader look.
    pub fn wake(&self) {
        self.is_wanted.store(true, Ordering::SeqCst);
        self.bell.ring();
    }

    /// Has the feed look again.
    pub fn tell(&self) {
        if let Some(tell) = self.on_news.get() {
            tell();
        }
    }

    fn fence(&self, unit: UnitId, epoch: u64) -> Fence {
        Fence {
            parked: self.keys.parked(unit),
            owner: self.keys.owner(unit),
            epoch,
            incarnation: self.held.incarnation().to_owned(),
        }
    }
}

impl State {
    pub fn yard(&mut self, unit: UnitId) -> Option<&mut Yard> {
        self.yards[usize::from(unit.0)].as_mut()
    }

    /// Sums up all yards, after one was counted, gained or dropped.
    pub fn sum_up(&mut self) {
        self.total = 0;
        self.by_queue.clear();
        for yard in self.yards.iter().flatten() {
            self.total += yard.total;
            yard.by_queue
                .iter()
                .for_each(|(queue, count)| *self.by_queue.entry(*queue).or_default() += count);
        }
    }

    /// Forgets a unit.
    pub fn drop_yard(&mut self, unit: UnitId) {
        self.yards[usize::from(unit.0)] = None;
        self.ready.retain(|(_, place)| units::unit_of(*place) != unit);
        self.sum_up();
    }

    /// How many more may be read from a queue while `in_ring` requests, of any queue, may still park.
    fn room(&self, queue: QueueId, in_ring: usize, count_max: usize) -> usize {
        let free = count_max.saturating_sub(self.total + in_ring);
        match self.by_queue.get(&queue) {
            _ if queue.lane == Lane::Control => usize::MAX,
            None => free.max(1),
            Some(held) => free.saturating_sub(*held),
        }
    }

    /// Whether the feed waits for room, and may find some now.
    pub fn take_wish(&mut self) -> bool {
        std::mem::take(&mut self.feed_waits)
    }
}

impl ParkedShelf {
    pub fn new(keys: Keys, held: Arc<Held>, options: ShelfOptions) -> ParkedShelf {
        let yards = (0..keys.units().len()).map(|_| None).collect();
        let state = Mutex::new(State { yards, ..State::default() });
        let (bell, on_news, is_wanted) = (Bell::new(), OnceLock::new(), AtomicBool::new(false));
        ParkedShelf { shared: Arc::new(Shared { keys, held, options, bell, is_wanted, on_news, state }) }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Sets who is rung when something became due, or room. Once.
    pub fn on_news(&self, tell: impl Fn() + Send + Sync + 'static) {
        // Set before anything runs; a second one would not be heard.
        let is_first = self.shared.on_news.set(Box::new(tell)).is_ok();
        assert!(is_first, "the shelf rings one bell");
    }

    /// Has the loader look now: units were gained, or something was released.
    pub fn wake(&self) {
        self.shared.wake();
    }

    /// Parked in all owned units.
    pub fn count(&self) -> usize {
        self.shared.state().total
    }

    /// Parked ones of owned units that this release cannot read.
    pub fn unreadable_count(&self) -> usize {
        self.shared.state().yards.iter().flatten().map(|yard| yard.unreadable_count).sum()
    }

    /// Parked by queue, in no order.
    pub fn by_queue(&self) -> Vec<(QueueId, usize)> {
        self.shared.state().by_queue.iter().map(|(queue, count)| (*queue, *count)).collect()
    }

    /// Whether nothing of the unit is handed out and not yet settled.
    pub fn is_quiet(&self, unit: UnitId) -> bool {
        self.shared.state().yard(unit).is_none_or(|yard| yard.out_count() == 0)
    }

    /// Commands that park those whose outcome is not final. One refused as `STALE` is done with: the unit is
    /// another's, and so is what waits there.
    pub fn park(&self, followed: &[Followed<'_>]) -> Vec<Command> {
        let mut by_fence: HashMap<(UnitId, u64), Vec<(UnixMs, Bytes)>> = HashMap::new();
        let mut state = self.shared.state();
        for one in followed.iter().filter(|one| !one.outcome.status.is_final()) {
            let unit = units::unit_of(one.outcome.request_place);
            let Some((epoch, member)) = self.to_park(&mut state, one) else { continue };
            let members = by_fence.entry((unit, epoch)).or_default();
            members.push((one.outcome.next_attempt_at, Bytes::from(member.encode())));
        }
        drop(state);
        let fenced = by_fence.into_iter();
        fenced.flat_map(|((unit, epoch), members)| self.shared.fence(unit, epoch).park(&members)).collect()
    }

    /// What it waits as, and the epoch under which. Nothing of what was handed out and forgotten: it stands in its set
    /// as it was. Nor of a unit that is not owned: it stands in its list.
    fn to_park(&self, state: &mut State, one: &Followed<'_>) -> Option<(u64, Member)> {
        let place = one.outcome.request_place;
        let unit = units::unit_of(place);
        if units::is_parked_place(place) {
            let yard = state.yard(unit)?;
            let since = yard.get(place)?.member.since;
            return Some((yard.epoch, Member::of(&one.outcome, one.record, Some(since))));
        }
        let epoch = self.shared.held.epoch(unit)?;
        Some((epoch, Member::of(&one.outcome, one.record, None)))
    }

    /// Commands that remove what these stood as before, to be sent once [`ParkedShelf::park`]'s were executed. Under the
    /// epoch of those: where they came too late, these do.
    pub fn unpark(&self, followed: &[Followed<'_>]) -> Vec<Command> {
        let mut by_fence: HashMap<(UnitId, u64), Vec<Bytes>> = HashMap::new();
        let mut state = self.shared.state();
        for one in followed.iter().filter(|one| units::is_parked_place(one.outcome.request_place)) {
            let place = one.outcome.request_place;
            let unit = units::unit_of(place);
            let Some(yard) = state.yard(unit) else { continue };
            let Some(known) = yard.get(place) else { continue };
            // Parked again as the very same member, only its time has changed.
            if !one.outcome.status.is_final() && is_same(known, one) {
                continue;
            }
            by_fence.entry((unit, yard.epoch)).or_default().push(known.bytes.clone());
        }
        drop(state);
        let fenced = by_fence.into_iter();
        fenced.flat_map(|((unit, epoch), members)| self.shared.fence(unit, epoch).unpark(&members)).collect()
    }

    /// All of that was executed.
    pub fn done(&self, followed: &[Followed<'_>]) {
        let fair = self.shared.keys.units().fair_queue_count;
        let mut state = self.shared.state();
        let mut has_parked = false;
        for one in followed {
            let place = one.outcome.request_place;
            let unit = units::unit_of(place);
            let was_parked = units::is_parked_place(place);
            let waits = !one.outcome.status.is_final();
            let Some(yard) = state.yard(unit) else { continue };
            let removed = yard.removed(place);
            let added =
                (waits && was_parked == removed.is_some()).then(|| queue_of(one.record, fair)).flatten();
            added.iter().for_each(|queue| yard.added(*queue));
            has_parked |= added.is_some();
            state.count(removed, added);
        }
        let is_awaited = state.take_wish();
        drop(state);
        if has_parked {
            self.shared.wake();
        }
        if is_awaited {
            self.shared.tell();
        }
    }
}

impl State {
    fn count(&mut self, removed: Option<QueueId>, added: Option<QueueId>) {
        if let Some(queue) = removed {
            self.total = self.total.saturating_sub(1);
            if let Some(held) = self.by_queue.get_mut(&queue) {
                *held -= 1;
                if *held == 0 {
                    self.by_queue.remove(&queue);
                }
            }
        }
        if let Some(queue) = added {
            self.total += 1;
            *self.by_queue.entry(queue).or_default() += 1;
        }
    }
}

fn is_same(known: &Known, one: &Followed<'_>) -> bool {
    Member::of(&one.outcome, one.record, Some(known.member.since)) == known.member
}

/// The queue of an encoded request.
pub(super) fn queue_of(record: &[u8], fair_queue_count: u8) -> Option<QueueId> {
    let request = Request::decode(record).ok()?;
    Some(QueueId::of(request.lane, request.campaign, fair_queue_count))
}

impl Shelf for ParkedShelf {
    fn rooms(&self, queues: &[QueueId], in_ring: usize, out: &mut Vec<usize>) {
        let state = self.shared.state();
        let count_max = self.shared.options.count_max;
        out.clear();
        out.extend(queues.iter().map(|queue| state.room(*queue, in_ring, count_max)));
    }

    fn has_room(&self, queues: &[QueueId], in_ring: usize) -> bool {
        let mut state = self.shared.state();
        let count_max = self.shared.options.count_max;
        let is_open = queues.iter().any(|queue| state.room(*queue, in_ring, count_max) > 0);
        // Under the lock: what makes room from here on sees the wish after.
        state.feed_waits |= !is_open;
        is_open
    }

    /// At once, while something is ready; when the next will be is the loader's to watch, which rings.
    fn next_due(&self) -> Option<UnixMs> {
        (!self.shared.state().ready.is_empty()).then_some(0)
    }

    fn take_due(&self, _now: UnixMs, count_max: usize, out: &mut Vec<Due>) {
        let mut state = self.shared.state();
        let mut taken = 0;
        while taken < count_max
            && let Some((_, place)) = state.ready.pop_first()
        {
            let unit = units::unit_of(place);
            let held = &self.shared.held;
            let Some(yard) = state.yard(unit) else { continue };
            if held.epoch(unit) != Some(yard.epoch) || held.is_leaving(unit) {
                yard.put_back(place);
            } else if let Some(known) = yard.hand_out(place) {
                out.push(due(known, place));
                taken += 1;
            }
        }
        let is_low = state.ready.len() < self.shared.options.ready_count_max / 2;
        let wants_more = is_low && std::mem::take(&mut state.is_starved);
        drop(state);
        if wants_more {
            self.shared.wake();
        }
    }
}

fn due(known: &Known, place: u64) -> Due {
    Due {
        record: known.member.record.clone(),
        place,
        mark: record::key_hash(&known.member.record),
        // Never the request's own place, and older than anything this process wrote: it may have been sent.
        entry_place: 0,
        attempts: known.member.attempts,
        reason: known.member.reason,
        is_unknown: known.member.is_unknown,
    }
}
