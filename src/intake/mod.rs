//! The intake port.
pub mod embedded;
