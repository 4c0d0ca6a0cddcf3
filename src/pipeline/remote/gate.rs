//! How many calls of this instance may be under way, and what its own answers say: whether the wallet is well, and
//! whether somebody must mend something first.
//!
//! Whether the wallet is to be called at all is the breaker's to say ([`super::sluice`]). Here is the case that it knows
//! nothing of: nothing will succeed until somebody mends our settings; then calls go one at a time, and each success
//! doubles how many. Pure: time is passed in. It never fails or parks anything: what waits here waits in the ring, and
//! the feed behind it.

use std::time::{Duration, Instant};

use crate::stored_value::remote::CallError;

/// Calls in a row that fail before the wallet is said not to answer.
const FAILURES_MAX: u32 = 3;
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Between two tries while only an operator can help.
const STOPPED_RETRY: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateState {
    Open,
    /// The wallet does not answer, or asks to be spared; the reason is that of the last failure.
    HeldBack(String),
    /// Nothing will succeed until somebody mends the settings or the wallet.
    Stopped(String),
}

#[derive(Debug)]
pub struct Gate {
    calls_max: usize,
    limit: usize,
    failures: u32,
    resume_at: Option<Instant>,
    state: GateState,
    last_success_at: Option<Instant>,
}

impl Gate {
    pub fn new(calls_max: usize) -> Gate {
        Gate {
            calls_max,
            limit: calls_max,
            failures: 0,
            resume_at: None,
            state: GateState::Open,
            last_success_at: None,
        }
    }

    pub fn state(&self) -> &GateState {
        &self.state
    }

    /// Whether one more call may go while `flying` are under way; `late` of them are known to be held up by
    /// something of their own, and may be made up for.
    pub fn admits(&self, now: Instant, flying: usize, late: usize) -> bool {
        self.resume_at.is_none_or(|at| now >= at) && flying < self.limit + late.min(self.limit)
    }

    /// When it may admit again, if it waits for a time.
    pub fn next_at(&self) -> Option<Instant> {
        self.resume_at
    }

    /// Whether another call has succeeded since this one was sent: then the wallet is well, and what holds this one
    /// up is in it.
    pub fn others_succeed_since(&self, sent_at: Instant) -> bool {
        self.last_success_at.is_some_and(|at| at > sent_at)
    }

    pub fn succeeded(&mut self, now: Instant) {
        self.last_success_at = Some(now);
        self.failures = 0;
        self.resume_at = None;
        if self.state != GateState::Open {
            tracing::info!("the wallet answers again");
            self.state = GateState::Open;
        }
        self.limit = (self.limit * 2).min(self.calls_max);
    }

    pub fn failed(&mut self, error: &CallError, now: Instant) {
        self.failures += 1;
        let state = match error {
            CallError::TimedOut { .. } | CallError::Unknown(_) => {
                if self.failures < FAILURES_MAX {
                    return;
                }
                GateState::HeldBack(error.to_string())
            }
            CallError::Overloaded { .. } => GateState::HeldBack(error.to_string()),
            CallError::Unauthorized(_) | CallError::Rejected(_) => {
                self.limit = 1;
                self.resume_at = Some(now + STOPPED_RETRY);
                GateState::Stopped(error.to_string())
            }
            // Mended by sending less at a time.
            CallError::TooLarge(_) => return,
        };
        if std::mem::discriminant(&self.state) != std::mem::discriminant(&state) {
            match &state {
                GateState::Stopped(reason) => tracing::error!(reason, "nothing is sent to the wallet"),
                GateState::HeldBack(reason) => tracing::warn!(reason, "the wallet does not answer"),
                GateState::Open => {}
            }
        }
        self.state = state;
    }
}

/// Doubles from [`BACKOFF_MIN`] to [`BACKOFF_MAX`]; spread over its upper half, so that several do not come back at
/// the same moment ("equal jitter", Brooker 2015, "Exponential Backoff And Jitter").
pub fn backoff(failures: u32, jitter: f64) -> Duration {
    let whole = (BACKOFF_MIN * (1 << failures.min(8))).min(BACKOFF_MAX);
    whole / 2 + (whole / 2).mul_f64(jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown() -> CallError {
        CallError::Unknown("reset".to_owned())
    }

    #[test]
    fn a_few_failures_are_nothing_many_are_told_and_none_holds_back() {
        let start = Instant::now();
        let mut gate = Gate::new(8);
        gate.failed(&unknown(), start);
        gate.failed(&unknown(), start);
        assert_eq!(gate.state(), &GateState::Open);
        gate.failed(&unknown(), start);
        assert!(matches!(gate.state(), GateState::HeldBack(reason) if reason.contains("reset")));
        assert!(gate.admits(start, 7, 0) && !gate.admits(start, 8, 0), "whether is the breaker's to say");
        assert!(gate.admits(start, 8, 1), "one that is late is made up for");
        gate.succeeded(start);
        assert_eq!(gate.state(), &GateState::Open);
        gate.failed(&CallError::Overloaded { reason: "429".to_owned(), retry_after: None }, start);
        assert!(matches!(gate.state(), GateState::HeldBack(reason) if reason.contains("429")));
        assert!(gate.admits(start, 7, 0));
    }

    #[test]
    fn a_refused_credential_stops_and_says_so() {
        let start = Instant::now();
        let mut gate = Gate::new(8);
        gate.failed(&CallError::Unauthorized("401".to_owned()), start);
        assert!(matches!(gate.state(), GateState::Stopped(reason) if reason.contains("credentials")));
        assert!(!gate.admits(start, 0, 0));
        let later = start + STOPPED_RETRY;
        assert!(gate.admits(later, 0, 0) && !gate.admits(later, 1, 0), "one try");
        for limit in [2, 4, 8, 8] {
            gate.succeeded(later);
            assert!(gate.admits(later, limit - 1, 0) && !gate.admits(later, limit, 0), "{limit}");
        }
    }

    #[test]
    fn backoff_doubles_within_its_bounds() {
        let table =
            [(0, 0.0, 50), (0, 1.0, 100), (1, 1.0, 200), (4, 1.0, 1_600), (5, 1.0, 2_000), (99, 0.0, 1_000)];
        for (failures, jitter, expected_ms) in table {
            assert_eq!(backoff(failures, jitter).as_millis(), expected_ms, "{failures} {jitter}");
        }
    }
}
