//! Connections to the view's database: a few, lent to one caller at a time, used from threads that may block.
//!
//! What holds: a connection whose call failed, or was given up, is closed and never lent again; whatever stood open on
//! it the server rolls back. Connections run on a thread of their own. Absent: TLS (`sslmode=require` is refused; use a
//! local proxy or a private network).

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};

use crate::outcome::view::ViewError;
use crate::postgres;

/// How long one call may take.
const CALL_MAX: Duration = Duration::from_secs(30);

/// What an error of the database means for what was to be written.
#[derive(Debug)]
pub enum Failure {
    /// Rolled back whole, because of somebody else's transaction: the same again may succeed.
    Again(String),
    /// Somebody else has read the stream further than we thought.
    Fenced,
    View(ViewError),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Failure {
        let reason = postgres::text(&error);
        if postgres::is_to_be_repeated(&error) {
            return Failure::Again(reason);
        }
        match error.code().map(|code| code.code()) {
            Some("42P01" | "42703") => {
                let advice = "the view's tables are not there; run `hongbao migrate`";
                Failure::View(ViewError::Database(format!("{reason}: {advice}")))
            }
            _ => Failure::View(ViewError::Database(reason)),
        }
    }
}

impl From<ViewError> for Failure {
    fn from(error: ViewError) -> Failure {
        Failure::View(error)
    }
}

impl From<Failure> for ViewError {
    fn from(failure: Failure) -> ViewError {
        match failure {
            Failure::View(error) => error,
            Failure::Again(reason) => ViewError::Database(format!("it rolled every attempt back: {reason}")),
            Failure::Fenced => {
                let what = "another instance reads the same streams; what it stored is read anew";
                ViewError::Database(what.to_owned())
            }
        }
    }
}

/// The options of a URL. Its text is never repeated in an error: a part of it may be a password.
pub fn read_url(url: &str) -> Result<Config, ViewError> {
    let refused = |reason: &str| ViewError::Database(format!("its URL cannot be used: {reason}"));
    let mut config: Config =
        url.parse().map_err(|_| refused("write it as postgres://user:password@host:5432/database"))?;
    if config.get_hosts().is_empty() {
        return Err(refused("it names no host"));
    }
    if !matches!(config.get_ssl_mode(), SslMode::Disable | SslMode::Prefer) {
        return Err(refused("it asks for sslmode=require, and this adapter does not speak TLS"));
    }
    if config.get_application_name().is_none() {
        config.application_name("hongbao view");
    }
    Ok(config)
}

/// Connects without asking what is in the database. Needs a runtime around it.
pub async fn connect(config: &Config) -> Result<Client, ViewError> {
    let (client, connection) = config.connect(NoTls).await.map_err(Failure::from)?;
    tokio::spawn(async move {
        // Whoever waits for an answer on it is told by the client.
        let _ = connection.await;
    });
    let timeout_ms = CALL_MAX.as_millis();
    let set = format!(
        "SET statement_timeout = {timeout_ms}; SET idle_in_transaction_session_timeout = {timeout_ms}"
    );
    client.batch_execute(&set).await.map_err(Failure::from)?;
    Ok(client)
}

#[derive(Default)]
struct Lent {
    idle: Vec<Client>,
    open_count: usize,
}

pub struct Connections {
    config: Config,
    open_count_max: usize,
    lent: Mutex<Lent>,
    returned: Condvar,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Connections {
    pub fn new(url: &str, open_count_max: usize) -> Result<Connections, ViewError> {
        let config = read_url(url)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("view-io")
            .enable_all()
            .build()
            .map_err(|error| ViewError::Database(format!("no thread for its connections: {error}")))?;
        let open_count_max = open_count_max.max(1);
        Ok(Connections {
            config,
            open_count_max,
            lent: Mutex::default(),
            returned: Condvar::new(),
            runtime: Some(runtime),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Lent> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `call` on a connection, and blocks until it is done.
    pub fn run<T, E: From<ViewError>>(
        &self,
        call: impl AsyncFnOnce(&mut Client) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut loan = self.borrow();
        let runtime = self.runtime.as_ref().expect("there until it is dropped");
        let late = || ViewError::Database(format!("no answer within {} s", CALL_MAX.as_secs()));
        let work = async {
            let mut client = match loan.client.take() {
                Some(client) if !client.is_closed() => client,
                _ => connect(&self.config).await?,
            };
            let answer = call(&mut client).await?;
            // Only what went well is lent again; anything else may stand in the middle of a transaction.
            loan.client = Some(client);
            Ok(answer)
        };
        // The clock is the runtime's, so that the limit must be made within it.
        let answered = runtime.block_on(async { tokio::time::timeout(CALL_MAX, work).await });
        answered.unwrap_or_else(|_| Err(late().into()))
    }

    fn borrow(&self) -> Loan<'_> {
        let mut lent = self.lock();
        loop {
            if let Some(client) = lent.idle.pop() {
                return Loan { connections: self, client: Some(client) };
            }
            if lent.open_count < self.open_count_max {
                lent.open_count += 1;
                return Loan { connections: self, client: None };
            }
            lent = self.returned.wait(lent).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // It may be dropped on a thread that must not wait.
            runtime.shutdown_background();
        }
    }
}

struct Loan<'c> {
    connections: &'c Connections,
    client: Option<Client>,
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let mut lent = self.connections.lock();
        match self.client.take() {
            Some(client) => lent.idle.push(client),
            None => lent.open_count -= 1,
        }
        drop(lent);
        self.connections.returned.notify_one();
    }
}
