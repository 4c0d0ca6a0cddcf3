//! What settlement at a wallet elsewhere tells metrics and vitals.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::gate::GateState;
use crate::stored_value::remote::CallError;

/// Why calls failed, as they stand in metrics.
pub const FAILURE_KINDS: [&str; 6] =
    ["timed_out", "unknown", "overloaded", "unauthorized", "too_large", "rejected"];

pub struct RemoteCounts {
    pub calls: AtomicU64,
    /// Entries sent, repeats included.
    pub entries: AtomicU64,
    pub failures: [AtomicU64; FAILURE_KINDS.len()],
    pub under_way: AtomicU64,
    state: Mutex<GateState>,
}

impl Default for RemoteCounts {
    fn default() -> RemoteCounts {
        RemoteCounts {
            calls: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            failures: Default::default(),
            under_way: AtomicU64::new(0),
            state: Mutex::new(GateState::Open),
        }
    }
}

impl RemoteCounts {
    pub fn note_call(&self, entries: usize) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.entries.fetch_add(entries as u64, Ordering::Relaxed);
    }

    pub fn note_reply(&self, reply: &Result<Vec<crate::stored_value::remote::Answer>, CallError>) {
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
