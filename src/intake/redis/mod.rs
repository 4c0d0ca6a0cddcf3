//! The Redis intake: the list is the log.
//!
//! Producers append to lists; the one owner of a unit renames a list to a sealed generation, reads ahead in it, and
//! trims it once outcomes are recorded. Nothing is popped, so nothing can be lost between a pop and its effect.
//! A [unit](Unit) is what has an owner: a shard (all its lanes and fair queues), or a foreign list with the lists
//! and streams beside it. What holds: whoever acks names its epoch, and an older epoch acks nothing; every
//! script writes one key with one command; outcome recorded, then parked, then acked, each awaited.

pub mod contents;
pub mod dead;
pub mod element;
pub mod held;
pub mod keys;
pub mod letters;
pub mod parked;
pub mod results;
pub mod units;

pub use held::Held;
pub use keys::Keys;
pub use units::{ForeignList, Order, Unit, UnitId, Units};
