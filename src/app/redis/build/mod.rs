//! Makes the parts of the service over Redis, in the order in which they need each other.

mod accepting;
mod settling;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use super::office::RedisOffice;
use super::office::funding::funding_look;
use super::parked::RedisWaiting;
use super::releaser::Releaser;
use super::sentry::Sentry;
use super::{News, RedisService, Running};
use crate::app::books::Books;
use crate::app::breaker;
use crate::app::folder::DataFolder;
use crate::app::wallet::WalletLink;
use crate::app::{Clock, Extras};
use crate::config::Config;
use crate::config::redis::RedisConfig;
use crate::intake::redis::anomaly::Standing;
use crate::intake::redis::dead::{Cemetery, DeadOptions};
use crate::intake::redis::element::ElementReader;
use crate::intake::redis::parked::{Loader, LoaderParts, ParkedShelf, ShelfOptions};
use crate::intake::redis::registry::CampaignRegistry;
use crate::intake::redis::sweep::{SweepOptions, Sweeper};
use crate::intake::redis::{Held, Keys, ReaderOptions, ReaderParts, RedisIntake};
use crate::outcome::redis::RedisOutcomeLog;
use crate::pipeline::suspects::{RedisSuspects, Suspects};
use crate::redis::Link;
use crate::ring::Poison;

/// What every part is made with.
pub struct Builder<'a> {
    pub config: &'a Config,
    pub redis: &'a RedisConfig,
    pub keys: Arc<Keys>,
    pub held: Arc<Held>,
    pub clock: Clock,
    pub poison: Poison,
    pub extras: Extras,
    /// Once there is an owner's thread.
    pub standing: Arc<OnceLock<Arc<Standing>>>,
}

impl Builder<'_> {
    pub fn build(
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
        let breaker = made.map(|made| self.breaker(made, &intake, &hearing, &pipeline)).transpose()?;
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
}
