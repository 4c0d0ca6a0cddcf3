//! The writer: takes what waits, seals it, writes it, syncs once, tells everyone.
//!
//! What holds: frames are sealed in order, so sequence and chain have no gap; nothing is reported as synced
//! that a sync did not cover; after a failed write or sync, or a panic, nothing is written or synced ever
//! again (the kernel may have dropped the pages it could not write, a second sync would lie). An idle writer
//! parks without a timeout. Absent: retries, and knowledge of who waits for what.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::Position;
use super::batch::Batch;
use super::error::JournalError;
use super::frame::{self, KIND_MARK, Seal};
use super::segments::segment_name;
use super::shared::{Pending, Shared};
use super::storage::StorageFile;

pub(super) struct Writer {
    shared: Arc<Shared>,
    /// The boundary behind the last sealed frame.
    sealed: Position,
    /// Frames other than a mark were written last: a mark is due once the journal goes idle.
    mark_due: bool,
    /// The emptied batch, kept for its memory.
    free: Batch,
}

enum Work {
    Batch,
    Nothing,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, mark_due: bool) -> Writer {
        let sealed = shared.position();
        Writer { shared, sealed, mark_due, free: Batch::default() }
    }

    /// The writer thread: runs until the journal is closed or fails.
    pub fn run(mut self) {
        let _guard = PoisonGuard { shared: Arc::clone(&self.shared) };
        while let Work::Batch = self.wait() {
            self.cycle();
        }
    }

    /// One cycle without waiting; `false` when there was nothing to do.
    pub fn step(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut pending = shared.pending();
        if pending.batch.is_empty() && pending.closing && self.mark_due {
            self.push_mark(&mut pending);
        }
        if pending.batch.is_empty() || shared.failure().is_some() {
            return false;
        }
        self.take(&mut pending);
        drop(pending);
        self.cycle();
        true
    }

    /// Waits for work and takes it; nothing once the journal is closed and written, or poisoned.
    fn wait(&mut self) -> Work {
        let shared = Arc::clone(&self.shared);
        let mut pending = shared.pending();
        let mut idle_until = None;
        loop {
            if shared.failure().is_some() {
                return Work::Nothing;
            }
            let idle_over = idle_until.is_some_and(|until| Instant::now() >= until);
            if pending.batch.is_empty() && self.mark_due && (pending.closing || idle_over) {
                self.push_mark(&mut pending);
            }
            if !pending.batch.is_empty() {
                self.take(&mut pending);
                return Work::Batch;
            }
            if pending.closing {
                return Work::Nothing;
            }
            pending.writer_waits = true;
            pending = if self.mark_due {
                let rest = Duration::from_millis(shared.options.idle_mark_ms);
                let until = *idle_until.get_or_insert_with(|| Instant::now() + rest);
                let left = until.saturating_duration_since(Instant::now());
                shared.work.wait_timeout(pending, left).map_or_else(|e| e.into_inner().0, |(guard, _)| guard)
            } else {
                shared.work.wait(pending).unwrap_or_else(|error| error.into_inner())
            };
            pending.writer_waits = false;
        }
    }

    fn push_mark(&self, pending: &mut Pending) {
        let end = pending.end;
        pending.batch.push(end, self.shared.options.segment_bytes, KIND_MARK, 0, &[]);
        pending.end = pending.batch.end;
        pending.sequence_next += 1;
    }

    /// Moves what waits to `writing`, so that a reader finds every byte in one of the two.
    fn take(&mut self, pending: &mut Pending) {
        self.shared.syncing.store(true, Ordering::Release);
        let mut writing = self.shared.writing_mut();
        writing.batch = std::mem::replace(&mut pending.batch, std::mem::take(&mut self.free));
        pending.in_flight_bytes = writing.batch.bytes.len();
    }

    fn cycle(&mut self) {
        match self.write_and_sync() {
            Ok(()) => {
                let mut writing = self.shared.writing_mut();
                writing.written = writing.batch.end;
                self.free = std::mem::take(&mut writing.batch);
                drop(writing);
                self.free.clear();
                self.shared.publish(self.sealed);
                self.shared.pending().in_flight_bytes = 0;
            }
            Err(error) => {
                self.shared.poison(error);
                // Taken so that nobody checks for a failure and then misses the wake-up.
                drop(self.shared.pending());
            }
        }
        self.shared.syncing.store(false, Ordering::Release);
        self.shared.wake_all();
    }

    fn write_and_sync(&mut self) -> Result<(), JournalError> {
        let frames = self.seal();
        let shared = Arc::clone(&self.shared);
        let writing = shared.writing();
        let mut touched: Vec<(u64, Arc<dyn StorageFile>)> = Vec::with_capacity(2);
        for run in &writing.batch.runs {
            let index = shared.segments.index_of(run.offset);
            if touched.last().is_none_or(|(last, _)| *last != index) {
                touched.push((index, shared.segments.file_or_create(index)?));
            }
            let Some((_, file)) = touched.last() else { continue };
            let bytes = &writing.batch.bytes[run.at..run.at + run.len];
            file.write_at(bytes, run.offset % shared.segments.segment_bytes).map_err(|error| {
                let folder = shared.segments.storage.folder();
                JournalError::write(folder, &segment_name(index), run.len as u64, error)
            })?;
        }
        let begun = Instant::now();
        for (index, file) in &touched {
            file.sync().map_err(|error| JournalError::storage("sync", &segment_name(*index), error))?;
        }
        let sync_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        shared.counters.record(writing.batch.bytes.len() as u64, frames, sync_ns);
        Ok(())
    }

    /// Fills in the headers of all frames taken; says how many.
    fn seal(&mut self) -> u64 {
        let written_at_ms = (self.shared.options.now_ms)();
        let synced = self.shared.synced();
        let mut frames = 0;
        let mut writing = self.shared.writing_mut();
        let batch = &mut writing.batch;
        for run in &batch.runs {
            let (mut at, end) = (run.at, run.at + run.len);
            let mut offset = run.offset;
            while at < end {
                let Position { sequence, hash: prev, .. } = self.sealed;
                let seal = Seal { sequence, synced, written_at_ms, prev };
                let Some((len, kind, hash)) = frame::seal(&mut batch.bytes[at..end], offset, &seal) else {
                    break;
                };
                at += len;
                offset += len as u64;
                frames += 1;
                self.sealed = Position { offset, sequence: sequence + 1, hash };
                self.mark_due = kind != KIND_MARK;
            }
        }
        assert_eq!(self.sealed.offset, batch.end, "every frame taken is sealed");
        frames
    }
}

/// Poisons the journal should the writer thread panic, so that nobody waits for it forever.
struct PoisonGuard {
    shared: Arc<Shared>,
}

impl Drop for PoisonGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.shared.poison(JournalError::Panicked { thread: "journal" });
            self.shared.syncing.store(false, Ordering::Release);
            drop(self.shared.pending());
            // It may have been a waker that panicked; it must not turn this into an abort.
            let _ = catch_unwind(AssertUnwindSafe(|| self.shared.wake_all()));
        }
    }
}
