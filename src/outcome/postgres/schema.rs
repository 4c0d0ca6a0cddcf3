//! The tables of the shared view, made and migrated step by step, each step under the number of its version.
//!
//! What holds: two migrations at once do each step once; an unknown version is refused by name; the view itself never
//! makes or changes a table. Plain SQL only. Numbers in `kind`, `status`, `reason` and `code` are those of the domain;
//! texts that are absent are empty; times are Unix ms, zero where unset. Names are compared byte by byte (collation
//! "C"), in one order whatever the server's locale.
//!
//! `number` is the order in which requests were met, which decides between two under one id. Tallies are kept by
//! stream: each is written by whoever reads that stream, so that instances do not wait for one another; one cell of
//! them may be below zero, their sum never is.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::connect::{self, Failure};
use crate::outcome::view::ViewError;
use crate::postgres::{Migration, Schema};

/// What this code reads and writes.
pub const VERSION: i32 = 1;

const VERSION_TABLE: &str = "
CREATE TABLE IF NOT EXISTS hongbao_view_schema (
    singleton smallint PRIMARY KEY CHECK (singleton = 1),
    version integer NOT NULL,
    identity text NOT NULL,
    secret bytea NOT NULL)";

const STEPS: [&str; VERSION as usize] = [FIRST];

const FIRST: &str = "
CREATE TABLE IF NOT EXISTS hongbao_view_requests (
    client text COLLATE \"C\" NOT NULL,
    id text COLLATE \"C\" NOT NULL,
    digest bytea NOT NULL,
    number bigserial NOT NULL,
    kind smallint NOT NULL,
    status smallint NOT NULL,
    reason smallint,
    code smallint,
    campaign text COLLATE \"C\" NOT NULL,
    party text COLLATE \"C\" NOT NULL,
    merchant text COLLATE \"C\" NOT NULL,
    agreement text COLLATE \"C\" NOT NULL,
    original text COLLATE \"C\" NOT NULL,
    batch text COLLATE \"C\" NOT NULL,
    amount bigint NOT NULL,
    currency text COLLATE \"C\" NOT NULL,
    remark text NOT NULL,
    metadata text NOT NULL,
    accepted_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    settled_at bigint NOT NULL,
    next_attempt_at bigint NOT NULL,
    attempts bigint NOT NULL,
    wallet_ref text NOT NULL,
    reversed_amount bigint NOT NULL,
    PRIMARY KEY (client, id, digest));
CREATE INDEX IF NOT EXISTS hongbao_view_by_time ON hongbao_view_requests (client, accepted_at, id);
CREATE INDEX IF NOT EXISTS hongbao_view_by_campaign ON hongbao_view_requests (client, campaign, accepted_at, id);
CREATE INDEX IF NOT EXISTS hongbao_view_by_party ON hongbao_view_requests (client, party, accepted_at, id)
    WHERE party <> '';
CREATE INDEX IF NOT EXISTS hongbao_view_by_batch ON hongbao_view_requests (client, batch, accepted_at, id)
    WHERE batch <> '';
CREATE INDEX IF NOT EXISTS hongbao_view_by_state ON hongbao_view_requests (client, status, accepted_at, id)
    WHERE status <> 5;
CREATE TABLE IF NOT EXISTS hongbao_view_batches (
    client text COLLATE \"C\" NOT NULL,
    id text COLLATE \"C\" NOT NULL,
    campaign text COLLATE \"C\" NOT NULL,
    currency text COLLATE \"C\" NOT NULL,
    accepted_at bigint NOT NULL,
    PRIMARY KEY (client, id));
CREATE TABLE IF NOT EXISTS hongbao_view_tallies (
    owner smallint NOT NULL CHECK (owner IN (1, 2)),
    client text COLLATE \"C\" NOT NULL,
    name text COLLATE \"C\" NOT NULL,
    stream text COLLATE \"C\" NOT NULL,
    kind smallint NOT NULL,
    status smallint NOT NULL,
    count bigint NOT NULL,
    amount numeric NOT NULL,
    PRIMARY KEY (owner, client, name, stream, kind, status));
CREATE TABLE IF NOT EXISTS hongbao_view_burned (
    client text COLLATE \"C\" NOT NULL,
    id text COLLATE \"C\" NOT NULL,
    currency text COLLATE \"C\" NOT NULL,
    accepted_at bigint NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (client, id));
CREATE TABLE IF NOT EXISTS hongbao_view_credits (
    client text COLLATE \"C\" NOT NULL,
    id text COLLATE \"C\" NOT NULL,
    amount bigint NOT NULL,
    PRIMARY KEY (client, id));
CREATE TABLE IF NOT EXISTS hongbao_view_streams (
    stream text COLLATE \"C\" PRIMARY KEY,
    ms bigint NOT NULL,
    number bigint NOT NULL,
    frames bigint NOT NULL,
    facts bigint NOT NULL,
    skipped bigint NOT NULL);
CREATE TABLE IF NOT EXISTS hongbao_view_gate (singleton smallint PRIMARY KEY CHECK (singleton = 1));
INSERT INTO hongbao_view_gate VALUES (1) ON CONFLICT DO NOTHING";

/// Brings the schema to [`VERSION`], making it if there is none. Repeating it, or running it twice at once, is
/// harmless.
pub async fn migrate(url: &str) -> Result<Migration, ViewError> {
    let config = connect::read_url(url)?;
    let client = connect::connect(&config).await?;
    let encoding = client.query_one("SELECT current_setting('server_encoding')", &[]).await;
    let encoding: String = encoding.map_err(Failure::from)?.get(0);
    if encoding != "UTF8" {
        return Err(ViewError::Database(format!(
            "it keeps its text as {encoding}, and names need UTF8: create it with ENCODING 'UTF8'"
        )));
    }
    let (identity, secret) = (uuid::Uuid::new_v4().to_string(), [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()]);
    let secret = secret.map(|part| *part.as_bytes()).concat();
    let first = "INSERT INTO hongbao_view_schema VALUES (1, 0, $1, $2) ON CONFLICT DO NOTHING";
    let schema = Schema {
        table: "hongbao_view_schema",
        create: VERSION_TABLE,
        first: (first, &[&identity, &secret]),
        steps: &STEPS,
    };
    let done = schema.migrate(&client).await.map_err(Failure::from)?;
    if done.from > VERSION {
        return Err(unknown(done.from));
    }
    Ok(done)
}

fn unknown(found: i32) -> ViewError {
    ViewError::Database(format!(
        "its tables have version {found}, and this hongbao knows {VERSION}: use the newer hongbao"
    ))
}

/// Who a database is, once its schema was seen to be ours.
#[derive(Clone, Debug)]
pub struct Known {
    pub identity: String,
    /// Under which cursors of listings are sealed.
    pub secret: [u8; 32],
}

/// Refuses a database whose schema is not the one this code was written for.
pub async fn check(client: &Client) -> Result<Known, ViewError> {
    let select = "SELECT version, identity, secret FROM hongbao_view_schema";
    let row = match client.query_opt(select, &[]).await {
        Ok(row) => row,
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => None,
        Err(error) => return Err(Failure::from(error).into()),
    };
    let missing = || ViewError::Database("it holds no outcome view yet; run `hongbao migrate`".to_owned());
    let row = row.ok_or_else(missing)?;
    match row.get::<_, i32>(0) {
        0 => Err(missing()),
        VERSION => {
            let secret: &[u8] = row.get(2);
            let secret = secret.try_into().map_err(|_| ViewError::Stored("secret"))?;
            Ok(Known { identity: row.get(1), secret })
        }
        older if older < VERSION => Err(ViewError::Database(format!(
            "its tables have version {older}, and {VERSION} is needed; run `hongbao migrate`"
        ))),
        newer => Err(unknown(newer)),
    }
}
