//! The embedded double-entry ledger: the stored-value service in this process.
//!
//! `accounts` holds the balances and moves money, `state` decides and remembers, `entry` is the stored form;
//! this file joins them to the journal. One batch at a time is decided, under a lock taken once a batch; what
//! it decided is appended before the next, and becomes durable with the journal's next sync. A ledger that
//! could not append has decided what nobody may know: it stops for good.

pub mod accounts;
pub mod entry;
pub mod snapshot;
pub mod state;

use std::sync::{Mutex, MutexGuard, PoisonError};

use self::entry::{FRAME_TRANSFERS, TRANSFER_BYTES_MAX};
use self::state::{Judge, OnRecord, Records, State};
use super::{Durable, Recorded, StoredValue, StoredValueError, TransferBatch};
use crate::crash;
use crate::domain::TransferStatus;
use crate::journal::{Appended, Frame, Journal};

/// The ledger's state before the journal is open: what a snapshot gave, and what replay adds.
#[derive(Default)]
pub struct Restoring {
    pub state: State,
    /// Frames of the ledger's below this offset are in the state already.
    pub written: u64,
}

impl Restoring {
    /// Takes in a frame of the journal; frames of other rooms, and those a snapshot had already, are passed
    /// over: to move their money again would be wrong.
    pub fn visit(&mut self, frame: &Frame<'_>) -> Result<(), StoredValueError> {
        if frame.kind == FRAME_TRANSFERS && frame.offset >= self.written {
            self.state.replay(frame.payload_at, frame.payload)
        } else {
            Ok(())
        }
    }
}

pub struct Ledger {
    identity: String,
    journal: Journal,
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    records: JournalRecords,
    /// End of the last frame of the ledger's own.
    appended: u64,
    stopped: Option<String>,
}

impl Ledger {
    pub fn new(restored: Restoring, identity: String, journal: Journal) -> Ledger {
        let records = JournalRecords {
            begins_at: journal.begins_at(),
            journal: journal.clone(),
            buffer: vec![0; TRANSFER_BYTES_MAX],
        };
        let inner = Inner { state: restored.state, records, appended: journal.synced(), stopped: None };
        Ledger { identity, journal, inner: Mutex::new(inner) }
    }

    fn lock(&self) -> Result<MutexGuard<'_, Inner>, StoredValueError> {
        // A panic inside the lock left half a batch behind: `stopped` was set before it began.
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match &inner.stopped {
            Some(reason) => Err(StoredValueError::Stopped(reason.clone())),
            None => Ok(inner),
        }
    }

    /// Reads the state between two batches, together with the end of the last frame it wrote.
    pub fn with_state<T>(&self, read: impl FnOnce(&mut State, u64) -> T) -> Result<T, StoredValueError> {
        let mut inner = self.lock()?;
        let appended = inner.appended;
        Ok(read(&mut inner.state, appended))
    }
}

impl Ledger {
    /// Forgets the ids whose transfers stood below `offset`: their campaigns are closed and refuse everything.
    pub fn forget_below(&self, offset: u64) -> Result<(), StoredValueError> {
        let mut inner = self.lock()?;
        inner.state.ids.sweep_below(offset);
        inner.records.begins_at = offset;
        Ok(())
    }

    /// Decides a batch as [`StoredValue::transfer`] does, with a judge in front of the books. `repeated` gets the
    /// positions whose ids were on record already.
    pub fn transfer_judged(
        &self,
        batch: &TransferBatch,
        judge: Judge<'_>,
        results: &mut Vec<TransferStatus>,
        repeated: &mut Vec<u32>,
    ) -> Result<Durable, StoredValueError> {
        let mut guard = self.lock()?;
        let inner = &mut *guard;
        inner.stopped = Some("it failed in the middle of a batch".to_owned());
        inject_panic(batch);
        inner.state.decide(batch, judge, &mut inner.records, results)?;
        if !inner.state.written.is_empty() {
            crash::point("ledger::before_append");
            let Appended { payload_at, end, .. } =
                self.journal.append(FRAME_TRANSFERS, &[&inner.state.written])?;
            crash::point("ledger::after_append");
            inner.state.placed(payload_at);
            inner.appended = end;
        }
        inner.stopped = None;
        repeated.clone_from(&inner.state.repeated);
        // Repeats rest on earlier frames, which the same offset covers.
        Ok(Durable::AtOffset(inner.appended))
    }

    /// What is on record for these ids.
    pub fn on_record(&self, ids: &[&[u8]]) -> Result<Vec<Option<OnRecord>>, StoredValueError> {
        let mut guard = self.lock()?;
        let inner = &mut *guard;
        let look = |id: &&[u8]| inner.state.lookup(crate::digest::key_hash(id), id, &mut inner.records);
        ids.iter().map(look).collect()
    }
}

impl StoredValue for Ledger {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn transfer(
        &self,
        batch: &TransferBatch,
        results: &mut Vec<TransferStatus>,
    ) -> Result<Durable, StoredValueError> {
        self.transfer_judged(batch, &|_| None, results, &mut Vec::new())
    }

    fn lookup(&self, ids: &[&[u8]]) -> Result<Vec<Recorded>, StoredValueError> {
        let found = self.on_record(ids)?;
        Ok(found
            .into_iter()
            .map(|on| on.map_or(Recorded::NotFound, |on| Recorded::Found(on.status)))
            .collect())
    }
}

/// For tests: a panic that names nobody, over a batch that pays the id that the fail point names.
fn inject_panic(batch: &TransferBatch) {
    fail::fail_point!("ledger::batch", |id| {
        let poisoned = id.is_some_and(|id| {
            batch.iter().any(|t| {
                t.kind != crate::domain::TransferKind::Burn && t.id.ends_with(format!(":{id}").as_bytes())
            })
        });
        assert!(!poisoned, "injected");
    });
    let _ = batch;
}

struct JournalRecords {
    journal: Journal,
    begins_at: u64,
    buffer: Vec<u8>,
}

impl Records for JournalRecords {
    fn transfer_at(&mut self, place: u64) -> Result<&[u8], StoredValueError> {
        let length = self.journal.read_at(place, &mut self.buffer)?;
        Ok(&self.buffer[..length])
    }

    fn begins_at(&self) -> u64 {
        self.begins_at
    }
}
