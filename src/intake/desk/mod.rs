//! The desk: decides what is accepted, remembers every id, and keeps the totals of the campaigns.
//!
//! One thread owns all of it ([`thread`]), so that no decision needs a lock; concurrent requests reach it
//! through a bounded queue and share one journal sync. [`decide`] is the deciding, [`rules`] its part that needs no
//! state, [`follow`] what settled requests mean for others, [`memory`] what is remembered and how it follows from the
//! journal, [`group`] what waits to be written together, [`campaigns`] the definitions and totals. Absent: HTTP,
//! settling, and any wait for a disk but the journal's.

pub mod campaigns;
pub mod decide;
pub mod follow;
pub mod group;
pub mod memory;
pub mod rules;
pub mod snapshot;
pub mod spans;
pub mod thread;

use std::sync::Arc;

use crate::domain::campaign::Books;
use crate::domain::{Campaign, Refusal, UnixMs};
use crate::intake::embedded::identity::Held;

pub use thread::{Desk, DeskThread};

#[derive(Clone, Debug)]
pub struct DeskOptions {
    /// Operations that may wait for the desk; past it the door answers `not_accepting`.
    pub ops_max: usize,
    /// Bytes of requests that may wait for the desk.
    pub ops_bytes_max: usize,
    /// The longest expected wait at which a request is still accepted.
    pub wait_ms_max: u64,
    /// Requests that may be accepted and unfinished.
    pub backlog_max: u64,
    /// Requests that may be parked; what would have to park in a queue without room is refused.
    pub parked_max: usize,
    /// Whether the wallet can take an id out of use.
    pub can_cancel: bool,
    /// How long the ids of a closed campaign are remembered.
    pub retention_ms: u64,
    /// The configured pace, 0 for none: what a wait is computed from before anything was measured.
    pub transfers_per_s: u64,
}

/// A refusal, with what the caller needs to act on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub code: Refusal,
    pub detail: String,
    /// Money fields that differ, for an id conflict.
    pub conflicts: Vec<&'static str>,
    pub retry_after_s: Option<u32>,
    /// Whether the request may have been accepted all the same (`accepted: "unknown"`).
    pub accepted_unknown: bool,
}

impl Refused {
    pub fn new(code: Refusal, detail: impl Into<String>) -> Refused {
        Refused {
            code,
            detail: detail.into(),
            conflicts: Vec::new(),
            retry_after_s: None,
            accepted_unknown: false,
        }
    }
}

/// What holds of an acceptance where it is not the same for every one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guarantee {
    /// What "durable" meant for this one; `None`: what the service says of all.
    pub durability: Option<Arc<str>>,
    /// The id was not looked up: whether it repeats an earlier one shows when it is settled.
    pub is_duplicate_check_deferred: bool,
}

#[derive(Clone, Debug)]
pub enum Decision {
    Accepted {
        accepted_at: UnixMs,
        estimated_completion_at: UnixMs,
    },
    /// The same id and digest stands already.
    Repeated(Held),
    Refused(Refused),
}

/// A batch's head, as sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchHead {
    pub client: String,
    pub id: String,
    pub campaign: String,
    pub currency: String,
    pub total_count: u32,
    pub total_amount: u64,
}

/// A change of a campaign's definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CampaignChange {
    /// Creates it, or replaces what may change (everything but the currency).
    Put(Box<Campaign>),
    Pause,
    Resume,
    Close,
}

/// A campaign with its totals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignStanding {
    pub campaign: Campaign,
    pub books: Books,
}
