//! The lease of a unit: who owns it, under which epoch, until when; and the three scripts that change it.
//!
//! Stored as `epoch|incarnation|deadline_ms` without expiry. What holds: each script reads Redis's own clock and
//! writes its one key with one SET; the epoch rises with every acquisition and never falls while the key is there, nor
//! for a process that saw a higher one before Redis went back to an older state; only who is named in the lease renews
//! or releases it. Absent: when to do which.

use crate::redis::{Command, Failure, Script, Value, reply};

/// Refused because the lease is another's, or of another epoch.
pub const STALE: &str = "STALE";
/// Refused because the key is not there where it was seen before.
pub const GONE: &str = "GONE";
/// Refused because what stands in the key is no lease.
pub const ODD: &str = "ODD";

/// Free are: a key that was never there, a deadline that passed (zero: released), and one's own older lease.
/// ARGV incarnation ttl seen least: the new epoch is above the stored one and `least`.
pub static ACQUIRE: Script = Script::new(
    "acquire",
    "#!lua flags=allow-oom
local held = redis.call('GET', KEYS[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local epoch = tonumber(ARGV[4])
if held then
  local number, incarnation, deadline = string.match(held, '^(%d+)|([^|]*)|(%d+)$')
  if not number then return redis.error_reply('ODD ' .. KEYS[1] .. ' holds no lease') end
  if incarnation ~= ARGV[1] and tonumber(deadline) > now then return held end
  epoch = math.max(epoch, tonumber(number))
elseif ARGV[3] == '1' then
  return redis.error_reply('GONE ' .. KEYS[1] .. ' is not there any more')
end
local lease = string.format('%.0f|%s|%.0f', epoch + 1, ARGV[1], now + tonumber(ARGV[2]))
redis.call('SET', KEYS[1], lease)
return epoch + 1",
);

pub static RENEW: Script = Script::new(
    "renew",
    "#!lua flags=allow-oom
local held = redis.call('GET', KEYS[1])
if not held then return redis.error_reply('GONE ' .. KEYS[1] .. ' is not there any more') end
local own = ARGV[1] .. '|' .. ARGV[2] .. '|'
if string.sub(held, 1, #own) ~= own then return redis.error_reply('STALE ' .. KEYS[1] .. ' is ' .. held) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', KEYS[1], own .. string.format('%.0f', now + tonumber(ARGV[3])))
return 1",
);

/// The epoch stays, so that it can only rise.
pub static RELEASE: Script = Script::new(
    "release",
    "#!lua flags=allow-oom
local held = redis.call('GET', KEYS[1])
if not held then return redis.error_reply('GONE ' .. KEYS[1] .. ' is not there any more') end
local own = ARGV[1] .. '|' .. ARGV[2] .. '|'
if string.sub(held, 1, #own) ~= own then return redis.error_reply('STALE ' .. KEYS[1] .. ' is ' .. held) end
redis.call('SET', KEYS[1], own .. '0')
return 1",
);

/// What stands in the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub epoch: u64,
    pub incarnation: String,
    /// By Redis's clock, Unix ms; zero: released.
    pub deadline_ms: u64,
}

impl Lease {
    /// Nothing where it is no lease.
    pub fn parse(text: &str) -> Option<Lease> {
        let mut fields = text.split('|');
        let (epoch, incarnation, deadline) = (fields.next()?, fields.next()?, fields.next()?);
        let lease = Lease {
            epoch: epoch.parse().ok()?,
            incarnation: incarnation.to_owned(),
            deadline_ms: deadline.parse().ok()?,
        };
        fields.next().is_none().then_some(lease)
    }
}

/// Takes it for `ttl_ms`, if it is free, under an epoch above `epoch_seen`: the highest that was ever seen of it.
/// `was_seen`: a missing key is then an error ([`GONE`]), not a new unit.
pub fn acquire(key: &str, incarnation: &str, ttl_ms: u64, was_seen: bool, epoch_seen: u64) -> Command {
    let seen = if was_seen { "1" } else { "0" };
    Command::script(&ACQUIRE, &[key.as_bytes()]).arg(incarnation).arg(ttl_ms).arg(seen).arg(epoch_seen)
}

/// Keeps it for `ttl_ms` from now on.
pub fn renew(key: &str, epoch: u64, incarnation: &str, ttl_ms: u64) -> Command {
    Command::script(&RENEW, &[key.as_bytes()]).arg(epoch).arg(incarnation).arg(ttl_ms)
}

/// Makes it free for anybody.
pub fn release(key: &str, epoch: u64, incarnation: &str) -> Command {
    Command::script(&RELEASE, &[key.as_bytes()]).arg(epoch).arg(incarnation)
}

/// What `acquire` came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// Under this epoch.
    Ours(u64),
    /// It is leased, by this value of the key.
    Theirs(String),
}

pub fn acquired(value: Value) -> Result<Acquired, Failure> {
    match value {
        Value::Int(epoch) if epoch > 0 => Ok(Acquired::Ours(epoch as u64)),
        other => match reply::text("acquire", other)? {
            Some(lease) => Ok(Acquired::Theirs(lease)),
            None => Err(Failure::Strange { command: "acquire".to_owned(), expected: "an epoch or a lease" }),
        },
    }
}

/// `TIME`, as Unix ms: the clock that deadlines go by.
pub fn redis_ms(value: Value) -> Result<u64, Failure> {
    let strange = || Failure::Strange { command: "TIME".to_owned(), expected: "seconds and microseconds" };
    let parts = reply::array("TIME", value)?;
    let mut numbers = Vec::with_capacity(2);
    for part in parts {
        let text = reply::text("TIME", part)?.ok_or_else(strange)?;
        numbers.push(text.parse::<u64>().map_err(|_| strange())?);
    }
    let [seconds, micros] = numbers[..] else { return Err(strange()) };
    Ok(seconds * 1_000 + micros / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_as_stored() {
        let lease = |epoch, incarnation: &str, deadline_ms| {
            Some(Lease { epoch, incarnation: incarnation.to_owned(), deadline_ms })
        };
        let table = [
            ("7|i-1|1700000000000", lease(7, "i-1", 1_700_000_000_000)),
            ("1|a|0", lease(1, "a", 0)),
            ("", None),
            ("7|i-1", None),
            ("7|i-1|5|6", None),
            ("x|i-1|5", None),
            ("7|i-1|-5", None),
        ];
        for (text, expected) in table {
            assert_eq!(Lease::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_time_in_milliseconds() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let time = Value::Array(vec![text("1700000000"), text("123999")]);
        assert_eq!(redis_ms(time), Ok(1_700_000_000_123));
        assert!(redis_ms(Value::Nil).is_err() && redis_ms(Value::Array(vec![text("x"), text("1")])).is_err());
    }

    #[test]
    fn what_acquire_answers() {
        assert_eq!(acquired(Value::Int(3)), Ok(Acquired::Ours(3)));
        assert_eq!(acquired(Value::BulkString(b"1|a|9".to_vec())), Ok(Acquired::Theirs("1|a|9".to_owned())));
        assert!(acquired(Value::Nil).is_err() && acquired(Value::Int(0)).is_err());
    }
}
