//! What the reader asks of others: what is in an element, and where an unreadable one is buried.
//!
//! An element is what stands in a list: one request, or many. The reader knows positions and counts, never formats.

use bytes::Bytes;

use crate::domain::UnixMs;
use crate::intake::QueueId;
use crate::redis::Command;

use super::units::UnitId;

/// A request found in an element: encoded, with its acceptance set.
#[derive(Clone, Debug)]
pub struct Decoded {
    pub queue: QueueId,
    pub record: Bytes,
}

/// Why something cannot be read as a request. It may be shown to whoever pushed it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct DeadReason {
    /// A word that programs may compare: `too_large`, …
    pub code: &'static str,
    pub detail: String,
}

/// An element, or the part of one, that is no request.
#[derive(Clone, Debug)]
pub struct Dead {
    pub element: Bytes,
    /// Bytes of the whole, where `element` is only its beginning.
    pub cut_from: Option<u64>,
    pub reason: DeadReason,
}

/// What was found in an element; it may hold both.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    pub requests: Vec<Decoded>,
    pub dead: Vec<Dead>,
}

impl Contents {
    pub fn clear(&mut self) {
        self.requests.clear();
        self.dead.clear();
    }
}

/// Takes elements apart.
pub trait Elements: Send + Sync + 'static {
    /// Adds to `out` what is in an element of this unit, in order. An error is an element that is unreadable as a
    /// whole: what was added for it does not count.
    fn decode(
        &self,
        unit: UnitId,
        element: &Bytes,
        now: UnixMs,
        out: &mut Contents,
    ) -> Result<(), DeadReason>;
}

/// Keeps what could not be read.
pub trait Graveyard: Send + Sync + 'static {
    /// One command that keeps these durably, all or none. A refusal with the code `FULL` says that there is no room.
    /// It may be sent again when its fate is unknown, so one may be kept twice.
    fn bury(&self, unit: UnitId, dead: &[Dead], now: UnixMs) -> Command;
}
