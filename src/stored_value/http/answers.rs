//! The body of a 200 becomes answers, or none of it is used.
//!
//! A reply counts only as a whole: as many results as entries, the same ids in the same order. Within such a
//! reply each entry stands for itself: a status or a code that the contract does not know, or that contradict each
//! other, leave that entry unknown and touch no other.

use std::borrow::Cow;

use serde::Deserialize;
use uuid::Uuid;

use super::exchange::{Reply, printable};
use crate::domain::{PayoutCode, TransferStatus};
use crate::stored_value::TransferBatch;
use crate::stored_value::contract::Identity;
use crate::stored_value::remote::{Answer, CallError, OnRecord, WALLET_REF_BYTES_MAX};

/// What an id in a reason may have; those of a wallet gone wrong can be of any length.
const ID_BYTES_SHOWN: usize = 140;

/// [`Results`](crate::stored_value::contract::Results), borrowed from the body: a batch of a thousand would
/// otherwise cost three thousand strings.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    results: Vec<Item<'a>>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow, default)]
    code: Option<Text<'a>>,
    #[serde(borrow, default)]
    wallet_ref: Option<Text<'a>>,
    #[serde(default)]
    amount: Option<u64>,
}

/// Borrows inside an `Option` too, which a bare `Cow` does not.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// One answer an entry of the batch.
pub(super) fn transferred(reply: &Reply<'_>, batch: &TransferBatch) -> Result<Vec<Answer>, CallError> {
    let items = items(reply, batch.iter().map(|transfer| transfer.id), batch.len())?;
    Ok(items.iter().map(|item| item.answer(item.decided(may_refuse_transfer))).collect())
}

/// One answer an id: burned, or what was recorded before.
pub(super) fn burned(reply: &Reply<'_>, ids: &[String]) -> Result<Vec<Answer>, CallError> {
    let items = items(reply, ids.iter().map(String::as_bytes), ids.len())?;
    Ok(items.iter().map(|item| item.answer(item.decided_burn())).collect())
}

/// What stands on record for each id.
pub(super) fn on_record(reply: &Reply<'_>, ids: &[String]) -> Result<Vec<Option<OnRecord>>, CallError> {
    let items = items(reply, ids.iter().map(String::as_bytes), ids.len())?;
    Ok(items.iter().map(Item::on_record).collect())
}

/// The wallet's UUID, in its usual form, so that two spellings of it are not two wallets.
pub(super) fn identity(reply: &Reply<'_>) -> Result<String, CallError> {
    let rejected = |what: &str| CallError::Rejected(reply.origin.says(what));
    let body: Identity = serde_json::from_slice(&reply.body)
        .map_err(|error| rejected(&format!("the reply is not {{\"identity\": …}}: {error}")))?;
    match Uuid::try_parse(&body.identity) {
        Ok(identity) if !identity.is_nil() => Ok(identity.to_string()),
        _ => Err(rejected(&format!(
            "the identity {:?} is not a UUID",
            printable(&body.identity, ID_BYTES_SHOWN)
        ))),
    }
}

fn items<'r, 'i>(
    reply: &'r Reply<'_>,
    asked: impl Iterator<Item = &'i [u8]>,
    asked_count: usize,
) -> Result<Vec<Item<'r>>, CallError> {
    let Body { results } = serde_json::from_slice(&reply.body).map_err(|error| {
        reply.origin.unknown(&format!("the reply is not what the contract says: {error}"))
    })?;
    if results.len() != asked_count {
        let what = format!("{} results for {asked_count} entries", results.len());
        return Err(reply.origin.unknown(&what));
    }
    for (index, (item, id)) in results.iter().zip(asked).enumerate() {
        if item.id.as_bytes() != id {
            let what = format!(
                "result {index} is about id {:?} where {:?} was asked",
                printable(&item.id, ID_BYTES_SHOWN),
                String::from_utf8_lossy(id)
            );
            return Err(reply.origin.unknown(&what));
        }
    }
    Ok(results)
}

impl Item<'_> {
    fn code(&self) -> Option<&str> {
        self.code.as_ref().map(|code| code.0.as_ref())
    }

    /// What `succeeded` and `failed` say, given the codes that make sense here; anything else is not known.
    fn decided(&self, makes_sense: fn(PayoutCode) -> bool) -> TransferStatus {
        match (self.status.as_ref(), self.code()) {
            ("succeeded", None) => TransferStatus::Succeeded,
            ("failed", Some(code)) => match PayoutCode::parse(code) {
                Some(code) if makes_sense(code) => TransferStatus::Failed(code),
                _ => TransferStatus::Unknown,
            },
            _ => TransferStatus::Unknown,
        }
    }

    fn decided_burn(&self) -> TransferStatus {
        match (self.status.as_ref(), self.code()) {
            ("burned", None | Some("burned")) => TransferStatus::Failed(PayoutCode::Burned),
            _ => self.decided(may_be_on_record),
        }
    }

    /// `None` only where the wallet says `not_found` and nothing that contradicts it.
    fn on_record(&self) -> Option<OnRecord> {
        let bare = self.code.is_none() && self.wallet_ref.is_none() && self.amount.is_none();
        if self.status == "not_found" && bare {
            return None;
        }
        Some(OnRecord { answer: self.answer(self.decided(may_be_on_record)), amount: self.amount })
    }

    fn answer(&self, status: TransferStatus) -> Answer {
        let wallet_ref = self.wallet_ref.as_ref().map_or("", |text| text.0.as_ref());
        Answer { status, wallet_ref: printable(wallet_ref, WALLET_REF_BYTES_MAX) }
    }
}

/// Whether a wallet can refuse a transfer with this code. Three are decided on our side alone, where they stand
/// for states that no wallet knows; a wallet that says one of them means something that we cannot read.
fn may_refuse_transfer(code: PayoutCode) -> bool {
    match code {
        PayoutCode::CrashSuspect | PayoutCode::Expired | PayoutCode::CampaignClosed => false,
        PayoutCode::IdConflict
        | PayoutCode::Burned
        | PayoutCode::BudgetExhausted
        | PayoutCode::AmountLimit
        | PayoutCode::PayeeLimit
        | PayoutCode::AgreementRevoked
        | PayoutCode::PayeeNotFound
        | PayoutCode::PayeeFrozen
        | PayoutCode::PayeeUnverified
        | PayoutCode::WalletRefused
        | PayoutCode::LowBalance
        | PayoutCode::WalletOverloaded => true,
    }
}

/// Whether a failure with this code can stand on record against an id. A refusal that leaves the id free cannot,
/// nor can a conflict: it is about a body, and a burn and a lookup have none.
fn may_be_on_record(code: PayoutCode) -> bool {
    match code {
        PayoutCode::IdConflict | PayoutCode::LowBalance | PayoutCode::WalletOverloaded => false,
        PayoutCode::CrashSuspect
        | PayoutCode::Expired
        | PayoutCode::CampaignClosed
        | PayoutCode::Burned
        | PayoutCode::BudgetExhausted
        | PayoutCode::AmountLimit
        | PayoutCode::PayeeLimit
        | PayoutCode::AgreementRevoked
        | PayoutCode::PayeeNotFound
        | PayoutCode::PayeeFrozen
        | PayoutCode::PayeeUnverified
        | PayoutCode::WalletRefused => may_refuse_transfer(code),
    }
}
