//! Requests that wait for a time: not due yet, an empty account, a paused campaign.
//!
//! A parked request was acknowledged in its queue; what makes it durable is its latest outcome, which says
//! QUEUED with a reason and a time. The desk parks and releases as outcomes become durable; the feeder takes
//! what is due and hands it out again.
//!
//! Bounded, each queue for itself: *a queue may hold as many as are still free* (dynamic thresholds, Choudhury and
//! Hahne 1998), what is under way counted as taken. One queue alone can so fill half of the parking, and however many
//! are full, an empty one finds room; one that holds nothing is never stopped. A full queue is not read until it has
//! room again; what it has parked is handed out when it is due, full or not.
//!
//! Every step costs the logarithm of what is parked: releasing a campaign only marks it, and what is marked is handed
//! out as the feed asks.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::ops::Bound::{Excluded, Unbounded};

use crate::domain::{Lane, UnixMs, WaitReason};
use crate::intake::QueueId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked {
    pub request_place: u64,
    /// The latest entry of the request: the outcome that parked it.
    pub entry_place: u64,
    pub due: UnixMs,
    /// When it was parked first, whatever it waited for then.
    pub since: UnixMs,
    pub reason: WaitReason,
    pub attempts: u32,
    pub campaign_number: u32,
    /// Where it came from, and whose room it takes.
    pub queue: QueueId,
}

/// What waits for the same reason in the same campaign (by number).
pub type Group = (u32, WaitReason);

/// Where something stands in the order of listings: since when it waits, and the place of the request.
pub type Age = (UnixMs, u64);

#[derive(Debug)]
struct Held {
    parked: Parked,
    /// Counts up with every parking: what was parked after a release is not released by it.
    stamp: u64,
    is_out: bool,
}

#[derive(Debug, Default)]
struct Members {
    by_age: BTreeSet<Age>,
    out_count: usize,
}

/// A release that is being carried out.
#[derive(Clone, Copy, Debug)]
struct Release {
    after: Option<Age>,
    stamp_max: u64,
}

/// Requests of one released group that are handed out in a turn, and members that are looked at in one go.
const TURN_COUNT: usize = 256;
const LOOK_COUNT: usize = 65_536;

#[derive(Debug, Default)]
pub struct Parking {
    count_max: usize,
    by_place: HashMap<u64, Held>,
    /// Those not handed out, by time.
    waiting: BTreeSet<(UnixMs, u64)>,
    groups: BTreeMap<Group, Members>,
    by_queue: HashMap<QueueId, usize>,
    releasing: BTreeMap<Group, Release>,
    /// The group that had the last turn.
    turn: Option<Group>,
    stamps: u64,
    has_changed: bool,
    feed_waits: bool,
}

impl Parking {
    /// Sets how many may be parked at the most; until then, none may.
    pub fn bound(&mut self, count_max: usize) {
        self.count_max = count_max;
    }

    pub fn len(&self) -> usize {
        self.by_place.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_place.is_empty()
    }

    /// How many more may be read from a queue while `under_way` requests, of any queue, may still park.
    pub fn room(&self, queue: QueueId, under_way: usize) -> usize {
        let free = self.count_max.saturating_sub(self.len() + under_way);
        match self.by_queue.get(&queue) {
            _ if queue.lane == Lane::Control => usize::MAX,
            None => free.max(1),
            Some(held) => free.saturating_sub(*held),
        }
    }

    /// The queues that are not read because they hold as many as they may.
    pub fn full_queues(&self, under_way: usize) -> Vec<QueueId> {
        let queues = self.by_queue.keys().copied();
        let mut full: Vec<QueueId> = queues.filter(|queue| self.room(*queue, under_way) == 0).collect();
        full.sort_unstable();
        full
    }

    pub fn count_in_lane(&self, lane: Lane) -> usize {
        self.by_queue.iter().filter(|(queue, _)| queue.lane == lane).map(|(_, count)| count).sum()
    }

    /// The feed sleeps although there is something to read: it is to be woken when there is room.
    pub fn feed_waits_for_room(&mut self) {
        self.feed_waits = true;
    }

    /// Whether the feed should look again; `has_settled`: outcomes were taken in since the last call.
    pub fn take_news(&mut self, has_settled: bool) -> bool {
        let waits = has_settled && std::mem::take(&mut self.feed_waits);
        std::mem::take(&mut self.has_changed) || waits
    }

    /// Parks a request, or changes what it waits for.
    pub fn park(&mut self, mut parked: Parked) {
        if let Some(before) = self.unlink(parked.request_place) {
            parked.since = before.since;
        }
        self.stamps += 1;
        self.has_changed = true;
        self.waiting.insert((parked.due, parked.request_place));
        let members = self.groups.entry((parked.campaign_number, parked.reason)).or_default();
        members.by_age.insert((parked.since, parked.request_place));
        *self.by_queue.entry(parked.queue).or_default() += 1;
        let held = Held { parked, stamp: self.stamps, is_out: false };
        self.by_place.insert(parked.request_place, held);
    }

    /// The request needs to wait no more.
    pub fn remove(&mut self, request_place: u64) {
        self.has_changed |= self.unlink(request_place).is_some();
    }

    fn unlink(&mut self, request_place: u64) -> Option<Parked> {
        let Held { parked, is_out, .. } = self.by_place.remove(&request_place)?;
        self.waiting.remove(&(parked.due, request_place));
        let group = (parked.campaign_number, parked.reason);
        let members = self.groups.get_mut(&group).expect("whatever is parked has a group");
        members.by_age.remove(&(parked.since, request_place));
        members.out_count -= usize::from(is_out);
        if members.by_age.is_empty() {
            self.groups.remove(&group);
        }
        let held = self.by_queue.get_mut(&parked.queue).expect("whatever is parked is of a queue");
        *held -= 1;
        if *held == 0 {
            self.by_queue.remove(&parked.queue);
        }
        Some(parked)
    }

    /// Hands out what is due, oldest first; it stays parked until an outcome says otherwise. What was released and
    /// what has come to its time share, if there is much of both.
    pub fn take_due(&mut self, now: UnixMs, count_max: usize, out: &mut Vec<Parked>) {
        self.take_released(count_max.div_ceil(2), out);
        while out.len() < count_max {
            match self.waiting.first() {
                Some((due, place)) if *due <= now => {
                    let place = *place;
                    self.waiting.pop_first();
                    let held = self.by_place.get_mut(&place).expect("what waits is parked");
                    held.is_out = true;
                    let group = (held.parked.campaign_number, held.parked.reason);
                    self.groups.get_mut(&group).expect("whatever is parked has a group").out_count += 1;
                    out.push(held.parked);
                }
                _ => break,
            }
        }
        self.take_released(count_max, out);
    }

    fn take_released(&mut self, count_max: usize, out: &mut Vec<Parked>) {
        let mut looks = LOOK_COUNT;
        while out.len() < count_max && looks > 0 {
            let after = self.turn.map_or(Unbounded, Excluded);
            let next = self.releasing.range((after, Unbounded)).next().or(self.releasing.first_key_value());
            let Some((group, mut release)) = next.map(|(group, release)| (*group, *release)) else { return };
            self.turn = Some(group);
            let turn_max = count_max.min(out.len() + TURN_COUNT);
            if self.carry_on(group, &mut release, turn_max, &mut looks, out) {
                self.releasing.remove(&group);
            } else {
                self.releasing.insert(group, release);
            }
        }
    }

    /// Hands out more of a released group; true if that was all of it.
    fn carry_on(
        &mut self,
        group: Group,
        release: &mut Release,
        count_max: usize,
        looks: &mut usize,
        out: &mut Vec<Parked>,
    ) -> bool {
        let Some(members) = self.groups.get_mut(&group) else { return true };
        for (since, place) in members.by_age.range((release.after.map_or(Unbounded, Excluded), Unbounded)) {
            if out.len() >= count_max || *looks == 0 {
                return false;
            }
            *looks -= 1;
            release.after = Some((*since, *place));
            let held = self.by_place.get_mut(place).expect("every member is parked");
            if held.is_out || held.stamp > release.stamp_max {
                continue;
            }
            self.waiting.remove(&(held.parked.due, *place));
            held.is_out = true;
            members.out_count += 1;
            out.push(held.parked);
        }
        true
    }

    /// Whether this request is parked and not handed out.
    pub fn is_waiting(&self, request_place: u64) -> bool {
        self.by_place.get(&request_place).is_some_and(|held| !held.is_out)
    }

    pub fn get(&self, request_place: u64) -> Option<&Parked> {
        self.by_place.get(&request_place).map(|held| &held.parked)
    }

    /// When something is due next: at once while a release is being carried out.
    pub fn next_due(&self) -> Option<UnixMs> {
        match self.releasing.is_empty() {
            false => Some(0),
            true => self.waiting.first().map(|(due, _)| *due),
        }
    }

    /// Makes everything that waits for this reason, in this campaign, due at once; how many there are.
    pub fn release(&mut self, reason: WaitReason, campaign_number: u32) -> usize {
        let group = (campaign_number, reason);
        let members = self.groups.get(&group);
        let count = members.map_or(0, |members| members.by_age.len() - members.out_count);
        if count > 0 {
            self.has_changed = true;
            self.releasing.insert(group, Release { after: None, stamp_max: self.stamps });
        }
        count
    }

    /// Makes one request due at once, if it waits.
    pub fn release_one(&mut self, request_place: u64) -> bool {
        let Some(held) = self.by_place.get_mut(&request_place).filter(|held| !held.is_out) else {
            return false;
        };
        self.waiting.remove(&(held.parked.due, request_place));
        held.parked.due = 0;
        self.waiting.insert((0, request_place));
        self.has_changed = true;
        true
    }

    /// Everything parked, for snapshots.
    pub fn iter(&self) -> impl Iterator<Item = &Parked> {
        self.by_place.values().map(|held| &held.parked)
    }

    /// The groups that hold something, and how many.
    pub fn groups(&self) -> impl Iterator<Item = (Group, usize)> {
        self.groups.iter().map(|(group, members)| (*group, members.by_age.len()))
    }

    /// Up to `count_max` of these groups, oldest first, from behind `after` on.
    pub fn page(&self, groups: &[Group], after: Option<Age>, count_max: usize) -> Vec<Parked> {
        let from = after.map_or(Unbounded, Excluded);
        let found = groups.iter().filter_map(|group| self.groups.get(group));
        let mut rests: Vec<_> = found.map(|members| members.by_age.range((from, Unbounded))).collect();
        // A merge of the groups, by the head of each.
        let mut heads: BinaryHeap<_> = BinaryHeap::with_capacity(rests.len());
        for (position, rest) in rests.iter_mut().enumerate() {
            heads.extend(rest.next().map(|age| std::cmp::Reverse((*age, position))));
        }
        let mut page = Vec::new();
        while page.len() < count_max
            && let Some(std::cmp::Reverse(((_, place), position))) = heads.pop()
        {
            page.push(self.by_place[&place].parked);
            heads.extend(rests[position].next().map(|age| std::cmp::Reverse((*age, position))));
        }
        page
    }

    /// Count and oldest wait by reason.
    pub fn by_reason(&self) -> HashMap<WaitReason, (u64, UnixMs)> {
        let mut out = HashMap::new();
        for ((_, reason), members) in &self.groups {
            let (count, oldest) = out.entry(*reason).or_insert((0, UnixMs::MAX));
            *count += members.by_age.len() as u64;
            *oldest = members.by_age.first().map_or(*oldest, |(since, _)| (*oldest).min(*since));
        }
        out
    }
}

#[cfg(test)]
#[path = "parking_tests.rs"]
mod tests;
