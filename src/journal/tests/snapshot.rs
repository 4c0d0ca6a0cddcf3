//! Blobs: whole or absent, through every crash.

use std::sync::Arc;

use super::super::sim::SimStorage;
use super::super::snapshot::{list_blobs, read_blob, remove_blob, write_blob};
use super::super::{JournalError, Position, Storage};
use super::{open, options, payload};

#[test]
fn blobs_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let real = super::super::FolderStorage::new(folder.path()).unwrap();
    let storages: [&dyn Storage; 2] = [&SimStorage::new(), &real];
    for storage in storages {
        for len in [0, 1, 3_000_000] {
            write_blob(storage, "ledger-1", &payload(len, len)).unwrap();
            assert_eq!(read_blob(storage, "ledger-1").unwrap().unwrap(), payload(len, len));
        }
        write_blob(storage, "accounts", b"a").unwrap();
        storage.open("snap-left.part", true).unwrap();
        assert_eq!(list_blobs(storage).unwrap(), ["accounts", "ledger-1"]);
        remove_blob(storage, "accounts").unwrap();
        remove_blob(storage, "accounts").unwrap();
        assert_eq!(read_blob(storage, "accounts").unwrap(), None);
        for name in ["", "a/b", "x.part", "é"] {
            assert!(matches!(write_blob(storage, name, b""), Err(JournalError::Blob { .. })), "{name}");
        }
    }
}

#[test]
fn a_damaged_blob_is_named() {
    for (at, expected) in
        [(0, "not a blob"), (8, "version"), (16, "length"), (30, "checksum"), (60, "checksum")]
    {
        let sim = SimStorage::new();
        write_blob(&sim, "x", b"some bytes").unwrap();
        assert!(sim.spoil("snap-x", at..at + 1));
        let error = read_blob(&sim, "x").unwrap_err().to_string();
        assert!(error.contains("`x`") && error.contains(expected), "{at}: {error}");
    }
    let sim = SimStorage::new();
    sim.open("snap-x", true).unwrap();
    assert!(read_blob(&sim, "x").unwrap_err().to_string().contains("shorter"));
}

#[test]
fn a_crash_leaves_the_old_or_the_new() {
    for (boundary, seed) in (0..12).flat_map(|boundary| (0..6).map(move |seed| (boundary, seed))) {
        let sim = SimStorage::new();
        write_blob(&sim, "x", &payload(1, 5_000)).unwrap();
        sim.fail_after(boundary);
        let written = write_blob(&sim, "x", &payload(2, 9_000)).is_ok();
        let after = sim.crash(seed);
        let found = read_blob(&after, "x").unwrap().unwrap();
        let is_new = found == payload(2, 9_000);
        assert!(is_new || (!written && found == payload(1, 5_000)), "boundary {boundary}, seed {seed}");
        assert!(open(Arc::new(after), options(), Position::genesis()).is_ok(), "the journal accepts blobs");
    }
}
