//! What the gateway needs from the rest of the service, cut for the gateway.
//!
//! [`Accepting`] changes state and answers only when the change is durable; [`Looking`] reads, and answers
//! only from state that is durable; [`Waiting`] has what is parked; [`Vitals`] tells how the service is. The composition root joins them to
//! the parts behind. Futures are boxed: one allocation a call, of which a call of many requests is one.

use std::future::Future;
use std::pin::Pin;

use crate::domain::{Kind, PayoutCode, Status, UnixMs, WaitReason};
// What the desk is asked and answers in the same words as the door.
pub use crate::intake::desk::{BatchHead, CampaignChange, CampaignStanding, Guarantee, Refused};
pub use crate::request::Submission;

pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What became of one submitted request.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Durable, for the first time.
    Accepted {
        accepted_at: UnixMs,
        estimated_completion_at: UnixMs,
        guarantee: Guarantee,
    },
    /// The same id and digest was accepted before: how it stands now.
    Repeated(Box<Standing>),
    Refused(Refused),
}

/// Where a request stands: the status body before it is JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    pub id: String,
    pub kind: Kind,
    pub status: Status,
    pub reason: Option<WaitReason>,
    pub code: Option<PayoutCode>,
    pub campaign: String,
    /// Payee of a disbursement, payer of a collection.
    pub party: String,
    pub merchant: String,
    pub agreement: String,
    pub original: String,
    pub batch: String,
    pub amount: u64,
    pub currency: String,
    pub remark: String,
    pub metadata: String,
    pub accepted_at: UnixMs,
    pub updated_at: UnixMs,
    /// Zero until final.
    pub settled_at: UnixMs,
    /// Zero unless waiting for a known time.
    pub next_attempt_at: UnixMs,
    pub attempts: u32,
    pub wallet_ref: String,
}

/// Counts and amounts of a set of requests by state, in the order of `Status::ALL`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub count: [u64; Status::ALL.len()],
    pub amount: [u64; Status::ALL.len()],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchStanding {
    pub head: BatchHead,
    pub accepted_at: UnixMs,
    /// Of the items that were accepted.
    pub tally: Tally,
    /// Whether the tally misses nothing that was accepted before the call; if not, nothing is final yet.
    pub is_complete: bool,
}

/// What changes state.
///
/// The door has judged every value but not what depends on state or order. In particular a request whose
/// `not_after` has passed comes here all the same, to be refused as `Refusal::Expired` unless its id is known:
/// a repeat of an accepted id gets its state, and only here is it certain which one it is.
pub trait Accepting: Send + Sync + 'static {
    /// One verdict a request, in order, each durable. Under a batch id all are refused if it stands for another batch.
    fn submit(
        &self,
        head: Option<BatchHead>,
        requests: Vec<Submission>,
    ) -> Answer<'_, Result<Vec<Verdict>, Refused>>;
    /// Submits one request (fund, defund, cancel) and waits a bounded time for its final state; answers the
    /// state it has then. A cancel carries the id it burns in both `id` and `original`, no campaign, and its
    /// answer is the state of that id.
    fn submit_and_wait(&self, request: Submission) -> Answer<'_, Result<Standing, Refused>>;
    fn change_campaign(
        &self,
        client: String,
        id: String,
        change: CampaignChange,
    ) -> Answer<'_, Result<CampaignStanding, Refused>>;
}

/// Which requests to list. Times are Unix ms, inclusive, zero: no bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListQuery {
    pub client: String,
    pub campaign: Option<String>,
    pub party: Option<String>,
    pub status: Option<Status>,
    pub batch: Option<String>,
    pub accepted_from: UnixMs,
    pub settled_from: UnixMs,
    pub kind: Option<Kind>,
    pub limit: u32,
    /// As an earlier page gave it.
    pub cursor: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    pub data: Vec<Standing>,
    pub next_cursor: Option<String>,
}

/// What reads. All answers are limited to the client's own.
pub trait Looking: Send + Sync + 'static {
    /// One answer an id, in order.
    fn find(&self, client: String, ids: Vec<String>) -> Answer<'_, Result<Vec<Option<Standing>>, Refused>>;
    fn list(&self, query: ListQuery) -> Answer<'_, Result<Page, Refused>>;
    fn batch(&self, client: String, id: String) -> Answer<'_, Result<Option<BatchStanding>, Refused>>;
    fn campaign(&self, client: String, id: String) -> Answer<'_, Result<Option<CampaignStanding>, Refused>>;
}

/// Which of the parked requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedFilter {
    pub client: String,
    pub reason: Option<WaitReason>,
    pub campaign: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedQuery {
    pub filter: ParkedFilter,
    pub limit: u32,
    /// As an earlier page gave it.
    pub cursor: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ParkedRow {
    pub standing: Standing,
    pub waiting_since: UnixMs,
}

/// Those that have waited longest first.
#[derive(Clone, Debug, PartialEq)]
pub struct ParkedPage {
    pub data: Vec<ParkedRow>,
    pub next_cursor: Option<String>,
    /// Of all that the filter lets through.
    pub counts: Vec<(WaitReason, u64)>,
}

/// What waits for a time, limited to the client's own.
pub trait Waiting: Send + Sync + 'static {
    fn parked(&self, query: ParkedQuery) -> Answer<'_, Result<ParkedPage, Refused>>;
    /// Makes what the filter lets through, and of it only `ids` if there are any, due now; how many were waiting.
    fn release(&self, filter: ParkedFilter, ids: Option<Vec<String>>) -> Answer<'_, Result<u64, Refused>>;
}

/// Whether this instance can accept durably, and what else an operator wants to see at a glance.
#[derive(Clone, Debug, PartialEq)]
pub struct Readiness {
    pub ready: bool,
    /// Why not, and what to do.
    pub reason: Option<String>,
    /// Further facts by name, shown in the body (`backlog`, `wallet`, `breaker`, `durability`, …).
    pub facts: Vec<(&'static str, String)>,
}

pub trait Vitals: Send + Sync + 'static {
    fn readiness(&self) -> Readiness;
    /// Prometheus text format.
    fn metrics(&self) -> String;
    /// What a 202 says of durability (`fsync` on the embedded journal).
    fn durability(&self) -> &'static str;
}
