//! The door over Redis: looks ids up, registers the new ones, appends what was accepted, and answers.
//!
//! ```text
//!  callers ─> [queue] bounded ─> a door thread gathers all that waits
//!                                  1 heads of batches: register or find
//!                                  2 [judge] campaign, admission; ids: register, or look only
//!                                  3 [push] one RPUSH a list, WAIT for replicas
//!                                answers
//! ```
//!
//! Each arrow is one round trip for everything gathered; while it is out, more gathers. Several threads may do so
//! side by side, as several instances do: what decides between them is the register script. What holds:
//! - nothing is registered that would be refused, and nothing is refused before its id was looked up, so a repeat
//!   gets its state whatever the backlog or the campaign;
//! - registered comes before pushed, and pushed before answered: a crash in between is mended by the caller's retry,
//!   which finds the id and pushes it again (a list that holds a request twice is harmless, one that lost it is not);
//! - what is known to stand in a list is not appended again before it should have been settled, nor where there is no
//!   room: repeats bring no more work than the requests did, but for one append where an instance cannot know;
//! - "not accepted" is said only where nothing of the request can be in a list or stand registered.
//!
//! The door knows no outcome: what a known id has come to is for its caller to look up, who then has it pushed again
//! ([`Door::push_again`]) if nothing is known of it.

mod finish;
mod gather;
mod heads;
mod judge;
mod lately;
mod listed;
mod push;
mod queue;
mod refusal;
mod repeats;
mod rounds;
mod thread;

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::domain::UnixMs;
use crate::intake::desk::{BatchHead, Guarantee, Refused};
use crate::intake::embedded::identity::batch_key_hash;
use crate::shaping::Promises;

use super::identity::{KnownId, Taken};
use queue::{Op, Waiting};
pub use thread::{DoorCounts, DoorError, DoorParts, DoorThreads};

/// How ids are told apart at the door.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dedupe {
    /// Every id is looked up and registered before it is accepted.
    #[default]
    Strict,
    /// No id is: a repeat shows when it is settled, and an id is found once it has an outcome.
    Owner,
}

/// Replicas that are asked to confirm what was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas {
    pub count: u32,
    /// Of all that is waited for at one server, below the link's response timeout.
    pub timeout_ms: u64,
    /// What fewer confirmed is not accepted; with as many, the acceptance says how many they were.
    pub count_min: u32,
}

#[derive(Clone, Debug)]
pub struct DoorOptions {
    pub dedupe: Dedupe,
    /// Threads with a connection each.
    pub thread_count: usize,
    /// Calls that may wait; past it they are refused with `backlog_full`.
    pub ops_max: usize,
    /// Bytes of requests that may wait.
    pub ops_bytes_max: usize,
    /// The longest expected wait at which a request is still accepted.
    pub wait_ms_max: u64,
    /// Requests that may be accepted and unfinished.
    pub backlog_max: u64,
    /// Funding and cancels that may wait.
    pub control_backlog_max: u64,
    /// How long the ids of a closed campaign are remembered.
    pub retention_ms: u64,
    /// Whether the wallet can take an id out of use.
    pub can_cancel: bool,
    /// Bytes of one list element, below what readers take for an element (`element_bytes_max`).
    pub frame_bytes_max: usize,
    /// Requests in one list element.
    pub frame_count_max: usize,
    pub replicas: Option<Replicas>,
}

impl Default for DoorOptions {
    fn default() -> DoorOptions {
        DoorOptions {
            dedupe: Dedupe::Strict,
            thread_count: 2,
            ops_max: 4_096,
            ops_bytes_max: 64 << 20,
            wait_ms_max: 60_000,
            backlog_max: 10_000_000,
            control_backlog_max: 100_000,
            retention_ms: 7 * 86_400_000,
            can_cancel: true,
            frame_bytes_max: 64 << 10,
            frame_count_max: 256,
            replicas: None,
        }
    }
}

/// How things stand, as looked at once a gathering. Cheap to make: it is asked for every few hundred microseconds.
#[derive(Clone, Debug)]
pub struct Outlook {
    /// Accepted and not settled, over the fleet, as far as is known.
    pub backlog: u64,
    /// Waiting for a time.
    pub parked: u64,
    /// Funding and cancels among the backlog.
    pub control_backlog: u64,
    /// How long what comes now will take.
    pub promises: Arc<Promises>,
    pub fair_queue_count: u8,
    /// Nothing more fits on the shelf.
    pub is_parking_full: bool,
    /// Redis is nearly full.
    pub is_full: bool,
    /// Why nothing can be accepted now, if so.
    pub closed: Option<String>,
    /// What an append means, before any replica confirms it.
    pub durability: Arc<str>,
}

impl Default for Outlook {
    fn default() -> Outlook {
        Outlook {
            backlog: 0,
            parked: 0,
            control_backlog: 0,
            promises: Arc::default(),
            fair_queue_count: 1,
            is_parking_full: false,
            is_full: false,
            closed: None,
            durability: Arc::from("memory"),
        }
    }
}

/// What became of one request.
#[derive(Clone, Debug)]
pub enum Finding {
    /// Registered and appended, for the first time.
    Accepted {
        accepted_at: UnixMs,
        estimated_completion_at: UnixMs,
        guarantee: Guarantee,
    },
    /// The id stands for the same request; or, for a cancel, for what it would burn.
    Known {
        held: KnownId,
        /// Appended in the same go: it needs no second append.
        is_fresh: bool,
        /// The request as it came.
        record: Vec<u8>,
    },
    Refused(Refused),
}

/// A request whose id is known and of which no outcome is.
#[derive(Clone, Debug)]
pub struct Repeat {
    /// Its acceptance is set.
    pub record: Vec<u8>,
    /// When a repeat of it was last appended, as its id says.
    pub appended_again_at: Option<UnixMs>,
}

/// A batch as it stands registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownBatch {
    pub head: BatchHead,
    pub accepted_at: UnixMs,
    /// `None` if a crash kept it from being written (a repeat of the batch mends that).
    pub taken: Option<Taken>,
    /// The ids of what was taken, if asked for.
    pub items: Vec<String>,
}

/// The handle.
#[derive(Clone)]
pub struct Door {
    waiting: Arc<Waiting>,
    counts: Arc<DoorCounts>,
    now_ms: Arc<dyn Fn() -> UnixMs + Send + Sync>,
    dedupe: Dedupe,
}

impl Door {
    /// Decides encoded requests in order. Those whose caller chose no lane are marked so
    /// (`record::leave_lane_open`).
    pub async fn submit(
        &self,
        batch: Option<BatchHead>,
        requests: Vec<Vec<u8>>,
    ) -> Result<Vec<Finding>, Refused> {
        let (answer, decided) = oneshot::channel();
        let (count, bytes) = (requests.len() as u64, requests.iter().map(Vec::len).sum());
        let sent = self.send(Op::Submit(queue::Submit { batch, requests, answer }), bytes);
        sent.inspect_err(|refused| self.counts.refusals.note(refused, count, (self.now_ms)()))?;
        decided.await.unwrap_or_else(|_| Err(refusal::gone()))
    }

    /// Appends requests whose ids are known, each to the shard that knows its id, unless they were lately. One answer
    /// each: `None` where it stands in a list.
    pub async fn push_again(&self, repeats: Vec<Repeat>) -> Result<Vec<Option<Refused>>, Refused> {
        let (answer, pushed) = oneshot::channel();
        let bytes = repeats.iter().map(|repeat| repeat.record.len()).sum();
        self.send(Op::Push(queue::Push { repeats, answer }), bytes)?;
        pushed.await.map_err(|_| refusal::gone())
    }

    /// What stands under these ids, in order. With [`Dedupe::Owner`] nothing does.
    pub async fn look(&self, client: &str, ids: Vec<String>) -> Result<Vec<Option<KnownId>>, Refused> {
        if self.dedupe == Dedupe::Owner {
            return Ok(vec![None; ids.len()]);
        }
        let (answer, found) = oneshot::channel();
        let bytes = ids.iter().map(String::len).sum();
        self.send(Op::Look(queue::Look { client: client.to_owned(), ids, answer }), bytes)?;
        found.await.unwrap_or_else(|_| Err(refusal::gone()))
    }

    pub async fn batch(
        &self,
        client: &str,
        id: &str,
        with_items: bool,
    ) -> Result<Option<KnownBatch>, Refused> {
        let (answer, found) = oneshot::channel();
        let (client, id) = (client.to_owned(), id.to_owned());
        self.send(Op::Batch(queue::LookBatch { client, id, with_items, answer }), 0)?;
        found.await.unwrap_or_else(|_| Err(refusal::gone()))
    }

    pub fn counts(&self) -> &DoorCounts {
        &self.counts
    }

    pub fn dedupe(&self) -> Dedupe {
        self.dedupe
    }

    fn send(&self, op: Op, bytes: usize) -> Result<(), Refused> {
        if self.waiting.push(op, bytes) { Ok(()) } else { Err(refusal::busy(self.waiting.is_stopped())) }
    }
}

/// What decides the shard of a call: all its requests go to one.
fn place_hash(batch: Option<&BatchHead>, first_key_hash: u64) -> u64 {
    batch.map_or(first_key_hash, |head| batch_key_hash(&head.client, &head.id))
}
