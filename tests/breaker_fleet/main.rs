//! The budget and the breaker of a fleet of real processes: three instances, one Redis, the reference wallet, and what
//! was counted at the wallet.
//!
//! Never more than the budget, whoever joins, leaves, freezes or dies; all stop when the wallet is ill, and come back
//! gently; who is alone in its trouble stops alone; the board cut off costs throughput and nothing else; an operator's
//! word holds. One test runs at a time. Figures come from the environment: `HONGBAO_FLEET_RATE` (transfers a second, 1,000),
//! `HONGBAO_FLEET_FACTOR` (what is offered, of that: 3), `HONGBAO_FLEET_S` (seconds of load, 5),
//! `HONGBAO_FLEET_TRIALS` (outages, 1). The asked ones are 60 seconds at a factor of 10, and 20 outages. From 10 seconds on
//! the bounds are the ones that were asked for, and a hidden capacity also rises again; below, those that a busy machine keeps.

#[path = "../redis_path/load.rs"]
#[allow(dead_code, reason = "the producers of another test")]
mod load;
#[path = "../support/mod.rs"]
mod support;

mod board;
mod budget;
mod capacity;
mod fairness;
mod fleet;
mod outage;
mod received;

mod world {
    //! What the producers take from the other test's world.

    /// What an id is paid.
    pub fn amount(n: u64) -> u64 {
        1 + n % 100
    }
}
