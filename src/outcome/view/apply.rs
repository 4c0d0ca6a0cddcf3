//! Facts become rows: one transaction over many facts, and the cursor with them.
//!
//! What holds: `domain::transition` alone decides whether a fact moves a request; tallies and zones move with
//! it and in the same transaction; a chunk that is dropped without [`Chunk::commit`] never was.
//!
//! Cancels have no row of their own: what they do shows on the request they are about.

use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, Transaction, params};

use super::ViewError;
use super::keyed::{Kept, Keyed};
use super::keys::{Entries, currency_number, party_hash};
use super::names::{FirstItem, Names, Numbering};
use super::tally::{Cell, Table, Tally};
use super::zones::Zones;
use crate::domain::{Kind, Request, Status, UnixMs, WaitReason, transition};
use crate::outcome::Fact;
use crate::outcome::entry::Outcome;

/// What the writer carries from one transaction to the next, and gathers during one.
#[derive(Debug)]
pub struct Memory {
    names: Names,
    kept: Kept,
    gathered: Gathered,
}

impl Memory {
    pub fn new() -> Memory {
        Memory { names: Names::default(), kept: Kept::default(), gathered: Gathered::new() }
    }

    /// After a transaction that did not commit: numbers it gave and changes it gathered never were.
    pub fn forget(&mut self) {
        self.names.forget();
        self.kept.forget();
        self.gathered = Gathered::new();
    }
}

#[derive(Debug)]
pub(super) struct Gathered {
    campaigns: Tally,
    batches: Tally,
    waiting: Tally,
    zones: Zones,
    pub(super) entries: Entries,
    pub(super) facts: u64,
    pub(super) skipped: u64,
}

impl Gathered {
    fn new() -> Gathered {
        Gathered {
            campaigns: Tally::new(Table::Campaign),
            batches: Tally::new(Table::Batch),
            waiting: Tally::new(Table::Wait),
            zones: Zones::default(),
            entries: Entries::default(),
            facts: 0,
            skipped: 0,
        }
    }
}

/// As much of a request as its transitions need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    pub(super) place: i64,
    pub(super) key_hash: i64,
    pub(super) kind: Kind,
    pub(super) client: i64,
    campaign: i64,
    batch: Option<i64>,
    pub(super) amount: u64,
    pub(super) status: Status,
    reason: Option<WaitReason>,
    pub(super) reversed: u64,
    /// Whether `outcomes` has its row.
    stored: bool,
}

const SUBJECT: &str = "SELECT r.place, r.key_hash, r.kind, r.client, r.campaign, r.batch, r.amount,
    o.status, o.reason, o.reversed_amount
    FROM requests r LEFT JOIN outcomes o ON o.place = r.place WHERE r.place = ?1";

impl Subject {
    fn read(row: &Row<'_>) -> rusqlite::Result<Result<Subject, ViewError>> {
        let (kind, status, reason): (u8, Option<u8>, Option<u8>) = (row.get(2)?, row.get(7)?, row.get(8)?);
        let Some(kind) = Kind::from_u8(kind) else { return Ok(Err(ViewError::Stored("kind"))) };
        let Some(state) = Status::from_u8(status.unwrap_or(Status::Accepted as u8)) else {
            return Ok(Err(ViewError::Stored("status")));
        };
        let (amount, reversed): (i64, Option<i64>) = (row.get(6)?, row.get(9)?);
        Ok(Ok(Subject {
            place: row.get(0)?,
            key_hash: row.get(1)?,
            kind,
            client: row.get(3)?,
            campaign: row.get(4)?,
            batch: row.get(5)?,
            amount: amount.unsigned_abs(),
            status: state,
            reason: reason.and_then(WaitReason::from_u8),
            reversed: reversed.unwrap_or(0).unsigned_abs(),
            stored: status.is_some(),
        }))
    }
}

pub(super) struct Statements<'c> {
    accept: CachedStatement<'c>,
    subject: CachedStatement<'c>,
    insert: CachedStatement<'c>,
    update: CachedStatement<'c>,
    pub(super) reverse: CachedStatement<'c>,
    pub(super) credit: CachedStatement<'c>,
}

impl<'c> Statements<'c> {
    fn prepare(conn: &'c Connection) -> Result<Statements<'c>, ViewError> {
        Ok(Statements {
            accept: conn.prepare_cached(
                "INSERT OR IGNORE INTO requests (place, key_hash, kind, client, campaign, batch, amount,
                 currency, accepted_at, id, party, merchant, agreement, original, remark, metadata, digest)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
            )?,
            subject: conn.prepare_cached(SUBJECT)?,
            insert: conn.prepare_cached(
                "INSERT INTO outcomes (place, client, status, code, reason, updated_at, settled_at,
                 next_attempt_at, attempts, wallet_ref, reversed_amount)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0)",
            )?,
            update: conn.prepare_cached(
                "UPDATE outcomes SET status = ?3, code = ?4, reason = ?5, updated_at = ?6, settled_at = ?7,
                 next_attempt_at = ?8, attempts = ?9, wallet_ref = ?10 WHERE place = ?1 AND client = ?2",
            )?,
            reverse: conn
                .prepare_cached("UPDATE outcomes SET status = ?2, updated_at = ?3 WHERE place = ?1")?,
            credit: conn.prepare_cached(
                "INSERT INTO outcomes
                 SELECT place, client, 1, NULL, NULL, accepted_at, 0, 0, 0, NULL, ?2
                 FROM requests WHERE place = ?1
                 ON CONFLICT (place) DO UPDATE SET reversed_amount = excluded.reversed_amount",
            )?,
        })
    }
}

/// A transaction under way.
pub struct Chunk<'c> {
    pub(super) conn: &'c Connection,
    transaction: Transaction<'c>,
    pub(super) statements: Statements<'c>,
    pub(super) numbering: Numbering<'c>,
    pub(super) gathered: &'c mut Gathered,
    /// Where facts come with their requests.
    pub(super) keyed: Option<Keyed<'c>>,
}

/// SQLite's integers have 63 bits; times beyond them are none of this world.
pub(super) fn time(at: UnixMs) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}

fn place_of(place: u64) -> Result<i64, ViewError> {
    i64::try_from(place).map_err(|_| ViewError::Place(place))
}

/// An empty text takes no room.
fn text(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

impl<'c> Chunk<'c> {
    pub fn begin(conn: &'c Connection, memory: &'c mut Memory) -> Result<Chunk<'c>, ViewError> {
        Chunk::begin_with(conn, memory, false)
    }

    pub(super) fn begin_with(
        conn: &'c Connection,
        memory: &'c mut Memory,
        is_keyed: bool,
    ) -> Result<Chunk<'c>, ViewError> {
        memory.gathered = Gathered::new();
        let kept = is_keyed.then_some(&mut memory.kept);
        Ok(Chunk {
            conn,
            transaction: conn.unchecked_transaction()?,
            statements: Statements::prepare(conn)?,
            numbering: Numbering::prepare(conn, &mut memory.names)?,
            gathered: &mut memory.gathered,
            keyed: kept.map(|kept| Keyed::prepare(conn, kept)).transpose()?,
        })
    }

    pub fn facts(&self) -> u64 {
        self.gathered.facts
    }

    pub fn skipped(&self) -> u64 {
        self.gathered.skipped
    }

    pub fn apply(&mut self, fact: Fact<'_>) -> Result<(), ViewError> {
        self.gathered.facts += 1;
        match fact {
            Fact::Accepted { place, request } => self.accepted(place_of(place)?, &request, None),
            Fact::Moved(outcome) => self.moved(&outcome),
        }
    }

    /// Makes all of it durable, and `cursor` with it.
    pub fn commit(self, cursor: u64) -> Result<(), ViewError> {
        self.finish(Some(cursor))
    }

    pub(super) fn finish(self, cursor: Option<u64>) -> Result<(), ViewError> {
        let gathered = self.gathered;
        gathered.entries.flush(self.conn)?;
        gathered.campaigns.flush(self.conn)?;
        gathered.batches.flush(self.conn)?;
        gathered.waiting.flush(self.conn)?;
        gathered.zones.flush(self.conn)?;
        let (facts, skipped) = (gathered.facts as i64, gathered.skipped as i64);
        self.conn
            .prepare_cached(
                "UPDATE progress SET cursor = coalesce(?1, cursor), facts = facts + ?2, skipped = skipped + ?3",
            )?
            .execute((cursor.map(place_of).transpose()?, facts, skipped))?;
        Ok(self.transaction.commit()?)
    }

    /// The digest is kept where a request is known by it.
    pub(super) fn accepted(
        &mut self,
        place: i64,
        request: &Request<'_>,
        digest: Option<&[u8; 16]>,
    ) -> Result<(), ViewError> {
        if request.kind == Kind::Cancel {
            return Ok(());
        }
        let client = self.numbering.client(request.client)?;
        let campaign = self.numbering.campaign(client, request.campaign)?;
        let accepted_at = time(request.accepted_at);
        let currency = currency_number(request.currency.bytes());
        let batch = match request.batch {
            "" => None,
            name => {
                Some(self.numbering.batch(client, name, FirstItem { campaign, currency, accepted_at })?)
            }
        };
        let amount = request.amount.minor_units();
        let inserted = self.statements.accept.execute(params![
            place,
            request.key_hash as i64,
            request.kind as u8,
            client,
            campaign,
            batch,
            amount as i64,
            currency,
            accepted_at,
            request.id,
            request.party,
            text(request.merchant),
            text(request.agreement),
            text(request.original),
            text(request.remark),
            text(request.metadata),
            digest,
        ])?;
        if inserted == 0 {
            return Ok(());
        }
        let party_hash = text(request.party).map(|party| party_hash(client, party));
        self.gathered.entries.add(place, request.key_hash as i64, party_hash);
        self.gathered.zones.accepted(place, accepted_at, campaign, batch);
        let (kind, status) = (request.kind, Status::Accepted);
        self.gathered.campaigns.add(Cell { owner: campaign, kind, status }, amount);
        if let Some(owner) = batch {
            self.gathered.batches.add(Cell { owner, kind, status }, amount);
        }
        self.gathered.waiting.add(Cell { owner: 0, kind, status }, amount);
        Ok(())
    }

    pub(super) fn subject(&mut self, place: i64) -> Result<Option<Subject>, ViewError> {
        self.statements.subject.query_row([place], Subject::read).optional()?.transpose()
    }

    pub(super) fn moved(&mut self, outcome: &Outcome<'_>) -> Result<(), ViewError> {
        if outcome.kind == Kind::Cancel {
            return Ok(());
        }
        let place = place_of(outcome.request_place)?;
        let subject = match self.subject(place)? {
            Some(subject) if subject.key_hash == outcome.key_hash as i64 => subject,
            _ => {
                self.gathered.skipped += 1;
                return Ok(());
            }
        };
        let Some(to) = transition(subject.status, outcome.status) else { return Ok(()) };
        if to == Status::Reversed {
            return self.reverse(&subject, outcome.at);
        }
        self.store(&subject, outcome, to)?;
        if to != Status::Succeeded {
            return Ok(());
        }
        let mut subject = Subject { status: to, ..subject };
        if subject.kind == Kind::Reversal {
            self.credit_original(&subject, outcome.at)?;
            // It may name itself: no door lets that in, but foreign queues have none.
            subject = self.subject(place)?.ok_or(ViewError::Stored("place"))?;
        }
        // A reversal may have been told before what it reverses.
        self.reverse_if_whole(&subject, outcome.at)
    }

    pub(super) fn store(
        &mut self,
        subject: &Subject,
        outcome: &Outcome<'_>,
        to: Status,
    ) -> Result<(), ViewError> {
        let at = time(outcome.at);
        let settled_at = if to.is_final() { at } else { 0 };
        let values = params![
            subject.place,
            subject.client,
            to as u8,
            outcome.code.map(|code| code as u8),
            outcome.reason.map(|reason| reason as u8),
            at,
            settled_at,
            time(outcome.next_attempt_at),
            outcome.attempts,
            text(outcome.wallet_ref),
        ];
        let statement =
            if subject.stored { &mut self.statements.update } else { &mut self.statements.insert };
        statement.execute(values)?;
        self.tally(subject, to, outcome.reason);
        if settled_at > 0 {
            self.gathered.zones.settled(subject.place, settled_at);
        }
        Ok(())
    }

    /// Moves the tallies with a transition.
    pub(super) fn tally(&mut self, subject: &Subject, to: Status, reason: Option<WaitReason>) {
        let Subject { kind, amount, status: from, .. } = *subject;
        let gathered = &mut *self.gathered;
        let owners =
            [(&mut gathered.campaigns, Some(subject.campaign)), (&mut gathered.batches, subject.batch)];
        for (tally, owner) in owners {
            if let Some(owner) = owner {
                tally.remove(Cell { owner, kind, status: from }, amount);
                tally.add(Cell { owner, kind, status: to }, amount);
            }
        }
        let number = |reason: Option<WaitReason>| reason.map_or(0, |reason| reason as i64);
        if !from.is_final() {
            gathered.waiting.remove(Cell { owner: number(subject.reason), kind, status: from }, amount);
        }
        if !to.is_final() {
            gathered.waiting.add(Cell { owner: number(reason), kind, status: to }, amount);
        }
        if from == Status::Accepted {
            gathered.zones.left_accepted(subject.place);
        }
    }
}
