//! Shaping: at what pace accepted work goes to the wallet, and what the door may promise.
//!
//! Pure: every function takes `now`. [`pace`] limits transfers a second; [`lease`] shares a fleet's budget out;
//! [`limit`] finds what the wallet can bear where that is less; [`drain`] measures the rate at which work is done
//! and turns a backlog into a time.

pub mod drain;
pub mod lease;
pub mod limit;
pub mod pace;

pub use drain::DrainRate;
pub use lease::{Amount, Holder, Lease};
pub use limit::{Limit, Measure, Sample};
pub use pace::{Pace, Rate};
