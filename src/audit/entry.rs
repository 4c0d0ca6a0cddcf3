//! The entries in a frame's payload, decoded by the auditor's own hand.
//!
//! Every entry begins with u32 length (a multiple of eight, the whole), u8 tag, u8 version (1). What the
//! fields are is the contract in the heads of `domain::record`, `outcome::entry`, `stored_value::ledger::entry`
//! and `intake::embedded::entry`; what is here was written from those words, not from that code. Only fields
//! that the audit uses are read; names stay bytes. Absent: judgement.

use super::frame::{u32_at, u64_at};
use crate::domain::code::PayoutCode;
use crate::domain::status::Status;

/// Stands for "no account" in a transfer.
pub const NO_ACCOUNT: u32 = u32::MAX;
/// The largest amount that a request or transfer may carry, in minor units.
pub const AMOUNT_MAX: u64 = (1 << 53) - 1;

pub type Currency = [u8; 3];

/// Lane and fair queue.
pub type Queue = (u8, u8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Disbursement = 1,
    Collection = 2,
    Reversal = 3,
    Fund = 4,
    Defund = 5,
    Cancel = 6,
}

pub const KINDS: [(Kind, &str); 6] = [
    (Kind::Disbursement, "disbursements"),
    (Kind::Collection, "collections"),
    (Kind::Reversal, "reversals"),
    (Kind::Fund, "fundings"),
    (Kind::Defund, "defundings"),
    (Kind::Cancel, "cancels"),
];

fn kind(byte: u8) -> Option<Kind> {
    KINDS.get(usize::from(byte).checked_sub(1)?).map(|(kind, _)| *kind)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Movement {
    Transfer = 1,
    Hold = 2,
    Post = 3,
    Void = 4,
    Reverse = 5,
    Burn = 6,
}

pub fn movement(byte: u8) -> Option<Movement> {
    use Movement::{Burn, Hold, Post, Reverse, Transfer, Void};
    [Transfer, Hold, Post, Void, Reverse, Burn].get(usize::from(byte).checked_sub(1)?).copied()
}

#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub kind: Kind,
    pub amount: u64,
    pub currency: Currency,
    pub client: &'a [u8],
    pub id: &'a [u8],
    pub campaign: &'a [u8],
    pub party: &'a [u8],
    pub merchant: &'a [u8],
    pub original: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub status: Status,
    pub code: Option<PayoutCode>,
    pub kind: Kind,
    pub has_reason: bool,
    pub request_place: u64,
    pub follows_place: u64,
    pub key_hash: u64,
    /// Unix ms; 0: none.
    pub next_attempt_at: u64,
    pub amount: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Transfer<'a> {
    pub movement: Movement,
    /// `None`: done.
    pub code: Option<PayoutCode>,
    pub amount: u64,
    pub debit: u32,
    pub credit: u32,
    pub currency: Currency,
    pub id: &'a [u8],
    pub of: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    Request(Request<'a>),
    Outcome(Outcome),
    Transfer(Transfer<'a>),
    Account { number: u32, currency: Currency, name: &'a [u8] },
    Ack { queue: Queue, below_index: u64 },
    Section { queue: Queue, first_index: u64, count: u32 },
    Batch,
    Campaign { number: u32, json: &'a [u8] },
}

/// What is wrong with an entry.
pub type Fault = &'static str;

/// Takes the entry at `*at` off the payload and moves `*at` behind it; `None` at the end. After a fault in
/// the frame of an entry there is no going on: `*at` is then the end.
pub fn next<'a>(payload: &'a [u8], at: &mut usize) -> Option<Result<Entry<'a>, Fault>> {
    let rest = &payload[*at..];
    if rest.is_empty() {
        return None;
    }
    let length = if rest.len() < 8 { 0 } else { u32_at(rest, 0) as usize };
    if length < 8 || !length.is_multiple_of(8) || length > rest.len() {
        *at = payload.len();
        return Some(Err("an entry's length is not possible"));
    }
    *at += length;
    Some(decode(&rest[..length]))
}

/// One whole entry.
pub fn decode(bytes: &[u8]) -> Result<Entry<'_>, Fault> {
    if bytes[5] != 1 {
        return Err("an entry is of a version that is not known");
    }
    let header_bytes = match bytes[4] {
        1 => 80,
        2 => 72,
        3 => 56,
        4 | 5 | 8 => 16,
        6 => 24,
        7 => 64,
        _ => return Err("an entry's tag is not known"),
    };
    if bytes.len() < header_bytes {
        return Err("an entry is shorter than its fields");
    }
    match bytes[4] {
        1 => request(bytes).map(Entry::Request),
        2 => outcome(bytes).map(Entry::Outcome),
        3 => transfer(bytes).map(Entry::Transfer),
        4 => Ok(Entry::Account {
            number: u32_at(bytes, 8),
            currency: currency(bytes, 12)?,
            name: cut(bytes, 16, bytes[6].into())?,
        }),
        5 => Ok(Entry::Ack { queue: (bytes[6], bytes[7]), below_index: u64_at(bytes, 8) }),
        6 => Ok(Entry::Section {
            queue: (bytes[6], bytes[7]),
            first_index: u64_at(bytes, 8),
            count: u32_at(bytes, 16),
        }),
        7 => Ok(Entry::Batch),
        _ => Ok(Entry::Campaign {
            number: u32_at(bytes, 8),
            json: cut(bytes, 16, u32_at(bytes, 12) as usize)?,
        }),
    }
}

fn request(bytes: &[u8]) -> Result<Request<'_>, Fault> {
    let mut at = 80;
    let mut strings = [&bytes[..0]; 8];
    for (position, string) in strings.iter_mut().enumerate() {
        *string = cut(bytes, at, bytes[67 + position].into())?;
        at += string.len();
    }
    let [client, id, campaign, party, merchant, _agreement, _batch, original] = strings;
    Ok(Request {
        kind: kind(bytes[6]).ok_or("a request's kind is not known")?,
        amount: amount(bytes, 32)?,
        currency: currency(bytes, 64)?,
        client,
        id,
        campaign,
        party,
        merchant,
        original,
    })
}

fn outcome(bytes: &[u8]) -> Result<Outcome, Fault> {
    Ok(Outcome {
        status: Status::from_u8(bytes[6]).ok_or("an outcome's status is not known")?,
        code: code(bytes[7])?,
        kind: kind(bytes[66]).ok_or("an outcome's kind is not known")?,
        has_reason: bytes[64] != 0,
        request_place: u64_at(bytes, 8),
        follows_place: u64_at(bytes, 16),
        key_hash: u64_at(bytes, 24),
        next_attempt_at: u64_at(bytes, 40),
        amount: u64_at(bytes, 56),
    })
}

fn transfer(bytes: &[u8]) -> Result<Transfer<'_>, Fault> {
    let id = cut(bytes, 56, bytes[51].into())?;
    Ok(Transfer {
        movement: movement(bytes[6]).ok_or("a transfer's kind is not known")?,
        code: code(bytes[7])?,
        amount: amount(bytes, 24)?,
        debit: u32_at(bytes, 32),
        credit: u32_at(bytes, 36),
        currency: currency(bytes, 48)?,
        id,
        of: cut(bytes, 56 + id.len(), bytes[52].into())?,
    })
}

fn code(byte: u8) -> Result<Option<PayoutCode>, Fault> {
    if byte == 0 {
        return Ok(None);
    }
    PayoutCode::from_u8(byte).map(Some).ok_or("a payout code is not known")
}

fn amount(bytes: &[u8], at: usize) -> Result<u64, Fault> {
    let amount = u64_at(bytes, at);
    if amount <= AMOUNT_MAX { Ok(amount) } else { Err("an amount is past its bound") }
}

fn currency(bytes: &[u8], at: usize) -> Result<Currency, Fault> {
    let currency = [bytes[at], bytes[at + 1], bytes[at + 2]];
    let valid = currency.iter().all(u8::is_ascii_uppercase);
    if valid { Ok(currency) } else { Err("a currency is not three capital letters") }
}

fn cut(bytes: &[u8], at: usize, length: usize) -> Result<&[u8], Fault> {
    bytes.get(at..).and_then(|rest| rest.get(..length)).ok_or("a text is cut short")
}
