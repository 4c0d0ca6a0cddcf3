//! A server's append-only file: what is in it, and what a loss of power would leave of it.
//!
//! Redis 7 keeps a folder: a manifest, a base and increments. Commands go to the last increment; a rewrite
//! (BGREWRITEAOF) begins a new one. A kill leaves what the kernel was given; a loss of power leaves less, and a
//! test machine's power stays on, so the files are cut as one could have left them:
//!
//! - `Always`: the server syncs before it replies, so whatever was replied to stays, and nothing is cut. What it can
//!   lose is the last write, which nobody had a reply to; `append_to_aof` makes the torn remains of one.
//! - `EverySecond`: a sync begins a second after the last one began, so what was written longer ago than
//!   [`SYNC_WINDOW`] is taken for synced, and what is younger for lost, from the size that the file had then on. That
//!   is the worst that Redis promises while its disk keeps up, not what one particular loss would take: the last
//!   sync may have been a moment before the kill. `cut_aof_at_random` takes any part of the same, in the
//!   middle of a command too.
//!
//! Always a prefix stays. Not imitated: blocks that reach the disk out of order, a manifest or a file that was made but
//! whose folder was not synced, and a disk so slow that a sync takes long.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::super::{Dice, PATIENCE, await_until};
use super::{Fsync, RedisServer};

/// What is older was synced, under `EverySecond`: a second, and a tenth for Redis to notice that it is over.
pub const SYNC_WINDOW: Duration = Duration::from_millis(1_100);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long sizes are remembered.
const MEMORY: Duration = Duration::from_secs(5);

/// What a cut took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub bytes_left: u64,
    pub bytes_lost: u64,
}

/// One command in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Where it begins, and where the next one does.
    pub begin: u64,
    pub end: u64,
    pub args: Vec<Vec<u8>>,
}

impl Logged {
    /// Its name in capitals.
    pub fn name(&self) -> String {
        String::from_utf8_lossy(&self.args[0]).to_ascii_uppercase()
    }
}

/// The whole commands in an increment, up to its end or to where it is torn.
pub fn logged(bytes: &[u8]) -> Vec<Logged> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((args, end)) = one_logged(bytes, at) {
        if let Some(args) = args {
            found.push(Logged { begin: at as u64, end: end as u64, args });
        }
        at = end;
    }
    found
}

/// The command or annotation that begins here, and where it ends.
#[expect(clippy::type_complexity, reason = "an annotation is no command, and a torn one is neither")]
fn one_logged(bytes: &[u8], at: usize) -> Option<(Option<Vec<Vec<u8>>>, usize)> {
    let line = |from: usize| {
        let length = bytes.get(from..)?.iter().position(|byte| *byte == b'\n')?;
        let text = std::str::from_utf8(&bytes[from..from + length]).ok()?;
        Some((text.trim_end_matches('\r'), from + length + 1))
    };
    let (first, mut next) = line(at)?;
    if first.starts_with('#') {
        return Some((None, next));
    }
    let count: usize = first.strip_prefix('*')?.parse().ok()?;
    let mut args = Vec::new();
    for _ in 0..count {
        let (head, begin) = line(next)?;
        let length: usize = head.strip_prefix('$')?.parse().ok()?;
        args.push(bytes.get(begin..begin + length)?.to_vec());
        next = begin + length + 2;
        if next > bytes.len() {
            return None;
        }
    }
    (!args.is_empty()).then_some((Some(args), next))
}

/// The files that the manifest names, with their type: `b`ase, `i`ncrement, `h`istory.
fn manifest(folder: &Path) -> Vec<(PathBuf, char)> {
    let text = std::fs::read_to_string(folder.join("appendonly.aof.manifest")).unwrap_or_default();
    let entry = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let after = |key: &str| words.iter().position(|word| *word == key).and_then(|at| words.get(at + 1));
        Some((folder.join(after("file")?), after("type")?.chars().next()?))
    };
    text.lines().filter_map(entry).collect()
}

fn increments(folder: &Path) -> Vec<PathBuf> {
    manifest(folder).into_iter().filter(|(_, kind)| *kind == 'i').map(|(path, _)| path).collect()
}

fn sizes(folder: &Path) -> Vec<(PathBuf, u64)> {
    let sized = |path: PathBuf| {
        let bytes = size(&path);
        (path, bytes)
    };
    increments(folder).into_iter().map(sized).collect()
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

impl RedisServer {
    pub(super) fn aof_folder(&self) -> PathBuf {
        self.folder().join("appendonlydir")
    }

    /// Every file that the manifest names, in its order.
    pub fn aof_files(&self) -> Vec<PathBuf> {
        manifest(&self.aof_folder()).into_iter().map(|(path, _)| path).collect()
    }

    /// The increment that commands go to.
    pub fn aof_incr_path(&self) -> PathBuf {
        increments(&self.aof_folder()).pop().expect("an increment in the manifest")
    }

    /// The commands of the last increment.
    pub fn aof_commands(&self) -> Vec<Logged> {
        logged(&std::fs::read(self.aof_incr_path()).expect("the increment"))
    }

    /// Whether a transaction was ever written to the last increment.
    pub fn has_multi_in_aof(&self) -> bool {
        self.aof_commands().iter().any(|command| command.name() == "MULTI")
    }

    /// Leaves this many bytes of the last increment. The server must be dead.
    pub fn cut_aof_to(&self, bytes: u64) -> Cut {
        self.cut(&self.aof_incr_path(), bytes)
    }

    fn cut(&self, path: &Path, bytes: u64) -> Cut {
        assert!(!self.is_running(), "a server that runs would write on behind the cut");
        let before = size(path);
        assert!(bytes <= before, "{} has {before} bytes, not {bytes}", path.display());
        let file = std::fs::OpenOptions::new().write(true).open(path).expect("the increment");
        file.set_len(bytes).expect("cut");
        Cut { bytes_left: bytes, bytes_lost: before - bytes }
    }

    /// Puts bytes behind the last increment: what a write left that was not synced. The server must be dead.
    pub fn append_to_aof(&self, bytes: &[u8]) {
        assert!(!self.is_running(), "the server writes to this file");
        let mut file =
            std::fs::OpenOptions::new().append(true).open(self.aof_incr_path()).expect("the increment");
        std::io::Write::write_all(&mut file, bytes).expect("appended");
    }

    /// What a loss of power at the moment of the kill may take, all of it (see the top of this file).
    pub fn cut_aof_back_to_last_sync(&self) -> Cut {
        self.cut_back(|synced, _| synced)
    }

    /// Any part of what a loss of power may take, torn commands included.
    pub fn cut_aof_at_random(&self, dice: &mut Dice) -> Cut {
        self.cut_back(|synced, size| synced + dice.roll(size - synced + 1))
    }

    /// `choose` answers what stays of the bytes of a file, told how many were synced and how many there are.
    fn cut_back(&self, mut choose: impl FnMut(u64, u64) -> u64) -> Cut {
        let mut sum = Cut { bytes_left: 0, bytes_lost: 0 };
        let mut torn = false;
        for path in increments(&self.aof_folder()) {
            let size = size(&path);
            // Nothing stays behind what was lost.
            let left = if torn { 0 } else { choose(self.synced(&path), size) };
            torn |= left < size;
            let cut = self.cut(&path, left);
            sum.bytes_left += cut.bytes_left;
            sum.bytes_lost += cut.bytes_lost;
        }
        sum
    }

    /// Bytes of an increment that are taken for synced.
    fn synced(&self, path: &Path) -> u64 {
        match self.setup.fsync {
            Fsync::NoFile => panic!("there is no append-only file"),
            Fsync::Always => size(path),
            Fsync::EverySecond => {
                let at = self.killed_at.unwrap_or_else(Instant::now).checked_sub(SYNC_WINDOW);
                let watch = self.watch.as_ref().expect("it runs or ran");
                at.map_or(0, |at| watch.size_at(path, at)).min(size(path))
            }
        }
    }

    /// Waits until a loss of power would take nothing. Nobody may write meanwhile.
    pub fn await_synced(&self) {
        await_until("the append-only file to be synced", PATIENCE, || {
            increments(&self.aof_folder()).iter().all(|path| self.synced(path) == size(path)).then_some(())
        });
    }
}

type Sample = (Instant, Vec<(PathBuf, u64)>);

/// Looks at the sizes of the increments while a server runs.
pub(super) struct SizeWatch {
    /// What a start finds is taken for synced.
    at_start: Vec<(PathBuf, u64)>,
    samples: Arc<Mutex<VecDeque<Sample>>>,
    stopped: Arc<AtomicBool>,
    looking: Option<JoinHandle<()>>,
}

impl SizeWatch {
    pub fn start(folder: &Path) -> SizeWatch {
        let at_start = sizes(folder);
        let samples = Arc::new(Mutex::new(VecDeque::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let (theirs, stop, folder) = (samples.clone(), stopped.clone(), folder.to_owned());
        let looking = std::thread::spawn(move || {
            while !stop.load(Ordering::Acquire) {
                look(&folder, &mut lock(&theirs));
                std::thread::park_timeout(LOOK_EVERY);
            }
        });
        SizeWatch { at_start, samples, stopped, looking: Some(looking) }
    }

    /// The size that was seen last at or before this time; zero where there was no such file.
    fn size_at(&self, path: &Path, at: Instant) -> u64 {
        let samples = lock(&self.samples);
        let sample = samples.iter().rev().find(|(seen, _)| *seen <= at);
        let sizes = sample.map_or(&self.at_start, |(_, sizes)| sizes);
        sizes.iter().find(|(name, _)| name == path).map_or(0, |(_, size)| *size)
    }

    pub fn stop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        if let Some(looking) = self.looking.take() {
            looking.thread().unpark();
            // Its panic was printed; another one while a test fails would hide the first.
            let _ = looking.join();
        }
    }
}

impl Drop for SizeWatch {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock(samples: &Mutex<VecDeque<Sample>>) -> MutexGuard<'_, VecDeque<Sample>> {
    samples.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look(folder: &Path, samples: &mut VecDeque<Sample>) {
    let sizes = sizes(folder);
    // After the look, so that what was written during it does not count as older.
    let now = Instant::now();
    samples.push_back((now, sizes));
    while samples.get(1).is_some_and(|(seen, _)| now.duration_since(*seen) > MEMORY) {
        samples.pop_front();
    }
}
