//! Facts that come with their requests, from several streams: known by `client:id` and digest instead of a place.
//!
//! A request gets its place with its first fact. Two requests under one id with two digests have a row each, and the
//! id is known by the first that is no conflict, as everywhere; so that a conflict never changes the id's state.
//!
//! Between streams there is no order, so that what a fact says of *another* request may come before that one: a burned
//! id and an amount taken back are kept until it does.

use std::collections::HashMap;

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::ViewError;
use super::apply::{Chunk, Memory, time};
use super::keys::{currency_number, find_holder};
use super::schema::ERA_BITS;
use super::seen::Seen;
use crate::domain::{Kind, Outcome, PayoutCode, Request, Status, UnixMs, transition};
use crate::outcome::Told;
use crate::outcome::stream::{Position, StreamId};

/// Between two places: as if a request took so many bytes of a log, which is what zones and eras are made for.
const PLACE_STRIDE: i64 = 256;

/// What the writer carries from one transaction to the next.
#[derive(Debug, Default)]
pub struct Kept {
    pub seen: Seen,
    place_last: Option<i64>,
}

impl Kept {
    /// After a transaction that did not commit.
    pub fn forget(&mut self) {
        self.place_last = None;
    }
}

/// The part of a chunk that knows requests by their ids.
pub struct Keyed<'c> {
    kept: &'c mut Kept,
    find: CachedStatement<'c>,
    verify: CachedStatement<'c>,
    /// First met in this transaction.
    fresh: HashMap<(i64, [u8; 16]), i64>,
    /// Whether anything was kept for requests that were not there yet.
    has_burned: bool,
    has_credits: bool,
}

impl<'c> Keyed<'c> {
    pub fn prepare(conn: &'c Connection, kept: &'c mut Kept) -> Result<Keyed<'c>, ViewError> {
        kept.seen.load(conn)?;
        if kept.place_last.is_none() {
            let last: Option<i64> =
                conn.query_row("SELECT max(place) FROM requests", [], |row| row.get(0))?;
            kept.place_last = Some(last.unwrap_or(0));
        }
        let any = |table: &str| -> Result<bool, ViewError> {
            let sql = format!("SELECT EXISTS (SELECT 1 FROM {table})");
            Ok(conn.prepare_cached(&sql)?.query_row([], |row| row.get(0))?)
        };
        Ok(Keyed {
            kept,
            find: conn.prepare_cached(
                "SELECT r.place FROM keys x CROSS JOIN requests r ON r.place = x.place
                 WHERE x.era = ?1 AND x.key_hash = ?2 AND r.client = ?3 AND r.id = ?4 AND r.digest = ?5",
            )?,
            verify: conn.prepare_cached(
                "SELECT 1 FROM requests WHERE place = ?1 AND client = ?2 AND id = ?3 AND digest = ?4",
            )?,
            fresh: HashMap::new(),
            has_burned: any("burned")?,
            has_credits: any("credits")?,
        })
    }

    fn place_of(&mut self, client: i64, request: &Request<'_>) -> Result<Option<i64>, ViewError> {
        let key_hash = request.key_hash as i64;
        if let Some(place) = self.fresh.get(&(key_hash, request.digest)) {
            let values = params![place, client, request.id, request.digest];
            if self.verify.exists(values)? {
                return Ok(Some(*place));
            }
        }
        for era in self.kept.seen.eras_of(key_hash) {
            let values = params![era, key_hash, client, request.id, request.digest];
            let found = self.find.query_row(values, |row| row.get(0)).optional()?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn next_place(&mut self, request: &Request<'_>) -> i64 {
        let place = self.kept.place_last.expect("set when the chunk began") + PLACE_STRIDE;
        self.kept.place_last = Some(place);
        self.kept.seen.add(place >> ERA_BITS, request.key_hash as i64);
        self.fresh.insert((request.key_hash as i64, request.digest), place);
        place
    }
}

impl<'c> Chunk<'c> {
    /// A transaction over facts that come with their requests.
    pub fn begin_keyed(conn: &'c Connection, memory: &'c mut Memory) -> Result<Chunk<'c>, ViewError> {
        Chunk::begin_with(conn, memory, true)
    }

    fn keyed(&mut self) -> &mut Keyed<'c> {
        self.keyed.as_mut().expect("only a chunk that was begun so")
    }

    /// # Panics
    /// Unless the chunk began with [`Chunk::begin_keyed`].
    pub fn told(&mut self, told: &Told<'_>) -> Result<(), ViewError> {
        self.gathered.facts += 1;
        if told.request.kind == Kind::Cancel {
            return match told.burned() {
                Some(id) => self.burned(told, id),
                None => Ok(()),
            };
        }
        let client = self.numbering.client(told.request.client)?;
        match self.keyed().place_of(client, &told.request)? {
            Some(place) => self.moved(&told.outcome(place.unsigned_abs())),
            None => self.first(client, told),
        }
    }

    /// Frames that could not be read.
    pub fn skip(&mut self, count: u64) {
        self.gathered.skipped += count;
    }

    fn first(&mut self, client: i64, told: &Told<'_>) -> Result<(), ViewError> {
        let request = &told.request;
        let place = self.keyed().next_place(request);
        self.accepted(place, request, Some(&request.digest))?;
        let is_conflict = told.code == Some(PayoutCode::IdConflict);
        if !is_conflict && self.keyed().has_credits {
            self.take_credit(client, request.id, place)?;
        }
        self.moved(&told.outcome(place.unsigned_abs()))?;
        if !is_conflict && self.keyed().has_burned {
            let at = "SELECT at FROM burned WHERE client = ?1 AND id = ?2";
            let at: Option<i64> = self
                .conn
                .prepare_cached(at)?
                .query_row(params![client, request.id], |row| row.get(0))
                .optional()?;
            if let Some(at) = at {
                self.cancel(place, at.unsigned_abs())?;
            }
        }
        Ok(())
    }

    /// An id was burned: whatever holds it is CANCELED, or will be when it is met.
    fn burned(&mut self, told: &Told<'_>, id: &str) -> Result<(), ViewError> {
        let request = &told.request;
        let client = self.numbering.client(request.client)?;
        self.gathered.entries.flush(self.conn)?;
        if let Some(place) = find_holder(self.conn, client, request.client, id)? {
            self.cancel(place, told.at)?;
        }
        let currency = currency_number(request.currency.bytes());
        self.conn
            .prepare_cached("INSERT OR IGNORE INTO burned VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![client, id, currency, time(request.accepted_at), time(told.at)])?;
        self.keyed().has_burned = true;
        Ok(())
    }

    fn cancel(&mut self, place: i64, at: UnixMs) -> Result<(), ViewError> {
        let subject = self.subject(place)?.ok_or(ViewError::Stored("place"))?;
        let Some(to) = transition(subject.status, Status::Canceled) else { return Ok(()) };
        let attempts: Option<u32> = self
            .conn
            .prepare_cached("SELECT attempts FROM outcomes WHERE place = ?1")?
            .query_row([place], |row| row.get(0))
            .optional()?;
        let outcome = Outcome {
            status: to,
            code: None,
            reason: None,
            kind: subject.kind,
            lane: None,
            request_place: place.unsigned_abs(),
            follows_place: place.unsigned_abs(),
            key_hash: subject.key_hash as u64,
            at,
            next_attempt_at: 0,
            attempts: attempts.unwrap_or(0),
            campaign_number: 0,
            amount: subject.amount,
            wallet_ref: "",
        };
        self.store(&subject, &outcome, to)
    }

    /// An amount was taken back from a request that was not met yet.
    pub fn keep_credit(&mut self, client: i64, id: &str, amount: u64) -> Result<(), ViewError> {
        self.conn
            .prepare_cached(
                "INSERT INTO credits VALUES (?1, ?2, ?3)
                 ON CONFLICT (client, id) DO UPDATE SET amount = amount + excluded.amount",
            )?
            .execute(params![client, id, amount as i64])?;
        self.keyed().has_credits = true;
        Ok(())
    }

    fn take_credit(&mut self, client: i64, id: &str, place: i64) -> Result<(), ViewError> {
        let amount: Option<i64> = self
            .conn
            .prepare_cached("DELETE FROM credits WHERE client = ?1 AND id = ?2 RETURNING amount")?
            .query_row(params![client, id], |row| row.get(0))
            .optional()?;
        match amount {
            Some(amount) => self.credit(place, amount.unsigned_abs()),
            None => Ok(()),
        }
    }

    /// Makes all of it durable, and how far each stream was read with it.
    pub fn commit_streams(self, positions: &[Position]) -> Result<(), ViewError> {
        let mut upsert =
            self.conn.prepare_cached("INSERT OR REPLACE INTO streams VALUES (?1, ?2, ?3, ?4)")?;
        for position in positions {
            let Position { stream, id, frame_count } = position;
            upsert.execute(params![stream, id.ms as i64, id.number as i64, *frame_count as i64])?;
        }
        drop(upsert);
        self.finish(None)
    }
}

fn number(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.unsigned_abs())
}

/// How far a stream was read, as committed.
pub fn position(conn: &Connection, stream: &str) -> Result<Position, ViewError> {
    let select = "SELECT ms, number, frames FROM streams WHERE name = ?1";
    let found = conn
        .prepare_cached(select)?
        .query_row([stream], |row| {
            let id = StreamId { ms: number(row, 0)?, number: number(row, 1)? };
            Ok(Position { stream: stream.to_owned(), id, frame_count: number(row, 2)? })
        })
        .optional()?;
    Ok(found.unwrap_or_else(|| Position { stream: stream.to_owned(), ..Position::default() }))
}

/// Whether the view was read from streams.
pub fn is_of_streams(conn: &Connection) -> Result<bool, ViewError> {
    Ok(conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM streams)")?.query_row([], |row| row.get(0))?)
}

/// An id that a cancel burned.
pub struct Burned {
    /// As a number.
    pub currency: i64,
    /// When the cancel was accepted, and when it was done.
    pub accepted_at: UnixMs,
    pub at: UnixMs,
}

pub fn find_burned(conn: &Connection, client: i64, id: &str) -> Result<Option<Burned>, ViewError> {
    let select = "SELECT currency, accepted_at, at FROM burned WHERE client = ?1 AND id = ?2";
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Burned { currency: row.get(0)?, accepted_at: number(row, 1)?, at: number(row, 2)? })
    };
    Ok(conn.prepare_cached(select)?.query_row(params![client, id], read).optional()?)
}
