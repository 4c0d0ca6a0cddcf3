//! Fixed-width little-endian fields at known positions, and the head that every stored entry begins with:
//! `u32` length of the whole (a multiple of eight), tag, version. The tag tells whoever is led to a place in
//! the journal what stands there.

/// A stored request; see `domain::record`.
pub const TAG_REQUEST: u8 = 1;
/// Where a request has got to; see `outcome::entry`.
pub const TAG_OUTCOME: u8 = 2;
/// A transfer the ledger decided; see `stored_value::ledger::entry`.
pub const TAG_TRANSFER: u8 = 3;
/// An account the ledger opened; see `stored_value::ledger::entry`.
pub const TAG_ACCOUNT: u8 = 4;
/// The acknowledged prefix of a queue; see `intake::embedded::entry`.
pub const TAG_ACK: u8 = 5;
/// The head of a run of requests in one queue; see `intake::embedded::entry`.
pub const TAG_SECTION: u8 = 6;
/// A batch that was accepted; see `intake::embedded::entry`.
pub const TAG_BATCH: u8 = 7;
/// A campaign's definition; see `intake::embedded::entry`.
pub const TAG_CAMPAIGN: u8 = 8;

/// Rounds up to the eight bytes that every stored entry is aligned to.
pub const fn padded(bytes: usize) -> usize {
    (bytes + 7) & !7
}

/// Length and tag of the stored entry at the head of `bytes`, if they can be one.
pub fn peek(bytes: &[u8]) -> Option<(usize, u8)> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let tag = *bytes.get(4)?;
    (length >= 8 && length.is_multiple_of(8)).then_some((length, tag))
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

/// Why stored bytes are not the entry they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryError {
    Truncated,
    Tag { found: u8, expected: u8 },
    Version { tag: u8, found: u8 },
    Field(&'static str),
}

impl std::fmt::Display for EntryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            EntryError::Truncated => write!(f, "the entry is cut short"),
            EntryError::Tag { found, expected } => {
                write!(f, "entry tag {found} where {expected} should stand")
            }
            EntryError::Version { tag, found } => {
                write!(f, "version {found} of entry tag {tag} is unknown to this release")
            }
            EntryError::Field(name) => write!(f, "the entry's {name} is not valid"),
        }
    }
}

impl std::error::Error for EntryError {}

/// The entry at the head of `bytes`, cut to its length, if it has this tag, version 1 and at least
/// `header_bytes`.
pub fn entry(bytes: &[u8], expected: u8, header_bytes: usize) -> Result<&[u8], EntryError> {
    let (length, found) = peek(bytes).ok_or(EntryError::Truncated)?;
    if found != expected {
        return Err(EntryError::Tag { found, expected });
    }
    if length < header_bytes || bytes.len() < length {
        return Err(EntryError::Truncated);
    }
    if bytes[5] != 1 {
        return Err(EntryError::Version { tag: found, found: bytes[5] });
    }
    Ok(&bytes[..length])
}

/// Walks the entries of a frame's payload: `(position, tag, bytes)` each.
pub fn entries(payload: &[u8]) -> impl Iterator<Item = Result<(usize, u8, &[u8]), EntryError>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= payload.len() {
            return None;
        }
        let start = at;
        match peek(&payload[start..]) {
            Some((length, tag)) if start + length <= payload.len() => {
                at += length;
                Some(Ok((start, tag, &payload[start..at])))
            }
            _ => {
                at = payload.len();
                Some(Err(EntryError::Truncated))
            }
        }
    })
}
