//! What the gateway asks for, where the intake is Redis: joined from the door, the campaigns' registry and the outcome
//! view.
//!
//! A request is answered from the view, which has every outcome, and where that has none from what its id was
//! registered with. A repeat of which the view knows nothing is appended again before it is answered, unless
//! it is known to stand in a list: between its registration and its append a door may have died. Totals of campaigns are as of the view.

pub mod funding;
mod looking;
pub mod standing;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use self::standing::of_row;
use crate::app::Clock;
use crate::app::office::standing_of_request;
use crate::domain::{Kind, Lane, Refusal, Request, Status, record};
use crate::gateway::port::{
    Accepting, Answer, BatchHead, CampaignChange, CampaignStanding, Guarantee, Refused, Standing, Submission,
    Verdict,
};
use crate::intake::embedded::identity::known_id;
use crate::intake::redis::door::{Door, Finding, Repeat};
use crate::intake::redis::identity::KnownId;
use crate::intake::redis::registry::CampaignRegistry;
use crate::outcome::OutcomeView;
use crate::outcome::view::ViewError;

/// How long fund, defund and cancel wait for their final state before they tell what it is by then.
const FINAL_WAIT_MAX: Duration = Duration::from_secs(5);
/// How often the view is asked meanwhile; slower as it takes longer.
const FINAL_LOOK_MIN: Duration = Duration::from_millis(5);
const FINAL_LOOK_MAX: Duration = Duration::from_millis(100);
/// Decisions about campaigns that may be under way from here at a time.
const DECISIONS_MAX: usize = 64;

#[derive(Clone)]
pub struct RedisOffice {
    door: Door,
    registry: CampaignRegistry,
    view: Arc<dyn OutcomeView>,
    accepting: Arc<AtomicBool>,
    clock: Clock,
    decisions: Arc<Semaphore>,
}

/// What a known id still needs.
enum Want {
    Told(Box<Verdict>),
    /// To be appended again unless it was lately, then told.
    Again {
        repeat: Repeat,
        verdict: Box<Verdict>,
    },
}

impl RedisOffice {
    /// `accepting` is cleared when the service stops.
    pub fn new(
        door: Door,
        registry: CampaignRegistry,
        view: Arc<dyn OutcomeView>,
        accepting: Arc<AtomicBool>,
        clock: Clock,
    ) -> RedisOffice {
        let decisions = Arc::new(Semaphore::new(DECISIONS_MAX));
        RedisOffice { door, registry, view, accepting, clock, decisions }
    }

    fn check_open(&self) -> Result<(), Refused> {
        if self.accepting.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(Refused::new(Refusal::NotAccepting, "this instance is stopping; retry with the same id"))
    }

    async fn decide(
        &self,
        head: Option<BatchHead>,
        submissions: Vec<Submission>,
    ) -> Result<Vec<Verdict>, Refused> {
        self.check_open()?;
        let records: Vec<Vec<u8>> = submissions.into_iter().map(Submission::into_record).collect();
        let findings = self.door.submit(head, records).await?;
        self.verdicts(findings).await
    }

    async fn verdicts(&self, findings: Vec<Finding>) -> Result<Vec<Verdict>, Refused> {
        let mut rows = self.rows_of(&findings).await?.into_iter();
        let mut verdicts: Vec<Option<Verdict>> = Vec::with_capacity(findings.len());
        let (mut again, mut waiting) = (Vec::new(), Vec::new());
        for finding in findings {
            let (held, is_fresh, record) = match finding {
                Finding::Accepted { accepted_at, estimated_completion_at, guarantee } => {
                    verdicts.push(Some(Verdict::Accepted {
                        accepted_at,
                        estimated_completion_at,
                        guarantee,
                    }));
                    continue;
                }
                Finding::Refused(refused) => {
                    verdicts.push(Some(Verdict::Refused(refused)));
                    continue;
                }
                Finding::Known { held, is_fresh, record } => (held, is_fresh, record),
            };
            let row = rows.next().flatten();
            match self.want(&held, row, is_fresh, record) {
                Want::Told(verdict) => verdicts.push(Some(*verdict)),
                Want::Again { repeat, verdict } => {
                    waiting.push((verdicts.len(), verdict));
                    verdicts.push(None);
                    again.push(repeat);
                }
            }
        }
        if !again.is_empty() {
            let pushed = self.door.push_again(again).await?;
            for ((at, verdict), refused) in waiting.into_iter().zip(pushed) {
                verdicts[at] = Some(refused.map_or(*verdict, Verdict::Refused));
            }
        }
        Ok(verdicts.into_iter().flatten().collect())
    }

    /// How the known ones stand, in their order.
    async fn rows_of(&self, findings: &[Finding]) -> Result<Vec<Option<Standing>>, Refused> {
        let known = findings.iter().filter_map(|finding| match finding {
            Finding::Known { held, .. } => Some(held.request()),
            Finding::Accepted { .. } | Finding::Refused(_) => None,
        });
        let (mut client, mut ids) = (String::new(), Vec::new());
        for request in known {
            // All requests of a call are one client's.
            request.client.clone_into(&mut client);
            ids.push(known_id(&request).to_owned());
        }
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.ask(move |view| view.find(&client, &ids)).await?;
        Ok(rows.into_iter().map(|row| row.map(of_row)).collect())
    }

    /// What is to be told of a request whose id is known.
    fn want(&self, held: &KnownId, row: Option<Standing>, is_fresh: bool, mut record: Vec<u8>) -> Want {
        let before = held.request();
        let kind = Request::decode(&record).expect("the door has read it").kind;
        if kind == Kind::Cancel && before.kind != Kind::Cancel {
            return match row {
                Some(row) if row.status == Status::Canceled => {
                    Want::Told(Box::new(Verdict::Repeated(Box::new(row))))
                }
                Some(row) if row.status.is_final() => {
                    let detail = format!("it is {} already", row.status.as_str());
                    Want::Told(Box::new(Verdict::Refused(Refused::new(Refusal::NotCancelable, detail))))
                }
                Some(_) | None => {
                    let now = (self.clock)();
                    record::set_acceptance(&mut record, now, Lane::Control, false);
                    let verdict = Verdict::Accepted {
                        accepted_at: now,
                        estimated_completion_at: now + 1,
                        guarantee: Guarantee::default(),
                    };
                    let repeat = Repeat { record, appended_again_at: None };
                    Want::Again { repeat, verdict: Box::new(verdict) }
                }
            };
        }
        let is_told = row.is_some() || is_fresh;
        let standing = row.unwrap_or_else(|| standing_of_request(&before));
        let verdict = Box::new(Verdict::Repeated(Box::new(standing)));
        if is_told {
            return Want::Told(verdict);
        }
        // As it was registered: what a repeat says beside the money is not news.
        let registered = Request { key_hash: record::key_hash(&record), ..before };
        record.clear();
        registered.encode(&mut record);
        record::set_acceptance(&mut record, before.accepted_at, before.lane, true);
        Want::Again { repeat: Repeat { record, appended_again_at: held.appended_again_at() }, verdict }
    }

    /// Asks the view, on a thread that may block.
    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn OutcomeView) -> Result<T, ViewError> + Send + 'static,
    ) -> Result<T, Refused> {
        let view = self.view.clone();
        match tokio::task::spawn_blocking(move || ask(&*view)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(ViewError::Cursor(error))) => {
                Err(Refused::new(Refusal::InvalidField, format!("cursor: {error}")))
            }
            Ok(Err(error)) => Err(view_failed(&error.to_string())),
            Err(_) => Err(view_failed("it is not there")),
        }
    }

    /// Decides about campaigns, on a thread that may block.
    async fn with_registry<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&CampaignRegistry) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        let Ok(permit) = self.decisions.clone().try_acquire_owned() else {
            let detail = "too many decide about campaigns at once; retry in a moment";
            let mut refused = Refused::new(Refusal::BacklogFull, detail);
            refused.retry_after_s = Some(1);
            return Err(refused);
        };
        let registry = self.registry.clone();
        let decided = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            decide(&registry)
        });
        decided.await.unwrap_or_else(|_| {
            let detail = "the decision was cut off; retry, it changes nothing twice";
            Err(Refused { accepted_unknown: true, ..Refused::new(Refusal::AppendUnknown, detail) })
        })
    }

    /// Waits a bounded time until the view knows a final state; answers what it knows then.
    async fn await_final(&self, client: &str, id: &str) -> Result<Option<Standing>, Refused> {
        let deadline = tokio::time::Instant::now() + FINAL_WAIT_MAX;
        let mut pause = FINAL_LOOK_MIN;
        loop {
            let (client, ids) = (client.to_owned(), [id.to_owned()]);
            let rows = self.ask(move |view| view.find(&client, &ids)).await?;
            let standing = rows.into_iter().next().flatten().map(of_row);
            let is_final = standing.as_ref().is_some_and(|standing| standing.status.is_final());
            if is_final || tokio::time::Instant::now() + pause > deadline {
                return Ok(standing);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(FINAL_LOOK_MAX);
        }
    }

    async fn accept_and_wait(&self, submission: Submission) -> Result<Standing, Refused> {
        let record = submission.record.clone();
        let request = Request::decode(&record)
            .map_err(|error| Refused::new(Refusal::InvalidField, error.to_string()))?;
        let verdict = self.decide(None, vec![submission]).await?.pop();
        match verdict {
            Some(Verdict::Refused(refused)) => return Err(refused),
            Some(Verdict::Repeated(standing)) if standing.status.is_final() => return Ok(*standing),
            Some(Verdict::Accepted { .. } | Verdict::Repeated(_)) | None => {}
        }
        let id = known_id(&request);
        if let Some(standing) = self.await_final(request.client, id).await? {
            return Ok(standing);
        }
        // It is accepted, whether or not it can be looked up now.
        let looked = self.door.look(request.client, vec![id.to_owned()]).await;
        let known = looked.unwrap_or_default().pop().flatten();
        let now = (self.clock)();
        Ok(known.map_or_else(
            || standing_of_request(&Request { accepted_at: now, ..request }),
            |held| standing_of_request(&held.request()),
        ))
    }
}

/// Whatever was to be changed before the view was asked may have been.
fn view_failed(reason: &str) -> Refused {
    let detail = format!("the outcome view cannot be asked: {reason}; retry with the same id");
    let mut refused = Refused::new(Refusal::NotAccepting, detail);
    (refused.accepted_unknown, refused.retry_after_s) = (true, Some(1));
    refused
}

impl Accepting for RedisOffice {
    fn submit(
        &self,
        head: Option<BatchHead>,
        requests: Vec<Submission>,
    ) -> Answer<'_, Result<Vec<Verdict>, Refused>> {
        Box::pin(self.decide(head, requests))
    }

    fn submit_and_wait(&self, request: Submission) -> Answer<'_, Result<Standing, Refused>> {
        Box::pin(async move {
            match self.funding_of(&request)? {
                Some(funding) => self.fund(funding, request).await,
                None => self.accept_and_wait(request).await,
            }
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
            self.reconcile_for(&client, &id, &change).await?;
            let now = (self.clock)();
            let names = (client.clone(), id.clone());
            let campaign =
                self.with_registry(move |registry| registry.change(&names.0, &names.1, &change, now)).await?;
            self.standing_of_campaign(&campaign).await
        })
    }
}
