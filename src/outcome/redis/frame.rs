//! The frame: many outcomes with their requests, as one entry of a stream.
//!
//! | bytes | field |
//! |---|---|
//! | 0..2, 2, 3 | `HO`, version (2), zero |
//! | 4..8 | number of items |
//! | 8..16 | base of all times, Unix ms |
//! | 16..24 | checksum: the first eight bytes of BLAKE3 over everything else |
//! | 24.. | the items |
//!
//! An item is written without what its reader can work out (the key's hash, by `digest`) or does not need (places
//! and numbers, which mean something in one process only). See [`compact`](super::compact) for its fields. A typical
//! payout takes less than 80 bytes.
//!
//! In frames of version 1, which are read as well, every remark stands in full.
//!
//! The same fields of one request alone ([`encode_request`]): `R`, version (1), the fields.

use super::compact::{self, Dictionary, Names};
use super::varint::Cursor;
use crate::domain::{Outcome, Request, UnixMs};
use crate::outcome::Told;

const MAGIC: [u8; 2] = *b"HO";
const VERSION: u8 = 2;
/// The one before, which does not name remarks by numbers.
const VERSION_BEFORE: u8 = 1;
const REQUEST_VERSION: u8 = 1;
const HEADER_BYTES: usize = 24;
/// What a request alone begins with.
const REQUEST_MARK: u8 = b'R';

/// Why bytes are not a frame, or not one that this release can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("it is cut short")]
    Truncated,
    #[error("it is no frame of outcomes")]
    Magic,
    #[error("version {0} of the frame is unknown to this release")]
    Version(u8),
    #[error("its checksum does not fit")]
    Checksum,
    #[error("its {0} is not valid")]
    Field(&'static str),
}

/// Builds one frame after the other, keeping its memory.
#[derive(Debug, Default)]
pub struct FrameWriter {
    bytes: Vec<u8>,
    count: u32,
    base: UnixMs,
    dictionary: Dictionary,
}

impl FrameWriter {
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes so far, header included.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn push(&mut self, outcome: &Outcome<'_>, request: &Request<'_>) {
        if self.count == 0 {
            self.bytes.clear();
            self.bytes.resize(HEADER_BYTES, 0);
            self.dictionary.clear();
            self.base = outcome.at;
        }
        let names = &mut Names::Shared(&mut self.dictionary);
        let mask = compact::mask_of_request(request) | compact::mask_of_outcome(outcome);
        compact::write_request(&mut self.bytes, request, mask, self.base, names);
        compact::write_outcome(&mut self.bytes, outcome, self.base);
        self.count += 1;
    }

    /// Closes the frame. The next push begins another.
    pub fn finish(&mut self) -> &[u8] {
        self.bytes.resize(self.bytes.len().max(HEADER_BYTES), 0);
        self.bytes[..2].copy_from_slice(&MAGIC);
        self.bytes[2] = VERSION;
        self.bytes[3] = 0;
        self.bytes[4..8].copy_from_slice(&self.count.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&self.base.to_le_bytes());
        let sum = checksum(&self.bytes);
        self.bytes[16..24].copy_from_slice(&sum);
        self.count = 0;
        &self.bytes
    }
}

pub(super) fn checksum(frame: &[u8]) -> [u8; 8] {
    let mut hash = blake3::Hasher::new();
    hash.update(&frame[..16]).update(&frame[HEADER_BYTES..]);
    hash.finalize().as_bytes()[..8].try_into().expect("eight of thirty-two bytes")
}

/// A frame that was checked, item by item.
pub struct Frame<'a> {
    cursor: Cursor<'a>,
    left: u32,
    base: UnixMs,
    names: compact::Met<'a>,
}

impl<'a> Frame<'a> {
    pub fn open(bytes: &'a [u8]) -> Result<Frame<'a>, FrameError> {
        if bytes.len() < 3 || bytes[..2] != MAGIC {
            return Err(FrameError::Magic);
        }
        if ![VERSION, VERSION_BEFORE].contains(&bytes[2]) {
            return Err(FrameError::Version(bytes[2]));
        }
        if bytes.len() < HEADER_BYTES {
            return Err(FrameError::Truncated);
        }
        if bytes[16..24] != checksum(bytes) {
            return Err(FrameError::Checksum);
        }
        Ok(Frame {
            cursor: Cursor::new(&bytes[HEADER_BYTES..]),
            left: u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes")),
            base: UnixMs::from_le_bytes(bytes[8..16].try_into().expect("eight bytes")),
            names: compact::Met::new(bytes[2] > VERSION_BEFORE),
        })
    }

    /// Items not read yet.
    pub fn left(&self) -> u32 {
        self.left
    }

    fn item(&mut self) -> Result<Told<'a>, FrameError> {
        let (request, mask) = compact::read_request(&mut self.cursor, self.base, Some(&mut self.names))?;
        compact::read_outcome(&mut self.cursor, self.base, mask, request)
    }
}

impl<'a> Iterator for Frame<'a> {
    type Item = Result<Told<'a>, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            // Bytes behind the last item: written by something else than `FrameWriter`.
            let rest = !self.cursor.is_at_end();
            self.cursor = Cursor::new(&[]);
            return rest.then_some(Err(FrameError::Field("length")));
        }
        let item = self.item();
        self.left = if item.is_ok() { self.left - 1 } else { 0 };
        if item.is_err() {
            self.cursor = Cursor::new(&[]);
        }
        Some(item)
    }
}

/// Appends a request in its compact form: what the door keeps of an id.
pub fn encode_request(request: &Request<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&[REQUEST_MARK, REQUEST_VERSION]);
    compact::write_request(out, request, compact::mask_of_request(request), 0, &mut Names::Alone);
}

/// The request that [`encode_request`] wrote; nothing may stand behind it.
pub fn decode_request(bytes: &[u8]) -> Result<Request<'_>, FrameError> {
    let mut cursor = Cursor::new(bytes);
    if cursor.byte()? != REQUEST_MARK {
        return Err(FrameError::Magic);
    }
    match cursor.byte()? {
        REQUEST_VERSION => {}
        other => return Err(FrameError::Version(other)),
    }
    let (request, mask) = compact::read_request(&mut cursor, 0, None)?;
    if !cursor.is_at_end() || mask != compact::mask_of_request(&request) {
        return Err(FrameError::Field("length"));
    }
    Ok(request)
}
