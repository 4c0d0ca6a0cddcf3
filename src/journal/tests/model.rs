//! The journal against a plain list, on a folder that crashes.
//!
//! After every reopening: what is recovered is a prefix of what was appended, byte for byte, with everything
//! that was reported as synced; damage below a witness (a later frame that calls it synced) is refused at the
//! right place and never cut. The checker itself is tested by taking the syncs out.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use super::super::segments::segment_name;
use super::super::sim::SimStorage;
use super::super::{HEADER_BYTES, Journal, JournalError, Options, Position};
use super::{Contents, SEGMENT_BYTES, cases, open, options, payload};

#[derive(Debug, Clone)]
enum Op {
    Append(usize),
    Sync,
    Reclaim,
    ReadBack(usize),
    DieAfter(u64),
    SpaceLeft(u64),
    WriteError,
    SyncError,
    /// The process ends, the machine does not.
    Restart,
    Crash {
        seed: u64,
        /// The recovery after it dies at this boundary, and recovers again.
        recovery_dies_after: Option<u64>,
        /// A place in the log, in thousandths of it, and bytes spoiled there.
        spoil: Option<(u64, u64)>,
    },
}

struct Entry {
    kind: u8,
    payload: Vec<u8>,
    offset: u64,
    end: u64,
    /// The synced offset it tells of, once it was handed to the disk.
    witness: u64,
}

struct Model {
    sim: SimStorage,
    journal: Option<Journal>,
    entries: Vec<Entry>,
    /// This many entries were reported as synced.
    acked: usize,
    /// A mark may have been written that tells of this offset.
    mark_witness: u64,
    /// Where replay starts, and how many entries lie before.
    start: Position,
    start_count: usize,
    appended: usize,
}

fn stepped() -> Options {
    Options { threads: false, pending_bytes_max: usize::MAX, ..options() }
}

impl Model {
    fn new(without_sync: bool) -> Result<Model, String> {
        let sim = SimStorage::new();
        sim.knobs(|knobs| knobs.without_sync = without_sync);
        let start = Position::genesis();
        let mut model = Model {
            sim,
            journal: None,
            entries: Vec::new(),
            acked: 0,
            mark_witness: 0,
            start,
            start_count: 0,
            appended: 0,
        };
        model.reopen(None)?;
        Ok(model)
    }

    fn apply(&mut self, op: &Op) -> Result<(), String> {
        let Some(journal) = self.journal.clone() else { return Ok(()) };
        match *op {
            Op::Append(len) => self.append(&journal, len)?,
            Op::Sync => self.sync(&journal),
            Op::Reclaim => self.reclaim(&journal),
            Op::ReadBack(at) => self.read_back(&journal, at)?,
            Op::DieAfter(n) => self.sim.fail_after(n),
            Op::SpaceLeft(bytes) => self.sim.knobs(|knobs| knobs.space_left_bytes = Some(bytes)),
            Op::WriteError => self.sim.knobs(|knobs| knobs.write_error = true),
            Op::SyncError => self.sim.knobs(|knobs| knobs.sync_error = true),
            Op::Restart => {
                // Ending the process may still write what waits and a mark behind it, or fail to.
                self.expect_witnesses(journal.synced());
                self.mark_witness = self.entries.last().map_or(0, |entry| entry.end);
                drop(journal);
                self.journal = None;
                if self.sim.is_dead() {
                    self.sim = self.sim.crash(1);
                }
                self.sim.knobs(|knobs| {
                    *knobs =
                        super::super::sim::Knobs { without_sync: knobs.without_sync, ..Default::default() }
                });
                self.reopen(None)?;
            }
            Op::Crash { seed, recovery_dies_after, spoil } => {
                let after = self.sim.crash(seed);
                drop(journal);
                self.journal = None;
                self.sim = after;
                let spoilt = spoil.and_then(|(place, len)| self.spoil(place, len));
                if let Some(n) = recovery_dies_after {
                    // It may get through, and write a mark when it ends.
                    self.mark_witness = self.entries.last().map_or(0, |entry| entry.end);
                    self.sim.fail_after(n);
                    drop(open(Arc::new(self.sim.clone()), stepped(), self.start));
                    self.sim = self.sim.crash(seed ^ n);
                }
                self.reopen(spoilt)?;
            }
        }
        Ok(())
    }

    fn append(&mut self, journal: &Journal, len: usize) -> Result<(), String> {
        let (kind, payload) = (16 + (len % 200) as u8, payload(self.appended, len));
        self.appended += 1;
        match journal.append(kind, &[&payload[..len / 2], &payload[len / 2..]]) {
            Ok(at) => {
                let offset = at.payload_at - HEADER_BYTES as u64;
                self.entries.push(Entry { kind, payload, offset, end: at.end, witness: 0 });
                Ok(())
            }
            Err(JournalError::FrameTooLarge { .. }) if len + HEADER_BYTES > SEGMENT_BYTES as usize => Ok(()),
            Err(_) if journal.failure().is_some() => Ok(()),
            Err(error) => Err(format!("an append of {len} bytes: {error}")),
        }
    }

    fn sync(&mut self, journal: &Journal) {
        self.expect_witnesses(journal.synced());
        while journal.step() {}
        let synced = journal.synced();
        self.acked = self.acked.max(self.entries.partition_point(|entry| entry.end <= synced));
    }

    /// What is not synced yet will tell of this offset once it is written.
    fn expect_witnesses(&mut self, synced: u64) {
        self.entries.iter_mut().filter(|entry| entry.end > synced).for_each(|entry| entry.witness = synced);
    }

    fn reclaim(&mut self, journal: &Journal) {
        self.start = journal.position();
        self.start_count = self.entries.partition_point(|entry| entry.end <= self.start.offset);
        let _ = journal.reclaim_before(self.start.offset);
    }

    fn read_back(&self, journal: &Journal, at: usize) -> Result<(), String> {
        let recent = &self.entries[self.start_count..];
        if recent.is_empty() || self.sim.is_dead() {
            return Ok(());
        }
        let entry = &recent[at % recent.len()];
        let mut buf = vec![0; entry.payload.len()];
        let got = journal.read_at(entry.offset + HEADER_BYTES as u64, &mut buf).map_err(|e| e.to_string())?;
        if got != buf.len() || buf != entry.payload {
            return Err(format!("read_at {} gave other bytes", entry.offset));
        }
        let frame = journal.frame_at(entry.offset).map_err(|e| e.to_string())?;
        let is_synced = entry.end <= journal.synced();
        if frame.map(|frame| frame.payload == entry.payload) != is_synced.then_some(true) {
            return Err(format!("frame_at {} does not give the frame", entry.offset));
        }
        Ok(())
    }

    /// Spoils bytes of an entry, and of those that follow it without a gap (where no mark lies between).
    fn spoil(&self, place: u64, len: u64) -> Option<(u64, u64)> {
        let recent = &self.entries[self.start_count..];
        let at = recent.len() * place as usize / 1000;
        let first = recent.get(at)?;
        let from = first.offset + place * 7919 % (first.end - first.offset);
        let joined = recent[at..].windows(2).take_while(|pair| pair[0].end == pair[1].offset).last();
        let limit = joined.map_or(first.end, |pair| pair[1].end);
        let to = (from + len).min(limit).min((from / SEGMENT_BYTES + 1) * SEGMENT_BYTES);
        let range = (from % SEGMENT_BYTES) as usize..(from % SEGMENT_BYTES + to - from) as usize;
        self.sim.spoil(&segment_name(from / SEGMENT_BYTES), range).then_some((from, to))
    }

    fn reopen(&mut self, spoilt: Option<(u64, u64)>) -> Result<(), String> {
        let opened = open(Arc::new(self.sim.clone()), stepped(), self.start);
        // Padding is under no checksum, and means nothing.
        let is_hit = |entry: &Entry| {
            let end = entry.offset + (HEADER_BYTES + entry.payload.len()) as u64;
            spoilt.is_some_and(|(from, to)| entry.offset < to && from < end)
        };
        let hit = self.entries.iter().skip(self.start_count).position(is_hit).map(|at| at + self.start_count);
        match (hit, opened) {
            (None, Ok((journal, _, contents))) => self.accept(journal, contents, self.acked),
            (None, Err(JournalError::ForeignContent { .. })) if spoilt.is_some_and(|(from, _)| from == 0) => {
                Ok(())
            }
            (None, Err(error)) => Err(format!("refused to open: {error}")),
            (Some(hit), Ok((journal, _, contents))) => {
                let offset = self.entries[hit].offset;
                let witnessed = |entry: &Entry| !is_hit(entry) && entry.witness > offset;
                if self.entries[hit..self.acked.max(hit)].iter().any(witnessed) {
                    return Err(format!(
                        "damage at {offset} was cut, though a later frame was synced after it"
                    ));
                }
                self.accept(journal, contents, self.acked.min(hit))
            }
            (Some(hit), Err(error)) => self.judge_refusal(hit, &error),
        }
    }

    fn judge_refusal(&self, hit: usize, error: &JournalError) -> Result<(), String> {
        let wanted = self.entries[hit].offset;
        let is_witnessed =
            self.mark_witness > wanted || self.entries[hit + 1..].iter().any(|entry| entry.witness > wanted);
        match error {
            JournalError::Corrupt { offset, .. } if *offset == wanted && is_witnessed => Ok(()),
            JournalError::UnknownVersion { offset, .. } if *offset == wanted => Ok(()),
            JournalError::ForeignContent { .. } if wanted == 0 => Ok(()),
            error => Err(format!("damage at {wanted} was reported as: {error}")),
        }
    }

    fn accept(&mut self, journal: Journal, contents: Contents, count_min: usize) -> Result<(), String> {
        let count = self.start_count + contents.len();
        if count < count_min {
            return Err(format!("{count} entries recovered, {count_min} were acknowledged"));
        }
        if count > self.entries.len() {
            return Err(format!("{count} entries recovered, {} were appended", self.entries.len()));
        }
        for (entry, (kind, payload)) in self.entries[self.start_count..].iter().zip(&contents) {
            if (entry.kind, &entry.payload) != (*kind, payload) {
                return Err(format!("the entry at {} came back changed", entry.offset));
            }
        }
        let mut reader = journal.reader(self.start.offset);
        for (_, payload) in &contents {
            match reader.next() {
                Ok(Some(frame)) if frame.payload == payload[..] => {}
                other => return Err(format!("a reader finds {other:?} instead of what was recovered")),
            }
        }
        self.entries.truncate(count);
        self.acked = count;
        self.mark_witness = self.mark_witness.min(journal.synced());
        self.journal = Some(journal);
        Ok(())
    }
}

/// Many appends of one length, so that a new frame often ends exactly where a lost one did.
fn op() -> impl Strategy<Value = Op> {
    let crash = (0..1000_u64, prop::option::weighted(0.3, 0..12_u64), spoil())
        .prop_map(|(seed, dies, spoil)| Op::Crash { seed, recovery_dies_after: dies, spoil });
    prop_oneof![
        12 => prop_oneof![4 => Just(3_000_usize), 4 => 0..600_usize, 2 => 0..20_000_usize, 1 => 0..100_000_usize].prop_map(Op::Append),
        8 => Just(Op::Sync),
        2 => Just(Op::Reclaim),
        2 => any::<usize>().prop_map(Op::ReadBack),
        1 => (0..20_u64).prop_map(Op::DieAfter),
        1 => (0..200_000_u64).prop_map(Op::SpaceLeft),
        1 => Just(Op::WriteError),
        1 => Just(Op::SyncError),
        2 => Just(Op::Restart),
        4 => crash,
    ]
}

fn spoil() -> impl Strategy<Value = Option<(u64, u64)>> {
    prop::option::weighted(0.25, (0..1000_u64, prop_oneof![1..8_u64, 1..3000_u64]))
}

fn check(ops: &[Op], without_sync: bool) -> Result<(), String> {
    let mut model = Model::new(without_sync)?;
    ops.iter().try_for_each(|op| model.apply(op))?;
    model.apply(&Op::Crash { seed: 0, recovery_dies_after: None, spoil: None })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_comes_back_is_what_was_promised(ops in prop::collection::vec(op(), 1..60)) {
        prop_assert_eq!(check(&ops, false), Ok(()));
    }
}

/// The property must be able to fail: without syncs, acknowledged entries are lost.
#[test]
fn the_property_fails_when_syncs_are_taken_out() {
    let config = Config { cases: 200, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let outcome =
        runner.run(&prop::collection::vec(op(), 1..60), |ops| check(&ops, true).map_err(TestCaseError::fail));
    assert!(matches!(outcome, Err(TestError::Fail(..))), "nobody noticed that nothing is durable");
}

/// One run over three segments, stopped at every boundary, torn in several ways, with the recovery stopped at
/// every boundary as well.
#[test]
fn every_boundary_of_a_run_and_of_its_recovery() {
    let run: Vec<Op> = [300, 40_000, 100, 30_000, 0, 20_000, 50_000, 8, 60_000]
        .into_iter()
        .flat_map(|len| [Op::Append(len), Op::Append(len / 3), Op::Sync, Op::ReadBack(len)])
        .chain([Op::Reclaim, Op::Append(50_000), Op::Sync, Op::Append(30_000), Op::Sync])
        .collect();
    let mut boundary = 0;
    loop {
        let mut died = false;
        for seed in [0, 1, 7] {
            let mut model = Model::new(false).unwrap();
            model.sim.fail_after(boundary);
            run.iter().for_each(|op| model.apply(op).unwrap());
            died = model.sim.is_dead();
            let recovery_dies_after = (seed > 0).then_some((boundary * 5 + seed) % 7);
            let crash = Op::Crash { seed, recovery_dies_after, spoil: None };
            model.apply(&crash).unwrap_or_else(|error| panic!("boundary {boundary}, seed {seed}: {error}"));
        }
        if !died {
            break;
        }
        boundary += 1;
    }
    assert!(boundary > 30, "the run has {boundary} boundaries");
}
