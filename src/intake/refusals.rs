//! What a door refused: counted by code for metrics, and in the log where good work was turned away for want of time or room.
//!
//! What holds: no lock and no line a request; such a line comes at most once a second for each code, with how many were refused
//! since the last and the words of one of them. Absent: what the callers got wrong, which only they can mend.

use std::sync::atomic::{AtomicU64, Ordering};

use super::desk::Refused;
use crate::domain::{Refusal, UnixMs};
use crate::seldom::Seldom;

#[derive(Debug, Default)]
pub struct Refusals {
    by_code: [AtomicU64; Refusal::ALL.len()],
    late: Seldom,
    full: Seldom,
}

impl Refusals {
    /// So many requests were refused for this reason.
    pub fn note(&self, refused: &Refused, count: u64, now: UnixMs) {
        self.by_code[refused.code as usize].fetch_add(count, Ordering::Relaxed);
        let Refused { code, detail, retry_after_s, .. } = refused;
        match code {
            Refusal::BacklogFull => {
                if let Some(count) = self.full.note(now, count) {
                    tracing::warn!(count, retry_after_s, detail, "refuses requests for want of room (429)");
                }
            }
            Refusal::Expired => {
                if let Some(count) = self.late.note(now, count) {
                    tracing::info!(count, detail, "refuses requests that would be too late (422)");
                }
            }
            _ => {}
        }
    }

    /// By code, those that occurred.
    pub fn read(&self) -> Vec<(&'static str, u64)> {
        let counts = self.by_code.iter().map(|count| count.load(Ordering::Relaxed));
        let named = Refusal::ALL.into_iter().map(Refusal::as_str).zip(counts);
        named.filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_stand_under_their_codes() {
        let refusals = Refusals::default();
        for (code, count) in [
            (Refusal::Expired, 2),
            (Refusal::BacklogFull, 3),
            (Refusal::IdConflict, 1),
            (Refusal::Expired, 5),
        ] {
            refusals.note(&Refused::new(code, "for a reason"), count, 1_000);
        }
        assert_eq!(refusals.read(), [("id_conflict", 1), ("expired", 7), ("backlog_full", 3)]);
    }
}
