//! The outcome view: a queryable store of where every request stands, read from the outcome log.
//!
//! What holds in it:
//! - it is a reader like any other: its cursor commits in the same transaction as the facts it covers, so a
//!   crash at any moment loses nothing and repeats nothing;
//! - `domain::transition` decides what a fact changes, and counts move with transitions;
//! - queries read snapshots on connections of their own and never wait for the writer.
//!
//! It reads either the journal, where a request is known by its place ([`View::apply`]), or streams, where it is known
//! by its id ([`FromStreams::apply_streams`]); never both into one file.
//!
//! It may lag in a burst, and money never depends on it. Over the journal it can be deleted and rebuilt at any time.
//! Streams are trimmed once they were read: what is older than they reach is known to the view alone, so that a rebuild
//! reads them over a copy of it ([`rebuild_over`]).
//! Absent: what was accepted and has not arrived here yet; whoever answers callers looks at the intake's index first.

mod apply;
mod cursor;
pub mod history;
mod keyed;
mod keys;
mod list;
mod names;
mod query;
mod readers;
mod rebuild;
mod reversal;
mod row;
mod schema;
mod seen;
pub mod streams;
mod tally;
#[cfg(test)]
mod tests;
pub mod worker;
mod zones;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;

use super::stream::StreamError;
use super::{FactSource, OutcomeView, SourceError};
use crate::domain::Kind;
use apply::{Chunk, Memory};
pub use cursor::CursorError;
pub(super) use cursor::filters;
pub(super) use query::is_payout;
use readers::Readers;
pub use rebuild::{rebuild, rebuild_over};
pub use row::{BatchRow, LIMIT_MAX, ListRows, PageRows, Progress, StandingRow, TallyRow, WaitingRow};
pub(super) use streams::{FACT_BYTES, collect_facts};
pub use streams::{FollowStreams, FromStreams};
pub use worker::{Health, Lag, State, ViewHandle, ViewWorker, Worker, WorkerHandle, WorkerOptions};

/// Why the view could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    #[error(
        "{path} holds version {found} of the outcome view, and this release knows version {known} only; rebuild it",
        known = schema::VERSION
    )]
    Version { path: PathBuf, found: i64 },
    #[error("{path} is not an outcome view; move it away, or name another file")]
    NotAView { path: PathBuf },
    #[error("the store of the outcome view failed (it may pass, a retry is safe): {0}")]
    Store(#[from] rusqlite::Error),
    #[error("the database of the outcome view: {0}")]
    Database(String),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Streams(#[from] StreamError),
    #[error(
        "{path} holds the outcomes of another kind of intake (journal or streams); move it away, or name another file"
    )]
    OtherLog { path: PathBuf },
    #[error(transparent)]
    Cursor(#[from] CursorError),
    #[error(
        "the outcome view stands at {cursor}, past the end of the log at {end}: it was read from another log, \
         or the log lost its tail; rebuild it"
    )]
    Ahead { cursor: u64, end: u64 },
    #[error("place {0} is beyond what the outcome view can hold")]
    Place(u64),
    #[error("a row of the outcome view holds a {0} that is not valid; rebuild it")]
    Stored(&'static str),
    #[error("{doing} {path} failed: {source}")]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
}

/// What one chunk did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Facts met, whether or not they changed anything.
    pub facts: u64,
    /// Whether the cursor moved. If not, there was nothing new.
    pub advanced: bool,
}

/// The view in one file. Queries may come from any thread; one caller at a time applies.
#[derive(Debug)]
pub struct View {
    path: PathBuf,
    secret: [u8; 32],
    writer: Mutex<Writer>,
    readers: Readers,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Writer {
    conn: Connection,
    memory: Memory,
    /// A chunk is under way, or was when its thread unwound.
    dirty: bool,
}

impl View {
    /// Opens the view at `path`, or makes it. Refuses a version it does not know, and what is not a view.
    pub fn open(path: &Path) -> Result<View, ViewError> {
        let conn = schema::open_writer(path)?;
        let (progress, secret) =
            conn.query_row("SELECT cursor, facts, skipped, secret FROM progress", [], |row| {
                let progress = Progress {
                    cursor: row.get::<_, i64>(0)?.unsigned_abs(),
                    facts: row.get::<_, i64>(1)?.unsigned_abs(),
                    skipped: row.get::<_, i64>(2)?.unsigned_abs(),
                };
                Ok((progress, row.get(3)?))
            })?;
        Ok(View {
            path: path.to_owned(),
            secret,
            writer: Mutex::new(Writer { conn, memory: Memory::new(), dirty: false }),
            readers: Readers::new(path),
            progress: Mutex::new(progress),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How far it has got, as committed.
    pub fn progress(&self) -> Progress {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads up to about `facts_max` facts from `source` and applies them in one transaction.
    pub fn apply(&self, source: &dyn FactSource, facts_max: usize) -> Result<Applied, ViewError> {
        let mut guard = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = &mut *guard;
        if std::mem::replace(&mut writer.dirty, true) {
            writer.memory.forget();
        }
        if keyed::is_of_streams(&writer.conn)? {
            return Err(ViewError::OtherLog { path: self.path.clone() });
        }
        let before = self.progress();
        let end = source.end();
        if before.cursor > end {
            return Err(ViewError::Ahead { cursor: before.cursor, end });
        }
        if before.cursor == end {
            writer.dirty = false;
            return Ok(Applied::default());
        }
        let mut chunk = Chunk::begin(&writer.conn, &mut writer.memory)?;
        let mut failed = None;
        let cursor = source.read(before.cursor, facts_max, &mut |fact| {
            if failed.is_none() {
                failed = chunk.apply(fact).err();
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        let applied = Applied { facts: chunk.facts(), advanced: cursor != before.cursor };
        if applied.advanced {
            let skipped = before.skipped + chunk.skipped();
            chunk.commit(cursor)?;
            let progress = Progress { cursor, facts: before.facts + applied.facts, skipped };
            *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
            writer.dirty = false;
        }
        Ok(applied)
    }

    /// Takes over the secret of the view that this one replaces.
    fn keep_secret(&mut self, secret: [u8; 32]) -> Result<(), ViewError> {
        self.with_writer(|conn| conn.execute("UPDATE progress SET secret = ?1", [secret]))?;
        self.secret = secret;
        Ok(())
    }

    fn with_writer<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, ViewError> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(work(&writer.conn)?)
    }

    /// One answer an id, in order.
    pub fn find(&self, client: &str, ids: &[String]) -> Result<Vec<Option<StandingRow>>, ViewError> {
        self.readers.ask(|conn| query::find(conn, client, ids))
    }

    /// The requests accepted at `places`, one answer each, in order: several times cheaper than by id, for who
    /// knows the places from the intake's index.
    pub fn at_places(&self, places: &[u64]) -> Result<Vec<Option<StandingRow>>, ViewError> {
        let at = |conn: &Connection, place: u64| match i64::try_from(place) {
            Ok(place) => query::at_place(conn, place),
            Err(_) => Ok(None),
        };
        self.readers.ask(|conn| places.iter().map(|place| at(conn, *place)).collect())
    }

    /// A page, in ascending order of acceptance.
    pub fn list(&self, asked: &ListRows) -> Result<PageRows, ViewError> {
        self.readers.ask(|conn| list::page(conn, &self.secret, asked, list::LOOKED_AT_MAX))
    }

    /// A batch by what its items say. `None` before the first item has arrived here.
    pub fn batch(&self, client: &str, id: &str) -> Result<Option<BatchRow>, ViewError> {
        self.readers.ask(|conn| query::batch(conn, client, id))
    }

    /// The tally of a campaign: of one kind, or of what pays out and collects.
    pub fn campaign(
        &self,
        client: &str,
        id: &str,
        kind: Option<Kind>,
    ) -> Result<Option<TallyRow>, ViewError> {
        self.readers.ask(|conn| query::campaign(conn, client, id, kind))
    }

    /// What is not final yet: count, amount and oldest, by state and reason, of all clients and kinds.
    pub fn waiting(&self) -> Result<Vec<WaitingRow>, ViewError> {
        self.readers.ask(|conn| query::waiting(conn))
    }
}

impl OutcomeView for View {
    fn find(&self, client: &str, ids: &[String]) -> Result<Vec<Option<StandingRow>>, ViewError> {
        View::find(self, client, ids)
    }

    fn list(&self, asked: &ListRows) -> Result<PageRows, ViewError> {
        View::list(self, asked)
    }

    fn batch(&self, client: &str, id: &str) -> Result<Option<BatchRow>, ViewError> {
        View::batch(self, client, id)
    }

    fn campaign(&self, client: &str, id: &str, kind: Option<Kind>) -> Result<Option<TallyRow>, ViewError> {
        View::campaign(self, client, id, kind)
    }

    fn progress(&self) -> Progress {
        View::progress(self)
    }
}
