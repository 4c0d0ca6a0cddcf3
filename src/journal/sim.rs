//! A folder in memory that crashes: every file has durable and volatile bytes, the names likewise.
//!
//! What holds: only a completed sync makes anything durable; a crash keeps, by seed, any subset of the unsynced
//! 512-byte sectors and of the unsynced names' changes; the same seed keeps the same. Faults are injected by
//! [`Knobs`]. It is public so that tests can run the whole service on it. Absent: delays, and read errors that
//! heal.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::storage::{Storage, StorageFile};

/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// Faults to inject. The default injects none.
#[derive(Debug, Clone, Default)]
pub struct Knobs {
    /// After this many further changing calls the process is dead: every call fails.
    pub dies_after: Option<u64>,
    /// The next write, or sync, fails once.
    pub write_error: bool,
    pub sync_error: bool,
    /// Bytes that may still be allocated before the disk is full.
    pub space_left_bytes: Option<u64>,
    /// Syncs return at once and make nothing durable: tests must notice.
    pub without_sync: bool,
}

/// The folder. Clones share it.
#[derive(Clone, Default)]
pub struct SimStorage {
    world: Arc<Mutex<World>>,
}

#[derive(Default)]
struct World {
    knobs: Knobs,
    /// Changing calls so far.
    changes: u64,
    dead: bool,
    files: BTreeMap<u64, SimFile>,
    file_next: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Changes of names since the last folder sync.
    unsynced: Vec<NameChange>,
}

#[derive(Default, Clone)]
struct SimFile {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Clone)]
enum NameChange {
    Create(String, u64),
    Rename(String, String),
    Remove(String),
}

impl SimStorage {
    pub fn new() -> SimStorage {
        SimStorage::default()
    }

    pub fn knobs(&self, change: impl FnOnce(&mut Knobs)) {
        change(&mut self.lock().knobs);
    }

    /// The process dies at the boundary before the `n`-th changing call from now (0: at once).
    pub fn fail_after(&self, n: u64) {
        self.lock().knobs.dies_after = Some(n);
    }

    /// Changing calls (writes, syncs, names) so far.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// What the disk holds after a power failure now. Seed 0 drops all that is unsynced; others tear it.
    /// Knobs are not inherited, except that syncs stay without effect.
    pub fn crash(&self, seed: u64) -> SimStorage {
        let old = self.lock();
        let mut dice = Dice(seed);
        // One seed in four keeps nearly nothing, one nearly everything, the rest a mixture.
        let keep = if seed == 0 { 0 } else { [2, 50, 50, 98][(dice.roll() % 4) as usize] };
        let mut names = old.durable_names.clone();
        for change in &old.unsynced {
            if dice.roll() % 100 < keep {
                change.apply(&mut names);
            }
        }
        let files = names.values().filter_map(|id| Some((*id, old.files.get(id)?.torn(&mut dice, keep))));
        let world = World {
            knobs: Knobs { without_sync: old.knobs.without_sync, ..Knobs::default() },
            files: files.collect(),
            file_next: old.file_next,
            durable_names: names.clone(),
            names,
            ..World::default()
        };
        SimStorage { world: Arc::new(Mutex::new(world)) }
    }

    /// Flips every bit of a range of a file, durably. Says whether there was such a range.
    pub fn spoil(&self, name: &str, range: Range<usize>) -> bool {
        let mut world = self.lock();
        let Some(id) = world.names.get(name).copied() else { return false };
        let Some(file) = world.files.get_mut(&id).filter(|file| file.bytes.len() >= range.end) else {
            return false;
        };
        for at in range {
            file.bytes[at] ^= 0xFF;
            if let Some(byte) = file.durable.get_mut(at) {
                *byte ^= 0xFF;
            }
        }
        true
    }

    /// The bytes of a file as a reader sees them.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let world = self.lock();
        Some(world.files.get(world.names.get(name)?)?.bytes.clone())
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other("the simulated process is dead")) } else { Ok(()) }
    }

    /// Counts a changing call, at which the process may die.
    fn change(&mut self) -> io::Result<()> {
        match &mut self.knobs.dies_after {
            Some(0) => self.dead = true,
            Some(left) => *left -= 1,
            None => {}
        }
        self.alive()?;
        self.changes += 1;
        Ok(())
    }

    fn name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced.push(change);
    }

    fn grow(&mut self, id: u64, end: usize) -> io::Result<()> {
        let missing = end.saturating_sub(self.file(id)?.bytes.len()) as u64;
        if let Some(left) = &mut self.knobs.space_left_bytes {
            if *left < missing {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *left -= missing;
        }
        Ok(())
    }

    fn file(&mut self, id: u64) -> io::Result<&mut SimFile> {
        self.files.get_mut(&id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl NameChange {
    /// A change whose file is not there (because its creation was lost) does nothing.
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameChange::Create(name, id) => {
                names.insert(name.clone(), *id);
            }
            NameChange::Rename(from, to) => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
            NameChange::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl SimFile {
    fn set_len(&mut self, bytes: usize) {
        let from = bytes.min(self.bytes.len()) / SECTOR_BYTES;
        let to = bytes.max(self.bytes.len()).div_ceil(SECTOR_BYTES);
        self.bytes.resize(bytes, 0);
        self.dirty.extend(from..to);
    }

    fn write(&mut self, bytes: &[u8], at: usize) {
        if at + bytes.len() > self.bytes.len() {
            self.set_len(at + bytes.len());
        }
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.dirty.extend(at / SECTOR_BYTES..(at + bytes.len()).div_ceil(SECTOR_BYTES));
    }

    fn sync(&mut self) {
        self.durable.resize(self.bytes.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let range = sector_range(sector, self.bytes.len());
            self.durable[range.clone()].copy_from_slice(&self.bytes[range]);
        }
    }

    fn torn(&self, dice: &mut Dice, keep: u64) -> SimFile {
        let mut bytes = self.durable.clone();
        if bytes.len() != self.bytes.len() && dice.roll() % 100 < keep {
            bytes.resize(self.bytes.len(), 0);
        }
        for sector in &self.dirty {
            if dice.roll() % 100 < keep {
                let range = sector_range(*sector, bytes.len().min(self.bytes.len()));
                bytes[range.clone()].copy_from_slice(&self.bytes[range]);
            }
        }
        SimFile { durable: bytes.clone(), bytes, dirty: BTreeSet::new() }
    }
}

fn sector_range(sector: usize, len: usize) -> Range<usize> {
    (sector * SECTOR_BYTES).min(len)..((sector + 1) * SECTOR_BYTES).min(len)
}

/// A small generator of pseudo-random numbers (splitmix64, Steele et al. 2014).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

impl Storage for SimStorage {
    fn folder(&self) -> String {
        "simulated".to_owned()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let world = self.lock();
        world.alive()?;
        Ok(world.names.keys().cloned().collect())
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn StorageFile>> {
        let mut world = self.lock();
        world.alive()?;
        let id = match world.names.get(name) {
            Some(id) => *id,
            None if !create => return Err(io::ErrorKind::NotFound.into()),
            None => {
                world.change()?;
                let id = world.file_next;
                world.file_next += 1;
                world.files.insert(id, SimFile::default());
                world.name(NameChange::Create(name.to_owned(), id));
                id
            }
        };
        Ok(Arc::new(Handle { storage: self.clone(), id }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.lock();
        world.change()?;
        if !world.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.name(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.lock();
        world.change()?;
        if !world.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.name(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut world = self.lock();
        world.change()?;
        if !world.knobs.without_sync {
            world.durable_names = world.names.clone();
            world.unsynced.clear();
        }
        Ok(())
    }
}

struct Handle {
    storage: SimStorage,
    id: u64,
}

impl StorageFile for Handle {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.storage.lock();
        world.alive()?;
        let bytes = &world.file(self.id)?.bytes;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let count = buf.len().min(bytes.len() - from);
        buf[..count].copy_from_slice(&bytes[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.storage.lock();
        world.change()?;
        if std::mem::take(&mut world.knobs.write_error) {
            return Err(io::Error::other("injected write error"));
        }
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        world.grow(self.id, at + bytes.len())?;
        world.file(self.id)?.write(bytes, at);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.storage.lock();
        world.change()?;
        if std::mem::take(&mut world.knobs.sync_error) {
            return Err(io::Error::other("injected sync error"));
        }
        if !world.knobs.without_sync {
            world.file(self.id)?.sync();
        }
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut world = self.storage.lock();
        world.change()?;
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        world.grow(self.id, bytes)?;
        world.file(self.id)?.set_len(bytes);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let mut world = self.storage.lock();
        world.alive()?;
        Ok(world.file(self.id)?.bytes.len() as u64)
    }
}
