//! Crash suspects on the fleet's board: whoever gets a poison request next knows what it did elsewhere.
//!
//! One hash: a mark to its crashes, `group` to the marks of a blamed batch (separated by spaces), `version`; and one beside
//! it (`:since`): a mark to when its first crash was met. What holds: one HSET a thousand crashes; a count in Redis is never replaced by a smaller one from a process that knew less,
//! for [`Suspects`](super::Suspects) reads before it adds. Two crashes in the same instant may count as one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{Saved, SuspectError, SuspectStore, VERSION};
use crate::domain::UnixMs;
use crate::intake::redis::Keys;
use crate::redis::{Command, Failure, Link, LinkError, Script, Target, Value, reply};

/// One HSET, by a full Redis too: else a request that crashes whoever takes it would never be known by it.
static NOTE: Script =
    Script::new("suspects", "#!lua flags=allow-oom\nreturn redis.call('HSET', KEYS[1], unpack(ARGV))");
/// Crashes in one command: they become arguments.
const NOTED_MAX: usize = 1_000;

const GROUP: &str = "group";
const VERSION_FIELD: &str = "version";
/// A process that is about to end waits this long at the most for each step.
const PATIENCE: std::time::Duration = std::time::Duration::from_millis(500);

pub struct RedisSuspects {
    link: Mutex<Link>,
    key: String,
    since_key: String,
}

impl RedisSuspects {
    /// `target` is where the board is; its timeouts are cut short.
    pub fn new(target: &Target, keys: &Keys) -> Result<RedisSuspects, LinkError> {
        let mut target = target.clone();
        target.connect_timeout = target.connect_timeout.min(PATIENCE);
        target.response_timeout = target.response_timeout.min(PATIENCE);
        let [key, since_key] = ["suspects", "suspects:since"].map(|what| keys.board(what));
        Ok(RedisSuspects { link: Mutex::new(Link::new(&target)?), key, since_key })
    }

    /// Tried twice where that may help: both commands may be executed any number of times.
    fn call(&self, command: impl Fn() -> Command) -> Result<Value, Failure> {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        match link.call(command()) {
            // A connection that was idle may have been closed on the other side.
            Err(failure) if failure.is_unknown() => link.call(command()),
            answer => answer,
        }
    }
}

/// What a hash from marks to numbers holds.
fn parse_since(value: Value) -> Result<HashMap<u64, UnixMs>, SuspectError> {
    let number =
        |value| reply::text("HGETALL", value)?.and_then(|text| text.parse().ok()).ok_or_else(strange);
    let mut flat = flat(value)?.into_iter();
    let mut since = HashMap::new();
    while let (Some(mark), Some(at)) = (flat.next(), flat.next()) {
        since.insert(number(mark)?, number(at)?);
    }
    Ok(since)
}

fn flat(value: Value) -> Result<Vec<Value>, Failure> {
    match value {
        Value::Map(pairs) => Ok(pairs.into_iter().flat_map(|(field, value)| [field, value]).collect()),
        other => reply::array("HGETALL", other),
    }
}

fn strange() -> SuspectError {
    Failure::Strange { command: "HGETALL".to_owned(), expected: "crash suspects" }.into()
}

fn parse(value: Value) -> Result<Saved, SuspectError> {
    let mut saved = Saved::default();
    let mut flat = flat(value)?.into_iter();
    while let (Some(field), Some(value)) = (flat.next(), flat.next()) {
        let field = reply::text("HGETALL", field)?.ok_or_else(strange)?;
        let value = reply::text("HGETALL", value)?.ok_or_else(strange)?;
        match field.as_str() {
            VERSION_FIELD => match value.parse() {
                Ok(VERSION) => saved.version = VERSION,
                Ok(other) => return Err(SuspectError::VersionUnknown(other)),
                Err(_) => return Err(strange()),
            },
            GROUP => {
                let marks = value.split(' ').filter(|mark| !mark.is_empty()).map(str::parse);
                saved.group = marks.collect::<Result<_, _>>().map_err(|_| strange())?;
            }
            mark => {
                let (mark, crashes) = (mark.parse(), value.parse());
                saved.crashes.insert(mark.map_err(|_| strange())?, crashes.map_err(|_| strange())?);
            }
        }
    }
    Ok(saved)
}

impl SuspectStore for RedisSuspects {
    fn load(&self) -> Result<Saved, SuspectError> {
        let saved = parse(self.call(|| Command::new("HGETALL", &self.key))?)?;
        let since = parse_since(self.call(|| Command::new("HGETALL", &self.since_key))?)?;
        Ok(Saved { since, ..saved })
    }

    fn save(&self, saved: &Saved) -> Result<(), SuspectError> {
        let group: Vec<String> = saved.group.iter().map(u64::to_string).collect();
        let group = group.join(" ");
        let crashes: Vec<(&u64, &u32)> = saved.crashes.iter().collect();
        let parts = crashes.chunks(NOTED_MAX).chain(crashes.is_empty().then_some(&[][..]));
        for part in parts {
            self.call(|| {
                let mut command = Command::script(&NOTE, &[self.key.as_bytes()]);
                command = command.arg(VERSION_FIELD).arg(VERSION).arg(GROUP).arg(&group);
                for (mark, crashes) in part {
                    command.push(**mark);
                    command.push(**crashes);
                }
                command
            })?;
        }
        Ok(())
    }

    fn tidy(&self, dated: &[u64], now: UnixMs, forgotten: &[u64]) -> Result<(), SuspectError> {
        for part in dated.chunks(NOTED_MAX) {
            self.call(|| {
                let command = Command::script(&NOTE, &[self.since_key.as_bytes()]);
                part.iter().fold(command, |command, mark| command.arg(*mark).arg(now))
            })?;
        }
        // The times last: without its time a crash would count as new.
        for key in [&self.key, &self.since_key] {
            for part in forgotten.chunks(NOTED_MAX) {
                let hdel = || part.iter().fold(Command::new("HDEL", key), |command, mark| command.arg(*mark));
                self.call(hdel)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_or_refused_by_name() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let read = |words: &[&str]| parse(Value::Array(words.iter().map(|word| text(word)).collect()));
        assert_eq!(read(&[]).unwrap(), Saved::default());
        let saved = read(&["version", "1", "18446744073709551614", "2", "group", "1 2 3", "7", "1"]).unwrap();
        let crashes = [(u64::MAX - 1, 2), (7, 1)].into_iter().collect();
        assert_eq!(saved, Saved { version: 1, crashes, group: vec![1, 2, 3], ..Saved::default() });
        assert_eq!(read(&["version", "1", "group", ""]).unwrap().group, Vec::<u64>::new());
        assert!(read(&["version", "2"]).unwrap_err().to_string().contains("format 2"));
        for words in [["mark", "1"], ["7", "many"], ["group", "1 x"]] {
            assert!(read(&words).is_err(), "{words:?}");
        }
    }
}
