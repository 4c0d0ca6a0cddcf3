//! The accepted requests, one row each, and what the outcome log says became of them.
//!
//! Rows stand in the order of acceptance, which is the order of their places. The states may follow one
//! another only as [`follow`] says: a fact that comes twice or late changes nothing, one that contradicts what
//! was final is a breach. Absent: the wallet's results, which `verdict` holds against these rows at the end.

use std::collections::HashMap;

use super::breach::{BreachKind, Breaches};
use super::campaigns::Campaigns;
use super::entry::{Kind, Outcome, Request};
use super::ids::{Fingerprints, Ids, enter};
use super::table::NONE;
use crate::domain::code::PayoutCode;
use crate::domain::status::Status;

pub struct Row {
    /// Logical offset of the request in the journal.
    pub place: u64,
    pub amount: u64,
    /// Of the transfer that it asks for; 0: it asks for none.
    pub fingerprint: u64,
    /// Row of its id at the wallet; for a cancel, of the id that it burns.
    pub id: u32,
    pub campaign: u32,
    pub kind: Kind,
    pub status: Status,
    /// Waits with a reason or a time that is told.
    pub waits_visibly: bool,
    /// Refused because its id belongs to another body.
    pub is_conflict: bool,
    pub is_acked: bool,
    /// A disbursement, or the reversal of one.
    moves_campaign: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct OutcomeCounts {
    pub entries: u64,
    /// The same final state again.
    pub repeated: u64,
    /// Overtaken by another fact: a waiting state after a final one, a second refusal of another name.
    pub late: u64,
    /// About requests from before the checkpoint.
    pub of_removed: u64,
}

#[derive(Default)]
pub struct Requests {
    rows: Vec<Row>,
    newest: usize,
    pub outcomes: OutcomeCounts,
    /// Later requests under an id, by its row.
    pub accepted_again: HashMap<u32, Vec<u32>>,
    scratch: Vec<u8>,
}

/// Where the rows and tables beside the requests are found.
pub struct Beside<'a> {
    pub ids: &'a mut Ids,
    pub campaigns: &'a mut Campaigns,
    pub breaches: &'a mut Breaches,
}

impl Requests {
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub fn get(&self, row: u32) -> Option<&Row> {
        self.rows.get(row as usize)
    }

    pub fn next_row(&self) -> u32 {
        u32::try_from(self.rows.len()).expect("fewer than four billion requests")
    }

    /// Takes in an accepted request.
    pub fn accept(
        &mut self,
        place: u64,
        request: &Request<'_>,
        fingerprints: &Fingerprints,
        beside: Beside<'_>,
    ) {
        let Beside { ids, campaigns, .. } = beside;
        let row = self.next_row();
        let is_cancel = request.kind == Kind::Cancel;
        let own_id = if is_cancel { request.original } else { request.id };
        let id = enter(ids, &mut self.scratch, &[request.client, b":", own_id]);
        if !is_cancel {
            let entered = ids.get_mut(id).expect("it was entered");
            if entered.request == NONE {
                entered.request = row;
            } else {
                self.accepted_again.entry(id).or_default().push(row);
            }
        }
        let campaign = match request.campaign {
            b"" => NONE,
            campaign => campaigns.find(request.client, campaign),
        };
        if request.kind == Kind::Disbursement {
            campaigns.reserve(campaign, request.amount);
        }
        let is_back = request.kind == Kind::Reversal && request.merchant.is_empty();
        self.rows.push(Row {
            place,
            amount: request.amount,
            fingerprint: fingerprints.asked_by(request, &mut self.scratch),
            id,
            campaign,
            kind: request.kind,
            status: Status::Accepted,
            waits_visibly: false,
            is_conflict: false,
            is_acked: false,
            moves_campaign: request.kind == Kind::Disbursement || is_back,
        });
    }

    /// The row of the request at this place. Outcomes come nearly in the order of acceptance, so the search
    /// begins at the last one found and widens.
    fn position(&mut self, place: u64) -> Option<usize> {
        let rows = &self.rows;
        let (mut low, mut high) = (self.newest, self.newest);
        let mut step = 1;
        while low > 0 && rows.get(low).is_none_or(|row| row.place > place) {
            low = low.saturating_sub(step);
            step *= 2;
        }
        step = 1;
        while rows.get(high).is_some_and(|row| row.place < place) {
            high += step;
            step *= 2;
        }
        let high = (high + 1).min(rows.len());
        let found = rows[low.min(high)..high].binary_search_by_key(&place, |row| row.place).ok()?;
        self.newest = low + found;
        Some(self.newest)
    }

    /// Takes in an outcome that stands at `place`; requests below `base` were removed.
    pub fn settle(&mut self, place: u64, base: u64, outcome: &Outcome, beside: Beside<'_>) {
        let Beside { ids, campaigns, breaches } = beside;
        self.outcomes.entries += 1;
        let Some(position) = self.position(outcome.request_place) else {
            if outcome.request_place < base {
                self.outcomes.of_removed += 1;
            } else {
                let what = format!("place {}", outcome.request_place);
                let detail =
                    || format!("the outcome at {place} is of a request at {what}, and none stands there");
                breaches.add(BreachKind::OutcomeMismatch, || what.clone(), detail);
            }
            return;
        };
        let row = &mut self.rows[position];
        let is_own = ids.get(row.id).is_some_and(|id| id.key[0] == outcome.key_hash)
            && (row.amount, row.kind) == (outcome.amount, outcome.kind)
            && (row.place..place).contains(&outcome.follows_place);
        if !is_own {
            let detail =
                || format!("the outcome at {place} differs from its request in id, amount, kind or link");
            breaches.add(BreachKind::OutcomeMismatch, || format!("place {}", row.place), detail);
        }
        match follow(row.status, outcome.status) {
            Follow::Moves => advance(row, outcome, campaigns),
            Follow::Repeats => self.outcomes.repeated += 1,
            Follow::Late => self.outcomes.late += 1,
            Follow::Contradicts => {
                let (from, to) = (row.status.as_str(), outcome.status.as_str());
                let detail = || format!("the request at {} is {from}, and then {to}", row.place);
                breaches.add(BreachKind::TwoOutcomes, || format!("place {}", row.place), detail);
            }
        }
    }

    /// A request leaves its queue: it must have an outcome, or wait visibly.
    pub fn leave(&mut self, row: u32, breaches: &mut Breaches) {
        let Some(row) = self.rows.get_mut(row as usize) else { return };
        row.is_acked = true;
        let has_outcome = row.status.is_final() || row.waits_visibly;
        if !has_outcome {
            let detail = || format!("the request at {} left its queue without an outcome", row.place);
            breaches.add(BreachKind::Lost, || format!("place {}", row.place), detail);
        }
    }
}

fn advance(row: &mut Row, outcome: &Outcome, campaigns: &mut Campaigns) {
    let was_final = row.status.is_final();
    row.status = outcome.status;
    row.waits_visibly = match outcome.status {
        Status::Queued | Status::Unknown => outcome.has_reason || outcome.next_attempt_at > 0,
        _ => false,
    };
    row.is_conflict = outcome.code == Some(PayoutCode::IdConflict);
    if was_final || !outcome.status.is_final() || !row.moves_campaign {
        return;
    }
    let is_back = row.kind == Kind::Reversal;
    if !is_back {
        campaigns.release(row.campaign, row.amount);
    }
    if outcome.status == Status::Succeeded {
        let amount = i128::from(row.amount);
        campaigns.spend(row.campaign, if is_back { -amount } else { amount });
    }
}

/// What a state means for a request that is in another.
enum Follow {
    Moves,
    Repeats,
    /// Changes nothing, and takes nothing back: a fact that was overtaken by another.
    Late,
    /// Says that money moved where it did not, or that it did not where it did.
    Contradicts,
}

/// What may follow what. A waiting state leads anywhere but to the beginning and to taken back; an unknown one
/// only to an end; paid leads to taken back. Of two refusals the first stands.
const fn follow(from: Status, to: Status) -> Follow {
    match from {
        Status::Accepted | Status::Queued | Status::Processing => match to {
            Status::Accepted => Follow::Late,
            Status::Queued
            | Status::Processing
            | Status::Unknown
            | Status::Succeeded
            | Status::Failed
            | Status::Canceled
            | Status::Expired => Follow::Moves,
            Status::Reversed => Follow::Contradicts,
        },
        Status::Unknown => match to {
            Status::Accepted | Status::Queued | Status::Processing => Follow::Late,
            Status::Unknown | Status::Succeeded | Status::Failed | Status::Canceled | Status::Expired => {
                Follow::Moves
            }
            Status::Reversed => Follow::Contradicts,
        },
        Status::Succeeded | Status::Reversed => match to {
            Status::Accepted | Status::Queued | Status::Processing | Status::Unknown => Follow::Late,
            Status::Succeeded if matches!(from, Status::Reversed) => Follow::Late,
            Status::Reversed if matches!(from, Status::Succeeded) => Follow::Moves,
            Status::Succeeded | Status::Reversed => Follow::Repeats,
            Status::Failed | Status::Canceled | Status::Expired => Follow::Contradicts,
        },
        Status::Failed | Status::Canceled | Status::Expired => match to {
            Status::Accepted | Status::Queued | Status::Processing | Status::Unknown => Follow::Late,
            Status::Failed | Status::Canceled | Status::Expired if from as u8 == to as u8 => Follow::Repeats,
            Status::Failed | Status::Canceled | Status::Expired => Follow::Late,
            Status::Succeeded | Status::Reversed => Follow::Contradicts,
        },
    }
}
