//! What the scribe needs from others, and whom it tells: small traits, cut for it.

use bytes::Bytes;

use crate::domain::{Outcome, Request};
use crate::intake::redis::UnitId;
use crate::journal::Journal;
use crate::redis::Command;

/// Outcomes that must not be told before something else is durable.
pub trait Barrier: Send + Sync + 'static {
    /// A point that covers everything done so far; asked when outcomes are appended.
    fn mark(&self) -> u64;
    /// Whether everything up to that point is durable.
    fn is_past(&self, mark: u64) -> bool;
}

/// The wallet is elsewhere: what it answered is durable there.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBarrier;

impl Barrier for NoBarrier {
    fn mark(&self) -> u64 {
        0
    }

    fn is_past(&self, _mark: u64) -> bool {
        true
    }
}

/// The wallet is in this process: its transfers stand in the journal, and count once that is synced.
pub struct JournalBarrier(pub Journal);

impl Barrier for JournalBarrier {
    fn mark(&self) -> u64 {
        self.0.position().offset
    }

    fn is_past(&self, mark: u64) -> bool {
        self.0.synced() >= mark
    }
}

/// An outcome on its way, with its request.
pub struct Item<'a> {
    /// Where the request was read.
    pub unit: UnitId,
    pub outcome: Outcome<'a>,
    pub request: Request<'a>,
    /// The request as encoded.
    pub record: &'a Bytes,
}

impl Item<'_> {
    /// Whether the request had been parked before this outcome.
    pub fn was_parked(&self) -> bool {
        self.outcome.follows_place != self.outcome.request_place
    }
}

/// Keeps what waits. Asked in this order, each answer awaited before the next, all before the outcomes count as
/// durable: so that a request is on record, then parked, then no more where it was parked before.
///
/// Commands are sent until they work, so that each must be harmless when it is repeated. One that is refused as
/// `STALE` is done with: the unit is another's by now, and so is what waits there.
pub trait Parker: Send + Sync + 'static {
    /// Parks those whose outcome is not final.
    fn park(&self, items: &[Item<'_>]) -> Vec<Command>;
    /// Removes what stood for those that were parked before.
    fn unpark(&self, items: &[Item<'_>]) -> Vec<Command>;
    /// All of it is durable.
    fn done(&self, items: &[Item<'_>]);
}

/// Tells others of outcomes that are durable. Sent once; what fails is counted and not tried again.
pub trait Announcer: Send + Sync + 'static {
    fn announce(&self, items: &[Item<'_>]) -> Vec<Command>;
}

/// Nobody is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAnnouncer;

impl Announcer for NoAnnouncer {
    fn announce(&self, _items: &[Item<'_>]) -> Vec<Command> {
        Vec::new()
    }
}
