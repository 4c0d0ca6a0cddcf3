//! Configuration: raw file, environment and flags in; one validated, typed [`Config`] out.
//!
//! [`raw`] mirrors `config.toml` setting by setting, [`layers`] puts the sources together (flags over
//! environment over file over defaults) and refuses what it does not know, [`limits`] checks relations and
//! derives what follows, [`redis`] those of the Redis intake, [`breaker`] those of budget and breaker. Nothing here reads the clock or opens a socket.

pub mod breaker;
pub mod layers;
pub mod limits;
pub mod raw;
pub mod redis;

pub use layers::{Sources, load};
pub use limits::Config;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the configuration file {path} cannot be read: {error}")]
    Read { path: String, error: std::io::Error },
    #[error("{from}: {reason}")]
    Syntax { from: String, reason: String },
    #[error("{from}: there is no setting {key:?}{}", nearest.as_ref().map_or(String::new(), |n| format!("; did you mean {n:?}?")))]
    Unknown { from: String, key: String, nearest: Option<String> },
    #[error("setting {key}: {reason}")]
    Invalid { key: &'static str, reason: String },
}
