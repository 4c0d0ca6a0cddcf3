//! What a view of streams should say, worked out the slow way from the same facts in the same order.

use std::collections::HashMap;

use hongbao::domain::{Kind, PayoutCode, Status, transition};
use hongbao::outcome::Told;
use hongbao::outcome::view::{BatchRow, ListRows, StandingRow, TallyRow};

type Key = (String, String);

#[derive(Debug, Default)]
pub struct Model {
    /// In the order in which they were met, with their digests.
    pub rows: Vec<([u8; 16], StandingRow)>,
    batches: HashMap<Key, BatchRow>,
    burned: HashMap<Key, StandingRow>,
    credits: HashMap<Key, u64>,
    pub facts: u64,
    pub skipped: u64,
}

fn is_payout(kind: Kind) -> bool {
    matches!(kind, Kind::Disbursement | Kind::Collection)
}

fn key(client: &str, id: &str) -> Key {
    (client.to_owned(), id.to_owned())
}

fn row_of(told: &Told<'_>) -> StandingRow {
    let request = &told.request;
    let bare = StandingRow::canceled(
        request.client,
        request.id,
        request.currency.to_string(),
        request.accepted_at,
        request.accepted_at,
    );
    StandingRow {
        kind: request.kind,
        status: Status::Accepted,
        campaign: request.campaign.into(),
        party: request.party.into(),
        merchant: request.merchant.into(),
        agreement: request.agreement.into(),
        original: request.original.into(),
        batch: request.batch.into(),
        amount: request.amount.minor_units(),
        remark: request.remark.into(),
        metadata: request.metadata.into(),
        settled_at: 0,
        ..bare
    }
}

impl Model {
    pub fn told(&mut self, told: &Told<'_>) {
        self.facts += 1;
        let request = &told.request;
        if request.kind == Kind::Cancel {
            return self.cancel_told(told);
        }
        let same = |(digest, row): &([u8; 16], StandingRow)| {
            *digest == request.digest && row.client == request.client && row.id == request.id
        };
        if let Some(at) = self.rows.iter().position(same) {
            return self.moved(at, told);
        }
        let mut row = row_of(told);
        if !request.batch.is_empty() {
            let first = BatchRow {
                client: request.client.into(),
                id: request.batch.into(),
                campaign: request.campaign.into(),
                currency: request.currency.to_string(),
                accepted_at: request.accepted_at,
                tally: TallyRow::default(),
            };
            self.batches.entry(key(request.client, request.batch)).or_insert(first);
        }
        let is_conflict = told.code == Some(PayoutCode::IdConflict);
        let known = key(request.client, request.id);
        if !is_conflict {
            row.reversed_amount = self.credits.remove(&known).unwrap_or(0);
        }
        self.rows.push((request.digest, row));
        let at = self.rows.len() - 1;
        self.moved(at, told);
        if let (false, Some(burned)) = (is_conflict, self.burned.get(&known)) {
            let burned_at = burned.updated_at;
            self.cancel(at, burned_at);
        }
    }

    fn cancel_told(&mut self, told: &Told<'_>) {
        let Some(id) = told.burned() else { return };
        let request = &told.request;
        if let Some(at) = self.holder(request.client, id) {
            self.cancel(at, told.at);
        }
        let currency = request.currency.to_string();
        let row = StandingRow::canceled(request.client, id, currency, request.accepted_at, told.at);
        self.burned.entry(key(request.client, id)).or_insert(row);
    }

    fn cancel(&mut self, at: usize, when: u64) {
        let row = &mut self.rows[at].1;
        if transition(row.status, Status::Canceled).is_some() {
            row.status = Status::Canceled;
            (row.code, row.reason, row.next_attempt_at) = (None, None, 0);
            (row.updated_at, row.settled_at) = (when, when);
            row.wallet_ref = String::new();
        }
    }

    fn moved(&mut self, at: usize, told: &Told<'_>) {
        let row = &mut self.rows[at].1;
        let Some(to) = transition(row.status, told.status) else { return };
        row.status = to;
        row.updated_at = told.at;
        row.code = told.code;
        row.reason = told.reason;
        row.settled_at = if to.is_final() { told.at } else { 0 };
        row.next_attempt_at = told.next_attempt_at;
        row.attempts = told.attempts;
        row.wallet_ref = told.wallet_ref.into();
        if to != Status::Succeeded {
            return;
        }
        let reversal = row.clone();
        if reversal.kind == Kind::Reversal {
            match self.holder(&reversal.client, &reversal.original) {
                Some(original) => {
                    self.rows[original].1.reversed_amount += reversal.amount;
                    self.reverse_if_whole(original, told.at);
                }
                None => {
                    let known = key(&reversal.client, &reversal.original);
                    *self.credits.entry(known).or_insert(0) += reversal.amount;
                }
            }
        }
        self.reverse_if_whole(at, told.at);
    }

    fn reverse_if_whole(&mut self, at: usize, when: u64) {
        let row = &mut self.rows[at].1;
        if row.status == Status::Succeeded && row.reversed_amount > 0 && row.reversed_amount >= row.amount {
            row.status = Status::Reversed;
            row.updated_at = when;
        }
    }

    fn all_of(&self, client: &str, id: &str) -> impl Iterator<Item = usize> {
        let same = move |row: &StandingRow| row.client == client && row.id == id;
        self.rows.iter().enumerate().filter(move |(_, (_, row))| same(row)).map(|(at, _)| at)
    }

    fn holder(&self, client: &str, id: &str) -> Option<usize> {
        self.all_of(client, id).find(|at| self.rows[*at].1.code != Some(PayoutCode::IdConflict))
    }

    pub fn find(&self, client: &str, id: &str) -> Option<&StandingRow> {
        let found = self.holder(client, id).or_else(|| self.all_of(client, id).next());
        found.map(|at| &self.rows[at].1).or_else(|| self.burned.get(&key(client, id)))
    }

    /// With their digests, in the order in which they were met.
    pub fn list(&self, asked: &ListRows) -> Vec<([u8; 16], StandingRow)> {
        let same = |wanted: &Option<String>, found: &String| wanted.as_ref().is_none_or(|w| w == found);
        let kind_taken = |kind| match asked.kind {
            Some(wanted) => wanted == kind,
            None => is_payout(kind) || kind == Kind::Reversal,
        };
        let taken = |(_, row): &&([u8; 16], StandingRow)| {
            row.client == asked.client
                && same(&asked.campaign, &row.campaign)
                && same(&asked.party, &row.party)
                && same(&asked.batch, &row.batch)
                && asked.status.is_none_or(|status| status == row.status)
                && kind_taken(row.kind)
                && row.accepted_at >= asked.accepted_from
                && row.settled_at >= asked.settled_from
        };
        self.rows.iter().filter(taken).cloned().collect()
    }

    pub fn batch(&self, client: &str, id: &str) -> Option<BatchRow> {
        let tally = self.tally(|row| row.client == client && row.batch == id, None);
        self.batches.get(&key(client, id)).cloned().map(|batch| BatchRow { tally, ..batch })
    }

    pub fn tally(&self, taken: impl Fn(&StandingRow) -> bool, kind: Option<Kind>) -> TallyRow {
        let mut tally = TallyRow::default();
        for (_, row) in &self.rows {
            if taken(row) && kind.map_or(is_payout(row.kind), |kind| kind == row.kind) {
                tally.count[row.status as usize - 1] += 1;
                tally.amount[row.status as usize - 1] += row.amount;
            }
        }
        tally
    }
}
