//! How fast work is being done, while there is more of it than can be done.
//!
//! The rate is an exponentially weighted mean over windows at both ends of which at least as much was waiting to be taken
//! as was done in between: a trickle says nothing about what the wallet can do, and neither does an idle night. Time in
//! which the breaker holds work back is left out, and with it what led there ([`DrainRate::hold`]). Absent: clocks.

/// Time over which old measurements fade to 1/e.
const FADE_MS: f64 = 500.0;
/// The shortest window, and the longest: what took longer was no steady work.
const WINDOW_MS: u64 = 50;
const WINDOW_MS_MAX: u64 = 5_000;
/// Less than this of steady work says little: a process that has just begun is slow.
const MEASURED_MS_MIN: u64 = 500;
/// How far the rate goes back when work is held: the breaker takes about so long to notice that something is wrong.
const BACK_MS: u64 = 500;

#[derive(Clone, Debug, Default)]
pub struct DrainRate {
    per_s: Option<f64>,
    /// Time in all windows that counted.
    measured_ms: u64,
    window: Option<Window>,
    /// The rate at the last two times that were [`BACK_MS`] apart, the older first.
    before: [(u64, Option<f64>); 2],
    is_held: bool,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    since_ms: u64,
    /// Waiting to be taken when it began.
    unread: u64,
    done: u64,
}

impl DrainRate {
    /// `count` requests were finished, the last of them at `now_ms`; `unread` wait to be taken.
    pub fn done(&mut self, now_ms: u64, count: u64, unread: u64) {
        self.is_held = false;
        // A clock that was set back measures anew.
        let Some(mut window) = self.window.filter(|window| window.since_ms <= now_ms) else {
            self.before.iter_mut().for_each(|(at, _)| *at = (*at).min(now_ms));
            self.window = Some(Window { since_ms: now_ms, unread, done: 0 });
            return;
        };
        window.done += count;
        let elapsed_ms = now_ms.saturating_sub(window.since_ms);
        if elapsed_ms < WINDOW_MS {
            self.window = Some(window);
            return;
        }
        self.window = Some(Window { since_ms: now_ms, unread, done: 0 });
        if window.done > 0 && window.unread.min(unread) >= window.done && elapsed_ms <= WINDOW_MS_MAX {
            let rate = window.done as f64 * 1_000.0 / elapsed_ms as f64;
            let keep = (-(elapsed_ms as f64) / FADE_MS).exp();
            self.per_s = Some(self.per_s.map_or(rate, |per_s| per_s * keep + rate * (1.0 - keep)));
            self.measured_ms += elapsed_ms;
            self.remember(now_ms);
        }
    }

    fn remember(&mut self, now_ms: u64) {
        if now_ms >= self.before[1].0 + BACK_MS {
            self.before = [self.before[1], (now_ms, self.per_s)];
        }
    }

    /// Work is held back from now on, whatever could be done: what was measured last was the failure.
    pub fn hold(&mut self) {
        if !std::mem::replace(&mut self.is_held, true) {
            self.per_s = self.before[0].1.or(self.before[1].1).or(self.per_s);
        }
        self.window = None;
    }

    /// Requests a second; none: never measured for long enough.
    pub fn per_s(&self) -> Option<f64> {
        self.per_s.filter(|_| self.measured_ms >= MEASURED_MS_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(drain: &mut DrainRate, from_ms: u64, for_ms: u64, count: u64, unread: u64) {
        (from_ms..from_ms + for_ms).step_by(10).for_each(|now| drain.done(now, count, unread));
    }

    #[test]
    fn follows_the_measured_rate_while_there_is_a_backlog() {
        let mut drain = DrainRate::default();
        run(&mut drain, 600, 400, 5, 100_000);
        assert_eq!(drain.per_s(), None, "a slow start is no rate yet");
        run(&mut drain, 1_000, 5_000, 50, 100_000);
        let steady = drain.per_s().unwrap();
        assert!((4_950.0..=5_000.0).contains(&steady), "{steady}");
        run(&mut drain, 6_000, 20_000, 1, 3);
        assert_eq!(drain.per_s(), Some(steady), "a trickle is not a slow wallet");
        drain.done(29_000, 1, 0);
        drain.done(33_000, 50, 100_000);
        assert_eq!(drain.per_s(), Some(steady), "nor is the pause before a burst");
        run(&mut drain, 33_010, 3_000, 15, 100_000);
        let slow = drain.per_s().unwrap();
        assert!((1_500.0..1_700.0).contains(&slow), "{slow}: three seconds of a third");
    }

    #[test]
    fn what_led_to_a_hold_and_the_hold_itself_are_left_out() {
        let mut drain = DrainRate::default();
        // The clock was set back since.
        run(&mut drain, 1_000_000, 5_000, 50, 100_000);
        run(&mut drain, 1_000, 5_000, 50, 100_000);
        run(&mut drain, 6_000, 400, 5, 100_000);
        assert!(drain.per_s().unwrap() < 4_000.0);
        (0..10).for_each(|_| drain.hold());
        assert_eq!(drain.per_s().map(f64::round), Some(5_000.0));
        run(&mut drain, 12_000, 1_000, 50, 100_000);
        assert_eq!(drain.per_s().map(f64::round), Some(5_000.0));
    }
}
