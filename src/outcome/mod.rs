//! The outcome log: what became of every request, appended durably, read by many from cursors of their own.
//!
//! [`OutcomeLog`] is the port, [`embedded`] its adapter over the journal, [`redis`] the one over Redis streams;
//! [`view`] is the first reader, [`postgres`] the one that a fleet shares, and [`OutcomeView`] what is asked of either.
//! Every reader applies `domain::transition`, so that a fact that comes twice or late changes nothing.

pub mod embedded;
pub mod entry;
pub mod following;
pub mod postgres;
pub mod redis;
pub mod stream;
mod told;
pub mod view;

use bytes::Bytes;

use crate::domain::{Kind, Outcome, Request};
pub use told::Told;
use view::{BatchRow, ListRows, PageRows, Progress, StandingRow, TallyRow, ViewError};

/// What a reader of the log meets, in order. `place` is unique to a request and grows with acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact<'a> {
    Accepted { place: u64, request: Request<'a> },
    Moved(Outcome<'a>),
}

/// Where readers find facts: `read` hands over those from `cursor` on, at most about `count_max`, and
/// answers the cursor to go on from (equal to the one given when there is nothing new).
pub trait FactSource: Send + Sync + 'static {
    fn read(
        &self,
        cursor: u64,
        count_max: usize,
        apply: &mut dyn FnMut(Fact<'_>),
    ) -> Result<u64, SourceError>;
    /// The cursor at which a reader that has everything would stand.
    fn end(&self) -> u64;
}

#[derive(Debug, thiserror::Error)]
#[error("the outcome log cannot be read at {cursor}: {reason}")]
pub struct SourceError {
    pub cursor: u64,
    pub reason: String,
}

#[derive(Debug, thiserror::Error)]
pub enum OutcomeError {
    #[error("outcomes cannot be recorded: {0}")]
    Journal(#[from] crate::journal::JournalError),
    #[error("outcomes cannot be recorded, the log stopped earlier: {0}")]
    Stopped(String),
}

/// A run of outcomes that became durable together.
pub struct Appended {
    pub bytes: Vec<u8>,
    pub count: u32,
    /// Where the first stands; the others follow at their positions in `bytes`.
    pub place: u64,
    /// End of what must be durable.
    pub end: u64,
}

/// What is asked of a store that has read the log. Calls may block; they come from threads that may.
pub trait OutcomeView: Send + Sync + 'static {
    /// One answer an id, in order.
    fn find(&self, client: &str, ids: &[String]) -> Result<Vec<Option<StandingRow>>, ViewError>;
    /// A page, in ascending order of acceptance as the view met it.
    fn list(&self, asked: &ListRows) -> Result<PageRows, ViewError>;
    /// A batch by what its items say. `None` before the first item has arrived.
    fn batch(&self, client: &str, id: &str) -> Result<Option<BatchRow>, ViewError>;
    /// The tally of a campaign: of one kind, or of what pays out and collects.
    fn campaign(&self, client: &str, id: &str, kind: Option<Kind>) -> Result<Option<TallyRow>, ViewError>;
    /// How far it has got.
    fn progress(&self) -> Progress;
}

pub trait OutcomeLog: Send + Sync + 'static {
    /// Appends encoded outcomes, in order; with the request of each, where the log [wants](Self::wants_requests) them.
    fn append(&self, outcomes: &[u8], requests: Vec<Bytes>) -> Result<(), OutcomeError>;
    /// Whether the requests are to be handed over: where they stand nowhere else.
    fn wants_requests(&self) -> bool;
    /// The oldest run that was appended, is durable, and was not taken yet.
    fn take_durable(&self) -> Option<Appended>;
    /// Whether `take_durable` would answer one.
    fn has_durable(&self) -> bool;
    /// End of the last run that was appended.
    fn appended_end(&self) -> u64;
}
