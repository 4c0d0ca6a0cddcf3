//! The composition root: builds the service from its configuration, and takes it down. The only place that
//! names adapters.
//!
//! Start: folder, snapshot, journal (replaying the tail into desk, queues and ledger), desk, pipeline, view,
//! checkpoints. Stop, in order: the door, the feed, the ring (drained), the desk, a last snapshot, the journal.
//! [`office`] and [`parked`] give the gateway what it needs, [`vitals`] tells how the service is, [`checkpoint`] takes
//! snapshots, [`wallet`] knows a wallet elsewhere and [`breaker`] whether it is called, [`books`] the ledger here beside an
//! intake elsewhere, [`reclaim`] gives up journal that nobody needs, [`folder`] guards the data folder.

mod books;
pub mod breaker;
pub mod checkpoint;
pub mod folder;
pub mod office;
mod parked;
pub mod reclaim;
pub mod redis;
pub mod vitals;
pub mod wallet;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;

use self::breaker::{BreakerThread, KeeperParts, Made};
use self::checkpoint::{Checkpointer, ManifestOf};
use self::folder::DataFolder;
use self::reclaim::Reclaimer;
use self::wallet::WalletLink;
use crate::breaker::board::Workload;
use crate::config::Config;
use crate::domain::UnixMs;
use crate::intake::desk::decide::Clerk;
use crate::intake::desk::memory::{Memory, SettledRow};
use crate::intake::desk::{Desk, DeskThread};
use crate::intake::embedded::entry::{FRAME_ACCEPT, FRAME_CONTROL, SECTION_BYTES};
use crate::intake::embedded::identity::Entries;
use crate::intake::{embedded, embedded::EmbeddedIntake};
use crate::journal::{FolderStorage, Frame, Journal, Storage};
use crate::outcome::embedded::EmbeddedOutcomeLog;
use crate::outcome::entry::FRAME_OUTCOMES;
use crate::outcome::view::{View, ViewHandle, ViewWorker, WorkerOptions};
use crate::pipeline::remote::Remote;
use crate::pipeline::suspects::{BlobSuspects, Suspects};
use crate::pipeline::{Parts, Pipeline, Wallet};
use crate::ring::Poison;
use crate::stored_value::ledger::{self, Ledger};
use crate::stored_value::remote::RemoteWallet;

pub type Clock = Arc<dyn Fn() -> UnixMs + Send + Sync>;

/// Unix time in milliseconds.
pub fn now_ms() -> UnixMs {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The running service, without its HTTP door.
pub struct Service {
    pub desk: Desk,
    pub journal: Journal,
    pub ledger: Arc<Ledger>,
    pub outcomes: Arc<EmbeddedOutcomeLog>,
    pub pipeline: Arc<Pipeline>,
    pub view: Option<Arc<ViewHandle>>,
    pub poison: Poison,
    pub accepting: Arc<AtomicBool>,
    pub config: Config,
    pub clock: Clock,
    pub recovery: String,
    desk_thread: DeskThread,
    checkpoints: Checkpoints,
    link: Option<WalletLink>,
    breaker: Option<BreakerThread>,
    stopping: Arc<AtomicBool>,
    folder: Option<DataFolder>,
}

/// What a caller may want otherwise than the configuration says: tests and benches.
pub struct Extras {
    /// In place of the folder on disk.
    pub storage: Option<Arc<dyn Storage>>,
    /// Without it, no view is run.
    pub with_view: bool,
    /// In place of the wallet that the configuration names.
    pub wallet: Option<Arc<dyn RemoteWallet>>,
    /// Without it nothing holds calls to a wallet elsewhere, where this instance is alone.
    pub with_breaker: bool,
    /// Called on a thread of the service when it can go on no more.
    pub on_poison: Arc<dyn Fn() + Send + Sync>,
}

impl Default for Extras {
    fn default() -> Extras {
        Extras {
            storage: None,
            with_view: true,
            wallet: None,
            with_breaker: true,
            on_poison: Arc::new(|| {}),
        }
    }
}

/// The rooms' state while the journal is replayed.
struct Replay {
    memory: Memory,
    queues: embedded::Restoring,
    ledger: ledger::Restoring,
}

impl Replay {
    fn visit(&mut self, frame: &Frame<'_>) -> anyhow::Result<()> {
        self.ledger.visit(frame)?;
        let is_new = self.queues.visit(frame)?;
        match frame.kind {
            FRAME_ACCEPT if is_new => {
                for item in crate::domain::bytes::entries(&frame.payload[SECTION_BYTES..]) {
                    let (at, _, bytes) = item?;
                    let place = frame.payload_at + (SECTION_BYTES + at) as u64;
                    self.memory.accepted(place, bytes).with_context(|| format!("the request at {place}"))?;
                }
            }
            FRAME_CONTROL => {
                let control = self.memory.control(frame.payload_at, frame.payload);
                control.map_err(|reason| anyhow::anyhow!("control frame at {}: {reason}", frame.offset))?;
            }
            FRAME_OUTCOMES => {
                for item in crate::domain::bytes::entries(frame.payload) {
                    let (at, _, bytes) = item?;
                    let outcome = crate::domain::Outcome::decode(bytes)?;
                    self.memory.settled(&SettledRow::new(&outcome, frame.payload_at + at as u64));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The embedded parts, recovered and ready to run.
struct Recovered {
    replay: Replay,
    journal: Journal,
    manifest: ManifestOf,
    report: String,
}

fn recover(config: &Config, storage: &Arc<dyn Storage>) -> anyhow::Result<Recovered> {
    let began = Instant::now();
    let mut restored = checkpoint::restore(storage, config.fair_queue_count)?;
    restored.fold(&**storage)?;
    restored.begin_recording();
    let start = restored.start;
    let (memory, queues, ledger, manifest) = restored.into_parts();
    let mut replay = Replay { memory, queues, ledger };
    let mut visit = |frame: Frame<'_>| replay.visit(&frame).map_err(|error| format!("{error:#}"));
    let (journal, recovery) = Journal::open(storage.clone(), config.journal_options(), start, &mut visit)?;
    let report = format!(
        "replayed {} frames from {} in {} ms; torn tail: {}",
        recovery.frames,
        start.offset,
        began.elapsed().as_millis(),
        recovery.cut.as_ref().map_or("none".to_owned(), |cut| format!("{cut:?}")),
    );
    Ok(Recovered { replay, journal, manifest, report })
}

impl Service {
    pub fn start(config: Config, extras: Extras) -> anyhow::Result<Service> {
        let (folder, storage) = storage_of(&config, extras.storage)?;
        let identity =
            folder.as_ref().map_or_else(|| uuid::Uuid::new_v4().to_string(), |f| f.identity.clone());
        let link = link(&config, extras.wallet, folder.as_ref())?;
        let suspects = Arc::new(Suspects::load(Arc::new(BlobSuspects::new(storage.clone())), now_ms())?);
        let Recovered { replay, journal, manifest, report } = recover(&config, &storage)?;
        tracing::info!(report, "recovered");

        let clock: Clock = Arc::new(now_ms);
        let poison = Poison::default();
        let ledger = Arc::new(Ledger::new(replay.ledger, identity, journal.clone()));
        let intake = Arc::new(EmbeddedIntake::new(replay.queues, journal.clone()));
        let outcomes = Arc::new(EmbeddedOutcomeLog::new(journal.clone(), FRAME_ACCEPT));
        let entries = Entries::new(journal.clone());
        let made = made_for(link.as_ref().filter(|_| extras.with_breaker), &config);
        let wallet = wallet_of((&link, &made), &ledger, &config, &journal, &intake)?;
        let clerk = Clerk::new(replay.memory, entries, intake, journal.clone(), config.desk.clone());
        let mut clerk = guided(clerk, made.as_ref());
        clerk.act_on_deferred(clock())?;
        let (desk, desk_thread) =
            Desk::start(clerk, clock.clone(), poison.clone(), extras.on_poison.clone())?;

        let parts = Parts {
            intake: desk.intake.clone(),
            shelf: Arc::new(desk.clone()),
            informed: Arc::new(desk.clone()),
            registry: desk.registry().clone(),
            // Nobody else decides about campaigns.
            catch_up: None,
            wallet,
            outcomes: outcomes.clone(),
            suspects,
            now_ms: clock.clone(),
        };
        let breaker =
            made.map(|made| start_breaker(made, &config, &desk, &poison, &extras.on_poison)).transpose()?;
        let pipeline = Arc::new(Pipeline::start(&config.pipeline, parts, poison.clone(), extras.on_poison)?);
        let stopping = Arc::new(AtomicBool::new(false));
        if let Some(link) = &link {
            link.watch(&pipeline, stopping.clone());
        }
        journal.on_sync(Box::new(pipeline.on_sync()));
        let bells = pipeline.bells();
        desk.on_parked(Box::new(move || bells.iter().for_each(crate::ring::Bell::ring)));
        pipeline.ring();

        let view = match (&folder, extras.with_view) {
            (Some(folder), true) => Some(start_view(folder, &outcomes, &desk, &journal)?),
            _ => None,
        };
        let reclaim_storage = storage.clone();
        let checkpointer = Checkpointer::new(
            manifest,
            storage,
            journal.clone(),
            desk.clone(),
            ledger.clone(),
            outcomes.clone(),
        );
        let reclaimer = Reclaimer {
            storage: reclaim_storage,
            journal: journal.clone(),
            desk: desk.clone(),
            ledger: ledger.clone(),
            view: view.clone(),
            segment_bytes: config.segment_bytes,
            retention_ms: config.retention_ms,
        };
        let checkpoints = Checkpoints::start(checkpointer, Some(reclaimer), config.checkpoint_bytes)?;
        Ok(Service {
            desk,
            journal,
            ledger,
            outcomes,
            pipeline,
            view,
            poison,
            accepting: Arc::new(AtomicBool::new(true)),
            recovery: report,
            config,
            clock,
            desk_thread,
            checkpoints,
            link,
            breaker,
            stopping,
            folder,
        })
    }

    /// How the breaker stands, where the wallet is elsewhere.
    pub fn breaker(&self) -> Option<breaker::Sight> {
        self.breaker.as_ref().map(|breaker| breaker.sight.clone())
    }

    /// Stops in order; what is in the ring is finished within `drain_max`, the rest stays queued.
    pub fn stop(self, drain_max: Duration) -> anyhow::Result<()> {
        self.accepting.store(false, Ordering::Release);
        self.pipeline.stop_feeding();
        let deadline = Instant::now() + drain_max;
        while !self.pipeline.is_drained() && !self.poison.is_set() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let checkpointed = self.checkpoints.stop(!self.poison.is_set());
        if let Some(pipeline) = Arc::into_inner(self.pipeline) {
            pipeline.stop();
        }
        if let Some(breaker) = self.breaker {
            breaker.stop();
        }
        self.stopping.store(true, Ordering::Release);
        if let Some(link) = self.link {
            link.runtime.shutdown_background();
        }
        self.desk_thread.stop();
        if let Some(view) = self.view {
            view.stop();
        }
        self.journal.shutdown()?;
        drop(self.folder);
        checkpointed
    }
}

/// What is given, or the folder on disk.
fn storage_of(
    config: &Config,
    given: Option<Arc<dyn Storage>>,
) -> anyhow::Result<(Option<DataFolder>, Arc<dyn Storage>)> {
    if let Some(storage) = given {
        return Ok((None, storage));
    }
    let folder = DataFolder::open(&config.data_dir)?;
    wallet::check_kind(&folder.path, &config.raw.stored_value.kind)?;
    let journal_dir = folder.journal_dir();
    let storage = FolderStorage::new(&journal_dir)
        .with_context(|| format!("the folder {} cannot be used", journal_dir.display()))?;
    Ok((Some(folder), Arc::new(storage)))
}

/// Whoever talks to a wallet elsewhere.
fn link(
    config: &Config,
    given: Option<Arc<dyn RemoteWallet>>,
    folder: Option<&DataFolder>,
) -> anyhow::Result<Option<WalletLink>> {
    let path = folder.map(|folder| folder.path.as_path());
    let wallet = match given {
        Some(wallet) => Some(wallet),
        None => wallet::adapter(config)?,
    };
    wallet.map(|wallet| WalletLink::new(wallet, config, path)).transpose()
}

/// What says whether a wallet elsewhere is called; alone, an instance names itself anew each time.
fn made_for(link: Option<&WalletLink>, config: &Config) -> Option<Made> {
    link.map(|_| breaker::make(config, &uuid::Uuid::now_v7().to_string()))
}

/// A desk that knows what the breaker has decided.
fn guided(clerk: Clerk, made: Option<&Made>) -> Clerk {
    let Some(breaker) = made.map(|made| made.breaker.clone()) else { return clerk };
    clerk.with_course(Arc::new(move || breaker.course()))
}

/// The breaker of an instance that shares with nobody.
fn start_breaker(
    made: Made,
    config: &Config,
    desk: &Desk,
    poison: &Poison,
    on_poison: &Arc<dyn Fn() + Send + Sync>,
) -> std::io::Result<BreakerThread> {
    let (board, orders) = breaker::own_board(&config.breaker, config.data_dir.clone());
    let desk = desk.clone();
    let parts = KeeperParts {
        board,
        orders: Some(orders),
        // What is parked comes due and wants to be tried like anything else: without it, half open would never end.
        work: Box::new(move || Workload::waiting(desk.counts().backlog + desk.parking().len() as u64)),
        poison: poison.clone(),
        on_poison: on_poison.clone(),
    };
    BreakerThread::start(made, parts)
}

fn wallet_of(
    (link, made): (&Option<WalletLink>, &Option<Made>),
    ledger: &Arc<Ledger>,
    config: &Config,
    journal: &Journal,
    intake: &EmbeddedIntake,
) -> anyhow::Result<Wallet> {
    let Some(link) = link else { return Ok(Wallet::Here(ledger.clone())) };
    Ok(Wallet::Elsewhere(Remote {
        wallet: link.wallet.clone(),
        runtime: link.runtime.handle().clone(),
        began_at: journal.position().offset,
        settled: settled_unacknowledged(config, journal, intake)?,
        options: config.remote.clone(),
        identity: link.identity.clone(),
        slots_before: link.slots_before,
        breaker: made.as_ref().map(|made| made.breaker.clone()),
    }))
}

/// Requests whose final outcome was written and whose acknowledgement was not: with a wallet that cannot burn, they
/// must not be sent again, for what we closed without it would be paid.
fn settled_unacknowledged(
    config: &Config,
    journal: &Journal,
    intake: &EmbeddedIntake,
) -> anyhow::Result<std::collections::HashSet<u64>> {
    let mut settled = std::collections::HashSet::new();
    let (false, Some(oldest)) = (config.remote.can_burn, intake.oldest_unacked()) else { return Ok(settled) };
    let mut reader = journal.reader(oldest.max(journal.begins_at()));
    while let Some(frame) = reader.next()? {
        if frame.kind != FRAME_OUTCOMES {
            continue;
        }
        for item in crate::domain::bytes::entries(&frame.payload) {
            let outcome = crate::domain::Outcome::decode(item?.2)?;
            if outcome.status.is_final() && outcome.request_place >= oldest {
                settled.insert(outcome.request_place);
            }
        }
    }
    Ok(settled)
}

/// Facts that the view takes in every 200 ms of a burst.
const VIEW_FACTS_IN_BURST: usize = 4_000;
/// Accepted and settled requests a second from which on it is a burst.
const BURST_PER_S: f64 = 10_000.0;

/// Whether a burst is on, by what happened since it was asked last.
fn burst(desk: Desk) -> impl Fn() -> bool + Send + Sync {
    let last = Mutex::new((Instant::now(), 0u64, false));
    move || {
        let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (asked_at, before, was_on) = *last;
        let elapsed = asked_at.elapsed();
        if elapsed < Duration::from_millis(20) {
            return was_on;
        }
        let done = desk.requests_moved();
        let is_on = desk.is_busy() || (done - before) as f64 / elapsed.as_secs_f64() > BURST_PER_S;
        *last = (Instant::now(), done, is_on);
        is_on
    }
}

/// What a view was rebuilt from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// Facts read again.
    pub facts: u64,
    /// Whether over what the old view had, because the log no longer holds all of it.
    pub is_over: bool,
}

/// Reads the outcome log again into a new view. The service must not be running.
pub fn rebuild_view(config: &Config, progress: &mut dyn FnMut(u64)) -> anyhow::Result<Rebuilt> {
    if !config.data_dir.join("FORMAT").exists() {
        anyhow::bail!(
            "{} is no data folder of hongbao; give it with --set data.dir=…",
            config.data_dir.display()
        );
    }
    let folder = DataFolder::open(&config.data_dir)?;
    if let Some(redis) = &config.redis {
        return redis::rebuild_view(redis, &folder, progress);
    }
    let storage: Arc<dyn Storage> = Arc::new(FolderStorage::new(folder.journal_dir())?);
    let Recovered { journal, .. } = recover(config, &storage)?;
    let log = EmbeddedOutcomeLog::new(journal.clone(), FRAME_ACCEPT);
    let done = crate::outcome::view::rebuild(&folder.view_path(), &log, &mut |made| progress(made.facts))?;
    journal.shutdown()?;
    Ok(Rebuilt { facts: done.facts, is_over: false })
}

fn start_view(
    folder: &DataFolder,
    outcomes: &Arc<EmbeddedOutcomeLog>,
    desk: &Desk,
    journal: &Journal,
) -> anyhow::Result<Arc<ViewHandle>> {
    let view = View::open(&folder.view_path()).context("the outcome view cannot be opened")?;
    // In a burst the view leaves the processors to the hot path, and catches up afterwards.
    let options = WorkerOptions {
        pause_while: Arc::new(burst(desk.clone())),
        facts_paused_max: VIEW_FACTS_IN_BURST,
        ..WorkerOptions::default()
    };
    let handle = Arc::new(ViewWorker::start(Arc::new(view), outcomes.clone(), options)?);
    let weak = Arc::downgrade(&handle);
    journal.on_sync(Box::new(move || {
        if let Some(view) = weak.upgrade() {
            view.wake();
        }
    }));
    Ok(handle)
}

/// The thread that takes snapshots.
struct Checkpoints {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Checkpointer>,
}

impl Checkpoints {
    fn start(
        mut checkpointer: Checkpointer,
        reclaimer: Option<Reclaimer>,
        every_bytes: u64,
    ) -> std::io::Result<Checkpoints> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        // Woken by every sync that may have made one due; asleep otherwise.
        let waker: Arc<Mutex<Option<std::thread::Thread>>> = Arc::default();
        let (wake, journal, due_at) =
            (waker.clone(), checkpointer.journal.clone(), Arc::new(std::sync::atomic::AtomicU64::new(0)));
        due_at.store(checkpointer.offset() + every_bytes, Ordering::Release);
        let due = due_at.clone();
        let synced = journal.synced_reader();
        journal.on_sync(Box::new(move || {
            let is_due = synced() >= due.load(Ordering::Acquire);
            if let (true, Ok(waker)) = (is_due, wake.lock())
                && let Some(thread) = waker.as_ref()
            {
                thread.unpark();
            }
        }));
        let thread = std::thread::Builder::new().name("checkpoints".to_owned()).spawn(move || {
            *waker.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(std::thread::current());
            while !stopping.load(Ordering::Acquire) {
                if journal.synced() < due_at.load(Ordering::Acquire) {
                    std::thread::park();
                    continue;
                }
                if let Err(error) = checkpointer.take() {
                    tracing::warn!(%error, "no snapshot was taken; restarts take longer until one is");
                } else if let Some(reclaimer) = &reclaimer
                    && let Err(error) = reclaimer.run(checkpointer.offset())
                {
                    tracing::warn!(%error, "journal that nobody needs was kept");
                }
                due_at.store(journal.synced() + every_bytes, Ordering::Release);
            }
            checkpointer
        })?;
        Ok(Checkpoints { stop, thread })
    }

    fn stop(self, take_last: bool) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        let mut checkpointer =
            self.thread.join().map_err(|_| anyhow::anyhow!("the checkpoint thread panicked"))?;
        if take_last && checkpointer.journal.failure().is_none() {
            checkpointer.take().context("the last snapshot")?;
        }
        Ok(())
    }
}

/// What a service has accepted, and what of it waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// For the first time, since the start.
    pub accepted: u64,
    /// In queues and under way.
    pub backlog: u64,
    /// For a time or a balance.
    pub parked: u64,
    pub drain_per_s: u64,
}

/// The service, whatever its intake.
pub enum Running {
    Embedded(Box<Service>),
    Redis(Box<redis::RedisService>),
}

impl Running {
    pub fn start(config: Config, extras: Extras) -> anyhow::Result<Running> {
        Ok(match config.redis {
            None => Running::Embedded(Box::new(Service::start(config, extras)?)),
            Some(_) => Running::Redis(Box::new(redis::RedisService::start(config, extras)?)),
        })
    }

    pub fn config(&self) -> &Config {
        match self {
            Running::Embedded(service) => &service.config,
            Running::Redis(service) => &service.config,
        }
    }

    pub fn poison(&self) -> &Poison {
        match self {
            Running::Embedded(service) => &service.poison,
            Running::Redis(service) => &service.poison,
        }
    }

    pub fn pipeline(&self) -> &Arc<Pipeline> {
        match self {
            Running::Embedded(service) => &service.pipeline,
            Running::Redis(service) => &service.pipeline,
        }
    }

    /// How the breaker stands, where the wallet is elsewhere.
    pub fn breaker(&self) -> Option<breaker::Sight> {
        match self {
            Running::Embedded(service) => service.breaker(),
            Running::Redis(service) => service.breaker(),
        }
    }

    /// How much there is, for whoever looks on.
    pub fn load(&self) -> Load {
        match self {
            Running::Embedded(service) => {
                let desk = service.desk.counts();
                Load {
                    accepted: desk.accepted,
                    backlog: desk.backlog,
                    parked: service.desk.parking().len() as u64,
                    drain_per_s: desk.drain_per_s,
                }
            }
            Running::Redis(service) => service.load(),
        }
    }

    /// Cleared when nothing new is to be accepted.
    pub fn accepting(&self) -> Arc<AtomicBool> {
        match self {
            Running::Embedded(service) => service.accepting.clone(),
            Running::Redis(service) => service.accepting.clone(),
        }
    }

    /// Stops in order; what is under way is finished within `drain_max`, the rest stays queued.
    pub fn stop(self, drain_max: Duration) -> anyhow::Result<()> {
        match self {
            Running::Embedded(service) => service.stop(drain_max),
            Running::Redis(service) => service.stop(drain_max),
        }
    }
}
