//! Which request was being worked on when the process crashed.
//!
//! Every stage notes the mark of the request it works on (one plain store). When it panics, the note is written
//! down with a count, where the next process finds it: in this data folder, or where a whole fleet looks. A
//! request that crashed the process twice is burned and FAILED with `crash_suspect`: one poison request never
//! takes down a service, nor a fleet. A panic outside any request blames the whole batch; the batch is then
//! run in halves after each restart until one request is left. When as many requests went through as were
//! blamed, the service runs as always again.
//!
//! A crash is forgotten [`REMEMBERED_MS`] after it was first written down, and the oldest go first where they are more than
//! [`REMEMBERED_COUNT_MAX`]: what a request that still waits then costs is two more crashes.
//!
//! What holds: what others wrote down is read again before anything is added to it, and a blame is lifted only by who
//! stood under that very blame.

mod blob;
mod redis;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use crate::domain::UnixMs;

pub use blob::BlobSuspects;
pub use redis::RedisSuspects;

/// Crashes after which a request is set aside.
pub const CRASHES_MAX: u32 = 2;
/// How long a crash is remembered: longer than most requests wait for their time.
pub const REMEMBERED_MS: u64 = 30 * 86_400_000;
/// Requests whose crashes are remembered.
pub const REMEMBERED_COUNT_MAX: usize = 10_000;
/// A stage's note while it works on no request in particular.
pub const NOBODY: u64 = u64::MAX;
/// Format of what is written down.
const VERSION: u32 = 1;

/// What is written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    pub version: u32,
    /// Crashes by the mark of the request.
    pub crashes: HashMap<u64, u32>,
    /// By whom it is known: when its first crash was met at a loading.
    #[serde(default)]
    pub since: HashMap<u64, UnixMs>,
    /// Marks that were in a batch that crashed without naming one of them.
    pub group: Vec<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum SuspectError {
    #[error(transparent)]
    Journal(#[from] crate::journal::JournalError),
    #[error(transparent)]
    Redis(#[from] crate::redis::Failure),
    #[error("the crash suspects have the format {0}, which this version does not know; update it")]
    VersionUnknown(u32),
}

/// Where suspects are written down. Called by a process that is about to end: it must not wait for long.
pub trait SuspectStore: Send + Sync + 'static {
    fn load(&self) -> Result<Saved, SuspectError>;
    fn save(&self, saved: &Saved) -> Result<(), SuspectError>;
    /// Writes down that these are known since `now`, and forgets all of the others.
    fn tidy(&self, dated: &[u64], now: UnixMs, forgotten: &[u64]) -> Result<(), SuspectError>;
}

/// Nothing is written down, and nobody is suspected.
#[cfg(test)]
pub struct Nowhere;

#[cfg(test)]
impl SuspectStore for Nowhere {
    fn load(&self) -> Result<Saved, SuspectError> {
        Ok(Saved::default())
    }

    fn save(&self, _: &Saved) -> Result<(), SuspectError> {
        Ok(())
    }

    fn tidy(&self, _: &[u64], _: UnixMs, _: &[u64]) -> Result<(), SuspectError> {
        Ok(())
    }
}

pub struct Suspects {
    store: Arc<dyn SuspectStore>,
    /// As of the last loading, and how many they are.
    crashes: RwLock<HashMap<u64, u32>>,
    crash_count: AtomicUsize,
    /// A blamed batch, or what is left of it.
    group: Mutex<Vec<u64>>,
    group_count: AtomicU64,
    /// How many requests are still to go through in parts before the blame is lifted.
    isolated_left: AtomicU64,
}

impl Suspects {
    pub fn load(store: Arc<dyn SuspectStore>, now: UnixMs) -> Result<Suspects, SuspectError> {
        let suspects = Suspects::none(store);
        suspects.reload(now)?;
        Ok(suspects)
    }

    /// Nobody is suspected until `reload`: for a store that may not be there yet.
    pub fn none(store: Arc<dyn SuspectStore>) -> Suspects {
        Suspects {
            store,
            crashes: RwLock::default(),
            crash_count: AtomicUsize::new(0),
            group: Mutex::default(),
            group_count: AtomicU64::new(0),
            isolated_left: AtomicU64::new(0),
        }
    }

    /// Takes over what was written down since: by other processes, whose requests come here now.
    pub fn reload(&self, now: UnixMs) -> Result<(), SuspectError> {
        let Saved { mut crashes, since, group: blamed, .. } = self.store.load()?;
        self.tidy(&mut crashes, &since, now);
        let crash_count = crashes.len();
        *self.crashes.write().unwrap_or_else(PoisonError::into_inner) = crashes;
        self.crash_count.store(crash_count, Ordering::Release);
        let mut group = self.group();
        // Under the same blame as before, what has gone through has gone through.
        if *group != blamed {
            let count = blamed.len() as u64;
            *group = blamed;
            self.group_count.store(count, Ordering::Release);
            self.isolated_left.store(count, Ordering::Release);
        }
        Ok(())
    }

    /// Gives the crashes that are new their time, and forgets those that are old. Best effort: the next loading goes on.
    fn tidy(&self, crashes: &mut HashMap<u64, u32>, since: &HashMap<u64, UnixMs>, now: UnixMs) {
        let dated: Vec<u64> = crashes.keys().filter(|mark| !since.contains_key(mark)).copied().collect();
        let forgotten = forgotten(crashes, since, now);
        if dated.is_empty() && forgotten.is_empty() {
            return;
        }
        crashes.retain(|mark, _| !forgotten.contains(mark));
        if let Err(error) = self.store.tidy(&dated, now, &forgotten) {
            tracing::warn!(%error, "the crash suspects could not be tidied; the next start does it");
        }
    }

    fn group(&self) -> MutexGuard<'_, Vec<u64>> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many requests may share a batch: all, or half of what is left of a blamed batch.
    pub fn batch_count_max(&self) -> u64 {
        match self.is_isolating() {
            true => self.group_count.load(Ordering::Acquire).div_ceil(2),
            false => u64::MAX,
        }
    }

    /// Whether the feed must keep batches apart: one part of the blamed batch at a time, alone in the ring.
    pub fn is_isolating(&self) -> bool {
        self.isolated_left.load(Ordering::Acquire) > 0
    }

    /// A part went through well. When as many have as were blamed, the blame is lifted.
    pub fn passed(&self, count: u64) {
        let mut group = self.group();
        let left = self.isolated_left.load(Ordering::Acquire);
        self.isolated_left.store(left.saturating_sub(count), Ordering::Release);
        if left > 0 && left <= count {
            let mut saved = self.written();
            // Somebody else may stand under a newer one.
            if saved.group == *group {
                saved.group.clear();
                self.save(&saved);
            }
            group.clear();
        }
    }

    /// Whether the request has crashed the process too often.
    #[inline]
    pub fn is_condemned(&self, mark: u64) -> bool {
        self.crash_count.load(Ordering::Relaxed) > 0 && self.has_crashed_too_often(mark)
    }

    #[cold]
    fn has_crashed_too_often(&self, mark: u64) -> bool {
        let crashes = self.crashes.read().unwrap_or_else(PoisonError::into_inner);
        crashes.get(&mark).is_some_and(|crashes| *crashes >= CRASHES_MAX)
    }

    /// Writes down who was being worked on when a stage panicked; `batch` is what it had before it if that was
    /// no request in particular.
    pub fn blame(&self, mark: u64, batch: &[u64], reason: &str) {
        let mut saved = Saved { group: Vec::new(), ..self.written() };
        match (mark, batch) {
            (NOBODY, [only]) => {
                *saved.crashes.entry(*only).or_insert(0) += 1;
                // It stays alone, so that it can be named again.
                saved.group = vec![*only];
            }
            (NOBODY, batch) => saved.group = batch.to_vec(),
            (mark, _) => *saved.crashes.entry(mark).or_insert(0) += 1,
        }
        tracing::error!(mark, blamed = saved.group.len(), reason, "a request crashed the pipeline");
        self.save(&saved);
    }

    /// What is written down now; what was at the last loading if that cannot be read.
    fn written(&self) -> Saved {
        self.store.load().unwrap_or_else(|error| {
            tracing::error!(%error, "the crash suspects could not be read");
            let crashes = self.crashes.read().unwrap_or_else(PoisonError::into_inner).clone();
            Saved { version: VERSION, crashes, ..Saved::default() }
        })
    }

    fn save(&self, saved: &Saved) {
        let saved = Saved { version: VERSION, ..saved.clone() };
        if let Err(error) = self.store.save(&saved) {
            tracing::error!(%error, "the crash suspects could not be written down");
        }
    }
}

/// Whose crashes are too long ago, and the oldest of too many.
fn forgotten(crashes: &HashMap<u64, u32>, since: &HashMap<u64, UnixMs>, now: UnixMs) -> Vec<u64> {
    let known = crashes.keys().map(|mark| (since.get(mark).copied().unwrap_or(now), *mark));
    let left_over =
        since.iter().filter(|(mark, _)| !crashes.contains_key(mark)).map(|(mark, at)| (*at, *mark));
    let mut all: Vec<(UnixMs, u64)> = known.chain(left_over).collect();
    all.sort_unstable();
    let over = all.len().saturating_sub(REMEMBERED_COUNT_MAX);
    let is_old = |at: UnixMs| now.saturating_sub(at) >= REMEMBERED_MS;
    let gone = all.iter().enumerate().filter(|(place, (at, _))| *place < over || is_old(*at));
    gone.map(|(_, (_, mark))| *mark).collect()
}

#[cfg(test)]
#[path = "suspects/tests.rs"]
mod tests;
