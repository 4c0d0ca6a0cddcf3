//! How fast work is being done, and therefore how long a backlog will take.
//!
//! The rate is an exponentially weighted mean over the time in which there was a backlog: idle time says
//! nothing about what the wallet can do. Before anything was measured, the configured pace stands in.

/// Time over which old measurements fade to 1/e.
const FADE_MS: f64 = 2_000.0;
/// What is assumed where nothing is configured and nothing was measured yet.
const RATE_UNKNOWN_PER_S: f64 = 100_000.0;

#[derive(Clone, Debug)]
pub struct DrainRate {
    per_s: f64,
    measured_at_ms: u64,
    pending: u64,
    limit_per_s: u64,
    measured: bool,
}

impl DrainRate {
    /// `limit_per_s`: the configured pace, 0 for none.
    pub fn new(limit_per_s: u64) -> DrainRate {
        let per_s = if limit_per_s == 0 { RATE_UNKNOWN_PER_S } else { limit_per_s as f64 };
        DrainRate { per_s, measured_at_ms: 0, pending: 0, limit_per_s, measured: false }
    }

    /// `count` requests were finished, the last of them at `now_ms`; `backlog` says whether more wait.
    pub fn done(&mut self, now_ms: u64, count: u64, backlog: bool) {
        self.pending += count;
        let elapsed_ms = now_ms.saturating_sub(self.measured_at_ms);
        if elapsed_ms < 50 {
            return;
        }
        if backlog && self.measured_at_ms > 0 && elapsed_ms < 5_000 {
            let rate = self.pending as f64 * 1_000.0 / elapsed_ms as f64;
            let keep = if self.measured { (-(elapsed_ms as f64) / FADE_MS).exp() } else { 0.0 };
            self.per_s = self.per_s * keep + rate * (1.0 - keep);
            self.measured = true;
        }
        self.measured_at_ms = now_ms;
        self.pending = 0;
    }

    pub fn per_s(&self) -> f64 {
        let limit = if self.limit_per_s == 0 { f64::INFINITY } else { self.limit_per_s as f64 };
        self.per_s.clamp(1.0, limit.max(1.0))
    }

    /// Milliseconds until a request behind `backlog` others is done.
    pub fn wait_ms(&self, backlog: u64) -> u64 {
        (backlog as f64 * 1_000.0 / self.per_s()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_measured_rate_while_there_is_a_backlog() {
        let mut drain = DrainRate::new(0);
        let mut now = 1_000;
        for _ in 0..200 {
            now += 100;
            drain.done(now, 500, true);
        }
        assert!((drain.per_s() - 5_000.0).abs() < 50.0, "{}", drain.per_s());
        assert_eq!(drain.wait_ms(10_000) / 100, 20);
        for _ in 0..200 {
            now += 100;
            drain.done(now, 1, false);
        }
        assert!((drain.per_s() - 5_000.0).abs() < 50.0, "a quiet night is not a slow wallet");
    }

    #[test]
    fn the_configured_pace_stands_in_and_bounds() {
        let mut drain = DrainRate::new(2_000);
        assert_eq!(drain.wait_ms(4_000), 2_000);
        for step in 1..50 {
            drain.done(step * 100, 100_000, true);
        }
        assert_eq!(drain.wait_ms(4_000), 2_000);
    }
}
