//! The door: routes, validation, problems.
pub mod port;
