//! The reference stored-value service (`hongbao wallet`): the wallet contract over HTTP, on the embedded ledger.
//!
//! ```text
//! routes ─> entry (read, check, stamp) ─> line (faults, waiting) ─> teller (one thread, one sync a group)
//!    │                                                                 └ ledger ─> journal
//!    └ control: faults, received, balances                 recovery: folder ─> books ─> folder
//! check: does a wallet, this one or another, keep the contract's promises?
//! ```
//!
//! What holds: an id is decided once, for good; nothing is answered before it is durable; a call with one
//! invalid field changes nothing. Faults are made in front of the books and never in them: however bad the
//! settings, the money adds up. Absent on purpose: campaigns, clients, limits. `docs/wallet.md` is the contract.

pub mod check;
mod control;
mod dice;
mod entry;
mod faults;
mod folder;
mod line;
mod openapi;
mod received;
mod recovery;
mod routes;
mod teller;

use std::convert::Infallible;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tower::ServiceExt;

pub use faults::{Faults, FaultsError};

use self::folder::WalletFolder;
use self::line::Line;
use self::received::{Counts, Received};
use self::recovery::Recovered;
use self::teller::{Books, Refused, Teller};
use crate::domain::Refusal;
use crate::gateway;
use crate::gateway::body::{self, BodyBounds};
use crate::gateway::problem::Problem;
use crate::journal::{FolderStorage, JournalError, Storage};
use crate::stored_value::StoredValueError;

#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    #[error(
        "the wallet folder {path} cannot be used ({what}): {error}; check its permissions and free space"
    )]
    Folder { path: String, what: &'static str, error: std::io::Error },
    #[error("the wallet folder {path} is in use by process {pid}; stop it, or use another --data")]
    Held { path: String, pid: String },
    #[error(
        "{path} is not a wallet folder of this release (it has {found:?}); use an empty folder as --data"
    )]
    Foreign { path: String, found: String },
    #[error(
        "the snapshot {name} cannot be used: {reason}; move the snap-* files away to replay the whole journal"
    )]
    Snapshot { name: String, reason: String },
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Ledger(#[from] StoredValueError),
    #[error("a thread of the wallet cannot be started: {0}")]
    Thread(#[from] std::io::Error),
    #[error("the thread that owns the books panicked; start the wallet again")]
    Panicked,
}

const BODY: BodyBounds = BodyBounds { bytes_max: 8 << 20, timeout: Duration::from_secs(10) };
/// How long open connections may take when the wallet stops; those it never meant to answer are among them.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

pub struct Options {
    pub data: PathBuf,
    /// What the `Authorization` header of every call must say.
    pub authorization: Option<String>,
    pub faults: Faults,
}

/// What every call is answered from.
struct Desk {
    identity: String,
    authorization: Option<blake3::Hash>,
    teller: Teller,
    line: Mutex<Line>,
    received: Mutex<Received>,
    refused: Refused,
    started: Instant,
    clock: teller::Clock,
}

impl Desk {
    /// Time since the start.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, counts: Counts) {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).count(self.now(), counts);
    }

    fn authorize(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(wanted) = &self.authorization else { return Ok(()) };
        let given = headers.get(header::AUTHORIZATION);
        // Hashes are compared in constant time.
        if given.is_some_and(|given| blake3::hash(given.as_bytes()) == *wanted) {
            return Ok(());
        }
        Err(Problem::new(Refusal::Unauthorized, "the Authorization header is missing or not the one set"))
    }

    /// Takes in a call whose body is JSON.
    async fn open(&self, request: Request) -> Result<String, Problem> {
        let (parts, body) = request.into_parts();
        self.authorize(&parts.headers)?;
        body::check_type(&parts.headers)?;
        let bytes = body::read(&parts.headers, body, BODY).await?;
        Ok(body::text(&bytes)?.to_owned())
    }

    fn refuse_accounts(&self, faults: &Faults) {
        let accounts = faults.refused_accounts().map(|(name, code)| (name.as_bytes().into(), code));
        *self.refused.write().unwrap_or_else(PoisonError::into_inner) = accounts.collect();
    }
}

/// A running wallet, without its listener.
pub struct Wallet {
    desk: Arc<Desk>,
    thread: JoinHandle<Result<Books, WalletError>>,
    storage: Arc<dyn Storage>,
    _folder: WalletFolder,
}

/// In a response: close the connection instead of sending it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the connection is closed on purpose")]
struct Cut;

impl From<Infallible> for Cut {
    fn from(never: Infallible) -> Cut {
        match never {}
    }
}

fn cut(result: Result<Response, Infallible>) -> Result<Response, Cut> {
    let Ok(response) = result;
    match response.extensions().get::<Cut>() {
        Some(cut) => Err(*cut),
        None => Ok(response),
    }
}

impl Wallet {
    /// Recovers the folder and starts. `on_failure` is called when the wallet can go on no more.
    pub fn start(options: Options, on_failure: Box<dyn Fn() + Send>) -> Result<Wallet, WalletError> {
        let folder = WalletFolder::open(&options.data)?;
        let dir = folder.journal_dir();
        let used = |error| WalletError::Folder { path: dir.display().to_string(), what: "opening it", error };
        let storage: Arc<dyn Storage> = Arc::new(FolderStorage::new(&dir).map_err(used)?);
        let Recovered { ledger, journal, expiries, report } =
            recovery::recover(&storage, folder.identity.clone())?;
        tracing::info!(report, "recovered");
        let clock: teller::Clock = Arc::new(|| {
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
        });
        let refused = Refused::default();
        let books = Books { ledger, journal, expiries, refused: refused.clone(), clock: clock.clone() };
        let (teller, thread) = teller::start(books, on_failure)?;
        let desk = Desk {
            identity: folder.identity.clone(),
            authorization: options.authorization.map(|value| blake3::hash(value.as_bytes())),
            teller,
            line: Mutex::new(Line::new(options.faults.clone())),
            received: Mutex::default(),
            refused,
            started: Instant::now(),
            clock,
        };
        desk.refuse_accounts(&options.faults);
        Ok(Wallet { desk: Arc::new(desk), thread, storage, _folder: folder })
    }

    /// Serves until `shutdown`.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let router = routes::router(self.desk.clone());
        let service = ServiceExt::<Request<Incoming>>::map_result(router, cut);
        let options = gateway::Options { drain_timeout: DRAIN_TIMEOUT, ..gateway::Options::default() };
        gateway::serve(listener, service, &options, shutdown).await;
    }

    /// Ends the books with a snapshot. Calls on their way must have ended with their runtime.
    pub fn stop(self) -> Result<(), WalletError> {
        drop(self.desk);
        let books = self.thread.join().map_err(|_| WalletError::Panicked)??;
        recovery::save(&*self.storage, &books.ledger, &books.journal, &books.expiries)?;
        Ok(books.journal.shutdown()?)
    }
}
