//! The embedded intake: queues whose elements stand in the journal's accept frames.
//!
//! In memory a queue is the list of its frames that are not fully acknowledged, eight bytes each, however deep
//! it is. Frames are read back, verified, only once they are durable. [`entry`] is the stored form,
//! [`identity`] answers which ids were seen, [`parking`] keeps what waits for a time.

pub mod entry;
pub mod identity;
pub mod parking;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use self::entry::{Ack, FRAME_ACCEPT, FRAME_ACK, SECTION_BYTES, Section};
use super::{Element, Intake, IntakeError, QueueId};
use crate::domain::Lane;
use crate::domain::bytes::{TAG_REQUEST, entries, peek};
use crate::journal::{Frame, HEADER_BYTES, Journal};
use crate::shaping::Seen;

/// Requests in one frame at the most; what is packed beside a frame's place has this many bits.
pub const FRAME_COUNT_MAX: u32 = (1 << 24) - 1;

/// A frame of a queue: its place in units of eight bytes, and how many requests it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FrameRef(u64);

impl FrameRef {
    fn new(offset: u64, count: u32) -> FrameRef {
        assert!(
            offset.is_multiple_of(8) && offset >> 43 == 0 && count <= FRAME_COUNT_MAX,
            "journal past 8 TiB"
        );
        FrameRef((offset / 8) << 24 | u64::from(count))
    }
    fn offset(self) -> u64 {
        (self.0 >> 24) * 8
    }
    fn count(self) -> u64 {
        self.0 & u64::from(FRAME_COUNT_MAX)
    }
}

/// A frame being read, and how far.
struct Open {
    payload: Bytes,
    payload_at: u64,
    at: usize,
    index: u64,
}

#[derive(Default)]
struct Queue {
    /// Frames with something unacknowledged, in order; the first begins at `head_index`.
    frames: VecDeque<FrameRef>,
    head_index: u64,
    acked: u64,
    next_index: u64,
    /// Frames of `frames` that were opened for reading, and the index at which the next one begins.
    opened: usize,
    unopened_index: u64,
    open: Option<Open>,
}

impl Queue {
    fn push(&mut self, frame: FrameRef) {
        self.frames.push_back(frame);
        self.next_index += frame.count();
    }

    fn ack(&mut self, below_index: u64) {
        assert!(below_index <= self.next_index, "an ack past what was accepted: {below_index}");
        self.acked = self.acked.max(below_index);
        while let Some(first) = self.frames.front()
            && self.head_index + first.count() <= self.acked
        {
            self.head_index += first.count();
            self.frames.pop_front();
            self.opened = self.opened.saturating_sub(1);
        }
        self.unopened_index = self.unopened_index.max(self.head_index);
    }

    fn unread(&self) -> bool {
        self.open.is_some() || self.opened < self.frames.len()
    }

    fn look(&self) -> Seen {
        let read = self.open.as_ref().map_or(self.unopened_index, |open| open.index).max(self.acked);
        let come = self.next_index;
        Seen { come, waiting: come - self.acked, unread: come.saturating_sub(read) }
    }
}

/// The queues' state before the journal is open.
pub struct Restoring {
    fair_queue_count: u8,
    queues: Vec<Queue>,
}

impl Restoring {
    pub fn new(fair_queue_count: u8) -> Restoring {
        let count = Lane::ALL.len() * usize::from(fair_queue_count);
        Restoring { fair_queue_count, queues: (0..count).map(|_| Queue::default()).collect() }
    }

    fn queue(&mut self, id: QueueId, place: u64) -> Result<&mut Queue, IntakeError> {
        let reason =
            format!("fair queue {} of {}: intake.fair_queues was lowered", id.fair, self.fair_queue_count);
        let inside = id.fair < self.fair_queue_count;
        let queue = inside.then(|| &mut self.queues[id.position(self.fair_queue_count)]);
        queue.ok_or(IntakeError::Damaged { place, reason })
    }

    /// Takes in a frame of the journal; frames of other rooms, and those a snapshot had already, are passed
    /// over. True if the frame holds requests that are new.
    pub fn visit(&mut self, frame: &Frame<'_>) -> Result<bool, IntakeError> {
        let place = frame.payload_at;
        let damaged = |error: crate::domain::bytes::EntryError| IntakeError::Damaged {
            place,
            reason: error.to_string(),
        };
        match frame.kind {
            FRAME_ACCEPT => {
                let section = Section::decode(frame.payload).map_err(damaged)?;
                let queue = self.queue(section.queue, place)?;
                if section.first_index < queue.next_index {
                    return Ok(false);
                }
                if section.first_index > queue.next_index {
                    let reason =
                        format!("requests {} to {} are missing", queue.next_index, section.first_index);
                    return Err(IntakeError::Damaged { place, reason });
                }
                queue.push(FrameRef::new(frame.offset, section.count));
                Ok(true)
            }
            FRAME_ACK => {
                for item in entries(frame.payload) {
                    let (_, _, bytes) = item.map_err(damaged)?;
                    let ack = Ack::decode(bytes).map_err(damaged)?;
                    let queue = self.queue(ack.queue, place)?;
                    if ack.below_index > queue.next_index {
                        let reason =
                            format!("an ack of {} in a queue of {}", ack.below_index, queue.next_index);
                        return Err(IntakeError::Damaged { place, reason });
                    }
                    queue.ack(ack.below_index);
                }
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    /// Restores a queue from a snapshot.
    pub fn restore(&mut self, snapshot: &[u8]) -> Result<(), IntakeError> {
        let damaged = |reason: &str| IntakeError::Damaged { place: 0, reason: format!("snapshot: {reason}") };
        let mut words =
            snapshot.chunks_exact(8).map(|chunk| u64::from_le_bytes(chunk.try_into().expect("eight")));
        let mut next = || words.next().ok_or_else(|| damaged("the queues are cut short"));
        let count = next()?;
        if count != self.queues.len() as u64 {
            return Err(damaged(&format!(
                "it has {count} queues; intake.fair_queues may not change while it is in use"
            )));
        }
        for queue in &mut self.queues {
            let (head_index, acked, next_index, frame_count) = (next()?, next()?, next()?, next()?);
            let frames = (0..frame_count).map(|_| next().map(FrameRef)).collect::<Result<_, _>>()?;
            *queue = Queue {
                frames,
                head_index,
                acked,
                next_index,
                opened: 0,
                unopened_index: head_index,
                open: None,
            };
        }
        Ok(())
    }
}

pub struct EmbeddedIntake {
    journal: Journal,
    fair_queue_count: u8,
    queues: Vec<Mutex<Queue>>,
    /// Place of the last request handed out, per queue: what is at or before it is being processed.
    dispatched: Vec<AtomicU64>,
}

impl EmbeddedIntake {
    pub fn new(restored: Restoring, journal: Journal) -> EmbeddedIntake {
        let dispatched = restored.queues.iter().map(|_| AtomicU64::new(0)).collect();
        EmbeddedIntake {
            journal,
            fair_queue_count: restored.fair_queue_count,
            queues: restored.queues.into_iter().map(Mutex::new).collect(),
            dispatched,
        }
    }

    fn queue(&self, id: QueueId) -> MutexGuard<'_, Queue> {
        let queue = &self.queues[id.position(self.fair_queue_count)];
        queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends encoded requests to a queue: `(place of the first, end)`. Durable once the journal has synced
    /// to the end. One caller at a time: the desk.
    pub fn append(&self, id: QueueId, count: u32, records: &[u8]) -> Result<(u64, u64), IntakeError> {
        let first_index = self.queue(id).next_index;
        let mut section = Vec::with_capacity(SECTION_BYTES);
        Section { queue: id, first_index, count }.encode(&mut section);
        let appended = self.journal.append(FRAME_ACCEPT, &[&section, records])?;
        let frame = FrameRef::new(appended.payload_at - HEADER_BYTES as u64, count);
        self.queue(id).push(frame);
        Ok((appended.payload_at + SECTION_BYTES as u64, appended.end))
    }

    /// Whether the request at this place was handed to the pipeline.
    pub fn is_dispatched(&self, id: QueueId, place: u64) -> bool {
        place <= self.dispatched[id.position(self.fair_queue_count)].load(Ordering::Relaxed)
    }

    /// All accepted and unacknowledged requests outside the control lane.
    pub fn backlog(&self) -> u64 {
        unacknowledged(&self.queues[usize::from(self.fair_queue_count)..])
    }

    /// Requests of the control lane that are not acknowledged.
    pub fn control_backlog(&self) -> u64 {
        unacknowledged(&self.queues[..usize::from(self.fair_queue_count)])
    }

    /// How the queues outside the control lane stand, in the order of service.
    pub fn look(&self, out: &mut Vec<Seen>) {
        out.clear();
        out.extend(
            self.queues[usize::from(self.fair_queue_count)..]
                .iter()
                .map(|queue| queue.lock().unwrap_or_else(PoisonError::into_inner).look()),
        );
    }

    /// Requests outside the control lane that the pipeline has not taken yet.
    pub fn unread(&self) -> u64 {
        let paced = self.queues[usize::from(self.fair_queue_count)..].iter();
        paced.map(|queue| queue.lock().unwrap_or_else(PoisonError::into_inner).look().unread).sum()
    }

    /// The lowest frame that still has something unacknowledged.
    pub fn oldest_unacked(&self) -> Option<u64> {
        let queues = self.queues.iter().map(|queue| queue.lock().unwrap_or_else(PoisonError::into_inner));
        queues.filter_map(|queue| queue.frames.front().map(|frame| frame.offset())).min()
    }

    /// The state of the queues for a snapshot; see [`Restoring::restore`].
    pub fn snapshot(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut put = |word: u64| out.extend_from_slice(&word.to_le_bytes());
        put(self.queues.len() as u64);
        for queue in &self.queues {
            let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            [queue.head_index, queue.acked, queue.next_index, queue.frames.len() as u64]
                .into_iter()
                .for_each(&mut put);
            queue.frames.iter().for_each(|frame| put(frame.0));
        }
        out
    }

    /// Opens the next frame of a queue for reading, if it is durable. Skips what is acknowledged already.
    fn open_next(&self, queue: &mut Queue) -> Result<bool, IntakeError> {
        let Some(frame) = queue.frames.get(queue.opened).copied() else { return Ok(false) };
        let Some(owned) = self.journal.frame_at(frame.offset())? else { return Ok(false) };
        let mut open = Open {
            payload_at: frame.offset() + HEADER_BYTES as u64,
            payload: owned.payload,
            at: SECTION_BYTES,
            index: queue.unopened_index,
        };
        while open.index < queue.acked && open.next(None)? {}
        queue.opened += 1;
        queue.unopened_index += frame.count();
        queue.open = Some(open);
        Ok(true)
    }
}

fn unacknowledged(queues: &[Mutex<Queue>]) -> u64 {
    let locked = queues.iter().map(|queue| queue.lock().unwrap_or_else(PoisonError::into_inner));
    locked.map(|queue| queue.next_index - queue.acked).sum()
}

impl Open {
    /// Moves over one request, handing it out if asked; false at the end of the frame.
    fn next(&mut self, out: Option<&mut Vec<Element>>) -> Result<bool, IntakeError> {
        if self.at >= self.payload.len() {
            return Ok(false);
        }
        let place = self.payload_at + self.at as u64;
        let end = match peek(&self.payload[self.at..]) {
            Some((length, TAG_REQUEST)) if self.at + length <= self.payload.len() => self.at + length,
            _ => return Err(IntakeError::Damaged { place, reason: "no request begins here".to_owned() }),
        };
        if let Some(out) = out {
            let record = self.payload.slice(self.at..end);
            out.push(Element { index: self.index, place, mark: place, may_be_sent: false, record });
        }
        (self.at, self.index) = (end, self.index + 1);
        Ok(true)
    }
}

impl Intake for EmbeddedIntake {
    fn fair_queue_count(&self) -> u8 {
        self.fair_queue_count
    }

    fn read(&self, id: QueueId, count_max: usize, out: &mut Vec<Element>) -> Result<(), IntakeError> {
        let mut queue = self.queue(id);
        let wanted = out.len() + count_max;
        while out.len() < wanted {
            if queue.open.is_none() && !self.open_next(&mut queue)? {
                break;
            }
            let open = queue.open.as_mut().expect("opened above");
            while out.len() < wanted && open.next(Some(out))? {}
            if open.at >= open.payload.len() {
                queue.open = None;
            }
        }
        if let Some(last) = out.last() {
            self.dispatched[id.position(self.fair_queue_count)].store(last.place, Ordering::Relaxed);
        }
        Ok(())
    }

    fn has_unread(&self, id: QueueId) -> bool {
        let queue = self.queue(id);
        let synced = self.journal.synced();
        let next_durable = || queue.frames.get(queue.opened).is_some_and(|frame| frame.offset() < synced);
        queue.open.is_some() || (queue.unread() && next_durable())
    }

    fn ack(&self, id: QueueId, below_index: u64) -> Result<(), IntakeError> {
        let mut bytes = Vec::with_capacity(16);
        Ack { queue: id, below_index }.encode(&mut bytes);
        self.journal.append(FRAME_ACK, &[&bytes])?;
        self.queue(id).ack(below_index);
        Ok(())
    }

    fn depth(&self, id: QueueId) -> u64 {
        let queue = self.queue(id);
        queue.next_index - queue.acked
    }
}
