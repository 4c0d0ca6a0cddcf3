//! The data folder: who holds it, which format it has, whose wallet it is.
//!
//! `LOCK` is held for the life of the process (a second one is refused with the holder's pid); `FORMAT` names
//! the format and the wallet's identity and is written once. A folder with files but no `FORMAT` is somebody
//! else's, and is refused.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

const FORMAT_LINE: &str = "hongbao data folder, format 1";

#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("the data folder {path} cannot be used ({what}): {error}; check its permissions and free space")]
    Io { path: String, what: &'static str, error: std::io::Error },
    #[error("the data folder {path} is in use by process {pid}; stop it, or use another data.dir")]
    Held { path: String, pid: String },
    #[error("{path} holds files that are not hongbao's ({found}); use an empty folder as data.dir")]
    Foreign { path: String, found: String },
    #[error("{path} has {found:?}; this release reads {FORMAT_LINE:?}")]
    Format { path: String, found: String },
}

/// A data folder that this process holds.
pub struct DataFolder {
    pub path: PathBuf,
    /// Identity of the wallet whose books these are.
    pub identity: String,
    _lock: File,
}

impl DataFolder {
    /// Opens or creates the folder and takes its lock.
    pub fn open(path: &Path) -> Result<DataFolder, FolderError> {
        let shown = path.display().to_string();
        let io = |what: &'static str| {
            let path = shown.clone();
            move |error| FolderError::Io { path, what, error }
        };
        fs::create_dir_all(path).map_err(io("creating it"))?;
        let format_path = path.join("FORMAT");
        if !format_path.exists() {
            let names = fs::read_dir(path).map_err(io("listing it"))?.filter_map(Result::ok);
            let foreign = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
            let found: Vec<String> =
                foreign.filter(|name| name != "LOCK" && name != "FORMAT.new").take(3).collect();
            if !found.is_empty() {
                return Err(FolderError::Foreign { path: shown, found: found.join(", ") });
            }
        }
        let lock = lock(path, &shown)?;
        let identity = match fs::read_to_string(&format_path) {
            Ok(text) => identity_of(&text).ok_or_else(|| FolderError::Format {
                path: shown.clone(),
                found: text.lines().next().unwrap_or_default().chars().take(60).collect(),
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let identity = uuid::Uuid::new_v4().to_string();
                write_format(path, &identity).map_err(io("writing FORMAT"))?;
                identity
            }
            Err(error) => return Err(io("reading FORMAT")(error)),
        };
        Ok(DataFolder { path: path.to_owned(), identity, _lock: lock })
    }

    pub fn journal_dir(&self) -> PathBuf {
        self.path.join("journal")
    }

    pub fn view_path(&self) -> PathBuf {
        self.path.join("view.sqlite")
    }
}

fn lock(path: &Path, shown: &str) -> Result<File, FolderError> {
    let io = |error| FolderError::Io { path: shown.to_owned(), what: "taking LOCK", error };
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path.join("LOCK"))
        .map_err(io)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        file.read_to_string(&mut pid).map_err(io)?;
        return Err(FolderError::Held { path: shown.to_owned(), pid: pid.trim().to_owned() });
    }
    file.set_len(0).map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(file)
}

fn identity_of(text: &str) -> Option<String> {
    let mut lines = text.lines();
    (lines.next() == Some(FORMAT_LINE)).then_some(())?;
    let identity = lines.next()?.strip_prefix("identity ")?;
    uuid::Uuid::parse_str(identity).ok().map(|identity| identity.to_string())
}

fn write_format(path: &Path, identity: &str) -> std::io::Result<()> {
    let fresh = path.join("FORMAT.new");
    let mut file = File::create(&fresh)?;
    writeln!(file, "{FORMAT_LINE}\nidentity {identity}")?;
    file.sync_all()?;
    fs::rename(&fresh, path.join("FORMAT"))?;
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_and_one_identity() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("data");
        let held = DataFolder::open(&path).unwrap();
        let second = DataFolder::open(&path).map(|_| ()).unwrap_err().to_string();
        assert!(second.contains(&std::process::id().to_string()), "{second}");
        let identity = held.identity.clone();
        drop(held);
        assert_eq!(DataFolder::open(&path).unwrap().identity, identity);
    }

    #[test]
    fn what_is_not_ours_is_refused_and_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("thesis.doc"), "precious").unwrap();
        let refused = DataFolder::open(temp.path()).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("thesis.doc"), "{refused}");
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "nothing was added");
        for text in ["hongbao data folder, format 9\nidentity x\n", "", "{}"] {
            fs::write(temp.path().join("FORMAT"), text).unwrap();
            let refused = DataFolder::open(temp.path()).map(|_| ()).unwrap_err();
            assert!(matches!(refused, FolderError::Format { .. }), "{text:?}: {refused}");
        }
    }
}
