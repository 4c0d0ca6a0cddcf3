//! One partition: an open-addressing table of slots, probed linearly, without tombstones.
//!
//! What holds: the table is never more than 85 % full; every slot is reachable from its home without crossing
//! an empty one (removal shifts back what follows). Absent: what the bits mean, but for tag above place.

use super::{PLACE_BITS, PLACE_UNITS, TAG_BITS};

const CAPACITY_MIN: usize = 8;

#[derive(Debug, Clone, Default)]
pub(super) struct Partition {
    /// A power of two, or none.
    slots: Box<[u64]>,
    count: u32,
}

impl Partition {
    /// The slots that bear a tag.
    pub fn places(&self, tag: u64) -> impl Iterator<Item = u64> + '_ {
        let home = self.home(tag);
        let mask = self.mask();
        (0..self.slots.len())
            .map(move |step| self.slots[(home + step) & mask])
            .take_while(|slot| *slot != 0)
            .filter(move |slot| slot & !(PLACE_UNITS - 1) == tag)
    }

    /// Reads the slot where a tag would be, so that it is near when it is looked up soon.
    pub fn touch(&self, tag: u64) -> u64 {
        self.slots.get(self.home(tag)).copied().unwrap_or(0)
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    pub fn heap_bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }

    pub fn slots(&self) -> impl Iterator<Item = u64> + '_ {
        self.slots.iter().copied().filter(|slot| *slot != 0)
    }

    /// Makes room for this many entries at once.
    pub fn reserve(&mut self, count: usize) {
        let mut capacity = self.slots.len().max(CAPACITY_MIN);
        while is_over(count, capacity) {
            capacity *= 2;
        }
        if capacity != self.slots.len() {
            let old = std::mem::replace(&mut self.slots, vec![0; capacity].into());
            for slot in old.into_iter().filter(|slot| *slot != 0) {
                let at = self.find(slot).unwrap_or_else(|free| free);
                self.slots[at] = slot;
            }
        }
    }

    /// Adds a slot; `false` where it was there.
    pub fn insert(&mut self, slot: u64) -> bool {
        if is_over(self.count as usize + 1, self.slots.len()) {
            self.reserve(self.count as usize + 1);
        }
        match self.find(slot) {
            Ok(_) => false,
            Err(free) => {
                self.slots[free] = slot;
                self.count += 1;
                true
            }
        }
    }

    pub fn remove(&mut self, slot: u64) -> bool {
        let Ok(at) = self.find(slot) else { return false };
        let mask = self.mask();
        let (mut hole, mut next) = (at, (at + 1) & mask);
        while self.slots[next] != 0 {
            // What follows may fill the hole unless its home lies behind the hole.
            let from_home = next.wrapping_sub(self.home(self.slots[next])) & mask;
            let from_hole = next.wrapping_sub(hole) & mask;
            if from_home >= from_hole {
                self.slots[hole] = self.slots[next];
                hole = next;
            }
            next = (next + 1) & mask;
        }
        self.slots[hole] = 0;
        self.count -= 1;
        true
    }

    /// Drops slots whose place, as kept, is below; says how many.
    pub fn sweep(&mut self, units_min: u64) -> usize {
        let doomed = |slot: u64| slot & (PLACE_UNITS - 1) < units_min;
        let before = self.count;
        if self.slots().any(doomed) {
            let kept: Vec<u64> = self.slots().filter(|slot| !doomed(*slot)).collect();
            *self = Partition::default();
            if !kept.is_empty() {
                self.reserve(kept.len());
            }
            for slot in kept {
                self.insert(slot);
            }
        }
        (before - self.count) as usize
    }

    /// Where a slot is, or the free place where it would go.
    fn find(&self, slot: u64) -> Result<usize, usize> {
        let mask = self.mask();
        let mut at = self.home(slot);
        if self.slots.is_empty() {
            return Err(0);
        }
        loop {
            match self.slots[at] {
                0 => return Err(at),
                found if found == slot => return Ok(at),
                _ => at = (at + 1) & mask,
            }
        }
    }

    fn mask(&self) -> usize {
        self.slots.len().wrapping_sub(1)
    }

    /// The top bits of the tag, so that a table in order stays in order when it doubles.
    fn home(&self, slot: u64) -> usize {
        let tag = slot >> PLACE_BITS;
        ((tag * self.slots.len() as u64) >> TAG_BITS) as usize
    }
}

fn is_over(count: usize, capacity: usize) -> bool {
    count * 20 > capacity * 17
}
