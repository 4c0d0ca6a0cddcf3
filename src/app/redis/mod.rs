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
//! released), the pipeline, reader and scribe, the view, the books. [`build`] makes the parts, [`sentry`] watches the servers,
//! [`hearing`] follows how fast work is done, [`vitals`] tells how all of it is; [`office`] and [`parked`] give the gateway what
//! it needs.

mod build;
mod followers;
mod hearing;
pub mod office;
pub mod parked;
mod rebuild;
mod releaser;
mod sentry;
mod vitals;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context;

use self::build::Builder;
use self::hearing::Hearing;
use self::office::RedisOffice;
pub use self::rebuild::rebuild_view;
use self::sentry::{Sentry, SentryOptions, Sight};
pub use self::vitals::RedisVitals;
use super::books::Books;
use super::breaker::{self, BreakerThread};
use super::folder::DataFolder;
use super::wallet::{self, WalletLink};
use super::{Clock, Extras, Load, now_ms};
use crate::config::Config;
use crate::intake::redis::anomaly::Standing;
use crate::intake::redis::door::{Door, DoorThreads};
use crate::intake::redis::owner::Owner;
use crate::intake::redis::parked::{Loader, ParkedShelf};
use crate::intake::redis::registry::{CampaignRegistry, RegistryThread};
use crate::intake::redis::sweep::SweepThread;
use crate::intake::redis::{Held, Keys, RedisIntake};
use crate::outcome::OutcomeView;
use crate::outcome::redis::RedisOutcomeLog;
use crate::outcome::view::WorkerHandle;
use crate::pipeline::Pipeline;
use crate::ring::Poison;

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
