//! The intake: named queues of accepted requests, what waits for a time, and who decides what is accepted.
//!
//! Three ports, cut for the pipeline: [`Intake`] is the queues, [`Shelf`] what waits for a time, [`Informed`] whoever
//! wants to hear of durable outcomes. A queue is a lane and one of its fair queues; campaigns are hashed over the fair
//! queues, which are served in turn, so that one campaign cannot starve another. What holds: an element is
//! read in order, and is gone only once its queue was acknowledged past it; reading changes nothing durable.
//! [`admission`] is what both intakes refuse for want of time or room, [`refusals`] counts what they refuse. Settling is not known here.

pub mod admission;
pub mod desk;
pub mod embedded;
pub mod redis;
pub mod refusals;

use bytes::Bytes;

use crate::domain::{Lane, UnixMs, WaitReason};
use desk::memory::SettledRow;

/// A queue: a lane, and one of its fair queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId {
    pub lane: Lane,
    pub fair: u8,
}

impl QueueId {
    /// The queue of a campaign in a lane of `fair_queue_count` fair queues.
    pub fn of(lane: Lane, campaign: &str, fair_queue_count: u8) -> QueueId {
        let hash = campaign.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        QueueId { lane, fair: ((hash >> 32) % u64::from(fair_queue_count.max(1))) as u8 }
    }

    /// Its position among all queues, in the order of service.
    pub fn position(self, fair_queue_count: u8) -> usize {
        self.lane as usize * usize::from(fair_queue_count) + usize::from(self.fair)
    }

    /// Its position among those that are paced, in the order of service; none: it is not.
    pub fn paced_position(self, fair_queue_count: u8) -> Option<usize> {
        self.position(fair_queue_count).checked_sub(usize::from(fair_queue_count))
    }
}

/// One request of a queue, as read.
#[derive(Clone, Debug)]
pub struct Element {
    /// Its number in the queue, from zero, without gaps.
    pub index: u64,
    /// Where it stands in the intake's storage; unique, and what an outcome refers to.
    pub place: u64,
    /// What it is blamed by if it crashes the process: the same in every process that meets it.
    pub mark: u64,
    /// Another process may have sent it to the wallet. The pipeline knows of its own earlier ones.
    pub may_be_sent: bool,
    /// The encoded request; shares its frame's memory.
    pub record: Bytes,
}

#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    #[error(transparent)]
    Journal(#[from] crate::journal::JournalError),
    #[error("the desk stopped earlier: {0}")]
    Stopped(String),
    #[error("what stands at {place} in the intake is not what was written: {reason}; run `hongbao audit`")]
    Damaged { place: u64, reason: String },
}

pub trait Intake: Send + Sync + 'static {
    /// Fair queues in each lane.
    fn fair_queue_count(&self) -> u8;
    /// Takes up to `count_max` elements from the read position of a queue and moves it on; what was read and
    /// not acknowledged comes again after a restart.
    fn read(&self, queue: QueueId, count_max: usize, out: &mut Vec<Element>) -> Result<(), IntakeError>;
    /// Whether `read` would find something.
    fn has_unread(&self, queue: QueueId) -> bool;
    /// Everything below `below_index` is done.
    fn ack(&self, queue: QueueId, below_index: u64) -> Result<(), IntakeError>;
    /// Accepted and not acknowledged.
    fn depth(&self, queue: QueueId) -> u64;
}

/// A request that waited and may be tried again.
#[derive(Clone, Debug)]
pub struct Due {
    pub record: Bytes,
    pub place: u64,
    pub mark: u64,
    /// Where the outcome stands that made it wait.
    pub entry_place: u64,
    pub attempts: u32,
    /// What it waited for.
    pub reason: WaitReason,
    /// That outcome was UNKNOWN.
    pub is_unknown: bool,
}

/// What waits for a time, as the feed sees it. Bounded: a queue without room is not read.
pub trait Shelf: Send + Sync + 'static {
    /// How many more may be read of each queue, in order, while `in_ring` requests may still come to wait.
    fn rooms(&self, queues: &[QueueId], in_ring: usize, out: &mut Vec<usize>);
    /// Whether any of these has room. If none has, the feed is woken when one may.
    fn has_room(&self, queues: &[QueueId], in_ring: usize) -> bool;
    /// When something is due next.
    fn next_due(&self) -> Option<UnixMs>;
    /// Hands out what is due; it stays where it is until an outcome says otherwise.
    fn take_due(&self, now: UnixMs, count_max: usize, out: &mut Vec<Due>);
}

/// Outcomes that are durable, in the order in which they were recorded.
pub struct Settled {
    pub rows: Vec<SettledRow>,
    /// End of the run in the outcome log.
    pub end: u64,
}

/// Whoever is told of every durable outcome.
pub trait Informed: Send + Sync + 'static {
    /// Hands over outcomes; gives them back if there is no room now.
    fn settled(&self, settled: Settled) -> Result<(), Settled>;
}
