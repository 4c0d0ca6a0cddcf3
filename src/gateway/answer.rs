//! The bodies of good answers, written from what the ports say.
//!
//! Nothing is decided here. The bodies borrow from the ports' answers and are written once into the bytes
//! that go out; the 202 of a single request, the hottest of them, is put together by hand.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::port::{BatchStanding, CampaignStanding, Guarantee, ParkedPage, Standing, Tally};
use crate::domain::{Status, UnixMs, WaitReason};
use crate::request::fault::Fault;
use crate::request::rfc3339::Rfc3339;

/// A response with a body of this type.
pub fn with_body(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A JSON response.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(body).expect("the bodies have only string keys");
    with_body(status, "application/json", bytes)
}

/// Where a request stands.
#[derive(Serialize, ToSchema)]
#[schema(as = Status)]
pub struct StatusBody<'a> {
    id: &'a str,
    /// ACCEPTED, QUEUED, PROCESSING, UNKNOWN, SUCCEEDED, FAILED, CANCELED, EXPIRED or REVERSED.
    status: &'static str,
    /// Whether the request needs nothing more from anyone.
    r#final: bool,
    /// Why it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Why it was not paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    campaign: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    payee: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    payer: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    merchant: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    agreement: &'a str,
    /// The request that a reversal takes back.
    #[serde(skip_serializing_if = "str::is_empty")]
    original: &'a str,
    /// Minor units.
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    batch: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    remark: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'a RawValue>,
    #[schema(value_type = String, format = DateTime)]
    accepted_at: Rfc3339,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Rfc3339,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    settled_at: Option<Rfc3339>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt_at: Option<Rfc3339>,
    attempts: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    wallet_ref: &'a str,
}

fn time(at: UnixMs) -> Option<Rfc3339> {
    (at != 0).then_some(Rfc3339(at))
}

impl<'a> From<&'a Standing> for StatusBody<'a> {
    fn from(standing: &'a Standing) -> StatusBody<'a> {
        // Whoever has a merchant is a collection, or takes one back.
        let collects = !standing.merchant.is_empty();
        let (payee, payer) = if collects { ("", &*standing.party) } else { (&*standing.party, "") };
        // An id that was burned before it was ever seen has no money to tell of.
        let money = standing.amount > 0;
        StatusBody {
            id: &standing.id,
            status: standing.status.as_str(),
            r#final: standing.status.is_final(),
            reason: standing.reason.map(|reason| reason.as_str()),
            code: standing.code.map(|code| code.as_str()),
            campaign: &standing.campaign,
            payee,
            payer,
            merchant: &standing.merchant,
            agreement: &standing.agreement,
            original: &standing.original,
            amount: money.then_some(standing.amount),
            currency: money.then_some(&standing.currency),
            batch: &standing.batch,
            remark: &standing.remark,
            metadata: serde_json::from_str(&standing.metadata).ok(),
            accepted_at: Rfc3339(standing.accepted_at),
            updated_at: Rfc3339(standing.updated_at),
            settled_at: time(standing.settled_at),
            next_attempt_at: time(standing.next_attempt_at),
            attempts: standing.attempts,
            wallet_ref: &standing.wallet_ref,
        }
    }
}

pub fn status(code: StatusCode, standing: &Standing) -> Response {
    json(code, &StatusBody::from(standing))
}

/// The first answer to a request that is durable.
#[derive(ToSchema)]
#[schema(as = Accepted)]
#[allow(dead_code, reason = "the body is written by hand; this is its schema")]
pub struct AcceptedBody {
    id: String,
    /// ACCEPTED
    status: String,
    /// What "durable" means on this instance.
    durability: String,
    /// "deferred" where the id was not looked up: whether it repeats an earlier one shows when it is settled.
    /// Absent where it was.
    duplicate_check: Option<String>,
    #[schema(format = DateTime)]
    accepted_at: String,
    /// A median (p50), from the place in line and the rate at which the line moves: as many are done before it as
    /// after, as long as the wallet goes on as it does. No promise.
    #[schema(format = DateTime)]
    estimated_completion_at: String,
}

/// 202 with a Location. The id comes from the id alphabet, in which nothing needs escaping in JSON.
pub fn accepted(
    id: &str,
    stated: &str,
    guarantee: &Guarantee,
    accepted_at: UnixMs,
    completion_at: UnixMs,
) -> Response {
    let mut body = Vec::with_capacity(224);
    let deferred: &[u8] =
        if guarantee.is_duplicate_check_deferred { b"\",\"duplicate_check\":\"deferred" } else { b"" };
    let parts: [&[u8]; 10] = [
        b"{\"id\":\"",
        id.as_bytes(),
        b"\",\"status\":\"ACCEPTED\",\"durability\":\"",
        guarantee.durability.as_deref().unwrap_or(stated).as_bytes(),
        deferred,
        b"\",\"accepted_at\":\"",
        &Rfc3339(accepted_at).text(),
        b"\",\"estimated_completion_at\":\"",
        &Rfc3339(completion_at).text(),
        b"\"}",
    ];
    for part in parts {
        body.extend_from_slice(part);
    }
    let mut response = with_body(StatusCode::ACCEPTED, "application/json", body);
    if let Ok(location) = HeaderValue::try_from(location("/v1/disbursements/", id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// The path of an id: of its alphabet, only the slash and the plus do not stand for themselves there.
pub fn location(prefix: &str, id: &str) -> String {
    let mut path = String::with_capacity(prefix.len() + id.len() + 8);
    path.push_str(prefix);
    for character in id.chars() {
        match character {
            '/' => path.push_str("%2F"),
            '+' => path.push_str("%2B"),
            other => path.push(other),
        }
    }
    path
}

/// An item of a batch that was not accepted.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RefusedItem {
    /// Its place in `items`, from 0.
    pub index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub code: &'static str,
    pub detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
    /// "unknown" if the item may have been accepted all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<&'static str>,
}

/// The answer to a batch of which something was accepted, now or before.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchAccepted)]
pub struct BatchAcceptedBody<'a> {
    pub id: &'a str,
    pub status: &'static str,
    pub total_count: usize,
    pub accepted_count: usize,
    pub duplicate_count: usize,
    pub refused_count: usize,
    pub durability: &'a str,
    /// "deferred" where ids were not looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate_check: Option<&'static str>,
    /// Of the last of what was accepted now; a median (p50).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub estimated_completion_at: Option<Rfc3339>,
    pub refused: Vec<RefusedItem>,
}

/// A number for each state that has any, by its name.
struct ByState<'a>(&'a [u64; Status::ALL.len()]);

impl Serialize for ByState<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (status, value) in Status::ALL.iter().zip(self.0).filter(|(_, value)| **value > 0) {
            map.serialize_entry(status.as_str(), value)?;
        }
        map.end()
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = BatchStatus)]
pub struct BatchBody<'a> {
    id: &'a str,
    /// ACCEPTED, PROCESSING or FINISHED; says nothing of how the items ended.
    status: &'static str,
    r#final: bool,
    campaign: &'a str,
    currency: &'a str,
    /// As sent.
    total_count: u32,
    /// As sent.
    total_amount: u64,
    accepted_count: u64,
    accepted_amount: u64,
    #[schema(value_type = std::collections::BTreeMap<String, u64>)]
    counts: ByState<'a>,
    #[schema(value_type = std::collections::BTreeMap<String, u64>)]
    amounts: ByState<'a>,
    #[schema(value_type = String, format = DateTime)]
    accepted_at: Rfc3339,
}

impl<'a> From<&'a BatchStanding> for BatchBody<'a> {
    fn from(standing: &'a BatchStanding) -> BatchBody<'a> {
        let Tally { count, amount } = &standing.tally;
        let open: u64 = Status::ALL.iter().zip(count).filter(|(s, _)| !s.is_final()).map(|(_, n)| n).sum();
        let total: u64 = count.iter().sum();
        let untouched = count[Status::Accepted as usize - 1];
        BatchBody {
            id: &standing.head.id,
            status: match open {
                0 if standing.is_complete => "FINISHED",
                _ if untouched == total => "ACCEPTED",
                _ => "PROCESSING",
            },
            r#final: open == 0 && standing.is_complete,
            campaign: &standing.head.campaign,
            currency: &standing.head.currency,
            total_count: standing.head.total_count,
            total_amount: standing.head.total_amount,
            accepted_count: total,
            accepted_amount: amount.iter().sum(),
            counts: ByState(count),
            amounts: ByState(amount),
            accepted_at: Rfc3339(standing.accepted_at),
        }
    }
}

/// What canceling a batch came to, counted over its accepted items.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = BatchCanceled)]
pub struct BatchCanceledBody {
    pub id: String,
    pub total_count: u64,
    pub canceled_count: u64,
    /// Ended otherwise before the cancel got there.
    pub not_cancelable_count: u64,
    /// Not decided yet: the cancel is accepted and waits for the wallet.
    pub pending_count: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Campaign)]
pub struct CampaignBody<'a> {
    id: &'a str,
    /// active, paused or closed
    state: &'static str,
    currency: &'a str,
    budget: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount_max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_payee_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_payee_amount: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    starts_at: Option<Rfc3339>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    ends_at: Option<Rfc3339>,
    lane: &'static str,
    funded: u64,
    /// Funding accepted and not final.
    funding_pending: u64,
    /// Paid less what was reversed.
    spent: u64,
    /// Accepted and not final.
    reserved: u64,
    /// What may still be accepted under the budget.
    left: u64,
    #[schema(value_type = std::collections::BTreeMap<String, u64>)]
    counts: ByState<'a>,
    #[schema(value_type = std::collections::BTreeMap<String, u64>)]
    amounts: ByState<'a>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Rfc3339,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Rfc3339,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    closed_at: Option<Rfc3339>,
}

impl<'a> From<&'a CampaignStanding> for CampaignBody<'a> {
    fn from(standing: &'a CampaignStanding) -> CampaignBody<'a> {
        let CampaignStanding { campaign, books } = standing;
        CampaignBody {
            id: &campaign.id,
            state: campaign.state.as_str(),
            currency: campaign.currency.as_str(),
            budget: campaign.budget.minor_units(),
            amount_max: campaign.amount_max.map(|amount| amount.minor_units()),
            per_payee_count: campaign.per_payee_count,
            per_payee_amount: campaign.per_payee_amount.map(|amount| amount.minor_units()),
            starts_at: time(campaign.starts_at),
            ends_at: time(campaign.ends_at),
            lane: campaign.lane.as_str(),
            funded: books.funded,
            funding_pending: books.funding_pending,
            spent: books.spent,
            reserved: books.reserved,
            left: books.left(campaign.budget),
            counts: ByState(&books.count),
            amounts: ByState(&books.amount),
            created_at: Rfc3339(campaign.created_at),
            updated_at: Rfc3339(campaign.updated_at),
            closed_at: time(campaign.closed_at),
        }
    }
}

/// A page of a list.
#[derive(Serialize, ToSchema)]
#[schema(as = StatusPage)]
pub struct PageBody<'a> {
    pub data: Vec<StatusBody<'a>>,
    pub next_cursor: Option<&'a str>,
    pub has_more: bool,
}

/// A request that waits.
#[derive(Serialize, ToSchema)]
#[schema(as = Parked)]
pub struct ParkedBody<'a> {
    #[serde(flatten)]
    status: StatusBody<'a>,
    /// When it was parked first, whatever it waited for then.
    #[schema(value_type = String, format = DateTime)]
    waiting_since: Rfc3339,
}

/// A number for each reason that has any, by its name.
struct ByReason<'a>(&'a [(WaitReason, u64)]);

impl Serialize for ByReason<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let some = self.0.iter().filter(|(_, count)| *count > 0);
        serializer.collect_map(some.map(|(reason, count)| (reason.as_str(), count)))
    }
}

/// A page of what waits, the oldest first.
#[derive(Serialize, ToSchema)]
#[schema(as = ParkedPage)]
pub struct ParkedPageBody<'a> {
    data: Vec<ParkedBody<'a>>,
    next_cursor: Option<&'a str>,
    has_more: bool,
    /// Of all that match the filters.
    #[schema(value_type = std::collections::BTreeMap<String, u64>)]
    counts: ByReason<'a>,
}

impl<'a> From<&'a ParkedPage> for ParkedPageBody<'a> {
    fn from(page: &'a ParkedPage) -> ParkedPageBody<'a> {
        let body = |row: &'a super::port::ParkedRow| ParkedBody {
            status: StatusBody::from(&row.standing),
            waiting_since: Rfc3339(row.waiting_since),
        };
        ParkedPageBody {
            data: page.data.iter().map(body).collect(),
            next_cursor: page.next_cursor.as_deref(),
            has_more: page.next_cursor.is_some(),
            counts: ByReason(&page.counts),
        }
    }
}

/// How many were waiting and are due now.
#[derive(Serialize, ToSchema)]
#[schema(as = Released)]
pub struct ReleasedBody {
    pub released: u64,
}

/// The answer to a lookup.
#[derive(Serialize, ToSchema)]
#[schema(as = Found)]
pub struct FoundBody<'a> {
    pub data: Vec<StatusBody<'a>>,
    pub not_found: Vec<&'a str>,
}
