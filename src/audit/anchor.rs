//! The anchor: a note of the newest frame, kept outside the folder, so that a history that was rewritten
//! together with all its hashes is still found out.
//!
//! One JSON object: `{"version":1,"offset":…,"sequence":…,"hash":"<64 hex digits>","at":…}`. `offset` is the
//! logical offset at which the frame ends, `sequence` and `hash` are its own, `at` is when it was written
//! (Unix ms). A frame is noted only after it was made durable, and only after an audit without a breach.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::chain::Link;
use super::error::AuditError;

const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    version: u32,
    pub offset: u64,
    pub sequence: u64,
    pub hash: String,
    pub at: u64,
}

impl Anchor {
    /// The anchor of the newest frame before `link`; `None` if there is no frame yet.
    pub fn of(link: &Link) -> Option<Anchor> {
        Some(Anchor {
            version: VERSION,
            offset: link.end,
            sequence: link.sequence.checked_sub(1)?,
            hash: hex(&link.hash),
            at: link.written_at,
        })
    }

    /// Whether the frame that ends here is the one that was noted.
    pub fn is_of(&self, sequence: u64, hash: &[u8; 32]) -> bool {
        self.sequence == sequence && self.hash == hex(hash)
    }

    /// The anchor in a file; `None` if there is no such file yet.
    pub fn read(path: &Path, data_dir: &Path) -> Result<Option<Anchor>, AuditError> {
        refuse_inside(path, data_dir)?;
        let text = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.map_err(AuditError::io("read", path))?,
        };
        let wrong = |reason: String| AuditError::Anchor { path: path.to_owned(), reason };
        let anchor: Anchor = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if anchor.version != VERSION {
            return Err(wrong(format!("version {} is not known to this release", anchor.version)));
        }
        Ok(Some(anchor))
    }

    /// Replaces the file as a whole: after a crash it is the old one or the new one.
    pub fn write(&self, path: &Path) -> Result<(), AuditError> {
        let part = part_of(path);
        let text = serde_json::to_string(self).expect("numbers and a text");
        let mut file = File::create(&part).map_err(AuditError::io("create", &part))?;
        file.write_all(text.as_bytes()).map_err(AuditError::io("write", &part))?;
        file.write_all(b"\n").map_err(AuditError::io("write", &part))?;
        file.sync_all().map_err(AuditError::io("sync", &part))?;
        fs::rename(&part, path).map_err(AuditError::io("put in place", path))?;
        let folder = folder_of(path);
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(AuditError::io("sync", folder))
    }
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Whoever can rewrite the journal could rewrite an anchor beside it.
fn refuse_inside(path: &Path, data_dir: &Path) -> Result<(), AuditError> {
    let folder = folder_of(path);
    let folder = folder.canonicalize().map_err(AuditError::io("find", folder))?;
    let data = data_dir.canonicalize().map_err(AuditError::io("find", data_dir))?;
    if folder.starts_with(data) { Err(AuditError::AnchorInside(path.to_owned())) } else { Ok(()) }
}

fn hex(hash: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}
