//! Facts that stand in several streams, each with cursors of its own: what a reader of them needs.
//!
//! A stream is known by the name that its unit has everywhere. Its entries are frames of facts ([`Told`](super::Told)),
//! in the order in which they were recorded; between streams there is no order. The same fact may come twice.

use crate::domain::UnixMs;

/// An entry of a stream: when it was written (Unix ms by the clock of its store), and its number in that moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    pub ms: UnixMs,
    pub number: u64,
}

impl StreamId {
    /// Reads `ms-number`.
    pub fn parse(text: &str) -> Option<StreamId> {
        let (ms, number) = text.split_once('-')?;
        Some(StreamId { ms: ms.parse().ok()?, number: number.parse().ok()? })
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms, self.number)
    }
}

/// How far a reader has got in one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    pub stream: String,
    /// The last entry that it has; `0-0` before the first.
    pub id: StreamId,
    /// How many entries there were up to it, since the stream was made.
    pub frame_count: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamFrame {
    pub id: StreamId,
    pub bytes: Vec<u8>,
}

/// What stands behind a position, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub stream: String,
    pub frames: Vec<StreamFrame>,
}

/// The end of a stream, and how much of it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// The last entry that was ever written.
    pub id: StreamId,
    /// How many entries were ever written.
    pub frame_count: u64,
    /// How many of them were given up, from the front.
    pub trimmed_count: u64,
    /// The first one that is still there; `0-0` if none is.
    pub first_id: StreamId,
}

/// Where readers find streams.
pub trait StreamSource: Send + Sync + 'static {
    /// The streams that this reader is to read now.
    fn streams(&self) -> Vec<String>;
    /// What stands behind each position: at least one frame where there is one, all of it about `bytes_max`.
    fn read(&self, after: &[Position], bytes_max: usize) -> Result<Vec<Stretch>, StreamError>;
    /// The end of each stream, in order; none where it cannot be told now.
    fn tails(&self, streams: &[String]) -> Result<Vec<Option<Tail>>, StreamError>;
    /// This reader has these, durably: nothing behind them is given up before it is too old. `false`: not noted, as this
    /// instance is not one that counts, or not yet.
    fn note(&self, positions: &[Position]) -> Result<bool, StreamError>;
}

/// Why streams could not be read. A retry is safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    #[error("the outcome streams cannot be read: {0}")]
    Store(String),
    #[error("entry {id} of the outcome stream {stream} cannot be read: {reason}")]
    Frame { stream: String, id: StreamId, reason: String },
}
