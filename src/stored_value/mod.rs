//! The stored-value port: the service that holds the wallets and is the only authority on what was paid.
//!
//! What an adapter promises: a batch is answered entry by entry, in order; an id has at most one effect, for
//! ever; a repeat with the same money fields gives the recorded result and other money fields give
//! `id_conflict`; a retryable refusal leaves the id free; a burned id can never be paid. `Unknown` is always an
//! honest answer. Adapters are named for the service they speak to. No campaign and no queue is known here.
//!
//! [`StoredValue`] is the port to the ledger in this process, which answers at once; [`remote`] is the port to a
//! wallet elsewhere, which may answer late, out of order, or never.

pub mod batch;
pub mod contract;
pub mod http;
pub mod ledger;
pub mod remote;

pub use batch::TransferBatch;

use crate::domain::TransferStatus;

/// How a settled batch becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durable {
    /// It is already, at the service.
    Now,
    /// Once this journal has synced to here.
    AtOffset(u64),
}

#[derive(Debug, thiserror::Error)]
pub enum StoredValueError {
    #[error("the ledger cannot record transfers: {0}; no result of this batch may be used")]
    Journal(#[from] crate::journal::JournalError),
    #[error(
        "the ledger's record at {place} is not readable: {reason}; run `hongbao audit` on the data folder"
    )]
    Record { place: u64, reason: String },
    #[error("the ledger stopped earlier: {0}; restart after the cause is removed")]
    Stopped(String),
}

/// One recorded result, looked up without side effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    NotFound,
    Found(TransferStatus),
}

pub trait StoredValue: Send + Sync + 'static {
    /// A UUID made with the wallet's data.
    fn identity(&self) -> String;
    /// Decides the whole batch, one result an entry. A burn answers `Failed(Burned)`, or what was recorded
    /// before it came.
    fn transfer(
        &self,
        batch: &TransferBatch,
        results: &mut Vec<TransferStatus>,
    ) -> Result<Durable, StoredValueError>;
    /// What is on record for these ids.
    fn lookup(&self, ids: &[&[u8]]) -> Result<Vec<Recorded>, StoredValueError>;
}
