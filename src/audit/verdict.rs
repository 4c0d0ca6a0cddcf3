//! At the end: every request's outcome held against what the wallet recorded for its id.
//!
//! | outcome | the wallet's record |
//! |---|---|
//! | succeeded, reversed | the transfer that the request asks for; reversed: all of it taken back |
//! | failed, canceled, expired | no transfer; a conflict may meet one of another body |
//! | not final | none yet, or the transfer that the request asks for, its outcome still to be written |
//!
//! Absent: the walk, which is over.

use super::Wallet;
use super::breach::{BreachKind, Breaches};
use super::entry::{KINDS, Kind};
use super::ids::{Id, Ids, Recorded};
use super::ledger::Ledger;
use super::requests::{Requests, Row};
use crate::domain::status::Status;

/// What was found, in counts. By state: indexed by the stored number less one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub kinds: [u64; KINDS.len()],
    pub states: [u64; Status::ALL.len()],
    /// Not final.
    pub pending: u64,
    /// Of the pending: off their queue, with a reason and a time told.
    pub waiting_visibly: u64,
    /// Of the pending: the wallet has paid, and the outcome is still to be written.
    pub paid_pending: u64,
    /// Refused with no record at the wallet that says so.
    pub refused_unrecorded: u64,
    pub amount_succeeded: u128,
}

pub fn judge(
    requests: &Requests,
    ids: &Ids,
    ledger: &Ledger,
    wallet: Wallet,
    breaches: &mut Breaches,
) -> Tally {
    let mut tally = Tally::default();
    for row in requests.rows() {
        tally.kinds[row.kind as usize - 1] += 1;
        tally.states[row.status as usize - 1] += 1;
        if !row.status.is_final() {
            tally.pending += 1;
            tally.waiting_visibly += u64::from(row.is_acked && row.waits_visibly);
        }
        let Some(id) = ids.get(row.id) else { continue };
        let reversed = match (row.status, wallet) {
            (Status::Reversed, Wallet::Here) => ledger.reversed_of(row.id),
            // The reversal is a transfer of its own, and compared as such.
            (Status::Reversed, _) => id.amount,
            _ => 0,
        };
        if wallet == Wallet::NotAsked {
            let is_paid = matches!(row.status, Status::Succeeded | Status::Reversed);
            tally.amount_succeeded += if is_paid { u128::from(row.amount) } else { 0 };
            continue;
        }
        if let Some((kind, fault)) = compare(row, id, reversed, &mut tally) {
            let place = row.place;
            breaches.add(kind, || format!("place {place}"), || format!("a request that is {fault}"));
        }
    }
    tally
}

/// What is wrong between an outcome and a record, if anything.
fn compare(row: &Row, id: &Id, reversed: u64, tally: &mut Tally) -> Option<(BreachKind, &'static str)> {
    let is_paid = id.recorded == Recorded::Done;
    let is_own = is_paid && id.fingerprint == row.fingerprint;
    let is_cancel = row.kind == Kind::Cancel;
    match row.status {
        Status::Succeeded | Status::Reversed if is_cancel => None,
        Status::Succeeded | Status::Reversed => {
            tally.amount_succeeded += u128::from(row.amount);
            if !is_paid {
                Some((BreachKind::SucceededUnpaid, "SUCCEEDED has no transfer"))
            } else if !is_own {
                Some((BreachKind::TransferMismatch, "SUCCEEDED has a transfer of another amount or account"))
            } else if row.status == Status::Reversed && reversed != id.amount {
                Some((BreachKind::TransferMismatch, "REVERSED was not taken back in full"))
            } else {
                None
            }
        }
        // A cancel that failed is one whose id was paid.
        Status::Failed | Status::Expired if is_cancel => None,
        Status::Failed | Status::Canceled | Status::Expired => {
            let is_foreign = row.is_conflict && !is_own;
            tally.refused_unrecorded += u64::from(id.recorded == Recorded::Nothing);
            (is_paid && !is_foreign)
                .then_some((BreachKind::RefusedPaid, "FAILED, CANCELED or EXPIRED has a transfer"))
        }
        Status::Accepted | Status::Queued | Status::Processing | Status::Unknown => {
            if is_cancel || !is_paid {
                return None;
            }
            tally.paid_pending += 1;
            (!is_own).then_some((BreachKind::TransferMismatch, "pending has a transfer of another body"))
        }
    }
}
