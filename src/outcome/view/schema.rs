//! The tables of the view, and how its connections are opened.
//!
//! The log is the truth and the view can be read from it again, so the store is set for speed where that
//! costs no consistency: write-ahead log with `synchronous = NORMAL` (a power cut may lose the last
//! transactions but never tears one, and the cursor commits in the same transaction as what it covers, so
//! the reader simply goes on from where the file says it stands).
//!
//! What is written once and what moves stand apart: `requests` only ever grows at its end, and `outcomes`
//! holds a small row for whatever has left ACCEPTED, so that settling never rewrites a wide row. `keys` and
//! `parties` are indexes over random hashes, kept by hand: they begin with the *era* (64 MiB of log) and are
//! written sorted, once a transaction, so that inserts touch only the pages of the newest era, each once,
//! however large the table grows; a look-up asks each era in turn. Campaigns, batches and times have no index: a
//! *zone* (256 KiB of log) keeps the latest times among its requests and the campaigns and batches it holds
//! any of, and a scan passes over the zones that cannot match.
//!
//! Absent: what facts mean (`apply`), and what is asked (`query`, `list`).

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::ViewError;

/// Version of the schema, kept in `PRAGMA user_version`.
pub const VERSION: i64 = 2;
/// `PRAGMA application_id`: "hbvw".
const APPLICATION_ID: i64 = 0x6862_7677;

/// `place >> ZONE_BITS` is the zone of a request, `place >> ERA_BITS` its era. Part of the stored form.
pub const ZONE_BITS: u32 = 18;
pub const ERA_BITS: u32 = 26;

const WRITER_CACHE_KIB: u32 = 32 * 1024;
const READER_CACHE_KIB: u32 = 4 * 1024;
/// Pages in the write-ahead log at which it is copied back. Few, because the journal's syncs share the disk: at
/// 8,192 pages they wait up to 80 ms behind one copy (`cargo bench --bench http`), at 1,000 about 20.
const CHECKPOINT_PAGES: u32 = 1_000;
const WAL_BYTES_MAX: u64 = 64 << 20;
const BUSY_MAX: Duration = Duration::from_secs(5);
const STATEMENTS_MAX: usize = 64;

const TABLES: &str = "
CREATE TABLE progress (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 0),
    cursor INTEGER NOT NULL, facts INTEGER NOT NULL, skipped INTEGER NOT NULL, secret BLOB NOT NULL
);
CREATE TABLE clients (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE campaigns (
    number INTEGER PRIMARY KEY, client INTEGER NOT NULL, name TEXT NOT NULL, UNIQUE (client, name)
);
CREATE TABLE batches (
    number INTEGER PRIMARY KEY, client INTEGER NOT NULL, name TEXT NOT NULL,
    campaign INTEGER NOT NULL, currency INTEGER NOT NULL, accepted_at INTEGER NOT NULL,
    UNIQUE (client, name)
);
CREATE TABLE requests (
    place INTEGER PRIMARY KEY, key_hash INTEGER NOT NULL, kind INTEGER NOT NULL,
    client INTEGER NOT NULL, campaign INTEGER NOT NULL, batch INTEGER,
    amount INTEGER NOT NULL, currency INTEGER NOT NULL, accepted_at INTEGER NOT NULL,
    id TEXT NOT NULL, party TEXT NOT NULL,
    merchant TEXT, agreement TEXT, original TEXT, remark TEXT, metadata TEXT
);
CREATE TABLE keys (era INTEGER, key_hash INTEGER, place INTEGER, PRIMARY KEY (era, key_hash, place))
    WITHOUT ROWID;
CREATE TABLE parties (era INTEGER, party_hash INTEGER, place INTEGER, PRIMARY KEY (era, party_hash, place))
    WITHOUT ROWID;
CREATE TABLE outcomes (
    place INTEGER PRIMARY KEY, client INTEGER NOT NULL, status INTEGER NOT NULL, code INTEGER,
    reason INTEGER, updated_at INTEGER NOT NULL, settled_at INTEGER NOT NULL,
    next_attempt_at INTEGER NOT NULL, attempts INTEGER NOT NULL, wallet_ref TEXT,
    reversed_amount INTEGER NOT NULL
);
CREATE INDEX by_state ON outcomes (client, status) WHERE status NOT IN (1, 5);
CREATE INDEX by_wait ON outcomes (reason) WHERE status = 2;
CREATE TABLE eras (era INTEGER PRIMARY KEY);
CREATE TABLE zones (
    zone INTEGER PRIMARY KEY, accepted_max INTEGER NOT NULL, settled_max INTEGER NOT NULL,
    untouched_count INTEGER NOT NULL
);
CREATE TABLE campaign_zones (owner INTEGER, zone INTEGER, PRIMARY KEY (owner, zone)) WITHOUT ROWID;
CREATE TABLE batch_zones (owner INTEGER, zone INTEGER, PRIMARY KEY (owner, zone)) WITHOUT ROWID;
CREATE TABLE campaign_tally (
    owner INTEGER, kind INTEGER, status INTEGER, count INTEGER NOT NULL,
    amount_low INTEGER NOT NULL, amount_high INTEGER NOT NULL, PRIMARY KEY (owner, kind, status)
) WITHOUT ROWID;
CREATE TABLE batch_tally (
    owner INTEGER, kind INTEGER, status INTEGER, count INTEGER NOT NULL,
    amount_low INTEGER NOT NULL, amount_high INTEGER NOT NULL, PRIMARY KEY (owner, kind, status)
) WITHOUT ROWID;
CREATE TABLE wait_tally (
    owner INTEGER, kind INTEGER, status INTEGER, count INTEGER NOT NULL,
    amount_low INTEGER NOT NULL, amount_high INTEGER NOT NULL, PRIMARY KEY (owner, kind, status)
) WITHOUT ROWID;
";

/// Version 2: the view may be read from streams, whose facts know a request by its digest. `burned` and `credits` keep
/// what was told of requests that were not met yet.
const STREAMS: &str = "
ALTER TABLE requests ADD COLUMN digest BLOB;
CREATE TABLE streams (
    name TEXT PRIMARY KEY, ms INTEGER NOT NULL, number INTEGER NOT NULL, frames INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE burned (
    client INTEGER, id TEXT, currency INTEGER NOT NULL, accepted_at INTEGER NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (client, id)
) WITHOUT ROWID;
CREATE TABLE credits (client INTEGER, id TEXT, amount INTEGER NOT NULL, PRIMARY KEY (client, id)) WITHOUT ROWID;
";

/// What leads from each version to the next, from version 1 on.
const STEPS: [&str; VERSION as usize - 1] = [STREAMS];

/// The one connection that writes; makes the tables in a file that is new, and brings an older one up to date.
pub fn open_writer(path: &Path) -> Result<Connection, ViewError> {
    let conn = Connection::open(path)?;
    conn.busy_timeout(BUSY_MAX)?;
    let found: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let application: i64 = conn.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if tables > 0 && application != APPLICATION_ID {
        return Err(ViewError::NotAView { path: path.to_owned() });
    }
    if tables > 0 && !(1..=VERSION).contains(&found) {
        return Err(ViewError::Version { path: path.to_owned(), found });
    }
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "NORMAL")?;
    conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    conn.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX as i64)?;
    tune(&conn, WRITER_CACHE_KIB)?;
    if tables == 0 {
        create(&conn)?;
    } else {
        advance(&conn, found)?;
    }
    Ok(conn)
}

/// Brings a file up to date, in one transaction.
fn advance(conn: &Connection, from: i64) -> Result<(), ViewError> {
    if from == VERSION {
        return Ok(());
    }
    let transaction = conn.unchecked_transaction()?;
    for step in STEPS.iter().skip(from as usize - 1) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(transaction.commit()?)
}

fn create(conn: &Connection) -> Result<(), ViewError> {
    let secret: Vec<u8> =
        [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].iter().flat_map(|id| *id.as_bytes()).collect();
    let transaction = conn.unchecked_transaction()?;
    transaction.execute_batch(TABLES)?;
    STEPS.iter().try_for_each(|step| transaction.execute_batch(step))?;
    transaction.execute("INSERT INTO progress VALUES (0, 0, 0, 0, ?1)", [secret])?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(transaction.commit()?)
}

/// A connection that can only read, and never waits for the writer.
pub fn open_reader(path: &Path) -> Result<Connection, ViewError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_MAX)?;
    tune(&conn, READER_CACHE_KIB)?;
    Ok(conn)
}

fn tune(conn: &Connection, cache_kib: u32) -> Result<(), ViewError> {
    conn.pragma_update(None, "cache_size", -i64::from(cache_kib))?;
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    // Without it a statement may be prepared anew for every value bound to it (measured: nine tenths of the
    // time of a page).
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(prepare: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("view.sqlite");
        open_writer(&path).unwrap();
        Connection::open(&path).unwrap().execute_batch(prepare).unwrap();
        open_writer(&path).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_ours_is_refused_by_name() {
        for (prepare, expected) in [
            ("PRAGMA user_version = 7", "version 7"),
            ("PRAGMA user_version = 0", "version 0"),
            ("PRAGMA application_id = 0", "is not an outcome view"),
        ] {
            let text = refusal(prepare);
            assert!(text.contains(expected) && text.contains("view.sqlite"), "{prepare}: {text}");
        }
    }

    #[test]
    fn a_file_of_the_version_before_is_brought_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("view.sqlite");
        let shape = |conn: &Connection| -> Vec<String> {
            let mut select = conn.prepare("SELECT sql FROM sqlite_schema ORDER BY name").unwrap();
            let rows = select.query_map([], |row| Ok(row.get::<_, Option<String>>(0)?.unwrap_or_default()));
            rows.unwrap().map(Result::unwrap).collect()
        };
        let first = Connection::open(&path).unwrap();
        first.execute_batch(TABLES).unwrap();
        first.execute("INSERT INTO progress VALUES (0, 7, 3, 0, x'00')", []).unwrap();
        let old = "INSERT INTO requests VALUES (5, 1, 1, 1, 1, NULL, 9, 0, 0, 'r', '', NULL, NULL, NULL, NULL, NULL)";
        first.execute(old, []).unwrap();
        first.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        first.pragma_update(None, "user_version", 1).unwrap();
        drop(first);
        for _ in 0..2 {
            let conn = open_writer(&path).unwrap();
            let kept: (i64, Option<Vec<u8>>) = conn
                .query_row("SELECT cursor, digest FROM progress, requests", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .unwrap();
            assert_eq!(kept, (7, None));
            let new = open_writer(&folder.path().join("new.sqlite")).unwrap();
            assert_eq!(shape(&conn), shape(&new));
        }
    }

    #[test]
    fn a_file_that_is_not_a_database_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("view.sqlite");
        std::fs::write(&path, vec![7u8; 8192]).unwrap();
        assert!(open_writer(&path).is_err());
    }
}
