//! How the breaker stands, for readiness and metrics. Read when asked for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use crate::app::vitals::Labels;
use crate::breaker::gate::{HELD_KINDS, SENT_KINDS, Status};
use crate::breaker::keeper::lock;
use crate::breaker::policy::{Change, PHASES};
use crate::breaker::{Phase, State};
use crate::pipeline::remote::sluice::Breaker;
use crate::request::rfc3339::Rfc3339;

/// Changes that readiness shows; the board has more.
const SHOWN_MAX: usize = 5;

#[derive(Clone)]
pub struct Sight {
    pub breaker: Breaker,
    pub(super) lost: Arc<Mutex<Option<String>>>,
}

impl Sight {
    fn read(&self) -> (State, Status) {
        let now_ns = self.breaker.ns(Instant::now());
        let governor = lock(&self.breaker.governor);
        (governor.state().clone(), governor.status(now_ns))
    }

    pub fn phase(&self) -> Phase {
        lock(&self.breaker.governor).state().phase
    }

    /// Tries of this instance so far, whatever came of them.
    pub fn tries(&self) -> u64 {
        let (_, Status { tally, .. }) = self.read();
        tally.probes_ok + tally.probes_failed
    }

    /// Times that a call was not let go, by why.
    pub fn held(&self) -> Vec<(&'static str, u64)> {
        let (_, Status { tally, .. }) = self.read();
        HELD_KINDS.into_iter().zip(tally.held).collect()
    }

    /// Why the board is not heard, if it is not.
    fn lost(&self) -> Option<String> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let (state, status) = self.read();
        let last = state.history.back();
        let (reason, by) = last.map_or(("", ""), |change| (&change.reason, &change.by));
        let history: Vec<String> = state.history.iter().rev().take(SHOWN_MAX).map(told).collect();
        let (share, budget) = (status.lease.rate_per_s, state.settings.rate_per_s);
        let mut facts = vec![
            ("breaker", word(&state, &status).to_owned()),
            ("breaker_since", Rfc3339(state.since_ms).to_string()),
            ("breaker_by", by.to_owned()),
            ("breaker_reason", reason.to_owned()),
            ("breaker_epoch", state.epoch.to_string()),
            ("breaker_history", history.join("; ")),
            ("share_per_s", format!("{share} of {budget}")),
            ("allowed_per_s", status.allowed.rate_per_s.to_string()),
        ];
        if let Some(lost) = self.lost() {
            facts.push(("breaker_board", lost));
        }
        facts
    }

    pub fn register(&self, registry: &mut Registry) {
        let (state, status) = self.read();
        let phases = Family::<Labels, Gauge>::default();
        for phase in PHASES {
            let labels = vec![("state", phase.to_owned())];
            phases.get_or_create(&labels).set(i64::from(state.phase.as_str() == phase));
        }
        registry.register("hongbao_breaker", "1 at the state of the fleet's breaker", phases);
        let [(_, rate), (_, calls)] = status.limits;
        let families = [
            (
                "hongbao_breaker_sent",
                "Calls let go that came back, by why",
                SENT_KINDS.as_slice(),
                status.tally.sent.as_slice(),
            ),
            (
                "hongbao_breaker_held",
                "Times that a call was not let go, by why",
                &HELD_KINDS,
                &status.tally.held,
            ),
            (
                "hongbao_breaker_probes",
                "Tries of this instance by what came of them",
                &["succeeded", "failed"],
                &[status.tally.probes_ok, status.tally.probes_failed],
            ),
            (
                "hongbao_breaker_permits",
                "Permits to try: given to this instance, and void before they were used",
                &["given", "lost"],
                &[status.tally.permits, status.tally.permits_lost],
            ),
            (
                "hongbao_shares",
                "Answers of the board to this instance's asking for its share of the budget",
                &["granted", "void"],
                &[status.tally.shares, status.tally.shares_void],
            ),
            (
                "hongbao_limit_moves",
                "Moves of the adaptive limit: of transfers a second, and of calls under way",
                &["rate_down", "rate_up", "calls_down", "calls_up"],
                &[rate.down, rate.up, calls.down, calls.up],
            ),
        ];
        for (name, help, kinds, counts) in families {
            let family = Family::<Labels, Counter>::default();
            for (kind, count) in kinds.iter().zip(counts) {
                family.get_or_create(&vec![("kind", (*kind).to_owned())]).inc_by(*count);
            }
            registry.register(name, help, family);
        }
        registry.register(
            "hongbao_breaker_changes",
            "Changes of the fleet's breaker and its settings, ever",
            ConstCounter::new(state.version.saturating_sub(1)),
        );
        let mut gauge = |name: &str, help: &str, value: u64| {
            registry.register(name, help, ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)));
        };
        gauge("hongbao_breaker_epoch", "Openings of the fleet's breaker, ever", state.epoch);
        let cut_off = u64::from(status.is_cut_off);
        gauge(
            "hongbao_breaker_board_lost",
            "1 while the board does not renew this instance's share",
            cut_off,
        );
        let alone = u64::from(status.is_alone);
        gauge("hongbao_breaker_alone", "1 while only this instance's calls fail", alone);
        gauge(
            "hongbao_budget_per_second",
            "Transfers a second that the fleet may send",
            state.settings.rate_per_s,
        );
        gauge("hongbao_cap_per_second", "What of it the breaker lets go now", state.terms().cap_rate_per_s);
        gauge("hongbao_share_per_second", "This instance's share of it", status.lease.rate_per_s);
        let allowed = status.allowed.rate_per_s;
        gauge("hongbao_allowed_per_second", "What the adaptive limit leaves of the share", allowed);
        gauge("hongbao_spent_per_second", "What this instance sends, about", status.spent_per_s);
    }
}

/// The state in a word, as this instance sees it.
fn word(state: &State, status: &Status) -> &'static str {
    match state.phase {
        Phase::Closed | Phase::Ramp { .. } if status.is_alone => "alone",
        phase @ (Phase::Closed | Phase::Ramp { .. } | Phase::Open { .. } | Phase::HalfOpen) => phase.as_str(),
    }
}

/// A change in a line.
pub fn told(change: &Change) -> String {
    let Change { at_ms, from, to, by, reason, .. } = change;
    format!("{} {from} -> {to} by {by}: {reason}", Rfc3339(*at_ms))
}
