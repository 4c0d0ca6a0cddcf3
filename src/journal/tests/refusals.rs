//! What opening refuses, each by its name, and that refusing changes nothing.

use std::sync::Arc;

use super::super::frame::{self, HEADER_BYTES, Seal};
use super::super::segments::segment_name;
use super::super::sim::SimStorage;
use super::super::{Fault, JournalError, Options, Position, Storage};
use super::{SEGMENT_BYTES, open, options, payload};

/// Ten synced frames of 30,000 bytes over five segments, two a segment, then a mark.
fn filled() -> SimStorage {
    let sim = SimStorage::new();
    let stepped = Options { threads: false, ..options() };
    let (journal, ..) = open(Arc::new(sim.clone()), stepped, Position::genesis()).unwrap();
    for n in 0..10 {
        journal.append(20, &[&payload(n, 30_000)]).unwrap();
        while journal.step() {}
    }
    journal.shutdown().unwrap();
    sim
}

fn write(sim: &SimStorage, name: &str, bytes: &[u8], at: u64) {
    let file = sim.open(name, true).unwrap();
    file.write_at(bytes, at).unwrap();
    file.sync().unwrap();
    sim.sync_folder().unwrap();
}

fn check(what: &str, damage: impl FnOnce(&SimStorage), is_expected: impl FnOnce(&JournalError) -> bool) {
    let sim = filled();
    damage(&sim);
    let changes = sim.changes();
    match open(Arc::new(sim.clone()), options(), Position::genesis()) {
        Ok((_, recovery, _)) => panic!("{what}: opened with {recovery:?}"),
        Err(error) => assert!(is_expected(&error), "{what}: {error}"),
    }
    assert_eq!(sim.changes(), changes, "{what}: refusing changed the folder");
}

fn is_corrupt(at: u64, why: Fault) -> impl FnOnce(&JournalError) -> bool {
    move |error| {
        matches!(error, JournalError::Corrupt { offset, reason, segment, .. }
            if *offset == at && *reason == why && *segment == segment_name(at / SEGMENT_BYTES))
    }
}

#[test]
fn damage_below_a_synced_offset() {
    let spoil = |index, range: std::ops::Range<usize>| {
        move |sim: &SimStorage| assert!(sim.spoil(&segment_name(index), range))
    };
    let (second, segment) = (30_096, SEGMENT_BYTES);
    check("magic", spoil(0, 30_096..30_097), is_corrupt(second, Fault::Magic));
    check("payload", spoil(0, 40_000..40_001), is_corrupt(second, Fault::Checksum));
    check("previous hash", spoil(1, 48..49), is_corrupt(segment, Fault::Checksum));
    check("checksum", spoil(1, 95..96), is_corrupt(segment, Fault::Checksum));
    check("length", spoil(1, 11..12), is_corrupt(segment, Fault::Length));
    check("offset", spoil(1, 24..25), is_corrupt(segment, Fault::Offset));
    check("a sector of the last but one", spoil(4, 512..1024), is_corrupt(4 * segment, Fault::Checksum));
    check(
        "the last frame, below the mark",
        spoil(4, 60_000..60_001),
        is_corrupt(4 * segment + second, Fault::Checksum),
    );
    check("the very first", spoil(0, 0..4), is_corrupt(0, Fault::Magic));
    let zeros = |sim: &SimStorage| write(sim, &segment_name(2), &vec![0; 65_536], 0);
    check("a segment of zeros", zeros, is_corrupt(segment + 2 * second, Fault::Empty));
    let swapped = |sim: &SimStorage| {
        let other = sim.contents(&segment_name(3)).unwrap();
        write(sim, &segment_name(2), &other, 0);
    };
    check("another segment's bytes", swapped, is_corrupt(2 * segment, Fault::Offset));
}

#[test]
fn folders_that_are_not_a_whole_journal() {
    let remove = |index| move |sim: &SimStorage| sim.remove(&segment_name(index)).unwrap();
    let is_missing = |index: u64| move |error: &JournalError| matches!(error, JournalError::MissingSegment { segment, .. } if *segment == segment_name(index));
    check("the first is missing", remove(0), is_missing(0));
    check("one in the middle is missing", remove(2), is_missing(2));
    for name in ["notes.txt", "1.seg", "00000000000000FF.seg", "spare-x", "segment"] {
        let is_foreign = |error: &JournalError| matches!(error, JournalError::ForeignFile { name: found } if found == name);
        check(name, |sim| write(sim, name, b"x", 0), is_foreign);
    }
    let is_size =
        |error: &JournalError| matches!(error, JournalError::SegmentSize { found_bytes: 65_537, .. });
    check("a longer segment", |sim| write(sim, &segment_name(2), b"x", 65_536), is_size);
}

#[test]
fn bytes_no_journal_of_this_version_wrote() {
    let sim = SimStorage::new();
    write(&sim, &segment_name(0), &vec![b'x'; 65_536], 0);
    let error = open(Arc::new(sim), options(), Position::genesis()).unwrap_err();
    assert!(matches!(error, JournalError::ForeignContent { .. }), "{error}");
    for (index, at) in [(0, 30_096), (4, 0)] {
        let is_version = |error: &JournalError| {
            matches!(error, JournalError::UnknownVersion { version: 2, offset, .. }
                if *offset == index * SEGMENT_BYTES + at)
        };
        check("a newer version", |sim| write(sim, &segment_name(index), &[2], at + 4), is_version);
    }
    // A newer version as the very last frames, without a witness behind it: refused as well, never cut.
    let zeros = vec![0; 60_000];
    let newer_tail = |sim: &SimStorage| {
        write(sim, &segment_name(4), &[2], 4);
        write(sim, &segment_name(4), &zeros, 5_000);
    };
    check("a newer tail", newer_tail, |error| matches!(error, JournalError::UnknownVersion { .. }));
}

#[test]
fn an_intact_frame_out_of_the_chain() {
    let forge = |sequence, prev| {
        move |sim: &SimStorage| {
            let mut bytes = Vec::new();
            frame::push_unsealed(&mut bytes, 20, 4, &[b"fake"]);
            let offset = 4 * SEGMENT_BYTES + 2 * 30_096 + HEADER_BYTES as u64;
            let seal = Seal { sequence, synced: 0, written_at_ms: 0, prev };
            frame::seal(&mut bytes, offset, &seal).unwrap();
            write(sim, &segment_name(4), &bytes, offset % SEGMENT_BYTES);
        }
    };
    let at = 4 * SEGMENT_BYTES + 2 * 30_096 + HEADER_BYTES as u64;
    check("a sequence that skips", forge(12, [0; 32]), is_corrupt(at, Fault::Sequence));
    check("another past", forge(11, [7; 32]), is_corrupt(at, Fault::Previous));
}

#[test]
fn a_start_that_does_not_fit() {
    let sim = filled();
    let start = |offset, sequence| Position { offset, sequence, hash: [9; 32] };
    let far = open(Arc::new(sim.clone()), options(), start(9 * SEGMENT_BYTES + 8, 99)).unwrap_err();
    assert!(matches!(far, JournalError::MissingSegment { .. }), "{far}");
    let other = open(Arc::new(sim), options(), start(SEGMENT_BYTES, 2)).unwrap_err();
    assert!(matches!(other, JournalError::Corrupt { reason: Fault::Previous, .. }), "{other}");
}

#[test]
fn a_visitor_may_refuse_and_options_are_checked() {
    let sim = filled();
    let mut visit =
        |frame: super::super::Frame<'_>| if frame.sequence == 3 { Err("not this one") } else { Ok(()) };
    let refused =
        super::super::Journal::open(Arc::new(sim.clone()), options(), Position::genesis(), &mut visit);
    let error = refused.unwrap_err();
    assert!(
        matches!(error, JournalError::Visit { offset, .. } if offset == SEGMENT_BYTES + 30_096),
        "{error}"
    );
    for segment_bytes in [0, 100, 1 << 40] {
        let wrong = Options { segment_bytes, ..options() };
        let error = open(Arc::new(sim.clone()), wrong, Position::genesis()).unwrap_err();
        assert!(matches!(error, JournalError::Options { .. }), "{error}");
    }
}

#[test]
fn a_torn_tail_is_cut_and_told() {
    let sim = filled();
    // The mark goes first, and with it the witness of the last frame.
    assert!(sim.spoil(&segment_name(4), 60_192..60_200) && sim.spoil(&segment_name(4), 50_000..50_001));
    let (journal, recovery, contents) = open(Arc::new(sim.clone()), options(), Position::genesis()).unwrap();
    let cut = recovery.cut.unwrap();
    assert_eq!((contents.len(), cut.offset, cut.reason), (9, 4 * SEGMENT_BYTES + 30_096, Fault::Checksum));
    assert!(sim.contents(&segment_name(4)).unwrap()[30_096..].iter().all(|byte| *byte == 0));
    assert_eq!(journal.append(20, &[]).unwrap().sequence, 9);
}
