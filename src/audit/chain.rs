//! Walks the frames in order and judges the chain between them.
//!
//! ```text
//! valid and next in the chain ──> visit, go on
//! valid, but out of the chain ──> breach; go on from it
//! not valid ──> the next segment goes on with the chain? ──> go on there (a full segment ends in zeros)
//!          └──> a later frame says that this place was durable? ──> breach; go on at the next valid frame
//!          └──> nothing durable follows: the end; what stands here is a torn tail, and no breach
//! ```
//!
//! Absent: what the frames hold.

use super::error::AuditError;
use super::frame::{self, Frame, HEADER_BYTES, Hash};
use super::segments::Segments;

/// Where the chain stands: what the next frame must follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Logical offset at which the newest frame ends.
    pub end: u64,
    /// Sequence number that the next frame must carry.
    pub sequence: u64,
    /// Hash of the newest frame.
    pub hash: Hash,
    /// Unix ms at which the newest frame was written.
    pub written_at: u64,
}

impl Link {
    fn is_next(&self, frame: &Frame<'_>) -> bool {
        frame.sequence == self.sequence && frame.prev == self.hash
    }

    fn after(frame: &Frame<'_>) -> Link {
        Link { end: frame.end, sequence: frame.sequence + 1, hash: frame.hash, written_at: frame.written_at }
    }
}

/// Who is shown the frames.
pub trait Visitor {
    fn frame(&mut self, frame: &Frame<'_>);
    /// The chain is broken at this logical offset.
    fn broken(&mut self, offset: u64, detail: String);
    /// Share of the journal that was walked, 0 to 1.
    fn progress(&mut self, share: f64);
}

/// How the walk ended.
#[derive(Clone, Copy, Debug)]
pub struct Walked {
    pub link: Link,
    /// Bytes at the end that are no valid frame and were never durable.
    pub torn_bytes: u64,
}

#[derive(Clone, Copy)]
struct Spot {
    segment: usize,
    position: usize,
}

/// Valid frames behind a bad one.
struct Later {
    first: Spot,
    end: u64,
    /// The highest logical offset that any of them knew to be durable.
    synced: u64,
}

pub fn walk(segments: &mut Segments, start: Link, visitor: &mut dyn Visitor) -> Result<Walked, AuditError> {
    let mut link = start;
    let mut spot = Spot { segment: 0, position: 0 };
    if segments.base(0) != start.end {
        visitor.broken(start.end, format!("the first segment begins at {}", segments.base(0)));
    }
    loop {
        segments.load(spot.segment)?;
        run(segments, &mut spot, &mut link, visitor);
        visitor.progress((spot.segment + 1) as f64 / segments.count() as f64);
        if goes_on_in_next(segments, spot, &link)? {
            spot = Spot { segment: spot.segment + 1, position: 0 };
            continue;
        }
        segments.load(spot.segment)?;
        let bad = segments.base(spot.segment) + spot.position as u64;
        let torn = torn_bytes(segments.bytes(spot.position), bad);
        match find_later(segments, spot)? {
            Some(later) if later.synced > bad => {
                let detail =
                    format!("no valid frame {} where a later frame says that one was durable", link.sequence);
                visitor.broken(bad, detail);
                link = resume(segments, later.first)?;
                spot = later.first;
            }
            Some(later) => return Ok(Walked { link, torn_bytes: torn.max(later.end - bad) }),
            None => return Ok(Walked { link, torn_bytes: torn }),
        }
    }
}

/// Visits valid frames from `spot` on, to the first bytes that are none.
fn run(segments: &Segments, spot: &mut Spot, link: &mut Link, visitor: &mut dyn Visitor) {
    let base = segments.base(spot.segment);
    while let Some(frame) = frame::read(segments.bytes(spot.position), base + spot.position as u64) {
        if !link.is_next(&frame) {
            let detail = if frame.sequence == link.sequence {
                format!("frame {} does not follow the frame before it: another hash", frame.sequence)
            } else {
                format!("frame {} stands where {} should", frame.sequence, link.sequence)
            };
            visitor.broken(frame.offset, detail);
        }
        visitor.frame(&frame);
        *link = Link::after(&frame);
        spot.position = (frame.end - base) as usize;
    }
}

/// Whether the next segment of the list goes on with the chain. Leaves that segment loaded.
fn goes_on_in_next(segments: &mut Segments, spot: Spot, link: &Link) -> Result<bool, AuditError> {
    let next = spot.segment + 1;
    if next == segments.count() || segments.index(next) != segments.index(spot.segment) + 1 {
        return Ok(false);
    }
    segments.load(next)?;
    Ok(frame::read(segments.bytes(0), segments.base(next)).is_some_and(|frame| link.is_next(&frame)))
}

/// Looks for valid frames behind `spot`, in this segment and all later ones.
fn find_later(segments: &mut Segments, spot: Spot) -> Result<Option<Later>, AuditError> {
    let mut later: Option<Later> = None;
    let mut position = spot.position + 8;
    for segment in spot.segment..segments.count() {
        segments.load(segment)?;
        let base = segments.base(segment);
        while segments.bytes(position).len() >= HEADER_BYTES {
            let Some(frame) = frame::read(segments.bytes(position), base + position as u64) else {
                position += 8;
                continue;
            };
            let first = Spot { segment, position };
            let found = later.get_or_insert(Later { first, end: 0, synced: 0 });
            found.end = frame.end;
            found.synced = found.synced.max(frame.synced);
            position = (frame.end - base) as usize;
        }
        position = 0;
    }
    Ok(later)
}

/// The link that makes the frame at `spot` the next one: what lies before it is lost.
fn resume(segments: &mut Segments, spot: Spot) -> Result<Link, AuditError> {
    segments.load(spot.segment)?;
    let offset = segments.base(spot.segment) + spot.position as u64;
    let frame = frame::read(segments.bytes(spot.position), offset).expect("it was found valid before");
    Ok(Link { end: offset, sequence: frame.sequence, hash: frame.prev, written_at: frame.written_at })
}

/// How much of the bytes at the end looks like a frame that was being written. A recycled segment ends in
/// frames that claim other offsets: those are not ours.
fn torn_bytes(bytes: &[u8], offset: u64) -> u64 {
    if frame::is_claimed(bytes, offset) {
        return frame::claimed_bytes(bytes).min(bytes.len() as u64);
    }
    let is_recycled = bytes.chunks(8).any(frame::is_marked);
    let last = bytes.iter().rposition(|byte| *byte != 0);
    if is_recycled { 0 } else { last.map_or(0, |last| last as u64 + 1) }
}
