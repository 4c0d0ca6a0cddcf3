//! Reading synced frames in order, from any frame on.
//!
//! What holds: only frames wholly below `synced` are returned, each verified; from the second frame on the
//! chain is verified too, so a reader cannot slip past a damaged piece. Absent: waiting; a reader that is at
//! the end asks again after the journal's wake-up.

use std::sync::Arc;

use super::error::{Fault, JournalError};
use super::frame::{self, HEADER_BYTES, Hash, Header, KIND_FIRST_FREE, OwnedFrame, Seen};
use super::segments::segment_name;
use super::shared::Shared;
use super::window::{Kept, Window};

/// A sequential reader. It skips the ends of segments and the journal's own frames.
pub struct Reader {
    shared: Arc<Shared>,
    at: u64,
    /// Sequence and hash of the frame read last.
    last: Option<(u64, Hash)>,
    kept: Kept,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, from: u64) -> Reader {
        Reader { shared, at: from, last: None, kept: Kept::default() }
    }

    /// Where the next frame is looked for.
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// The next frame; `None` at the end of what is synced now.
    #[allow(clippy::should_implement_trait, reason = "the end is not final, so this is no iterator")]
    pub fn next(&mut self) -> Result<Option<OwnedFrame>, JournalError> {
        loop {
            let synced = self.shared.synced();
            if self.at >= synced {
                return Ok(None);
            }
            let shared = Arc::clone(&self.shared);
            let end = shared.segments.end_of(self.at);
            let mut fetch = fetch_synced(&shared, synced);
            let mut window = Window::new(&mut self.kept, &mut fetch);
            match frame::examine(&mut window, self.at, end)? {
                Seen::Good(header, hash) => {
                    if let Some(fault) = chain_fault(self.last.as_ref(), &header) {
                        return Err(damage(&shared, self.at, self.sequence(), fault));
                    }
                    let payload = own(&mut window, &header)?;
                    self.last = Some((header.sequence, hash));
                    self.at = header.end();
                    if header.kind >= KIND_FIRST_FREE {
                        return Ok(Some(owned(&header, payload, hash)));
                    }
                }
                // The end of a segment; the chain is checked on the other side.
                Seen::Empty if end < synced => self.at = end,
                Seen::Empty => return Err(damage(&shared, self.at, self.sequence(), Fault::Empty)),
                Seen::Bad(fault) => return Err(damage(&shared, self.at, self.sequence(), fault)),
            }
        }
    }

    fn sequence(&self) -> u64 {
        self.last.map_or(0, |(sequence, _)| sequence + 1)
    }
}

/// One verified frame that begins at `offset`; `None` unless all of it is synced.
pub(super) fn frame_at(shared: &Shared, offset: u64) -> Result<Option<OwnedFrame>, JournalError> {
    let synced = shared.synced();
    if offset >= synced {
        return Ok(None);
    }
    let mut kept = Kept::small();
    let mut fetch = fetch_synced(shared, synced);
    let mut window = Window::new(&mut kept, &mut fetch);
    match frame::examine(&mut window, offset, shared.segments.end_of(offset))? {
        Seen::Good(header, hash) => {
            let payload = own(&mut window, &header)?;
            Ok(Some(owned(&header, payload, hash)))
        }
        Seen::Empty => Err(damage(shared, offset, 0, Fault::Empty)),
        Seen::Bad(fault) => Err(damage(shared, offset, 0, fault)),
    }
}

fn fetch_synced(shared: &Shared, synced: u64) -> impl FnMut(u64, &mut [u8]) -> Result<usize, JournalError> {
    move |offset, buf| {
        let left = usize::try_from(synced.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = buf.len().min(left);
        shared.read_at(offset, &mut buf[..count])
    }
}

fn chain_fault(last: Option<&(u64, Hash)>, header: &Header) -> Option<Fault> {
    let (sequence, hash) = last?;
    if header.sequence != sequence + 1 {
        Some(Fault::Sequence)
    } else if header.prev != *hash {
        Some(Fault::Previous)
    } else {
        None
    }
}

fn own(window: &mut Window<'_>, header: &Header) -> Result<bytes::Bytes, JournalError> {
    let frame = window.bytes(header.offset, HEADER_BYTES + header.payload_len as usize)?;
    Ok(bytes::Bytes::copy_from_slice(&frame[HEADER_BYTES..]))
}

fn owned(header: &Header, payload: bytes::Bytes, hash: Hash) -> OwnedFrame {
    OwnedFrame {
        kind: header.kind,
        sequence: header.sequence,
        offset: header.offset,
        payload_at: header.payload_at(),
        end: header.end(),
        payload,
        hash,
        written_at_ms: header.written_at_ms,
    }
}

/// Damage met while reading; a segment that was reclaimed meanwhile is not damaged.
fn damage(shared: &Shared, offset: u64, sequence: u64, reason: Fault) -> JournalError {
    let index = shared.segments.index_of(offset);
    if !shared.segments.exists(index) {
        return JournalError::Reclaimed { offset };
    }
    JournalError::Corrupt { segment: segment_name(index), offset, sequence, reason }
}
