//! When the fleet stops, tries, and goes on: a pure function from what the board shows to the next state.
//!
//! ```text
//!            trip: volume, rate, majority               until
//!   Closed ────────────────────────────────> Open ────────────────> HalfOpen
//!     ^  ^                                    ^ ^   bad > n - k        │ │
//!     │  └────── Ramp: cap reaches all        │ └──────────────────────┘ │
//!     │           ^ │                         │                          │
//!     │           │ └── trip ─────────────────┘                          │
//!     │           └───────────────────────────────── k of n ok ──────────┘
//! ```
//!
//! Every instance computes it from the same board; whoever is first writes it, by compare-and-set on the version, so
//! it does not matter who, or how many, or that one was killed on the way. One instance alone never stops the
//! fleet, unless it is alone in having work. Only what was said in the present epoch counts, so an answer that
//! is late by an outage says nothing about the next. Half open is passed with permits that have a holder and a time
//! to live ([`super::table`]); after it the budget comes back in steps, and a trip on the way opens for longer.
//! Absent: clocks, keys, messages.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::board::{Member, View};
use super::classify::Counts;
pub use super::settings::Settings;
use crate::shaping::Amount;

/// Changes that a state remembers.
pub const HISTORY_MAX: usize = 32;
/// A time that does not come: an operator's "open". The largest integer that JSON and Lua carry exactly.
pub const NEVER_MS: u64 = (1 << 53) - 1;
/// An instance not heard of for so long has no vote.
const LIVE_MS: u64 = 1_000;
/// The whole, where parts are in thousandths.
const WHOLE: u64 = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Closed,
    Open { until_ms: u64 },
    HalfOpen,
    Ramp { cap_permille: u64, step_at_ms: u64 },
}

/// Every word of [`Phase::as_str`], for metrics.
pub const PHASES: [&str; 4] = ["closed", "open", "half_open", "ramp"];

impl Phase {
    pub fn as_str(&self) -> &'static str {
        match self {
            Phase::Closed => "closed",
            Phase::Open { .. } => "open",
            Phase::HalfOpen => "half_open",
            Phase::Ramp { .. } => "ramp",
        }
    }
}

/// What an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    Open,
    Close,
    Auto,
}

/// One change, with who made it and the numbers that did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Unix ms by the board's clock.
    pub at_ms: u64,
    pub epoch: u64,
    pub from: String,
    pub to: String,
    /// `fleet`, or an operator's name.
    pub by: String,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Counts every change: what compare-and-set compares.
    pub version: u64,
    /// Counts openings.
    pub epoch: u64,
    pub phase: Phase,
    pub since_ms: u64,
    pub opens_in_a_row: u32,
    /// An operator's will, until somebody says `auto`.
    pub held: Option<Wish>,
    pub settings: Settings,
    pub history: VecDeque<Change>,
}

/// What the board must know of a state to grant by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    pub epoch: u64,
    pub rate_per_s: u64,
    pub calls: u64,
    /// What may be used now.
    pub cap_rate_per_s: u64,
    pub cap_calls: u64,
    pub permits: u64,
    pub permit_ttl_ms: u64,
    pub lease_ms: u64,
    pub reserve_ms: u64,
}

impl Terms {
    pub fn budget(&self) -> Amount {
        Amount { rate_per_s: self.rate_per_s, calls: self.calls }
    }

    pub fn cap(&self) -> Amount {
        Amount { rate_per_s: self.cap_rate_per_s, calls: self.cap_calls }
    }
}

impl State {
    pub fn new(settings: Settings, now_ms: u64) -> State {
        State {
            version: 1,
            epoch: 1,
            phase: Phase::Closed,
            since_ms: now_ms,
            opens_in_a_row: 0,
            held: None,
            settings,
            history: VecDeque::new(),
        }
    }

    pub fn terms(&self) -> Terms {
        let settings = &self.settings;
        let permille = match self.phase {
            Phase::Closed => WHOLE,
            Phase::Ramp { cap_permille, .. } => cap_permille.min(WHOLE),
            Phase::Open { .. } | Phase::HalfOpen => 0,
        };
        let part = |whole: u64| whole.saturating_mul(permille).div_ceil(WHOLE);
        Terms {
            epoch: self.epoch,
            rate_per_s: settings.rate_per_s,
            calls: settings.calls_max,
            cap_rate_per_s: part(settings.rate_per_s),
            cap_calls: part(settings.calls_max),
            permits: match self.phase {
                Phase::HalfOpen => settings.permits_max.min(settings.rate_per_s.max(1)),
                Phase::Closed | Phase::Open { .. } | Phase::Ramp { .. } => 0,
            },
            permit_ttl_ms: settings.permit_ttl_ms,
            lease_ms: settings.lease_ms,
            reserve_ms: settings.reserve_ms,
        }
    }

    /// What is wrong with a state that somebody stored, in words: no number of it may lead arithmetic astray.
    pub fn check(&self) -> Result<(), String> {
        self.settings.check()?;
        let (until_ms, permille) = match self.phase {
            Phase::Closed | Phase::HalfOpen => (0, 0),
            Phase::Open { until_ms } => (until_ms, 0),
            Phase::Ramp { cap_permille, step_at_ms } => (step_at_ms, cap_permille),
        };
        let numbers = [self.version, self.epoch, self.since_ms, until_ms];
        let is_exact = numbers.iter().all(|number| *number <= NEVER_MS);
        if is_exact && permille <= WHOLE {
            Ok(())
        } else {
            Err("a number of it is larger than any that was ever written".to_owned())
        }
    }

    /// Until when an opening lasts, seen from `now_ms`: no longer than one may, however the clock was when it began.
    pub fn open_left_ms(&self, now_ms: u64) -> u64 {
        match self.phase {
            Phase::Open { until_ms } if self.held == Some(Wish::Open) => until_ms.saturating_sub(now_ms),
            Phase::Open { until_ms } => until_ms.saturating_sub(now_ms).min(self.settings.open_ms_max),
            Phase::Closed | Phase::HalfOpen | Phase::Ramp { .. } => 0,
        }
    }

    fn next(&self, now_ms: u64, phase: Phase, by: &str, reason: String) -> State {
        let mut next = self.clone();
        next.version += 1;
        next.phase = phase;
        if phase.as_str() != self.phase.as_str() || by != FLEET {
            next.since_ms = now_ms;
            let was_open = matches!(self.phase, Phase::Open { .. });
            if !was_open && matches!(phase, Phase::Open { .. }) {
                next.epoch += 1;
            }
            while next.history.len() >= HISTORY_MAX {
                next.history.pop_front();
            }
            next.history.push_back(Change {
                at_ms: now_ms,
                epoch: next.epoch,
                from: self.phase.as_str().to_owned(),
                to: phase.as_str().to_owned(),
                by: by.to_owned(),
                reason,
            });
        }
        next
    }

    fn opened(&self, now_ms: u64, reason: String) -> State {
        let settings = &self.settings;
        let doubled = settings.open_ms << self.opens_in_a_row.min(16);
        let until_ms = now_ms + doubled.min(settings.open_ms_max);
        let mut next = self.next(now_ms, Phase::Open { until_ms }, FLEET, reason);
        next.opens_in_a_row = next.opens_in_a_row.saturating_add(1);
        next
    }

    /// An operator's will. `auto` out of an open breaker tries first.
    pub fn wished(&self, now_ms: u64, wish: Wish, by: &str, reason: &str) -> State {
        let phase = match (wish, self.phase) {
            (Wish::Open, _) => Phase::Open { until_ms: NEVER_MS },
            (Wish::Close, _) => Phase::Closed,
            (Wish::Auto, Phase::Open { .. }) => Phase::HalfOpen,
            (Wish::Auto, phase @ (Phase::Closed | Phase::HalfOpen | Phase::Ramp { .. })) => phase,
        };
        let mut next = self.next(now_ms, phase, by, reason.to_owned());
        next.held = (wish != Wish::Auto).then_some(wish);
        next
    }

    /// Other settings from now on.
    pub fn with_settings(&self, now_ms: u64, settings: Settings, by: &str, reason: &str) -> State {
        let mut next = self.next(now_ms, self.phase, by, format!("settings: {reason}"));
        (next.settings, next.since_ms) = (settings, self.since_ms);
        next
    }
}

const FLEET: &str = "fleet";

/// The state that should follow, if another should.
pub fn decide(view: &View) -> Option<State> {
    let (state, now_ms) = (&view.state, view.now_ms);
    let settings = &state.settings;
    if state.held.is_some() {
        return None;
    }
    match state.phase {
        Phase::Closed => {
            if let Some(reason) = trips(view) {
                return Some(state.opened(now_ms, reason));
            }
            let is_calm = now_ms.abs_diff(state.since_ms) >= settings.calm_ms;
            (is_calm && state.opens_in_a_row > 0).then(|| {
                let mut next = state.next(now_ms, Phase::Closed, FLEET, String::new());
                next.opens_in_a_row = 0;
                next
            })
        }
        Phase::Open { until_ms } => {
            let reason = match until_ms.checked_sub(now_ms) {
                None | Some(0) => format!("{} ms have passed", now_ms.saturating_sub(state.since_ms)),
                Some(left_ms) if left_ms > settings.open_ms_max => {
                    format!("{left_ms} ms are left, longer than it may be open: the board's clock went back")
                }
                Some(_) => return None,
            };
            Some(state.next(now_ms, Phase::HalfOpen, FLEET, reason))
        }
        Phase::HalfOpen => tried(view),
        Phase::Ramp { cap_permille, step_at_ms } => {
            if let Some(reason) = trips(view) {
                return Some(state.opened(now_ms, reason));
            }
            // Further ahead than a step is long: the board's clock went back.
            if now_ms < step_at_ms && step_at_ms - now_ms <= settings.ramp_step_ms {
                return None;
            }
            let cap_permille = cap_permille + (cap_permille * settings.ramp_growth_percent / 100).max(1);
            Some(if cap_permille >= WHOLE {
                state.next(now_ms, Phase::Closed, FLEET, "the ramp is done".to_owned())
            } else {
                let step_at_ms = now_ms + settings.ramp_step_ms;
                state.next(now_ms, Phase::Ramp { cap_permille, step_at_ms }, FLEET, String::new())
            })
        }
    }
}

fn live(view: &View) -> impl Iterator<Item = &Member> {
    view.members.values().filter(|member| view.now_ms.saturating_sub(member.seen_ms) <= LIVE_MS)
}

/// Why the fleet must stop, if it must.
fn trips(view: &View) -> Option<String> {
    let settings = &view.state.settings;
    let (mut sum, mut with_volume, mut votes) = (Counts::default(), 0u64, 0u64);
    for member in live(view).filter(|member| member.said.epoch == view.state.epoch) {
        let said = &member.said;
        // A window is as old as the report that told it.
        let is_fresh = view.now_ms.saturating_sub(member.seen_ms) <= settings.window_ms;
        if is_fresh && said.counts.total() > 0 {
            sum = sum.plus(said.counts);
            with_volume += 1;
            votes += u64::from(said.is_for_stopping);
        }
    }
    let is_majority = 2 * votes > with_volume;
    // A fleet of few has few calls: what makes each of them stop must be enough for all of them.
    let volume_min = settings.volume_min.min(settings.instance_volume_min.saturating_mul(with_volume));
    (is_majority && sum.fails(volume_min, settings.failure_percent)).then(|| {
        format!(
            "{} of {} transfers failed within {} ms (overload {}, timeout {}, unknown {}) as {votes} of {with_volume} \
             instances see it",
            sum.unhealthy(),
            sum.total(),
            settings.window_ms,
            sum.overload,
            sum.timeout,
            sum.unknown
        )
    })
}

/// What the probes of this epoch say, if they say enough.
fn tried(view: &View) -> Option<State> {
    let (state, settings) = (&view.state, &view.state.settings);
    let of_epoch = || view.members.values().filter(|member| member.said.epoch == state.epoch);
    let ok = of_epoch().fold(0u64, |sum, member| sum.saturating_add(member.said.probes_ok));
    let bad = of_epoch().fold(0u64, |sum, member| sum.saturating_add(member.said.probes_bad));
    // Whoever has a broken network fails every probe: where others can try, that is not enough. And one reply that was
    // lost says little, though nobody else can try.
    let bad_max = settings.probes_bad_max.min(live(view).count().saturating_sub(1).max(1) as u64);
    if bad > bad_max {
        return Some(state.opened(view.now_ms, format!("{bad} probes failed, {ok} succeeded")));
    }
    (ok >= settings.probes_ok_min).then(|| {
        let ramp = Phase::Ramp {
            cap_permille: settings.ramp_start_permille,
            step_at_ms: view.now_ms + settings.ramp_step_ms,
        };
        state.next(view.now_ms, ramp, FLEET, format!("{ok} probes succeeded, {bad} failed"))
    })
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
