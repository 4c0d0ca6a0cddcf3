//! A wallet in a PostgreSQL database, or in what speaks its protocol.
//!
//! The usual batch, transfers alone, is decided by one statement (`at_once`): it claims the ids, moves the money
//! of those that were new, and tells what is on record for the rest. Whatever that statement leaves open (a balance
//! that does not bear the whole batch, holds, reversals, an account on both sides) is decided entry by entry under
//! row locks, by the rules of the embedded ledger (`exact`, `books`). Either way a batch is one transaction.
//!
//! What holds: whoever inserts an id first decides it, be it a transfer or a burn; both sides of a movement change
//! in one transaction, so that the balances of a currency always add up to zero; the constraints of `schema` refuse
//! an overdraft whatever the code does. Rows are locked in one order (ids, then accounts, each in order of their
//! bytes). What the server says it rolled back because of somebody else is sent again, a few times and within
//! the deadline; nothing else is.
//!
//! A hold that has expired is voided by whoever next decides over its account or about it (`expiry`), by the
//! database's clock; until then nobody misses the money.
//!
//! Absent: TLS (`sslmode=require` is refused; use a local proxy or a private network); any thread of its own.

mod at_once;
mod books;
mod exact;
mod expiry;
mod failure;
mod pool;
mod record;
mod schema;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config};

pub use self::at_once::STATEMENT;
use self::failure::Failure;
use self::pool::Pool;
use self::record::Entry;
pub use self::schema::{MigrateError, VERSION, migrate};
use super::TransferBatch;
use super::remote::{Answer, CallError, OnRecord, RemoteWallet, Reply};
use crate::domain::TransferStatus;

/// How often a transaction is sent that the server rolled back because of another one.
const ATTEMPTS_MAX: u32 = 12;
/// Identity is asked without a deadline of the caller's.
const IDENTITY_WITHIN: Duration = Duration::from_secs(10);

#[derive(Clone, PartialEq, Eq)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/database`, with the options that libpq knows.
    pub url: String,
    /// Connections held at once; further calls wait, within their deadline.
    pub connections_max: usize,
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("connections_max", &self.connections_max)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostgresSetupError {
    #[error(
        "the URL of the wallet's database cannot be read ({0}); write it as postgres://user:password@host:5432/database"
    )]
    Url(String),
    #[error(
        "the URL of the wallet's database asks for sslmode=require, and this adapter does not speak TLS; connect \
         through a local TLS proxy or a private network, with sslmode=disable"
    )]
    Tls,
}

/// The options of a URL. Its text is never repeated in an error: a part of it may be a password.
fn read_url(url: &str) -> Result<Config, PostgresSetupError> {
    const OPTIONS: [&str; 9] = [
        "sslmode",
        "port",
        "hostaddr",
        "connect_timeout",
        "tcp_user_timeout",
        "keepalives",
        "target_session_attrs",
        "channel_binding",
        "load_balance_hosts",
    ];
    let config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        let named = OPTIONS.iter().find(|option| cause == format!("invalid value for option `{option}`"));
        PostgresSetupError::Url(match named {
            Some(option) => format!("the value of {option} is not one that is known here"),
            None => "it is not a URL of this kind".to_owned(),
        })
    })?;
    if config.get_hosts().is_empty() {
        return Err(PostgresSetupError::Url("it names no host".to_owned()));
    }
    match config.get_ssl_mode() {
        SslMode::Disable | SslMode::Prefer => Ok(config),
        _ => Err(PostgresSetupError::Tls),
    }
}

/// The adapter. Nothing is connected before the first call.
pub struct PostgresWallet {
    pool: Arc<Pool>,
}

impl PostgresWallet {
    pub fn new(options: &PostgresOptions) -> Result<PostgresWallet, PostgresSetupError> {
        let mut config = read_url(&options.url)?;
        if config.get_application_name().is_none() {
            config.application_name("hongbao");
        }
        Ok(PostgresWallet { pool: Arc::new(Pool::new(config, options.connections_max)) })
    }
}

impl RemoteWallet for PostgresWallet {
    fn identity(&self) -> Reply<String> {
        let pool = self.pool.clone();
        within(IDENTITY_WITHIN, async move {
            let lease = pool.lend(IDENTITY_WITHIN).await?;
            let identity = schema::check(lease.client()).await?;
            lease.give_back();
            Ok(identity)
        })
    }

    fn transfer(&self, batch: Arc<TransferBatch>, deadline: Duration) -> Reply<Vec<Answer>> {
        let pool = self.pool.clone();
        within(deadline, async move {
            let entries = record::entries(&batch)?;
            let lease = pool.lend(deadline).await?;
            let statuses = decide(lease.client(), &entries).await?;
            lease.give_back();
            Ok(statuses.into_iter().map(answer).collect())
        })
    }

    fn burn(&self, ids: Vec<String>, deadline: Duration) -> Reply<Vec<Answer>> {
        let pool = self.pool.clone();
        within(deadline, async move {
            let lease = pool.lend(deadline).await?;
            let mut attempt = 0;
            loop {
                attempt += 1;
                match at_once::burn(lease.client(), &ids).await {
                    Ok(statuses) => {
                        lease.give_back();
                        return Ok(statuses.into_iter().map(answer).collect());
                    }
                    Err(failure) => recover(failure, attempt).await?,
                }
            }
        })
    }

    fn lookup(&self, ids: Vec<String>, deadline: Duration) -> Reply<Vec<Option<OnRecord>>> {
        let pool = self.pool.clone();
        within(deadline, async move {
            let lease = pool.lend(deadline).await?;
            let found = at_once::lookup(lease.client(), &ids).await?;
            lease.give_back();
            Ok(found)
        })
    }
}

/// Runs a call until its deadline. A call that is given up, or dropped, takes its connection with it.
fn within<T: 'static>(
    deadline: Duration,
    call: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Reply<T> {
    Box::pin(async move {
        match timeout(deadline, call).await {
            Ok(result) => result.map_err(Failure::into_call),
            Err(_) => {
                let after_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
                Err(CallError::TimedOut { after_ms })
            }
        }
    })
}

fn answer(status: TransferStatus) -> Answer {
    Answer { status, wallet_ref: String::new() }
}

/// Decides a batch: what one statement can, at once; the rest entry by entry.
async fn decide(client: &Client, entries: &[Entry<'_>]) -> Result<Vec<TransferStatus>, Failure> {
    let mut statuses: Vec<Option<TransferStatus>> = vec![None; entries.len()];
    if let Some(plan) = at_once::Plan::of(entries) {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match at_once::decide(client, &plan, entries).await {
                Ok(decided) => {
                    statuses = decided;
                    break;
                }
                // Rolled back, nothing is decided.
                Err(Failure::Unfit(_)) => break,
                Err(failure) => recover(failure, attempt).await?,
            }
        }
    }
    let open: Vec<usize> = (0..entries.len()).filter(|index| statuses[*index].is_none()).collect();
    if !open.is_empty() {
        let chosen: Vec<Entry<'_>> = open.iter().map(|index| entries[*index]).collect();
        let mut attempt = 0;
        let decided = loop {
            attempt += 1;
            match exact::decide(client, &chosen).await {
                Ok(decided) => break decided,
                Err(failure) => recover(failure, attempt).await?,
            }
        };
        for (index, status) in open.into_iter().zip(decided) {
            statuses[index] = Some(status);
        }
    }
    Ok(statuses.into_iter().map(|status| status.unwrap_or(TransferStatus::Unknown)).collect())
}

/// After a failure: waits, if the same may be sent again; else the call has failed.
async fn recover(failure: Failure, attempt: u32) -> Result<(), Failure> {
    let Failure::Again(_) = failure else { return Err(failure) };
    if attempt >= ATTEMPTS_MAX {
        return Err(failure);
    }
    // A random part, so that two that met do not meet again.
    let span_us = 1_000u64 << attempt.min(6);
    let pause_us = uuid::Uuid::new_v4().as_u64_pair().0 % span_us;
    tokio::time::sleep(Duration::from_micros(pause_us)).await;
    Ok(())
}
