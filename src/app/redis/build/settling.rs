//! The parts that settle: wallet, breaker and pipeline, and behind them the outcome log and its view.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::Builder;
use crate::app::VIEW_FACTS_IN_BURST;
use crate::app::books::Books;
use crate::app::breaker::{self, BreakerThread, KeeperParts, Made};
use crate::app::folder::DataFolder;
use crate::app::redis::hearing::Hearing;
use crate::app::redis::{News, ViewParts, followers};
use crate::app::wallet::WalletLink;
use crate::breaker::board::Workload;
use crate::config::redis::ViewStore;
use crate::intake::redis::parked::ParkedShelf;
use crate::intake::redis::registry::CampaignRegistry;
use crate::intake::redis::{RedisIntake, UnitId};
use crate::outcome::OutcomeView;
use crate::outcome::postgres::{PostgresView, PostgresViewOptions};
use crate::outcome::redis::{
    Barrier, JournalBarrier, LogOptions, LogParts, NoBarrier, RedisOutcomeLog, RedisStreams,
};
use crate::outcome::view::worker::Work;
use crate::outcome::view::{self, View, Worker, WorkerOptions};
use crate::pipeline::remote::Remote;
use crate::pipeline::suspects::Suspects;
use crate::pipeline::{Parts, Pipeline, Wallet};

/// Connections to the fleet's outcome view: one writes, the others answer.
const VIEW_CONNECTIONS: usize = 8;
/// What stands for the identity of a view where each instance has its own and follows all streams.
const VIEW_EACH: &str = "sqlite_each";

impl Builder<'_> {
    pub(super) fn log(
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

    pub(super) fn view(&self, folder: &DataFolder, hearing: &Arc<Hearing>) -> anyhow::Result<ViewParts> {
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

    pub(super) fn streams(
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

    pub(super) fn wallet(
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
    pub(super) fn breaker(
        &self,
        made: Made,
        intake: &Arc<RedisIntake>,
        hearing: &Arc<Hearing>,
        pipeline: &Arc<Pipeline>,
    ) -> anyhow::Result<BreakerThread> {
        let settings = &self.config.breaker;
        let mut board = breaker::fleet_board(self.redis, &self.keys, settings)?;
        breaker::agree(&mut *board, settings, &self.config.raw.instance.name);
        let (depths, counts, hearing) = (intake.clone(), pipeline.counts.clone(), hearing.clone());
        let work = move || Workload {
            waiting: depths.backlog().requests.max(counts.in_ring()),
            done_per_s: hearing.own_per_s(),
        };
        let parts = KeeperParts {
            board,
            orders: None,
            work: Box::new(work),
            poison: self.poison.clone(),
            on_poison: self.extras.on_poison.clone(),
        };
        Ok(BreakerThread::start(made, parts)?)
    }

    #[allow(clippy::too_many_arguments, reason = "the composition of one part, called once")]
    pub(super) fn pipeline(
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
}
