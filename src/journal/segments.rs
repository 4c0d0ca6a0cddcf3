//! The segment files: which exist, open handles, creation from spares, reclaiming.
//!
//! What holds: a segment bears its name only with its full length, and its name is durable before the first
//! byte of a frame goes into it. At most [`OPEN_MAX`] handles are kept. Absent: what is inside a segment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use super::error::JournalError;
use super::spares::Spares;
use super::storage::{Storage, StorageFile};

/// Handles kept open; a reader that lags far behind opens older segments again.
const OPEN_MAX: usize = 64;

type Handles = BTreeMap<u64, Option<Arc<dyn StorageFile>>>;

pub(super) struct Segments {
    pub storage: Arc<dyn Storage>,
    pub segment_bytes: u64,
    pub spares: Spares,
    handles: RwLock<Handles>,
}

/// The file name of a segment.
pub(super) fn segment_name(index: u64) -> String {
    format!("{index:016x}.seg")
}

/// The index in a segment's file name; `None` for any other name.
pub(super) fn segment_index(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let index = u64::from_str_radix(digits, 16).ok()?;
    (segment_name(index) == name).then_some(index)
}

impl Segments {
    pub fn new(storage: Arc<dyn Storage>, segment_bytes: u64, spares: Spares, known: &[u64]) -> Segments {
        let handles = RwLock::new(known.iter().map(|index| (*index, None)).collect());
        Segments { storage, segment_bytes, spares, handles }
    }

    pub fn index_of(&self, offset: u64) -> u64 {
        offset / self.segment_bytes
    }

    /// The end of the segment that `offset` lies in.
    pub fn end_of(&self, offset: u64) -> u64 {
        (self.index_of(offset) + 1) * self.segment_bytes
    }

    pub fn exists(&self, index: u64) -> bool {
        self.read_handles().contains_key(&index)
    }

    /// The segments above an index, highest first.
    pub fn above(&self, index: u64) -> Vec<u64> {
        self.read_handles().range(index + 1..).rev().map(|(index, _)| *index).collect()
    }

    /// Forgets all segments but these.
    pub fn retain(&self, known: &BTreeSet<u64>) {
        self.handles.write().unwrap_or_else(PoisonError::into_inner).retain(|index, _| known.contains(index));
    }

    pub fn count(&self) -> usize {
        self.read_handles().len()
    }

    /// The file of an existing segment.
    pub fn file(&self, index: u64) -> Result<Arc<dyn StorageFile>, JournalError> {
        match self.read_handles().get(&index) {
            None => return Err(JournalError::Reclaimed { offset: index * self.segment_bytes }),
            Some(Some(file)) => return Ok(Arc::clone(file)),
            Some(None) => {}
        }
        let name = segment_name(index);
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        // Looked at again: the segment may have been reclaimed since, and its name given to nobody.
        let Some(handle) = handles.get_mut(&index) else {
            return Err(JournalError::Reclaimed { offset: index * self.segment_bytes });
        };
        if let Some(file) = handle {
            return Ok(Arc::clone(file));
        }
        let file =
            self.storage.open(&name, false).map_err(|error| JournalError::storage("open", &name, error))?;
        *handle = Some(Arc::clone(&file));
        close_lowest(&mut handles, index);
        Ok(file)
    }

    /// The file of a segment that may have to be made, from a spare. Blocks while no spare is ready.
    pub fn file_or_create(&self, index: u64) -> Result<Arc<dyn StorageFile>, JournalError> {
        if self.exists(index) {
            return self.file(index);
        }
        let name = segment_name(index);
        let spare = self.spares.take()?;
        self.storage
            .rename(&spare, &name)
            .and_then(|()| self.storage.sync_folder())
            .map_err(|error| JournalError::storage("name", &name, error))?;
        self.handles.write().unwrap_or_else(PoisonError::into_inner).insert(index, None);
        self.file(index)
    }

    /// The lowest segment; 0 before there is any.
    pub fn first(&self) -> u64 {
        self.read_handles().keys().next().copied().unwrap_or(0)
    }

    /// Gives up all segments wholly below `offset`: the first few become spares, the rest are removed.
    pub fn reclaim_before(&self, offset: u64) -> Result<u64, JournalError> {
        let below = self.index_of(offset);
        let doomed: Vec<u64> = self.read_handles().range(..below).map(|(index, _)| *index).collect();
        for index in &doomed {
            // Readers lose it first, so that none opens a file that is about to be another segment. Somebody
            // else may have reclaimed it meanwhile.
            if self.handles.write().unwrap_or_else(PoisonError::into_inner).remove(index).is_none() {
                continue;
            }
            self.spares.recycle(&segment_name(*index))?;
        }
        if !doomed.is_empty() {
            self.storage
                .sync_folder()
                .map_err(|error| JournalError::storage("sync", &self.storage.folder(), error))?;
        }
        Ok(doomed.len() as u64)
    }

    fn read_handles(&self) -> std::sync::RwLockReadGuard<'_, Handles> {
        self.handles.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn close_lowest(handles: &mut Handles, just_opened: u64) {
    let open = handles.values().filter(|handle| handle.is_some()).count();
    if open > OPEN_MAX
        && let Some((_, handle)) =
            handles.iter_mut().find(|(index, handle)| **index != just_opened && handle.is_some())
    {
        *handle = None;
    }
}
