//! The port to a wallet elsewhere: a service or a database that answers late, out of order, or not at all.
//!
//! What an adapter promises: it sends what it is given once, under the ids it is given, answers entry by entry in
//! the order of the batch, and calls a result `Succeeded` or `Failed` only on the service's word for that very id.
//! Whatever else happens (a timeout, a broken connection, a 5xx, a reply it cannot read) is a [`CallError`], after
//! which every entry is unknown: the transfer may have been done. It sends again only what the service itself says it
//! has rolled back whole, within the deadline: when else to send again, and how much at a time, is decided by
//! whoever calls. No campaign and no queue is
//! known here.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::TransferBatch;
use crate::domain::TransferStatus;

/// Bytes of a wallet's reference that are kept; a longer one is cut at a character.
pub const WALLET_REF_BYTES_MAX: usize = 64;

/// What the wallet says of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: TransferStatus,
    /// The wallet's own name for the movement, empty if it gave none; at most [`WALLET_REF_BYTES_MAX`].
    pub wallet_ref: String,
}

/// What the wallet has on record for an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnRecord {
    pub answer: Answer,
    /// Minor units, where the wallet tells it.
    pub amount: Option<u64>,
}

/// Why a call gave no answers. In every case each entry may have been decided, and only the same id and body,
/// sent again, will tell; the kind says how to go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The deadline passed without an answer.
    #[error("no answer within {after_ms} ms")]
    TimedOut { after_ms: u64 },
    /// The connection could not be made, or broke; or the answer was a 5xx or cannot be read as the contract
    /// says.
    #[error("{0}")]
    Unknown(String),
    /// The wallet asks to be spared (429, 503, too many connections).
    #[error("{reason}")]
    Overloaded { reason: String, retry_after: Option<Duration> },
    /// The wallet does not take our word for who we are (401, 403): nothing will succeed until somebody mends
    /// the credentials.
    #[error("{0}; check the credentials of the wallet in the settings")]
    Unauthorized(String),
    /// The batch is larger than the wallet takes (413): send less at a time.
    #[error("{0}")]
    TooLarge(String),
    /// The wallet does not understand the call (another 4xx, a redirect): it does not speak the contract, or
    /// the URL is wrong.
    #[error("{0}; check the wallet's URL and run `hongbao wallet check`")]
    Rejected(String),
}

/// A call on its way.
pub type Reply<T> = Pin<Box<dyn Future<Output = Result<T, CallError>> + Send + 'static>>;

/// Calls run on a tokio runtime, several at once; dropping a reply gives up waiting and undoes nothing.
pub trait RemoteWallet: Send + Sync + 'static {
    /// The UUID that was made with the wallet's data.
    fn identity(&self) -> Reply<String>;
    /// Has the batch decided, one answer an entry, in order. Never holds a burn.
    fn transfer(&self, batch: Arc<TransferBatch>, deadline: Duration) -> Reply<Vec<Answer>>;
    /// Takes the ids out of use: `Failed(Burned)`, or what was recorded before the burn came.
    fn burn(&self, ids: Vec<String>, deadline: Duration) -> Reply<Vec<Answer>>;
    /// What is on record for each id, in order; `None` where nothing is. No side effect.
    fn lookup(&self, ids: Vec<String>, deadline: Duration) -> Reply<Vec<Option<OnRecord>>>;
}
