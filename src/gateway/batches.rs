//! Calls about a batch: submit, where it stands, cancel.
//!
//! A batch is judged item by item: a faulty item is refused and the rest goes on. Refused as a whole is a
//! batch whose head is at fault, whose totals do not add up, or in which an amount cannot be read, because
//! then its total cannot be checked.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use tokio::task::JoinSet;

use super::answer::{BatchAcceptedBody, BatchBody, BatchCanceledBody, RefusedItem, json};
use super::body::{check_idempotency_key, text};
use super::payouts::cancel_record;
use super::port::{BatchHead, Guarantee, ListQuery, Refused, Standing, Submission, Verdict};
use super::problem::Problem;
use super::{Gateway, PathId};
use crate::domain::{Currency, Refusal, Status, UnixMs};
use crate::request::fault::{FaultCode, Faults, Place};
use crate::request::judge::{Bench, Expect, Inherited, Judge};
use crate::request::rfc3339::Rfc3339;
use crate::request::wire::Batch;
use crate::request::{diagnose, wire};

/// Cancels of one batch that wait for the wallet at a time.
const CANCELS_IN_FLIGHT_MAX: usize = 256;
const CANCEL_PAGE_COUNT: u32 = 1_000;

pub async fn submit(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, Problem> {
    let call = gateway.open(request).await?;
    let text = text(&call.body)?;
    let mut faults = Faults::default();
    let (batch, item_faults) = match wire::batch(text) {
        Some(batch) => (batch, Vec::new()),
        None => diagnose::batch(text, &mut faults)?,
    };
    let judged = judge(&batch, call.client, gateway.batch_items_max, faults, item_faults)?;
    check_idempotency_key(&call.headers, &judged.head.id)?;
    let (id, total_count) = (judged.head.id.clone(), judged.head.total_count as usize);
    let mut tally = Tally { refused: judged.refused, ..Tally::default() };
    if !judged.submissions.is_empty() {
        let submitted = judged.submissions.len();
        let verdicts = gateway.accepting.submit(Some(judged.head), judged.submissions).await?;
        if verdicts.len() != submitted {
            return Err(Problem::no_answer());
        }
        for (index, verdict) in judged.indexes.into_iter().zip(verdicts) {
            tally.count(index, verdict, &batch);
        }
    }
    tally.answer(&id, total_count, gateway.vitals.durability())
}

/// A batch whose head holds, split into what goes on and what is refused already.
struct Judged {
    head: BatchHead,
    submissions: Vec<Submission>,
    /// Where each submission stands in the batch.
    indexes: Vec<usize>,
    refused: Vec<RefusedItem>,
}

fn judge(
    batch: &Batch<'_>,
    client: &str,
    items_max: usize,
    mut faults: Faults,
    item_faults: Vec<Faults>,
) -> Result<Judged, Problem> {
    let mut currency = None;
    let head = judge_head(batch, client, items_max, &mut currency, &mut faults);
    let items = batch.items.as_ref().map_or(&[][..], |items| &items.kept);
    // Without a currency of the batch's own, its first item sets the one that the total is counted in.
    let first = items.first().and_then(|item| Currency::parse(&item.0.currency.as_ref()?.0));
    let inherited = Inherited {
        batch: batch.id.as_ref().map_or("", |id| &id.0),
        campaign: batch.campaign.as_ref().map(|campaign| &*campaign.0),
        currency,
    };
    let mut judge = Judge::new(client);
    let (mut submissions, mut indexes) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
    let mut refused: Vec<(usize, Faults)> = Vec::new();
    let mut item_faults = item_faults.into_iter();
    for (index, item) in items.iter().enumerate() {
        let mut faults = item_faults.next().unwrap_or_default();
        let bench = Bench { place: Place::Item(index), faults: &mut faults };
        let inherited = match &item.0.currency {
            Some(_) => Inherited { currency: currency.or(first), ..inherited },
            None => inherited,
        };
        match judge.payout(&item.0, Expect::Either, inherited, bench) {
            Some(submission) => {
                submissions.push(submission);
                indexes.push(index);
            }
            None => refused.push((index, faults)),
        }
    }
    let unreadable = items.iter().any(|item| item.0.amount.is_none());
    let whole = head.filter(|_| faults.is_empty() && !unreadable && !submissions.is_empty());
    let Some(mut head) = whole else {
        refused.into_iter().for_each(|(_, item)| faults.append(item));
        return Err(Problem::faults(faults));
    };
    check_totals(&head, batch)?;
    head.currency = currency.or(first).map(|currency| currency.to_string()).unwrap_or_default();
    let refused = refused.into_iter().map(|(index, faults)| faulty(index, batch, faults)).collect();
    Ok(Judged { head, submissions, indexes, refused })
}

fn judge_head(
    batch: &Batch<'_>,
    client: &str,
    items_max: usize,
    currency: &mut Option<Currency>,
    faults: &mut Faults,
) -> Option<BatchHead> {
    let mut bench = Bench { place: Place::Top, faults };
    let id = bench.need("id", batch.id.as_ref().map(|id| &*id.0));
    let id = bench.id("id", id);
    let campaign = bench.need("campaign", batch.campaign.as_ref().map(|campaign| &*campaign.0));
    let campaign = bench.id("campaign", campaign);
    *currency = bench.currency(batch.currency.as_ref().map(|currency| &*currency.0), &mut None);
    let total_count = bench.need("total_count", batch.total_count);
    let total_count = bench.count("total_count", total_count);
    let total_amount = bench.need("total_amount", batch.total_amount);
    let total_amount = bench.amount("total_amount", total_amount);
    match bench.need("items", batch.items.as_ref()).map(|items| items.count) {
        Some(0) => faults.add(Place::Top, "items", FaultCode::OutOfRange, "must hold at least one item"),
        Some(count) if count > items_max => {
            let detail = format!("may hold at most {items_max} items, not {count}; send several batches");
            faults.add(Place::Top, "items", FaultCode::OutOfRange, detail);
        }
        _ => {}
    }
    Some(BatchHead {
        client: client.to_owned(),
        id: id?.to_owned(),
        campaign: campaign?.to_owned(),
        currency: String::new(),
        total_count: total_count?,
        total_amount: total_amount?.minor_units(),
    })
}

/// Compares the totals with all items as sent, repeated and refused ones included: the totals guard against
/// a batch that lost or gained something on its way here.
fn check_totals(head: &BatchHead, batch: &Batch<'_>) -> Result<(), Problem> {
    let items = batch.items.as_ref().map_or(&[][..], |items| &items.kept);
    let sum: u128 = items.iter().filter_map(|item| item.0.amount).map(u128::from).sum();
    let mut faults = Faults::default();
    if head.total_count as usize != items.len() {
        let detail = format!("says {}, but there are {} items", head.total_count, items.len());
        faults.add(Place::Top, "total_count", FaultCode::Mismatch, detail);
    }
    if u128::from(head.total_amount) != sum {
        let detail = format!("says {}, but the items add up to {sum}", head.total_amount);
        faults.add(Place::Top, "total_amount", FaultCode::Mismatch, detail);
    }
    if faults.is_empty() { Ok(()) } else { Err(Problem::with_faults(Refusal::TotalsMismatch, faults)) }
}

fn item_id(batch: &Batch<'_>, index: usize) -> Option<String> {
    let id = batch.items.as_ref()?.kept.get(index)?.0.id.as_ref()?;
    Some(crate::request::fault::shown(&id.0))
}

fn faulty(index: usize, batch: &Batch<'_>, faults: Faults) -> RefusedItem {
    RefusedItem {
        index,
        id: item_id(batch, index),
        code: faults.refusal().as_str(),
        detail: faults.summary(),
        conflicts: Vec::new(),
        errors: faults.into_list(),
        accepted: None,
    }
}

/// What became of the items.
#[derive(Default)]
struct Tally {
    accepted_count: usize,
    duplicate_count: usize,
    completion_at: UnixMs,
    /// Of the first accepted item: all were appended in one go.
    guarantee: Option<Guarantee>,
    refused: Vec<RefusedItem>,
    /// The refusals that came from the accept side, for when nothing was accepted.
    causes: Vec<Refused>,
}

impl Tally {
    fn count(&mut self, index: usize, verdict: Verdict, batch: &Batch<'_>) {
        match verdict {
            Verdict::Accepted { estimated_completion_at, guarantee, .. } => {
                self.guarantee.get_or_insert(guarantee);
                self.accepted_count += 1;
                self.completion_at = self.completion_at.max(estimated_completion_at);
            }
            Verdict::Repeated(_) => self.duplicate_count += 1,
            Verdict::Refused(cause) => {
                let unknown = cause.accepted_unknown || cause.code == Refusal::AppendUnknown;
                self.refused.push(RefusedItem {
                    index,
                    id: item_id(batch, index),
                    code: cause.code.as_str(),
                    detail: cause.detail.clone(),
                    conflicts: cause.conflicts.clone(),
                    errors: Vec::new(),
                    accepted: unknown.then_some("unknown"),
                });
                self.causes.push(cause);
            }
        }
    }

    fn answer(mut self, id: &str, total_count: usize, stated: &str) -> Result<Response, Problem> {
        self.refused.sort_by_key(|item| item.index);
        if self.accepted_count + self.duplicate_count == 0 {
            return Err(self.all_refused());
        }
        let status = if self.accepted_count > 0 { StatusCode::ACCEPTED } else { StatusCode::OK };
        let guarantee = self.guarantee.unwrap_or_default();
        let body = BatchAcceptedBody {
            id,
            status: "ACCEPTED",
            total_count,
            accepted_count: self.accepted_count,
            duplicate_count: self.duplicate_count,
            refused_count: self.refused.len(),
            durability: guarantee.durability.as_deref().unwrap_or(stated),
            duplicate_check: guarantee.is_duplicate_check_deferred.then_some("deferred"),
            estimated_completion_at: (self.accepted_count > 0).then_some(Rfc3339(self.completion_at)),
            refused: self.refused,
        };
        let mut response = json(status, &body);
        if let Ok(location) = super::answer::location("/v1/batches/", id).try_into() {
            response.headers_mut().insert(axum::http::header::LOCATION, location);
        }
        Ok(response)
    }

    /// Nothing was accepted. Whatever may pass by itself is told first, because then the batch is to be sent
    /// again as it is; and if any item may have been accepted all the same, so may the batch.
    fn all_refused(self) -> Problem {
        let unknown = self.causes.iter().any(|cause| cause.accepted_unknown);
        let transient = |cause: &&Refused| matches!(cause.code.http_status(), 429 | 503);
        let told = self.causes.iter().filter(transient).max_by_key(|cause| cause.code);
        let told = told.or_else(|| self.causes.iter().min_by_key(|cause| cause.code)).cloned();
        let Some(told) = told else {
            return Problem::new(Refusal::InvalidField, "no item can be accepted").with_items(self.refused);
        };
        let code = match told.code.http_status() {
            429 | 503 | 422 => told.code,
            // The batch as a whole is well; its items are not.
            _ => Refusal::InvalidField,
        };
        let detail = format!("no item was accepted; the first reason: {}", told.detail);
        let conflicts = Vec::new();
        Problem::from(Refused { code, detail, conflicts, accepted_unknown: unknown, ..told })
            .with_items(self.refused)
    }
}

pub async fn status(
    State(gateway): State<Arc<Gateway>>,
    PathId(id): PathId,
    request: Request,
) -> Result<Response, Problem> {
    let client = gateway.clients.name(request.headers())?;
    match gateway.looking.batch(client.to_owned(), id.clone()).await? {
        Some(standing) => Ok(json(StatusCode::OK, &BatchBody::from(&standing))),
        None => Err(unknown_batch(&id)),
    }
}

fn unknown_batch(id: &str) -> Problem {
    Problem::not_found(format!("no batch with the id {id} is known here"))
}

/// Cancels each item that is not final. Sent again after an error, it goes on where it stopped.
pub async fn cancel(
    State(gateway): State<Arc<Gateway>>,
    PathId(id): PathId,
    request: Request,
) -> Result<Response, Problem> {
    let client = gateway.open_bare(request).await?.to_owned();
    if gateway.looking.batch(client.clone(), id.clone()).await?.is_none() {
        return Err(unknown_batch(&id));
    }
    let mut counts = BatchCanceledBody { id: id.clone(), ..BatchCanceledBody::default() };
    let mut waiting: JoinSet<Result<Standing, Refused>> = JoinSet::new();
    let mut cursor = None;
    loop {
        let query = ListQuery {
            client: client.clone(),
            batch: Some(id.clone()),
            limit: CANCEL_PAGE_COUNT,
            cursor,
            ..ListQuery::default()
        };
        let page = gateway.looking.list(query).await?;
        for item in page.data {
            counts.total_count += 1;
            if item.status.is_final() {
                counts.add(item.status);
                continue;
            }
            if waiting.len() >= CANCELS_IN_FLIGHT_MAX {
                counts.join(&mut waiting).await?;
            }
            let burn = cancel_record(&mut Judge::new(&client), &item.id);
            let accepting = Arc::clone(&gateway.accepting);
            waiting.spawn(async move { accepting.submit_and_wait(burn).await });
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    while !waiting.is_empty() {
        counts.join(&mut waiting).await?;
    }
    Ok(json(StatusCode::OK, &counts))
}

impl BatchCanceledBody {
    fn add(&mut self, status: Status) {
        match status {
            Status::Canceled => self.canceled_count += 1,
            Status::Succeeded | Status::Failed | Status::Expired | Status::Reversed => {
                self.not_cancelable_count += 1;
            }
            Status::Accepted | Status::Queued | Status::Processing | Status::Unknown => {
                self.pending_count += 1;
            }
        }
    }

    async fn join(&mut self, waiting: &mut JoinSet<Result<Standing, Refused>>) -> Result<(), Problem> {
        match waiting.join_next().await {
            None => {}
            Some(Ok(Ok(standing))) => self.add(standing.status),
            Some(Ok(Err(refused))) if refused.code == Refusal::NotCancelable => {
                self.not_cancelable_count += 1;
            }
            Some(Ok(Err(refused))) => return Err(refused.into()),
            Some(Err(_)) => return Err(Problem::no_answer()),
        }
        Ok(())
    }
}
