//! The Redis intake: the list is the log.
//!
//! Producers append to lists; the one owner of a unit renames a list to a sealed generation, reads ahead in it, and
//! trims it once outcomes are recorded. Nothing is popped, so nothing can be lost between a pop and its effect.
//! A [unit](Unit) is what has an owner: a shard (all its lanes and fair queues), or a foreign list with the lists
//! and streams beside it. What holds: whoever acks names its epoch, and an older epoch acks nothing; every
//! script writes one key with one command; outcome recorded, then parked, then acked, each awaited.

pub mod anomaly;
pub mod board;
pub mod campaigns;
pub mod contents;
pub mod credit;
pub mod dead;
pub mod door;
pub mod element;
pub mod fleet;
pub mod held;
pub mod identity;
pub mod intake;
pub mod keys;
pub mod lease;
pub mod letters;
pub mod membership;
pub mod owner;
pub mod parked;
pub mod queues;
pub mod reader;
pub mod registry;
pub mod results;
pub mod results_room;
pub mod seal;
pub mod servers;
pub mod share;
pub mod sizes;
pub mod sweep;
pub mod tenure;
pub mod units;
pub mod window;

pub use contents::{Contents, Dead, DeadReason, Decoded, Elements, Graveyard};
pub use held::Held;
pub use intake::RedisIntake;
pub use keys::Keys;
pub use reader::{Anomaly, ReaderOptions, ReaderParts};
pub use units::{ForeignList, Order, Unit, UnitId, Units};
