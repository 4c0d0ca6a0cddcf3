//! What the journal promises, as tests: on a real folder here, on one that crashes in `model`.

mod index;
mod live;
mod model;
mod refusals;
mod snapshot;

use std::convert::Infallible;
use std::sync::Arc;

use super::sim::SimStorage;
use super::{FolderStorage, Frame, Journal, JournalError, Options, Position, Recovery, Storage};

pub(super) const SEGMENT_BYTES: u64 = 64 << 10;

/// How many cases each property is tried with.
pub(super) fn cases() -> u32 {
    std::env::var("HONGBAO_JOURNAL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(24)
}

pub(super) type Contents = Vec<(u8, Vec<u8>)>;

pub(super) fn options() -> Options {
    Options { segment_bytes: SEGMENT_BYTES, idle_mark_ms: 20, now_ms: Arc::new(|| 7), ..Options::default() }
}

pub(super) fn open(
    storage: Arc<dyn Storage>,
    options: Options,
    start: Position,
) -> Result<(Journal, Recovery, Contents), JournalError> {
    let mut contents = Vec::new();
    let mut visit = |frame: Frame<'_>| {
        contents.push((frame.kind, frame.payload.to_vec()));
        Ok::<(), Infallible>(())
    };
    let (journal, recovery) = Journal::open(storage, options, start, &mut visit)?;
    Ok((journal, recovery, contents))
}

pub(super) fn payload(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|index| (seed * 31 + index * 7) as u8).collect()
}

/// Appends payloads of many sizes, closes, opens again, and expects the same.
fn round_trip(storage: &dyn Fn() -> Arc<dyn Storage>) {
    let wanted: Contents = (0..40).map(|n| (16 + n as u8, payload(n, n * n * 41 % 60_000))).collect();
    let (journal, recovery, contents) = open(storage(), options(), Position::genesis()).unwrap();
    assert_eq!((recovery.frames, contents.len(), recovery.cut), (0, 0, None));
    let mut end = 0;
    for (kind, payload) in &wanted {
        let (a, b) = payload.split_at(payload.len() / 3);
        end = journal.append(*kind, &[a, b]).unwrap().end;
    }
    journal.wait_synced(end).unwrap();
    let mut reader = journal.reader(0);
    for (kind, payload) in &wanted {
        let frame = reader.next().unwrap().unwrap();
        assert_eq!((frame.kind, &frame.payload[..]), (*kind, &payload[..]));
    }
    assert!(reader.next().unwrap().is_none());
    journal.shutdown().unwrap();
    let position = journal.position();
    drop((journal, reader));
    let (journal, recovery, contents) = open(storage(), options(), Position::genesis()).unwrap();
    assert!(contents == wanted);
    assert_eq!((recovery.cut, recovery.marks, recovery.end), (None, 1, position));
    assert_eq!(journal.append(20, &[]).unwrap().sequence, 41);
}

#[test]
fn what_was_appended_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    round_trip(&|| Arc::new(FolderStorage::new(folder.path()).unwrap()));
    let sim = SimStorage::new();
    round_trip(&|| Arc::new(sim.clone()));
}
