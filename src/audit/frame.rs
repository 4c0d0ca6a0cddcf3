//! A frame of the journal, read by the auditor's own eyes.
//!
//! Little endian, 96 bytes of header, then the payload, then zeros to a multiple of eight: 0 u32 magic · 4 u16
//! version · 6 u8 kind · 8 u32 length of the payload · 16 u64 sequence · 24 u64 own logical offset · 32 u64
//! synced · 40 u64 written at (Unix ms) · 48 [32] hash of the frame before · 80 [16] first half of the hash;
//! hash = BLAKE3(header[0..80] ‖ payload). A frame is valid by itself or it is no frame: there is no partial
//! answer. Absent: what a payload means, and the order of frames.

pub const HEADER_BYTES: usize = 96;
const HASHED_BYTES: usize = 80;
const MAGIC: u32 = 0x314A_4248;
const VERSION: u16 = 1;

/// Kind of the empty frames that only say how far the journal is durable.
pub const KIND_MARK: u8 = 0;
/// Kinds that may hold entries.
pub const KINDS_KNOWN: std::ops::RangeInclusive<u8> = 16..=20;

pub type Hash = [u8; 32];

/// A frame that is valid by itself.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub kind: u8,
    pub sequence: u64,
    /// Logical offset of its first byte, and of the byte after its padding.
    pub offset: u64,
    pub end: u64,
    /// The logical end offset that was durable when it was written.
    pub synced: u64,
    /// Unix ms.
    pub written_at: u64,
    pub prev: Hash,
    pub hash: Hash,
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Logical offset of the payload: the place of an entry is this plus its position.
    pub fn payload_place(&self) -> u64 {
        self.offset + HEADER_BYTES as u64
    }
}

/// Whether a header with this logical offset as its own stands at the head of `bytes`, valid or not.
pub fn is_claimed(bytes: &[u8], offset: u64) -> bool {
    bytes.len() >= HEADER_BYTES && u32_at(bytes, 0) == MAGIC && u64_at(bytes, 24) == offset
}

/// Whether any frame's header may begin here, of whatever offset.
pub fn is_marked(bytes: &[u8]) -> bool {
    bytes.len() >= 4 && u32_at(bytes, 0) == MAGIC
}

/// Bytes that the frame at the head of `bytes` says it takes, padding included.
pub fn claimed_bytes(bytes: &[u8]) -> u64 {
    (HEADER_BYTES as u64 + u64::from(u32_at(bytes, 8))).next_multiple_of(8)
}

/// The frame at the head of `bytes`, which are the rest of its segment from logical `offset` on.
pub fn read(bytes: &[u8], offset: u64) -> Option<Frame<'_>> {
    if !is_claimed(bytes, offset) || u16::from_le_bytes([bytes[4], bytes[5]]) != VERSION {
        return None;
    }
    let payload = bytes[HEADER_BYTES..].get(..u32_at(bytes, 8) as usize)?;
    let synced = u64_at(bytes, 32);
    if synced > offset {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..HASHED_BYTES]).update(payload);
    let hash: Hash = hasher.finalize().into();
    if bytes[HASHED_BYTES..HEADER_BYTES] != hash[..16] {
        return None;
    }
    Some(Frame {
        kind: bytes[6],
        sequence: u64_at(bytes, 16),
        offset,
        end: offset + claimed_bytes(bytes),
        synced,
        written_at: u64_at(bytes, 40),
        prev: bytes[48..80].try_into().expect("thirty-two bytes"),
        hash,
        payload,
    })
}

/// # Panics
/// If the field does not lie within `bytes`; callers check the length first.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// # Panics
/// If the field does not lie within `bytes`; callers check the length first.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
