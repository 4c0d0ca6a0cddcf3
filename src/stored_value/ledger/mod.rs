//! The embedded double-entry ledger.
pub mod entry;
