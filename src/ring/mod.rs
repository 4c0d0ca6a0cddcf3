//! The ring: slots that pass through a chain of stages, each looked at by one stage after the other.
//!
//! `disruptor` carries the slots and the cursors. Ours are: which thread runs which stage ([`threads`]), how
//! an idle thread waits ([`bell`]), and what happens when a stage panics ([`poison`]). Money is not known here.
//!
//! Rules that the crate's source forces on us, kept in this room so that no other need know them:
//! pollers run on our threads, never managed handlers (a panic there freezes the ring); producers only `try_`;
//! dropping a batch marks it consumed whether it was read or not, so poison is set *before* the drop.

pub mod bell;
pub mod chain;
pub mod poison;
pub mod threads;

pub use bell::{Bell, Listener};
pub use chain::{Batch, Chain, Feed, Poller, Stage};
pub use poison::Poison;
