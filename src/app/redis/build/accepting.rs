//! The parts that take work on: the owner of units, what is foretold of its pace, and the door.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use super::Builder;
use crate::app::breaker::{self, BreakerThread};
use crate::app::redis::hearing::{self, Hearing, Sources};
use crate::app::redis::sentry::Sight;
use crate::app::redis::{ViewParts, vitals};
use crate::config::Config;
use crate::config::redis::Dedupe;
use crate::domain::Lane;
use crate::intake::redis::anomaly::Standing;
use crate::intake::redis::door::{self, Door, DoorOptions, DoorParts, DoorThreads, Outlook, Replicas};
use crate::intake::redis::owner::{self, Owner, OwnerOptions};
use crate::intake::redis::parked::ParkedShelf;
use crate::intake::redis::registry::CampaignRegistry;
use crate::intake::redis::{RedisIntake, UnitId};
use crate::intake::{Intake, QueueId};
use crate::pipeline::suspects::Suspects;
use crate::shaping::Course;

/// Threads, and so connections, of the door.
const DOOR_THREADS: usize = 2;

impl Builder<'_> {
    pub(super) fn owner(
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
        let followed = registry.clone();
        let vitals = move || owner::Vitals {
            accepted: counted.get().map_or(0, |door| door.counts().accepted.load(Ordering::Relaxed)),
            settled: finished.finished(),
            depth: depths.backlog().requests,
            oldest_at: None,
            wallet: identity(),
            view: view_identity.clone(),
            is_unwell: followed.is_overtaken() || sight.as_ref().is_some_and(breaker::Sight::wants_release),
        };
        let (registry, suspects, clock) = (registry.clone(), suspects.clone(), self.clock.clone());
        let on_gained = move |_: &[UnitId]| {
            registry.catch_up().map_err(|error| error.to_string())?;
            suspects.reload(clock()).map_err(|error| error.to_string())
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

    pub(super) fn hearing(&self) -> Arc<Hearing> {
        let Config { fair_queue_count, desk, .. } = self.config;
        Arc::new(Hearing::new(*fair_queue_count, desk.transfers_per_s, self.clock.clone()))
    }

    /// What the forecast is made from.
    pub(super) fn hear(
        &self,
        hearing: &Hearing,
        (intake, standing): (&Arc<RedisIntake>, &Arc<Standing>),
        breaker: Option<&BreakerThread>,
    ) {
        let (intake, standing) = (intake.clone(), standing.clone());
        let paced = Course::paced(self.config.desk.transfers_per_s);
        let breaker = breaker.map(|breaker| breaker.sight.breaker.clone());
        let course_of = breaker.clone();
        hearing.hear_from(Sources {
            queues: Box::new(move |seen| intake.look(seen)),
            course: Box::new(move || course_of.as_ref().map_or(paced, |breaker| breaker.course())),
            // Who shares a budget says how things stand many times a second.
            others: Box::new(move || {
                breaker.as_ref().and_then(|breaker| breaker.others()).unwrap_or_else(|| standing.others())
            }),
        });
    }

    /// How things stand for the door, asked for once a gathering.
    pub(super) fn outlook(
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

    pub(super) fn door(
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
            replicas: (self.redis.replicas_min > 0).then(|| Replicas {
                count: u32::from(self.redis.replicas_min),
                timeout_ms: timeout_ms / 2,
                count_min: u32::from(self.redis.replicas_required),
            }),
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
