//! Shaping: at what pace accepted work goes to the wallet, and what the door may promise.
//!
//! Pure: every function takes `now`. [`pace`] limits transfers a second; [`lease`] shares a fleet's budget out;
//! [`limit`] finds what the wallet can bear where that is less; [`drain`] measures the rate at which work is done, and
//! [`forecast`] says from it when what comes now will be done.

pub mod drain;
pub mod forecast;
pub mod lease;
pub mod limit;
pub mod pace;

pub use drain::DrainRate;
pub use forecast::{Course, Forecast, Others, Promises, Ramp, Seen, Since};
pub use lease::{Amount, Holder, Lease};
pub use limit::{Limit, Measure, Sample};
pub use pace::{Pace, Rate};
