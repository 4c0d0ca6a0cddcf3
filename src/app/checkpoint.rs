//! Snapshots: so that a restart reads a tail of the journal, not all of it.
//!
//! Taken when the journal has grown by `checkpoint_bytes`. Order: a boundary of the journal is noted; the desk
//! is waited for until it has taken in every outcome below that boundary; desk and ledger are captured, each
//! between two of its batches; the journal must have synced what they had written; then the parts are written
//! under names of their own, and last the manifest that names them. A crash at any point leaves the manifest
//! before. Frames between the boundary and a capture are applied again at the restart, which changes nothing.
//!
//! The ids are saved as runs of changes since the snapshot before; a start folds many runs into one table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::crash::point;
use crate::intake::desk::Desk;
use crate::intake::desk::memory::Memory;
use crate::intake::{desk, embedded};
use crate::journal::index::{Changes, PlaceIndex, decode_changes, encode_changes};
use crate::journal::snapshot::{list_blobs, read_blob, remove_blob, write_blob};
use crate::journal::{Journal, JournalError, Position, Storage};
use crate::outcome::OutcomeLog;
use crate::stored_value::ledger::{self, Ledger};

const MANIFEST: &str = "manifest";
const VERSION: u32 = 1;
/// Runs of one index that a start leaves as they are; more are folded into a table.
const RUNS_MAX: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Intake(#[from] crate::intake::IntakeError),
    #[error(transparent)]
    StoredValue(#[from] crate::stored_value::StoredValueError),
    #[error(
        "the snapshot {name} cannot be used: {reason}; move the snap-* files away to replay the whole journal"
    )]
    Damaged { name: String, reason: String },
    #[error("the desk did not catch up with the outcomes in time; trying again later")]
    Behind,
}

/// What names the parts of a snapshot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Manifest {
    version: u32,
    generation: u64,
    offset: u64,
    sequence: u64,
    hash: String,
    /// The ledger's own frames below this are in its state.
    ledger_written: u64,
    desk_ids: Vec<String>,
    ledger_ids: Vec<String>,
}

impl Manifest {
    fn part(&self, name: &str) -> String {
        part_name(name, self.generation)
    }
}

fn part_name(name: &str, generation: u64) -> String {
    format!("{name}-{generation:08}")
}

/// What a start begins from.
pub struct Restored {
    pub memory: Memory,
    pub queues: embedded::Restoring,
    pub ledger: ledger::Restoring,
    pub start: Position,
    manifest: Manifest,
}

fn part(storage: &dyn Storage, name: &str) -> Result<Vec<u8>, CheckpointError> {
    let missing = || CheckpointError::Damaged { name: name.to_owned(), reason: "it is missing".to_owned() };
    read_blob(storage, name)?.ok_or_else(missing)
}

fn index(storage: &dyn Storage, names: &[String]) -> Result<PlaceIndex, CheckpointError> {
    let mut index = PlaceIndex::new();
    for name in names {
        let bytes = part(storage, name)?;
        if name.starts_with("table-") {
            index = PlaceIndex::load(&bytes)?;
        } else {
            index.apply_changes(&decode_changes(&bytes)?);
        }
    }
    Ok(index)
}

/// Reads the last snapshot, or makes an empty state.
pub fn restore(storage: &Arc<dyn Storage>, fair_queue_count: u8) -> Result<Restored, CheckpointError> {
    let mut memory = Memory { fair_queue_count, ..Memory::default() };
    let mut queues = embedded::Restoring::new(fair_queue_count);
    let mut ledger = ledger::Restoring::default();
    let Some(bytes) = read_blob(&**storage, MANIFEST)? else {
        let manifest = Manifest { version: VERSION, ..Manifest::default() };
        return Ok(Restored { memory, queues, ledger, start: Position::genesis(), manifest });
    };
    let damaged = |name: &str, reason: String| CheckpointError::Damaged { name: name.to_owned(), reason };
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|error| damaged(MANIFEST, error.to_string()))?;
    if manifest.version != VERSION {
        let reason = format!("version {} is unknown to this release", manifest.version);
        return Err(damaged(MANIFEST, reason));
    }
    let mut hash = [0; 32];
    hex::decode_to_slice(&manifest.hash, &mut hash)
        .map_err(|error| damaged(MANIFEST, format!("its hash is not 64 digits: {error}")))?;
    // The two indexes are independent and the largest part of a start.
    let (desk_ids, ledger_ids) = std::thread::scope(|scope| {
        let ledger_ids = scope.spawn(|| index(&**storage, &manifest.ledger_ids));
        (index(&**storage, &manifest.desk_ids), ledger_ids.join().expect("loading an index does not panic"))
    });
    memory.index = desk_ids?;
    let ledger_name = manifest.part("ledger");
    ledger.state = ledger::snapshot::restore(&part(&**storage, &ledger_name)?)
        .map_err(|reason| damaged(&ledger_name, reason))?;
    ledger.state.ids = ledger_ids?;
    ledger.written = manifest.ledger_written;
    let desk_state = part(&**storage, &manifest.part("desk"))?;
    let queue_state = part(&**storage, &manifest.part("queues"))?;
    desk::snapshot::restore(&mut memory, &mut queues, &desk_state, &queue_state)?;
    let start = Position { offset: manifest.offset, sequence: manifest.sequence, hash };
    Ok(Restored { memory, queues, ledger, start, manifest })
}

/// Takes snapshots of a running service.
pub struct Checkpointer {
    pub storage: Arc<dyn Storage>,
    pub journal: Journal,
    pub desk: Desk,
    pub ledger: Arc<Ledger>,
    pub outcomes: Arc<dyn OutcomeLog>,
    manifest: Manifest,
    /// Of the last attempt.
    generation: u64,
    /// Changes of the ids that no snapshot holds yet: what was taken for one that failed goes into the next.
    desk_changes: Changes,
    ledger_changes: Changes,
}

/// How long the desk may take to catch up.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);

impl Checkpointer {
    pub fn new(
        restored: ManifestOf,
        storage: Arc<dyn Storage>,
        journal: Journal,
        desk: Desk,
        ledger: Arc<Ledger>,
        outcomes: Arc<dyn OutcomeLog>,
    ) -> Checkpointer {
        Checkpointer {
            storage,
            journal,
            desk,
            ledger,
            outcomes,
            generation: restored.0.generation,
            manifest: restored.0,
            desk_changes: Changes::default(),
            ledger_changes: Changes::default(),
        }
    }

    /// Where the last snapshot stands.
    pub fn offset(&self) -> u64 {
        self.manifest.offset
    }

    /// Takes a snapshot now.
    pub fn take(&mut self) -> Result<(), CheckpointError> {
        let position = self.journal.position();
        if position.offset <= self.manifest.offset {
            return Ok(());
        }
        let outcomes_end = self.outcomes.appended_end();
        let deadline = Instant::now() + CATCH_UP_MAX;
        while self.desk.settled_through() < outcomes_end {
            if Instant::now() > deadline || self.journal.failure().is_some() {
                return Err(CheckpointError::Behind);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut desk = self.desk.checkpoint().ok_or(CheckpointError::Behind)??;
        self.desk_changes.append(std::mem::take(&mut desk.changes));
        let (ledger_state, ledger_changes, ledger_written) = self.ledger.with_state(|state, written| {
            (ledger::snapshot::save(state), state.ids.take_changes(), written)
        })?;
        self.ledger_changes.append(ledger_changes);
        self.journal.wait_synced(desk.written_end.max(ledger_written))?;
        // Never the names of an attempt that failed: its manifest may be on the disk all the same.
        self.generation += 1;
        let generation = self.generation;
        let storage = &*self.storage;
        point("checkpoint::before_parts");
        let (desk_run, ledger_run) = (part_name("desk-ids", generation), part_name("ledger-ids", generation));
        write_blob(storage, &desk_run, &encode_changes(&self.desk_changes))?;
        point("checkpoint::between_parts");
        write_blob(storage, &ledger_run, &encode_changes(&self.ledger_changes))?;
        point("checkpoint::between_parts");
        write_blob(storage, &part_name("desk", generation), &desk.state)?;
        point("checkpoint::between_parts");
        write_blob(storage, &part_name("queues", generation), &desk.queues)?;
        point("checkpoint::between_parts");
        write_blob(storage, &part_name("ledger", generation), &ledger_state)?;
        point("checkpoint::before_manifest");
        let mut manifest = Manifest {
            version: VERSION,
            generation,
            offset: position.offset,
            sequence: position.sequence,
            hash: hex::encode(position.hash),
            ledger_written,
            ..self.manifest.clone()
        };
        manifest.desk_ids.push(desk_run);
        manifest.ledger_ids.push(ledger_run);
        self.publish(manifest)
    }

    fn publish(&mut self, manifest: Manifest) -> Result<(), CheckpointError> {
        publish(&*self.storage, &manifest)?;
        // In force from here on, whatever becomes of the older parts.
        self.manifest = manifest;
        self.desk_changes.clear();
        self.ledger_changes.clear();
        point("checkpoint::after_manifest");
        remove_unnamed(&*self.storage, &self.manifest)
    }
}

/// Makes a manifest the one in force.
fn publish(storage: &dyn Storage, manifest: &Manifest) -> Result<(), CheckpointError> {
    let bytes = serde_json::to_vec(manifest).expect("plain fields");
    Ok(write_blob(storage, MANIFEST, &bytes)?)
}

/// Removes what the manifest in force does not name.
fn remove_unnamed(storage: &dyn Storage, manifest: &Manifest) -> Result<(), CheckpointError> {
    let current = ["desk", "queues", "ledger"].map(|name| manifest.part(name));
    for name in list_blobs(storage)? {
        let ours = ["desk", "queues", "ledger", "table"].iter().any(|p| name.starts_with(p));
        let named = current.contains(&name)
            || manifest.desk_ids.contains(&name)
            || manifest.ledger_ids.contains(&name);
        if ours && !named {
            point("checkpoint::before_remove");
            remove_blob(storage, &name)?;
        }
    }
    Ok(())
}

/// The manifest a start came from, for the checkpointer that goes on from it.
pub struct ManifestOf(Manifest);

impl Restored {
    /// Folds the runs of ids into tables if there are many, so that the next start reads less. Call before the
    /// journal is replayed: the tables must stand for the snapshot, not for what came after.
    pub fn fold(&mut self, storage: &dyn Storage) -> Result<(), CheckpointError> {
        if self.manifest.desk_ids.len() <= RUNS_MAX {
            return Ok(());
        }
        let generation = self.manifest.generation;
        let (desk, ledger) = (part_name("table-desk", generation), part_name("table-ledger", generation));
        write_blob(storage, &desk, &self.memory.index.dump())?;
        write_blob(storage, &ledger, &self.ledger.state.ids.dump())?;
        self.manifest.desk_ids = vec![desk];
        self.manifest.ledger_ids = vec![ledger];
        publish(storage, &self.manifest)?;
        remove_unnamed(storage, &self.manifest)
    }

    /// From here on, changes of the ids are recorded for the next snapshot.
    pub fn begin_recording(&mut self) {
        self.memory.index.record_changes();
        self.ledger.state.ids.record_changes();
    }

    pub fn into_parts(self) -> (Memory, embedded::Restoring, ledger::Restoring, ManifestOf) {
        (self.memory, self.queues, self.ledger, ManifestOf(self.manifest))
    }
}
