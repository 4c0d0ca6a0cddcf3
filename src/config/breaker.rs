//! What the fleet's breaker and budget begin with, out of `[shaping]`, `[breaker]` and `[stored_value]`.
//!
//! These are the settings of a board that has none yet; from then on the board's hold, whoever changed them.

use super::ConfigError;
use super::limits::{invalid, within};
use super::raw::Raw;
use crate::breaker::Settings;
use crate::breaker::settings::CALLS_UNBOUNDED;

pub(super) fn derive(raw: &Raw) -> Result<Settings, ConfigError> {
    let given = &raw.breaker;
    within("breaker.open_ms_max", given.open_ms_max, given.open_ms, 3_600_000)?;
    if given.lease_ms < 2 * given.beat_ms || given.lease_ms > 60_000 {
        let reason = format!(
            "{} is not between twice breaker.beat_ms ({}) and 60000: a lease must outlive a beat that is lost",
            given.lease_ms,
            2 * given.beat_ms
        );
        return Err(invalid("breaker.lease_ms", reason));
    }
    let defaults = Settings::default();
    let settings = Settings {
        rate_per_s: raw.shaping.transfers_per_s,
        calls_max: match raw.shaping.calls_max {
            0 => CALLS_UNBOUNDED,
            bound => bound,
        },
        beat_ms: given.beat_ms,
        lease_ms: given.lease_ms,
        reserve_ms: given.reserve_ms,
        window_ms: given.window_ms,
        volume_min: given.volume_min,
        instance_volume_min: defaults.instance_volume_min.min(given.volume_min),
        failure_percent: given.failure_percent,
        open_ms: given.open_ms,
        open_ms_max: given.open_ms_max,
        permits_max: given.permits_max,
        probe_count: given.probe_count,
        permit_ttl_ms: given.permit_ttl_ms,
        probes_ok_min: given.probes_ok_min,
        ramp_start_permille: given.ramp_start_permille,
        ramp_step_ms: given.ramp_step_ms,
        ramp_growth_percent: given.ramp_growth_percent,
        ..defaults
    };
    for (key, value, bounds) in settings.bounds() {
        within(key, value, *bounds.start(), *bounds.end())?;
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use crate::breaker::Settings;
    use crate::config::{Sources, load};

    #[test]
    fn what_is_shipped_is_what_the_policy_was_simulated_with() {
        let config = load(&Sources::default()).unwrap();
        let calls_max = config.breaker.calls_max;
        assert_eq!(config.breaker, Settings { calls_max, ..Settings::default() });
        assert!(calls_max > 1_000_000, "bounded by each instance alone");
    }

    #[test]
    fn what_does_not_go_together_is_refused_by_name() {
        for (set, expected) in [
            ("breaker.lease_ms=100", "breaker.lease_ms"),
            ("breaker.open_ms_max=100", "breaker.open_ms_max"),
            ("breaker.failure_percent=101", "breaker.failure_percent"),
            ("breaker.window=1", "window_ms"),
        ] {
            let sources = Sources { sets: vec![set.to_owned()], ..Sources::default() };
            let error = load(&sources).expect_err(set).to_string();
            assert!(error.contains(expected), "{set}: {error}");
        }
    }
}
