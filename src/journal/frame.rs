//! One frame: its header on disk, how it is sealed, and how it is examined.
//!
//! ```text
//!  0 u32 magic "HBJ1"    16 u64 sequence, no gaps       48 [32] hash of the frame before
//!  4 u16 version         24 u64 offset of this frame    80 [16] checksum: first bytes of the hash
//!  6 u8  kind, u8 zero   32 u64 synced when written     96 payload, then zeros to a multiple of 8
//!  8 u32 payload_len     40 u64 written at, unix ms
//! 12 u32 zero
//! ```
//!
//! All little endian. `hash = blake3(header[0..80] ‖ payload)`. A frame therefore validates by itself, at its
//! own place only (a copy elsewhere claims another offset), and the chain validates between neighbours.
//! Absent: what a payload means.

use bytes::Bytes;

use super::error::{Fault, JournalError};
use super::window::Window;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 96;
/// Kinds below this are the journal's own.
pub const KIND_FIRST_FREE: u8 = 16;
/// An empty frame that tells how far everything before it is durable.
pub const KIND_MARK: u8 = 0;

const MAGIC: u32 = 0x314A_4248;
const VERSION: u16 = 1;
/// The part of the header under the hash: all but the checksum itself.
const HASHED_BYTES: usize = 80;
/// Zeros that a full segment ends with, where there is room: no frame begins with them.
pub(super) const TERMINATOR: [u8; 8] = [0; 8];

const _: () = assert!(HASHED_BYTES + 16 == HEADER_BYTES && HEADER_BYTES.is_multiple_of(8));

/// The whole hash of a frame.
pub type Hash = [u8; 32];

/// A frame handed to a visitor while the journal replays.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    pub kind: u8,
    pub sequence: u64,
    /// Where the frame starts.
    pub offset: u64,
    /// Where its payload starts.
    pub payload_at: u64,
    pub payload: &'a [u8],
    pub hash: Hash,
    pub written_at_ms: u64,
}

/// A verified frame that owns its payload.
#[derive(Debug, Clone)]
pub struct OwnedFrame {
    pub kind: u8,
    pub sequence: u64,
    pub offset: u64,
    pub payload_at: u64,
    /// Where the frame ends, padding included: where the next may begin.
    pub end: u64,
    pub payload: Bytes,
    pub hash: Hash,
    pub written_at_ms: u64,
}

/// A header's fields, decoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub kind: u8,
    pub payload_len: u32,
    pub sequence: u64,
    pub offset: u64,
    pub synced: u64,
    pub written_at_ms: u64,
    pub prev: Hash,
}

impl Header {
    pub fn end(&self) -> u64 {
        self.offset + frame_bytes(u64::from(self.payload_len))
    }

    pub fn payload_at(&self) -> u64 {
        self.offset + HEADER_BYTES as u64
    }
}

/// What stands at an offset.
#[derive(Debug)]
pub(super) enum Seen {
    /// Zeros, or too little room for any frame: the segment ends here, or nothing was written yet.
    Empty,
    Bad(Fault),
    /// Valid by itself; whether it chains is the caller's to check.
    Good(Header, Hash),
}

/// Bytes a frame takes on disk.
pub(super) const fn frame_bytes(payload_len: u64) -> u64 {
    (HEADER_BYTES as u64 + payload_len).next_multiple_of(8)
}

/// Appends an unsealed frame to a buffer: the header knows kind and length, the rest is for [`seal`].
pub(super) fn push_unsealed(buffer: &mut Vec<u8>, kind: u8, payload_len: u32, parts: &[&[u8]]) {
    let mut header = [0; HEADER_BYTES];
    header[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[4..6].copy_from_slice(&VERSION.to_le_bytes());
    header[6] = kind;
    header[8..12].copy_from_slice(&payload_len.to_le_bytes());
    buffer.extend_from_slice(&header);
    for part in parts {
        buffer.extend_from_slice(part);
    }
    buffer.resize(buffer.len().next_multiple_of(8), 0);
}

/// What the writer adds to a frame when it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seal {
    pub sequence: u64,
    pub synced: u64,
    pub written_at_ms: u64,
    pub prev: Hash,
}

/// Seals the unsealed frame that begins `bytes`; says its length on disk, its kind and its hash.
/// `None` where a terminator stands instead of a frame.
pub(super) fn seal(bytes: &mut [u8], offset: u64, seal: &Seal) -> Option<(usize, u8, Hash)> {
    if bytes.starts_with(&TERMINATOR) {
        return None;
    }
    let payload_len = u32_at(bytes, 8) as usize;
    bytes[16..24].copy_from_slice(&seal.sequence.to_le_bytes());
    bytes[24..32].copy_from_slice(&offset.to_le_bytes());
    bytes[32..40].copy_from_slice(&seal.synced.to_le_bytes());
    bytes[40..48].copy_from_slice(&seal.written_at_ms.to_le_bytes());
    bytes[48..80].copy_from_slice(&seal.prev);
    let hash = hash_of(&bytes[..HASHED_BYTES], &bytes[HEADER_BYTES..HEADER_BYTES + payload_len]);
    bytes[HASHED_BYTES..HEADER_BYTES].copy_from_slice(&hash[..16]);
    Some((frame_bytes(payload_len as u64) as usize, bytes[6], hash))
}

/// Examines the bytes at `offset`, in a segment that ends at `segment_end`. The window then holds the frame.
pub(super) fn examine(window: &mut Window<'_>, offset: u64, segment_end: u64) -> Result<Seen, JournalError> {
    if segment_end - offset < HEADER_BYTES as u64 {
        return Ok(Seen::Empty);
    }
    let header_bytes = window.bytes(offset, HEADER_BYTES)?;
    if header_bytes.len() < HEADER_BYTES || header_bytes.starts_with(&TERMINATOR) {
        return Ok(Seen::Empty);
    }
    let header = match parse(header_bytes, offset, segment_end) {
        Ok(header) => header,
        Err(fault) => return Ok(Seen::Bad(fault)),
    };
    let frame_len = HEADER_BYTES + header.payload_len as usize;
    let frame = window.bytes(offset, frame_len)?;
    if frame.len() < frame_len {
        return Ok(Seen::Bad(Fault::Length));
    }
    let hash = hash_of(&frame[..HASHED_BYTES], &frame[HEADER_BYTES..]);
    if frame[HASHED_BYTES..HEADER_BYTES] != hash[..16] {
        return Ok(Seen::Bad(Fault::Checksum));
    }
    Ok(Seen::Good(header, hash))
}

fn parse(bytes: &[u8], offset: u64, segment_end: u64) -> Result<Header, Fault> {
    if u32_at(bytes, 0) != MAGIC {
        return Err(Fault::Magic);
    }
    let mut prev = [0; 32];
    prev.copy_from_slice(&bytes[48..80]);
    let header = Header {
        kind: bytes[6],
        payload_len: u32_at(bytes, 8),
        sequence: u64_at(bytes, 16),
        offset: u64_at(bytes, 24),
        synced: u64_at(bytes, 32),
        written_at_ms: u64_at(bytes, 40),
        prev,
    };
    // The offset comes before the version: a recycled segment may hold frames of an older format.
    if header.offset != offset {
        return Err(Fault::Offset);
    }
    match u16::from_le_bytes([bytes[4], bytes[5]]) {
        VERSION => {}
        version => return Err(Fault::Version(version)),
    }
    if header.end() > segment_end || header.synced > offset {
        return Err(Fault::Length);
    }
    Ok(header)
}

/// True where the bytes could begin a segment: nothing yet, or a frame (of this journal or a recycled one).
pub(super) fn could_begin_segment(bytes: &[u8]) -> bool {
    bytes.len() < 4 || matches!(u32_at(bytes, 0), 0 | MAGIC)
}

fn hash_of(header: &[u8], payload: &[u8]) -> Hash {
    *blake3::Hasher::new().update(header).update(payload).finalize().as_bytes()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
