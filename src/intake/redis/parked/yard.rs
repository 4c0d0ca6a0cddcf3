//! What this process knows of one unit's sorted set, under one epoch: pure.
//!
//! *Known* are the members that were read because they are due; they stay in the set until they are done with. They
//! were the first by rank when they were read, so what is due and not known begins at a rank of as many; members that
//! came before them since then shift it, which shows as more due ones than known ones, and has the ranks swept from
//! the beginning. *Counted* is everything in the set, by queue: once in pages, then by what is done.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::member::{Member, MemberFault};
use crate::domain::UnixMs;
use crate::intake::QueueId;

/// A due member that was read.
#[derive(Clone, Debug)]
pub struct Known {
    pub bytes: Bytes,
    pub member: Member,
    pub queue: QueueId,
    pub is_out: bool,
}

/// Which ranks to read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranks {
    pub start: usize,
    pub count: usize,
}

#[derive(Debug)]
pub struct Yard {
    pub epoch: u64,
    by_place: HashMap<u64, Known>,
    places: HashMap<Bytes, u64>,
    /// Due, and of a form that this release cannot read: left where they are.
    unreadable: HashSet<Bytes>,
    sweep: Option<usize>,
    /// Done with while a look was under way, which may have seen them before.
    gone: HashSet<Bytes>,
    is_looking: bool,
    /// Members in the set, as of the last look and what was done since.
    pub total: usize,
    pub by_queue: HashMap<QueueId, usize>,
    pub unreadable_count: usize,
    counting: Option<Counting>,
    /// The counts are of a set that changed meanwhile.
    is_doubtful: bool,
    /// How often in a row the counts were wrong or doubtful while nothing was done.
    mismatches: u32,
    was_changed: bool,
}

#[derive(Debug, Default)]
struct Counting {
    start: usize,
    /// The set changed between two pages: something may have been counted twice, or not at all.
    is_dirty: bool,
    by_queue: HashMap<QueueId, usize>,
    unreadable_count: usize,
}

/// What came of members that were read.
#[derive(Debug, Default)]
pub struct TakenIn {
    /// Time and place of those that may be handed out.
    pub ready: Vec<(UnixMs, u64)>,
    pub faults: Vec<MemberFault>,
    /// There is more to be read now.
    pub has_more: bool,
}

/// Looks in a row after which wrong counts are counted anew.
const MISMATCHES_MAX: u32 = 2;

impl Yard {
    pub fn new(epoch: u64) -> Yard {
        Yard {
            epoch,
            by_place: HashMap::new(),
            places: HashMap::new(),
            unreadable: HashSet::new(),
            sweep: None,
            gone: HashSet::new(),
            is_looking: false,
            total: 0,
            by_queue: HashMap::new(),
            unreadable_count: 0,
            counting: Some(Counting::default()),
            is_doubtful: false,
            mismatches: 0,
            was_changed: false,
        }
    }

    fn known_count(&self) -> usize {
        self.by_place.len() + self.unreadable.len()
    }

    pub fn get(&self, place: u64) -> Option<&Known> {
        self.by_place.get(&place)
    }

    pub fn out_count(&self) -> usize {
        self.by_place.values().filter(|known| known.is_out).count()
    }

    /// It is handed out; nothing if it is not known.
    pub fn hand_out(&mut self, place: u64) -> Option<&Known> {
        let known = self.by_place.get_mut(&place)?;
        known.is_out = true;
        Some(known)
    }

    /// Forgets one that was not handed out: it is read again.
    pub fn put_back(&mut self, place: u64) {
        if let Some(known) = self.by_place.remove(&place) {
            self.places.remove(&known.bytes);
        }
    }

    /// A look begins: the ranks to read, at most `count_max` of them.
    pub fn begin_look(&mut self, count_max: usize) -> Ranks {
        self.gone.clear();
        self.is_looking = true;
        Ranks { start: self.sweep.unwrap_or_else(|| self.known_count()), count: count_max }
    }

    /// The look came to nothing.
    pub fn end_look(&mut self) {
        self.gone.clear();
        self.is_looking = false;
    }

    /// Members that were read at these ranks, of `due_count` due ones in all.
    pub fn take_in(
        &mut self,
        ranks: Ranks,
        read: Vec<(Bytes, UnixMs)>,
        due_count: usize,
        queue_of: impl Fn(&Member) -> QueueId,
        mut next_place: impl FnMut() -> u64,
    ) -> TakenIn {
        let (read_count, mut taken) = (read.len(), TakenIn::default());
        let known_before = self.known_count();
        for (bytes, due) in read {
            let is_known = self.places.contains_key(&bytes) || self.unreadable.contains(&bytes);
            if is_known || self.gone.contains(&bytes) {
                continue;
            }
            match Member::decode(&bytes) {
                Ok(member) => {
                    let (place, queue) = (next_place(), queue_of(&member));
                    self.places.insert(bytes.clone(), place);
                    self.by_place.insert(place, Known { bytes, member, queue, is_out: false });
                    taken.ready.push((due, place));
                }
                Err(fault) => {
                    self.unreadable.insert(bytes);
                    taken.faults.push(fault);
                }
            }
        }
        self.end_look();
        let is_new = self.known_count() > known_before;
        let misses_some = due_count > self.known_count();
        if ranks.count > 0 {
            let is_full = read_count == ranks.count;
            self.sweep = match self.sweep {
                Some(start) if misses_some && is_full => Some(start + read_count),
                None if misses_some && !is_new => Some(0),
                _ => None,
            };
        }
        taken.has_more = misses_some && (ranks.count == 0 || is_new || self.sweep.is_some());
        taken
    }

    /// One was added to the set, or removed from it.
    pub fn added(&mut self, queue: QueueId) {
        self.was_changed = true;
        self.total += 1;
        *self.by_queue.entry(queue).or_default() += 1;
    }

    /// One that was handed out is no more in the set; its queue.
    pub fn removed(&mut self, place: u64) -> Option<QueueId> {
        let known = self.by_place.remove(&place)?;
        self.places.remove(&known.bytes);
        if self.is_looking {
            self.gone.insert(known.bytes);
        }
        self.was_changed = true;
        self.total = self.total.saturating_sub(1);
        if let Some(held) = self.by_queue.get_mut(&known.queue) {
            *held -= 1;
            if *held == 0 {
                self.by_queue.remove(&known.queue);
            }
        }
        Some(known.queue)
    }

    /// The set has so many members. Counts that do not add up are counted anew, once it is left in peace.
    pub fn saw_total(&mut self, total: usize) {
        let was_changed = std::mem::take(&mut self.was_changed) || total != self.total;
        self.total = total;
        if let Some(counting) = &mut self.counting {
            counting.is_dirty |= was_changed && counting.start > 0;
            return;
        }
        let counted = self.by_queue.values().sum::<usize>() + self.unreadable_count;
        if was_changed || (counted == total && !self.is_doubtful) {
            self.mismatches = 0;
            return;
        }
        self.mismatches += 1;
        if self.mismatches >= MISMATCHES_MAX {
            self.mismatches = 0;
            self.counting = Some(Counting::default());
        }
    }

    /// The rank from which members are to be counted, while they are.
    pub fn counts_from(&self) -> Option<usize> {
        self.counting.as_ref().map(|counting| counting.start)
    }

    /// A page of `page_count` ranks had `member_count` members, so many of each queue; `None`: unreadable.
    pub fn counted(
        &mut self,
        page_count: usize,
        member_count: usize,
        counts: impl Iterator<Item = (Option<QueueId>, usize)>,
    ) {
        let Some(counting) = &mut self.counting else { return };
        counting.start += member_count;
        for (queue, count) in counts {
            match queue {
                Some(queue) => *counting.by_queue.entry(queue).or_default() += count,
                None => counting.unreadable_count += count,
            }
        }
        if member_count < page_count
            && let Some(done) = self.counting.take()
        {
            self.by_queue = done.by_queue;
            self.unreadable_count = done.unreadable_count;
            self.is_doubtful = done.is_dirty;
        }
    }
}

#[cfg(test)]
#[path = "yard_tests.rs"]
mod tests;
