//! Stage four: what the wallet decided becomes an outcome, and goes into the outcome log.
//!
//! [`outcome_of`] is the whole rule. A final outcome rests on the wallet's evidence: a request that we would
//! not pay is FAILED or EXPIRED only because the wallet burned its id, and SUCCEEDED if the wallet had paid it.

use std::sync::Arc;

use bytes::Bytes;

use super::Parts;
use super::retry::{self, Retry};
use super::slot::{Origin, Slot, Verdict};
use crate::domain::record::Head;
use crate::domain::{Class, Kind, Outcome, PayoutCode, Status, TransferStatus, UnixMs, WaitReason};
use crate::outcome::OutcomeLog;
use crate::ring::chain::StageError;
use crate::ring::{Batch, Stage};

pub struct Record {
    batch_count_max: u64,
    outcomes: Arc<dyn OutcomeLog>,
    now_ms: Arc<dyn Fn() -> UnixMs + Send + Sync>,
    retry: Retry,
    bytes: Vec<u8>,
    requests: Vec<Bytes>,
}

impl Record {
    pub fn new(batch_count_max: u64, parts: &Parts, retry: Retry) -> Record {
        let outcomes = parts.outcomes.clone();
        Record {
            batch_count_max,
            outcomes,
            now_ms: parts.now_ms.clone(),
            retry,
            bytes: Vec::new(),
            requests: Vec::new(),
        }
    }
}

/// State, code, reason of waiting, and when to look again (0: no need).
pub type Ruling = (Status, Option<PayoutCode>, Option<WaitReason>, UnixMs);

/// What a request has come to, from check's verdict and the wallet's answer.
pub fn outcome_of(
    kind: Kind,
    verdict: Verdict,
    due: UnixMs,
    result: TransferStatus,
    retry_at: UnixMs,
) -> Ruling {
    let done = |status, code| (status, code, None, 0);
    match (verdict, result) {
        (Verdict::Wait(reason), _) => (Status::Queued, None, Some(reason), due),
        (Verdict::Unreadable, _) | (_, TransferStatus::Unknown) => (Status::Unknown, None, None, retry_at),
        // A cancel that came too late: what it was to prevent has happened.
        (Verdict::Pay, TransferStatus::Succeeded) if kind == Kind::Cancel => {
            done(Status::Failed, Some(PayoutCode::IdConflict))
        }
        // We asked to burn, and it had been paid: paid it is.
        (_, TransferStatus::Succeeded) => done(Status::Succeeded, None),
        (Verdict::Burn(code), TransferStatus::Failed(PayoutCode::Burned)) => match code {
            PayoutCode::Expired => done(Status::Expired, Some(code)),
            _ => done(Status::Failed, Some(code)),
        },
        (Verdict::Pay, TransferStatus::Failed(PayoutCode::Burned)) if kind == Kind::Cancel => {
            done(Status::Succeeded, None)
        }
        // Somebody burned the id before us: it was canceled.
        (Verdict::Pay, TransferStatus::Failed(PayoutCode::Burned)) => done(Status::Canceled, None),
        (Verdict::Pay | Verdict::Burn(_), TransferStatus::Failed(code)) => match code.class() {
            Class::Recorded => done(Status::Failed, Some(code)),
            Class::Retryable => {
                let reason = match code {
                    PayoutCode::WalletOverloaded => WaitReason::WalletOverloaded,
                    _ => WaitReason::LowBalance,
                };
                (Status::Queued, None, Some(reason), retry_at)
            }
        },
    }
}

impl Stage<Slot> for Record {
    fn name(&self) -> &'static str {
        "record"
    }

    fn appetite(&mut self) -> u64 {
        self.batch_count_max
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, Slot>) -> Result<(), StageError> {
        let now = (self.now_ms)();
        self.bytes.clear();
        self.requests.clear();
        let wants_requests = self.outcomes.wants_requests();
        while let Some(slot) = batch.next_slot() {
            let request = Head::decode(&slot.record).map_err(|error| StageError(error.to_string()))?;
            let verdict = slot.verdict().ok_or_else(|| StageError("a slot passed unchecked".to_owned()))?;
            let (follows_place, attempts) = match slot.origin {
                Origin::Queue { .. } => (slot.place, 0),
                Origin::Parked { entry_place, attempts, .. } => (entry_place, attempts),
            };
            let retry_at = self.retry.at(now, attempts, slot.place);
            let (status, code, reason, next_attempt_at) =
                outcome_of(request.kind, verdict, slot.due(), slot.result(), retry_at);
            let outcome = Outcome {
                status,
                code,
                reason,
                kind: request.kind,
                lane: Some(request.lane),
                request_place: slot.place,
                follows_place,
                key_hash: request.key_hash,
                at: now,
                next_attempt_at: retry::within(request.not_after, next_attempt_at, now),
                attempts: attempts + u32::from(!matches!(verdict, Verdict::Wait(_))),
                campaign_number: slot.campaign_number(),
                amount: request.amount.minor_units(),
                wallet_ref: "",
            };
            outcome.encode(&mut self.bytes);
            if wants_requests {
                self.requests.push(slot.record.clone());
            }
        }
        crate::crash::point("record::before_append");
        self.outcomes
            .append(&self.bytes, std::mem::take(&mut self.requests))
            .map_err(|error| StageError(error.to_string()))?;
        crate::crash::point("record::after_append");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rulings() {
        use PayoutCode as C;
        use TransferStatus::{Failed, Succeeded, Unknown};
        let pay = Verdict::Pay;
        let burn = Verdict::Burn;
        let d = Kind::Disbursement;
        let queued = |reason, at| (Status::Queued, None, Some(reason), at);
        // kind, verdict, result, expected; due is 7, retries come at 9.
        let table: [(Kind, Verdict, TransferStatus, Ruling); 13] = [
            (Kind::Cancel, pay, Succeeded, (Status::Failed, Some(C::IdConflict), None, 0)),
            (d, pay, Succeeded, (Status::Succeeded, None, None, 0)),
            (d, pay, Failed(C::PayeeFrozen), (Status::Failed, Some(C::PayeeFrozen), None, 0)),
            (d, pay, Failed(C::Burned), (Status::Canceled, None, None, 0)),
            (d, pay, Failed(C::LowBalance), queued(WaitReason::LowBalance, 9)),
            (d, pay, Failed(C::WalletOverloaded), queued(WaitReason::WalletOverloaded, 9)),
            (d, pay, Unknown, (Status::Unknown, None, None, 9)),
            (d, burn(C::Expired), Failed(C::Burned), (Status::Expired, Some(C::Expired), None, 0)),
            (
                d,
                burn(C::CampaignClosed),
                Failed(C::Burned),
                (Status::Failed, Some(C::CampaignClosed), None, 0),
            ),
            (d, burn(C::Expired), Succeeded, (Status::Succeeded, None, None, 0)),
            (d, burn(C::Expired), Failed(C::PayeeFrozen), (Status::Failed, Some(C::PayeeFrozen), None, 0)),
            (d, Verdict::Wait(WaitReason::NotDue), Unknown, queued(WaitReason::NotDue, 7)),
            (Kind::Cancel, pay, Failed(C::Burned), (Status::Succeeded, None, None, 0)),
        ];
        for (row, (kind, verdict, result, expected)) in table.into_iter().enumerate() {
            assert_eq!(outcome_of(kind, verdict, 7, result, 9), expected, "row {row}");
        }
    }
}
