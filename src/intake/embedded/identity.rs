//! The identity index: every id this instance remembers, and the latest entry about it in the journal.
//!
//! In memory an id is eight bytes: a fingerprint and a place. The place is that of the request until an
//! outcome follows, then that of the outcome, which names the request. Every hit is verified against the
//! stored bytes, so answers are exact. The index is owned by the desk's thread; readers elsewhere get places from
//! it and use [`Entries`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::bytes::{TAG_OUTCOME, TAG_REQUEST, peek};
use crate::domain::{Kind, Outcome, Request, ids};
use crate::intake::IntakeError;
use crate::journal::Journal;

/// Most entries are shorter; a longer one is read in two steps.
const FIRST_READ_BYTES: usize = 512;

/// Reads whole entries from the journal.
#[derive(Clone)]
pub struct Entries {
    journal: Journal,
    /// What stood below this offset was given up.
    begins_at: Arc<AtomicU64>,
}

impl Entries {
    pub fn new(journal: Journal) -> Entries {
        let begins_at = Arc::new(AtomicU64::new(journal.begins_at()));
        Entries { journal, begins_at }
    }

    /// Whether what stood at `place` was given up.
    pub fn is_gone(&self, place: u64) -> bool {
        place < self.begins_at.load(Ordering::Acquire)
    }

    /// From now on, everything below `offset` counts as given up.
    pub fn give_up_below(&self, offset: u64) {
        self.begins_at.fetch_max(offset, Ordering::AcqRel);
    }

    /// The entry at `place`, whole, in `buffer`.
    pub fn read<'a>(&self, place: u64, buffer: &'a mut Vec<u8>) -> Result<(u8, &'a [u8]), IntakeError> {
        let damaged = |reason: &str| IntakeError::Damaged { place, reason: reason.to_owned() };
        buffer.resize(FIRST_READ_BYTES, 0);
        let mut got = self.journal.read_at(place, buffer)?;
        let (length, tag) = peek(&buffer[..got]).ok_or_else(|| damaged("no entry begins here"))?;
        if length > got {
            if length > crate::domain::record::REQUEST_BYTES_MAX {
                return Err(damaged("an entry of impossible length"));
            }
            buffer.resize(length, 0);
            got = self.journal.read_at(place, buffer)?;
        }
        if length > got {
            return Err(damaged("the entry is cut short"));
        }
        Ok((tag, &buffer[..length]))
    }
}

/// An id that was found: the request, and its latest outcome if there is one.
#[derive(Clone, Debug)]
pub struct Held {
    pub request_place: u64,
    /// Where the latest entry stands; what a further outcome follows.
    pub entry_place: u64,
    record: Vec<u8>,
    outcome: Option<Vec<u8>>,
}

impl Held {
    /// A request that was decided and is not written yet: it has no place, and no outcome.
    pub fn fresh(record: &[u8]) -> Held {
        Held { request_place: u64::MAX, entry_place: u64::MAX, record: record.to_vec(), outcome: None }
    }

    pub fn request(&self) -> Request<'_> {
        Request::decode(&self.record).expect("decoded when it was read")
    }

    pub fn outcome(&self) -> Option<Outcome<'_>> {
        self.outcome.as_deref().map(|bytes| Outcome::decode(bytes).expect("decoded when it was read"))
    }
}

/// The id a request is known by: its own, or the one that a cancel burns.
pub fn known_id<'a>(request: &Request<'a>) -> &'a str {
    if request.kind == Kind::Cancel { request.original } else { request.id }
}

/// The entry at `place` as the holder of `client:id`, or `None` if it is another's.
pub fn held_at(entries: &Entries, place: u64, key: (&str, &str)) -> Result<Option<Held>, IntakeError> {
    let held = held_from(entries, place)?;
    Ok(held.filter(|held| {
        let request = held.request();
        (request.client, known_id(&request)) == key
    }))
}

/// The request that the entry at `place` is, or is about; `None` if it is about none, or was given up.
pub fn held_from(entries: &Entries, place: u64) -> Result<Option<Held>, IntakeError> {
    let mut buffer = Vec::new();
    let damaged = |at: u64, error: crate::domain::bytes::EntryError| IntakeError::Damaged {
        place: at,
        reason: error.to_string(),
    };
    if entries.is_gone(place) {
        return Ok(None);
    }
    let (tag, bytes) = entries.read(place, &mut buffer)?;
    let (request_place, outcome) = match tag {
        TAG_REQUEST => (place, None),
        TAG_OUTCOME => {
            let outcome = Outcome::decode(bytes).map_err(|error| damaged(place, error))?;
            (outcome.request_place, Some(bytes.to_vec()))
        }
        _ => return Ok(None),
    };
    if entries.is_gone(request_place) {
        return Ok(None);
    }
    if outcome.is_some() {
        entries.read(request_place, &mut buffer)?;
    }
    let request = Request::decode(&buffer).map_err(|error| damaged(request_place, error))?;
    let length = request.encoded_len();
    buffer.truncate(length);
    Ok(Some(Held { request_place, entry_place: place, record: buffer, outcome }))
}

/// The name under which a batch stands in the index: no request id can hold the mark.
pub fn batch_key_hash(client: &str, id: &str) -> u64 {
    let mut key = Vec::with_capacity(client.len() + id.len() + 8);
    ids::write_key(&mut key, client.as_bytes(), b"#batch:");
    key.extend_from_slice(id.as_bytes());
    crate::digest::key_hash(&key)
}
