//! What can go wrong in this room, said so that an operator can act on it.
//!
//! Every error names the file or offset it is about and what to do. The type is `Clone`, because a poisoned
//! journal hands the same reason to everyone who asks. Absent: anything about money, and any retry logic;
//! once poisoned, the only way on is a restart, which recovers.

use std::error::Error;
use std::io;
use std::sync::Arc;

use thiserror::Error;

/// Why the bytes at an offset are not the frame that should stand there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fault {
    #[error("zeros stand where a frame should be")]
    Empty,
    #[error("the magic number is wrong")]
    Magic,
    #[error("the frame has format version {0}")]
    Version(u16),
    #[error("the length does not fit the segment")]
    Length,
    #[error("the frame claims another offset")]
    Offset,
    #[error("the checksum does not match")]
    Checksum,
    #[error("the sequence number does not follow the frame before")]
    Sequence,
    #[error("the hash of the frame before does not match")]
    Previous,
}

/// The one error of the journal room.
#[derive(Debug, Clone, Error)]
pub enum JournalError {
    #[error("cannot {what} `{name}`: {source}; check the disk and restart, which recovers what is durable")]
    Storage { what: &'static str, name: String, source: Arc<io::Error> },

    #[error(
        "no space left in `{folder}`: {needed_bytes} more bytes are needed for `{name}`; free space and restart"
    )]
    NoSpace { folder: String, name: String, needed_bytes: u64, source: Arc<io::Error> },

    #[error(
        "`{segment}` is damaged at offset {offset} (sequence {sequence}): {reason}, though a later frame says \
         it was durable; nothing was changed: restore this file from a copy, or restore the data folder"
    )]
    Corrupt { segment: String, offset: u64, sequence: u64, reason: Fault },

    #[error(
        "segment `{segment}` is missing, though it is needed from offset {offset} on; nothing was changed: \
         restore it from a copy, or start from a later checkpoint"
    )]
    MissingSegment { segment: String, offset: u64 },

    #[error("`{name}` does not belong in the journal's folder; move it elsewhere, nothing was changed")]
    ForeignFile { name: String },

    #[error("`{name}` begins with bytes no journal wrote; is this the right folder? nothing was changed")]
    ForeignContent { name: String },

    #[error("`{segment}` holds format version {version} at offset {offset}; use the binary that wrote it")]
    UnknownVersion { segment: String, offset: u64, version: u16 },

    #[error(
        "`{name}` has {found_bytes} bytes where {expected_bytes} are expected; keep the segment size that \
         the journal was made with"
    )]
    SegmentSize { name: String, found_bytes: u64, expected_bytes: u64 },

    #[error("the journal's options are wrong: {reason}")]
    Options { reason: &'static str },

    #[error("a payload of {bytes} bytes exceeds the largest frame, {bytes_max} bytes")]
    FrameTooLarge { bytes: u64, bytes_max: u64 },

    #[error("frame kind {kind} is reserved for the journal itself")]
    ReservedKind { kind: u8 },

    #[error("offset {offset} is no longer kept: its segment was reclaimed")]
    Reclaimed { offset: u64 },

    #[error("the frame at offset {offset} was refused by its reader: {source}")]
    Visit { offset: u64, source: Arc<dyn Error + Send + Sync> },

    #[error("the journal's thread `{thread}` panicked; restart, which recovers what is durable")]
    Panicked { thread: &'static str },

    #[error("the journal is closed")]
    Closed,

    #[error("the blob `{name}` is unusable: {reason}")]
    Blob { name: String, reason: &'static str },

    #[error("the saved index is unusable: {reason}")]
    Index { reason: &'static str },
}

impl JournalError {
    /// Wraps a failed call on `name`, telling a full disk from the rest.
    pub(super) fn storage(what: &'static str, name: &str, source: io::Error) -> JournalError {
        JournalError::Storage { what, name: name.to_owned(), source: Arc::new(source) }
    }

    /// Wraps a failed write, which may mean that the disk is full.
    pub(super) fn write(folder: String, name: &str, needed_bytes: u64, source: io::Error) -> JournalError {
        let full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let (name, source) = (name.to_owned(), Arc::new(source));
        if full {
            JournalError::NoSpace { folder, name, needed_bytes, source }
        } else {
            JournalError::Storage { what: "write", name, source }
        }
    }

    /// True where the bytes on disk contradict themselves: a restart does not help, an operator must act.
    pub fn is_corruption(&self) -> bool {
        matches!(
            self,
            JournalError::Corrupt { .. }
                | JournalError::MissingSegment { .. }
                | JournalError::ForeignContent { .. }
                | JournalError::SegmentSize { .. }
        )
    }
}
