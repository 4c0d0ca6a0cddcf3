//! The service over Redis: the same pipeline, between lists that many instances share and a wallet that they share too.
//!
//! ```text
//!  owner ──> Held ──> reader ──┐                ┌──> scribe: outcomes, then parked, then results
//!                     loader ──┼──> pipeline ───┤
//!  door <── registry, sentry   │                └──> reader: ack
//!                              └── one bell wakes the pipeline for all of them
//! ```
//!
//! Start: folder, what the servers are, the wallet, then every part from the outside in; the owner last, so that nothing is
//! read before all else runs. Stop, in order: the door, the owner (its units are left, the ring finishes, all is
//! released), the pipeline, reader and scribe, the view, the books. [`sentry`] watches the servers, [`hearing`] follows how fast
//! work is done, [`vitals`] tells how all of it is.

mod followers;
mod hearing;
mod rebuild;
mod releaser;
mod sentry;
mod vitals;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context;

use self::hearing::{Hearing, Sources};
pub use self::rebuild::rebuild_view;
use self::releaser::Releaser;
use self::sentry::{Sentry, SentryOptions, Sight};
pub use self::vitals::RedisVitals;
use super::books::Books;
use super::breaker::{self, BreakerThread, KeeperParts, Made};
use super::folder::DataFolder;
use super::redis_office::RedisOffice;
use super::redis_office::funding::funding_look;
use super::redis_parked::RedisWaiting;
use super::wallet::{self, WalletLink};
use super::{Clock, Extras, Load, VIEW_FACTS_IN_BURST, now_ms};
use crate::config::Config;
use crate::config::redis::{Dedupe, RedisConfig, ViewStore};
use crate::domain::Lane;
use crate::intake::redis::anomaly::Standing;
use crate::intake::redis::dead::{Cemetery, DeadOptions};
use crate::intake::redis::door::{self, Door, DoorOptions, DoorParts, DoorThreads, Outlook, Replicas};
use crate::intake::redis::element::ElementReader;
use crate::intake::redis::owner::{self, Owner, OwnerOptions};
use crate::intake::redis::parked::{Loader, LoaderParts, ParkedShelf, ShelfOptions};
use crate::intake::redis::registry::{CampaignRegistry, RegistryThread};
use crate::intake::redis::sweep::{SweepOptions, SweepThread, Sweeper};
use crate::intake::redis::{Held, Keys, ReaderOptions, ReaderParts, RedisIntake, UnitId};
use crate::intake::{Intake, QueueId};
use crate::outcome::OutcomeView;
use crate::outcome::postgres::{PostgresView, PostgresViewOptions};
use crate::outcome::redis::{
    Barrier, JournalBarrier, LogOptions, LogParts, NoBarrier, RedisOutcomeLog, RedisStreams,
};
use crate::outcome::view::worker::Work;
use crate::outcome::view::{self, View, Worker, WorkerHandle, WorkerOptions};
use crate::pipeline::remote::Remote;
use crate::pipeline::suspects::{RedisSuspects, Suspects};
use crate::pipeline::{Parts, Pipeline, Wallet};
use crate::redis::Link;
use crate::ring::Poison;
use crate::shaping::Course;

/// Threads, and so connections, of the door.
const DOOR_THREADS: usize = 2;
/// Connections to the fleet's outcome view: one writes, the others answer.
const VIEW_CONNECTIONS: usize = 8;
/// What stands for the identity of a view where each instance has its own and follows all streams.
const VIEW_EACH: &str = "sqlite_each";
/// Units of a stopping instance may take this long to become quiet.
const QUIET_MAX: Duration = Duration::from_secs(10);

/// What the pipeline's bells are rung through, by whoever has news; silent until the pipeline runs.
#[derive(Clone, Default)]
struct News(Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>);

impl News {
    fn teller(&self) -> impl Fn() + Send + Sync + 'static {
        let news = self.0.clone();
        move || {
            if let Some(tell) = news.get() {
                tell();
            }
        }
    }
}

/// The running service, without its HTTP door.
pub struct RedisService {
    pub config: Config,
    pub clock: Clock,
    pub poison: Poison,
    pub accepting: Arc<AtomicBool>,
    pub pipeline: Arc<Pipeline>,
    pub office: RedisOffice,
    pub intake: Arc<RedisIntake>,
    pub shelf: ParkedShelf,
    pub door: Door,
    pub log: Arc<RedisOutcomeLog>,
    pub held: Arc<Held>,
    pub keys: Arc<Keys>,
    pub view: ViewParts,
    hearing: Arc<Hearing>,
    sight: Sight,
    standing: Arc<Standing>,
    registry: CampaignRegistry,
    running: Running,
}

/// What is taken down, in order.
struct Running {
    door: DoorThreads,
    owner: Owner,
    loader: Loader,
    registry: RegistryThread,
    sweep: SweepThread,
    sentry: Sentry,
    books: Option<Books>,
    link: Option<WalletLink>,
    breaker: Option<BreakerThread>,
    stopping: Arc<AtomicBool>,
    _folder: DataFolder,
}

/// The outcome view that answers, and who keeps it up.
pub struct ViewParts {
    pub view: Arc<dyn OutcomeView>,
    pub handle: Arc<WorkerHandle>,
    /// Of a view that the fleet shares, or that all of it keeps in the same way.
    pub identity: Option<String>,
}

impl RedisService {
    pub fn start(config: Config, extras: Extras) -> anyhow::Result<RedisService> {
        let redis = config.redis.clone().context("intake.kind is not \"redis\"")?;
        let folder = DataFolder::open(&config.data_dir)?;
        wallet::check_kind(&folder.path, &config.raw.stored_value.kind)?;
        let keys = Arc::new(Keys::new(&redis.namespace, redis.units.clone()));
        let held = Arc::new(Held::new(uuid::Uuid::now_v7().to_string(), redis.units.len()));
        let watched = SentryOptions {
            target: redis.target.clone(),
            keys: keys.clone(),
            held: held.clone(),
            durability_min: redis.durability_min,
            durability_assumed: redis.durability_assumed,
            retention: redis.outcomes_retention,
            results_bytes_max: redis.results_bytes_max as u64,
        };
        sentry::inspect(&watched)?;
        let (clock, poison): (Clock, Poison) = (Arc::new(now_ms), Poison::default());
        let link = super::link(&config, extras.wallet.clone(), Some(&folder))?;
        let books = match &link {
            Some(_) => None,
            None => Some(Books::open(&config, &folder, &clock, &poison, extras.on_poison.clone())?),
        };
        let sentry = Sentry::start(watched)?;
        let standing = Arc::default();
        let builder = Builder { config: &config, redis: &redis, keys, held, clock, poison, extras, standing };
        builder.build(folder, link, books, sentry)
    }

    /// Stops in order. What is in the ring is finished within `drain_max`; everything else stays in Redis, for others.
    pub fn stop(self, drain_max: Duration) -> anyhow::Result<()> {
        let Running { door, owner, loader, registry, sweep, sentry, books, link, breaker, stopping, _folder } =
            self.running;
        self.accepting.store(false, Ordering::Release);
        door.stop();
        // The units are left: what is under way finishes meanwhile, and then all is released at once.
        owner.stop(drain_max.min(QUIET_MAX));
        self.pipeline.stop_feeding();
        let deadline = Instant::now() + drain_max;
        while !self.pipeline.is_drained() && !self.poison.is_set() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        if let Some(pipeline) = Arc::into_inner(self.pipeline) {
            pipeline.stop();
        }
        if let Some(breaker) = breaker {
            breaker.stop();
        }
        stopping.store(true, Ordering::Release);
        self.intake.stop();
        loader.stop();
        self.log.stop();
        registry.stop();
        sweep.stop();
        self.view.handle.stop();
        drop(sentry);
        if let Some(link) = link {
            link.runtime.shutdown_background();
        }
        books.map_or(Ok(()), |books| books.stop(!self.poison.is_set()))
    }

    /// What was accepted at this door, and what of it has no final outcome yet.
    pub fn load(&self) -> Load {
        let accepted = self.door.counts().accepted.load(Ordering::Relaxed);
        let parked = self.shelf.count() as u64;
        let open = accepted.saturating_sub(self.hearing.finished()).saturating_sub(parked);
        let backlog = self.intake.backlog().requests.max(open);
        Load { accepted, backlog, parked, drain_per_s: self.hearing.per_s() }
    }

    /// How the breaker stands, where the wallet is elsewhere.
    pub fn breaker(&self) -> Option<breaker::Sight> {
        self.running.breaker.as_ref().map(|breaker| breaker.sight.clone())
    }

    pub fn vitals(&self) -> RedisVitals {
        RedisVitals::of(self)
    }
}

/// What every part is made with.
struct Builder<'a> {
    config: &'a Config,
    redis: &'a RedisConfig,
    keys: Arc<Keys>,
    held: Arc<Held>,
    clock: Clock,
    poison: Poison,
    extras: Extras,
    /// Once there is an owner's thread.
    standing: Arc<OnceLock<Arc<Standing>>>,
}

impl Builder<'_> {
    fn build(
        self,
        folder: DataFolder,
        link: Option<WalletLink>,
        books: Option<Books>,
        sentry: Sentry,
    ) -> anyhow::Result<RedisService> {
        let news = News::default();
        let shelf = self.shelf(&news);
        let registry = self.registry(&shelf)?;
        let intake = self.intake(&registry, &news)?;
        let hearing = self.hearing();
        let view = self.view(&folder, &hearing)?;
        let log = self.log(&shelf, books.as_ref(), &view, &news)?;
        let suspects = Arc::new(Suspects::none(Arc::new(RedisSuspects::new(&self.redis.board, &self.keys)?)));
        let made = link.as_ref().map(|_| breaker::make(self.config, self.held.incarnation()));
        let wallet = self.wallet(link.as_ref().zip(made.as_ref()), &books)?;
        let pipeline = self.pipeline(&intake, &shelf, &hearing, &registry, &log, &suspects, wallet)?;
        let breaker = made.map(|made| self.breaker(made, &intake, &pipeline)).transpose()?;
        let ring = pipeline.on_sync();
        news.0.get_or_init(|| Box::new(ring));
        let stopping = Arc::new(AtomicBool::new(false));
        if let Some(link) = &link {
            link.watch(&pipeline, stopping.clone());
        }
        if let Some(books) = &books {
            wake_on_sync(books, &log);
        }
        let loader_parts = LoaderParts {
            link: Link::new(&self.redis.target)?,
            now_ms: self.clock.clone(),
            poison: self.poison.clone(),
            on_poison: self.extras.on_poison.clone(),
        };
        let loader = Loader::start(&shelf, loader_parts)?;
        let registry_thread = registry.start(funding_look(view.view.clone()), self.clock.clone())?;
        let sweep = self.sweeper(&registry)?.start(self.clock.clone())?;
        let identity = wallet_identity(&link, &books);
        let (owner, standing, cell) =
            self.owner(identity, &view, &breaker, (&intake, &shelf, &registry, &suspects, &hearing))?;
        let sight = sentry.sight();
        let outlook = self.outlook(&sight, &standing, &registry, (&intake, &shelf, &hearing));
        let (door, door_threads) = self.door(&registry, outlook, &intake)?;
        cell.get_or_init(|| door.clone());
        let accepting = Arc::new(AtomicBool::new(true));
        let office = RedisOffice::new(
            door.clone(),
            registry.clone(),
            view.view.clone(),
            accepting.clone(),
            self.clock.clone(),
        );
        registry.on_stuck(office.resend());
        pipeline.ring();
        Ok(RedisService {
            config: self.config.clone(),
            clock: self.clock,
            poison: self.poison,
            accepting,
            pipeline,
            office,
            intake,
            shelf,
            door,
            log,
            held: self.held,
            keys: self.keys,
            view,
            hearing,
            sight,
            standing,
            registry,
            running: Running {
                door: door_threads,
                owner,
                loader,
                registry: registry_thread,
                sweep,
                sentry,
                books,
                link,
                breaker,
                stopping,
                _folder: folder,
            },
        })
    }
}

/// What the ledger has synced may be told.
fn wake_on_sync(books: &Books, log: &Arc<RedisOutcomeLog>) {
    let log = Arc::downgrade(log);
    books.journal.on_sync(Box::new(move || {
        if let Some(log) = log.upgrade() {
            log.wake();
        }
    }));
}

/// Who this instance pays through, once that is known.
fn wallet_identity(
    link: &Option<WalletLink>,
    books: &Option<Books>,
) -> Arc<dyn Fn() -> Option<String> + Send + Sync> {
    use crate::stored_value::StoredValue;
    match (link, books) {
        (Some(link), _) => {
            let identity = link.identity.clone();
            Arc::new(move || identity.get().cloned())
        }
        (None, Some(books)) => {
            let identity = books.ledger.identity();
            Arc::new(move || Some(identity.clone()))
        }
        (None, None) => Arc::new(|| None),
    }
}

impl Builder<'_> {
    fn shelf(&self, news: &News) -> ParkedShelf {
        let options =
            ShelfOptions { count_max: self.config.raw.parking.count_max, ..ShelfOptions::default() };
        let shelf = ParkedShelf::new((*self.keys).clone(), self.held.clone(), options);
        shelf.on_news(news.teller());
        shelf
    }

    fn registry(&self, shelf: &ParkedShelf) -> anyhow::Result<CampaignRegistry> {
        let waiting = RedisWaiting::new(Link::new(&self.redis.target)?, (*self.keys).clone(), shelf.clone());
        let releaser = Releaser::start(waiting)?;
        let link = Link::new(&self.redis.target)?;
        let registry =
            CampaignRegistry::new(link, &self.keys, Box::new(move |release| releaser.release(release)));
        if let Err(error) = registry.catch_up() {
            tracing::warn!(%error, "the campaigns are not known yet; they are asked for on and on");
        }
        Ok(registry)
    }

    /// Forgets the ids of campaigns that are long closed.
    fn sweeper(&self, registry: &CampaignRegistry) -> anyhow::Result<Sweeper> {
        let options = SweepOptions { retention_ms: self.config.desk.retention_ms, ..SweepOptions::default() };
        let (keys, held) = ((*self.keys).clone(), self.held.clone());
        Ok(Sweeper::new(Link::new(&self.redis.target)?, keys, held, registry.registry().clone(), options))
    }

    fn intake(&self, registry: &CampaignRegistry, news: &News) -> anyhow::Result<Arc<RedisIntake>> {
        let options = ReaderOptions {
            requests_max: self.redis.read_ahead_count_max as u64,
            bytes_max: self.redis.read_ahead_bytes_max as u64,
            element_bytes_max: self.redis.element_bytes_max as u64,
            poll_ms_max: self.redis.poll_max.as_millis() as u64,
        };
        let dead = DeadOptions {
            count_max: self.redis.dead_count_max,
            element_bytes_max: self.redis.element_bytes_max,
            ..DeadOptions::default()
        };
        let keys = self.keys.clone();
        let parts = ReaderParts {
            elements: Arc::new(ElementReader::new(self.keys.units(), registry.registry())),
            graveyard: Arc::new(Cemetery::new((*self.keys).clone(), dead)),
            now_ms: self.clock.clone(),
            on_news: Box::new(news.teller()),
            on_anomaly: Box::new(move |unit, anomaly| {
                tracing::error!(unit = keys.unit_name(unit), "{anomaly}");
            }),
        };
        let intake = RedisIntake::start(
            Link::new(&self.redis.target)?,
            (*self.keys).clone(),
            self.held.clone(),
            options,
            parts,
            self.poison.clone(),
            self.extras.on_poison.clone(),
        )?;
        Ok(Arc::new(intake))
    }

    fn log(
        &self,
        shelf: &ParkedShelf,
        books: Option<&Books>,
        view: &ViewParts,
        news: &News,
    ) -> anyhow::Result<Arc<RedisOutcomeLog>> {
        let options = LogOptions {
            items_max: self.config.pipeline.slot_count,
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_secs(1),
        };
        let barrier: Arc<dyn Barrier> = match books {
            Some(books) => Arc::new(JournalBarrier(books.journal.clone())),
            None => Arc::new(NoBarrier),
        };
        let parts = LogParts {
            target: self.redis.target.clone(),
            keys: self.keys.clone(),
            barrier,
            parker: Arc::new(followers::Parking(shelf.clone())),
            announcer: followers::announcer(self.redis, &self.keys),
            on_refused: Box::new({
                let held = self.held.clone();
                move |unit| held.lost(unit)
            }),
            poison: self.poison.clone(),
            on_poison: self.extras.on_poison.clone(),
        };
        let log = RedisOutcomeLog::start(options, parts)?;
        let (tell, view) = (news.teller(), view.handle.clone());
        log.on_news(Box::new(move || {
            tell();
            view.wake();
        }));
        Ok(Arc::new(log))
    }

    fn view(&self, folder: &DataFolder, hearing: &Arc<Hearing>) -> anyhow::Result<ViewParts> {
        let (view, work, identity): (Arc<dyn OutcomeView>, Arc<dyn Work>, Option<String>) = match &self
            .redis
            .view
        {
            store @ (ViewStore::Sqlite | ViewStore::SqliteEach) => {
                let view = View::open(&folder.view_path());
                let view = Arc::new(view.context("the outcome view cannot be opened")?);
                // Known by the folder, so that it is waited for where it goes on after a restart.
                let reader = format!("view-{}", folder.identity);
                let units: Vec<UnitId> = self.keys.units().ids().collect();
                let streams = self.streams(&reader, Box::new(move || units.clone()))?;
                // Who follows every stream knows what the others settle; all must do so.
                let identity = (*store == ViewStore::SqliteEach).then(|| VIEW_EACH.to_owned());
                (view.clone(), Arc::new(view::FollowStreams::new(view, streams)), identity)
            }
            ViewStore::Postgres { url } => {
                let options = PostgresViewOptions { url: url.clone(), connections_max: VIEW_CONNECTIONS };
                let view = Arc::new(
                    PostgresView::open(&options).context("the fleet's outcome view cannot be used")?,
                );
                let identity = view.identity().to_owned();
                // One reader for the whole fleet: whoever owns a unit goes on where its last owner stopped.
                let (held, all): (_, Vec<UnitId>) = (self.held.clone(), self.keys.units().ids().collect());
                let owned = move || all.iter().copied().filter(|unit| held.epoch(*unit).is_some()).collect();
                let streams = self.streams(&format!("view-{identity}"), Box::new(owned))?;
                (view.clone(), Arc::new(view::FollowStreams::new(view, streams)), Some(identity))
            }
        };
        // In a burst the view leaves the processors to the hot path, and catches up afterwards.
        let heard = hearing.clone();
        let options = WorkerOptions {
            pause_while: Arc::new(move || heard.is_burst()),
            facts_paused_max: VIEW_FACTS_IN_BURST,
            ..WorkerOptions::default()
        };
        let handle = Arc::new(Worker::start(work, options)?);
        Ok(ViewParts { view, handle, identity })
    }

    fn streams(
        &self,
        reader: &str,
        responsible: Box<dyn Fn() -> Vec<UnitId> + Send + Sync>,
    ) -> anyhow::Result<Arc<RedisStreams>> {
        let streams = RedisStreams::new(&self.redis.target, self.keys.clone(), reader, responsible)?;
        let standing = self.standing.clone();
        let is_member = move || {
            standing
                .get()
                .is_some_and(|standing| standing.anomaly().is_none() && standing.figures().member_count > 0)
        };
        Ok(Arc::new(streams.counted_while(Box::new(is_member))))
    }

    fn wallet(
        &self,
        elsewhere: Option<(&WalletLink, &Made)>,
        books: &Option<Books>,
    ) -> anyhow::Result<Wallet> {
        Ok(match (elsewhere, books) {
            (Some((link, made)), _) => Wallet::Elsewhere(Remote {
                wallet: link.wallet.clone(),
                runtime: link.runtime.handle().clone(),
                // Whoever may have sent a request before is told by the reader.
                // What waited may have been sent before this process, whoever let it wait.
                began_at: 1,
                settled: std::collections::HashSet::new(),
                options: self.config.remote.clone(),
                identity: link.identity.clone(),
                slots_before: 0,
                breaker: Some(made.breaker.clone()),
            }),
            (None, Some(books)) => Wallet::Here(books.ledger.clone()),
            (None, None) => anyhow::bail!("there is no wallet"),
        })
    }

    /// This instance's side of the fleet's breaker.
    fn breaker(
        &self,
        made: Made,
        intake: &Arc<RedisIntake>,
        pipeline: &Arc<Pipeline>,
    ) -> anyhow::Result<BreakerThread> {
        let settings = &self.config.breaker;
        let mut board = breaker::fleet_board(self.redis, &self.keys, settings)?;
        breaker::agree(&mut *board, settings, &self.config.raw.instance.name);
        let (depths, counts) = (intake.clone(), pipeline.counts.clone());
        let parts = KeeperParts {
            board,
            orders: None,
            backlog: Box::new(move || depths.backlog().requests.max(counts.in_ring())),
            poison: self.poison.clone(),
            on_poison: self.extras.on_poison.clone(),
        };
        Ok(BreakerThread::start(made, parts)?)
    }

    #[allow(clippy::too_many_arguments, reason = "the composition of one part, called once")]
    fn pipeline(
        &self,
        intake: &Arc<RedisIntake>,
        shelf: &ParkedShelf,
        hearing: &Arc<Hearing>,
        registry: &CampaignRegistry,
        log: &Arc<RedisOutcomeLog>,
        suspects: &Arc<Suspects>,
        wallet: Wallet,
    ) -> anyhow::Result<Arc<Pipeline>> {
        let parts = Parts {
            intake: intake.clone(),
            shelf: Arc::new(shelf.clone()),
            informed: hearing.clone(),
            registry: registry.registry().clone(),
            catch_up: Some(Arc::new({
                let registry = registry.clone();
                move || registry.catch_up().is_ok()
            })),
            wallet,
            outcomes: log.clone(),
            suspects: suspects.clone(),
            now_ms: self.clock.clone(),
        };
        let options = &self.config.pipeline;
        Ok(Arc::new(Pipeline::start(options, parts, self.poison.clone(), self.extras.on_poison.clone())?))
    }

    #[allow(clippy::type_complexity, reason = "the composition of one part, called once")]
    fn owner(
        &self,
        identity: Arc<dyn Fn() -> Option<String> + Send + Sync>,
        view: &ViewParts,
        breaker: &Option<BreakerThread>,
        (intake, shelf, registry, suspects, hearing): (
            &Arc<RedisIntake>,
            &ParkedShelf,
            &CampaignRegistry,
            &Arc<Suspects>,
            &Arc<Hearing>,
        ),
    ) -> anyhow::Result<(Owner, Arc<Standing>, Arc<OnceLock<Door>>)> {
        let door: Arc<OnceLock<Door>> = Arc::default();
        let (counted, depths, finished) = (door.clone(), intake.clone(), hearing.clone());
        let view_identity = view.identity.clone();
        let sight = breaker.as_ref().map(|breaker| breaker.sight.clone());
        let vitals = move || owner::Vitals {
            accepted: counted.get().map_or(0, |door| door.counts().accepted.load(Ordering::Relaxed)),
            settled: finished.finished(),
            depth: depths.backlog().requests,
            oldest_at: None,
            wallet: identity(),
            view: view_identity.clone(),
            is_unwell: sight.as_ref().is_some_and(breaker::Sight::wants_release),
        };
        let (registry, suspects) = (registry.clone(), suspects.clone());
        let on_gained = move |_: &[UnitId]| {
            registry.catch_up().map_err(|error| error.to_string())?;
            suspects.reload().map_err(|error| error.to_string())
        };
        let (woken, roused) = (intake.clone(), shelf.clone());
        let hooks = owner::Hooks {
            vitals: Box::new(vitals),
            on_gained: Box::new(on_gained),
            on_change: Box::new(move || {
                woken.wake();
                roused.wake();
            }),
            poison: self.poison.clone(),
            on_poison: self.extras.on_poison.clone(),
        };
        let options = OwnerOptions {
            name: self.config.raw.instance.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            http: Some(self.config.listen.to_string()),
            ttl: self.redis.owner_ttl,
            target: self.redis.target.clone(),
            board: (self.redis.board != self.redis.target).then(|| self.redis.board.clone()),
        };
        let owner = Owner::start(options, (*self.keys).clone(), self.held.clone(), hooks)?;
        let standing = owner.standing();
        self.standing.get_or_init(|| standing.clone());
        self.hear(hearing, (intake, &standing), breaker.as_ref());
        Ok((owner, standing, door))
    }

    fn hearing(&self) -> Arc<Hearing> {
        let Config { fair_queue_count, desk, .. } = self.config;
        Arc::new(Hearing::new(*fair_queue_count, desk.transfers_per_s, self.clock.clone()))
    }

    /// What the forecast is made from.
    fn hear(
        &self,
        hearing: &Hearing,
        (intake, standing): (&Arc<RedisIntake>, &Arc<Standing>),
        breaker: Option<&BreakerThread>,
    ) {
        let (intake, standing) = (intake.clone(), standing.clone());
        let paced = Course::paced(self.config.desk.transfers_per_s);
        let breaker = breaker.map(|breaker| breaker.sight.breaker.clone());
        hearing.hear_from(Sources {
            queues: Box::new(move |seen| intake.look(seen)),
            course: Box::new(move || breaker.as_ref().map_or(paced, |breaker| breaker.course())),
            fleet: Box::new(move || standing.fleet()),
        });
    }

    /// How things stand for the door, asked for once a gathering.
    fn outlook(
        &self,
        sight: &Sight,
        standing: &Arc<Standing>,
        registry: &CampaignRegistry,
        (intake, shelf, hearing): (&Arc<RedisIntake>, &ParkedShelf, &Arc<Hearing>),
    ) -> Arc<dyn Fn() -> Outlook + Send + Sync> {
        let (sight, standing, registry) = (sight.clone(), standing.clone(), registry.clone());
        let (intake, shelf, hearing, held) =
            (intake.clone(), shelf.clone(), hearing.clone(), self.held.clone());
        let (unit_count, parked_max) = (self.keys.units().len() as u64, self.config.raw.parking.count_max);
        let fair_queue_count = self.keys.units().fair_queue_count;
        Arc::new(move || {
            let seen = sight.seen();
            let parked = shelf.count();
            let held_count = held.count() as u64;
            let of_all = |own: u64| (own * unit_count).checked_div(held_count).unwrap_or(own);
            let control =
                (0..fair_queue_count).map(|fair| intake.depth(QueueId { lane: Lane::Control, fair }));
            let hearing::Outlook { backlog, promises } = hearing.outlook();
            Outlook {
                backlog,
                parked: of_all(parked as u64),
                control_backlog: of_all(control.sum()),
                promises,
                fair_queue_count,
                is_parking_full: parked >= parked_max,
                is_full: seen.is_full,
                closed: vitals::door_closed(&standing, &registry),
                durability: seen.durability,
            }
        })
    }

    fn door(
        &self,
        registry: &CampaignRegistry,
        outlook: Arc<dyn Fn() -> Outlook + Send + Sync>,
        intake: &Arc<RedisIntake>,
    ) -> anyhow::Result<(Door, DoorThreads)> {
        let woken = intake.clone();
        let desk = &self.config.desk;
        let timeout_ms = self.redis.target.response_timeout.as_millis() as u64;
        let options = DoorOptions {
            dedupe: match self.redis.dedupe {
                Dedupe::Strict => door::Dedupe::Strict,
                Dedupe::Owner => door::Dedupe::Owner,
            },
            thread_count: DOOR_THREADS,
            ops_max: desk.ops_max,
            ops_bytes_max: desk.ops_bytes_max,
            wait_ms_max: desk.wait_ms_max,
            backlog_max: desk.backlog_max,
            retention_ms: desk.retention_ms,
            can_cancel: desk.can_cancel,
            replicas: (self.redis.replicas_min > 0)
                .then(|| Replicas { count: u32::from(self.redis.replicas_min), timeout_ms: timeout_ms / 2 }),
            ..DoorOptions::default()
        };
        let parts = DoorParts {
            target: self.redis.target.clone(),
            keys: (*self.keys).clone(),
            registry: registry.clone(),
            outlook,
            on_pushed: Arc::new(move || woken.wake()),
            now_ms: self.clock.clone(),
            poison: self.poison.clone(),
            on_poison: self.extras.on_poison.clone(),
        };
        Ok(Door::start(&options, &parts)?)
    }
}
