//! The journal: a segmented, append-only log with group commit, and what stands beside it in its folder.
//!
//! ```text
//! append -> [pending batch] --swap--> writer: seal, write, one sync -> synced offset -> wake-ups
//!                                        |                                   |
//!                                 segment files  <---- frame_at, reader, read_at
//! ```
//!
//! A logical offset is `segment index * segment_bytes + position`; a frame lies in one segment whole. What
//! holds: an offset reported as synced survives any crash; recovery returns a prefix of what was appended,
//! with everything that was reported as synced, or refuses and names the damage; after the first failed write
//! or sync nothing is ever accepted again before a restart. Absent: money, kinds' meanings, retries.
//!
//! In reading order: [`storage`] (the port) and [`sim`] (the one that crashes), `frame`, `batch`, `writer`,
//! `inventory`, `recovery`, `reader`, `segments` and `spares`; beside them [`index`] (fingerprint to place) and
//! [`snapshot`] (durable blobs).

mod batch;
mod error;
mod frame;
pub mod index;
mod inventory;
mod reader;
mod recovery;
mod segments;
mod shared;
pub mod sim;
pub mod snapshot;
mod spares;
mod stats;
pub mod storage;
mod window;
mod writer;

#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

pub use error::{Fault, JournalError};
pub use frame::{Frame, HEADER_BYTES, Hash, KIND_FIRST_FREE, OwnedFrame};
pub use reader::Reader;
pub use recovery::{Cut, Recovery};
use shared::Shared;
pub use stats::{SYNC_BUCKETS, Stats};
pub use storage::{FolderStorage, Storage, StorageFile};
use writer::Writer;

/// How a journal is run. The segment size is part of the format: it may not change in a folder.
#[derive(Clone)]
pub struct Options {
    pub segment_bytes: u64,
    /// Bytes that may wait for a sync; past it `append` blocks.
    pub pending_bytes_max: usize,
    /// After this long without an append, a mark is written over the last frames.
    pub idle_mark_ms: u64,
    /// Unix time, read once a write cycle.
    pub now_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Runs the writer and the preparer on threads. Without them nothing moves but by [`Journal::step`]: for
    /// simulations that must repeat exactly. There, waiting for a sync or for room would wait forever.
    pub threads: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 << 20,
            pending_bytes_max: 16 << 20,
            idle_mark_ms: 200,
            now_ms: Arc::new(|| {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            }),
            threads: true,
        }
    }
}

impl Options {
    fn check(&self) -> Result<(), JournalError> {
        let wrong = |reason| Err(JournalError::Options { reason });
        if !self.segment_bytes.is_multiple_of(4096) || self.segment_bytes == 0 {
            return wrong("segment_bytes must be a multiple of 4096");
        }
        if self.segment_bytes > 1 << 32 {
            return wrong("segment_bytes must be at most 4 GiB");
        }
        Ok(())
    }
}

/// A boundary between two frames: where the next one starts, its sequence, the hash of the one before.
/// Checkpoints store it, and replay starts from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    pub offset: u64,
    pub sequence: u64,
    pub hash: Hash,
}

impl Position {
    /// The beginning of every journal.
    pub const fn genesis() -> Position {
        Position { offset: 0, sequence: 0, hash: [0; 32] }
    }
}

/// Where an appended frame will stand. It is durable once `synced() >= end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub payload_at: u64,
    pub end: u64,
    pub sequence: u64,
}

/// A handle on the journal; the last one dropped shuts it down.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The writer, where no thread carries it.
    stepped: Mutex<Option<Writer>>,
}

impl Journal {
    /// Recovers the folder from `start` on, hands every frame to `visit`, and is ready to append.
    pub fn open<E>(
        storage: Arc<dyn Storage>,
        options: Options,
        start: Position,
        visit: &mut dyn FnMut(Frame<'_>) -> Result<(), E>,
    ) -> Result<(Journal, Recovery), JournalError>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        options.check()?;
        let recovered = recovery::recover(storage, &options, start, visit)?;
        let threaded = options.threads;
        let shared = Arc::new(Shared::new(options, recovered.segments, recovered.report.end));
        let writer = Writer::new(Arc::clone(&shared), recovered.mark_due);
        let inner = Inner { shared, threads: Mutex::default(), stepped: Mutex::default() };
        if threaded {
            inner.spawn(writer)?;
        } else {
            *inner.stepped.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
        }
        Ok((Journal { inner: Arc::new(inner) }, recovered.report))
    }

    /// Lays a frame behind the last one and returns at once; `parts` are joined to its payload. Blocks only
    /// while more than `pending_bytes_max` wait for a sync. Kinds below [`KIND_FIRST_FREE`] are reserved.
    pub fn append(&self, kind: u8, parts: &[&[u8]]) -> Result<Appended, JournalError> {
        if kind < KIND_FIRST_FREE {
            return Err(JournalError::ReservedKind { kind });
        }
        let shared = &*self.inner.shared;
        let bytes: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let bytes_max = (shared.options.segment_bytes - HEADER_BYTES as u64).min(u64::from(u32::MAX));
        let payload_len = match u32::try_from(bytes) {
            Ok(len) if bytes <= bytes_max => len,
            _ => return Err(JournalError::FrameTooLarge { bytes, bytes_max }),
        };
        let need = frame::frame_bytes(bytes) as usize;
        let mut pending = shared.pending();
        loop {
            if let Some(error) = shared.failure() {
                return Err(error);
            }
            if pending.closing {
                return Err(JournalError::Closed);
            }
            let waiting = pending.batch.bytes.len() + pending.in_flight_bytes;
            // A frame larger than the bound goes alone.
            if waiting == 0 || waiting + need <= shared.options.pending_bytes_max {
                break;
            }
            pending = shared.progress.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        let end = pending.end;
        let offset = pending.batch.push(end, shared.options.segment_bytes, kind, payload_len, parts);
        pending.end = pending.batch.end;
        let sequence = pending.sequence_next;
        pending.sequence_next += 1;
        let appended = Appended { payload_at: offset + HEADER_BYTES as u64, end: pending.end, sequence };
        if pending.writer_waits {
            pending.writer_waits = false;
            shared.work.notify_one();
        }
        Ok(appended)
    }

    /// Everything below this offset is durable.
    pub fn synced(&self) -> u64 {
        self.inner.shared.synced()
    }

    /// Reads [`Journal::synced`] without keeping the journal alive: for wakers.
    pub fn synced_reader(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let shared = Arc::downgrade(&self.inner.shared);
        move || shared.upgrade().map_or(0, |shared| shared.synced())
    }

    /// Reads [`Journal::is_syncing`] without keeping the journal alive. It turns false before the wakers are
    /// called.
    pub fn syncing_reader(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let shared = Arc::downgrade(&self.inner.shared);
        move || shared.upgrade().is_some_and(|shared| shared.syncing.load(Ordering::Acquire))
    }

    /// A write and sync is under way: what is appended now waits for the next one.
    pub fn is_syncing(&self) -> bool {
        self.inner.shared.syncing.load(Ordering::Acquire)
    }

    /// Calls `wake` on the writer's thread after every cycle and on failure. It must be short and must not
    /// call `on_sync`.
    pub fn on_sync(&self, wake: Box<dyn Fn() + Send + Sync>) {
        self.inner.shared.wakers.write().unwrap_or_else(PoisonError::into_inner).push(wake);
    }

    /// Blocks until everything below `end` is durable, or never will be.
    pub fn wait_synced(&self, end: u64) -> Result<(), JournalError> {
        let shared = &*self.inner.shared;
        let mut pending = shared.pending();
        while shared.synced() < end {
            if let Some(error) = shared.failure() {
                return Err(error);
            }
            if pending.closing && pending.batch.is_empty() && pending.in_flight_bytes == 0 {
                return Err(JournalError::Closed);
            }
            pending = shared.progress.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Reads logical bytes within one segment, durable or not; fewer at the end of what was appended. Headers
    /// of frames not written yet are incomplete, and past a segment's last frame the bytes mean nothing.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, JournalError> {
        self.inner.shared.read_at(offset, buf)
    }

    /// The frame that starts at `offset`, verified; `None` unless all of it is synced.
    pub fn frame_at(&self, offset: u64) -> Result<Option<OwnedFrame>, JournalError> {
        reader::frame_at(&self.inner.shared, offset)
    }

    /// Reads synced frames in order from the frame (or the end of a segment) at `from` on.
    pub fn reader(&self, from: u64) -> Reader {
        Reader::new(Arc::clone(&self.inner.shared), from)
    }

    /// The boundary behind the last synced frame.
    pub fn position(&self) -> Position {
        self.inner.shared.position()
    }

    /// Why the journal accepts nothing more, if so.
    pub fn failure(&self) -> Option<JournalError> {
        self.inner.shared.failure()
    }

    /// Gives up whole segments below `offset`; says how many. The caller's durable checkpoint must lie at or
    /// past it. The segment being written is never given up.
    pub fn reclaim_before(&self, offset: u64) -> Result<u64, JournalError> {
        let shared = &self.inner.shared;
        shared.segments.reclaim_before(offset.min(shared.synced()))
    }

    /// Where the first segment that is still there begins.
    pub fn begins_at(&self) -> u64 {
        self.inner.shared.segments.first() * self.inner.shared.options.segment_bytes
    }

    pub fn stats(&self) -> Stats {
        self.inner.shared.counters.read(self.inner.shared.segments.count())
    }

    /// Writes what waits without a thread (see [`Options::threads`]); `false` when there was nothing.
    pub fn step(&self) -> bool {
        let mut stepped = self.inner.stepped.lock().unwrap_or_else(PoisonError::into_inner);
        stepped.as_mut().is_some_and(Writer::step)
    }

    /// Accepts nothing more, syncs what waits, covers it with a mark, ends the threads.
    pub fn shutdown(&self) -> Result<(), JournalError> {
        self.inner.close();
        self.failure().map_or(Ok(()), Err)
    }
}

impl Inner {
    fn spawn(&self, writer: Writer) -> Result<(), JournalError> {
        let failed = |error| JournalError::storage("start", "a thread", error);
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = Arc::clone(&self.shared);
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        // In the order they must end: the writer may still need a spare.
        threads.push(named("journal").spawn(move || writer.run()).map_err(failed)?);
        threads.push(named("preparer").spawn(move || shared.segments.spares.run()).map_err(failed)?);
        Ok(())
    }

    fn close(&self) {
        self.shared.pending().closing = true;
        self.shared.work.notify_all();
        self.shared.progress.notify_all();
        while self.stepped.lock().unwrap_or_else(PoisonError::into_inner).as_mut().is_some_and(Writer::step) {
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for (index, thread) in threads.into_iter().enumerate() {
            if index == 1 {
                self.shared.segments.spares.close();
            }
            // A waker may hold the last handle: a thread cannot wait for itself.
            if thread.thread().id() != thread::current().id() {
                // A panic has poisoned the journal already.
                let _ = thread.join();
            }
        }
        self.shared.progress.notify_all();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("position", &self.position().offset).finish_non_exhaustive()
    }
}
