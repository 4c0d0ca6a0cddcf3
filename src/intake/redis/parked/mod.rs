//! What waits for a time, on Redis: a sorted set for every unit, by when each is due.
//!
//! ```text
//!   scribe ── park, unpark ──> sorted set ── due by the server's clock ──> [loader] ──> [shelf] ──> feed
//!                                  ▲
//!   any instance ── release, pages, counts: [scan]
//! ```
//!
//! [`member`] is the stored form, [`scripts`] the commands, [`yard`] what this process knows of one unit's set, [`shelf`]
//! the port and what the scribe asks. What holds: due ones are read, not popped, and a member is removed only after
//! what follows it (an outcome, or the member that takes its place) is durable; so a crash anywhere leaves one too many,
//! which the wallet recognises, and never one too few. Only the unit's owner adds and removes, under its epoch; a release
//! changes times alone, and anybody may.

pub mod loader;
pub mod member;
pub mod scan;
pub mod scripts;
pub mod shelf;
mod yard;

pub use loader::{Loader, LoaderParts};
pub use member::{Member, MemberFault};
pub use shelf::{Followed, ParkedShelf, ShelfOptions};
