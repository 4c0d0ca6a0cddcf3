//! Reading and judging a request: from JSON to the stamped, encoded record that the accept side stores.
//!
//! ```text
//! text ─> plain ─> wire ─┐
//!     └─> diagnose ──────┴─> judge ─> stamped record
//! ```
//!
//! Both ways in stand on this: the door's bodies and the elements of lists, so that the same words have the same
//! rules everywhere. What holds here: a text is acceptable to the fast reader exactly when the diagnosing one finds no
//! fault. Absent on purpose: HTTP, and whatever depends on state or order.

pub mod diagnose;
pub mod fault;
pub mod judge;
pub mod plain;
pub mod rfc3339;
pub mod shape;
pub mod wire;

use crate::domain::record;

/// A request that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// An encoded, stamped `domain::Request` without `accepted_at`.
    pub record: Vec<u8>,
    /// Whether the caller chose the lane. If not, the record says `Lane::Realtime` and the campaign's own lane
    /// takes its place.
    pub lane_given: bool,
}

impl Submission {
    /// The record, marked where the caller chose no lane: whoever accepts it gives it its campaign's.
    pub fn into_record(mut self) -> Vec<u8> {
        if !self.lane_given {
            record::leave_lane_open(&mut self.record);
        }
        self.record
    }
}

/// Why a text is not JSON, by line and column.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotJson(pub String);

#[cfg(test)]
#[path = "readers_tests.rs"]
mod tests;
