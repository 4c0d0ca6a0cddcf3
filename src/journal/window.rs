//! A view of logical bytes that is refilled in large pieces.
//!
//! Replay and readers look at a header, then at a payload, then at the next header; reading each on its own
//! would cost two system calls a frame. Absent: any knowledge of frames.

use super::error::JournalError;

/// How much is fetched at once when less was asked for.
const FETCH_BYTES: usize = 256 << 10;
const SMALL_FETCH_BYTES: usize = 4 << 10;

/// Fills a buffer from a logical offset; says how much was there.
pub(super) type Fetch<'a> = dyn FnMut(u64, &mut [u8]) -> Result<usize, JournalError> + 'a;

/// The bytes kept between views.
#[derive(Debug)]
pub(super) struct Kept {
    buffer: Vec<u8>,
    start: u64,
    len: usize,
    fetch_bytes: usize,
}

impl Default for Kept {
    fn default() -> Kept {
        Kept { buffer: Vec::new(), start: 0, len: 0, fetch_bytes: FETCH_BYTES }
    }
}

impl Kept {
    /// For a single frame: fetches little beyond what is asked for.
    pub fn small() -> Kept {
        Kept { fetch_bytes: SMALL_FETCH_BYTES, ..Kept::default() }
    }

    /// Forgets what was fetched, because the bytes beneath may have changed.
    pub fn forget(&mut self) {
        self.len = 0;
    }
}

pub(super) struct Window<'a> {
    kept: &'a mut Kept,
    fetch: &'a mut Fetch<'a>,
}

impl<'a> Window<'a> {
    pub fn new(kept: &'a mut Kept, fetch: &'a mut Fetch<'a>) -> Window<'a> {
        Window { kept, fetch }
    }

    /// Up to `want` bytes from `offset`; fewer only where there are no more.
    pub fn bytes(&mut self, offset: u64, want: usize) -> Result<&[u8], JournalError> {
        let kept = &mut *self.kept;
        let inside = offset >= kept.start && offset <= kept.start + kept.len as u64;
        if !inside || (offset - kept.start) as usize + want > kept.len {
            // A miss moves the window: what is already there is moved to the front, the rest is fetched.
            let keep = if inside { kept.len - (offset - kept.start) as usize } else { 0 };
            let size = want.max(kept.fetch_bytes);
            if keep > 0 {
                let from = (offset - kept.start) as usize;
                kept.buffer.copy_within(from..from + keep, 0);
            }
            kept.buffer.resize(size.max(kept.buffer.len()), 0);
            (kept.start, kept.len) = (offset, keep);
            while kept.len < want {
                let at = kept.start + kept.len as u64;
                let got = (self.fetch)(at, &mut kept.buffer[kept.len..size])?;
                if got == 0 {
                    break;
                }
                kept.len += got;
            }
        }
        let from = (offset - kept.start) as usize;
        Ok(&kept.buffer[from..kept.len.min(from + want)])
    }
}
