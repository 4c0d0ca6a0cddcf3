//! What was decided and not yet written: the records of every queue that go into the journal's next sync
//! together. Buffers are kept from group to group.

use hashbrown::HashMap;

use crate::domain::{Request, UnixMs, record};
use crate::intake::QueueId;
use crate::intake::embedded::identity::known_id;

/// Payload bytes at which a queue's part of a group is written though more may come.
pub const PART_BYTES_MAX: usize = 1 << 20;

/// Bytes of records from which on a further frame is begun: far below the smallest segment.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// The records of one queue.
pub struct Part {
    pub queue: QueueId,
    pub records: Vec<u8>,
    /// Where each record begins in `records`.
    pub starts: Vec<u32>,
    /// The campaigns met, each once.
    pub campaigns: Vec<u32>,
    pub accepted_at: UnixMs,
}

impl Part {
    /// The records in pieces that make a frame each: their starts, and their bytes.
    pub fn frames(&self) -> impl Iterator<Item = (&[u32], &[u8])> {
        let mut rest = self.starts.as_slice();
        std::iter::from_fn(move || {
            let first = *rest.first()? as usize;
            let fits = rest.partition_point(|start| (*start as usize) < first + FRAME_BYTES_MAX).max(1);
            let (piece, after) = rest.split_at(fits);
            rest = after;
            let end = after.first().map_or(self.records.len(), |start| *start as usize);
            Some((piece, &self.records[first..end]))
        })
    }
}

pub struct Group {
    pub parts: Vec<Part>,
    /// Campaigns and batches, written before the requests that refer to them.
    pub control: Vec<u8>,
    /// Where an id decided in this group stands: part and start. Hits are verified.
    fresh: HashMap<u64, (u32, u32)>,
    count: usize,
}

/// What a group says of an id.
pub enum Fresh<'a> {
    Unknown,
    Held(&'a [u8]),
    /// Another id with the same hash stands here: write the group first, then ask the index.
    Hidden,
}

impl Group {
    pub fn new(queues: impl Iterator<Item = QueueId>) -> Group {
        let part = |queue| Part {
            queue,
            records: Vec::new(),
            starts: Vec::new(),
            campaigns: Vec::new(),
            accepted_at: 0,
        };
        Group { parts: queues.map(part).collect(), control: Vec::new(), fresh: HashMap::new(), count: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0 && self.control.is_empty()
    }

    pub fn is_large(&self) -> bool {
        self.parts.iter().any(|part| part.records.len() >= PART_BYTES_MAX)
    }

    pub fn push(
        &mut self,
        position: usize,
        key_hash: u64,
        record: &[u8],
        campaign: Option<u32>,
        now: UnixMs,
    ) {
        let part = &mut self.parts[position];
        part.accepted_at = now;
        // Few campaigns share a part; as a rule it is the one met last.
        if let Some(number) = campaign
            && !part.campaigns.iter().rev().any(|known| *known == number)
        {
            part.campaigns.push(number);
        }
        let start = part.records.len() as u32;
        part.records.extend_from_slice(record);
        part.starts.push(start);
        // A cancel of an id that another record holds is not what that id is known by.
        if record::holds_id(record) {
            self.fresh.insert(key_hash, (position as u32, start));
        }
        self.count += 1;
    }

    pub fn find(&self, key_hash: u64, key: (&str, &str)) -> Fresh<'_> {
        let Some((position, start)) = self.fresh.get(&key_hash).copied() else { return Fresh::Unknown };
        let record = &self.parts[position as usize].records[start as usize..];
        let request = Request::decode(record).expect("encoded by the door");
        if (request.client, known_id(&request)) == key {
            Fresh::Held(&record[..request.encoded_len()])
        } else {
            Fresh::Hidden
        }
    }

    pub fn clear(&mut self) {
        for part in &mut self.parts {
            part.records.clear();
            part.starts.clear();
            part.campaigns.clear();
        }
        self.control.clear();
        self.fresh.clear();
        self.count = 0;
    }
}
