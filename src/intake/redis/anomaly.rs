//! What keeps an instance from owning anything, in words for whoever runs it; and how it stands, for all threads.
//!
//! An [`Anomaly`] stays until what it says is no longer so; lost data stays until the process is restarted. What
//! closes the door is said here once ([`Anomaly::closes_door`]), so that readiness and door cannot differ.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::shaping::Others;

/// Why this instance owns nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Anomaly {
    /// A key that was there is not there any more.
    #[error(
        "Redis has lost its data: the key {key} was there and is gone (FLUSHALL, or a restart without its \
         append-only file). Requests that were accepted and only there are lost with it. Stop every instance, \
         restore Redis from its append-only file or a backup, or accept the loss; then start the instances again"
    )]
    DataGone { key: String },
    #[error(
        "the fleet was set up with {stored} (shards/fair queues) and this instance is configured with {ours}; \
         set intake.redis.shards and intake.fair_queues to what is stored"
    )]
    ShardsDiffer { ours: String, stored: String },
    #[error(
        "the wallet of this instance is {ours}, that of the fleet is {fleet}; point stored_value to the fleet's \
         wallet, or, if the whole fleet is to change over, run `hongbao fleet wallet set {ours} --reason …`"
    )]
    WalletDiffers { ours: String, fleet: String },
    #[error(
        "the outcome view of this instance is its own, and {other} is live: they would not know each other's \
         outcomes. Give all instances one shared view (outcome.view = \"postgres\"), or one each that follows all \
         (\"sqlite_each\"), or stop the other one"
    )]
    ViewPrivate { other: String },
    #[error(
        "the outcome view of this instance is not that of {other}, which is live ({theirs}, not {ours}); give all \
         instances the same one"
    )]
    ViewDiffers { ours: String, theirs: String, other: String },
    #[error(
        "the list {list} is configured here with {ours}, and by {other}, which is live, with {theirs}: requests would be \
         paid in another's name, or in another order. Give all instances the same intake.redis.lists"
    )]
    ListsDiffer { list: String, ours: String, theirs: String, other: String },
    /// Written by a version that this one cannot read.
    #[error(
        "the key {key} on the board has the format {format}, which this version does not know; update it"
    )]
    FormatUnknown { key: String, format: u32 },
    #[error("the key {key} holds something else than it should; see what wrote it, then delete it: {found}")]
    Unreadable { key: String, found: String },
}

impl Anomaly {
    /// A word for metrics and boards.
    pub fn code(&self) -> &'static str {
        match self {
            Anomaly::DataGone { .. } => "data_gone",
            Anomaly::ShardsDiffer { .. } => "shards_differ",
            Anomaly::WalletDiffers { .. } => "wallet_differs",
            Anomaly::ViewPrivate { .. } => "view_private",
            Anomaly::ViewDiffers { .. } => "view_differs",
            Anomaly::ListsDiffer { .. } => "lists_differ",
            Anomaly::FormatUnknown { .. } => "format_unknown",
            Anomaly::Unreadable { .. } => "unreadable",
        }
    }

    /// Every code, for metrics.
    pub const CODES: [&str; 8] = [
        "data_gone",
        "shards_differ",
        "wallet_differs",
        "view_private",
        "view_differs",
        "lists_differ",
        "format_unknown",
        "unreadable",
    ];

    /// Whether it is about outcome views alone, which may pass when another instance ends.
    pub fn is_of_view(&self) -> bool {
        matches!(self, Anomaly::ViewPrivate { .. } | Anomaly::ViewDiffers { .. })
    }

    /// Whether the door must refuse new work. Each does today: what is accepted here could not be vouched for.
    pub fn closes_door(&self) -> bool {
        match self {
            Anomaly::DataGone { .. }
            | Anomaly::ShardsDiffer { .. }
            | Anomaly::WalletDiffers { .. }
            | Anomaly::ViewPrivate { .. }
            | Anomaly::ViewDiffers { .. }
            | Anomaly::ListsDiffer { .. }
            | Anomaly::FormatUnknown { .. }
            | Anomaly::Unreadable { .. } => true,
        }
    }
}

/// Figures for metrics and readiness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Units that this instance holds.
    pub unit_count: usize,
    /// Live instances that take units, this one among them.
    pub member_count: usize,
    /// Units taken, and units lost without wanting it, since the start.
    pub acquired: u64,
    pub lost: u64,
}

/// How the owner's thread stands, for all others. Read, never waited for.
#[derive(Debug, Default)]
pub struct Standing {
    anomaly: Mutex<Option<Anomaly>>,
    unreachable: Mutex<Option<String>>,
    unit_count: AtomicUsize,
    member_count: AtomicUsize,
    acquired: AtomicU64,
    lost: AtomicU64,
    others: Mutex<Others>,
}

impl Standing {
    pub fn anomaly(&self) -> Option<Anomaly> {
        self.anomaly.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the door must refuse, if it must.
    pub fn door_closed(&self) -> Option<String> {
        self.anomaly().filter(Anomaly::closes_door).map(|anomaly| anomaly.to_string())
    }

    /// What keeps the owner's thread from Redis, if anything does.
    pub fn unreachable(&self) -> Option<String> {
        self.unreachable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn figures(&self) -> Figures {
        Figures {
            unit_count: self.unit_count.load(Ordering::Relaxed),
            member_count: self.member_count.load(Ordering::Relaxed),
            acquired: self.acquired.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
        }
    }

    /// What the other live instances have, by the board: as of their last heartbeats.
    pub fn others(&self) -> Others {
        *self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_others(&self, others: Others) {
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) = others;
    }

    /// Whether it is another one than before.
    pub(super) fn set_anomaly(&self, anomaly: Option<Anomaly>) -> bool {
        let mut held = self.anomaly.lock().unwrap_or_else(PoisonError::into_inner);
        // Lost data is not found again by looking again.
        if matches!(*held, Some(Anomaly::DataGone { .. })) || *held == anomaly {
            return false;
        }
        *held = anomaly;
        true
    }

    pub(super) fn set_unreachable(&self, reason: Option<String>) {
        *self.unreachable.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    pub(super) fn set_counts(&self, unit_count: usize, member_count: usize) {
        self.unit_count.store(unit_count, Ordering::Relaxed);
        self.member_count.store(member_count, Ordering::Relaxed);
    }

    pub(super) fn add(&self, acquired: usize, lost: usize) {
        self.acquired.fetch_add(acquired as u64, Ordering::Relaxed);
        self.lost.fetch_add(lost as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_data_stays_lost_and_is_told_with_what_to_do() {
        let standing = Standing::default();
        let wallet = Anomaly::WalletDiffers { ours: "a".to_owned(), fleet: "b".to_owned() };
        assert!(standing.set_anomaly(Some(wallet.clone())) && !standing.set_anomaly(Some(wallet)));
        assert!(standing.set_anomaly(None) && standing.door_closed().is_none());
        assert!(standing.set_anomaly(Some(Anomaly::DataGone { key: "{hongbao:3}:owner".to_owned() })));
        assert!(!standing.set_anomaly(None));
        let told = standing.door_closed().unwrap();
        for word in ["{hongbao:3}:owner", "FLUSHALL", "append-only file", "start the instances again"] {
            assert!(told.contains(word), "{word}: {told}");
        }
        assert!(Anomaly::CODES.contains(&standing.anomaly().unwrap().code()));
    }
}
