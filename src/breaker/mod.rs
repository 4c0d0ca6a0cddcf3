//! The breaker: whether the wallet is called at all, by one instance and by a fleet of them.
//!
//! ```text
//!  calls' outcomes ─> classify ─> vote (this instance) ──┐ report      ┌─> orders: lease, permit, what all see
//!                                                        ▼             │
//!  a batch asks ───> gate <──────────────────────────  beat ──> board (table: here, or in Redis)
//!                     │ lease ∧ adaptive limit           │             ▲
//!                     └ permits, epochs                  └─> policy ───┘ compare-and-set of the fleet's state
//! ```
//!
//! What holds: everything that decides is pure and takes `now`; a fleet of processes and the fleet in virtual time
//! (`sim`) run the same code. An open breaker rejects and parks nothing: it stops the feeder. Where the board
//! cannot be reached the instance goes on with less, never with more. [`keeper`] is the one part with a connection
//! and a log.

pub mod board;
pub mod classify;
pub mod gate;
pub mod keeper;
pub mod local;
pub mod policy;
pub mod redis;
pub mod settings;
pub mod table;
pub mod vote;

pub use self::redis::RedisBoard;
pub use board::{Board, BoardError};
pub use gate::{Governor, Held, Ticket};
pub use keeper::Keeper;
pub use local::LocalBoard;
pub use policy::{Phase, State};
pub use settings::Settings;

#[cfg(test)]
mod sim;
