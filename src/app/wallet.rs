//! The wallet of the service: the ledger in this process, or one elsewhere and the runtime that talks to it.
//!
//! What holds: a data folder belongs to one wallet, named by kind and identity in its file `WALLET`; with another
//! the service does not start, or does not feed. A wallet that cannot be reached does not keep the door shut: what
//! is accepted waits until it answers and is known to be the right one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::runtime::Runtime;

use crate::audit::WalletRecord;
use crate::config::Config;
use crate::domain::TransferStatus;
use crate::pipeline::Pipeline;
use crate::stored_value::http::{HttpOptions, HttpWallet};
use crate::stored_value::remote::{CallError, OnRecord, RemoteWallet};

/// How long a start waits for the wallet before it goes on without.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(500);

/// A wallet elsewhere.
pub struct WalletLink {
    pub wallet: Arc<dyn RemoteWallet>,
    pub runtime: Runtime,
    kind: String,
    /// Where the identity is kept; none in memory.
    file: Option<PathBuf>,
    known: bool,
}

/// The adapter that the configuration names; none for the ledger in this process.
pub fn adapter(config: &Config) -> anyhow::Result<Option<Arc<dyn RemoteWallet>>> {
    let settings = &config.raw.stored_value;
    match settings.kind.as_str() {
        "embedded" => Ok(None),
        "http" => {
            let http = HttpOptions {
                url: settings.http.url.clone(),
                authorization: settings.http.authorization.clone(),
                ca_file: settings.http.ca_file.clone(),
                // The gate lets twice as many fly when some are late.
                connections_max: 2 * settings.calls_max,
            };
            Ok(Some(Arc::new(HttpWallet::new(&http)?)))
        }
        other => bail!("stored_value.kind = {other:?} has no adapter"),
    }
}

/// Refuses a folder whose books are of another kind of wallet.
pub fn check_kind(folder: &Path, kind: &str) -> anyhow::Result<()> {
    let path = folder.join("WALLET");
    let held = match fs::read_to_string(&path) {
        Ok(text) => text.split_whitespace().next().unwrap_or_default().to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // A folder from before this file was known, or a new one.
            let is_used = fs::read_dir(folder.join("journal")).is_ok_and(|mut names| names.next().is_some());
            if !is_used {
                return Ok(());
            }
            "embedded".to_owned()
        }
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    if held != kind {
        bail!(
            "the data folder {} belongs to a wallet of kind {held:?}, and stored_value.kind is {kind:?}; use a data \
             folder of its own for each wallet",
            folder.display()
        );
    }
    Ok(())
}

impl WalletLink {
    pub fn new(
        wallet: Arc<dyn RemoteWallet>,
        config: &Config,
        folder: Option<&Path>,
    ) -> anyhow::Result<WalletLink> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("wallet")
            .enable_all()
            .build()
            .context("the wallet's runtime")?;
        let file = folder.map(|folder| folder.join("WALLET"));
        let mut link =
            WalletLink { wallet, runtime, kind: config.raw.stored_value.kind.clone(), file, known: false };
        let deadline = Instant::now() + FIRST_WAIT;
        while !link.known {
            match link.meet() {
                Ok(identity) => link.recognise(&identity)?,
                Err(error) if Instant::now() > deadline => {
                    tracing::warn!(%error, "the wallet does not answer; nothing is paid until it does");
                    break;
                }
                Err(_) => std::thread::sleep(RETRY.min(Duration::from_millis(100))),
            }
        }
        Ok(link)
    }

    fn meet(&self) -> anyhow::Result<String> {
        let asked =
            self.runtime.block_on(async { tokio::time::timeout(FIRST_WAIT, self.wallet.identity()).await });
        Ok(asked.context("no answer")??)
    }

    /// Checks the identity against the folder's, or keeps it there for good.
    fn recognise(&mut self, identity: &str) -> anyhow::Result<()> {
        recognise(self.file.as_deref(), &self.kind, identity)?;
        self.known = true;
        Ok(())
    }

    /// Holds the feed until the wallet is known, if it is not yet; a wallet that proves to be another one holds it
    /// for good.
    pub fn watch(&self, pipeline: &Arc<Pipeline>, stopping: Arc<AtomicBool>) {
        if self.known {
            return;
        }
        pipeline.counts.wallet_unknown.store(true, Ordering::Release);
        let (wallet, file, kind) = (self.wallet.clone(), self.file.clone(), self.kind.clone());
        let pipeline = Arc::downgrade(pipeline);
        self.runtime.spawn(async move {
            while !stopping.load(Ordering::Acquire) {
                tokio::time::sleep(RETRY).await;
                let Ok(identity) = wallet.identity().await else { continue };
                let Some(pipeline) = pipeline.upgrade() else { return };
                match recognise(file.as_deref(), &kind, &identity) {
                    Ok(()) => {
                        tracing::info!(identity, "the wallet answers");
                        pipeline.counts.wallet_unknown.store(false, Ordering::Release);
                        pipeline.ring();
                    }
                    Err(error) => tracing::error!(%error, "nothing is paid"),
                }
                return;
            }
        });
    }
}

fn recognise(file: Option<&Path>, kind: &str, identity: &str) -> anyhow::Result<()> {
    let Some(file) = file else { return Ok(()) };
    match fs::read_to_string(file) {
        Ok(text) => {
            let held = text.split_whitespace().nth(1).unwrap_or_default();
            if held != identity {
                bail!(
                    "the wallet says it is {identity}, and the books in {} are of the wallet {held}; check the \
                     wallet's URL",
                    file.display()
                );
            }
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let fresh = file.with_extension("new");
            fs::write(&fresh, format!("{kind} {identity}\n"))
                .and_then(|()| fs::File::open(&fresh)?.sync_all())
                .and_then(|()| fs::rename(&fresh, file))
                .with_context(|| format!("writing {}", file.display()))
        }
        Err(error) => Err(error).with_context(|| format!("reading {}", file.display())),
    }
}

/// Looks up ids at a wallet elsewhere, for whoever compares books; from threads that may wait.
pub struct WalletReader {
    wallet: Arc<dyn RemoteWallet>,
    runtime: Runtime,
    deadline: Duration,
    entries_max: usize,
}

/// How often a look-up is tried; the pauses grow to a second and add up to about fifteen.
const LOOKUPS_MAX: u32 = 25;

impl WalletReader {
    /// None for the ledger in this process.
    pub fn of(config: &Config) -> anyhow::Result<Option<WalletReader>> {
        let Some(wallet) = adapter(config)? else { return Ok(None) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (deadline, entries_max) = (config.remote.deadline, config.remote.batch_count_max);
        Ok(Some(WalletReader { wallet, runtime, deadline, entries_max }))
    }

    pub fn identity(&self) -> Result<String, CallError> {
        self.runtime.block_on(self.wallet.identity())
    }

    /// What is on record for each id, in order. Asks again where the wallet does not answer: a look-up has no effect.
    pub fn look_up(&self, ids: &[String]) -> Result<Vec<Option<OnRecord>>, CallError> {
        let mut records = Vec::with_capacity(ids.len());
        for page in ids.chunks(self.entries_max) {
            records.extend(self.runtime.block_on(self.look_up_page(page))?);
        }
        Ok(records)
    }

    async fn look_up_page(&self, ids: &[String]) -> Result<Vec<Option<OnRecord>>, CallError> {
        let mut tries = 1;
        loop {
            let error = match self.wallet.lookup(ids.to_vec(), self.deadline).await {
                Ok(records) if records.len() == ids.len() => return Ok(records),
                Ok(records) => {
                    let (got, asked) = (records.len(), ids.len());
                    CallError::Unknown(format!("the wallet gave {got} records for {asked} ids"))
                }
                Err(error) => error,
            };
            let may_pass = matches!(
                error,
                CallError::TimedOut { .. } | CallError::Unknown(_) | CallError::Overloaded { .. }
            );
            if !may_pass || tries == LOOKUPS_MAX {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(50 * u64::from(tries.min(20)))).await;
            tries += 1;
        }
    }

    /// The same for the audit, which knows no adapter.
    pub fn audit_records(&self, ids: &[String]) -> Result<Vec<WalletRecord>, String> {
        let records = self.look_up(ids).map_err(|error| error.to_string())?;
        let words = records.into_iter().map(|record| match record {
            None => WalletRecord::Nothing,
            Some(OnRecord { answer, amount }) => match answer.status {
                TransferStatus::Succeeded => WalletRecord::Done { amount },
                TransferStatus::Failed(_) => WalletRecord::Refused,
                TransferStatus::Unknown => WalletRecord::Undecided,
            },
        });
        Ok(words.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_belongs_to_one_wallet() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("WALLET");
        check_kind(temp.path(), "http").expect("a new folder is anybody's");
        recognise(Some(&file), "http", "a").unwrap();
        recognise(Some(&file), "http", "a").expect("the same again");
        let other = recognise(Some(&file), "http", "b").unwrap_err().to_string();
        assert!(other.contains('a') && other.contains("URL"), "{other}");
        check_kind(temp.path(), "http").unwrap();
        assert!(check_kind(temp.path(), "embedded").unwrap_err().to_string().contains("folder of its own"));

        let used = tempfile::tempdir().unwrap();
        fs::create_dir(used.path().join("journal")).unwrap();
        fs::write(used.path().join("journal/000"), "").unwrap();
        check_kind(used.path(), "embedded").expect("from before");
        assert!(check_kind(used.path(), "postgres").is_err());
    }
}
