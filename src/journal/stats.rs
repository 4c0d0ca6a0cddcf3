//! Counters of one journal, kept by its writer and read by anyone.
//!
//! Absent: any export format; telemetry turns these into its own.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Buckets of sync durations: bucket `n` counts syncs that took less than `2^n` µs, and not less than half.
pub const SYNC_BUCKETS: usize = 24;

#[derive(Debug, Default)]
pub(super) struct Counters {
    syncs: AtomicU64,
    bytes_written: AtomicU64,
    frames: AtomicU64,
    sync_ns: AtomicU64,
    sync_ns_max: AtomicU64,
    sync_us_log2: [AtomicU64; SYNC_BUCKETS],
}

/// A reading of the counters since the journal was opened.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Write cycles, each of which ended in one sync (two where it crossed into another segment).
    pub syncs: u64,
    pub bytes_written: u64,
    /// Frames written, marks included.
    pub frames: u64,
    pub segments: u64,
    /// Time spent syncing, in total and at worst.
    pub sync_ns: u64,
    pub sync_ns_max: u64,
    /// See [`SYNC_BUCKETS`].
    pub sync_us_log2: [u64; SYNC_BUCKETS],
}

impl Counters {
    pub fn record(&self, bytes: u64, frames: u64, sync_ns: u64) {
        self.syncs.fetch_add(1, Relaxed);
        self.bytes_written.fetch_add(bytes, Relaxed);
        self.frames.fetch_add(frames, Relaxed);
        self.sync_ns.fetch_add(sync_ns, Relaxed);
        self.sync_ns_max.fetch_max(sync_ns, Relaxed);
        let bucket = (64 - (sync_ns / 1_000).leading_zeros()) as usize;
        self.sync_us_log2[bucket.min(SYNC_BUCKETS - 1)].fetch_add(1, Relaxed);
    }

    pub fn read(&self, segments: usize) -> Stats {
        Stats {
            syncs: self.syncs.load(Relaxed),
            bytes_written: self.bytes_written.load(Relaxed),
            frames: self.frames.load(Relaxed),
            segments: segments as u64,
            sync_ns: self.sync_ns.load(Relaxed),
            sync_ns_max: self.sync_ns_max.load(Relaxed),
            sync_us_log2: std::array::from_fn(|bucket| self.sync_us_log2[bucket].load(Relaxed)),
        }
    }
}
