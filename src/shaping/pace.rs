//! A token bucket: at most `rate` transfers a second, in steps small enough that no sliding window of 100 ms
//! sees more than its share plus one step.
//!
//! Tokens are counted in nanoseconds of rate, so nothing is lost to rounding (GCRA, ITU-T I.371: the
//! theoretical arrival time moves on by `interval` for every transfer granted).

/// The longest time whose unspent share may be spent at once.
const BURST_NS: u64 = 10_000_000;

/// How late after the time told it may be asked without losing anything.
const LATE_NS: u64 = 5_000_001;

/// How fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    Unlimited,
    /// Transfers a second; of 0, nothing goes.
    PerS(u64),
}

#[derive(Clone, Debug)]
pub struct Pace {
    /// Transfers a second; 0: unlimited, or nothing at all if stopped.
    rate_per_s: u64,
    is_stopped: bool,
    burst_ns: u64,
    /// The instant up to which the rate is spent, in units of 1/rate ns so that it stays exact.
    spent_until_ns: u64,
    remainder: u64,
}

impl Pace {
    /// `rate_per_s`: as configured, 0 for no limit.
    pub fn new(rate_per_s: u64) -> Pace {
        Pace { rate_per_s, is_stopped: false, burst_ns: BURST_NS, spent_until_ns: 0, remainder: 0 }
    }

    /// Another burst, as time at the rate.
    #[must_use]
    pub fn with_burst(self, burst_ns: u64) -> Pace {
        Pace { burst_ns, ..self }
    }

    pub fn rate_per_s(&self) -> u64 {
        self.rate_per_s
    }

    /// Another rate from now on: the lease's, or the limit's. What was spent stays spent.
    pub fn set_rate(&mut self, rate: Rate) {
        let (rate_per_s, is_stopped) = match rate {
            Rate::Unlimited => (0, false),
            Rate::PerS(rate_per_s) => (rate_per_s, rate_per_s == 0),
        };
        if (rate_per_s, is_stopped) != (self.rate_per_s, self.is_stopped) {
            (self.rate_per_s, self.is_stopped, self.remainder) = (rate_per_s, is_stopped, 0);
        }
    }

    /// How many of `want` may go now; they count as gone.
    pub fn take(&mut self, now_ns: u64, want: u64) -> u64 {
        if self.rate_per_s == 0 {
            return if self.is_stopped { 0 } else { want };
        }
        self.forget_unspent(now_ns);
        let free_ns = u128::from(now_ns.saturating_sub(self.spent_until_ns));
        let granted = (free_ns * u128::from(self.rate_per_s) / 1_000_000_000).min(u128::from(want)) as u64;
        let scaled = u128::from(granted) * 1_000_000_000 + u128::from(self.remainder);
        self.spent_until_ns += (scaled / u128::from(self.rate_per_s)) as u64;
        self.remainder = (scaled % u128::from(self.rate_per_s)) as u64;
        granted
    }

    /// The same, once a step worth `step_ns` of the rate has come together (or all of `want`); until then, when that
    /// will be. Behind a backlog every look would else send on the one or two that became free since the last.
    pub fn take_step(&mut self, now_ns: u64, want: u64, step_ns: u64) -> Result<u64, u64> {
        let step = u128::from(self.rate_per_s) * u128::from(step_ns) / 1_000_000_000;
        self.take_at_least(now_ns, want, want.min((step as u64).max(1)))
    }

    /// The same, once as many as `least` may go together; until then, when that will be.
    pub fn take_at_least(&mut self, now_ns: u64, want: u64, least: u64) -> Result<u64, u64> {
        if self.rate_per_s == 0 {
            return if self.is_stopped { Err(u64::MAX) } else { Ok(want) };
        }
        self.forget_unspent(now_ns);
        let needed_ns = u128::from(least) * 1_000_000_000 / u128::from(self.rate_per_s);
        let at_ns = self
            .spent_until_ns
            .saturating_add(u64::try_from(needed_ns).unwrap_or(u64::MAX))
            .saturating_add(1);
        if now_ns < at_ns {
            return Err(at_ns);
        }
        Ok(self.take(now_ns, want))
    }

    fn forget_unspent(&mut self, now_ns: u64) {
        // A slow pace must be able to save up one whole transfer, and lose nothing when it is asked a little late.
        let floor = now_ns.saturating_sub(self.burst_ns.max(1_000_000_000 / self.rate_per_s + LATE_NS));
        if self.spent_until_ns < floor {
            (self.spent_until_ns, self.remainder) = (floor, 0);
        }
    }

    /// Gives back what was taken and not used.
    pub fn give_back(&mut self, count: u64) {
        if let Some(ns) = (count * 1_000_000_000).checked_div(self.rate_per_s) {
            self.spent_until_ns = self.spent_until_ns.saturating_sub(ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    /// Asks as often as it may and returns how many went in each millisecond.
    fn greedy(pace: &mut Pace, from_ns: u64, for_ms: u64) -> Vec<u64> {
        (0..for_ms).map(|ms| pace.take(from_ns + ms * 1_000_000, u64::MAX >> 1)).collect()
    }

    #[test]
    fn a_step_is_waited_for_and_no_less_of_the_rate_goes() {
        for rate in [10, 700, 50_000] {
            let mut pace = Pace::new(rate).with_burst(16_000_000);
            let (mut granted, mut calls) = (0, 0);
            let step_ns = 5_000_000;
            let least = (rate / 200).max(1);
            for ms in 0..2_000 {
                if let Ok(count) = pace.take_step(10 * S + ms * 1_000_000, 1_000_000, step_ns) {
                    assert!(count >= least);
                    (granted, calls) = (granted + count, calls + 1);
                }
            }
            assert!(granted.abs_diff(2 * rate) <= rate / 50 + 1, "{rate}: {granted}");
            assert!(calls <= 500, "{rate}: {calls} calls");
        }
        let mut pace = Pace::new(1_000);
        pace.take(S, 1_000);
        assert_eq!(pace.take_at_least(S, 5, 5), Err(S + 5_000_001));
        pace.set_rate(Rate::PerS(0));
        assert_eq!(pace.take_at_least(2 * S, 5, 1), Err(u64::MAX));
    }

    #[test]
    fn the_rate_is_kept_exactly_and_smoothly() {
        for rate in [1, 3, 999, 20_000, 1_000_003] {
            let mut pace = Pace::new(rate);
            let grants = greedy(&mut pace, 10 * S, 10_000);
            let total: u64 = grants.iter().sum();
            assert!(total.abs_diff(rate * 10) <= rate / 100 + 1, "{rate}: {total}");
            for window in grants.windows(100) {
                let sum: u64 = window.iter().sum();
                assert!(sum <= rate / 10 + rate / 100 + 1, "{rate}: {sum} in 100 ms");
            }
        }
    }

    #[test]
    fn a_pace_that_is_asked_a_little_late_loses_nothing() {
        for rate in [3, 80, 128, 190] {
            let mut pace = Pace::new(rate);
            let total: u64 = (0..2_000).map(|tick| pace.take(10 * S + tick * 5_000_000, 1_000)).sum();
            assert!(total >= rate * 10, "{rate}: {total}");
        }
    }

    #[test]
    fn a_pause_does_not_save_up_a_spike() {
        let mut pace = Pace::new(1_000);
        assert_eq!(pace.take(100 * S, 1_000_000), 10);
        assert_eq!(pace.take(100 * S, 1_000_000), 0);
        assert_eq!(pace.take(200 * S, 1_000_000), 10);
    }

    #[test]
    fn unlimited_is_unlimited_and_back() {
        let mut pace = Pace::new(0);
        assert_eq!(pace.take(0, 7), 7);
        pace.set_rate(Rate::PerS(0));
        let asked = (pace.take(S, 7), pace.take_step(S, 7, 1));
        assert_eq!(asked, (0, Err(u64::MAX)), "a share of nothing is not no limit");
        pace.set_rate(Rate::PerS(100));
        assert_eq!(pace.take(S, 100), 1);
        pace.give_back(1);
        assert_eq!(pace.take(S, 100), 1);
        assert!(pace.take_step(S, 7, 1).is_err_and(|at| at > S && at < 2 * S));
    }
}
