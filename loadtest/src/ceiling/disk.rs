//! The disk, without anything above it.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use anyhow::Context;

use super::Options;

const BLOCK: usize = 4_096;
const PIECE: usize = 1 << 20;
/// Bytes that a sequential write stops at.
const WRITTEN_MAX: u64 = 4 << 30;

/// A file that is removed when it is done with.
struct Scratch {
    path: std::path::PathBuf,
    file: File,
}

impl Scratch {
    fn new(options: &Options) -> anyhow::Result<Scratch> {
        let path = options.folder.join(format!("ceiling-{}", std::process::id()));
        let file = File::create(&path).with_context(|| format!("writing {}", path.display()))?;
        Ok(Scratch { path, file })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is seen by whoever looks into the folder.
        let _ = std::fs::remove_file(&self.path);
    }
}

pub fn syncs_per_s(options: &Options) -> anyhow::Result<f64> {
    let scratch = Scratch::new(options)?;
    let block = [0x5Au8; BLOCK];
    // In place: a file that grows pays for its size as well.
    scratch.file.write_all_at(&block, 0)?;
    scratch.file.sync_all()?;
    let (began, mut count) = (Instant::now(), 0u64);
    while began.elapsed() < options.length() {
        scratch.file.write_all_at(&block, 0)?;
        scratch.file.sync_data()?;
        count += 1;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

pub fn sequential_mb_per_s(options: &Options) -> anyhow::Result<f64> {
    let mut scratch = Scratch::new(options)?;
    let piece = vec![0x5Au8; PIECE];
    let (began, mut bytes) = (Instant::now(), 0u64);
    while began.elapsed() < options.length() && bytes < WRITTEN_MAX {
        scratch.file.write_all(&piece)?;
        bytes += PIECE as u64;
    }
    scratch.file.sync_data()?;
    Ok(bytes as f64 / 1e6 / began.elapsed().as_secs_f64())
}
