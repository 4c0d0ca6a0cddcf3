//! A bounded number of connections, lent one at a time.
//!
//! What holds: a connection comes back only from whoever says that it stands outside any transaction; one that is
//! simply dropped (an error, a deadline, a caller that went away) is cancelled and closed, so that it can neither
//! hold locks nor be lent again in the middle of something. A connection is lent only after its schema was seen
//! to be ours. Absent: health checks and ageing; a broken connection is noticed when it is used.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls};

use super::failure::Failure;
use super::schema;

/// How long a request to cancel may take; the statement timeout ends the statement where it does not arrive.
const CANCEL_WITHIN: Duration = Duration::from_secs(1);

struct Connection {
    client: Client,
    task: JoinHandle<()>,
    /// What the server was last told.
    statement_timeout_ms: u64,
}

pub struct Pool {
    config: Config,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Pool {
    pub fn new(config: Config, connections_max: usize) -> Pool {
        let permits = Arc::new(Semaphore::new(connections_max.clamp(1, Semaphore::MAX_PERMITS)));
        Pool { config, idle: Mutex::default(), permits }
    }

    /// Waits for a connection and has the server give up statements after `timeout`.
    pub async fn lend(self: &Arc<Pool>, timeout: Duration) -> Result<Lease, Failure> {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Failure::unknown("the wallet is shut down"))?;
        let connection = match self.take_idle() {
            Some(connection) => connection,
            None => self.open().await?,
        };
        let mut lease = Lease { pool: self.clone(), connection: Some(connection), _permit: permit };
        lease.limit(timeout).await?;
        Ok(lease)
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| !connection.client.is_closed());
        idle.pop()
    }

    async fn open(&self) -> Result<Connection, Failure> {
        let (client, task) = connect(&self.config).await?;
        schema::check(&client).await?;
        // A role may have been told to acknowledge before the log is on disk; paid would then not mean paid.
        let lax = client.query_one("SELECT current_setting('synchronous_commit', true) = 'off'", &[]).await?;
        if lax.get::<_, Option<bool>>(0) == Some(true) {
            client.batch_execute("SET synchronous_commit = on").await?;
        }
        Ok(Connection { client, task, statement_timeout_ms: 0 })
    }
}

/// Connects without asking what is in the database.
pub async fn connect(config: &Config) -> Result<(Client, JoinHandle<()>), Failure> {
    let (client, connection) = config.connect(NoTls).await?;
    let task = tokio::spawn(async move {
        // Whoever waits for an answer on it is told by the client.
        let _ = connection.await;
    });
    Ok((client, task))
}

/// A connection while it is lent.
pub struct Lease {
    pool: Arc<Pool>,
    connection: Option<Connection>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    pub fn client(&self) -> &Client {
        &self.connection.as_ref().expect("there until it is given back").client
    }

    /// Gives it back. It must stand outside any transaction.
    pub fn give_back(mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }

    async fn limit(&mut self, timeout: Duration) -> Result<(), Failure> {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).clamp(1, 86_400_000);
        let connection = self.connection.as_mut().expect("there until it is given back");
        if connection.statement_timeout_ms != timeout_ms {
            // The second covers a client that vanished between two statements of a transaction.
            let set = format!(
                "SET statement_timeout = {timeout_ms}; SET idle_in_transaction_session_timeout = {timeout_ms}"
            );
            connection.client.batch_execute(&set).await?;
            connection.statement_timeout_ms = timeout_ms;
        }
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let broken = connection.client.is_closed();
        let cancel = connection.client.cancel_token();
        // The socket closes at once; a server that is in the middle of a statement notices only at its end.
        connection.task.abort();
        if broken {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // It spares the server work; nothing depends on its arrival.
                let _ = tokio::time::timeout(CANCEL_WITHIN, cancel.cancel_query(NoTls)).await;
            });
        }
    }
}
