//! What was appended and not written yet: frames laid out exactly as they will stand on disk.
//!
//! A batch is one buffer and a few runs, each a piece of the buffer that lies in one segment without a gap.
//! Absent: locks and I/O; the buffer is swapped and reused by the writer.

use super::frame::{self, TERMINATOR, frame_bytes};

/// A piece of the buffer that stands in one segment at a logical offset.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub offset: u64,
    pub at: usize,
    pub len: usize,
}

#[derive(Debug, Default)]
pub(super) struct Batch {
    pub bytes: Vec<u8>,
    pub runs: Vec<Run>,
    /// Where the last frame ends.
    pub end: u64,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The offset of the first byte.
    pub fn start(&self) -> Option<u64> {
        self.runs.first().map(|run| run.offset)
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.runs.clear();
    }

    /// Lays out one frame behind `end`; in the next segment where this one has no room. Says where it starts.
    /// The caller has checked that the frame fits a segment.
    pub fn push(&mut self, end: u64, segment_bytes: u64, kind: u8, payload_len: u32, parts: &[&[u8]]) -> u64 {
        let need = frame_bytes(u64::from(payload_len));
        assert!(need <= segment_bytes, "a frame fits a segment");
        let mut offset = end;
        let room = segment_bytes - end % segment_bytes;
        if need > room {
            if room >= TERMINATOR.len() as u64 {
                // Recycled segments hold old bytes: the end of the used part must be said.
                self.extend(end, |bytes| bytes.extend_from_slice(&TERMINATOR), segment_bytes);
            }
            offset = end + room;
        }
        self.extend(offset, |bytes| frame::push_unsealed(bytes, kind, payload_len, parts), segment_bytes);
        self.end = offset + need;
        offset
    }

    fn extend(&mut self, offset: u64, write: impl FnOnce(&mut Vec<u8>), segment_bytes: u64) {
        let at = self.bytes.len();
        write(&mut self.bytes);
        let len = self.bytes.len() - at;
        match self.runs.last_mut() {
            // A run ends with its segment, even where the next segment follows without a gap.
            Some(run) if run.offset + run.len as u64 == offset && !offset.is_multiple_of(segment_bytes) => {
                run.len += len;
            }
            _ => self.runs.push(Run { offset, at, len }),
        }
    }

    /// Copies what this batch holds at `offset`; says how much. Stops at the end of a run.
    pub fn copy_at(&self, offset: u64, buf: &mut [u8]) -> usize {
        let after = self.runs.partition_point(|run| run.offset <= offset);
        let Some(run) = after.checked_sub(1).and_then(|index| self.runs.get(index)) else { return 0 };
        let skip = (offset - run.offset) as usize;
        if skip >= run.len {
            return 0;
        }
        let count = buf.len().min(run.len - skip);
        buf[..count].copy_from_slice(&self.bytes[run.at + skip..run.at + skip + count]);
        count
    }
}
