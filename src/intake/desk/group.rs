//! What was decided and not yet written: the records of every queue that go into the journal's next sync
//! together. Buffers are kept from group to group.

use hashbrown::HashMap;

use crate::domain::{Request, UnixMs};
use crate::intake::QueueId;
use crate::intake::embedded::identity::known_id;

/// Payload bytes at which a queue's part of a group is written though more may come.
pub const PART_BYTES_MAX: usize = 1 << 20;

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
        self.fresh.insert(key_hash, (position as u32, start));
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
