//! The real service over real Redis servers, and what goes wrong with them: kills and losses of power, instances that
//! die or freeze, networks that swallow replies, files that are torn, memory that runs out, keys that others wrote.
//!
//! However it goes, the audit of the wallet's own folder has the last word: every acknowledged id is there once with
//! its amount, the campaign's account has paid what was acknowledged and no more, the books are balanced, and nothing
//! waits in Redis any more. One test runs at a time. Sizes come from the environment: `HONGBAO_REDIS_COUNT` (10,000 requests),
//! `HONGBAO_REDIS_KILLS` (2), `HONGBAO_REDIS_STOP_S` (2).

#[path = "../support/mod.rs"]
mod support;

mod doors;
mod fleet;
mod lists;
mod load;
mod memory;
mod network;
#[cfg(feature = "failpoints")]
mod poison;
mod redis_down;
mod sets;
mod torn;
mod views;
mod world;
