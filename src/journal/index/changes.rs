//! Changes of the index as values, and as bytes: the runs that are saved between two full dumps.
//!
//! The bytes are a header as in `saved` and 24 bytes a change. What holds: applying changes in order gives the
//! index they were taken from; bytes that were damaged are refused whole. Absent: files.

use super::saved::{self, RUN_MAGIC};
use super::{PARTITION_BITS, PlaceIndex, TAG_BITS};
use crate::journal::JournalError;

const KIND_MASK: u64 = 3;
const CHANGE_BYTES: usize = 24;

/// One change, packed: the part of the hash that the index uses with the kind below it, and up to two places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    key: u64,
    place: u64,
    new_place: u64,
}

const _: () = assert!(size_of::<Change>() == CHANGE_BYTES);

/// Changes in a piece of a [`Changes`].
const PIECE_COUNT: usize = 1 << 14;

/// Changes in order. They are kept in pieces, because to grow one list of millions is to copy it, and whoever inserts
/// waits for that: *measured*, 140 ms at once after some millions.
#[derive(Debug, Default)]
pub struct Changes {
    /// All but the last are full.
    pieces: Vec<Vec<Change>>,
    len: usize,
}

impl Changes {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn push(&mut self, change: Change) {
        self.len += 1;
        match self.pieces.last_mut() {
            Some(piece) if piece.len() < PIECE_COUNT => piece.push(change),
            _ => {
                let mut piece = Vec::with_capacity(PIECE_COUNT);
                piece.push(change);
                self.pieces.push(piece);
            }
        }
    }

    /// Puts later changes behind these.
    pub fn append(&mut self, later: Changes) {
        match self.is_empty() {
            true => *self = later,
            false => later.iter().for_each(|change| self.push(*change)),
        }
    }

    pub fn clear(&mut self) {
        *self = Changes::default();
    }

    pub fn iter(&self) -> impl Iterator<Item = &Change> {
        self.pieces.iter().flatten()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.pieces.len() * PIECE_COUNT * CHANGE_BYTES
    }
}

/// The low bits of `key`.
const INSERT: u64 = 0;
const REPLACE: u64 = 1;
const REMOVE: u64 = 2;
const SWEEP: u64 = 3;

impl Change {
    pub(super) fn insert(hash: u64, place: u64) -> Change {
        Change { key: used(hash) | INSERT, place, new_place: 0 }
    }

    pub(super) fn replace(hash: u64, place: u64, new_place: u64) -> Change {
        Change { key: used(hash) | REPLACE, place, new_place }
    }

    pub(super) fn remove(hash: u64, place: u64) -> Change {
        Change { key: used(hash) | REMOVE, place, new_place: 0 }
    }

    pub(super) fn sweep(place: u64) -> Change {
        Change { key: SWEEP, place, new_place: 0 }
    }

    pub(super) fn apply(&self, index: &mut PlaceIndex) {
        let hash = used(self.key);
        match self.key & KIND_MASK {
            INSERT => {
                index.insert(hash, self.place);
            }
            REPLACE => {
                // The entry may be there already, from a journal replayed over a newer run.
                if !index.replace(hash, self.place, self.new_place) {
                    index.insert(hash, self.new_place);
                }
            }
            REMOVE => {
                index.remove(hash, self.place);
            }
            _ => {
                index.sweep_below(self.place);
            }
        }
    }

    fn is_valid(&self) -> bool {
        let place_is_valid = |place: u64| place.is_multiple_of(8) && place <= super::PLACE_MAX;
        // A sweep may name any offset.
        self.key & KIND_MASK == SWEEP || (place_is_valid(self.place) && place_is_valid(self.new_place))
    }
}

/// The bits of a hash that the index looks at.
fn used(hash: u64) -> u64 {
    hash >> (64 - PARTITION_BITS - TAG_BITS) << (64 - PARTITION_BITS - TAG_BITS)
}

/// Changes as bytes, with version and checksum.
pub fn encode_changes(changes: &Changes) -> Vec<u8> {
    let write = |body: &mut Vec<u8>| {
        for word in changes.iter().flat_map(|change| [change.key, change.place, change.new_place]) {
            body.extend_from_slice(&word.to_le_bytes());
        }
    };
    saved::wrap(RUN_MAGIC, changes.len() as u64, changes.len() * CHANGE_BYTES, write)
}

/// The changes in bytes that [`encode_changes`] made.
pub fn decode_changes(bytes: &[u8]) -> Result<Vec<Change>, JournalError> {
    let (count, body) = saved::unwrap(RUN_MAGIC, bytes)?;
    if body.len() as u64 != count.saturating_mul(CHANGE_BYTES as u64) {
        return Err(saved::wrong("its length is not what it says"));
    }
    let changes = body.chunks_exact(CHANGE_BYTES).map(|bytes| Change {
        key: saved::u64_at(bytes, 0),
        place: saved::u64_at(bytes, 8),
        new_place: saved::u64_at(bytes, 16),
    });
    let changes: Vec<Change> = changes.collect();
    if changes.iter().all(Change::is_valid) {
        Ok(changes)
    } else {
        Err(saved::wrong("it holds a place that is not one"))
    }
}
