//! The outcome log: what became of every request, appended durably, read by many from cursors of their own.
//!
//! Every reader applies `domain::transition`, so that a fact that comes twice or late changes nothing.

pub mod entry;
pub mod view;

use crate::domain::Request;
use entry::Outcome;

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
