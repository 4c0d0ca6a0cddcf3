//! What is on disk: packets, their shares, who claimed them, and how each payout stands.
//!
//! What holds: one thread writes; changes that wait share one commit, and nobody hears of a change before it is on
//! disk. A claim, its payout's id and its amount are one row. Absent: HTTP.

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::Context;
use rusqlite::{Connection, OptionalExtension, Result, params};
use serde_json::Value;
use tokio::sync::oneshot;
use uuid::Uuid;

pub const BATCH_MAX: i64 = 500;
pub const LOOKUP_MAX: i64 = 1_000;
/// Changes that wait for the disk, at the most; whoever comes then waits with them.
const WAITING_MAX: usize = 10_000;

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS packets (id TEXT PRIMARY KEY, total INTEGER NOT NULL, count INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS shares (
        number INTEGER PRIMARY KEY,
        packet TEXT NOT NULL REFERENCES packets (id),
        amount INTEGER NOT NULL CHECK (amount > 0),
        -- Set together, by the claim.
        user TEXT, payout TEXT UNIQUE,
        -- CLAIMED, ACCEPTED, REFUSED, or the final status at hongbao.
        status TEXT, code TEXT,
        -- Under which the payout was sent, or will be.
        batch TEXT,
        CHECK ((user IS NULL) = (payout IS NULL) AND (user IS NULL) = (status IS NULL)),
        UNIQUE (packet, user)
    ) STRICT;
    CREATE INDEX IF NOT EXISTS free ON shares (packet, number) WHERE user IS NULL;
    CREATE INDEX IF NOT EXISTS unsent ON shares (batch, number) WHERE status = 'CLAIMED';
    CREATE INDEX IF NOT EXISTS unsettled ON shares (number) WHERE status = 'ACCEPTED';
";

type Change = Box<dyn FnOnce(&Connection) -> Box<dyn FnOnce(bool) + Send> + Send>;

/// The database, written by one thread: all changes that wait share one commit, and are told of after it.
#[derive(Clone)]
pub struct Books {
    changes: SyncSender<Change>,
}

impl Books {
    pub fn open(path: &Path) -> anyhow::Result<Books> {
        let open = || -> Result<Connection> {
            let db = Connection::open(path)?;
            db.execute_batch(SCHEMA)?;
            Ok(db)
        };
        let db = open().with_context(|| format!("opening {}", path.display()))?;
        let (changes, waiting) = sync_channel(WAITING_MAX);
        std::thread::Builder::new().name("books".to_owned()).spawn(move || keep(&db, &waiting))?;
        Ok(Books { changes })
    }

    /// Makes a change, and returns once it is on disk. An error means that nothing was changed.
    pub async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let (tell, told) = oneshot::channel();
        let change: Change = Box::new(move |db| {
            let done = in_savepoint(db, change);
            Box::new(move |is_committed| {
                let done = done.map_err(anyhow::Error::from);
                // Whoever asked may have gone.
                let _ = tell.send(if is_committed {
                    done
                } else {
                    done.and(Err(anyhow::anyhow!("not committed")))
                });
            })
        });
        let changes = self.changes.clone();
        // A full queue blocks: not on a thread that serves others.
        tokio::task::spawn_blocking(move || changes.send(change))
            .await?
            .ok()
            .context("the books are closed")?;
        told.await.context("the books are closed")?
    }
}

/// One change does not spoil those that share its commit.
fn in_savepoint<T>(db: &Connection, change: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    db.execute_batch("SAVEPOINT one")?;
    let done = change(db);
    db.execute_batch(if done.is_ok() { "RELEASE one" } else { "ROLLBACK TO one; RELEASE one" })?;
    done
}

fn keep(db: &Connection, waiting: &Receiver<Change>) {
    while let Ok(first) = waiting.recv() {
        let begun = db.execute_batch("BEGIN IMMEDIATE").is_ok();
        let changes = std::iter::once(first).chain(waiting.try_iter().take(WAITING_MAX));
        let done: Vec<_> = changes.map(|change| change(db)).collect();
        let is_committed = begun && db.execute_batch("COMMIT").is_ok();
        if begun && !is_committed {
            // What is not committed is told to nobody as done.
            let _ = db.execute_batch("ROLLBACK");
        }
        done.into_iter().for_each(|tell| tell(is_committed));
    }
}

/// Divides a total at random: each share is up to twice what would be fair of the rest, and at least one.
pub fn split(total: i64, count: i64, mut random: impl FnMut() -> u64) -> Vec<i64> {
    let mut left = total;
    let share = |position: i64| {
        let others = count - 1 - position;
        let most = (left / (others + 1)).saturating_mul(2).min(left - others).max(1);
        let share = if others == 0 { left } else { 1 + (random() % most.unsigned_abs()).cast_signed() };
        left -= share;
        share
    };
    (0..count).map(share).collect()
}

/// How making a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    Now,
    /// The same was made before.
    Before,
    Differs,
    BudgetExhausted,
}

/// Makes a packet and its shares, once.
pub fn make(db: &Connection, id: &str, total: i64, count: i64, budget: i64) -> Result<Made> {
    let before = db
        .query_row("SELECT total, count FROM packets WHERE id = ?1", [id], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    if let Some(before) = before {
        return Ok(if before == (total, count) { Made::Before } else { Made::Differs });
    }
    let promised: i64 = db.query_row("SELECT coalesce(sum(total), 0) FROM packets", [], |row| row.get(0))?;
    if promised.saturating_add(total) > budget {
        return Ok(Made::BudgetExhausted);
    }
    db.execute("INSERT INTO packets VALUES (?1, ?2, ?3)", params![id, total, count])?;
    let mut insert = db.prepare_cached("INSERT INTO shares (packet, amount) VALUES (?1, ?2)")?;
    for amount in split(total, count, || Uuid::new_v4().as_u64_pair().0) {
        insert.execute(params![id, amount])?;
    }
    Ok(Made::Now)
}

/// A claimed share: its payout's id, its amount, its status, and the code of a refusal.
pub type Share = (String, i64, String, Option<String>);

/// What a user has of a packet.
pub fn share_of(db: &Connection, packet: &str, user: &str) -> Result<Option<Share>> {
    db.prepare_cached("SELECT payout, amount, status, code FROM shares WHERE packet = ?1 AND user = ?2")?
        .query_row([packet, user], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()
}

pub enum Claimed {
    Now(Share),
    Before(Share),
    Empty,
    NoPacket,
}

/// Gives the user a share, and the share its payout's id: in one commit, before anybody hears of either.
pub fn claim(db: &Connection, packet: &str, user: &str) -> Result<Claimed> {
    if let Some(share) = share_of(db, packet, user)? {
        return Ok(Claimed::Before(share));
    }
    let taken = db
        .prepare_cached(
            "UPDATE shares SET user = ?2, payout = ?3, status = 'CLAIMED' WHERE number =
               (SELECT number FROM shares WHERE packet = ?1 AND user IS NULL ORDER BY number LIMIT 1)",
        )?
        .execute([packet, user, &Uuid::now_v7().to_string()])?;
    if taken == 0 {
        let is_known = db.prepare_cached("SELECT 1 FROM packets WHERE id = ?1")?.exists([packet])?;
        return Ok(if is_known { Claimed::Empty } else { Claimed::NoPacket });
    }
    Ok(share_of(db, packet, user)?.map_or(Claimed::Empty, Claimed::Now))
}

/// Claims by status.
pub fn standing(db: &Connection) -> Result<Vec<(String, i64)>> {
    db.prepare_cached("SELECT status, count(*) FROM shares WHERE user IS NOT NULL GROUP BY status")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

pub struct Bundle {
    pub batch: String,
    /// Payout, user, amount; always in the same order, for the same body.
    pub items: Vec<(String, String, i64)>,
}

/// The batch that was not answered yet, or a new one of what was claimed since: named and stored before it is sent.
pub fn next_bundle(db: &Connection) -> Result<Option<Bundle>> {
    let named = "SELECT batch FROM shares WHERE status = 'CLAIMED' AND batch IS NOT NULL LIMIT 1";
    let batch = match db.prepare_cached(named)?.query_row([], |row| row.get(0)).optional()? {
        Some(batch) => batch,
        None => {
            let batch = Uuid::now_v7().to_string();
            let name = "UPDATE shares SET batch = ?1 WHERE number IN (SELECT number FROM shares
                        WHERE status = 'CLAIMED' AND batch IS NULL ORDER BY number LIMIT ?2)";
            if db.prepare_cached(name)?.execute(params![batch, BATCH_MAX])? == 0 {
                return Ok(None);
            }
            batch
        }
    };
    let items =
        "SELECT payout, user, amount FROM shares WHERE status = 'CLAIMED' AND batch = ?1 ORDER BY number";
    let items = db
        .prepare_cached(items)?
        .query_map([&batch], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_>>()?;
    Ok(Some(Bundle { batch, items }))
}

/// Takes over the answer to a batch. What was refused for a reason that passes goes into another one, under its own id.
pub fn record(
    db: &Connection,
    bundle: &Bundle,
    refused: &HashMap<usize, String>,
    is_passing: fn(&str) -> bool,
) -> Result<()> {
    let mut accept = db.prepare_cached("UPDATE shares SET status = 'ACCEPTED' WHERE payout = ?1")?;
    let mut again = db.prepare_cached("UPDATE shares SET batch = NULL WHERE payout = ?1")?;
    let mut refuse =
        db.prepare_cached("UPDATE shares SET status = 'REFUSED', code = ?2 WHERE payout = ?1")?;
    for (index, (payout, _, _)) in bundle.items.iter().enumerate() {
        match refused.get(&index) {
            None => accept.execute([payout])?,
            Some(code) if is_passing(code) => again.execute([payout])?,
            Some(code) => refuse.execute([payout, code])?,
        };
    }
    Ok(())
}

/// Payouts that are accepted and not known to be final, from behind a place on.
pub fn unsettled(db: &Connection, after: i64) -> Result<Vec<(i64, String)>> {
    let open = "SELECT number, payout FROM shares WHERE status = 'ACCEPTED' AND number > ?1 ORDER BY number LIMIT ?2";
    db.prepare_cached(open)?
        .query_map(params![after, LOOKUP_MAX], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// Takes over what was looked up, where it is final.
pub fn settle(db: &Connection, found: &Value) -> Result<()> {
    let settle = "UPDATE shares SET status = ?2, code = ?3 WHERE payout = ?1 AND status = 'ACCEPTED'";
    let mut settle = db.prepare_cached(settle)?;
    for standing in
        found["data"].as_array().into_iter().flatten().filter(|standing| standing["final"] == true)
    {
        settle.execute(params![
            standing["id"].as_str(),
            standing["status"].as_str(),
            standing["code"].as_str()
        ])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_gives_all_of_it_and_something_to_everybody() {
        for (total, count) in [(1, 1), (10, 10), (11, 10), (1_000, 3), (1_000_000, 5_000), (i64::MAX, 2)] {
            for seed in [0, 1, u64::MAX, 0x9E37_79B9_7F4A_7C15] {
                let mut state = seed;
                let shares = split(total, count, || {
                    state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(seed);
                    state
                });
                assert_eq!(shares.len() as i64, count);
                assert!(shares.iter().all(|share| *share > 0), "{total} among {count}: {shares:?}");
                assert_eq!(shares.iter().sum::<i64>(), total, "{total} among {count}");
            }
        }
    }
}
