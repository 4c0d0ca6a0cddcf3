//! Memory bandwidth: a copy between two buffers that no cache holds. Read and written bytes count once each.

use std::hint::black_box;
use std::time::Instant;

use super::Options;

const BUFFER: usize = 256 << 20;

pub fn copy_gb_per_s(options: &Options) -> anyhow::Result<f64> {
    let from = vec![1u8; BUFFER];
    let mut to = vec![0u8; BUFFER];
    // The first copy pays for the pages.
    to.copy_from_slice(&from);
    let (began, mut bytes) = (Instant::now(), 0u64);
    loop {
        to.copy_from_slice(black_box(&from));
        black_box(&to);
        bytes += 2 * BUFFER as u64;
        if began.elapsed() >= options.length() {
            return Ok(bytes as f64 / 1e9 / began.elapsed().as_secs_f64());
        }
    }
}
