//! The stored-value port.
pub mod ledger;
