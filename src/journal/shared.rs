//! What the handles, the readers and the writer thread share.
//!
//! Lock order: `pending`, then `writing`; no lock is held across a call out of this room, except that the
//! writer reads `writing` while its bytes go to disk (readers share that). What holds: a byte that was appended
//! is in `pending`, in `writing` or in its file, and a look in that order misses none; `synced` only rises,
//! and only after a good sync. Absent: decisions; the writer has those.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{
    Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};

use super::batch::Batch;
use super::error::JournalError;
use super::segments::{Segments, segment_name};
use super::stats::Counters;
use super::{Options, Position};

pub(super) type Waker = Box<dyn Fn() + Send + Sync>;

pub(super) struct Shared {
    pub options: Options,
    pub segments: Segments,
    pub counters: Counters,
    pending: Mutex<Pending>,
    /// The writer waits here for something to write.
    pub work: Condvar,
    /// Everyone else waits here for the writer.
    pub progress: Condvar,
    writing: RwLock<Writing>,
    synced: AtomicU64,
    pub syncing: AtomicBool,
    position: Mutex<Position>,
    failure: OnceLock<JournalError>,
    pub wakers: RwLock<Vec<Waker>>,
}

/// What waits for the writer.
pub(super) struct Pending {
    pub batch: Batch,
    /// Where the last appended frame ends, and the sequence of the next.
    pub end: u64,
    pub sequence_next: u64,
    /// Bytes the writer took and has not synced yet.
    pub in_flight_bytes: usize,
    pub writer_waits: bool,
    pub closing: bool,
}

/// What the writer is busy with.
pub(super) struct Writing {
    pub batch: Batch,
    /// Everything below is in the files.
    pub written: u64,
}

impl Shared {
    pub fn new(options: Options, segments: Segments, start: Position) -> Shared {
        let pending = Pending {
            batch: Batch::default(),
            end: start.offset,
            sequence_next: start.sequence,
            in_flight_bytes: 0,
            writer_waits: false,
            closing: false,
        };
        Shared {
            options,
            segments,
            counters: Counters::default(),
            pending: Mutex::new(pending),
            work: Condvar::new(),
            progress: Condvar::new(),
            writing: RwLock::new(Writing { batch: Batch::default(), written: start.offset }),
            synced: AtomicU64::new(start.offset),
            syncing: AtomicBool::new(false),
            position: Mutex::new(start),
            failure: OnceLock::new(),
            wakers: RwLock::new(Vec::new()),
        }
    }

    pub fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    pub fn position(&self) -> Position {
        *self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn writing(&self) -> RwLockReadGuard<'_, Writing> {
        self.writing.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn writing_mut(&self) -> RwLockWriteGuard<'_, Writing> {
        self.writing.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes a boundary that a good sync has made durable.
    pub fn publish(&self, position: Position) {
        let mut current = self.position.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(position.offset >= current.offset, "the synced offset only rises");
        *current = position;
        self.synced.store(position.offset, Ordering::Release);
    }

    pub fn failure(&self) -> Option<JournalError> {
        self.failure.get().cloned()
    }

    /// Poisons the journal. The first reason stays.
    pub fn poison(&self, error: JournalError) {
        if self.failure.set(error.clone()).is_ok() {
            tracing::error!(%error, "the journal stopped: nothing more is accepted until a restart");
        }
    }

    /// Wakes everyone who waits for the writer, in this room and outside.
    pub fn wake_all(&self) {
        self.progress.notify_all();
        for wake in self.wakers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            wake();
        }
    }

    /// Reads logical bytes within one segment, wherever they are; fewer at the end of what was appended.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, JournalError> {
        let room = self.segments.end_of(offset) - offset;
        let want = buf.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let mut done = 0;
        while done < want {
            match self.read_piece(offset + done as u64, &mut buf[done..want])? {
                0 => break,
                count => done += count,
            }
        }
        Ok(done)
    }

    fn read_piece(&self, offset: u64, buf: &mut [u8]) -> Result<usize, JournalError> {
        // The common case of old bytes needs neither lock: below `synced` the files have everything.
        let mut limit = self.synced();
        if offset >= limit {
            let pending = self.pending();
            if pending.batch.start().is_some_and(|start| offset >= start) {
                return Ok(pending.batch.copy_at(offset, buf));
            }
            drop(pending);
            let writing = self.writing();
            if writing.batch.start().is_some_and(|start| offset >= start) {
                return Ok(writing.batch.copy_at(offset, buf));
            }
            limit = writing.batch.start().unwrap_or(writing.written);
            if offset >= limit {
                return Ok(0);
            }
        }
        let count = buf.len().min(usize::try_from(limit - offset).unwrap_or(usize::MAX));
        let index = self.segments.index_of(offset);
        let file = self.segments.file(index)?;
        let within = offset % self.segments.segment_bytes;
        let got = file
            .read_at(&mut buf[..count], within)
            .map_err(|error| JournalError::storage("read", &segment_name(index), error))?;
        // A file that lost its segment meanwhile may already be another one.
        if !self.segments.exists(index) {
            return Err(JournalError::Reclaimed { offset });
        }
        Ok(got)
    }
}
