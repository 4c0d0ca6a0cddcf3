//! The wallet's data folder: who holds it, which format it has, whose wallet it is.
//!
//! `LOCK` is held for the life of the process; `FORMAT` names the format and the identity and is written once.
//! The format is not that of the service's own data folder, so that neither can be opened as the other: two
//! authorities over the same ids would pay twice.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::WalletError;

const FORMAT_LINE: &str = "hongbao wallet folder, format 1";

/// A wallet folder that this process holds.
#[derive(Debug)]
pub struct WalletFolder {
    path: PathBuf,
    /// A UUID made with the folder.
    pub identity: String,
    _lock: File,
}

impl WalletFolder {
    /// Opens or creates the folder and takes its lock.
    pub fn open(path: &Path) -> Result<WalletFolder, WalletError> {
        let shown = path.display().to_string();
        let io = |what: &'static str| {
            let path = shown.clone();
            move |error| WalletError::Folder { path, what, error }
        };
        fs::create_dir_all(path).map_err(io("creating it"))?;
        let format_path = path.join("FORMAT");
        if !format_path.exists() {
            let names = fs::read_dir(path).map_err(io("listing it"))?.filter_map(Result::ok);
            let mut foreign = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
            if let Some(found) = foreign.find(|name| name != "LOCK" && name != "FORMAT.new") {
                return Err(WalletError::Foreign { path: shown, found });
            }
        }
        let lock = lock(path, &shown)?;
        let identity = match fs::read_to_string(&format_path) {
            Ok(text) => identity_of(&text).ok_or_else(|| WalletError::Foreign {
                path: shown.clone(),
                found: text.lines().next().unwrap_or_default().chars().take(60).collect(),
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let identity = uuid::Uuid::new_v4().to_string();
                write_format(path, &identity).map_err(io("writing FORMAT"))?;
                identity
            }
            Err(error) => return Err(io("reading FORMAT")(error)),
        };
        Ok(WalletFolder { path: path.to_owned(), identity, _lock: lock })
    }

    pub fn journal_dir(&self) -> PathBuf {
        self.path.join("journal")
    }
}

fn lock(path: &Path, shown: &str) -> Result<File, WalletError> {
    let io = |error| WalletError::Folder { path: shown.to_owned(), what: "taking LOCK", error };
    let mut options = OpenOptions::new();
    let options = options.create(true).truncate(false).read(true).write(true);
    let mut file = options.open(path.join("LOCK")).map_err(io)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        file.read_to_string(&mut pid).map_err(io)?;
        return Err(WalletError::Held { path: shown.to_owned(), pid: pid.trim().to_owned() });
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
    fn one_holder_one_identity_and_nobody_elses_folder() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("wallet");
        let held = WalletFolder::open(&path).unwrap();
        let second = WalletFolder::open(&path).unwrap_err().to_string();
        assert!(second.contains(&std::process::id().to_string()), "{second}");
        let identity = held.identity.clone();
        drop(held);
        assert_eq!(WalletFolder::open(&path).unwrap().identity, identity);

        for text in ["hongbao data folder, format 1\nidentity x\n", "", "{}"] {
            fs::write(path.join("FORMAT"), text).unwrap();
            assert!(matches!(WalletFolder::open(&path), Err(WalletError::Foreign { .. })), "{text:?}");
        }
        fs::write(temp.path().join("thesis.doc"), "precious").unwrap();
        assert!(matches!(WalletFolder::open(temp.path()), Err(WalletError::Foreign { .. })));
    }
}
