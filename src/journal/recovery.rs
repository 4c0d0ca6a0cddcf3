//! Opening: which files there are, the walk over the frames, and the decision at the first bad one.
//!
//! ```text
//! files -> contiguous from the start's segment? -> walk valid, chained frames -> first bad one at B
//!   B intact but out of the chain, or a later frame that says B was durable -> refuse, change nothing
//!   otherwise: a torn tail -> zero what follows B, remove later segments, sync, return
//! ```
//!
//! What holds: nothing is changed before the decision; every step of the cut leaves a folder that recovers to
//! the same end, should it be interrupted; everything visited is durable when `recover` returns. Absent: the
//! meaning of payloads, and any repair: damage below a synced offset is for an operator.

use std::error::Error;
use std::sync::Arc;

use super::error::{Fault, JournalError};
use super::frame::{self, Frame, HEADER_BYTES, Header, KIND_FIRST_FREE, KIND_MARK, Seen, TERMINATOR};
use super::inventory::{check_contiguous, check_length, take_inventory};
use super::segments::{Segments, segment_name};
use super::spares::Spares;
use super::storage::Storage;
use super::window::{Kept, Window};
use super::{Options, Position};

const CUT_PIECE_BYTES: usize = 64 << 10;

/// What opening the journal found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Frames handed to the visitor, and the journal's own that were not.
    pub frames: u64,
    pub marks: u64,
    /// The end of the journal, where the next frame goes.
    pub end: Position,
    /// The torn tail that was cut, if there was one.
    pub cut: Option<Cut>,
}

/// A torn tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    pub offset: u64,
    pub reason: Fault,
    /// Whole frames that stood behind the first bad one; none of them was ever reported as synced.
    pub frames_dropped: u64,
}

pub(super) struct Recovered {
    pub segments: Segments,
    pub report: Recovery,
    /// The last frame was not a mark, so one is due.
    pub mark_due: bool,
}

pub(super) fn recover<E>(
    storage: Arc<dyn Storage>,
    options: &Options,
    start: Position,
    visit: &mut dyn FnMut(Frame<'_>) -> Result<(), E>,
) -> Result<Recovered, JournalError>
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let found = take_inventory(&*storage, options.segment_bytes)?;
    check_contiguous(&found.segments, start, options.segment_bytes)?;
    let known: Vec<u64> = found.segments.iter().copied().collect();
    let spares = Spares::new(Arc::clone(&storage), options.segment_bytes, found.spares);
    let segments = Segments::new(storage, options.segment_bytes, spares, &known);
    for index in known.iter().filter(|index| **index >= segments.index_of(start.offset)) {
        check_length(&*segments.file(*index)?, &segment_name(*index), options.segment_bytes)?;
    }
    let mut walk = Walk {
        segments: &segments,
        kept: Kept::default(),
        at: start,
        synced: start.offset,
        report: Recovery::default(),
        last_kind: None,
        torn_terminators: Vec::new(),
    };
    let end = walk.run(visit)?;
    walk.decide(end)?;
    let Walk { mut report, at, last_kind, .. } = walk;
    report.end = at;
    for name in found.doomed {
        segments.storage.remove(&name).map_err(|error| JournalError::storage("remove", &name, error))?;
    }
    sync_folder(&segments)?;
    let mark_due = last_kind.is_some_and(|kind| kind != KIND_MARK);
    // The cut removed segments; the set of names is read again rather than patched.
    let left = known.into_iter().filter(|index| index * options.segment_bytes <= at.offset);
    segments.retain(&left.collect());
    Ok(Recovered { segments, report, mark_due })
}

struct Walk<'a> {
    segments: &'a Segments,
    kept: Kept,
    /// The boundary behind the last good frame.
    at: Position,
    /// The highest synced offset any good frame told of.
    synced: u64,
    report: Recovery,
    last_kind: Option<u8>,
    /// Places where a segment's end was not written though the next segment goes on.
    torn_terminators: Vec<u64>,
}

impl Walk<'_> {
    /// Walks the chain to its end; says what stands there.
    fn run<E>(&mut self, visit: &mut dyn FnMut(Frame<'_>) -> Result<(), E>) -> Result<End, JournalError>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        loop {
            let offset = self.at.offset;
            let fault = match self.look(offset)? {
                Seen::Good(header, hash) => match self.chain_fault(&header) {
                    None => {
                        self.step(&header, hash, visit)?;
                        continue;
                    }
                    Some(fault) => return Err(self.corrupt(End { offset, fault })),
                },
                Seen::Empty => Fault::Empty,
                Seen::Bad(fault) => fault,
            };
            // The chain, not the bytes here, tells whether the next segment goes on where this one stopped.
            let next = self.segments.end_of(offset);
            let begun = !offset.is_multiple_of(self.segments.segment_bytes);
            match if begun { self.look(next)? } else { Seen::Empty } {
                Seen::Good(header, _) if self.chain_fault(&header).is_none() => {
                    if !matches!(fault, Fault::Empty) {
                        self.torn_terminators.push(offset);
                    }
                    self.at.offset = next;
                }
                // This segment ended as it should: what is wrong, if anything, is the next one's first frame.
                Seen::Bad(next_fault) if matches!(fault, Fault::Empty) => {
                    return Ok(End { offset: next, fault: next_fault });
                }
                Seen::Good(..) | Seen::Bad(_) | Seen::Empty => return Ok(End { offset, fault }),
            }
        }
    }

    fn step<E>(
        &mut self,
        header: &Header,
        hash: super::Hash,
        visit: &mut dyn FnMut(Frame<'_>) -> Result<(), E>,
    ) -> Result<(), JournalError>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let offset = header.offset;
        if header.kind >= KIND_FIRST_FREE {
            let len = header.payload_len as usize;
            let payload_at = header.payload_at();
            let mut fetch = fetch_from(self.segments);
            let mut window = Window::new(&mut self.kept, &mut fetch);
            let frame = Frame {
                kind: header.kind,
                sequence: header.sequence,
                offset,
                payload_at,
                payload: &window.bytes(offset, HEADER_BYTES + len)?[HEADER_BYTES..],
                hash,
                written_at_ms: header.written_at_ms,
            };
            visit(frame).map_err(|error| JournalError::Visit { offset, source: Arc::from(error.into()) })?;
            self.report.frames += 1;
        } else {
            self.report.marks += 1;
        }
        self.last_kind = Some(header.kind);
        self.synced = self.synced.max(header.synced);
        self.at = Position { offset: header.end(), sequence: header.sequence + 1, hash };
        Ok(())
    }

    fn look(&mut self, offset: u64) -> Result<Seen, JournalError> {
        if !self.segments.exists(self.segments.index_of(offset)) {
            return Ok(Seen::Empty);
        }
        let mut fetch = fetch_from(self.segments);
        frame::examine(&mut Window::new(&mut self.kept, &mut fetch), offset, self.segments.end_of(offset))
    }

    fn chain_fault(&self, header: &Header) -> Option<Fault> {
        if header.sequence != self.at.sequence {
            Some(Fault::Sequence)
        } else if header.prev != self.at.hash {
            Some(Fault::Previous)
        } else {
            None
        }
    }

    /// Refuses, or cuts the tail and makes everything before it durable.
    fn decide(&mut self, end: End) -> Result<(), JournalError> {
        let offset = self.at.offset;
        if let Fault::Version(version) = end.fault {
            let segment = segment_name(self.segments.index_of(end.offset));
            return Err(JournalError::UnknownVersion { segment, offset: end.offset, version });
        }
        let later = self.scan_later()?;
        if later.synced_max > offset {
            return Err(self.corrupt(end));
        }
        if offset == 0 && self.segments.exists(0) {
            let mut fetch = fetch_from(self.segments);
            let mut window = Window::new(&mut self.kept, &mut fetch);
            if !frame::could_begin_segment(window.bytes(0, HEADER_BYTES)?) {
                return Err(JournalError::ForeignContent { name: segment_name(0) });
            }
        }
        let zeroed = self.cut()?;
        if zeroed || later.frames > 0 {
            self.report.cut = Some(Cut { offset, reason: end.fault, frames_dropped: later.frames });
        }
        Ok(())
    }

    /// Looks for whole frames behind the end of the chain.
    fn scan_later(&mut self) -> Result<Later, JournalError> {
        let mut later = Later::default();
        let mut offset = self.at.offset;
        while self.segments.exists(self.segments.index_of(offset)) {
            let end = self.segments.end_of(offset);
            let mut fetch = fetch_from(self.segments);
            let mut window = Window::new(&mut self.kept, &mut fetch);
            while offset < end {
                match frame::examine(&mut window, offset, end)? {
                    Seen::Good(header, _) if header.sequence > self.at.sequence => {
                        later.frames += 1;
                        later.synced_max = later.synced_max.max(header.synced);
                        offset = header.end();
                    }
                    Seen::Good(..) | Seen::Bad(_) | Seen::Empty => offset += 8,
                }
            }
        }
        Ok(later)
    }

    /// Zeroes what follows the end, removes later segments, syncs. Says whether there was anything to zero.
    fn cut(&mut self) -> Result<bool, JournalError> {
        let segments = self.segments;
        let end_index = segments.index_of(self.at.offset);
        for offset in std::mem::take(&mut self.torn_terminators) {
            write_zeros(segments, offset, TERMINATOR.len())?;
        }
        let mut zeroed = false;
        let mut offset = self.at.offset;
        while segments.exists(end_index) && offset < segments.end_of(self.at.offset) {
            let mut piece = vec![0; CUT_PIECE_BYTES.min((segments.end_of(offset) - offset) as usize)];
            let got = fetch_from(segments)(offset, &mut piece)?;
            if piece[..got].iter().any(|byte| *byte != 0) {
                write_zeros(segments, offset, piece.len())?;
                zeroed = true;
            }
            offset += piece.len() as u64;
        }
        // What the last good frame did not call durable may be in the page cache only.
        for index in (segments.index_of(self.synced)..=end_index).filter(|index| segments.exists(*index)) {
            let sync = segments.file(index)?.sync();
            sync.map_err(|error| JournalError::storage("sync", &segment_name(index), error))?;
        }
        // Highest first, each made durable: an interruption leaves no gap. They are not recycled, because the
        // same index comes again and old frames would stand at their own offsets.
        for index in segments.above(end_index) {
            let name = segment_name(index);
            let removed = segments.storage.remove(&name);
            removed.map_err(|error| JournalError::storage("remove", &name, error))?;
            sync_folder(segments)?;
            zeroed = true;
        }
        self.kept.forget();
        Ok(zeroed)
    }

    fn corrupt(&self, end: End) -> JournalError {
        let segment = segment_name(self.segments.index_of(end.offset));
        JournalError::Corrupt { segment, offset: end.offset, sequence: self.at.sequence, reason: end.fault }
    }
}

/// Where the chain ends, and what is wrong with the bytes that stand there.
#[derive(Clone, Copy)]
struct End {
    offset: u64,
    fault: Fault,
}

#[derive(Default)]
struct Later {
    frames: u64,
    synced_max: u64,
}

fn fetch_from(segments: &Segments) -> impl FnMut(u64, &mut [u8]) -> Result<usize, JournalError> {
    move |offset, buf| {
        let index = segments.index_of(offset);
        if !segments.exists(index) {
            return Ok(0);
        }
        let room = usize::try_from(segments.end_of(offset) - offset).unwrap_or(usize::MAX);
        let count = buf.len().min(room);
        segments
            .file(index)?
            .read_at(&mut buf[..count], offset % segments.segment_bytes)
            .map_err(|error| JournalError::storage("read", &segment_name(index), error))
    }
}

fn write_zeros(segments: &Segments, offset: u64, len: usize) -> Result<(), JournalError> {
    let index = segments.index_of(offset);
    let room = (segments.end_of(offset) - offset) as usize;
    let zeros = vec![0; len.min(room)];
    let written = segments.file(index)?.write_at(&zeros, offset % segments.segment_bytes);
    written.map_err(|error| JournalError::storage("cut", &segment_name(index), error))
}

fn sync_folder(segments: &Segments) -> Result<(), JournalError> {
    let storage = &segments.storage;
    storage.sync_folder().map_err(|error| JournalError::storage("sync", &storage.folder(), error))
}
