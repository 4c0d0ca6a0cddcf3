//! The outcome log on Redis: a stream for every unit, an entry for every frame of outcomes.
//!
//! [`frame`] is the stored form, [`log`](mod@log) the port's adapter with the scribe's thread behind it, [`streams`]
//! how readers read it, [`trim`] what is given up once they have. What holds: an outcome stands in its unit's stream,
//! and whoever waits is parked, before anybody is told of it; a fact may stand there twice, which changes nothing for
//! whoever applies `domain::transition`.
//!
//! Facts are written without asking who owns the unit: a wallet's decision is true whoever tells it.

mod compact;
pub mod frame;
pub mod hooks;
pub mod log;
mod scribe;
pub mod streams;
pub mod trim;
mod varint;

#[cfg(test)]
mod frame_tests;

pub use frame::{Frame, FrameError, FrameWriter, decode_request, encode_request};
pub use hooks::{Announcer, Barrier, Item, JournalBarrier, NoAnnouncer, NoBarrier, Parker};
pub use log::{LogHealth, LogOptions, LogParts, LogStartError, RedisOutcomeLog};
pub use streams::RedisStreams;
pub use trim::{TrimOptions, Trimmer};
