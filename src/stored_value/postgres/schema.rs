//! The tables, made and migrated step by step, each step under the number of its version.
//!
//! What holds: two migrations at once do each step once (`crate::postgres`); an unknown version is refused by name; the adapter never makes or changes a table. Only plain SQL is used here
//! and beside: no triggers, no functions, no advisory locks, no exclusion constraints, so that databases that only
//! speak PostgreSQL's protocol have all of it.
//!
//! Numbers in `kind` and `code` are those of `TransferKind` and `PayoutCode`; `hold` is 1 open, 2 posted,
//! 3 voided, by an entry or because it expired. A refusal that is final is on record with its code; a burn is a row of kind 6. Names are compared
//! byte by byte (collation "C"), which every instance sorts alike.

use tokio_postgres::{Client, Config};

use super::failure::{Failure, is_missing_table};
use super::{PostgresSetupError, pool, read_url};
use crate::postgres::{Migration, Schema};
use crate::stored_value::remote::CallError;

/// What this code reads and writes.
pub const VERSION: i32 = 2;

const VERSION_TABLE: &str = "
CREATE TABLE IF NOT EXISTS hongbao_schema (
    singleton smallint PRIMARY KEY CHECK (singleton = 1),
    version integer NOT NULL,
    identity text NOT NULL)";

const STEPS: [&str; VERSION as usize] = [FIRST, EXPIRIES];

const FIRST: &str = "
CREATE TABLE IF NOT EXISTS hongbao_accounts (
    name text COLLATE \"C\" NOT NULL,
    currency text COLLATE \"C\" NOT NULL,
    balance bigint NOT NULL,
    held bigint NOT NULL DEFAULT 0,
    may_go_below_zero boolean NOT NULL,
    PRIMARY KEY (name, currency),
    CONSTRAINT hongbao_held CHECK (held >= 0),
    CONSTRAINT hongbao_balance CHECK (balance - held >= 0 OR may_go_below_zero));
CREATE TABLE IF NOT EXISTS hongbao_transfers (
    id text COLLATE \"C\" PRIMARY KEY,
    kind smallint NOT NULL,
    digest bytea NOT NULL,
    debit text COLLATE \"C\",
    credit text COLLATE \"C\",
    amount bigint NOT NULL,
    currency text COLLATE \"C\",
    code smallint,
    of_id text COLLATE \"C\",
    hold smallint,
    reversed bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT hongbao_kind CHECK (kind BETWEEN 1 AND 6),
    CONSTRAINT hongbao_sides CHECK (code IS NOT NULL OR kind = 6 OR
        (debit IS NOT NULL AND credit IS NOT NULL AND currency IS NOT NULL AND debit <> credit)),
    CONSTRAINT hongbao_amount CHECK (amount > 0 OR (amount = 0 AND (code IS NOT NULL OR kind IN (4, 6)))),
    CONSTRAINT hongbao_hold CHECK ((hold IS NOT NULL) = (kind = 2 AND code IS NULL) AND hold BETWEEN 1 AND 3),
    CONSTRAINT hongbao_reversed CHECK (reversed BETWEEN 0 AND amount))";

/// When open holds end by themselves. A table of its own: the migration then rewrites, scans and locks nothing of a
/// wallet that is in use, and a payout, which is no hold, has neither a column nor an index more to fill.
const EXPIRIES: &str = "
CREATE TABLE IF NOT EXISTS hongbao_expiries (
    id text COLLATE \"C\" PRIMARY KEY,
    debit text COLLATE \"C\" NOT NULL,
    currency text COLLATE \"C\" NOT NULL,
    expires_at timestamptz NOT NULL);
CREATE INDEX IF NOT EXISTS hongbao_expiries_due ON hongbao_expiries (debit, currency, expires_at)";

#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error(transparent)]
    Setup(#[from] PostgresSetupError),
    #[error(
        "the wallet's schema in {place} has version {found}, and this hongbao knows {VERSION}: use the newer hongbao"
    )]
    Newer { place: String, found: i32 },
    #[error(
        "the database {place} keeps its text as {found}, and names need UTF8: create it with ENCODING 'UTF8'"
    )]
    Encoding { place: String, found: String },
    #[error("the wallet's schema in {place} could not be migrated: {source}")]
    Database { place: String, source: CallError },
}

/// Brings the schema to [`VERSION`], making it if there is none. Repeating it, or running it twice at once, is
/// harmless.
pub async fn migrate(url: &str) -> Result<Migration, MigrateError> {
    let config = read_url(url)?;
    let place = place(&config);
    let broken =
        |failure: Failure| MigrateError::Database { place: place.clone(), source: failure.into_call() };
    let (client, _task) = pool::connect(&config).await.map_err(broken)?;
    let encoding = client.query_one("SELECT current_setting('server_encoding', true)", &[]).await;
    let encoding: Option<String> = encoding.map_err(|error| broken(error.into()))?.get(0);
    if let Some(found) = encoding.filter(|name| !["UTF8", "UTF-8"].contains(&name.as_str())) {
        return Err(MigrateError::Encoding { place, found });
    }
    let first =
        "INSERT INTO hongbao_schema (singleton, version, identity) VALUES (1, 0, $1) ON CONFLICT DO NOTHING";
    let identity = uuid::Uuid::new_v4().to_string();
    let schema = Schema {
        table: "hongbao_schema",
        create: VERSION_TABLE,
        first: (first, &[&identity]),
        steps: &STEPS,
    };
    let done = schema.migrate(&client).await.map_err(|error| broken(error.into()))?;
    if done.from > VERSION {
        return Err(MigrateError::Newer { place, found: done.from });
    }
    Ok(done)
}

/// Refuses a database whose schema is not the one this code was written for; the wallet's identity if it is.
pub async fn check(client: &Client) -> Result<String, Failure> {
    let refused = |reason: String| Failure::Call(CallError::Rejected(reason));
    let row = match client.query_opt("SELECT version, identity FROM hongbao_schema", &[]).await {
        Ok(row) => row,
        Err(error) if is_missing_table(&error) => None,
        Err(error) => return Err(error.into()),
    };
    let (version, identity) = row.map_or((0, String::new()), |row| (row.get(0), row.get(1)));
    match version {
        0 => Err(refused("the database holds no wallet yet; run `hongbao migrate`".to_owned())),
        VERSION => Ok(identity),
        older if older < VERSION => Err(refused(format!(
            "the wallet's schema has version {older}, and {VERSION} is needed; run `hongbao migrate`"
        ))),
        newer => Err(refused(format!(
            "the wallet's schema has version {newer}, and this hongbao knows {VERSION}: use the newer hongbao"
        ))),
    }
}

/// Where it is, for people; without user and password.
fn place(config: &Config) -> String {
    use tokio_postgres::config::Host;
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(index, host)| {
            let port = config.get_ports().get(index).or(config.get_ports().first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(path) => format!("{}:{port}", path.display()),
            }
        })
        .collect();
    format!("{}/{}", hosts.join(","), config.get_dbname().unwrap_or_default())
}
