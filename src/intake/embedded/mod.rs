//! The embedded intake.
pub mod entry;
