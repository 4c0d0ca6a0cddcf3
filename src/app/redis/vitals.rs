//! How the service over Redis is: readiness, and the metrics for Prometheus.
//!
//! Read when asked for. Ready means that this instance can accept durably: it does not need to own anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use super::RedisService;
use super::hearing::Hearing;
use super::sentry::{Seen, Sight};
use crate::app::breaker::Sight as BreakerSight;
use crate::app::vitals::{Labels, register_feed, register_refused, register_wallet, wallet_state};
use crate::domain::Status;
use crate::gateway::port::{Readiness, Vitals};
use crate::intake::redis::anomaly::{Anomaly, Standing};
use crate::intake::redis::door::Door;
use crate::intake::redis::parked::ParkedShelf;
use crate::intake::redis::registry::CampaignRegistry;
use crate::intake::redis::{Keys, RedisIntake};
use crate::outcome::redis::RedisOutcomeLog;
use crate::outcome::view::WorkerHandle;
use crate::pipeline::Pipeline;
use crate::ring::Poison;

pub struct RedisVitals {
    instance: String,
    wallet: String,
    poison: Poison,
    accepting: Arc<AtomicBool>,
    pipeline: Weak<Pipeline>,
    intake: Arc<RedisIntake>,
    shelf: ParkedShelf,
    door: Door,
    log: Arc<RedisOutcomeLog>,
    view: Arc<WorkerHandle>,
    hearing: Arc<Hearing>,
    sight: Sight,
    standing: Arc<Standing>,
    registry: CampaignRegistry,
    keys: Arc<Keys>,
    breaker: Option<BreakerSight>,
}

/// What a 202 says where no append has told yet.
fn stated(seen: &Seen) -> &'static str {
    match &*seen.durability {
        "fsync" => "fsync",
        "fsync_every_second" => "fsync_every_second",
        _ => "memory",
    }
}

/// Why the door must refuse everything, for readiness and for the door itself.
pub fn door_closed(standing: &Standing, registry: &CampaignRegistry) -> Option<String> {
    standing.door_closed().or_else(|| registry.failure())
}

impl RedisVitals {
    pub fn of(service: &RedisService) -> RedisVitals {
        RedisVitals {
            instance: service.config.raw.instance.name.clone(),
            wallet: service.config.raw.stored_value.kind.clone(),
            poison: service.poison.clone(),
            accepting: service.accepting.clone(),
            pipeline: Arc::downgrade(&service.pipeline),
            intake: service.intake.clone(),
            shelf: service.shelf.clone(),
            door: service.door.clone(),
            log: service.log.clone(),
            view: service.view.handle.clone(),
            hearing: service.hearing.clone(),
            sight: service.sight.clone(),
            standing: service.standing.clone(),
            registry: service.registry.clone(),
            keys: service.keys.clone(),
            breaker: service.breaker(),
        }
    }

    fn not_ready(&self, seen: &Seen) -> Option<String> {
        if let Some(reason) = self.poison.reason() {
            return Some(format!("{reason}; the service is stopping, restart it"));
        }
        if !self.accepting.load(Ordering::Acquire) {
            return Some("the service is stopping".to_owned());
        }
        if let Some(reason) = door_closed(&self.standing, &self.registry) {
            return Some(reason);
        }
        if let Some(reason) = &seen.unreachable {
            return Some(format!("Redis cannot be reached: {reason}"));
        }
        seen.is_full.then(|| {
            let (used, bound) = (seen.used_bytes, seen.bound_bytes);
            format!(
                "Redis is nearly full ({used} of {bound} bytes); it takes nothing new until it has drained"
            )
        })
    }

    /// What does not work, in words, though the door is open.
    fn troubles(&self) -> String {
        let units = self.intake.troubles().into_iter();
        let units = units.map(|(unit, what)| format!("{}: {what}", self.keys.unit_name(unit)));
        let recording = self.log.health().failing.map(|what| format!("outcomes: {what}"));
        let owning = self.standing.unreachable().map(|what| format!("ownership: {what}"));
        units.chain(recording).chain(owning).collect::<Vec<_>>().join("; ")
    }

    fn register_door(&self, registry: &mut Registry, seen: &Seen) {
        let [accepted, repeated, rounds] = self.door.counts().read();
        let mut counter = |name: &str, help: &str, value: u64| {
            registry.register(name, help, ConstCounter::new(value));
        };
        counter("hongbao_accepted", "Requests accepted for the first time at this door", accepted);
        counter("hongbao_repeated", "Requests recognised as repeats", repeated);
        counter("hongbao_door_rounds", "Gatherings of calls that the door has appended", rounds);
        let mut gauge = |name: &str, help: &str, value: u64| {
            registry.register(name, help, ConstGauge::new(value as i64));
        };
        let backlog = self.intake.backlog();
        gauge("hongbao_backlog", "Requests waiting in the units of this instance, about", backlog.requests);
        gauge("hongbao_backlog_elements", "Elements of their lists", backlog.elements);
        gauge("hongbao_drain_per_second", "Rate at which they are being settled", self.hearing.per_s());
        gauge("hongbao_parked", "Requests waiting for a time or a balance", self.shelf.count() as u64);
        let in_ring = self.pipeline.upgrade().map_or(0, |pipeline| pipeline.counts.in_ring());
        gauge("hongbao_ring_slots_used", "Requests in the ring", in_ring);
        let is_ready = self.not_ready(seen).is_none();
        gauge("hongbao_ready", "1 if this instance can accept durably", u64::from(is_ready));
        gauge("hongbao_redis_used_bytes", "Memory that the fullest Redis server uses", seen.used_bytes);
        gauge("hongbao_redis_bound_bytes", "Its maxmemory; 0: none", seen.bound_bytes);
        gauge("hongbao_redis_full", "1 while the door is closed for want of memory", u64::from(seen.is_full));
        let is_up = u64::from(seen.unreachable.is_none());
        gauge("hongbao_redis_up", "1 if Redis answered the last look", is_up);
        register_refused(registry, self.door.counts().refusals.read());
    }

    fn register_fleet(&self, registry: &mut Registry) {
        let figures = self.standing.figures();
        let units = ConstGauge::new(figures.unit_count as i64);
        registry.register("hongbao_units_owned", "Shards and lists that this instance owns", units);
        let members = ConstGauge::new(figures.member_count as i64);
        registry.register("hongbao_fleet_members", "Live instances that take units", members);
        registry.register(
            "hongbao_units_lost",
            "Units lost without wanting it",
            ConstCounter::new(figures.lost),
        );
        let anomalies = Family::<Labels, Gauge>::default();
        let now = self.standing.anomaly();
        for code in Anomaly::CODES {
            let is_it = now.as_ref().is_some_and(|anomaly| anomaly.code() == code);
            anomalies.get_or_create(&vec![("code", code.to_owned())]).set(i64::from(is_it));
        }
        registry.register(
            "hongbao_anomaly",
            "1 for what keeps this instance from owning anything",
            anomalies,
        );
    }

    fn register_outcomes(&self, registry: &mut Registry) {
        let Some(pipeline) = self.pipeline.upgrade() else { return };
        let settled = Family::<Labels, Counter>::default();
        for status in Status::ALL {
            let count = pipeline.settled.by_status[status as usize - 1].load(Ordering::Relaxed);
            settled.get_or_create(&vec![("status", status.as_str().to_owned())]).inc_by(count);
        }
        registry.register("hongbao_outcomes", "Outcomes recorded, by state", settled);
        let health = self.log.health();
        let mut counter = |name: &str, help: &str, value: u64| {
            registry.register(name, help, ConstCounter::new(value));
        };
        counter("hongbao_outcome_frames", "Frames of outcomes written", health.frame_count);
        counter("hongbao_outcome_frame_bytes", "Their bytes", health.frame_bytes);
        counter(
            "hongbao_results_missed",
            "Entries that no result stream got, for want of memory or of Redis",
            health.unannounced_count,
        );
        let lag = self.view.lag();
        let facts = ConstGauge::new(lag.facts_estimated as i64);
        registry.register("hongbao_view_lag_facts", "About how many facts the view has not read", facts);
        register_feed(registry, &pipeline);
        register_wallet(registry, &pipeline, &self.wallet);
        if let Some(breaker) = &self.breaker {
            breaker.register(registry);
        }
    }
}

impl Vitals for RedisVitals {
    fn readiness(&self) -> Readiness {
        let seen = self.sight.seen();
        let reason = self.not_ready(&seen);
        let figures = self.standing.figures();
        let backlog = self.intake.backlog();
        let wallet_state = self.pipeline.upgrade().map_or_else(String::new, |p| wallet_state(&p));
        let mut facts = vec![
            ("instance", self.instance.clone()),
            ("durability", seen.durability.to_string()),
            ("intake", "redis".to_owned()),
            ("wallet", self.wallet.clone()),
            ("wallet_state", wallet_state),
            ("units", figures.unit_count.to_string()),
            ("fleet", figures.member_count.to_string()),
            ("backlog", backlog.requests.to_string()),
            ("drain_per_s", self.hearing.per_s().to_string()),
            ("parked", self.shelf.count().to_string()),
            ("troubles", self.troubles()),
        ];
        facts.extend(self.breaker.iter().flat_map(BreakerSight::facts));
        Readiness { ready: reason.is_none(), reason, facts }
    }

    fn metrics(&self) -> String {
        let seen = self.sight.seen();
        let mut registry = Registry::default();
        self.register_door(&mut registry, &seen);
        self.register_fleet(&mut registry);
        self.register_outcomes(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).expect("writing to a string does not fail");
        text
    }

    fn durability(&self) -> &'static str {
        stated(&self.sight.seen())
    }
}
