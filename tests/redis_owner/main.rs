//! Owning units by leases in a real Redis: fair shares, hand-over, crashes, frozen processes, lost data, and fleets that
//! do not go together.

mod instance;
mod server;
#[path = "../support/mod.rs"]
mod support;

mod command;
mod fleet;
mod refusals;
mod scripts;
mod suspects;
