//! The checkpoint that stands for the front of a journal whose space was reclaimed.
//!
//! File `<data_dir>/journal/snap-audit-<index of the first segment kept, %016x>`: magic, u32 version (1), u32
//! zero, u64 length of the body, [32] BLAKE3, body. The magic is `HBSNAP\r\n`, and the hash is over the 24
//! bytes before it and the body; or `HBSNAP1\0`, and it is over the body alone. The body is JSON:
//!
//! ```json
//! {"offset": 67108864, "sequence": 812, "prev": "<64 hex digits>",
//!  "accounts": [{"number": 0, "name": "funding:shop", "currency": "CNY", "debits": 5, "credits": 0, "held": 0}],
//!  "campaigns": [{"number": 1, "client": "shop", "id": "spring", "budget": 100, "spent": 5}],
//!  "queues": [{"lane": 1, "fair": 0, "accepted": 70, "acked": 70}],
//!  "removed": {"requests": 70, "final": 70, "amount_succeeded": 5},
//!  "ids": 70}
//! ```
//!
//! - `offset`, `sequence`: of the first frame kept; `prev`: hash of the frame before it.
//! - `accounts`: all that were opened below `offset`, by number without gaps, with their totals there.
//! - `campaigns`: the newest stored JSON of each, with `number`, and `spent` by removed requests (0 if absent).
//! - `queues`: per queue how many requests were accepted, and acknowledged, below `offset`. If there is none,
//!   each queue is taken to begin where it is first met.
//! - A request may only be removed when it is final: what waits keeps its segment.
//! - `ids`, with that many rows of 48 bytes behind the JSON and one zero byte: what the wallet and the outcome
//!   log knew of removed ids. 0..16 first half of BLAKE3 of `client:id` · 16..24 amount · 24..32 taken back ·
//!   32..36, 36..40 debit and credit account (`u32::MAX`: none) · 40 recorded (0 nothing, 1 done, 2 refused) ·
//!   41 kind of transfer · 42..48 zero. Without them a double across the checkpoint is not seen, and lines of
//!   the acks file that are not found count as removed, up to `removed.requests`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::chain::Link;
use super::entry::{Currency, Queue, movement};
use super::error::AuditError;
use super::frame::{u32_at, u64_at};
use super::ids::{Id, Recorded};

const HEADER_BYTES: usize = 56;
pub const ID_BYTES: usize = 48;

#[derive(Deserialize)]
struct Body {
    offset: u64,
    sequence: u64,
    prev: String,
    accounts: Vec<AccountBase>,
    campaigns: Vec<serde_json::Value>,
    #[serde(default)]
    queues: Vec<QueueBase>,
    removed: Removed,
    #[serde(default)]
    ids: usize,
}

#[derive(Deserialize)]
struct AccountBase {
    number: u32,
    name: String,
    currency: String,
    debits: u64,
    credits: u64,
    held: u64,
}

#[derive(Deserialize)]
struct QueueBase {
    lane: u8,
    fair: u8,
    accepted: u64,
    acked: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
pub struct Removed {
    pub requests: u64,
    #[serde(rename = "final")]
    pub final_count: u64,
    pub amount_succeeded: u64,
}

/// An account as the checkpoint carries it.
pub struct Carried {
    pub number: u32,
    pub name: String,
    pub currency: Currency,
    pub debits: u64,
    pub credits: u64,
    pub held: u64,
}

/// A checkpoint that was read and verified.
pub struct Base {
    pub link: Link,
    pub accounts: Vec<Carried>,
    /// Number and JSON.
    pub campaigns: Vec<(u32, Vec<u8>)>,
    /// Queue, accepted, acknowledged.
    pub queues: Vec<(Queue, u64, u64)>,
    pub removed: Removed,
    /// With what was taken back of each.
    pub ids: Vec<(Id, u64)>,
}

/// Reads the checkpoint for a journal that begins with this segment; `None` if there is no such file.
pub fn read(folder: &Path, first_segment: u64) -> Result<Option<Base>, AuditError> {
    let path: PathBuf = folder.join(format!("snap-audit-{first_segment:016x}"));
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(AuditError::io("read", &path))?,
    };
    parse(&bytes).map(Some).map_err(|reason| AuditError::Checkpoint { path, reason })
}

fn body(bytes: &[u8]) -> Result<&[u8], String> {
    if bytes.len() < HEADER_BYTES || u32_at(bytes, 8) != 1 {
        return Err("it is no checkpoint of version 1".into());
    }
    let body = &bytes[HEADER_BYTES..];
    let mut hasher = blake3::Hasher::new();
    match &bytes[..8] {
        b"HBSNAP\r\n" => hasher.update(&bytes[..24]),
        b"HBSNAP1\0" => &mut hasher,
        _ => return Err("it does not begin as a checkpoint does".into()),
    };
    hasher.update(body);
    let is_whole = u64_at(bytes, 16) == body.len() as u64;
    if !is_whole || bytes[24..HEADER_BYTES] != hasher.finalize().as_bytes()[..] {
        return Err("it is damaged: length or checksum do not fit".into());
    }
    Ok(body)
}

fn parse(bytes: &[u8]) -> Result<Base, String> {
    let body = body(bytes)?;
    let json_bytes = body.iter().position(|byte| *byte == 0).unwrap_or(body.len());
    let rows = body.get(json_bytes + 1..).unwrap_or_default();
    let body: Body = serde_json::from_slice(&body[..json_bytes]).map_err(|error| error.to_string())?;
    if rows.len() != body.ids * ID_BYTES {
        return Err(format!("it tells of {} ids and holds {} bytes of them", body.ids, rows.len()));
    }
    let hash = blake3::Hash::from_hex(&body.prev).map_err(|error| format!("prev: {error}"))?;
    let link = Link { end: body.offset, sequence: body.sequence, hash: hash.into(), written_at: 0 };
    let accounts = body.accounts.into_iter().map(carried).collect::<Result<_, _>>()?;
    let campaigns = body.campaigns.into_iter().map(|json| {
        let number = json.get("number").and_then(serde_json::Value::as_u64).unwrap_or(0);
        (number as u32, json.to_string().into_bytes())
    });
    Ok(Base {
        link,
        accounts,
        campaigns: campaigns.collect(),
        queues: body.queues.iter().map(|q| ((q.lane, q.fair), q.accepted, q.acked)).collect(),
        removed: body.removed,
        ids: rows.chunks_exact(ID_BYTES).map(id_row).collect::<Result<_, _>>()?,
    })
}

fn carried(account: AccountBase) -> Result<Carried, String> {
    let AccountBase { number, name, currency, debits, credits, held } = account;
    let currency =
        currency.as_bytes().try_into().map_err(|_| format!("{name}: {currency:?} is no currency"))?;
    Ok(Carried { number, name, currency, debits, credits, held })
}

fn id_row(bytes: &[u8]) -> Result<(Id, u64), String> {
    let mut id = Id::new([u64_at(bytes, 0), u64_at(bytes, 8)]);
    id.amount = u64_at(bytes, 16);
    (id.debit, id.credit) = (u32_at(bytes, 32), u32_at(bytes, 36));
    id.recorded = match bytes[40] {
        0 => Recorded::Nothing,
        1 => Recorded::Done,
        2 => Recorded::Refused,
        byte => return Err(format!("an id is recorded as {byte}, which is not known")),
    };
    id.movement = movement(bytes[41]);
    id.is_removed = true;
    Ok((id, u64_at(bytes, 24)))
}
