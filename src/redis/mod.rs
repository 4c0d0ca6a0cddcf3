//! Talking to Redis: commands, scripts, connections, and what a server promises. Knows no money and no key of ours.
//!
//! [`Command`] is one command and the key it is routed by; [`Link`] is one connection (or one a node, for a
//! Cluster) that sends a round of commands in one write and answers one result each. What holds: a result says
//! whether the command was executed, was certainly not, or may have been; nothing is ever sent twice that may
//! have been executed, unless the caller does it. Blocking on purpose: each role has a thread of its own, and a
//! round trip is its unit of work.
//!
//! ```text
//! target, url ─> link ─> node | sentinel | cluster (again, slots, backoff) ─> wire (inbox) ─> socket (tls)
//!                 └─> server: facts ─> durability, findings ─> watch: what may be stated, what is to be done
//! ```

mod again;
mod backoff;
mod cluster;
pub mod command;
pub mod durability;
pub mod error;
mod inbox;
pub mod link;
mod node;
pub mod reply;
mod sentinel;
pub mod server;
mod slots;
mod socket;
mod target;
mod tls;
mod url;
pub mod watch;
mod wire;

pub use command::{Command, Script};
pub use durability::{Durability, Finding, Severity};
pub use error::{Failure, LinkError};
pub use link::{Link, Results, Shape, Target};
pub use redis::Value;
pub use server::{ServerFacts, Servers};
pub use slots::slot_of;
pub use watch::{Outlook, Watch, Wish};
