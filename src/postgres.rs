//! What the wallet's adapter and the outcome view share of PostgreSQL: what its errors say, and how tables are migrated.
//!
//! What holds: the text of an error carries the server's code and message and never the URL, which may hold a password;
//! of two migrations at once each step is done once, since the second waits for the row that holds the version.

use std::time::Duration;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};

/// Code and message, as in `40001 could not serialize access`.
pub fn text(error: &Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} {}", db.code().code(), db.message()),
        None => error.to_string(),
    }
}

/// Rolled back whole, because of somebody else's transaction: the same again may succeed.
pub fn is_to_be_repeated(error: &Error) -> bool {
    // Serialization failure, deadlock, lock timeout; a key, or a table and its type, that two statements made at the
    // same moment.
    let codes = ["40001", "40P01", "55P03", "23505", "42P07", "42710"];
    error.code().is_some_and(|code| codes.contains(&code.code()))
}

/// Rounds of a migration that others disturb.
const ATTEMPTS_MAX: u32 = 20;

/// Tables that are made step by step, each step under the number of its version.
pub struct Schema<'a> {
    /// The table of one row that holds `version` and `identity`.
    pub table: &'a str,
    /// Makes it.
    pub create: &'a str,
    /// Adds its row, at version 0, where there is none; and what goes into it.
    pub first: (&'a str, &'a [&'a (dyn ToSql + Sync)]),
    pub steps: &'a [&'a str],
}

/// What a migration did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Zero: there was no schema. Beyond `to`: that of a newer hongbao, left as it is.
    pub from: i32,
    pub to: i32,
    /// The UUID made with the first migration: what tells one set of tables from another.
    pub identity: String,
}

impl Schema<'_> {
    /// Brings the tables up to date, making them if there are none. Repeating it, or running it twice at once, is
    /// harmless.
    pub async fn migrate(&self, client: &Client) -> Result<Migration, Error> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.advance(client).await {
                // Two that make one table at the same moment: the catalogue's own keys refuse the second.
                Err(error) if attempt < ATTEMPTS_MAX && is_to_be_repeated(&error) => {}
                done => return done,
            }
            client.batch_execute("ROLLBACK").await?;
            tokio::time::sleep(Duration::from_millis(10 * u64::from(attempt))).await;
        }
    }

    async fn advance(&self, client: &Client) -> Result<Migration, Error> {
        let Schema { table, create, first: (first, values), steps } = *self;
        client.batch_execute(create).await?;
        client.execute(first, values).await?;
        client.batch_execute("BEGIN").await?;
        let row = client.query_one(&format!("SELECT version, identity FROM {table} FOR UPDATE"), &[]).await?;
        let (from, identity): (i32, String) = (row.get(0), row.get(1));
        for step in steps.iter().skip(usize::try_from(from).unwrap_or(0)) {
            client.batch_execute(step).await?;
        }
        let to = steps.len() as i32;
        if from < to {
            client.execute(&format!("UPDATE {table} SET version = $1"), &[&to]).await?;
        }
        client.batch_execute("COMMIT").await?;
        Ok(Migration { from, to, identity })
    }
}
