//! Which ids are known: who registered `client:id` first, and with what.
//!
//! A bucket is a hash; its field is `client:id`, its value the request in a compact form, without client and id.
//! [`REGISTER`] looks and registers in one script: of two instances that race on one id, exactly one finds it free.
//! A batch stands beside its items under a mark that no id can hold: its head under [`batch_field`], the ids of what
//! was taken of it under [`items_field`]. What holds: registering comes before pushing, so whatever is in a list is
//! known here; what is known here and in no list is pushed again by the retry of its caller.
//!
//! | bytes of a request | field |
//! |---|---|
//! | 0 | version (1; 2 where a time stands at the end) |
//! | 1, 2 | kind, lane |
//! | 3..19, 19..22 | digest, currency |
//! | then | varints: amount, accepted at, not before, not after |
//! | then | each a varint length and its bytes: campaign, party, merchant, agreement, batch, original, remark, metadata |
//! | last 13 | version 2 only: when a repeat of it was last appended, in Unix ms by the clock of Redis, as digits |
//!
//! | bytes of a head | field |
//! |---|---|
//! | 0 | version (1) |
//! | 1..5, 5..13 | items taken and their sum, little endian; all ones while that is not known |
//! | 13.. | the head as `intake::embedded::entry::Batch` |

use crate::domain::bytes::EntryError;
use crate::domain::{Amount, Currency, Kind, Lane, Request, UnixMs, ids};
use crate::intake::embedded::entry::Batch;
use crate::redis::{Command, Failure, Script, Value, reply};

const VERSION: u8 = 1;
/// Of an id with a note of when it was appended again ([`NOTE`]).
const VERSION_NOTED: u8 = 2;
/// Digits of that time.
const NOTED_DIGITS: usize = 13;
/// Pairs in one call of [`REGISTER`]: far below what Lua can unpack.
pub const REGISTER_COUNT_MAX: usize = 1_000;

/// Registers the fields that are absent; answers the others as pairs of their number (from 1) and value. One HSET at
/// most. Without `allow-oom`: a full Redis takes no new work.
pub static REGISTER: Script = Script::new(
    "register",
    "#!lua
local fields, fresh, found = {}, {}, {}
for i = 1, #ARGV, 2 do fields[#fields + 1] = ARGV[i] end
local held = redis.call('HMGET', KEYS[1], unpack(fields))
for i = 1, #fields do
  if held[i] then
    found[#found + 1] = i
    found[#found + 1] = held[i]
  else
    fresh[#fresh + 1] = fields[i]
    fresh[#fresh + 1] = ARGV[2 * i]
  end
end
if #fresh > 0 then redis.call('HSET', KEYS[1], unpack(fresh)) end
return found",
);

/// Takes a field back if its value is still the one that the caller put there.
pub static WITHDRAW: Script = Script::new(
    "withdraw",
    "#!lua flags=allow-oom
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])",
);

/// Notes that these ids were appended again just now. One HSET at most.
static NOTE: Script = Script::new(
    "note-appended",
    "#!lua
local time = redis.call('TIME')
local now = string.format('%013.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local held = redis.call('HMGET', KEYS[1], unpack(ARGV))
local noted = {}
for i = 1, #ARGV do
  local version = held[i] and string.byte(held[i], 1)
  local known
  if version == 1 then known = string.sub(held[i], 2) end
  if version == 2 then known = string.sub(held[i], 2, -14) end
  if known then
    noted[#noted + 1] = ARGV[i]
    noted[#noted + 1] = string.char(2) .. known .. now
  end
end
if #noted > 0 then return redis.call('HSET', KEYS[1], unpack(noted)) end
return 0",
);

/// The field of an id.
pub fn id_field(client: &str, id: &str) -> Vec<u8> {
    let mut field = Vec::with_capacity(client.len() + id.len() + 1);
    ids::write_key(&mut field, client.as_bytes(), id.as_bytes());
    field
}

/// The field of a batch's head. `#` is in no id.
pub fn batch_field(client: &str, id: &str) -> Vec<u8> {
    [client, ":#batch:", id].concat().into_bytes()
}

/// The field of the ids taken of a batch, one a line.
pub fn items_field(client: &str, id: &str) -> Vec<u8> {
    [client, ":#items:", id].concat().into_bytes()
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes fields off the front of stored bytes.
struct Cut<'a>(&'a [u8]);

impl<'a> Cut<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], EntryError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(EntryError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, EntryError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.bytes(1)?[0];
            value |= u64::from(byte & 0x7f).checked_shl(shift).ok_or(EntryError::Field("number"))?;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(EntryError::Field("number"))
    }

    fn text(&mut self) -> Result<&'a str, EntryError> {
        let length = usize::try_from(self.varint()?).map_err(|_| EntryError::Truncated)?;
        std::str::from_utf8(self.bytes(length)?).map_err(|_| EntryError::Field("text"))
    }
}

fn check_version(found: u8) -> Result<(), EntryError> {
    if found == VERSION { Ok(()) } else { Err(EntryError::Version { tag: 0, found }) }
}

/// Appends the stored form of a request whose acceptance is set.
pub fn encode_known(request: &Request<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&[VERSION, request.kind as u8, request.lane as u8]);
    out.extend_from_slice(&request.digest);
    out.extend_from_slice(&request.currency.bytes());
    let amount = request.amount.minor_units();
    for number in [amount, request.accepted_at, request.not_before, request.not_after] {
        write_varint(out, number);
    }
    let Request { campaign, party, merchant, agreement, batch, original, remark, metadata, .. } = *request;
    for text in [campaign, party, merchant, agreement, batch, original, remark, metadata] {
        write_varint(out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    }
}

/// Reads what stands under `client:id`. The key hash is not stored and zero.
pub fn decode_known<'a>(bytes: &'a [u8], client: &'a str, id: &'a str) -> Result<Request<'a>, EntryError> {
    let mut cut = Cut(bytes);
    let version = cut.bytes(1)?[0];
    if version != VERSION_NOTED {
        check_version(version)?;
    }
    let kind = Kind::from_u8(cut.bytes(1)?[0]).ok_or(EntryError::Field("kind"))?;
    let lane = Lane::from_u8(cut.bytes(1)?[0]).ok_or(EntryError::Field("lane"))?;
    let digest = cut.bytes(16)?.try_into().expect("sixteen bytes");
    let currency = cut.bytes(3)?.try_into().expect("three bytes");
    let currency = Currency::from_bytes(currency).ok_or(EntryError::Field("currency"))?;
    let amount = Amount::new(cut.varint()?).ok_or(EntryError::Field("amount"))?;
    let (accepted_at, not_before, not_after) = (cut.varint()?, cut.varint()?, cut.varint()?);
    let request = Request {
        lane,
        digest,
        accepted_at,
        not_before,
        not_after,
        campaign: cut.text()?,
        party: cut.text()?,
        merchant: cut.text()?,
        agreement: cut.text()?,
        batch: cut.text()?,
        original: cut.text()?,
        remark: cut.text()?,
        metadata: cut.text()?,
        ..Request::new(kind, client, id, "", amount, currency)
    };
    if version == VERSION_NOTED {
        noted_at(cut.bytes(NOTED_DIGITS)?)?;
    }
    Ok(request)
}

fn noted_at(digits: &[u8]) -> Result<UnixMs, EntryError> {
    let digits = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    digits.ok_or(EntryError::Field("time"))
}

/// An id that is known: what it was registered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownId {
    client: String,
    id: String,
    value: Vec<u8>,
}

impl KnownId {
    /// Refuses a value that is not one.
    pub fn new(client: &str, id: &str, value: Vec<u8>) -> Result<KnownId, EntryError> {
        decode_known(&value, client, id)?;
        Ok(KnownId { client: client.to_owned(), id: id.to_owned(), value })
    }

    pub fn request(&self) -> Request<'_> {
        decode_known(&self.value, &self.client, &self.id).expect("decoded when it was made")
    }

    /// When a repeat of it was last appended, if one was.
    pub fn appended_again_at(&self) -> Option<UnixMs> {
        let digits = self.value.len().checked_sub(NOTED_DIGITS)?;
        (self.value[0] == VERSION_NOTED).then(|| noted_at(&self.value[digits..]).ok()).flatten()
    }
}

/// What was taken of a batch: how many items, and their sum in minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub count: u32,
    pub amount: u64,
}

/// `taken`: none while it is not known.
pub fn encode_head(batch: &Batch<'_>, taken: Option<Taken>) -> Vec<u8> {
    let Taken { count, amount } = taken.unwrap_or(Taken { count: u32::MAX, amount: u64::MAX });
    let mut out = vec![VERSION];
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&amount.to_le_bytes());
    batch.encode(&mut out);
    out
}

pub fn decode_head(bytes: &[u8]) -> Result<(Batch<'_>, Option<Taken>), EntryError> {
    let mut cut = Cut(bytes);
    check_version(cut.bytes(1)?[0])?;
    let count = u32::from_le_bytes(cut.bytes(4)?.try_into().expect("four bytes"));
    let amount = u64::from_le_bytes(cut.bytes(8)?.try_into().expect("eight bytes"));
    Ok((Batch::decode(cut.0)?, (count != u32::MAX).then_some(Taken { count, amount })))
}

/// Registers pairs of field and value in one bucket, up to [`REGISTER_COUNT_MAX`] of them, no field twice.
pub fn register<'a>(key: &str, pairs: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>) -> Command {
    assert!(pairs.len() <= REGISTER_COUNT_MAX, "what Lua cannot unpack is sent in several calls");
    let mut command = Command::script(&REGISTER, &[key.as_bytes()]);
    for (field, value) in pairs {
        command.push(field);
        command.push(value);
    }
    command
}

/// For each of `count` registered pairs what stood there before; `None`: registered now.
pub fn registered(value: Value, count: usize) -> Result<Vec<Option<Vec<u8>>>, Failure> {
    let strange =
        || Failure::Strange { command: REGISTER.name.to_owned(), expected: "pairs of number and value" };
    let mut found = vec![None; count];
    let mut values = reply::array(REGISTER.name, value)?.into_iter();
    while let Some(number) = values.next() {
        let number = usize::try_from(reply::int(REGISTER.name, number)?).map_err(|_| strange())?;
        let value = reply::bytes(REGISTER.name, values.next().ok_or_else(strange)?)?;
        *found.get_mut(number.wrapping_sub(1)).ok_or_else(strange)? = value;
    }
    Ok(found)
}

/// Notes in one bucket that these ids were appended again, up to [`REGISTER_COUNT_MAX`] of them.
pub fn note<'a>(key: &str, fields: impl ExactSizeIterator<Item = &'a [u8]>) -> Command {
    assert!(fields.len() <= REGISTER_COUNT_MAX, "what Lua cannot unpack is sent in several calls");
    let mut command = Command::script(&NOTE, &[key.as_bytes()]);
    fields.for_each(|field| command.push(field));
    command
}

/// Looks without registering.
pub fn look<'a>(key: &str, fields: impl Iterator<Item = &'a [u8]>) -> Command {
    let mut command = Command::new("HMGET", key);
    fields.for_each(|field| command.push(field));
    command
}

/// The answer to [`look`], one value a field.
pub fn looked(value: Value, count: usize) -> Result<Vec<Option<Vec<u8>>>, Failure> {
    let values = reply::array("HMGET", value)?;
    if values.len() != count {
        return Err(Failure::Strange { command: "HMGET".to_owned(), expected: "a value a field" });
    }
    values.into_iter().map(|value| reply::bytes("HMGET", value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Request<'static> {
        let amount = Amount::new(88).unwrap();
        Request {
            lane: Lane::Bulk,
            digest: [7; 16],
            accepted_at: 1_700_000_000_000,
            not_before: 5,
            not_after: u64::MAX,
            party: "ann",
            merchant: "m",
            agreement: "a",
            batch: "b",
            original: "o",
            remark: "恭喜发财",
            metadata: "{\"a\":1}",
            ..Request::new(Kind::Collection, "shop", "r-1", "spring", amount, Currency::parse("CNY").unwrap())
        }
    }

    #[test]
    fn a_request_comes_back_as_it_went() {
        let mut bytes = Vec::new();
        encode_known(&sample(), &mut bytes);
        assert_eq!(decode_known(&bytes, "shop", "r-1"), Ok(sample()));
        assert_eq!(KnownId::new("shop", "r-1", bytes.clone()).unwrap().request(), sample());
        for cut in 0..bytes.len() {
            assert_eq!(decode_known(&bytes[..cut], "s", "r"), Err(EntryError::Truncated), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                let _ = decode_known(&damaged, "s", "r");
            }
        }
        let mut noted = bytes.clone();
        noted[0] = VERSION_NOTED;
        assert_eq!(decode_known(&noted, "shop", "r-1"), Err(EntryError::Truncated));
        noted.extend_from_slice(b"1700000000007");
        let known = KnownId::new("shop", "r-1", noted).unwrap();
        assert_eq!((known.request(), known.appended_again_at()), (sample(), Some(1_700_000_000_007)));
        bytes[0] = 9;
        assert_eq!(decode_known(&bytes, "s", "r"), Err(EntryError::Version { tag: 0, found: 9 }));
        assert!(KnownId::new("s", "r", bytes).is_err());
    }

    #[test]
    fn a_head_comes_back_with_what_was_taken() {
        let batch = Batch {
            digest: [1; 16],
            key_hash: 2,
            count: 3,
            amount: 4,
            accepted_at: 5,
            currency: Currency::parse("CNY").unwrap(),
            client: "s",
            id: "b",
            campaign: "c",
        };
        for taken in [None, Some(Taken::default()), Some(Taken { count: 3, amount: 4 })] {
            assert_eq!(decode_head(&encode_head(&batch, taken)), Ok((batch, taken)));
        }
        assert!(decode_head(&[]).is_err());
    }

    #[test]
    fn no_id_can_be_taken_for_a_batch() {
        assert!(crate::domain::ids::check_id("#batch:b").is_err());
        assert_ne!(batch_field("s", "b"), items_field("s", "b"));
        assert_eq!(id_field("s", "a:b"), b"s:a:b");
    }

    #[test]
    fn the_answers_are_read_with_suspicion() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let told = Value::Array(vec![Value::Int(2), text("v")]);
        assert_eq!(registered(told, 2).unwrap(), [None, Some(b"v".to_vec())]);
        for odd in [
            Value::Int(1),
            Value::Array(vec![Value::Int(3), text("v")]),
            Value::Array(vec![Value::Int(0), text("v")]),
            Value::Array(vec![Value::Int(1)]),
        ] {
            assert!(registered(odd.clone(), 2).is_err(), "{odd:?}");
        }
        assert!(looked(Value::Array(vec![Value::Nil]), 2).is_err());
    }
}
