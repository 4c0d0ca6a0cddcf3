//! The binary frame: many requests in one element, as a door writes them.
//!
//! ```text
//! 0 [2] magic "HB"    4 u32 number of requests
//! 2 u8  version (1)   8 [8] checksum: first bytes of blake3(bytes 0..8 ‖ body)
//! 3 u8  flags (0)    16 body: the encoded requests (`domain::record`), one behind the other
//! ```
//!
//! Little endian. A frame is good as a whole or dead as a whole: it was written by one door in one piece. Its requests
//! carry everything, their acceptance included, so reading copies nothing: each is a slice of the element.

use bytes::Bytes;

use super::super::contents::{DeadReason, Decoded};
use super::{code, dead};
use crate::domain::Request;
use crate::domain::bytes::{EntryError, entries, u32_at};
use crate::intake::QueueId;

const MAGIC: [u8; 2] = *b"HB";
const VERSION: u8 = 1;
const SUMMED_BYTES: usize = 8;
pub const HEADER_BYTES: usize = 16;

const _: () = assert!(SUMMED_BYTES + 8 == HEADER_BYTES);

/// Whether this begins as a frame does; no JSON does.
pub fn looks_like_one(element: &[u8]) -> bool {
    element.starts_with(&MAGIC)
}

fn checksum(head: &[u8], body: &[u8]) -> [u8; 8] {
    let mut hash = blake3::Hasher::new();
    hash.update(head);
    hash.update(body);
    hash.finalize().as_bytes()[..8].try_into().expect("eight of thirty-two bytes")
}

/// One element of encoded requests whose acceptance is set. How long it gets is the caller's to bound: the sum of
/// their lengths, and [`HEADER_BYTES`].
///
/// # Panics
/// If there are more than fit a `u32`.
pub fn encode_frame<R: AsRef<[u8]>>(requests: &[R]) -> Vec<u8> {
    let count = u32::try_from(requests.len()).expect("an element is bounded in bytes");
    let body_bytes: usize = requests.iter().map(|request| request.as_ref().len()).sum();
    let mut frame = Vec::with_capacity(HEADER_BYTES + body_bytes);
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&[VERSION, 0]);
    frame.extend_from_slice(&count.to_le_bytes());
    frame.extend_from_slice(&[0; 8]);
    requests.iter().for_each(|request| frame.extend_from_slice(request.as_ref()));
    let sum = checksum(&frame[..SUMMED_BYTES], &frame[HEADER_BYTES..]);
    frame[SUMMED_BYTES..HEADER_BYTES].copy_from_slice(&sum);
    frame
}

fn damaged(detail: impl Into<String>) -> DeadReason {
    dead(code::DAMAGED, detail)
}

/// Adds the requests of a frame; each goes to the queue that it names.
pub fn decode(element: &Bytes, fair_queue_count: u8, out: &mut Vec<Decoded>) -> Result<(), DeadReason> {
    if !looks_like_one(element) {
        let detail = "no frame of a door; requests from elsewhere belong on a list under intake.redis.lists";
        return Err(dead(code::UNEXPECTED, detail));
    }
    if let Some(version) = element.get(2).filter(|version| **version != VERSION) {
        let detail = format!("frame version {version} is unknown to this release, which reads {VERSION}");
        return Err(dead(code::UNKNOWN_VERSION, detail));
    }
    if element.len() < HEADER_BYTES {
        return Err(damaged(format!("{} bytes are too few for a frame", element.len())));
    }
    if element[3] != 0 {
        let detail = format!("frame flags {:#04x} are unknown to this release", element[3]);
        return Err(dead(code::UNKNOWN_VERSION, detail));
    }
    let body = &element[HEADER_BYTES..];
    if element[SUMMED_BYTES..HEADER_BYTES] != checksum(&element[..SUMMED_BYTES], body) {
        return Err(damaged("the frame's checksum does not match what is in it"));
    }
    let (wanted, before) = (u32_at(element, 4), out.len());
    for entry in entries(body) {
        let (at, bytes, request) = entry
            .and_then(|(at, _, bytes)| Ok((at, bytes, Request::decode(bytes)?)))
            .map_err(|error| not_a_request(error, out.len() - before))?;
        let queue = QueueId::of(request.lane, request.campaign, fair_queue_count);
        let start = HEADER_BYTES + at;
        out.push(Decoded { queue, record: element.slice(start..start + bytes.len()) });
    }
    let found = out.len() - before;
    if found != wanted as usize {
        return Err(damaged(format!("the frame holds {found} requests and says {wanted}")));
    }
    Ok(())
}

fn not_a_request(error: EntryError, position: usize) -> DeadReason {
    let code = match error {
        EntryError::Version { .. } => code::UNKNOWN_VERSION,
        EntryError::Truncated | EntryError::Tag { .. } | EntryError::Field(_) => code::DAMAGED,
    };
    dead(code, format!("request {position} of the frame: {error}"))
}
