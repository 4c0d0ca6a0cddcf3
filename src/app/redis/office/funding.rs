//! Funding and defunding: reserved in the campaigns' stream first, so that a fleet together never funds past a budget,
//! then asked of the wallet as any other request.
//!
//! A reservation ends when the request is final or was certainly not accepted. Whoever waits for it says so; if nobody
//! does, the registry's thread finds out from the view.

use std::sync::Arc;

use super::RedisOffice;
use crate::digest::Stamper;
use crate::domain::{Amount, Kind, Lane, Refusal, Request, Status};
use crate::gateway::port::{Accepting, CampaignChange, Refused, Standing, Submission, Verdict};
use crate::intake::redis::campaigns::{Funding, Step};
use crate::intake::redis::door::Dedupe;
use crate::intake::redis::registry::{FundingLook, Resend};
use crate::outcome::OutcomeView;

/// How the view sees requests that move funds, for the registry's thread.
pub fn funding_look(view: Arc<dyn OutcomeView>) -> FundingLook {
    Arc::new(move |client: &str, ids: &[String]| match view.find(client, ids) {
        Ok(rows) => Some(rows.into_iter().map(|row| row.map(|row| row.status)).collect()),
        Err(error) => {
            tracing::warn!(%error, "open funding cannot be looked up in the outcome view for now");
            None
        }
    })
}

impl RedisOffice {
    pub fn funding_look(&self) -> FundingLook {
        funding_look(self.view.clone())
    }

    /// Asks again for funding whose caller is gone, as its caller's retry would: the door finds its id, or takes it in.
    pub fn resend(&self) -> Resend {
        let office = self.clone();
        Box::new(move |registry, funding| {
            let Some(campaign) = registry.get(&funding.client, &funding.campaign) else { return };
            let Some(amount) = Amount::new(funding.amount) else { return };
            let kind = if funding.is_defund { Kind::Defund } else { Kind::Fund };
            let (client, id) = (funding.client.as_str(), funding.id.as_str());
            let request = Request::new(kind, client, id, &funding.campaign, amount, campaign.currency);
            let record = Stamper::default().encode(Request { lane: Lane::Control, ..request });
            let submission = Submission { record, lane_given: true };
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return tracing::warn!(%error, "funding cannot be asked for again for now"),
            };
            let refused = match runtime.block_on(office.submit(None, vec![submission])) {
                Err(refused) => refused,
                Ok(verdicts) => match verdicts.into_iter().next() {
                    Some(Verdict::Refused(refused)) => refused,
                    Some(Verdict::Accepted { .. } | Verdict::Repeated(_)) | None => return,
                },
            };
            let passes = matches!(refused.code, Refusal::BacklogFull | Refusal::NotAccepting);
            // Without look-ups an earlier one may still be on its way.
            let is_sure = !refused.accepted_unknown && !passes && office.door.dedupe() == Dedupe::Strict;
            if is_sure && let Err(error) = registry.conclude(client, id, Step::Failed) {
                tracing::warn!(reason = error.detail, id, "a reservation is not concluded yet");
            }
        })
    }

    pub(super) fn funding_of(&self, submission: &Submission) -> Result<Option<Funding>, Refused> {
        let request = Request::decode(&submission.record)
            .map_err(|error| Refused::new(Refusal::InvalidField, error.to_string()))?;
        Ok(Funding::of(&request, (self.clock)()))
    }

    pub(super) async fn fund(&self, funding: Funding, submission: Submission) -> Result<Standing, Refused> {
        self.check_open()?;
        let is_reserved_here = self.reserve(&funding).await?;
        let mut told = self.accept_and_wait(submission).await;
        let step = match &told {
            Ok(standing) => match standing.status {
                Status::Succeeded | Status::Reversed => Some(Step::Done),
                Status::Failed | Status::Canceled | Status::Expired => Some(Step::Failed),
                Status::Accepted | Status::Queued | Status::Processing | Status::Unknown => None,
            },
            // Another call's reservation under this id is not ours to give up.
            Err(refused) if is_reserved_here && !refused.accepted_unknown => Some(Step::Failed),
            Err(_) => None,
        };
        if let Some(step) = step {
            let (client, id) = (funding.client.clone(), funding.id.clone());
            let concluded = self.with_registry(move |registry| registry.conclude(&client, &id, step)).await;
            if let Err(refused) = concluded {
                // The registry's thread will see to it.
                tracing::warn!(
                    reason = refused.detail,
                    id = funding.id,
                    "a reservation is not concluded yet"
                );
                // And may well carry it out: a definite no would have the caller take another id.
                if let Err(told) = &mut told {
                    (told.code, told.accepted_unknown) = (Refusal::AppendUnknown, true);
                }
            }
        } else if told.is_ok() && !is_reserved_here {
            // Whoever had reserved it may have given up meanwhile; this call did not.
            if let Err(refused) = self.reserve(&funding).await {
                let (reason, id) = (refused.detail, funding.id);
                tracing::error!(reason, id, "accepted funding is not reserved: compare budget and balance");
            }
        }
        told
    }

    /// Reserves; where there is no room, once more when open reservations were compared with what came of them.
    async fn reserve(&self, funding: &Funding) -> Result<bool, Refused> {
        let (asked, look, until) = (funding.clone(), self.funding_look(), (self.clock)() + 1);
        self.with_registry(move |registry| match registry.reserve(&asked) {
            Err(refused) if refused.code == Refusal::BudgetExhausted => {
                match registry.reconcile(Some((&asked.client, &asked.campaign)), until, &look)? {
                    0 => Err(refused),
                    _ => registry.reserve(&asked),
                }
            }
            told => told,
        })
        .await
    }

    /// Before a budget may be lowered, what was promised of it and failed is given back.
    pub(super) async fn reconcile_for(
        &self,
        client: &str,
        id: &str,
        change: &CampaignChange,
    ) -> Result<(), Refused> {
        let CampaignChange::Put(campaign) = change else { return Ok(()) };
        let (names, budget) = ((client.to_owned(), id.to_owned()), campaign.budget.minor_units());
        let (look, until) = (self.funding_look(), (self.clock)() + 1);
        self.with_registry(move |registry| {
            if registry.committed(&names.0, &names.1) > budget {
                registry.reconcile(Some((&names.0, &names.1)), until, &look)?;
            }
            Ok(())
        })
        .await
    }
}
