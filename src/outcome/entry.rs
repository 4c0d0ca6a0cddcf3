//! Where outcomes stand in the journal: frames of one kind, holding outcome entries and nothing else. The
//! entry itself is a word of the domain.

pub use crate::domain::outcome::Outcome;

/// Kind of the journal frames of the outcome log.
pub const FRAME_OUTCOMES: u8 = 18;
