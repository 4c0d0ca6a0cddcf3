//! How a command can fail, by what is known of its execution.

/// Why a command gave no reply of use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The server answered with an error: nothing was executed. `code` is its first word (`OOM`, `WRONGTYPE`,
    /// `READONLY`, or one of our scripts').
    #[error("Redis refused {command}: {code} {detail}")]
    Refused { command: String, code: String, detail: String },
    /// It was not sent: certainly not executed.
    #[error("Redis cannot be reached: {0}")]
    NotSent(String),
    /// It was sent and no reply came: it may have been executed.
    #[error("no reply from Redis: {0}")]
    Unknown(String),
    /// The reply has a shape that this command does not have.
    #[error("Redis answered {command} with something else than {expected}")]
    Strange { command: String, expected: &'static str },
}

impl Failure {
    /// Whether it was refused with this code.
    pub fn is_code(&self, wanted: &str) -> bool {
        matches!(self, Failure::Refused { code, .. } if code == wanted)
    }

    /// Whether the command may have been executed all the same.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Failure::Unknown(_) | Failure::Strange { .. })
    }
}

/// A setting for the link that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Redis URL cannot be used: {0}")]
pub struct LinkError(pub String);
