//! What is decided of a request, a batch or a campaign without any state but what is passed in: shared by the desk and
//! by the door over Redis, so that both answer in the same words.
//!
//! Absent: totals, queues, and whether an id is known.

use super::{BatchHead, CampaignChange, Refused};
use crate::domain::campaign::Books;
use crate::domain::{Campaign, CampaignState, Kind, Refusal, Request, UnixMs, record};
use crate::intake::embedded::entry::Batch;

/// What a batch is: its head, and every item's id and money fields in order. A batch that comes again with new item
/// ids is another batch: it would pay again.
pub fn batch_digest(head: &BatchHead, requests: &[Vec<u8>]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    let totals = format!("{}\0{}\0{}\0{}", head.campaign, head.currency, head.total_count, head.total_amount);
    hasher.update(totals.as_bytes());
    for request in requests {
        hasher.update(record::identity(request));
    }
    hasher.finalize().as_bytes()[..16].try_into().expect("sixteen of thirty-two bytes")
}

/// Why a batch id that stands for `before` cannot stand for another batch under `head`.
pub fn batch_conflict(before: &Batch<'_>, head: &BatchHead) -> Refused {
    let mut refused = Refused::new(
        Refusal::IdConflict,
        "this batch id stands for another batch; send it again with the same items under the same ids",
    );
    let differs = [
        ("campaign", before.campaign != head.campaign),
        ("currency", before.currency.as_str() != head.currency),
        ("total_count", before.count != head.total_count),
        ("total_amount", before.amount != head.total_amount),
    ];
    refused.conflicts = differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect();
    if refused.conflicts.is_empty() {
        refused.conflicts.push("items");
    }
    refused
}

/// Why an id that stands for `before` cannot stand for a request with another digest.
pub fn conflict(before: &Request<'_>, request: &Request<'_>) -> Refused {
    let detail = if before.kind == Kind::Cancel {
        "this id was canceled before it was seen; it can never be paid".to_owned()
    } else {
        "this id was accepted with other money fields; a new request needs a new id".to_owned()
    };
    let mut refused = Refused::new(Refusal::IdConflict, detail);
    let differs = [
        ("kind", before.kind != request.kind),
        ("campaign", before.campaign != request.campaign),
        (if request.kind == Kind::Collection { "payer" } else { "payee" }, before.party != request.party),
        ("merchant", before.merchant != request.merchant),
        ("amount", before.amount != request.amount),
        ("currency", before.currency != request.currency),
        ("original", before.original != request.original),
    ];
    refused.conflicts = differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect();
    refused
}

/// The campaign after a change, or why it may not be.
pub fn changed(before: &Campaign, books: &Books, change: CampaignChange) -> Result<Campaign, Refused> {
    let closed = before.state == CampaignState::Closed;
    let state = match change {
        CampaignChange::Put(_) | CampaignChange::Pause | CampaignChange::Resume if closed => {
            return Err(Refused::new(
                Refusal::CampaignClosed,
                format!("campaign {} is closed for good", before.id),
            ));
        }
        CampaignChange::Put(campaign) => {
            if campaign.currency != before.currency {
                let mut refused =
                    Refused::new(Refusal::IdConflict, "the currency of a campaign never changes");
                refused.conflicts = vec!["currency"];
                return Err(refused);
            }
            let limits = |campaign: &Campaign| {
                (campaign.per_payee_count.is_some(), campaign.per_payee_amount.is_some())
            };
            if limits(&campaign) != limits(before) && books.count.iter().any(|count| *count > 0) {
                let detail = "a limit per payee counts from the first request on: set it before";
                let mut refused = Refused::new(Refusal::IdConflict, detail);
                refused.conflicts = vec!["per_payee_count", "per_payee_amount"];
                return Err(refused);
            }
            let funded = books.funded + books.funding_pending;
            if campaign.budget.minor_units() < funded {
                let detail = format!("{funded} is funded already; defund before lowering the budget");
                let mut refused = Refused::new(Refusal::IdConflict, detail);
                refused.conflicts = vec!["budget"];
                return Err(refused);
            }
            return Ok(Campaign { created_at: before.created_at, state: before.state, ..*campaign });
        }
        CampaignChange::Pause => CampaignState::Paused,
        CampaignChange::Resume => CampaignState::Active,
        CampaignChange::Close => CampaignState::Closed,
    };
    Ok(Campaign { state, ..before.clone() })
}

/// Whether a request may be accepted under its campaign now, as far as no totals are concerned.
pub fn terms(
    campaign: &Campaign,
    request: &Request<'_>,
    now: UnixMs,
    retention_ms: u64,
) -> Result<(), (Refusal, String)> {
    let no = |code, detail: String| Err((code, detail));
    match (campaign.state, request.kind) {
        (_, Kind::Cancel) => return Ok(()),
        // What was paid can be taken back, and what is left returned, after that too.
        (CampaignState::Closed, Kind::Disbursement | Kind::Collection | Kind::Fund) => {
            return no(Refusal::CampaignClosed, format!("campaign {} is closed", campaign.id));
        }
        // Once its ids may be forgotten, a repeat could not be told from a new request.
        (CampaignState::Closed, Kind::Reversal | Kind::Defund)
            if campaign.closed_at.saturating_add(retention_ms) <= now =>
        {
            let detail = format!("campaign {} is closed, and past its retention", campaign.id);
            return no(Refusal::CampaignClosed, detail);
        }
        (CampaignState::Paused, Kind::Disbursement | Kind::Collection) => {
            return no(
                Refusal::CampaignPaused,
                format!("campaign {} is paused; resume it first", campaign.id),
            );
        }
        _ => {}
    }
    if request.currency != campaign.currency {
        let detail =
            format!("campaign {} is in {}, not {}", campaign.id, campaign.currency, request.currency);
        return no(Refusal::InvalidField, detail);
    }
    if matches!(request.kind, Kind::Disbursement | Kind::Collection) {
        if campaign.starts_at > now {
            return no(Refusal::CampaignPaused, format!("campaign {} has not started", campaign.id));
        }
        if campaign.ends_at != 0 && campaign.ends_at <= now {
            return no(Refusal::CampaignClosed, format!("campaign {} has ended", campaign.id));
        }
        if campaign.amount_max.is_some_and(|max| request.amount > max) {
            return no(Refusal::AmountLimit, "the amount is above the campaign's amount_max".to_owned());
        }
    }
    Ok(())
}
