//! `PlaceIndex`: from a fingerprint to the places in the journal where it may stand.
//!
//! A key is a 64-bit hash: its top 12 bits choose one of 4,096 partitions, the next 25 are the tag kept in the
//! slot; the other 27 bits are not kept, so two keys may share candidates and **the caller verifies on disk**.
//! A slot is one `u64`: 25 bits tag, 39 bits place. Places are multiples of 8 bytes, kept in units of 8 and one
//! up, so that place 0 is representable and an empty slot is 0; the highest is [`PLACE_MAX`], 4 TiB.
//!
//! What holds: an entry is there once, whatever was inserted how often; growth is by one partition at a time,
//! so no insert stalls for long. Absent: verification, the hash function, and files: bytes go to and come from
//! the caller.

mod changes;
mod partition;
mod saved;

pub use changes::{Change, Changes, decode_changes, encode_changes};
use partition::Partition;

/// The highest place that can be kept.
pub const PLACE_MAX: u64 = (PLACE_UNITS - 2) * 8;

/// Keys looked up together, so that waiting for memory is done for all at once. Few enough that what was fetched is
/// still near when its turn comes, and its pages known to the processor.
pub const TOGETHER: usize = 64;

const PARTITION_BITS: u32 = 12;
const TAG_BITS: u32 = 25;
const PLACE_BITS: u32 = 39;
const PLACE_UNITS: u64 = 1 << PLACE_BITS;
const PARTITIONS: usize = 1 << PARTITION_BITS;

const _: () = assert!(TAG_BITS + PLACE_BITS == 64);

/// The index. One owner; it is not shared between threads.
#[derive(Debug)]
pub struct PlaceIndex {
    partitions: Box<[Partition]>,
    len: usize,
    /// Changes since they were taken last, where they are recorded.
    changes: Option<Changes>,
}

impl Default for PlaceIndex {
    fn default() -> PlaceIndex {
        PlaceIndex::new()
    }
}

impl PlaceIndex {
    pub fn new() -> PlaceIndex {
        PlaceIndex { partitions: vec![Partition::default(); PARTITIONS].into(), len: 0, changes: None }
    }

    /// Every place that may belong to this hash, in no order.
    pub fn candidates(&self, hash: u64) -> impl Iterator<Item = u64> + '_ {
        self.partitions[partition_of(hash)].places(tag_of(hash)).map(place_of)
    }

    /// Reads what is going to be looked up soon. Look-ups wait for memory one after another, and these do so at once.
    pub fn touch(&self, hashes: impl Iterator<Item = u64>) {
        let read = hashes.fold(0, |all, hash| all ^ self.partitions[partition_of(hash)].touch(tag_of(hash)));
        std::hint::black_box(read);
    }

    /// Adds a place; `false` where it was there. The place is a multiple of 8, at most [`PLACE_MAX`].
    pub fn insert(&mut self, hash: u64, place: u64) -> bool {
        let added = self.partitions[partition_of(hash)].insert(slot(hash, place));
        if added {
            self.len += 1;
            self.record(|| Change::insert(hash, place));
        }
        added
    }

    /// Adds many, each a hash and its place.
    pub fn insert_all(&mut self, mut entries: impl Iterator<Item = (u64, u64)> + Clone) {
        loop {
            let rest = entries.clone();
            self.touch(rest.take(TOGETHER).map(|(hash, _)| hash));
            let mut count = 0;
            for (hash, place) in entries.by_ref().take(TOGETHER) {
                self.insert(hash, place);
                count += 1;
            }
            if count < TOGETHER {
                return;
            }
        }
    }

    /// Moves an entry to another place; `false` where it was not there.
    pub fn replace(&mut self, hash: u64, old_place: u64, new_place: u64) -> bool {
        let partition = &mut self.partitions[partition_of(hash)];
        if !partition.remove(slot(hash, old_place)) {
            return false;
        }
        // The new place may have been there as well: then two entries become one.
        if !partition.insert(slot(hash, new_place)) {
            self.len -= 1;
        }
        self.record(|| Change::replace(hash, old_place, new_place));
        true
    }

    /// Removes an entry; `false` where it was not there.
    pub fn remove(&mut self, hash: u64, place: u64) -> bool {
        let removed = self.partitions[partition_of(hash)].remove(slot(hash, place));
        if removed {
            self.len -= 1;
            self.record(|| Change::remove(hash, place));
        }
        removed
    }

    /// Drops every entry whose place is below a reclaimed offset; says how many. Takes a while: it visits all.
    pub fn sweep_below(&mut self, place: u64) -> usize {
        let units_min = place.div_ceil(8).min(PLACE_UNITS - 2) + 1;
        let dropped: usize = self.partitions.iter_mut().map(|partition| partition.sweep(units_min)).sum();
        self.len -= dropped;
        if dropped > 0 {
            self.record(|| Change::sweep(place));
        }
        dropped
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Memory of the tables and of the recorded changes.
    pub fn heap_bytes(&self) -> usize {
        let tables: usize = self.partitions.iter().map(Partition::heap_bytes).sum();
        let changes = self.changes.as_ref().map_or(0, Changes::heap_bytes);
        tables + size_of_val(&*self.partitions) + changes
    }

    /// Starts to record changes. The caller takes them at every checkpoint: they are bounded by nothing else.
    pub fn record_changes(&mut self) {
        self.changes.get_or_insert_default();
    }

    /// How many changes wait to be taken.
    pub fn changes_count(&self) -> usize {
        self.changes.as_ref().map_or(0, Changes::len)
    }

    /// The changes since the last call, in order; empty where they are not recorded.
    pub fn take_changes(&mut self) -> Changes {
        self.changes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Applies changes taken elsewhere, in order. They are not recorded again.
    pub fn apply_changes(&mut self, changes: &[Change]) {
        let recorded = self.changes.take();
        for change in changes {
            change.apply(self);
        }
        self.changes = recorded;
    }

    fn record(&mut self, change: impl FnOnce() -> Change) {
        if let Some(changes) = &mut self.changes {
            changes.push(change());
        }
    }
}

fn partition_of(hash: u64) -> usize {
    (hash >> (64 - PARTITION_BITS)) as usize
}

/// The tag, in the place it has in a slot.
fn tag_of(hash: u64) -> u64 {
    (hash << PARTITION_BITS) & !(PLACE_UNITS - 1)
}

fn slot(hash: u64, place: u64) -> u64 {
    assert!(place.is_multiple_of(8) && place <= PLACE_MAX, "a place is a multiple of 8 below 4 TiB");
    tag_of(hash) | (place / 8 + 1)
}

fn place_of(slot: u64) -> u64 {
    ((slot & (PLACE_UNITS - 1)) - 1) * 8
}
