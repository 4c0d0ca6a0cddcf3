//! How the service is: readiness, and the metrics for Prometheus (base units: seconds, bytes, counts).
//!
//! Read when asked for; nothing here is counted on a hot path.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use super::Clock;
use super::breaker::Sight;
use crate::domain::Status;
use crate::gateway::port::{Readiness, Vitals};
use crate::intake::QueueId;
use crate::intake::desk::Desk;
use crate::journal::Journal;
use crate::outcome::view::ViewHandle;
use crate::pipeline::Pipeline;
use crate::pipeline::feed::HOLD_KINDS;
use crate::pipeline::remote::counts::FAILURE_KINDS;
use crate::pipeline::remote::gate::GateState;
use crate::ring::Poison;

pub struct ServiceVitals {
    pub desk: Desk,
    pub journal: Journal,
    pub pipeline: Weak<Pipeline>,
    pub view: Option<Arc<ViewHandle>>,
    pub poison: Poison,
    pub accepting: Arc<AtomicBool>,
    pub clock: Clock,
    pub instance: String,
    /// Kind of the wallet.
    pub wallet: String,
    pub breaker: Option<Sight>,
}

pub type Labels = Vec<(&'static str, String)>;

impl ServiceVitals {
    fn not_ready(&self) -> Option<String> {
        if let Some(reason) = self.poison.reason() {
            return Some(format!("{reason}; the service is stopping, restart it"));
        }
        if let Some(error) = self.journal.failure() {
            return Some(format!("{error}; free or mend the disk and restart"));
        }
        if !self.accepting.load(Ordering::Acquire) {
            return Some("the service is stopping".to_owned());
        }
        None
    }

    /// Queues that hold all they may of the parking.
    fn full_queues(&self) -> Vec<QueueId> {
        let in_ring = self.pipeline.upgrade().map_or(0, |pipeline| pipeline.counts.in_ring());
        self.desk.parking().full_queues(in_ring as usize)
    }

    fn register_door(&self, registry: &mut Registry) {
        let desk = self.desk.counts();
        let mut counter = |name: &str, help: &str, value: u64| {
            registry.register(name, help, ConstCounter::new(value));
        };
        counter("hongbao_accepted", "Requests accepted for the first time", desk.accepted);
        counter("hongbao_repeated", "Requests recognised as repeats", desk.repeated);
        let mut gauge = |name: &str, help: &str, value: u64| {
            registry.register(name, help, ConstGauge::new(value as i64));
        };
        gauge("hongbao_backlog", "Requests accepted and not final, parked ones apart", desk.backlog);
        gauge("hongbao_drain_per_second", "Rate at which the backlog is being settled", desk.drain_per_s);
        gauge(
            "hongbao_ring_slots_used",
            "Requests in the ring",
            self.pipeline.upgrade().map_or(0, |pipeline| pipeline.counts.in_ring()),
        );
        gauge(
            "hongbao_ready",
            "1 if this instance can accept durably",
            u64::from(self.not_ready().is_none()),
        );
        register_refused(registry, self.desk.refused());
    }

    fn register_settling(&self, registry: &mut Registry) {
        let Some(pipeline) = self.pipeline.upgrade() else { return };
        let settled = Family::<Labels, Counter>::default();
        for status in Status::ALL {
            let count = pipeline.settled.by_status[status as usize - 1].load(Ordering::Relaxed);
            let count = count + self.desk.followed(status);
            settled.get_or_create(&vec![("status", status.as_str().to_owned())]).inc_by(count);
        }
        registry.register("hongbao_outcomes", "Outcomes recorded, by state", settled);
        let parked = Family::<Labels, Gauge>::default();
        let oldest = Family::<Labels, Gauge>::default();
        let now = (self.clock)();
        for (reason, (count, since)) in self.desk.parking().by_reason() {
            let labels = vec![("reason", reason.as_str().to_owned())];
            parked.get_or_create(&labels).set(count as i64);
            oldest.get_or_create(&labels).set((now.saturating_sub(since) / 1_000) as i64);
        }
        registry.register("hongbao_parked", "Requests waiting for a time or a balance", parked);
        registry.register("hongbao_parked_oldest_seconds", "Age of the oldest of them", oldest);
        let full = Family::<Labels, Gauge>::default();
        for queue in self.full_queues() {
            let labels = vec![("lane", queue.lane.as_str().to_owned()), ("fair", queue.fair.to_string())];
            full.get_or_create(&labels).set(1);
        }
        registry.register("hongbao_parking_full", "1 for each queue that is not read for want of room", full);
    }

    fn register_storage(&self, registry: &mut Registry) {
        let journal = self.journal.stats();
        let mut counter = |name: &str, help: &str, value: u64| {
            registry.register(name, help, ConstCounter::new(value));
        };
        counter("hongbao_journal_syncs", "Syncs of the journal", journal.syncs);
        counter("hongbao_journal_written_bytes", "Bytes written to the journal", journal.bytes_written);
        counter("hongbao_journal_frames", "Frames written to the journal", journal.frames);
        let seconds = journal.sync_ns as f64 / 1e9;
        registry.register("hongbao_journal_sync_seconds", "Time spent syncing", ConstCounter::new(seconds));
        let segments = ConstGauge::new(journal.segments as i64);
        registry.register("hongbao_journal_segments", "Segments of the journal on disk", segments);
        if let Some(view) = &self.view {
            let lag = view.lag();
            let bytes = ConstGauge::new(lag.distance as i64);
            registry.register("hongbao_view_lag_bytes", "Journal the outcome view has not read", bytes);
            let facts = ConstGauge::new(lag.facts_estimated as i64);
            registry.register("hongbao_view_lag_facts", "About how many facts that is", facts);
        }
    }
}

/// What a door refused, by code.
pub fn register_refused(registry: &mut Registry, refused: Vec<(&'static str, u64)>) {
    let family = Family::<Labels, Counter>::default();
    for (code, count) in refused {
        family.get_or_create(&vec![("code", code.to_owned())]).inc_by(count);
    }
    registry.register("hongbao_refused", "Requests the door refused, by code", family);
}

/// How often the feed held what it had.
pub fn register_feed(registry: &mut Registry, pipeline: &Pipeline) {
    let family = Family::<Labels, Counter>::default();
    for (reason, count) in HOLD_KINDS.iter().zip(&pipeline.counts.held) {
        let labels = vec![("reason", (*reason).to_owned())];
        family.get_or_create(&labels).inc_by(count.load(Ordering::Relaxed));
    }
    registry.register("hongbao_feed_held", "Times that the feed held what waits, by why", family);
}

/// Of a wallet elsewhere.
pub fn register_wallet(registry: &mut Registry, pipeline: &Pipeline, wallet: &str) {
    if wallet == "embedded" {
        return;
    }
    let remote = &pipeline.remote;
    let mut counter = |name: &str, help: &str, value: u64| {
        registry.register(name, help, ConstCounter::new(value));
    };
    counter("hongbao_wallet_calls", "Calls to the wallet", remote.calls.load(Ordering::Relaxed));
    let entries = remote.entries.load(Ordering::Relaxed);
    counter("hongbao_wallet_entries", "Transfers and burns sent in them, repeats included", entries);
    let told_to_wait = remote.told_to_wait.load(Ordering::Relaxed);
    counter("hongbao_wallet_retry_after", "Calls that the wallet answered with Retry-After", told_to_wait);
    let failures = Family::<Labels, Counter>::default();
    for (kind, count) in FAILURE_KINDS.iter().zip(&remote.failures) {
        let labels = vec![("kind", (*kind).to_owned())];
        failures.get_or_create(&labels).inc_by(count.load(Ordering::Relaxed));
    }
    registry.register("hongbao_wallet_failed_calls", "Calls without answers, by kind", failures);
    let under_way = ConstGauge::new(remote.under_way.load(Ordering::Relaxed) as i64);
    registry.register("hongbao_wallet_calls_under_way", "Calls that wait for an answer", under_way);
    let open = ConstGauge::new(i64::from(wallet_state(pipeline) == "open"));
    registry.register("hongbao_wallet_open", "0 while calls to the wallet are held back", open);
}

/// In a word and a reason; never a cause to close the door.
pub fn wallet_state(pipeline: &Pipeline) -> String {
    if pipeline.counts.wallet_unknown.load(Ordering::Acquire) {
        return "held: it has not said who it is".to_owned();
    }
    match pipeline.remote.state() {
        GateState::Open => "open".to_owned(),
        GateState::HeldBack(reason) => format!("held back: {reason}"),
        GateState::Stopped(reason) => format!("stopped: {reason}"),
    }
}

impl Vitals for ServiceVitals {
    fn readiness(&self) -> Readiness {
        let reason = self.not_ready();
        let desk = self.desk.counts();
        let parked_count = self.desk.parking().len();
        let full_queue_count = self.full_queues().len();
        let mut facts = vec![
            ("instance", self.instance.clone()),
            ("durability", self.durability().to_owned()),
            ("intake", "embedded".to_owned()),
            ("wallet", self.wallet.clone()),
            ("wallet_state", self.pipeline.upgrade().map_or_else(String::new, |p| wallet_state(&p))),
            ("backlog", desk.backlog.to_string()),
            ("drain_per_s", desk.drain_per_s.to_string()),
            ("parked", parked_count.to_string()),
            ("parking_full_queues", full_queue_count.to_string()),
        ];
        facts.extend(self.breaker.iter().flat_map(Sight::facts));
        Readiness { ready: reason.is_none(), reason, facts }
    }

    fn metrics(&self) -> String {
        let mut registry = Registry::default();
        self.register_door(&mut registry);
        self.register_settling(&mut registry);
        if let Some(pipeline) = self.pipeline.upgrade() {
            register_feed(&mut registry, &pipeline);
            register_wallet(&mut registry, &pipeline, &self.wallet);
        }
        if let Some(breaker) = &self.breaker {
            breaker.register(&mut registry);
        }
        self.register_storage(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).expect("writing to a string does not fail");
        text
    }

    fn durability(&self) -> &'static str {
        "fsync"
    }
}
