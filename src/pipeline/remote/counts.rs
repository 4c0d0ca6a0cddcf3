//! What settlement at a wallet elsewhere tells metrics and vitals.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::gate::GateState;
use crate::domain::UnixMs;
use crate::seldom::Seldom;
use crate::stored_value::remote::{Answer, CallError};

/// Why calls failed, as they stand in metrics.
pub const FAILURE_KINDS: [&str; 6] =
    ["timed_out", "unknown", "overloaded", "unauthorized", "too_large", "rejected"];

pub struct RemoteCounts {
    pub calls: AtomicU64,
    /// Entries sent, repeats included.
    pub entries: AtomicU64,
    pub failures: [AtomicU64; FAILURE_KINDS.len()],
    /// Calls that the wallet answered with `Retry-After`: what was in them waits for so long.
    pub told_to_wait: AtomicU64,
    pub under_way: AtomicU64,
    wait_lines: Seldom,
    state: Mutex<GateState>,
}

impl Default for RemoteCounts {
    fn default() -> RemoteCounts {
        RemoteCounts {
            calls: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            failures: Default::default(),
            told_to_wait: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            wait_lines: Seldom::default(),
            state: Mutex::new(GateState::Open),
        }
    }
}

impl RemoteCounts {
    pub fn note_call(&self, entries: usize) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.entries.fetch_add(entries as u64, Ordering::Relaxed);
    }

    pub fn note_reply(&self, reply: &Result<Vec<Answer>, CallError>, now: UnixMs) {
        let kind = match reply {
            Ok(_) => return,
            Err(CallError::TimedOut { .. }) => 0,
            Err(CallError::Unknown(_)) => 1,
            Err(CallError::Overloaded { .. }) => 2,
            Err(CallError::Unauthorized(_)) => 3,
            Err(CallError::TooLarge(_)) => 4,
            Err(CallError::Rejected(_)) => 5,
        };
        self.failures[kind].fetch_add(1, Ordering::Relaxed);
        if let Err(CallError::Overloaded { reason, retry_after: Some(wait) }) = reply {
            self.told_to_wait.fetch_add(1, Ordering::Relaxed);
            if let Some(calls) = self.wait_lines.note(now, 1) {
                let wait_ms = wait.as_millis() as u64;
                tracing::info!(calls, wait_ms, reason, "what the wallet refused waits as long as it says");
            }
        }
    }

    pub fn note_state(&self, under_way: usize, state: &GateState) {
        self.under_way.store(under_way as u64, Ordering::Relaxed);
        let mut held = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *held != *state {
            held.clone_from(state);
        }
    }

    pub fn state(&self) -> GateState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
