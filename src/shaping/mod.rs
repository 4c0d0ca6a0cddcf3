//! Shaping: at what pace accepted work goes to the wallet, and what the door may promise.
//!
//! Pure: every function takes `now`. [`pace`] limits transfers a second; [`drain`] measures the rate at which
//! work is done and turns a backlog into a time.

pub mod drain;
pub mod pace;

pub use drain::DrainRate;
pub use pace::Pace;
