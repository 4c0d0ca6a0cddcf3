//! The first look at the folder: which files there are, and whether they can be a journal.
//!
//! What holds: nothing is changed here; a file that nobody in this room wrote is refused by its name. Absent:
//! what is inside the files.

use std::collections::BTreeSet;

use super::Position;
use super::error::JournalError;
use super::segments::{segment_index, segment_name};
use super::snapshot;
use super::spares::spare_name;
use super::storage::{Storage, StorageFile};

/// Spares that are taken over; more than these are removed.
const SPARES_MAX: usize = 2;

/// The files that belong to the journal, by what they are.
pub(super) struct Inventory {
    pub segments: BTreeSet<u64>,
    pub spares: Vec<String>,
    /// Unfinished or superfluous spares.
    pub doomed: Vec<String>,
}

pub(super) fn take_inventory(storage: &dyn Storage, segment_bytes: u64) -> Result<Inventory, JournalError> {
    let names = storage.list().map_err(|error| JournalError::storage("list", &storage.folder(), error))?;
    let mut found = Inventory { segments: BTreeSet::new(), spares: Vec::new(), doomed: Vec::new() };
    for name in names {
        if let Some(index) = segment_index(&name) {
            found.segments.insert(index);
        } else if let Some(whole) = spare_name(&name) {
            let len = storage.open(&name, false).and_then(|file| file.len());
            let len = len.map_err(|error| JournalError::storage("open", &name, error))?;
            if whole && len == segment_bytes && found.spares.len() < SPARES_MAX {
                found.spares.push(name);
            } else {
                found.doomed.push(name);
            }
        } else if !snapshot::is_blob_file(&name) {
            return Err(JournalError::ForeignFile { name });
        }
    }
    Ok(found)
}

/// From the segment of the start on, none may be missing. Lower ones may have been reclaimed.
pub(super) fn check_contiguous(
    found: &BTreeSet<u64>,
    start: Position,
    segment_bytes: u64,
) -> Result<(), JournalError> {
    let first = start.offset / segment_bytes;
    let missing = |index| {
        let offset = start.offset.max(index * segment_bytes);
        Err(JournalError::MissingSegment { segment: segment_name(index), offset })
    };
    let mut expected = first;
    for index in found.range(first..) {
        if *index != expected {
            return missing(expected);
        }
        expected += 1;
    }
    // A boundary at the very end of a segment is good before the next segment exists.
    let needs_first = !start.offset.is_multiple_of(segment_bytes);
    if expected == first && needs_first { missing(first) } else { Ok(()) }
}

/// A segment bears its name only with its full length.
pub(super) fn check_length(
    file: &dyn StorageFile,
    name: &str,
    expected_bytes: u64,
) -> Result<(), JournalError> {
    let found_bytes = file.len().map_err(|error| JournalError::storage("open", name, error))?;
    if found_bytes == expected_bytes {
        return Ok(());
    }
    Err(JournalError::SegmentSize { name: name.to_owned(), found_bytes, expected_bytes })
}
