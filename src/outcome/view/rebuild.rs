//! Reads the log again into a new file beside the old one, and puts it in the old one's place: the whole journal into an
//! empty file, or what streams still hold over a copy of the old one, which alone knows what they gave up.
//!
//! Until the last step the old view is untouched. The last step removes the old file before its write-ahead
//! log, and both before the new one takes the name, so that a log never meets a file it does not belong to; a
//! crash in between leaves no view at all, which the next start makes and reads anew.
//!
//! The caller sees to it that nobody has the view open (the service holds its data folder's lock).

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{FromStreams, Progress, View, ViewError, schema};
use crate::outcome::FactSource;
use crate::outcome::following::Following;
use crate::outcome::stream::StreamSource;

const FACTS_PER_CHUNK: usize = 50_000;

/// Rebuilds the view at `path` from all that `source` has; `progress` is told after every chunk. Cursors that
/// the old view gave out stay valid.
pub fn rebuild(
    path: &Path,
    source: &dyn FactSource,
    progress: &mut dyn FnMut(Progress),
) -> Result<Progress, ViewError> {
    let fresh = beside(path, ".rebuild");
    remove_all(&fresh)?;
    let mut view = View::open(&fresh)?;
    if let Some(secret) = old_secret(path) {
        view.keep_secret(secret)?;
    }
    // Not worth a sync before the end: a crash until then throws the new file away.
    view.with_writer(|conn| conn.pragma_update(None, "synchronous", "OFF"))?;
    while view.apply(source, FACTS_PER_CHUNK)?.advanced {
        progress(view.progress());
    }
    replace(path, view)
}

/// Reads all that `streams` still hold again, over what the view at `path` has: a fact that comes twice changes
/// nothing. Refuses a path without a view, whose outcomes could not be had again.
pub fn rebuild_over(
    path: &Path,
    streams: Arc<dyn StreamSource>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Progress, ViewError> {
    let old = schema::open_reader(path)?;
    let fresh = beside(path, ".rebuild");
    remove_all(&fresh)?;
    old.execute("VACUUM INTO ?1", [fresh.to_string_lossy()])?;
    drop(old);
    let view = View::open(&fresh)?;
    let before = view.progress().facts;
    view.with_writer(|conn| {
        conn.pragma_update(None, "synchronous", "OFF")?;
        conn.execute("DELETE FROM streams", [])
    })?;
    let mut following = Following::new(streams);
    while view.apply_streams(&mut following, FACTS_PER_CHUNK)?.advanced {
        progress(read_since(before, view.progress()));
    }
    Ok(read_since(before, replace(path, view)?))
}

fn read_since(before: u64, progress: Progress) -> Progress {
    Progress { facts: progress.facts - before, ..progress }
}

/// Puts a finished view in the place of the one at `path`.
fn replace(path: &Path, view: View) -> Result<Progress, ViewError> {
    let (done, fresh) = (view.progress(), view.path().to_owned());
    view.with_writer(|conn| conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))?;
    drop(view);
    sync(&fresh)?;
    remove_all(path)?;
    fs::rename(&fresh, path).map_err(|source| io("renaming", &fresh, source))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    sync(folder)?;
    Ok(done)
}

fn old_secret(path: &Path) -> Option<[u8; 32]> {
    let conn = schema::open_reader(path).ok()?;
    conn.query_row("SELECT secret FROM progress", [], |row| row.get(0)).ok()
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}

/// Removes a store and what stands beside it, the store first.
fn remove_all(path: &Path) -> Result<(), ViewError> {
    for ending in ["", "-wal", "-shm"] {
        let path = beside(path, ending);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io("removing", &path, error)),
        }
    }
    Ok(())
}

fn sync(path: &Path) -> Result<(), ViewError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|source| io("syncing", path, source))
}

fn io(doing: &'static str, path: &Path, source: std::io::Error) -> ViewError {
    ViewError::Io { doing, path: path.to_owned(), source }
}
