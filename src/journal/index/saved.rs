//! The whole index as bytes, and the envelope it shares with runs.
//!
//! Envelope: 8 bytes magic, u32 version, u32 zero, u64 count, 32 bytes blake3 of the rest. A dump's body is, for
//! each of the 4,096 partitions, a u32 count and that many slots. What holds: what loads was verified. Absent:
//! files, and loading in pieces.

use super::partition::Partition;
use super::{PARTITIONS, PLACE_UNITS, PlaceIndex};
use crate::journal::JournalError;

pub(super) const DUMP_MAGIC: [u8; 8] = *b"HBINDEX\0";
pub(super) const RUN_MAGIC: [u8; 8] = *b"HBINRUN\0";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 56;

impl PlaceIndex {
    /// The whole table as bytes: 8 for each entry and 16 KiB.
    pub fn dump(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(HEADER_BYTES + self.len * 8 + PARTITIONS * 4);
        body.resize(HEADER_BYTES, 0);
        for partition in &self.partitions {
            body.extend_from_slice(&partition.count().to_le_bytes());
            for slot in partition.slots() {
                body.extend_from_slice(&slot.to_le_bytes());
            }
        }
        seal(DUMP_MAGIC, self.len as u64, &mut body);
        body
    }

    /// The index in bytes that [`PlaceIndex::dump`] made. It records no changes yet.
    pub fn load(bytes: &[u8]) -> Result<PlaceIndex, JournalError> {
        let (count, mut body) = unwrap(DUMP_MAGIC, bytes)?;
        let mut index = PlaceIndex::new();
        for partition in &mut index.partitions {
            body = load_partition(partition, body)?;
            index.len += partition.count() as usize;
        }
        if !body.is_empty() || index.len as u64 != count {
            return Err(wrong("its length is not what it says"));
        }
        Ok(index)
    }
}

fn load_partition<'a>(partition: &mut Partition, body: &'a [u8]) -> Result<&'a [u8], JournalError> {
    let too_short = || wrong("it ends too early");
    let (count, rest) = body.split_first_chunk::<4>().ok_or_else(too_short)?;
    let count = u32::from_le_bytes(*count) as usize;
    let (slots, rest) = rest.split_at_checked(count.saturating_mul(8)).ok_or_else(too_short)?;
    if count > 0 {
        partition.reserve(count);
    }
    for bytes in slots.chunks_exact(8) {
        let slot = u64_at(bytes, 0);
        if slot & (PLACE_UNITS - 1) == 0 || !partition.insert(slot) {
            return Err(wrong("it holds a slot that is none, or one twice"));
        }
    }
    Ok(rest)
}

pub(super) fn wrong(reason: &'static str) -> JournalError {
    JournalError::Index { reason }
}

/// An envelope and a body of so many bytes, which are written into it.
pub(super) fn wrap(
    magic: [u8; 8],
    count: u64,
    body_bytes: usize,
    write: impl FnOnce(&mut Vec<u8>),
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body_bytes);
    bytes.resize(HEADER_BYTES, 0);
    write(&mut bytes);
    seal(magic, count, &mut bytes);
    bytes
}

/// Fills the room left for the envelope at the front.
fn seal(magic: [u8; 8], count: u64, bytes: &mut [u8]) {
    bytes[..8].copy_from_slice(&magic);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&count.to_le_bytes());
    let sum = checksum(bytes);
    bytes[24..HEADER_BYTES].copy_from_slice(sum.as_bytes());
}

/// Verifies the envelope; gives the count and the body.
pub(super) fn unwrap(magic: [u8; 8], bytes: &[u8]) -> Result<(u64, &[u8]), JournalError> {
    if bytes.len() < HEADER_BYTES {
        return Err(wrong("it is shorter than its header"));
    }
    if bytes[..8] != magic {
        return Err(wrong("it is something else"));
    }
    if bytes[8..12] != VERSION.to_le_bytes() {
        return Err(wrong("it has a format version this program does not know"));
    }
    if bytes[24..HEADER_BYTES] != *checksum(bytes).as_bytes() {
        return Err(wrong("its checksum does not match"));
    }
    Ok((u64_at(bytes, 16), &bytes[HEADER_BYTES..]))
}

fn checksum(bytes: &[u8]) -> blake3::Hash {
    blake3::Hasher::new().update(&bytes[..24]).update(&bytes[HEADER_BYTES..]).finalize()
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
