//! What an error of PostgreSQL says, whoever met it: the wallet's adapter or the outcome view.
//!
//! The text of an error carries the server's code and message and never the URL, which may hold a password.

use tokio_postgres::Error;

/// Code and message, as in `40001 could not serialize access`.
pub fn text(error: &Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} {}", db.code().code(), db.message()),
        None => error.to_string(),
    }
}

/// Rolled back whole, because of somebody else's transaction: the same again may succeed.
pub fn is_to_be_repeated(error: &Error) -> bool {
    // Serialization failure, deadlock, lock timeout; a key, or a table and its type, that two statements made at the
    // same moment.
    let codes = ["40001", "40P01", "55P03", "23505", "42P07", "42710"];
    error.code().is_some_and(|code| codes.contains(&code.code()))
}
