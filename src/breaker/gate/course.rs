//! What the breaker has decided about the time to come, for whoever forecasts when work will be done.
//!
//! What holds: while it is open the time told is the time still closed, which the policy doubles with each failure, so that
//! it is about as long as the outage already is; past the longest it closes for, the outage is taken to last as long again.
//! So is what an operator opened.

use super::super::policy::{NEVER_MS, Phase};
use super::{Governor, MS};
use crate::shaping::{Course, Ramp};

/// Beats that half open takes, if the wallet is well.
const TRIAL_BEATS: u64 = 3;
/// The time closed doubles up to the longest; by then an outage is about twice as long.
const DOUBLED: u64 = 2;

impl Governor {
    /// How fast the fleet may go from now on.
    pub fn course(&self, now_ns: u64) -> Course {
        let settings = &self.state.settings;
        let down_ms = self.down_since_ns.map_or(0, |since| now_ns.saturating_sub(since) / MS);
        let again_ms = down_ms.saturating_sub(DOUBLED * settings.open_ms_max);
        let trial_ms = TRIAL_BEATS * settings.beat_ms;
        let cap = settings.rate_per_s as f64;
        let growth = 1.0 + settings.ramp_growth_percent as f64 / 100.0;
        let step_ms = settings.ramp_step_ms as f64;
        let ramp = |permille: u64, first_ms| {
            Some(Ramp { per_s: cap * permille as f64 / 1_000.0, first_ms, step_ms, growth })
        };
        let whole = ramp(settings.ramp_start_permille, step_ms);
        let (held_ms, ramp) = match self.state.phase {
            Phase::Closed => (0, None),
            // In the middle of a step, as far as is known here.
            Phase::Ramp { cap_permille, .. } => (0, ramp(cap_permille, step_ms / 2.0)),
            Phase::HalfOpen => (trial_ms.max(again_ms), whole),
            Phase::Open { until_ms: NEVER_MS } => (trial_ms.max(down_ms), whole),
            Phase::Open { .. } => {
                let believed_ms = self.believed_until_ns.saturating_sub(now_ns) / MS;
                let closed_ms = believed_ms.saturating_sub(settings.grace_ms);
                ((closed_ms + trial_ms).max(again_ms), whole)
            }
        };
        Course {
            held_ms,
            cap_per_s: (settings.rate_per_s > 0).then_some(settings.rate_per_s),
            ramp,
            call_ms: self.rate_limit.latency_floor_ns().map_or(0, |ns| ns / MS),
            is_free: self.state.phase == Phase::Closed && self.vote.tripped_at_ms().is_none(),
        }
    }
}
