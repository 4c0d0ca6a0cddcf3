//! Which request was being worked on when the process crashed.
//!
//! Every stage notes the place of the request it works on (one plain store). When it panics, the note is written
//! to a file with a count. A request that crashed the process twice is burned and FAILED with
//! `crash_suspect`: one poison request never takes down a service. A panic outside any request blames the
//! whole batch; the batch is then run in halves after each restart until one request is left. When as many
//! requests went through as were blamed, the service runs as always again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::journal::Storage;
use crate::journal::snapshot::{read_blob, write_blob};

const NAME: &str = "suspects";
/// Crashes after which a request is set aside.
pub const CRASHES_MAX: u32 = 2;
/// A stage's note while it works on no request in particular.
pub const NOBODY: u64 = u64::MAX;

#[derive(Default, Serialize, Deserialize)]
struct Saved {
    version: u32,
    /// Crashes by the place of the request.
    crashes: HashMap<u64, u32>,
    /// Places that were in a batch that crashed without naming one of them.
    group: Vec<u64>,
}

pub struct Suspects {
    storage: Arc<dyn Storage>,
    crashes: HashMap<u64, u32>,
    /// A blamed batch, or what is left of it.
    group_count: u64,
    /// How many requests are still to go through in parts before the blame is lifted.
    isolated_left: AtomicU64,
}

impl Suspects {
    pub fn load(storage: Arc<dyn Storage>) -> Result<Suspects, crate::journal::JournalError> {
        let saved = match read_blob(&*storage, NAME)? {
            // Losing the suspects costs one more crash; refusing to start would cost the night.
            Some(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            None => Saved::default(),
        };
        let group_count = saved.group.len() as u64;
        Ok(Suspects {
            storage,
            crashes: saved.crashes,
            group_count,
            isolated_left: AtomicU64::new(group_count),
        })
    }

    /// How many requests may share a batch: all, or half of what is left of a blamed batch.
    pub fn batch_count_max(&self) -> u64 {
        if self.is_isolating() { self.group_count.div_ceil(2) } else { u64::MAX }
    }

    /// Whether the feed must keep batches apart: one part of the blamed batch at a time, alone in the ring.
    pub fn is_isolating(&self) -> bool {
        self.isolated_left.load(Ordering::Acquire) > 0
    }

    /// A part went through well. When as many have as were blamed, the blame is lifted.
    pub fn passed(&self, count: u64) {
        let left = self.isolated_left.load(Ordering::Acquire);
        self.isolated_left.store(left.saturating_sub(count), Ordering::Release);
        if left > 0 && left <= count {
            self.save(&Saved { version: 1, crashes: self.crashes.clone(), group: Vec::new() });
        }
    }

    /// Whether the request has crashed the process too often.
    pub fn is_condemned(&self, place: u64) -> bool {
        !self.crashes.is_empty() && self.crashes.get(&place).is_some_and(|crashes| *crashes >= CRASHES_MAX)
    }

    /// Writes down who was being worked on when a stage panicked; `batch` is what it had before it if that was
    /// no request in particular.
    pub fn blame(&self, place: u64, batch: &[u64], reason: &str) {
        let mut saved = Saved { version: 1, crashes: self.crashes.clone(), group: Vec::new() };
        match (place, batch) {
            (NOBODY, [only]) => {
                *saved.crashes.entry(*only).or_insert(0) += 1;
                // It stays alone, so that it can be named again.
                saved.group = vec![*only];
            }
            (NOBODY, batch) => saved.group = batch.to_vec(),
            (place, _) => *saved.crashes.entry(place).or_insert(0) += 1,
        }
        tracing::error!(place, blamed = saved.group.len(), reason, "a request crashed the pipeline");
        self.save(&saved);
    }

    fn save(&self, saved: &Saved) {
        let bytes = serde_json::to_vec(saved).expect("plain fields");
        if let Err(error) = write_blob(&*self.storage, NAME, &bytes) {
            tracing::error!(%error, "the crash suspects could not be written down");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::FolderStorage;

    #[test]
    fn twice_named_is_condemned_and_an_unnamed_batch_is_halved() {
        let folder = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(FolderStorage::new(folder.path()).unwrap());
        for crashes in 0..CRASHES_MAX {
            let suspects = Suspects::load(storage.clone()).unwrap();
            assert!(!suspects.is_condemned(8), "after {crashes}");
            suspects.blame(8, &[], "test");
        }
        assert!(Suspects::load(storage.clone()).unwrap().is_condemned(8));

        // A batch of eight in which only 48 crashes, and never says so.
        let mut batch: Vec<u64> = (0..8).map(|n| n * 16).collect();
        for _ in 0..8 {
            let suspects = Suspects::load(storage.clone()).unwrap();
            if suspects.is_condemned(48) {
                return;
            }
            if suspects.is_isolating() {
                let half = suspects.batch_count_max() as usize;
                batch = batch.chunks(half).find(|chunk| chunk.contains(&48)).unwrap().to_vec();
            }
            suspects.blame(NOBODY, &batch, "test");
        }
        panic!("48 was not found out");
    }

    #[test]
    fn the_blame_is_lifted_once_all_went_through() {
        let folder = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(FolderStorage::new(folder.path()).unwrap());
        Suspects::load(storage.clone()).unwrap().blame(NOBODY, &[8, 16, 24], "test");
        let suspects = Suspects::load(storage.clone()).unwrap();
        assert_eq!((suspects.is_isolating(), suspects.batch_count_max()), (true, 2));
        suspects.passed(2);
        assert!(suspects.is_isolating());
        suspects.passed(1);
        assert_eq!((suspects.is_isolating(), suspects.batch_count_max()), (false, u64::MAX));
        assert!(!Suspects::load(storage).unwrap().is_isolating(), "and is not remembered");
    }
}
