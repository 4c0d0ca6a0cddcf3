//! The outcome view of a fleet: one PostgreSQL database that all instances write and ask.
//!
//! What holds, beyond what holds in the view in a file: each instance applies the streams of the units that it owns,
//! and how far a stream was read moves in the transaction that applies it, from where the writer thought it stood; so
//! that two who read one stream for a while apply nothing twice, and a takeover goes on where the other ended. What is
//! decided about a request is decided in this process (`sheet`), under a lock on its row.
//!
//! Every method blocks its thread until the database answered, or half a minute has passed; they must not be called
//! from an async one.

mod connect;
mod cursor;
mod list;
mod query;
mod schema;
mod sheet;
mod store;
mod write;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use connect::{Connections, Failure};
use schema::Known;
pub use schema::{VERSION, migrate};
use write::{Facts, Step};

use super::OutcomeView;
use super::following::Following;
use super::stream::{Position, StreamId, Stretch};
use super::view::{
    Applied, BatchRow, FACT_BYTES, FromStreams, ListRows, PageRows, Progress, StandingRow, TallyRow,
    ViewError, collect_facts,
};
use crate::domain::Kind;

/// How often a chunk is tried that the server rolled back because of another one.
const ATTEMPTS_MAX: u32 = 12;
/// Facts in one transaction, at most about: rows stay locked as long as it takes.
const FACTS_MAX: usize = 5_000;

#[derive(Clone, PartialEq, Eq)]
pub struct PostgresViewOptions {
    /// `postgres://user:password@host:port/database`
    pub url: String,
    /// Connections held at once; further callers wait.
    pub connections_max: usize,
}

impl std::fmt::Debug for PostgresViewOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let connections_max = self.connections_max;
        f.debug_struct("PostgresViewOptions")
            .field("connections_max", &connections_max)
            .finish_non_exhaustive()
    }
}

pub struct PostgresView {
    connections: Connections,
    known: Known,
    /// Of all instances up to the start, and of this one since.
    progress: Mutex<Progress>,
}

impl PostgresView {
    /// Connects, and refuses a database whose tables are not there or not ours.
    pub fn open(options: &PostgresViewOptions) -> Result<PostgresView, ViewError> {
        let connections = Connections::new(&options.url, options.connections_max)?;
        let known = connections.run(async |client| schema::check(client).await)?;
        let progress = connections.run(async |client| -> Result<Progress, Failure> {
            let select = "SELECT coalesce(sum(facts), 0)::bigint, coalesce(sum(skipped), 0)::bigint
                FROM hongbao_view_streams";
            let row = client.query_one(select, &[]).await?;
            let number = |column| row.get::<_, i64>(column).unsigned_abs();
            Ok(Progress { cursor: 0, facts: number(0), skipped: number(1) })
        });
        let progress = Mutex::new(progress?);
        Ok(PostgresView { connections, known, progress })
    }

    /// The UUID that was made with its tables.
    pub fn identity(&self) -> &str {
        &self.known.identity
    }

    /// How far streams were read, whoever read them. A stream that is new is made known.
    fn positions(&self, streams: &[String]) -> Result<Vec<Position>, ViewError> {
        let found = self.connections.run(async |client| -> Result<Vec<Position>, Failure> {
            let insert = "INSERT INTO hongbao_view_streams SELECT name, 0, 0, 0, 0, 0
                FROM unnest($1::text[]) AS name ORDER BY name ON CONFLICT DO NOTHING";
            client.execute(insert, &[&streams]).await?;
            let select =
                "SELECT stream, ms, number, frames FROM hongbao_view_streams WHERE stream = ANY ($1)";
            let rows = client.query(select, &[&streams]).await?;
            let number = |row: &tokio_postgres::Row, column: usize| row.get::<_, i64>(column) as u64;
            let position = |row: &tokio_postgres::Row| Position {
                stream: row.get(0),
                id: StreamId { ms: number(row, 1), number: number(row, 2) },
                frame_count: number(row, 3),
            };
            Ok(rows.iter().map(position).collect())
        });
        Ok(found?)
    }
}

/// A random time, so that two that met do not meet again.
fn pause(attempt: u32) {
    let span_us = 2_000u64 << attempt.min(6);
    std::thread::sleep(Duration::from_micros(uuid::Uuid::new_v4().as_u64_pair().0 % span_us));
}

fn facts_of<'a>(
    stretches: &'a [Stretch],
    positions: &[Position],
    following: &Following,
) -> Result<Facts<'a>, ViewError> {
    let mut facts = Facts { told: Vec::new(), steps: Vec::new() };
    for (stretch, to) in stretches.iter().zip(positions) {
        let before = facts.told.len();
        let mut skipped_count = 0;
        for frame in &stretch.frames {
            let collected = collect_facts(&stretch.stream, frame, |told| {
                facts.told.push((stretch.stream.as_str(), told));
            });
            skipped_count += collected?;
        }
        let fact_count = (facts.told.len() - before) as u64;
        let from = following.at(&stretch.stream);
        facts.steps.push(Step { from, to: to.clone(), fact_count, skipped_count });
    }
    Ok(facts)
}

impl OutcomeView for PostgresView {
    fn find(&self, client: &str, ids: &[String]) -> Result<Vec<Option<StandingRow>>, ViewError> {
        let found = self.connections.run(async |connection| query::find(connection, client, ids).await);
        Ok(found?)
    }

    fn list(&self, asked: &ListRows) -> Result<PageRows, ViewError> {
        let secret = &self.known.secret;
        let looked_at_max = list::LOOKED_AT_MAX;
        let page =
            self.connections.run(async |client| list::page(client, secret, asked, looked_at_max).await);
        Ok(page?)
    }

    fn batch(&self, client: &str, id: &str) -> Result<Option<BatchRow>, ViewError> {
        let found = self.connections.run(async |connection| query::batch(connection, client, id).await);
        Ok(found?)
    }

    fn campaign(&self, client: &str, id: &str, kind: Option<Kind>) -> Result<Option<TallyRow>, ViewError> {
        let found =
            self.connections.run(async |connection| query::campaign(connection, client, id, kind).await);
        Ok(found?)
    }

    fn progress(&self) -> Progress {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FromStreams for PostgresView {
    fn apply_streams(&self, following: &mut Following, facts_max: usize) -> Result<Applied, ViewError> {
        let bytes_max = facts_max.min(FACTS_MAX) * FACT_BYTES;
        let stretches = following.next(bytes_max, |streams| self.positions(streams))?;
        if stretches.is_empty() {
            return Ok(Applied::default());
        }
        let positions = following.behind(&stretches);
        let facts = facts_of(&stretches, &positions, following)?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.connections.run(async |client| write::write(client, &facts).await) {
                Ok(()) => break,
                Err(Failure::Again(_)) if attempt < ATTEMPTS_MAX => pause(attempt),
                Err(failure) => {
                    // What is stored may be otherwise than we think, if only because a commit's answer was lost.
                    following.forget();
                    return Err(failure.into());
                }
            }
        }
        following.moved_to(positions);
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.facts += facts.told.len() as u64;
        progress.skipped += facts.steps.iter().map(|step| step.skipped_count).sum::<u64>();
        Ok(Applied { facts: facts.told.len() as u64, advanced: true })
    }
}
