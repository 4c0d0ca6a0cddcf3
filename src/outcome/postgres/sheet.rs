//! What a chunk of facts makes of the rows that it concerns: in memory, between reading them and writing them back.
//!
//! The rules are those of `view::keyed`, which keeps the same in a file. Absent: the database.

use std::collections::{BTreeMap, HashMap};

use crate::domain::{Kind, PayoutCode, Status, UnixMs, transition};
use crate::outcome::Told;
use crate::outcome::view::StandingRow;

/// A client and an id (or the name of a batch) of its own.
pub type Key = (String, String);

pub fn key(client: &str, id: &str) -> Key {
    (client.to_owned(), id.to_owned())
}

/// A request, and whether it is to be written.
#[derive(Clone, Debug)]
pub struct Stored {
    pub digest: [u8; 16],
    pub row: StandingRow,
    pub is_new: bool,
    pub is_changed: bool,
}

/// Whose tally.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Owner {
    Campaign = 1,
    Batch = 2,
}

/// A cell of a tally, of one stream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    pub owner: Owner,
    pub client: String,
    pub name: String,
    pub stream: String,
    pub kind: u8,
    pub status: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub count: i64,
    pub amount: i128,
}

/// A batch by its first item.
#[derive(Clone, Debug)]
pub struct FirstItem {
    pub campaign: String,
    pub currency: String,
    pub accepted_at: UnixMs,
}

/// An id that a cancel burned.
#[derive(Clone, Debug)]
pub struct Burned {
    pub currency: String,
    pub accepted_at: UnixMs,
    pub at: UnixMs,
    pub is_new: bool,
}

/// Amounts that were taken back from a request that was not met yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credit {
    pub amount: i64,
    pub is_changed: bool,
}

#[derive(Debug, Default)]
pub struct Sheet {
    /// All under each id that is concerned, in the order in which they were met.
    pub rows: BTreeMap<Key, Vec<Stored>>,
    pub burned: HashMap<Key, Burned>,
    /// An amount of zero: there is none.
    pub credits: HashMap<Key, Credit>,
    pub batches: BTreeMap<Key, FirstItem>,
    pub tallies: BTreeMap<Cell, Change>,
}

/// The ids that a fact concerns.
pub fn concerned<'a>(told: &Told<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let request = told.request;
    let own = (request.kind != Kind::Cancel).then_some(request.id);
    let takes_back = request.kind == Kind::Reversal && told.status == Status::Succeeded;
    let other = takes_back.then_some(request.original).or(told.burned());
    own.into_iter().chain(other).map(move |id| (request.client, id))
}

/// Whether a fact says something of another request, which may not be there yet.
pub fn crosses(told: &Told<'_>) -> bool {
    told.burned().is_some() || (told.request.kind == Kind::Reversal && told.status == Status::Succeeded)
}

/// A database's text holds no NUL.
fn clean(text: &str) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text.to_owned() }
}

fn row_of(told: &Told<'_>) -> StandingRow {
    let request = &told.request;
    StandingRow {
        place: 0,
        client: request.client.to_owned(),
        id: request.id.to_owned(),
        kind: request.kind,
        status: Status::Accepted,
        reason: None,
        code: None,
        campaign: clean(request.campaign),
        party: clean(request.party),
        merchant: clean(request.merchant),
        agreement: clean(request.agreement),
        original: clean(request.original),
        batch: clean(request.batch),
        amount: request.amount.minor_units(),
        currency: request.currency.to_string(),
        remark: clean(request.remark),
        metadata: clean(request.metadata),
        accepted_at: request.accepted_at,
        updated_at: request.accepted_at,
        settled_at: 0,
        next_attempt_at: 0,
        attempts: 0,
        wallet_ref: String::new(),
        reversed_amount: 0,
    }
}

fn is_conflict(stored: &Stored) -> bool {
    stored.row.code == Some(PayoutCode::IdConflict)
}

/// Where a row stands in the sheet.
#[derive(Clone)]
struct Place {
    key: Key,
    at: usize,
}

impl Sheet {
    /// Applies a fact that was read from `stream`. Everything that it [concerns](concerned) must have been loaded.
    pub fn told(&mut self, stream: &str, told: &Told<'_>) {
        let request = &told.request;
        if request.kind == Kind::Cancel {
            return self.burned(stream, told);
        }
        let key = key(request.client, request.id);
        let known =
            self.rows.get(&key).and_then(|rows| rows.iter().position(|row| row.digest == request.digest));
        match known {
            Some(at) => self.moved(stream, &Place { key, at }, told),
            None => self.first(stream, key, told),
        }
    }

    fn row(&mut self, place: &Place) -> &mut Stored {
        &mut self.rows.get_mut(&place.key).expect("a place of this sheet")[place.at]
    }

    /// What the id stands for: the first that is no conflict.
    fn holder(&self, key: &Key) -> Option<Place> {
        let at = self.rows.get(key)?.iter().position(|stored| !is_conflict(stored))?;
        Some(Place { key: key.clone(), at })
    }

    fn first(&mut self, stream: &str, key: Key, told: &Told<'_>) {
        let mut row = row_of(told);
        let counts = told.code != Some(PayoutCode::IdConflict);
        if counts
            && let Some(credit) = self.credits.get_mut(&key)
            && credit.amount > 0
        {
            row.reversed_amount = credit.amount.unsigned_abs();
            *credit = Credit { amount: 0, is_changed: true };
        }
        if !row.batch.is_empty() {
            let first = FirstItem {
                campaign: row.campaign.clone(),
                currency: row.currency.clone(),
                accepted_at: row.accepted_at,
            };
            self.batches.entry((row.client.clone(), row.batch.clone())).or_insert(first);
        }
        tally(&mut self.tallies, stream, &row, Status::Accepted, 1);
        let rows = self.rows.entry(key.clone()).or_default();
        let place = Place { key: key.clone(), at: rows.len() };
        rows.push(Stored { digest: told.request.digest, row, is_new: true, is_changed: false });
        self.moved(stream, &place, told);
        if counts && let Some(at) = self.burned.get(&key).map(|burned| burned.at) {
            self.cancel(stream, &place, at);
        }
    }

    fn burned(&mut self, stream: &str, told: &Told<'_>) {
        let Some(id) = told.burned() else { return };
        let key = key(told.request.client, id);
        if let Some(place) = self.holder(&key) {
            self.cancel(stream, &place, told.at);
        }
        let (currency, accepted_at) = (told.request.currency.to_string(), told.request.accepted_at);
        let new = Burned { currency, accepted_at, at: told.at, is_new: true };
        self.burned.entry(key).or_insert(new);
    }

    fn cancel(&mut self, stream: &str, place: &Place, at: UnixMs) {
        if transition(self.row(place).row.status, Status::Canceled).is_none() {
            return;
        }
        self.becomes(stream, place, Status::Canceled);
        let row = &mut self.row(place).row;
        (row.code, row.reason, row.next_attempt_at) = (None, None, 0);
        (row.updated_at, row.settled_at) = (at, at);
        row.wallet_ref = String::new();
    }

    fn moved(&mut self, stream: &str, place: &Place, told: &Told<'_>) {
        let Some(to) = transition(self.row(place).row.status, told.status) else { return };
        self.becomes(stream, place, to);
        let row = &mut self.row(place).row;
        row.updated_at = told.at;
        row.code = told.code;
        row.reason = told.reason;
        row.settled_at = if to.is_final() { told.at } else { 0 };
        row.next_attempt_at = told.next_attempt_at;
        row.attempts = told.attempts;
        row.wallet_ref = clean(told.wallet_ref);
        if to != Status::Succeeded {
            return;
        }
        let (kind, amount) = (row.kind, row.amount);
        let original = key(&row.client, &row.original);
        if kind == Kind::Reversal {
            self.take_back(stream, original, amount, told.at);
        }
        self.reverse_if_whole(stream, place, told.at);
    }

    /// A reversal came through: what it names has that much less.
    fn take_back(&mut self, stream: &str, original: Key, amount: u64, at: UnixMs) {
        match self.holder(&original) {
            Some(place) => {
                let stored = self.row(&place);
                stored.row.reversed_amount = stored.row.reversed_amount.saturating_add(amount);
                stored.is_changed = true;
                self.reverse_if_whole(stream, &place, at);
            }
            None => {
                let credit = self.credits.entry(original).or_default();
                credit.amount = credit.amount.saturating_add_unsigned(amount);
                credit.is_changed = true;
            }
        }
    }

    fn reverse_if_whole(&mut self, stream: &str, place: &Place, at: UnixMs) {
        let row = &self.row(place).row;
        let is_whole = row.reversed_amount > 0 && row.reversed_amount >= row.amount;
        if is_whole && transition(row.status, Status::Reversed).is_some() {
            self.becomes(stream, place, Status::Reversed);
            self.row(place).row.updated_at = at;
        }
    }

    /// Moves a state, and the tallies with it.
    fn becomes(&mut self, stream: &str, place: &Place, to: Status) {
        let stored = &mut self.rows.get_mut(&place.key).expect("a place of this sheet")[place.at];
        stored.is_changed = true;
        let from = std::mem::replace(&mut stored.row.status, to);
        tally(&mut self.tallies, stream, &stored.row, from, -1);
        tally(&mut self.tallies, stream, &stored.row, to, 1);
    }
}

fn tally(tallies: &mut BTreeMap<Cell, Change>, stream: &str, row: &StandingRow, status: Status, by: i64) {
    let batch = Some(&row.batch).filter(|batch| !batch.is_empty());
    for (owner, name) in [(Owner::Campaign, Some(&row.campaign)), (Owner::Batch, batch)] {
        let Some(name) = name else { continue };
        let cell = Cell {
            owner,
            client: row.client.clone(),
            name: name.clone(),
            stream: stream.to_owned(),
            kind: row.kind as u8,
            status: status as u8,
        };
        let change = tallies.entry(cell).or_default();
        change.count += by;
        change.amount += i128::from(by) * i128::from(row.amount);
    }
}
