//! What of the streams is given up, and who has to be waited for.
//!
//! Readers note how far they have got in one hash of the board: field `reader|unit`, value `ms-number|seen`, the
//! time by Redis. The owner of a unit gives up what is older than the retention and behind every reader that was
//! seen lately; a reader that is silent for a day is waited for no more, and named in the log; where memory runs
//! short, already after minutes. Trimming is safe whoever does it, so that it is not fenced. What holds: bounded work a
//! call, but enough of it to keep up with what is written; a unit whose stream cannot be trimmed holds up no other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::domain::UnixMs;
use crate::intake::redis::{Keys, UnitId, keys};
use crate::outcome::stream::{Position, StreamId};
use crate::redis::{Command, Failure, Link, Script, Value, reply};

/// One HSET: arguments are fields and positions; the time is put behind each position.
static NOTE: Script = Script::new(
    "note",
    "#!lua flags=allow-oom
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
for at = 2, #ARGV, 2 do
    ARGV[at] = ARGV[at] .. '|' .. now
end
return redis.call('HSET', KEYS[1], unpack(ARGV))",
);
/// Positions in one command.
const NOTED_MAX: usize = 1_000;
/// Entries of one stream that one command gives up, at most: what Redis is kept from its other clients for.
const TRIMMED_MAX: usize = 1_000;
/// Rounds of such commands in one call: some ten thousand entries a second of each stream, called every five.
const ROUNDS_MAX: usize = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrimOptions {
    /// Entries younger than this stay, whoever has read them.
    pub retention_ms: u64,
    /// A reader not seen for so long is waited for no more.
    pub silent_ms_max: u64,
}

impl Default for TrimOptions {
    fn default() -> TrimOptions {
        TrimOptions { retention_ms: 3_600_000, silent_ms_max: 86_400_000 }
    }
}

/// How far a reader has got in one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    pub reader: String,
    pub unit: String,
    pub id: StreamId,
    pub seen_at: UnixMs,
}

impl Noted {
    fn parse(field: &str, value: &str) -> Option<Noted> {
        let (reader, unit) = field.split_once('|')?;
        let (id, seen_at) = value.split_once('|')?;
        let (reader, unit) = (reader.to_owned(), unit.to_owned());
        Some(Noted { reader, unit, id: StreamId::parse(id)?, seen_at: seen_at.parse().ok()? })
    }
}

/// Commands that note how far `reader` has got.
pub(super) fn note(keys: &Keys, reader: &str, positions: &[Position]) -> Vec<Command> {
    let key = keys.board("readers");
    let command = |positions: &[Position]| {
        let mut command = Command::script(&NOTE, &[key.as_bytes()]);
        for position in positions {
            command.push(format!("{reader}|{}", position.stream));
            command.push(position.id.to_string());
        }
        command
    };
    positions.chunks(NOTED_MAX).map(command).collect()
}

/// Everything below this may go: of one unit, at `now`, which is trimmed here since `since`; a reader that was away
/// together with everybody has as long again to say that it is there. The second are the readers that were not waited
/// for.
pub fn bound<'n>(
    (now, since): (UnixMs, UnixMs),
    unit: &str,
    noted: &'n [Noted],
    options: TrimOptions,
) -> (StreamId, Vec<&'n Noted>) {
    let mut bound = StreamId { ms: now.saturating_sub(options.retention_ms), number: 0 };
    let mut silent = Vec::new();
    for noted in noted.iter().filter(|noted| noted.unit == unit) {
        if now.saturating_sub(noted.seen_at.max(since)) > options.silent_ms_max {
            silent.push(noted);
        } else {
            bound = bound.min(noted.id);
        }
    }
    (bound, silent)
}

/// Trims, for whoever owns units.
pub struct Trimmer {
    keys: Arc<Keys>,
    options: TrimOptions,
    /// Readers that were named as silent.
    named: HashSet<String>,
    /// By unit: since when it is trimmed here, without a break.
    since: HashMap<UnitId, UnixMs>,
}

impl Trimmer {
    pub fn new(keys: Arc<Keys>, options: TrimOptions) -> Trimmer {
        Trimmer { keys, options, named: HashSet::new(), since: HashMap::new() }
    }

    /// From now on, what all readers have is kept this long, and who is silent for this long is waited for no more.
    pub fn retain(&mut self, options: TrimOptions) {
        self.options = options;
    }

    /// Gives up what nobody needs of these units; answers how many entries that were. To be called every few seconds,
    /// with the units that are owned at the time. A failure is told once all other units were seen to.
    pub fn run(&mut self, link: &mut Link, units: &[UnitId]) -> Result<u64, Failure> {
        let board = self.keys.board("readers");
        let asked = [Command::new("HGETALL", &board), Command::routed("TIME", &board)];
        let mut answers = link.round(&asked).into_iter();
        let mut answer = || answers.next().expect("one result a command");
        let noted = noted_of(answer()?)?;
        let now = time_of(answer()?)?;
        let mut commands = Vec::new();
        self.since.retain(|unit, _| units.contains(unit));
        for unit in units {
            let since = *self.since.entry(*unit).or_insert(now);
            let (bound, silent) = bound((now, since), &self.keys.unit_name(*unit), &noted, self.options);
            self.name(now, &silent);
            let trim = Command::new("XTRIM", self.keys.outcomes(*unit)).arg("MINID").arg("~");
            commands.push(trim.arg(bound.to_string()).arg("LIMIT").arg(TRIMMED_MAX));
        }
        let (mut trimmed, mut failed) = (0, None);
        for _ in 0..ROUNDS_MAX {
            let mut left = Vec::new();
            for (command, result) in commands.iter().zip(link.round(&commands)) {
                match result.and_then(|value| reply::int("XTRIM", value)) {
                    // Whole nodes go, so that the last of a full command may stay.
                    Ok(count) if count.unsigned_abs() >= TRIMMED_MAX as u64 / 2 => {
                        trimmed += count.unsigned_abs();
                        left.push(command.clone());
                    }
                    Ok(count) => trimmed += count.unsigned_abs(),
                    Err(failure) => failed = failed.or(Some(failure)),
                }
            }
            commands = left;
            if commands.is_empty() {
                break;
            }
        }
        failed.map_or(Ok(trimmed), Err)
    }

    /// Says of each silent reader once that it is not waited for.
    fn name(&mut self, now: UnixMs, silent: &[&Noted]) {
        for noted in silent {
            if self.named.insert(noted.reader.clone()) {
                let silent_s = now.saturating_sub(noted.seen_at) / 1_000;
                tracing::warn!(
                    reader = noted.reader,
                    silent_s,
                    "a reader of the outcomes was not seen for long and is waited for no more; it may miss some. If it \
                     is gone for good: hongbao fleet forget {}",
                    noted.reader
                );
            }
        }
    }
}

/// Forgets a reader: nothing is kept for it any more. Answers how many positions were noted of it.
pub fn forget(link: &mut Link, namespace: &str, reader: &str) -> Result<u64, Failure> {
    let board = keys::board(namespace, "readers");
    let noted = noted_of(link.call(Command::new("HGETALL", &board))?)?;
    let fields: Vec<String> = noted
        .iter()
        .filter(|noted| noted.reader == reader)
        .map(|noted| format!("{}|{}", noted.reader, noted.unit))
        .collect();
    if fields.is_empty() {
        return Ok(0);
    }
    let gone = link.call(Command::new("HDEL", &board).arg(fields))?;
    Ok(reply::int("HDEL", gone)?.unsigned_abs())
}

/// Readers by name, each with when it was seen last, Unix ms by the clock of Redis; and that clock.
pub fn readers(link: &mut Link, namespace: &str) -> Result<(BTreeMap<String, UnixMs>, UnixMs), Failure> {
    let board = keys::board(namespace, "readers");
    let mut seen = BTreeMap::new();
    for noted in noted_of(link.call(Command::new("HGETALL", &board))?)? {
        let at = seen.entry(noted.reader).or_insert(0);
        *at = noted.seen_at.max(*at);
    }
    let now = time_of(link.call(Command::routed("TIME", &board))?)?;
    Ok((seen, now))
}

fn noted_of(value: Value) -> Result<Vec<Noted>, Failure> {
    let mut parts = reply::array("HGETALL", value)?.into_iter();
    let mut noted = Vec::new();
    while let (Some(field), Some(value)) = (parts.next(), parts.next()) {
        let (field, value) = (reply::text("HGETALL", field)?, reply::text("HGETALL", value)?);
        // What does not read as one was not written by us, and is nobody to wait for.
        noted.extend(Noted::parse(&field.unwrap_or_default(), &value.unwrap_or_default()));
    }
    Ok(noted)
}

/// Unix ms by the clock of Redis.
fn time_of(value: Value) -> Result<UnixMs, Failure> {
    let strange = || Failure::Strange { command: "TIME".to_owned(), expected: "seconds and microseconds" };
    let parts = reply::array("TIME", value)?;
    let number = |at: usize| -> Result<u64, Failure> {
        let text = reply::text("TIME", parts.get(at).cloned().ok_or_else(strange)?)?;
        text.and_then(|text| text.parse().ok()).ok_or_else(strange)
    };
    Ok(number(0)? * 1_000 + number(1)? / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_who_was_seen_lately_misses_anything() {
        let noted = |reader: &str, unit: &str, ms, seen_at| Noted {
            reader: reader.to_owned(),
            unit: unit.to_owned(),
            id: StreamId { ms, number: 3 },
            seen_at,
        };
        let options = TrimOptions { retention_ms: 100, silent_ms_max: 1_000 };
        let at = |ms, number| StreamId { ms, number };
        let table: [(Vec<Noted>, StreamId, usize); 5] = [
            (vec![], at(9_900, 0), 0),
            (vec![noted("view", "u", 9_950, 9_990)], at(9_900, 0), 0),
            (vec![noted("view", "u", 500, 9_990), noted("other", "u", 400, 9_500)], at(400, 3), 0),
            (vec![noted("view", "v", 500, 9_990)], at(9_900, 0), 0),
            (vec![noted("view", "u", 500, 8_999), noted("other", "u", 600, 9_000)], at(600, 3), 1),
        ];
        for (row, (noted, expected, silent)) in table.iter().enumerate() {
            let (found, left_out) = bound((10_000, 0), "u", noted, options);
            assert_eq!((found, left_out.len()), (*expected, *silent), "row {row}");
            let waited_for = noted.iter().filter(|noted| noted.unit == "u").map(|noted| noted.id).min();
            let (found, left_out) = bound((10_000, 9_500), "u", noted, options);
            let all = waited_for.map_or(at(9_900, 0), |id| id.min(at(9_900, 0)));
            assert_eq!((found, left_out.len()), (all, 0), "row {row}: who could not yet have said so");
        }
    }

    #[test]
    fn what_is_noted_reads_back() {
        let read = Noted::parse("view|a|b", "5-6|70");
        let expected = Noted {
            reader: "view".into(),
            unit: "a|b".into(),
            id: StreamId { ms: 5, number: 6 },
            seen_at: 70,
        };
        assert_eq!(read, Some(expected));
        for (field, value) in [("view", "5-6|7"), ("view|u", "5|7"), ("view|u", "5-6"), ("view|u", "5-6|x")] {
            assert_eq!(Noted::parse(field, value), None, "{field} {value}");
        }
    }
}
