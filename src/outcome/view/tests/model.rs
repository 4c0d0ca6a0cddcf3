//! What the view should say, worked out the slow way from the same facts: no store, no tallies kept.

use std::collections::BTreeMap;

use super::super::{ListRows, StandingRow, TallyRow, WaitingRow};
use crate::domain::{Kind, PayoutCode, Request, Status, WaitReason, transition};
use crate::outcome::entry::Outcome;

#[derive(Debug, Default)]
pub struct Model {
    pub rows: BTreeMap<u64, StandingRow>,
    pub skipped: u64,
}

fn is_payout(kind: Kind) -> bool {
    matches!(kind, Kind::Disbursement | Kind::Collection)
}

impl Model {
    pub fn accept(&mut self, place: u64, request: &Request<'_>) {
        if request.kind == Kind::Cancel {
            return;
        }
        self.rows.entry(place).or_insert_with(|| StandingRow {
            place,
            client: request.client.into(),
            id: request.id.into(),
            kind: request.kind,
            status: Status::Accepted,
            reason: None,
            code: None,
            campaign: request.campaign.into(),
            party: request.party.into(),
            merchant: request.merchant.into(),
            agreement: request.agreement.into(),
            original: request.original.into(),
            batch: request.batch.into(),
            amount: request.amount.minor_units(),
            currency: request.currency.as_str().into(),
            remark: request.remark.into(),
            metadata: request.metadata.into(),
            accepted_at: request.accepted_at,
            updated_at: request.accepted_at,
            settled_at: 0,
            next_attempt_at: 0,
            attempts: 0,
            wallet_ref: String::new(),
            reversed_amount: 0,
        });
    }

    pub fn moved(&mut self, outcome: &Outcome<'_>) {
        if outcome.kind == Kind::Cancel {
            return;
        }
        let place = outcome.request_place;
        let Some(row) = self.rows.get_mut(&place) else {
            self.skipped += 1;
            return;
        };
        let Some(to) = transition(row.status, outcome.status) else { return };
        row.status = to;
        row.updated_at = outcome.at;
        if to == Status::Reversed {
            return;
        }
        row.code = outcome.code;
        row.reason = outcome.reason;
        row.settled_at = if to.is_final() { outcome.at } else { 0 };
        row.next_attempt_at = outcome.next_attempt_at;
        row.attempts = outcome.attempts;
        row.wallet_ref = outcome.wallet_ref.into();
        if to == Status::Succeeded {
            let reversal = row.clone();
            if reversal.kind == Kind::Reversal {
                self.take_back(&reversal, outcome.at);
            }
            self.reverse_if_whole(place, outcome.at);
        }
    }

    fn take_back(&mut self, reversal: &StandingRow, at: u64) {
        let Some(original) = self.find(&reversal.client, &reversal.original).map(|row| row.place) else {
            self.skipped += 1;
            return;
        };
        let row = self.rows.get_mut(&original).unwrap();
        row.reversed_amount += reversal.amount;
        self.reverse_if_whole(original, at);
    }

    fn reverse_if_whole(&mut self, place: u64, at: u64) {
        let row = self.rows.get_mut(&place).unwrap();
        if row.status == Status::Succeeded && row.reversed_amount >= row.amount {
            row.status = Status::Reversed;
            row.updated_at = at;
        }
    }

    pub fn find(&self, client: &str, id: &str) -> Option<&StandingRow> {
        let mut same = self.rows.values().filter(|row| row.client == client && row.id == id);
        let first = same.clone().next();
        same.find(|row| row.code != Some(PayoutCode::IdConflict)).or(first)
    }

    pub fn list(&self, asked: &ListRows) -> Vec<StandingRow> {
        let same = |wanted: &Option<String>, found: &String| wanted.as_ref().is_none_or(|w| w == found);
        let kind_taken = |kind| match asked.kind {
            Some(wanted) => wanted == kind,
            None => is_payout(kind) || kind == Kind::Reversal,
        };
        let taken = |row: &&StandingRow| {
            row.client == asked.client
                && same(&asked.campaign, &row.campaign)
                && same(&asked.party, &row.party)
                && same(&asked.batch, &row.batch)
                && asked.status.is_none_or(|status| status == row.status)
                && kind_taken(row.kind)
                && row.accepted_at >= asked.accepted_from
                && row.settled_at >= asked.settled_from
        };
        self.rows.values().filter(taken).cloned().collect()
    }

    pub fn tally(&self, taken: impl Fn(&StandingRow) -> bool, kind: Option<Kind>) -> TallyRow {
        let mut tally = TallyRow::default();
        for row in self.rows.values() {
            if taken(row) && kind.map_or(is_payout(row.kind), |kind| kind == row.kind) {
                tally.count[row.status as usize - 1] += 1;
                tally.amount[row.status as usize - 1] += row.amount;
            }
        }
        tally
    }

    pub fn waiting(&self) -> Vec<WaitingRow> {
        let mut found: BTreeMap<(Status, Option<WaitReason>), WaitingRow> = BTreeMap::new();
        for row in self.rows.values().filter(|row| !row.status.is_final()) {
            let (status, reason) = (row.status, row.reason);
            let new = WaitingRow { status, reason, count: 0, amount: 0, oldest_accepted_at: row.accepted_at };
            let waiting = found.entry((status, reason)).or_insert(new);
            waiting.count += 1;
            waiting.amount += row.amount;
        }
        found.into_values().collect()
    }
}
