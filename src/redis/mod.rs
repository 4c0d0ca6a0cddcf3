//! Talking to Redis: commands, scripts, connections. Knows no money and no key of ours.
//!
//! [`Command`] is one command and the key it is routed by; [`Link`] is one connection (or one a node, for a
//! Cluster) that sends a round of commands in one write and answers one result each. What holds: a result says
//! whether the command was executed, was certainly not, or may have been; nothing is ever sent twice that may
//! have been executed, unless the caller does it. Blocking on purpose: each role has a thread of its own, and a
//! round trip is its unit of work.

pub mod command;
pub mod error;
pub mod link;
pub mod reply;

pub use command::{Command, Script};
pub use error::{Failure, LinkError};
pub use link::{Link, Target};
pub use redis::Value;
