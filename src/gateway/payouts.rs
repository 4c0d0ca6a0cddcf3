//! Calls about one request: pay, collect, reverse, cancel, and where it stands.
//!
//! The first two are the hot path: one pass over the body, one record, one answer.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::body::{check_idempotency_key, text};
use super::port::{Standing, Submission, Verdict};
use super::problem::Problem;
use super::{Gateway, PathId, answer};
use crate::domain::{self, Amount, Currency, Kind, Lane, Refusal, Status};
use crate::request::fault::{FaultCode, Faults, Place};
use crate::request::judge::{Bench, Expect, Inherited, Judge, blank};
use crate::request::{diagnose, shape, wire};

pub async fn disburse(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, Problem> {
    submit(&gateway, request, Expect::Disbursement).await
}

pub async fn collect(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, Problem> {
    submit(&gateway, request, Expect::Collection).await
}

async fn submit(gateway: &Gateway, request: Request, expect: Expect) -> Result<Response, Problem> {
    let call = gateway.open(request).await?;
    let text = text(&call.body)?;
    let mut faults = Faults::default();
    let payout = match wire::payout(text) {
        Some(payout) => payout,
        None => diagnose::payout(text, expect.shape(), &mut faults)?,
    };
    let bench = Bench { place: Place::Top, faults: &mut faults };
    let judged = Judge::new(call.client).payout(&payout, expect, Inherited::default(), bench);
    let (Some(submission), Some(id)) = (judged, &payout.id) else {
        return Err(Problem::faults(faults));
    };
    check_idempotency_key(&call.headers, &id.0)?;
    answer_one(gateway, submission, &id.0).await
}

async fn answer_one(gateway: &Gateway, submission: Submission, id: &str) -> Result<Response, Problem> {
    let mut verdicts = gateway.accepting.submit(None, vec![submission]).await?;
    match verdicts.pop() {
        Some(Verdict::Accepted { accepted_at, estimated_completion_at, guarantee }) => {
            let stated = gateway.vitals.durability();
            Ok(answer::accepted(id, stated, &guarantee, accepted_at, estimated_completion_at))
        }
        Some(Verdict::Repeated(standing)) => Ok(answer::status(StatusCode::OK, &standing)),
        Some(Verdict::Refused(refused)) => Err(refused.into()),
        None => Err(Problem::no_answer()),
    }
}

pub async fn status(
    State(gateway): State<Arc<Gateway>>,
    PathId(id): PathId,
    request: Request,
) -> Result<Response, Problem> {
    let client = gateway.clients.name(request.headers())?;
    let standing = find(&gateway, client, &id).await?;
    Ok(answer::status(StatusCode::OK, &standing))
}

async fn find(gateway: &Gateway, client: &str, id: &str) -> Result<Standing, Problem> {
    let found = gateway.looking.find(client.to_owned(), vec![id.to_owned()]).await?;
    let standing = found.into_iter().next().flatten();
    standing.ok_or_else(|| Problem::not_found(format!("no request with the id {id} is known here")))
}

/// Burns the id, whether or not it was ever seen. Any final state but CANCELED means that it came too late.
pub async fn cancel(
    State(gateway): State<Arc<Gateway>>,
    PathId(id): PathId,
    request: Request,
) -> Result<Response, Problem> {
    let client = gateway.open_bare(request).await?;
    let burn = cancel_record(&mut Judge::new(client), &id);
    let standing = gateway.accepting.submit_and_wait(burn).await?;
    match standing.status {
        Status::Canceled => Ok(answer::status(StatusCode::OK, &standing)),
        Status::Accepted | Status::Queued | Status::Processing | Status::Unknown => {
            Ok(answer::status(StatusCode::ACCEPTED, &standing))
        }
        Status::Succeeded | Status::Failed | Status::Expired | Status::Reversed => {
            let detail = format!("{id} is {} already", standing.status.as_str());
            Err(Problem::new(Refusal::NotCancelable, detail))
        }
    }
}

/// The request that burns `id`.
pub fn cancel_record(judge: &mut Judge<'_>, id: &str) -> Submission {
    let burn = domain::Request { id, original: id, lane: Lane::Control, ..blank(Kind::Cancel) };
    judge.record(burn, true)
}

/// Takes back all or some of what a request moved, by a request of its own that carries its parties.
pub async fn reverse(
    State(gateway): State<Arc<Gateway>>,
    PathId(original): PathId,
    request: Request,
) -> Result<Response, Problem> {
    let call = gateway.open(request).await?;
    let mut faults = Faults::default();
    let mut reading = diagnose::object(text(&call.body)?, &shape::REVERSE, &mut faults)?;
    let (id, amount, reason) = (reading.text("id"), reading.whole("amount"), reading.text("reason"));
    let mut bench = Bench { place: Place::Top, faults: &mut faults };
    let id = bench.need("id", id.as_ref().map(|id| &*id.0));
    let id = bench.id("id", id);
    let amount = bench.amount("amount", amount);
    let reason = bench.need("reason", reason.as_ref().map(|reason| &*reason.0));
    let reason = bench.remark("reason", reason);
    let Some(id) = id.filter(|_| faults.is_empty()) else { return Err(Problem::faults(faults)) };
    check_idempotency_key(&call.headers, id)?;
    let paid = find(&gateway, call.client, &original).await?;
    let (amount, currency) = reversible(&paid, amount)?;
    let back = domain::Request {
        id,
        amount,
        currency,
        campaign: &paid.campaign,
        party: &paid.party,
        merchant: &paid.merchant,
        agreement: &paid.agreement,
        original: &original,
        remark: reason,
        ..blank(Kind::Reversal)
    };
    let submission = Judge::new(call.client).record(back, false);
    answer_one(&gateway, submission, id).await
}

/// What may be taken back of `paid`. How much was taken back before is the wallet's to know.
fn reversible(paid: &Standing, amount: Option<Amount>) -> Result<(Amount, Currency), Problem> {
    let mut faults = Faults::default();
    let mut refuse = |field: &str, code: FaultCode, detail: String| {
        faults.add(Place::Top, field, code, detail);
    };
    let known = Amount::new(paid.amount).zip(Currency::parse(&paid.currency));
    let moved = matches!(paid.kind, Kind::Disbursement | Kind::Collection);
    // A reversal that was accepted found its request paid, and it stays so: refusing here never hides a repeat.
    match (known, paid.status) {
        (Some((whole, currency)), Status::Succeeded | Status::Reversed) if moved => {
            let amount = amount.unwrap_or(whole);
            if amount <= whole {
                return Ok((amount, currency));
            }
            refuse("amount", FaultCode::OutOfRange, format!("is more than the {whole} that was paid"));
        }
        (_, status) => {
            let (kind, status) = (paid.kind.as_str(), status.as_str());
            let detail = format!(
                "{} is a {kind} and {status}; only a disbursement or collection that SUCCEEDED is reversed",
                paid.id
            );
            refuse("", FaultCode::Mismatch, detail);
        }
    }
    Err(Problem::faults(faults))
}
