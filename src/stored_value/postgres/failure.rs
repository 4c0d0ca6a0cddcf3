//! What an error of the database means for the transfers that were sent: not executed for certain, or unknown.
//!
//! An error that the server reports for a statement has rolled that statement back, and a failed transaction with
//! it; only such errors may be answered by sending again on our own. A connection that breaks says nothing. The
//! text of an error carries the server's code and message and never the URL, which may hold a password.

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::postgres;
use crate::stored_value::remote::CallError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Rolled back whole, because of somebody else's transaction: the same again may succeed.
    Again(String),
    /// Rolled back whole: a balance does not bear it, or a sum is too large. To be decided entry by entry.
    Unfit(String),
    Call(CallError),
}

impl Failure {
    pub fn unknown(what: impl Into<String>) -> Failure {
        Failure::Call(CallError::Unknown(what.into()))
    }

    /// What the caller is told once nothing more is tried.
    pub fn into_call(self) -> CallError {
        match self {
            Failure::Call(error) => error,
            Failure::Again(reason) => {
                CallError::Unknown(format!("the database rolled every attempt back: {reason}"))
            }
            Failure::Unfit(reason) => CallError::Unknown(format!(
                "the database refuses what was decided under its own locks: {reason}"
            )),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let reason = postgres::text(&error);
        if postgres::is_to_be_repeated(&error) {
            return Failure::Again(reason);
        }
        let Some(code) = error.code() else {
            return Failure::unknown(format!("the connection to the database broke: {reason}"));
        };
        let rejected = |advice: &str| Failure::Call(CallError::Rejected(format!("{reason}: {advice}")));
        match code.code() {
            // A CHECK that does not hold, a number out of range.
            "23514" | "22003" => Failure::Unfit(reason),
            // The statement timeout that was set from the deadline.
            "57014" => {
                Failure::unknown(format!("the database gave the statement up at the deadline: {reason}"))
            }
            "42P01" | "42703" | "3F000" => {
                rejected("the wallet's schema is not there; run `hongbao migrate`")
            }
            "3D000" => rejected("the database does not exist; create it, then run `hongbao migrate`"),
            "42501" => Failure::Call(CallError::Unauthorized(reason)),
            "25006" => Failure::unknown(format!("{reason}: this is a standby, or a failover is under way")),
            "40003" | "08007" => Failure::unknown(format!("the commit's result is not known: {reason}")),
            // Classes: 28 authorisation, 53 resources (connections, memory, disk), 54 limits of a statement.
            other => match &other[..2.min(other.len())] {
                "28" => Failure::Call(CallError::Unauthorized(reason)),
                "53" => Failure::Call(CallError::Overloaded { reason, retry_after: None }),
                "54" => Failure::Call(CallError::TooLarge(reason)),
                _ => Failure::unknown(reason),
            },
        }
    }
}

/// Whether the schema is not there at all.
pub fn is_missing_table(error: &Error) -> bool {
    error.code() == Some(&SqlState::UNDEFINED_TABLE)
}
