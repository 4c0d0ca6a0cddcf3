//! What the fleet's breaker and budget go by, and between which bounds each number makes sense.
//!
//! The bounds hold for the configuration and for what is read from a board: within them nothing that is computed from
//! settings overflows, and every number is exact in JSON and in Lua. Absent: which numbers go together, which is the
//! configuration's to say.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// What the fleet goes by; lives on the board, and may be changed while it runs. Times in ms, parts in percent or
/// thousandths as their names say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    pub rate_per_s: u64,
    pub calls_max: u64,
    pub beat_ms: u64,
    pub lease_ms: u64,
    /// How long an instance that is not heard of is believed to be alive and using what it kept.
    pub reserve_ms: u64,
    pub window_ms: u64,
    /// Transfers of a window that the fleet must have seen to stop, and an instance to stop by itself.
    pub volume_min: u64,
    pub instance_volume_min: u64,
    pub failure_percent: u64,
    pub open_ms: u64,
    pub open_ms_max: u64,
    /// How long past its time an open breaker stays open where the board is out of reach.
    pub grace_ms: u64,
    /// Probes under way at once; transfers of one.
    pub permits_max: u64,
    pub probe_count: u64,
    pub permit_ttl_ms: u64,
    /// k of n: probes that must succeed, and those that may fail on the way.
    pub probes_ok_min: u64,
    pub probes_bad_max: u64,
    pub ramp_start_permille: u64,
    pub ramp_step_ms: u64,
    pub ramp_growth_percent: u64,
    /// Closed for so long, the next opening is a short one again.
    pub calm_ms: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            rate_per_s: 0,
            calls_max: 0,
            beat_ms: 80,
            lease_ms: 250,
            reserve_ms: 10_000,
            window_ms: 500,
            volume_min: 20,
            instance_volume_min: 4,
            failure_percent: 50,
            open_ms: 500,
            open_ms_max: 4_000,
            grace_ms: 2_000,
            permits_max: 3,
            probe_count: 8,
            permit_ttl_ms: 2_000,
            probes_ok_min: 6,
            probes_bad_max: 2,
            ramp_start_permille: 100,
            ramp_step_ms: 250,
            ramp_growth_percent: 40,
            calm_ms: 30_000,
        }
    }
}

/// Calls under way in a fleet whose settings bound only those of an instance.
pub const CALLS_UNBOUNDED: u64 = 1 << 20;
const HOUR_MS: u64 = 3_600_000;

impl Settings {
    /// Every number under its name in the configuration, where it has one, and where it must lie.
    pub fn bounds(&self) -> [(&'static str, u64, RangeInclusive<u64>); 21] {
        [
            ("shaping.transfers_per_s", self.rate_per_s, 0..=100_000_000),
            ("shaping.calls_max", self.calls_max, 0..=CALLS_UNBOUNDED),
            ("breaker.beat_ms", self.beat_ms, 20..=1_000),
            ("breaker.lease_ms", self.lease_ms, 40..=60_000),
            ("breaker.reserve_ms", self.reserve_ms, 0..=HOUR_MS),
            ("breaker.window_ms", self.window_ms, 100..=60_000),
            ("breaker.volume_min", self.volume_min, 1..=1_000_000),
            ("instance_volume_min", self.instance_volume_min, 1..=1_000_000),
            ("breaker.failure_percent", self.failure_percent, 1..=100),
            ("breaker.open_ms", self.open_ms, 50..=HOUR_MS),
            ("breaker.open_ms_max", self.open_ms_max, 50..=HOUR_MS),
            ("grace_ms", self.grace_ms, 0..=HOUR_MS),
            ("breaker.permits_max", self.permits_max, 1..=1_024),
            ("breaker.probe_count", self.probe_count, 1..=8_192),
            ("breaker.permit_ttl_ms", self.permit_ttl_ms, 100..=600_000),
            ("breaker.probes_ok_min", self.probes_ok_min, 1..=1_000),
            ("probes_bad_max", self.probes_bad_max, 0..=1_000),
            ("breaker.ramp_start_permille", self.ramp_start_permille, 1..=1_000),
            ("breaker.ramp_step_ms", self.ramp_step_ms, 50..=600_000),
            ("breaker.ramp_growth_percent", self.ramp_growth_percent, 1..=1_000),
            ("calm_ms", self.calm_ms, 0..=24 * HOUR_MS),
        ]
    }

    /// The first number that lies elsewhere than it may, in words.
    pub fn check(&self) -> Result<(), String> {
        let astray = self.bounds().into_iter().find(|(_, value, bounds)| !bounds.contains(value));
        astray.map_or(Ok(()), |(name, value, bounds)| {
            Err(format!("{name} is {value}, which is not between {} and {}", bounds.start(), bounds.end()))
        })
    }

    /// Transfers of one try: so few that all tries of a half open breaker are within half a second of the budget.
    pub fn probe_share(&self) -> u64 {
        let tries = self.probes_ok_min + self.probes_bad_max + self.permits_max;
        self.probe_count.min(self.rate_per_s / (2 * tries)).max(1)
    }
}
