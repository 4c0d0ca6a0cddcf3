//! Where Redis is, by which certificates it is believed, and how long to wait for it.

use std::fmt;
use std::time::Duration;

use super::url;

#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// As `url.rs` lists them: `redis://`, `redis+unix://`, `redis+sentinel://`, `redis+cluster://`, and `rediss`.
    pub url: String,
    /// PEM file of the only authority that is trusted; empty: the system's. For `rediss` only.
    pub ca_file: String,
    /// For all that a connection needs: name, TCP, TLS, login, Sentinel's answer.
    pub connect_timeout: Duration,
    /// For a round: from its first byte written to its last reply.
    pub response_timeout: Duration,
}

impl Target {
    pub fn new(url: impl Into<String>) -> Target {
        Target { url: url.into(), ..Target::default() }
    }

    /// The URL as it may be told: without user and password.
    pub fn shown(&self) -> String {
        url::shown(&self.url)
    }
}

impl Default for Target {
    fn default() -> Target {
        Target {
            url: "redis://127.0.0.1:6379".to_owned(),
            ca_file: String::new(),
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(2),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("url", &self.shown())
            .field("ca_file", &self.ca_file)
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .finish()
    }
}
