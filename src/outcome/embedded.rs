//! The outcome log over the journal: outcome frames behind the ledger's transfers, one sync for both.
//!
//! Readers meet two kinds of frames: accept frames give [`Fact::Accepted`], outcome frames [`Fact::Moved`]. A
//! reader's cursor is a journal offset.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::entry::FRAME_OUTCOMES;
use super::{Appended, Fact, FactSource, OutcomeError, OutcomeLog, SourceError};
use crate::domain::bytes::{TAG_OUTCOME, TAG_REQUEST, entries};
use crate::domain::{Outcome, Request};
use crate::journal::Journal;

/// What was appended and not taken yet.
#[derive(Default)]
struct Waiting {
    runs: VecDeque<Appended>,
    appended_end: u64,
}

pub struct EmbeddedOutcomeLog {
    journal: Journal,
    waiting: Mutex<Waiting>,
    /// Kind of the frames that hold accepted requests.
    accept_kind: u8,
}

impl EmbeddedOutcomeLog {
    pub fn new(journal: Journal, accept_kind: u8) -> EmbeddedOutcomeLog {
        EmbeddedOutcomeLog { journal, waiting: Mutex::default(), accept_kind }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OutcomeLog for EmbeddedOutcomeLog {
    fn wants_requests(&self) -> bool {
        false
    }

    fn append(&self, outcomes: &[u8], _requests: Vec<Bytes>) -> Result<(), OutcomeError> {
        let count = entries(outcomes).count() as u32;
        let bytes = outcomes.to_vec();
        // Held across the append: whoever sees the frame in the journal must see it in `appended_end` as well.
        let mut waiting = self.waiting();
        let appended = self.journal.append(FRAME_OUTCOMES, &[outcomes])?;
        waiting.appended_end = appended.end;
        waiting.runs.push_back(Appended { bytes, count, place: appended.payload_at, end: appended.end });
        Ok(())
    }

    fn take_durable(&self) -> Option<Appended> {
        let synced = self.journal.synced();
        let runs = &mut self.waiting().runs;
        let durable = runs.front().is_some_and(|next| next.end <= synced);
        if durable { runs.pop_front() } else { None }
    }

    fn has_durable(&self) -> bool {
        let synced = self.journal.synced();
        self.waiting().runs.front().is_some_and(|next| next.end <= synced)
    }

    fn appended_end(&self) -> u64 {
        self.waiting().appended_end
    }
}

impl FactSource for EmbeddedOutcomeLog {
    fn read(
        &self,
        cursor: u64,
        count_max: usize,
        apply: &mut dyn FnMut(Fact<'_>),
    ) -> Result<u64, SourceError> {
        let failed = |cursor: u64, reason: String| SourceError { cursor, reason };
        // What was given up is not there to be read; a reader from before goes on at the front.
        let mut reader = self.journal.reader(cursor.max(self.journal.begins_at()));
        let mut count = 0;
        while count < count_max {
            let before = reader.offset();
            let frame = match reader.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => return Err(failed(before, error.to_string())),
            };
            if frame.kind != self.accept_kind && frame.kind != FRAME_OUTCOMES {
                continue;
            }
            for item in entries(&frame.payload) {
                let (at, tag, bytes) = item.map_err(|error| failed(before, error.to_string()))?;
                let wrong = |error: crate::domain::bytes::EntryError| failed(before, error.to_string());
                match tag {
                    TAG_REQUEST => {
                        let request = Request::decode(bytes).map_err(wrong)?;
                        apply(Fact::Accepted { place: frame.payload_at + at as u64, request });
                        count += 1;
                    }
                    TAG_OUTCOME => {
                        apply(Fact::Moved(Outcome::decode(bytes).map_err(wrong)?));
                        count += 1;
                    }
                    _ => {}
                }
            }
        }
        Ok(reader.offset())
    }

    fn end(&self) -> u64 {
        self.journal.synced()
    }
}
