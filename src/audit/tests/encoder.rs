//! Writes journals for the tests, from the words of the format. Independent of the code that settles, and of
//! the decoder: a journal is a list of frames of items, sealed in a chain only when it is written, so that a
//! test can change anything in it and get a chain that is whole again.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crate::domain::status::Status;

pub const SEGMENT_BYTES: usize = 1024;

#[derive(Clone, Debug)]
pub enum Item {
    Campaign {
        number: u32,
        json: String,
    },
    Section {
        queue: (u8, u8),
        first: u64,
        count: u32,
    },
    /// Kind, id, amount, party, merchant, original. Client `s`, campaign `c`, CNY.
    Request {
        kind: u8,
        id: &'static str,
        amount: u64,
        party: &'static str,
        merchant: &'static str,
        original: &'static str,
    },
    Account {
        number: u32,
        currency: &'static str,
        name: &'static str,
    },
    /// Kind, code, amount, debit, credit, id, of.
    Transfer(u8, u8, u64, u32, u32, &'static str, &'static str),
    /// Of the request with this id; `reason` 0: none.
    Outcome {
        of: &'static str,
        status: Status,
        code: u8,
        reason: u8,
        amount: u64,
    },
    Ack {
        queue: (u8, u8),
        below: u64,
    },
}

#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub items: Vec<Item>,
    /// Begins a segment, whatever room is left in the one before.
    pub begins_segment: bool,
}

/// A frame where it was written.
pub struct Written {
    pub offset: usize,
    pub end: usize,
    pub hash: [u8; 32],
}

#[derive(Default)]
pub struct Encoder {
    pub bytes: Vec<u8>,
    pub written: Vec<Written>,
    /// Place, kind and key hash of each request, by id.
    requests: HashMap<&'static str, (u64, u8, u64)>,
}

fn text(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Sets the length and pads an entry.
pub fn close(mut entry: Vec<u8>) -> Vec<u8> {
    entry.resize(entry.len().next_multiple_of(8), 0);
    let length = entry.len() as u32;
    entry[..4].copy_from_slice(&length.to_le_bytes());
    entry
}

pub fn head(tag: u8, sixth: u8, seventh: u8, bytes: usize) -> Vec<u8> {
    let mut entry = vec![0; bytes];
    entry[4..8].copy_from_slice(&[tag, 1, sixth, seventh]);
    entry
}

pub fn put(entry: &mut [u8], at: usize, bytes: &[u8]) {
    entry[at..at + bytes.len()].copy_from_slice(bytes);
}

pub fn key_hash(name: &str) -> u64 {
    u64::from_le_bytes(blake3::hash(name.as_bytes()).as_bytes()[..8].try_into().unwrap())
}

impl Encoder {
    fn item(&mut self, item: &Item, place: u64) -> Vec<u8> {
        match *item {
            Item::Campaign { number, ref json } => {
                let mut entry = head(8, 0, 0, 16);
                put(&mut entry, 8, &number.to_le_bytes());
                put(&mut entry, 12, &(json.len() as u32).to_le_bytes());
                text(&mut entry, &[json]);
                close(entry)
            }
            Item::Section { queue, first, count } => {
                let mut entry = head(6, queue.0, queue.1, 24);
                put(&mut entry, 8, &first.to_le_bytes());
                put(&mut entry, 16, &count.to_le_bytes());
                close(entry)
            }
            Item::Request { kind, id, amount, party, merchant, original } => {
                let own = if kind == 6 { original } else { id };
                let hash = key_hash(&format!("s:{own}"));
                self.requests.entry(id).or_insert((place, kind, hash));
                let mut entry = head(1, kind, 1, 80);
                put(&mut entry, 24, &hash.to_le_bytes());
                put(&mut entry, 32, &amount.to_le_bytes());
                put(&mut entry, 64, b"CNY");
                let strings = ["s", id, "c", party, merchant, "", "", original];
                for (position, string) in strings.iter().enumerate() {
                    entry[67 + position] = string.len() as u8;
                }
                text(&mut entry, &strings);
                close(entry)
            }
            Item::Account { number, currency, name } => {
                let mut entry = head(4, name.len() as u8, 0, 16);
                put(&mut entry, 8, &number.to_le_bytes());
                put(&mut entry, 12, currency.as_bytes());
                text(&mut entry, &[name]);
                close(entry)
            }
            Item::Transfer(kind, code, amount, debit, credit, id, of) => {
                let mut entry = head(3, kind, code, 56);
                put(&mut entry, 24, &amount.to_le_bytes());
                put(&mut entry, 32, &debit.to_le_bytes());
                put(&mut entry, 36, &credit.to_le_bytes());
                put(&mut entry, 40, &key_hash(id).to_le_bytes());
                put(&mut entry, 48, b"CNY");
                (entry[51], entry[52]) = (id.len() as u8, of.len() as u8);
                text(&mut entry, &[id, of]);
                close(entry)
            }
            Item::Outcome { of, status, code, reason, amount } => {
                let (request, kind, hash) = self.requests.get(of).copied().unwrap_or((8, 1, 0));
                let mut entry = head(2, status as u8, code, 72);
                put(&mut entry, 8, &request.to_le_bytes());
                put(&mut entry, 16, &request.to_le_bytes());
                put(&mut entry, 24, &hash.to_le_bytes());
                put(&mut entry, 56, &amount.to_le_bytes());
                (entry[64], entry[66]) = (reason, kind);
                close(entry)
            }
            Item::Ack { queue, below } => {
                let mut entry = head(5, queue.0, queue.1, 16);
                put(&mut entry, 8, &below.to_le_bytes());
                close(entry)
            }
        }
    }

    pub fn push(&mut self, frame: &Frame) {
        let at = |encoder: &Encoder| encoder.bytes.len() as u64 + 96;
        let place = at(self);
        // The size of a frame does not depend on where it stands, but the places in it do.
        let bytes: usize = frame.items.iter().map(|item| Encoder::default().item(item, 0).len()).sum();
        let room = SEGMENT_BYTES - self.bytes.len() % SEGMENT_BYTES;
        let has_begun = room == SEGMENT_BYTES;
        if room < 96 + bytes || (frame.begins_segment && !has_begun) {
            self.bytes.resize(self.bytes.len() + room, 0);
        }
        let (offset, mut payload) = (self.bytes.len(), Vec::new());
        let place = if offset as u64 + 96 == place { place } else { at(self) };
        for item in &frame.items {
            let entry = self.item(item, place + payload.len() as u64);
            payload.extend_from_slice(&entry);
        }
        let prev = self.written.last().map_or([0; 32], |written| written.hash);
        let hash =
            seal(&mut self.bytes, frame.kind, &payload, offset as u64, self.written.len() as u64, prev);
        self.written.push(Written { offset, end: self.bytes.len(), hash });
    }
}

/// Appends a sealed frame; answers its hash. Everything before it is said to be durable.
pub fn seal(
    out: &mut Vec<u8>,
    kind: u8,
    payload: &[u8],
    offset: u64,
    sequence: u64,
    prev: [u8; 32],
) -> [u8; 32] {
    let mut header = vec![0; 96];
    put(&mut header, 0, &0x314A_4248u32.to_le_bytes());
    put(&mut header, 4, &[1, 0, kind]);
    put(&mut header, 8, &(payload.len() as u32).to_le_bytes());
    put(&mut header, 16, &sequence.to_le_bytes());
    put(&mut header, 24, &offset.to_le_bytes());
    put(&mut header, 32, &offset.to_le_bytes());
    put(&mut header, 40, &1_700_000_000_000u64.to_le_bytes());
    put(&mut header, 48, &prev);
    let hash = *blake3::hash(&[&header[..80], payload].concat()).as_bytes();
    put(&mut header, 80, &hash[..16]);
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
    out.resize(out.len().next_multiple_of(8), 0);
    hash
}

/// Writes the bytes of a journal as segments, and whatever else may lie beside them.
pub fn write(data_dir: &Path, bytes: &[u8]) {
    let folder = data_dir.join("journal");
    fs::create_dir_all(&folder).unwrap();
    for (index, segment) in bytes.chunks(SEGMENT_BYTES).enumerate() {
        let mut segment = segment.to_vec();
        segment.resize(SEGMENT_BYTES, 0);
        fs::write(folder.join(format!("{index:016x}.seg")), segment).unwrap();
    }
    fs::write(folder.join("spare-0"), [7; 100]).unwrap();
    fs::write(folder.join("snap-ledger"), [7; 100]).unwrap();
}
