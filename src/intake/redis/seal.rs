//! The scripts of the sealed generations: look, seal, append, ack, probe for what is large, and scan what may be.
//!
//! Each writes one key with one command at most, and does so only for the owner of the unit: the first key is the
//! owner's, the first argument what its value must begin with (`epoch|incarnation|`). Errors by their first word:
//! `GONE` no owner is written there, `STALE` it is another, `BESIDE` a key beside the lists is not what it must be, `LENGTH n` the generation has n elements and not as many
//! as were expected, `LATE now` the command came after its time.
//!
//! Why they have a time: an ack that was sent over a connection that broke may still be executed, when this process
//! has long sealed the next elements into the same key; if they were as many, it would trim what nobody has paid.
//! So nothing is sealed into a key before every ack of it that may be on its way has become too late, by the clock
//! of the same server.
//!
//! Why there is an append: with both generations under way nothing can be sealed, and a single request whose wallet does
//! not answer would keep all that follow it in the list from being read. One element a command, as it writes two keys.

use crate::domain::UnixMs;
use crate::redis::{Command, Failure, Script, Value, reply};

use super::units::Order;

/// Opens every script here: stops unless the unit is owned as said, then tells the time.
macro_rules! fenced {
    ($body:literal) => {
        concat!(
            "#!lua flags=allow-oom\n",
            "local owner = redis.call('GET', KEYS[1])\n",
            "if not owner then return redis.error_reply('GONE no owner at ' .. KEYS[1]) end\n",
            "if owner:sub(1, #ARGV[1]) ~= ARGV[1] then return redis.error_reply('STALE owned by ' .. owner) end\n",
            "local time = redis.call('TIME')\n",
            "local now = time[1] * 1000 + math.floor(time[2] / 1000)\n",
            $body
        )
    };
}

/// KEYS owner a b outcomes parked → {LLEN a, LLEN b, now, bytes a, bytes b}; refused as `BESIDE` where what is read
/// could not be recorded, as one of the last two is something else than it must be
static LENGTHS: Script = Script::new(
    "lengths",
    fenced!(
        r"
local function bytes(list)
  local found = redis.pcall('MEMORY', 'USAGE', list, 'SAMPLES', 65536)
  return type(found) == 'number' and found or 0
end
local function is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == wanted or found == 'none'
end
for at, wanted in pairs({[4] = 'stream', [5] = 'zset'}) do
  if not is(KEYS[at], wanted) then
    return redis.error_reply('BESIDE ' .. KEYS[at] .. ' is no ' .. wanted .. ': rename it, or remove it; the unit stands still')
  end
end
local a, b = redis.call('LLEN', KEYS[2]), redis.call('LLEN', KEYS[3])
return {a, b, now, bytes(KEYS[2]), bytes(KEYS[3])}
"
    ),
);

/// KEYS owner live target, ARGV fence not_before deadline → {what, LLEN target, now, bytes}
static SEAL: Script = Script::new(
    "seal",
    fenced!(
        r"
if now > tonumber(ARGV[3]) then return redis.error_reply('LATE ' .. now) end
local live, target = redis.call('LLEN', KEYS[2]), redis.call('LLEN', KEYS[3])
if target > 0 then return {2, target, now, 0} end
if live == 0 then return {0, 0, now, 0} end
if now < tonumber(ARGV[2]) then return {3, 0, now, 0} end
redis.call('RENAME', KEYS[2], KEYS[3])
local bytes = redis.pcall('MEMORY', 'USAGE', KEYS[3], 'SAMPLES', 65536)
return {1, live, now, type(bytes) == 'number' and bytes or 0}
"
    ),
);

/// KEYS owner live list, ARGV fence least below head|tail deadline → {moved, LLEN list, now}
static APPEND: Script = Script::new(
    "append",
    fenced!(
        r"
if now > tonumber(ARGV[5]) then return redis.error_reply('LATE ' .. now) end
local length = redis.call('LLEN', KEYS[3])
if redis.call('LLEN', KEYS[2]) == 0 then return {0, length, now} end
if length < tonumber(ARGV[2]) or length >= tonumber(ARGV[3]) then
  return redis.error_reply('LENGTH ' .. length)
end
if ARGV[4] == 'head' then
  redis.call('LMOVE', KEYS[2], KEYS[3], 'LEFT', 'RIGHT')
else
  redis.call('LMOVE', KEYS[2], KEYS[3], 'RIGHT', 'LEFT')
end
return {1, length + 1, now}
"
    ),
);

/// KEYS owner list, ARGV fence expected count head|tail deadline → {LLEN, now}
static ACK: Script = Script::new(
    "ack",
    fenced!(
        r"
local length, count = redis.call('LLEN', KEYS[2]), tonumber(ARGV[3])
if now > tonumber(ARGV[5]) then return redis.error_reply('LATE ' .. now) end
if length ~= tonumber(ARGV[2]) or count > length then return redis.error_reply('LENGTH ' .. length) end
if ARGV[4] == 'head' then
  redis.call('LTRIM', KEYS[2], count, -1)
else
  redis.call('LTRIM', KEYS[2], 0, -(count + 1))
end
return {length - count, now}
"
    ),
);

/// KEYS list, ARGV first stride samples head|tail enough → bytes of the largest of the elements looked at
static PROBE: Script = Script::new(
    "probe",
    r"#!lua flags=no-writes
local largest, at = 0, tonumber(ARGV[1])
for _ = 1, tonumber(ARGV[3]) do
  local element = redis.call('LINDEX', KEYS[1], ARGV[4] == 'head' and at or -(at + 1))
  if not element then break end
  if #element > largest then largest = #element end
  if largest >= tonumber(ARGV[5]) then break end
  at = at + tonumber(ARGV[2])
end
return largest
",
);

/// KEYS list, ARGV offset count head|tail bytes_max element_bytes_max → elements, the oldest first, up to the first
/// with which they would have more bytes than that, but one at least; one that is too large as {bytes, its beginning}
static SCAN: Script = Script::new(
    "scan",
    r"#!lua flags=no-writes
local at, count, is_head = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == 'head'
local left, most = tonumber(ARGV[4]), tonumber(ARGV[5])
local found = {}
for number = 1, count do
  local element = redis.call('LINDEX', KEYS[1], is_head and at or -(at + 1))
  if not element then break end
  local bytes = #element
  if number > 1 and bytes > left then break end
  if bytes > most then element = {bytes, string.sub(element, 1, most)} end
  found[number] = element
  left, at = left - bytes, at + 1
end
return found
",
);

/// Nodes of a list that are looked at to tell its bytes; with more elements than this, they are an estimate.
pub const NODES_LOOKED_AT: u64 = 65_536;

/// Names the owner that a script works for.
#[derive(Clone, Debug)]
pub struct Fence {
    pub owner_key: String,
    pub epoch: u64,
    pub incarnation: String,
}

impl Fence {
    fn prefix(&self) -> String {
        format!("{}|{}|", self.epoch, self.incarnation)
    }
}

/// What a seal came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// The live list is empty.
    Nothing,
    Yes,
    /// There is something in the target already.
    Occupied,
    /// Not before the time that was given.
    Early,
}

fn end_of(order: Order) -> &'static str {
    match order {
        Order::Rpush => "head",
        Order::Lpush => "tail",
    }
}

/// Answered by [`lengths_reply`].
pub fn lengths(fence: &Fence, sealed: &[String; 2], beside: &[String; 2]) -> Command {
    let [a, b] = sealed.each_ref().map(String::as_bytes);
    let [outcomes, parked] = beside.each_ref().map(String::as_bytes);
    Command::script(&LENGTHS, &[fence.owner_key.as_bytes(), a, b, outcomes, parked]).arg(fence.prefix())
}

/// Elements in the two generations, the server's time, and the generations' bytes, 0 if they cannot be told.
pub fn lengths_reply(value: Value) -> Result<([u64; 2], UnixMs, [u64; 2]), Failure> {
    let [a, b, now, bytes_a, bytes_b] = numbers("lengths", value)?;
    Ok(([a, b], now, [bytes_a, bytes_b]))
}

/// Renames the live list to `target`, if that is empty. Answered by [`seal_reply`].
pub fn seal(fence: &Fence, live: &str, target: &str, not_before: UnixMs, deadline: UnixMs) -> Command {
    let keys = [fence.owner_key.as_bytes(), live.as_bytes(), target.as_bytes()];
    Command::script(&SEAL, &keys).arg(fence.prefix()).arg(not_before).arg(deadline)
}

/// What became of it, the elements in the target, the server's time, and the target's bytes, 0 if they cannot be told.
pub fn seal_reply(value: Value) -> Result<(Sealed, u64, UnixMs, u64), Failure> {
    let [what, target, now, bytes] = numbers("seal", value)?;
    let what = match what {
        0 => Sealed::Nothing,
        1 => Sealed::Yes,
        2 => Sealed::Occupied,
        _ => Sealed::Early,
    };
    Ok((what, target, now, bytes))
}

/// Moves the oldest element of the live list behind the newest of a generation that has `length` elements, or up to
/// `count` more. Answered by [`append_reply`].
pub fn append(
    fence: &Fence,
    live: &str,
    list: &str,
    order: Order,
    (length, count): (u64, u64),
    deadline: UnixMs,
) -> Command {
    Command::script(&APPEND, &[fence.owner_key.as_bytes(), live.as_bytes(), list.as_bytes()])
        .arg(fence.prefix())
        .arg(length)
        .arg(length + count)
        .arg(end_of(order))
        .arg(deadline)
}

/// Whether there was one, the elements in the generation, and the server's time.
pub fn append_reply(value: Value) -> Result<(bool, u64, UnixMs), Failure> {
    let [moved, length, now] = numbers("append", value)?;
    Ok((moved > 0, length, now))
}

/// Trims the `count` oldest elements of a generation of `expected`. Answered by [`ack_reply`].
pub fn ack(fence: &Fence, list: &str, order: Order, expected: u64, count: u64, deadline: UnixMs) -> Command {
    Command::script(&ACK, &[fence.owner_key.as_bytes(), list.as_bytes()])
        .arg(fence.prefix())
        .arg(expected)
        .arg(count)
        .arg(end_of(order))
        .arg(deadline)
}

/// The elements left, and the server's time.
pub fn ack_reply(value: Value) -> Result<(u64, UnixMs), Failure> {
    let [left, now] = numbers("ack", value)?;
    Ok((left, now))
}

/// The number behind the first word of an error of these scripts.
pub fn number_in(failure: &Failure) -> Option<u64> {
    match failure {
        Failure::Refused { detail, .. } => detail.split_whitespace().next()?.parse().ok(),
        Failure::NotSent(_) | Failure::Unknown(_) | Failure::Strange { .. } => None,
    }
}

/// Looks at `samples` elements, `stride` apart, the first at `offset` from the oldest, until one has `enough` bytes.
/// Answers the bytes of the largest.
pub fn probe(list: &str, order: Order, offset: u64, (stride, samples): (u64, u64), enough: u64) -> Command {
    Command::script(&PROBE, &[list.as_bytes()])
        .arg(offset)
        .arg(stride)
        .arg(samples)
        .arg(end_of(order))
        .arg(enough)
}

/// `count` elements, the oldest `offset` elements passed over. A list whose oldest is at the tail comes in reverse.
pub fn range(list: &str, order: Order, offset: u64, count: u64) -> Command {
    let (offset, count) = (offset as i64, count as i64);
    let (first, last) = match order {
        Order::Rpush => (offset, offset + count - 1),
        Order::Lpush => (-(offset + count), -(offset + 1)),
    };
    Command::new("LRANGE", list).arg(first).arg(last)
}

/// Up to `count` elements, the oldest `offset` elements passed over: as many as have `bytes_max`, but one at least.
/// The oldest comes first, whatever the order. See [`SCAN`] for one that is larger than `element_bytes_max`.
pub fn scan(
    list: &str,
    order: Order,
    (offset, count): (u64, u64),
    bytes_max: u64,
    element_bytes_max: u64,
) -> Command {
    Command::script(&SCAN, &[list.as_bytes()])
        .arg(offset)
        .arg(count)
        .arg(end_of(order))
        .arg(bytes_max)
        .arg(element_bytes_max)
}

fn numbers<const N: usize>(command: &str, value: Value) -> Result<[u64; N], Failure> {
    let strange = || Failure::Strange { command: command.to_owned(), expected: "numbers" };
    let values = reply::array(command, value)?;
    let numbers = values.into_iter().map(|value| {
        let number = reply::int(command, value)?;
        u64::try_from(number).map_err(|_| strange())
    });
    let numbers = numbers.collect::<Result<Vec<u64>, Failure>>()?;
    numbers.try_into().map_err(|_| strange())
}
