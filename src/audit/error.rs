//! Why an audit could not be carried out. What an audit *finds* is never an error: see `breach`.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("cannot {what} {path}: {source}", path = path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} holds no journal: no segment file was found", path = .0.display())]
    NoJournal(PathBuf),
    #[error("line {line} of {path} is not `client id amount`: {text:?}", path = path.display())]
    AcksLine { path: PathBuf, line: u64, text: String },
    #[error("the anchor {path} cannot be read: {reason}", path = path.display())]
    Anchor { path: PathBuf, reason: String },
    #[error("the anchor {path} lies in the folder that it should guard; keep it elsewhere", path = .0.display())]
    AnchorInside(PathBuf),
    #[error("the checkpoint {path} cannot be used: {reason}", path = path.display())]
    Checkpoint { path: PathBuf, reason: String },
    #[error("the wallet cannot be compared: {reason}")]
    Wallet { reason: String },
}

impl AuditError {
    /// For `map_err`: names what was tried, and on what.
    pub fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AuditError {
        move |source| AuditError::Io { what, path: path.to_owned(), source }
    }
}
