//! Shaping: at what pace accepted work goes to the wallet, and what the door may promise.
//!
//! Pure: every function takes `now`. [`pace`] limits transfers a second; [`lease`] shares a fleet's budget out;
//! [`limit`] finds what the wallet can bear where that is less; [`drain`] measures the rate at which work is done, [`slump`] tells
//! a fall of it from what is usual, and [`forecast`] says from them and from the [`line`] when what comes now will be done.

pub mod drain;
pub mod forecast;
pub mod lease;
pub mod limit;
pub mod line;
pub mod pace;
pub mod slump;

pub use drain::DrainRate;
pub use forecast::{Course, Forecast, Others, Promises, Ramp, Seen, Since};
pub use lease::{Amount, Holder, Lease};
pub use limit::{Limit, Measure, Moves, Sample};
pub use pace::{Pace, Rate};
