//! The fields of an item: a request, and its outcome behind it.
//!
//! In order: kind and lane (one byte: kind + 8 × lane), mask of what is there, digest (16 bytes), amount, accepted
//! at, client, currency, id, then of campaign, party, batch, not before, not after, merchant, agreement, original,
//! remark, metadata those that the mask names. Of the outcome: status (one byte), attempts, at, then code, reason,
//! next attempt at, the wallet's reference if the mask names them. Numbers are variable in length; times are
//! differences: `accepted at` and `at` from the frame's base, the others from `accepted at` or `at`.
//!
//! Clients, campaigns, batches, currencies and remarks repeat: in a frame each is written once and then named by its
//! number, from 1 in the order of appearance, a list each; 0 says that it follows.

use super::frame::FrameError;
use super::varint::{Cursor, put, put_from, put_text};
use crate::digest;
use crate::domain::record::REMARK_BYTES_MAX;
use crate::domain::{Amount, Currency, Kind, Lane, Outcome, PayoutCode, Request, Status, UnixMs, WaitReason};
use crate::outcome::Told;

// Bits of the mask, the commonest first: they fit its first byte.
const CAMPAIGN: u64 = 1;
const PARTY: u64 = 1 << 1;
const BATCH: u64 = 1 << 2;
const CODE: u64 = 1 << 3;
const REASON: u64 = 1 << 4;
const NEXT_ATTEMPT: u64 = 1 << 5;
const WALLET_REF: u64 = 1 << 6;
const NOT_BEFORE: u64 = 1 << 7;
const NOT_AFTER: u64 = 1 << 8;
const MERCHANT: u64 = 1 << 9;
const AGREEMENT: u64 = 1 << 10;
const ORIGINAL: u64 = 1 << 11;
const REMARK: u64 = 1 << 12;
const METADATA: u64 = 1 << 13;
const KNOWN: u64 = (1 << 14) - 1;

/// The lists of names that repeat.
const LISTS: usize = 5;
const CLIENTS: usize = 0;
const CAMPAIGNS: usize = 1;
const BATCHES: usize = 2;
const CURRENCIES: usize = 3;
const REMARKS: usize = 4;
/// The bounds of the stored forms of a request and an outcome, in bytes.
const NAME_BYTES_MAX: usize = u8::MAX as usize;
const TEXT_BYTES_MAX: usize = u16::MAX as usize;
/// How far back a name is looked for, by list; one that is not found is written again. A campaign has one remark or as
/// many as payouts, so that those are given up soon.
const LOOKED_BACK_MAX: [usize; LISTS] = [32, 32, 32, 32, 4];

/// Where the names of a frame stand in its bytes, while it is written.
#[derive(Debug, Default)]
pub struct Dictionary {
    lists: [Vec<(u32, u32)>; LISTS],
}

impl Dictionary {
    pub fn clear(&mut self) {
        self.lists.iter_mut().for_each(Vec::clear);
    }

    /// Writes the number of a name, or the name where it is new.
    fn put(&mut self, out: &mut Vec<u8>, list: usize, name: &str) {
        let met = &mut self.lists[list];
        let recent = met.iter().enumerate().rev().take(LOOKED_BACK_MAX[list]);
        let span = |(start, length): (u32, u32)| start as usize..start as usize + length as usize;
        match recent
            .map(|(at, place)| (at, span(*place)))
            .find(|(_, place)| out[place.clone()] == *name.as_bytes())
        {
            Some((at, _)) => put(out, at as u64 + 1),
            None => {
                out.push(0);
                put_text(out, name);
                if is_shared(list, name) {
                    let start = out.len() - name.len();
                    met.push((start as u32, name.len() as u32));
                }
            }
        }
    }
}

/// Whether a name that was written gets a number. A longer remark than a request may have does not: a frame could
/// else stand for many times its bytes.
fn is_shared(list: usize, name: &str) -> bool {
    list != REMARKS || name.len() <= REMARK_BYTES_MAX
}

/// How names that repeat are written: by a frame's lists, or in full, for a request alone.
pub enum Names<'d> {
    Shared(&'d mut Dictionary),
    Alone,
}

impl Names<'_> {
    fn put(&mut self, out: &mut Vec<u8>, list: usize, name: &str) {
        match self {
            Names::Shared(dictionary) => dictionary.put(out, list, name),
            Names::Alone => put_text(out, name),
        }
    }
}

/// The names that a frame has given so far, while it is read.
#[derive(Clone, Debug, Default)]
pub struct Met<'a> {
    lists: [Vec<&'a str>; LISTS],
    has_remarks: bool,
}

impl Met<'_> {
    /// Of a frame that names its remarks, or has each in full.
    pub fn new(has_remarks: bool) -> Self {
        Met { has_remarks, ..Met::default() }
    }
}

fn name<'a>(
    cursor: &mut Cursor<'a>,
    met: &mut Option<&mut Met<'a>>,
    list: usize,
) -> Result<&'a str, FrameError> {
    let bytes_max = if list == REMARKS { TEXT_BYTES_MAX } else { NAME_BYTES_MAX };
    let Some(met) = met.as_mut().filter(|met| list != REMARKS || met.has_remarks) else {
        return cursor.text(bytes_max);
    };
    let met = &mut met.lists[list];
    match usize::try_from(cursor.number()?) {
        Ok(0) => {
            let name = cursor.text(bytes_max)?;
            if is_shared(list, name) {
                met.push(name);
            }
            Ok(name)
        }
        Ok(number) => met.get(number - 1).copied().ok_or(FrameError::Field("name")),
        Err(_) => Err(FrameError::Field("name")),
    }
}

fn bit(is_there: bool, bit: u64) -> u64 {
    if is_there { bit } else { 0 }
}

pub fn mask_of_request(request: &Request<'_>) -> u64 {
    bit(!request.campaign.is_empty(), CAMPAIGN)
        | bit(!request.party.is_empty(), PARTY)
        | bit(!request.batch.is_empty(), BATCH)
        | bit(request.not_before != 0, NOT_BEFORE)
        | bit(request.not_after != 0, NOT_AFTER)
        | bit(!request.merchant.is_empty(), MERCHANT)
        | bit(!request.agreement.is_empty(), AGREEMENT)
        | bit(!request.original.is_empty(), ORIGINAL)
        | bit(!request.remark.is_empty(), REMARK)
        | bit(!request.metadata.is_empty(), METADATA)
}

pub fn mask_of_outcome(outcome: &Outcome<'_>) -> u64 {
    bit(outcome.code.is_some(), CODE)
        | bit(outcome.reason.is_some(), REASON)
        | bit(outcome.next_attempt_at != 0, NEXT_ATTEMPT)
        | bit(!outcome.wallet_ref.is_empty(), WALLET_REF)
}

pub fn write_request(
    out: &mut Vec<u8>,
    request: &Request<'_>,
    mask: u64,
    base: UnixMs,
    names: &mut Names<'_>,
) {
    out.push(request.kind as u8 | (request.lane as u8) << 3);
    put(out, mask);
    out.extend_from_slice(&request.digest);
    put(out, request.amount.minor_units());
    put_from(out, base, request.accepted_at);
    names.put(out, CLIENTS, request.client);
    names.put(out, CURRENCIES, request.currency.as_str());
    put_text(out, request.id);
    if mask & CAMPAIGN != 0 {
        names.put(out, CAMPAIGNS, request.campaign);
    }
    if mask & PARTY != 0 {
        put_text(out, request.party);
    }
    if mask & BATCH != 0 {
        names.put(out, BATCHES, request.batch);
    }
    for (bit, time) in [(NOT_BEFORE, request.not_before), (NOT_AFTER, request.not_after)] {
        if mask & bit != 0 {
            put_from(out, request.accepted_at, time);
        }
    }
    for (bit, text) in
        [(MERCHANT, request.merchant), (AGREEMENT, request.agreement), (ORIGINAL, request.original)]
    {
        if mask & bit != 0 {
            put_text(out, text);
        }
    }
    if mask & REMARK != 0 {
        names.put(out, REMARKS, request.remark);
    }
    if mask & METADATA != 0 {
        put_text(out, request.metadata);
    }
}

pub fn write_outcome(out: &mut Vec<u8>, outcome: &Outcome<'_>, base: UnixMs) {
    out.push(outcome.status as u8);
    put(out, u64::from(outcome.attempts));
    put_from(out, base, outcome.at);
    if let Some(code) = outcome.code {
        out.push(code as u8);
    }
    if let Some(reason) = outcome.reason {
        out.push(reason as u8);
    }
    if outcome.next_attempt_at != 0 {
        put_from(out, outcome.at, outcome.next_attempt_at);
    }
    if !outcome.wallet_ref.is_empty() {
        put_text(out, outcome.wallet_ref);
    }
}

/// A request and the mask that stood before it. Without `met`, its names stand in full.
pub fn read_request<'a>(
    cursor: &mut Cursor<'a>,
    base: UnixMs,
    mut met: Option<&mut Met<'a>>,
) -> Result<(Request<'a>, u64), FrameError> {
    let head = cursor.byte()?;
    let kind = Kind::from_u8(head & 7).ok_or(FrameError::Field("kind"))?;
    let lane = Lane::from_u8(head >> 3).ok_or(FrameError::Field("lane"))?;
    let mask = cursor.number()?;
    if mask & !KNOWN != 0 {
        return Err(FrameError::Field("mask"));
    }
    let digest: [u8; 16] = cursor.take(16)?.try_into().expect("sixteen bytes");
    let amount = Amount::new(cursor.number()?).ok_or(FrameError::Field("amount"))?;
    let accepted_at = cursor.number_from(base)?;
    let client = name(cursor, &mut met, CLIENTS)?;
    let currency = name(cursor, &mut met, CURRENCIES)?;
    let currency = Currency::parse(currency).ok_or(FrameError::Field("currency"))?;
    let id = cursor.text(NAME_BYTES_MAX)?;
    let mut request =
        Request { lane, digest, accepted_at, ..Request::new(kind, client, id, "", amount, currency) };
    if mask & CAMPAIGN != 0 {
        request.campaign = name(cursor, &mut met, CAMPAIGNS)?;
    }
    if mask & PARTY != 0 {
        request.party = cursor.text(NAME_BYTES_MAX)?;
    }
    if mask & BATCH != 0 {
        request.batch = name(cursor, &mut met, BATCHES)?;
    }
    for (bit, time) in [(NOT_BEFORE, &mut request.not_before), (NOT_AFTER, &mut request.not_after)] {
        if mask & bit != 0 {
            *time = cursor.number_from(accepted_at)?;
        }
    }
    for (bit, text) in [
        (MERCHANT, &mut request.merchant),
        (AGREEMENT, &mut request.agreement),
        (ORIGINAL, &mut request.original),
    ] {
        if mask & bit != 0 {
            *text = cursor.text(NAME_BYTES_MAX)?;
        }
    }
    if mask & REMARK != 0 {
        request.remark = name(cursor, &mut met, REMARKS)?;
    }
    if mask & METADATA != 0 {
        request.metadata = cursor.text(TEXT_BYTES_MAX)?;
    }
    // A cancel is known by the id that it burns.
    let known_id = if kind == Kind::Cancel { request.original } else { request.id };
    request.key_hash = digest::key_hash_of(client, known_id);
    Ok((request, mask))
}

pub fn read_outcome<'a>(
    cursor: &mut Cursor<'a>,
    base: UnixMs,
    mask: u64,
    request: Request<'a>,
) -> Result<Told<'a>, FrameError> {
    let status = Status::from_u8(cursor.byte()?).ok_or(FrameError::Field("status"))?;
    let attempts = u32::try_from(cursor.number()?).map_err(|_| FrameError::Field("attempts"))?;
    let at = cursor.number_from(base)?;
    let mut told =
        Told { request, status, code: None, reason: None, at, next_attempt_at: 0, attempts, wallet_ref: "" };
    if mask & CODE != 0 {
        told.code = Some(PayoutCode::from_u8(cursor.byte()?).ok_or(FrameError::Field("code"))?);
    }
    if mask & REASON != 0 {
        told.reason = Some(WaitReason::from_u8(cursor.byte()?).ok_or(FrameError::Field("reason"))?);
    }
    if mask & NEXT_ATTEMPT != 0 {
        told.next_attempt_at = cursor.number_from(at)?;
    }
    if mask & WALLET_REF != 0 {
        told.wallet_ref = cursor.text(NAME_BYTES_MAX)?;
    }
    Ok(told)
}
