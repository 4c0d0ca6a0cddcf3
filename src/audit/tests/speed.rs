//! How fast an audit is, and in how much memory. Not run by itself:
//! `AUDIT_REQUESTS=10000000 cargo test --release --lib audit::tests::speed -- --ignored --nocapture`
//!
//! Random 24-character ids over 100,000 accounts, in batches of 500; every request is paid.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use super::super::{Options, audit};
use super::encoder::{close, head, key_hash, put, seal};

const SEGMENT_BYTES: usize = 64 << 20;
const ACCOUNTS: u64 = 100_000;
const BATCH: u64 = 500;

/// Streams frames into segment files.
struct Stream {
    folder: PathBuf,
    segment: Vec<u8>,
    index: usize,
    sequence: u64,
    prev: [u8; 32],
}

impl Stream {
    /// Logical offset at which a payload of this size will stand.
    fn place(&mut self, payload_bytes: usize) -> u64 {
        if self.segment.len() + 96 + payload_bytes > SEGMENT_BYTES {
            self.flush();
        }
        (self.index * SEGMENT_BYTES + self.segment.len() + 96) as u64
    }

    fn push(&mut self, kind: u8, payload: &[u8]) {
        let offset = self.place(payload.len()) - 96;
        self.prev = seal(&mut self.segment, kind, payload, offset, self.sequence, self.prev);
        self.sequence += 1;
    }

    fn flush(&mut self) {
        self.segment.resize(SEGMENT_BYTES, 0);
        fs::write(self.folder.join(format!("{:016x}.seg", self.index)), &self.segment).unwrap();
        self.segment.clear();
        self.index += 1;
    }
}

fn request(kind: u8, id: &str, party: &str, amount: u64) -> Vec<u8> {
    let mut entry = head(1, kind, 1, 80);
    put(&mut entry, 32, &amount.to_le_bytes());
    put(&mut entry, 64, b"CNY");
    for (position, text) in ["s", id, "c", party].iter().enumerate() {
        entry[67 + position] = text.len() as u8;
        entry.extend_from_slice(text.as_bytes());
    }
    close(entry)
}

fn transfer(id: &str, amount: u64, debit: u32, credit: u32) -> Vec<u8> {
    let mut entry = head(3, 1, 0, 56);
    put(&mut entry, 24, &amount.to_le_bytes());
    put(&mut entry, 32, &debit.to_le_bytes());
    put(&mut entry, 36, &credit.to_le_bytes());
    put(&mut entry, 48, b"CNY");
    entry[51] = id.len() as u8;
    entry.extend_from_slice(id.as_bytes());
    close(entry)
}

fn outcome(kind: u8, place: u64, id: &str, amount: u64) -> Vec<u8> {
    let mut entry = head(2, 5, 0, 72);
    put(&mut entry, 8, &place.to_le_bytes());
    put(&mut entry, 16, &place.to_le_bytes());
    put(&mut entry, 24, &key_hash(id).to_le_bytes());
    put(&mut entry, 56, &amount.to_le_bytes());
    entry[66] = kind;
    close(entry)
}

fn account(number: u32, name: &str) -> Vec<u8> {
    let mut entry = head(4, name.len() as u8, 0, 16);
    put(&mut entry, 8, &number.to_le_bytes());
    put(&mut entry, 12, b"CNY");
    entry.extend_from_slice(name.as_bytes());
    close(entry)
}

/// Campaign, accounts, and the request that funds it all.
fn open(stream: &mut Stream, count: u64) {
    let json = format!(r#"{{"client":"s","id":"c","budget":{count}}}"#);
    let mut entry = head(8, 0, 0, 16);
    put(&mut entry, 8, &1u32.to_le_bytes());
    put(&mut entry, 12, &(json.len() as u32).to_le_bytes());
    entry.extend_from_slice(json.as_bytes());
    stream.push(20, &close(entry));
    let mut section = head(6, 0, 0, 24);
    put(&mut section, 16, &1u32.to_le_bytes());
    let accept = [close(section), request(4, "f", "", count)].concat();
    let place = stream.place(accept.len()) + 24;
    stream.push(16, &accept);
    let accounts = [account(0, "funding:s"), account(1, "campaign:s:c")].concat();
    stream.push(17, &[accounts, transfer("s:f", count, 0, 1)].concat());
    stream.push(18, &outcome(4, place, "s:f", count));
    for first in (0..ACCOUNTS).step_by(1000) {
        let entries = (first..first + 1000).map(|n| account(n as u32 + 2, &format!("person:p{n:09}")));
        stream.push(17, &entries.collect::<Vec<_>>().concat());
    }
}

fn batch(stream: &mut Stream, first: u64, acks: &mut impl std::io::Write) {
    let mut section = head(6, 1, 0, 24);
    put(&mut section, 8, &first.to_le_bytes());
    put(&mut section, 16, &(BATCH as u32).to_le_bytes());
    let (mut accepts, mut transfers, mut ids) = (close(section), Vec::new(), Vec::new());
    for n in first..first + BATCH {
        let hash = key_hash(&n.to_string());
        let person = hash % ACCOUNTS;
        let mut id = String::from("s:");
        write!(id, "{hash:016x}{n:08x}").unwrap();
        ids.push((id.clone(), accepts.len() as u64));
        accepts.extend(request(1, &id[2..], &format!("p{person:09}"), 1));
        transfers.extend(transfer(&id, 1, 1, person as u32 + 2));
        writeln!(acks, "s {} 1", &id[2..]).unwrap();
    }
    let place = stream.place(accepts.len());
    stream.push(16, &accepts);
    stream.push(17, &transfers);
    let outcomes: Vec<_> = ids.iter().map(|(id, at)| outcome(1, place + at, id, 1)).collect();
    stream.push(18, &outcomes.concat());
    let mut ack = head(5, 1, 0, 16);
    put(&mut ack, 8, &(first + BATCH).to_le_bytes());
    stream.push(19, &close(ack));
}

#[test]
#[ignore = "a measurement; see the head of this file"]
fn speed() {
    let count: u64 = std::env::var("AUDIT_REQUESTS").map_or(1_000_000, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("data/journal");
    fs::create_dir_all(&journal).unwrap();
    let mut stream = Stream { folder: journal, segment: Vec::new(), index: 0, sequence: 0, prev: [0; 32] };
    let path = folder.path().join("acks");
    let mut acks = std::io::BufWriter::new(fs::File::create(&path).unwrap());
    open(&mut stream, count);
    (0..count).step_by(BATCH as usize).for_each(|first| batch(&mut stream, first, &mut acks));
    stream.flush();
    acks.flush().unwrap();
    let data_dir = folder.path().join("data");
    let begun = Instant::now();
    let options = Options { data_dir, acks: Some(path), expect_drained: true, ..Options::default() };
    let report = audit(&options, None, &mut |_| {}).unwrap();
    let took = begun.elapsed();
    println!("{report}");
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let each = took.as_nanos() / u128::from(report.entries.max(1));
    println!("{took:?}, {each} ns an entry, {peak}");
    assert!(report.is_clean());
}
