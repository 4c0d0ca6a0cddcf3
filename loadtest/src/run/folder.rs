//! The folder of a run: made when it is needed, and taken back where nothing came of it.
//!
//! ```text
//! make: an earlier run's files ─> earlier-run/   ─┬─ a result: earlier-run/ is removed
//!                                                 ├─ no result, and no load: they come back
//!                                                 └─ no result, but a load: both stay
//! ```
//!
//! What holds: until there is a new result the earlier one is there, under its own name or in `earlier-run/`, whatever
//! ends the run; a later run finds it in either place. Logs are appended to and stay. Absent: judging what is in a result.

use std::path::{Path, PathBuf};

use anyhow::Context;

const RESULT: &str = "result.json";
/// A run's own files, the one that says that the others are whole last. An earlier run's must not stand beside them.
const FILES: [&str; 5] = ["report.html", "accept.hlog", "settle.hlog", "acks.txt", RESULT];
/// Where an earlier run's files wait for a new result.
const EARLIER: &str = "earlier-run";

/// Takes back what it made, as far as it is empty, unless it is kept.
pub(super) struct Folder {
    path: PathBuf,
    /// What was not there before, the innermost first.
    made: Vec<PathBuf>,
}

impl Folder {
    /// Makes it where it is not, and sets aside what an earlier run left in it.
    pub fn make(path: &Path) -> anyhow::Result<Folder> {
        let missing =
            path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
        let made = missing.map(Path::to_owned).collect();
        let folder = Folder { path: path.to_owned(), made };
        std::fs::create_dir_all(path)
            .with_context(|| format!("making {}, the folder of the run", path.display()))?;
        folder.set_aside()?;
        Ok(folder)
    }

    fn earlier(&self) -> PathBuf {
        self.path.join(EARLIER)
    }

    fn set_aside(&self) -> anyhow::Result<()> {
        let (own, earlier) = (own_in(&self.path), self.earlier());
        if own.is_empty() {
            return Ok(());
        }
        let setting_aside = || format!("setting aside what an earlier run left in {}", self.path.display());
        if earlier.join(RESULT).exists() {
            if !self.path.join(RESULT).exists() {
                // What came to nothing since is no reason to give up what did come to a result.
                return own.iter().try_for_each(|path| removed(path)).with_context(setting_aside);
            }
            removed(&earlier).with_context(setting_aside)?;
        }
        std::fs::create_dir_all(&earlier).with_context(setting_aside)?;
        own.iter().try_for_each(|path| moved(path, &earlier)).with_context(setting_aside)
    }

    /// There is a new result in it.
    pub fn keep(mut self) -> anyhow::Result<()> {
        self.made.clear();
        let earlier = self.earlier();
        if !earlier.exists() {
            return Ok(());
        }
        removed(&earlier).with_context(|| format!("removing {}, of an earlier run", earlier.display()))
    }

    /// There is no new result. What the run left stays only if it was loaded; words for where an earlier result is now.
    pub fn give_up(self) -> Option<String> {
        let (place, earlier) = (self.path.display(), self.earlier());
        if FILES.iter().any(|name| self.path.join(name).exists()) {
            return earlier.exists().then(|| {
                format!(
                    "what this run left is in {place}, and the earlier run's files are in {}",
                    earlier.display()
                )
            });
        }
        // What is left of servers that never had a load is nothing to look at.
        remove_data(&self.path);
        if !earlier.exists() {
            return None;
        }
        let back = own_in(&earlier).iter().try_for_each(|path| moved(path, &self.path));
        Some(match back.and_then(|()| std::fs::remove_dir(&earlier)) {
            Ok(()) => format!("the earlier run's files in {place} are as they were"),
            Err(error) => {
                let earlier = earlier.display();
                format!("the earlier run's files are in {earlier} and could not be put back: {error}")
            }
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // One that holds something is left, and so is what it stands in.
        let _ = self.made.iter().try_for_each(std::fs::remove_dir);
    }
}

/// What runs wrote to a folder, servers' data first, the result last.
fn own_in(folder: &Path) -> Vec<PathBuf> {
    let files = FILES.iter().map(|name| folder.join(name)).filter(|path| path.exists());
    data_in(folder).chain(files).collect()
}

fn data_in(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let data = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("data-"));
    data.map(|entry| entry.path()).filter(|path| path.is_dir())
}

fn moved(path: &Path, into: &Path) -> std::io::Result<()> {
    path.file_name().map_or(Ok(()), |name| std::fs::rename(path, into.join(name)))
}

fn removed(path: &Path) -> std::io::Result<()> {
    if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
}

/// Whether a run left files or data there.
pub fn is_used(folder: &Path) -> bool {
    !own_in(folder).is_empty()
}

/// Removes an earlier run's files and data.
pub fn clear(folder: &Path) -> std::io::Result<()> {
    own_in(folder).iter().try_for_each(|path| removed(path))
}

/// The servers' data, which a clean check has shown to hold nothing of interest.
pub(super) fn remove_data(folder: &Path) {
    for path in data_in(folder) {
        // What cannot be removed stays, and is seen.
        let _ = std::fs::remove_dir_all(path);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_nothing_came_of_is_taken_back() {
        let place = tempfile::tempdir().unwrap();
        let (inner, outer) = (place.path().join("out/run"), place.path().join("out"));
        drop(Folder::make(&inner).unwrap());
        assert!(!outer.exists() && place.path().exists());
        // A log says why it came to nothing.
        let folder = Folder::make(&inner).unwrap();
        fs::write(inner.join("wallet.log"), "why").unwrap();
        drop(folder);
        assert!(inner.join("wallet.log").exists());
        // What was there before is nobody's to take.
        fs::remove_file(inner.join("wallet.log")).unwrap();
        drop(Folder::make(&inner).unwrap());
        assert!(inner.exists());
        fs::remove_dir_all(&outer).unwrap();
        Folder::make(&inner).unwrap().keep().unwrap();
        assert!(inner.exists());
    }

    /// What is in the folder, and below it, as `path=content`.
    fn content(folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if entry.path().is_dir() {
                found.extend(content(&entry.path()).iter().map(|below| format!("{name}/{below}")));
            } else {
                found.push(format!("{name}={}", fs::read_to_string(entry.path()).unwrap()));
            }
        }
        found.sort();
        found
    }

    fn write(folder: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn an_earlier_result_is_there_until_there_is_a_new_one() {
        type Files = &'static [(&'static str, &'static str)];
        let earlier: Files =
            &[("result.json", "1"), ("acks.txt", "1"), ("data-0/log", "1"), ("mine.txt", "me")];
        let aside = ["earlier-run/acks.txt=1", "earlier-run/data-0/log=1", "earlier-run/result.json=1"];
        // What there was, what the run wrote, whether it has a result: what there is then.
        let table: [(Files, Files, bool, &[&str]); 7] = [
            (
                earlier,
                &[("data-0/log", "2")],
                false,
                &["acks.txt=1", "data-0/log=1", "mine.txt=me", "result.json=1"],
            ),
            (earlier, &[("acks.txt", "2")], false, &[&["acks.txt=2"], &aside[..], &["mine.txt=me"]].concat()),
            (earlier, &[("result.json", "2")], true, &["mine.txt=me", "result.json=2"]),
            (&[], &[("data-0/log", "2"), ("wallet.log", "2")], false, &["wallet.log=2"]),
            (&[], &[("data-0/log", "2"), ("acks.txt", "2")], false, &["acks.txt=2", "data-0/log=2"]),
            // A run was killed: what it left is less than the result before it.
            (&[("earlier-run/result.json", "0"), ("acks.txt", "1")], &[], false, &["result.json=0"]),
            // Killed when it had a result already.
            (&[("earlier-run/result.json", "0"), ("result.json", "1")], &[], false, &["result.json=1"]),
        ];
        for (before, written, has_result, after) in table {
            let place = tempfile::tempdir().unwrap();
            write(place.path(), before);
            let folder = Folder::make(place.path()).unwrap();
            write(place.path(), written);
            if has_result {
                folder.keep().unwrap();
            } else {
                folder.give_up();
            }
            assert_eq!(content(place.path()), after, "{before:?} {written:?} {has_result}");
        }
    }
}
