//! What the gateway asks for, joined from the desk, the view and the pipeline.
//!
//! A request is answered from the desk's index, which knows every remembered id exactly; the view answers for
//! what the desk has forgotten, and for everything that is asked by other things than an id. No decision is
//! made here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::domain::{Kind, Refusal, Request, Status, WaitReason};
use crate::gateway::port::{
    Accepting, Answer, BatchHead, BatchStanding, CampaignChange, CampaignStanding, Guarantee, ListQuery,
    Looking, Page, Refused, Standing, Submission, Tally, Verdict,
};
use crate::intake::desk::{Decision, Desk};
use crate::intake::embedded::entry::Batch;
use crate::intake::embedded::identity::{Held, known_id};
use crate::intake::{Intake, QueueId};
use crate::outcome::OutcomeView;
use crate::outcome::view::{ListRows, StandingRow, ViewError};

/// How long fund, defund and cancel wait for their final state before they tell what it is by then.
const FINAL_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a listing by batch waits for the view to catch up.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct Office {
    pub desk: Desk,
    pub view: Option<Arc<dyn OutcomeView>>,
    pub accepting: Arc<AtomicBool>,
    /// Where a view that has everything would stand now.
    pub log_end: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Office {
    fn check_open(&self) -> Result<(), Refused> {
        if self.accepting.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(Refused::new(
            Refusal::NotAccepting,
            "this instance is stopping; retry with the same id".to_owned(),
        ))
    }

    async fn decide(
        &self,
        head: Option<BatchHead>,
        submissions: Vec<Submission>,
    ) -> Result<Vec<Verdict>, Refused> {
        self.check_open()?;
        let decisions =
            self.desk.submit(head, submissions.into_iter().map(Submission::into_record).collect()).await?;
        Ok(decisions.into_iter().map(|decision| self.verdict(decision)).collect())
    }

    fn verdict(&self, decision: Decision) -> Verdict {
        match decision {
            Decision::Accepted { accepted_at, estimated_completion_at } => {
                Verdict::Accepted { accepted_at, estimated_completion_at, guarantee: Guarantee::default() }
            }
            Decision::Repeated(held) => Verdict::Repeated(Box::new(self.standing(&held))),
            Decision::Refused(from) => Verdict::Refused(from),
        }
    }

    pub(super) fn standing(&self, held: &Held) -> Standing {
        let request = held.request();
        let outcome = held.outcome();
        let (mut status, mut reason) = match &outcome {
            Some(outcome) => (outcome.status, outcome.reason),
            None if self.is_processing(held, &request) => (Status::Processing, None),
            None => (Status::Queued, Some(WaitReason::Backlog)),
        };
        if request.kind == Kind::Cancel {
            // The record of a cancel is what an id that was never accepted is known by.
            (status, reason) = match status {
                Status::Succeeded => (Status::Canceled, None),
                other => (other, reason),
            };
        }
        let updated_at = outcome.as_ref().map_or(request.accepted_at, |outcome| outcome.at);
        Standing {
            status,
            reason,
            code: outcome.as_ref().and_then(|outcome| outcome.code),
            updated_at,
            settled_at: if status.is_final() { updated_at } else { 0 },
            next_attempt_at: outcome.as_ref().map_or(0, |outcome| outcome.next_attempt_at),
            attempts: outcome.as_ref().map_or(0, |outcome| outcome.attempts),
            wallet_ref: outcome.as_ref().map_or(String::new(), |outcome| outcome.wallet_ref.to_owned()),
            ..standing_of_request(&request)
        }
    }

    fn is_processing(&self, held: &Held, request: &Request<'_>) -> bool {
        let fair = self.desk.intake.fair_queue_count();
        let queue = QueueId::of(request.lane, request.campaign, fair);
        held.request_place != u64::MAX && self.desk.intake.is_dispatched(queue, held.request_place)
    }

    async fn find_one(&self, client: &str, id: &str) -> Result<Option<Standing>, Refused> {
        let ids = [id.to_owned()];
        let found = self.desk.find(client, &ids).await?;
        Ok(found.into_iter().flatten().next().map(|held| self.standing(&held)))
    }

    /// Waits until the view has read all that is durable now: for answers that must not miss an item.
    async fn catch_up(&self) -> Result<(), Refused> {
        let Some(view) = &self.view else { return Ok(()) };
        let end = (self.log_end)();
        let deadline = tokio::time::Instant::now() + CATCH_UP_MAX;
        while view.progress().cursor < end {
            if tokio::time::Instant::now() > deadline {
                let mut refused = Refused::new(
                    Refusal::NotAccepting,
                    "the outcome view is behind and would miss items; retry in a moment".to_owned(),
                );
                refused.retry_after_s = Some(2);
                return Err(refused);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Asks the view, on a thread that may block.
    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn OutcomeView) -> Result<T, ViewError> + Send + 'static,
    ) -> Result<Option<T>, Refused> {
        let Some(view) = self.view.clone() else { return Ok(None) };
        let answered = tokio::task::spawn_blocking(move || ask(&*view)).await;
        match answered {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(ViewError::Cursor(error))) => {
                Err(Refused::new(Refusal::InvalidField, format!("cursor: {error}")))
            }
            Ok(Err(error)) => Err(Refused::new(Refusal::NotAccepting, format!("the outcome view: {error}"))),
            Err(_) => Err(Refused::new(Refusal::NotAccepting, "the outcome view is not there".to_owned())),
        }
    }
}

/// Of what is accepted and has no outcome yet: it waits in its queue.
pub(super) fn standing_of_request(request: &Request<'_>) -> Standing {
    Standing {
        id: known_id(request).to_owned(),
        kind: request.kind,
        status: Status::Queued,
        reason: Some(WaitReason::Backlog),
        code: None,
        campaign: request.campaign.to_owned(),
        party: request.party.to_owned(),
        merchant: request.merchant.to_owned(),
        agreement: request.agreement.to_owned(),
        original: request.original.to_owned(),
        batch: request.batch.to_owned(),
        amount: request.amount.minor_units(),
        currency: request.currency.to_string(),
        remark: request.remark.to_owned(),
        metadata: request.metadata.to_owned(),
        accepted_at: request.accepted_at,
        updated_at: request.accepted_at,
        settled_at: 0,
        next_attempt_at: 0,
        attempts: 0,
        wallet_ref: String::new(),
    }
}

/// What the view is asked for a listing.
pub(super) fn rows_asked(query: ListQuery) -> ListRows {
    ListRows {
        client: query.client,
        campaign: query.campaign,
        party: query.party,
        status: query.status,
        batch: query.batch,
        accepted_from: query.accepted_from,
        settled_from: query.settled_from,
        kind: query.kind,
        limit: query.limit,
        cursor: query.cursor,
    }
}

pub(super) fn standing_of_row(row: StandingRow) -> Standing {
    Standing {
        id: row.id,
        kind: row.kind,
        // In the view, what is accepted and has no fact yet waits in its queue.
        status: if row.status == Status::Accepted { Status::Queued } else { row.status },
        reason: if row.status == Status::Accepted { Some(WaitReason::Backlog) } else { row.reason },
        code: row.code,
        campaign: row.campaign,
        party: row.party,
        merchant: row.merchant,
        agreement: row.agreement,
        original: row.original,
        batch: row.batch,
        amount: row.amount,
        currency: row.currency,
        remark: row.remark,
        metadata: row.metadata,
        accepted_at: row.accepted_at,
        updated_at: row.updated_at,
        settled_at: row.settled_at,
        next_attempt_at: row.next_attempt_at,
        attempts: row.attempts,
        wallet_ref: row.wallet_ref,
    }
}

impl Accepting for Office {
    fn submit(
        &self,
        head: Option<BatchHead>,
        requests: Vec<Submission>,
    ) -> Answer<'_, Result<Vec<Verdict>, Refused>> {
        Box::pin(self.decide(head, requests))
    }

    fn submit_and_wait(&self, request: Submission) -> Answer<'_, Result<Standing, Refused>> {
        Box::pin(async move {
            let damaged = |error: crate::domain::bytes::EntryError| {
                Refused::new(Refusal::InvalidField, error.to_string())
            };
            let decoded = Request::decode(&request.record).map_err(damaged)?;
            let (client, id) = (decoded.client.to_owned(), known_id(&decoded).to_owned());
            let finished = self.desk.wait_final(decoded.key_hash)?;
            let verdict = self.decide(None, vec![request]).await?.pop();
            match verdict {
                Some(Verdict::Refused(refused)) => return Err(refused),
                Some(Verdict::Repeated(standing)) if standing.status.is_final() => return Ok(*standing),
                Some(Verdict::Accepted { .. } | Verdict::Repeated(_)) | None => {}
            }
            // A wait that ends without an end is answered by the state as it is then.
            let _ = tokio::time::timeout(FINAL_WAIT_MAX, finished).await;
            let missing =
                || Refused::new(Refusal::NotFound, format!("{id} was not found after it was accepted"));
            self.find_one(&client, &id).await?.ok_or_else(missing)
        })
    }

    fn change_campaign(
        &self,
        client: String,
        id: String,
        change: CampaignChange,
    ) -> Answer<'_, Result<CampaignStanding, Refused>> {
        Box::pin(async move {
            self.check_open()?;
            self.desk.campaign(&client, &id, Some(change)).await
        })
    }
}

impl Looking for Office {
    fn find(&self, client: String, ids: Vec<String>) -> Answer<'_, Result<Vec<Option<Standing>>, Refused>> {
        Box::pin(async move {
            let held = self.desk.find(&client, &ids).await?;
            let mut standings: Vec<Option<Standing>> =
                held.iter().map(|held| held.as_ref().map(|held| self.standing(held))).collect();
            if standings.iter().all(Option::is_some) {
                return Ok(standings);
            }
            let missing: Vec<usize> = (0..ids.len()).filter(|at| standings[*at].is_none()).collect();
            let asked: Vec<String> = missing.iter().map(|at| ids[*at].clone()).collect();
            let rows = self.ask(move |view| view.find(&client, &asked)).await?.unwrap_or_default();
            for (at, row) in missing.into_iter().zip(rows) {
                standings[at] = row.map(standing_of_row);
            }
            Ok(standings)
        })
    }

    fn list(&self, query: ListQuery) -> Answer<'_, Result<Page, Refused>> {
        Box::pin(async move {
            if query.batch.is_some() && query.cursor.is_none() {
                self.catch_up().await?;
            }
            let asked = rows_asked(query);
            let page = self.ask(move |view| view.list(&asked)).await?;
            let page = page
                .ok_or_else(|| Refused::new(Refusal::NotAccepting, "this instance has no view".to_owned()))?;
            let data = page.data.into_iter().map(standing_of_row).collect();
            Ok(Page { data, next_cursor: page.next_cursor })
        })
    }

    fn batch(&self, client: String, id: String) -> Answer<'_, Result<Option<BatchStanding>, Refused>> {
        Box::pin(async move {
            let Some(stored) = self.desk.batch(&client, &id).await? else { return Ok(None) };
            let damaged = |error: crate::domain::bytes::EntryError| {
                Refused::new(Refusal::NotAccepting, error.to_string())
            };
            let batch = Batch::decode(&stored).map_err(damaged)?;
            let head = BatchHead {
                client: batch.client.to_owned(),
                id: batch.id.to_owned(),
                campaign: batch.campaign.to_owned(),
                currency: batch.currency.to_string(),
                total_count: batch.count,
                total_amount: batch.amount,
            };
            let end = (self.log_end)();
            let is_complete = self.view.as_ref().is_some_and(|view| view.progress().cursor >= end);
            let row = self.ask(move |view| view.batch(&client, &id)).await?.flatten();
            let tally = row.map_or_else(Tally::default, |row| Tally {
                count: row.tally.count,
                amount: row.tally.amount,
            });
            Ok(Some(BatchStanding { head, accepted_at: batch.accepted_at, tally, is_complete }))
        })
    }

    fn campaign(&self, client: String, id: String) -> Answer<'_, Result<Option<CampaignStanding>, Refused>> {
        Box::pin(async move {
            match self.desk.campaign(&client, &id, None).await {
                Ok(standing) => Ok(Some(standing)),
                Err(from) if from.code == Refusal::NotFound => Ok(None),
                Err(from) => Err(from),
            }
        })
    }
}
