//! The folder of a run: made when it is needed, emptied of an earlier run, and taken back where nothing came of it.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// A run's own files. An earlier run's must not stand beside them.
const FILES: [&str; 5] = ["result.json", "report.html", "accept.hlog", "settle.hlog", "acks.txt"];

/// Takes back what it made, as far as it is empty, unless it is kept.
pub(super) struct Folder {
    path: PathBuf,
    /// What was not there before, the innermost first.
    made: Vec<PathBuf>,
}

impl Folder {
    pub fn make(path: &Path) -> anyhow::Result<Folder> {
        let missing =
            path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
        let made = missing.map(Path::to_owned).collect();
        let folder = Folder { path: path.to_owned(), made };
        std::fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
        Ok(folder)
    }

    /// Something is in it that somebody wants to see.
    pub fn keep(mut self) {
        self.made.clear();
    }

    /// An earlier run's result is gone, and so is its data, which is not this one's.
    pub fn forget_last(&self) -> anyhow::Result<()> {
        for name in FILES {
            let path = self.path.join(name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error)
                        .with_context(|| format!("removing {}, of an earlier run", path.display()));
                }
                Ok(()) | Err(_) => {}
            }
        }
        remove_data(&self.path);
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // One that holds something is left, and so is what it stands in.
        let _ = self.made.iter().try_for_each(std::fs::remove_dir);
    }
}

/// The servers' data, which a clean check has shown to hold nothing of interest.
pub(super) fn remove_data(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("data-") {
            // What cannot be removed stays, and is seen.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nothing_came_of_is_taken_back() {
        let place = tempfile::tempdir().unwrap();
        let (inner, outer) = (place.path().join("out/run"), place.path().join("out"));
        drop(Folder::make(&inner).unwrap());
        assert!(!outer.exists() && place.path().exists());
        // A log says why it came to nothing.
        let folder = Folder::make(&inner).unwrap();
        std::fs::write(inner.join("wallet.log"), "why").unwrap();
        drop(folder);
        assert!(inner.join("wallet.log").exists());
        // What was there before is nobody's to take.
        std::fs::remove_file(inner.join("wallet.log")).unwrap();
        drop(Folder::make(&inner).unwrap());
        assert!(inner.exists());
        std::fs::remove_dir_all(&outer).unwrap();
        Folder::make(&inner).unwrap().keep();
        assert!(inner.exists());
    }
}
