//! Dead letters, for operators: to be listed, pushed again, and purged. No running service is needed.
//!
//! What holds: an element is pushed again before its letter is removed, so that a crash between leaves both, and the
//! id is still paid once; only the very letter that was read is removed, whatever is buried meanwhile. Letters are
//! read in pages bounded in bytes, so that large ones do not hold Redis up.

use super::dead::{Entry, EntryFault};
use super::element::frame;
use super::keys::Keys;
use super::units::{Order, Unit, UnitId};
use crate::domain::Lane;
use crate::intake::QueueId;
use crate::redis::{Command, Failure, Link, Value, reply};

/// Letters of the first page, and what a page may come to afterwards.
const PAGE_COUNT_FIRST: usize = 16;
const PAGE_COUNT_MAX: usize = 1_000;
const PAGE_BYTES: usize = 4 << 20;
/// Removals in one round.
const ROUND_COUNT_MAX: usize = 500;

/// A letter as it stands in Redis.
#[derive(Clone, Debug)]
pub struct Letter {
    pub unit: UnitId,
    /// By which it is named in commands: a hash of the whole.
    pub id: String,
    pub entry: Result<Entry<'static>, EntryFault>,
    raw: Vec<u8>,
}

/// Which letters.
#[derive(Clone, Debug, Default)]
pub struct LetterFilter {
    /// The name of a unit: `hongbao:3`, or a foreign list's.
    pub unit: Option<String>,
    pub reason: Option<String>,
    /// If there are any, only these.
    pub ids: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    #[error(transparent)]
    Redis(#[from] Failure),
    #[error("there is no list or shard {name:?}; there are {known}")]
    NoUnit { name: String, known: String },
    #[error(
        "letter {id} was not pushed again: {reason}; it stays where it is (`hongbao dead show {id}` prints it)"
    )]
    NotWhole { id: String, reason: String },
    #[error(
        "letter {id} may or may not have been pushed again: {reason}; it stays where it is, try once more"
    )]
    Unsure { id: String, reason: Failure },
}

pub struct Letters<'l> {
    link: &'l mut Link,
    keys: &'l Keys,
}

impl<'l> Letters<'l> {
    pub fn new(link: &'l mut Link, keys: &'l Keys) -> Letters<'l> {
        Letters { link, keys }
    }

    /// The units that the filter is about.
    fn units(&self, filter: &LetterFilter) -> Result<Vec<UnitId>, LetterError> {
        let units = self.keys.units();
        let Some(name) = &filter.unit else { return Ok(units.ids().collect()) };
        let found: Vec<UnitId> = units.ids().filter(|unit| self.keys.unit_name(*unit) == *name).collect();
        if found.is_empty() {
            let known: Vec<String> = units.ids().map(|unit| self.keys.unit_name(unit)).collect();
            return Err(LetterError::NoUnit { name: name.clone(), known: known.join(", ") });
        }
        Ok(found)
    }

    /// How many letters each unit has that has any.
    pub fn counts(&mut self, filter: &LetterFilter) -> Result<Vec<(String, u64)>, LetterError> {
        let units = self.units(filter)?;
        let commands: Vec<Command> =
            units.iter().map(|unit| Command::new("LLEN", self.keys.dead(*unit))).collect();
        let mut counts = Vec::new();
        for (unit, result) in units.into_iter().zip(self.link.round(&commands)) {
            let count = reply::int("LLEN", result?)? as u64;
            if count > 0 {
                counts.push((self.keys.unit_name(unit), count));
            }
        }
        Ok(counts)
    }

    /// Up to `count_max` letters that the filter lets through: unit by unit, the oldest first.
    pub fn find(&mut self, filter: &LetterFilter, count_max: usize) -> Result<Vec<Letter>, LetterError> {
        let mut found = Vec::new();
        for unit in self.units(filter)? {
            let (mut offset, mut page_count) = (0, PAGE_COUNT_FIRST);
            while found.len() < count_max {
                let page = self.page(unit, offset, page_count)?;
                let (read, largest) = (page.len(), page.iter().map(Vec::len).max().unwrap_or(1));
                found.extend(
                    page.into_iter()
                        .map(|raw| letter(unit, raw))
                        .filter(|letter| filter.lets_through(letter)),
                );
                if read < page_count {
                    break;
                }
                offset += read;
                page_count = (PAGE_BYTES / largest.max(1)).clamp(1, PAGE_COUNT_MAX);
            }
        }
        found.truncate(count_max);
        Ok(found)
    }

    fn page(&mut self, unit: UnitId, offset: usize, count: usize) -> Result<Vec<Vec<u8>>, LetterError> {
        let command = Command::new("LRANGE", self.keys.dead(unit)).arg(offset).arg(offset + count - 1);
        let mut page = Vec::new();
        for value in reply::array("LRANGE", self.link.call(command)?)? {
            page.extend(reply::bytes("LRANGE", value)?);
        }
        Ok(page)
    }

    /// Pushes the element of a letter where producers push, then removes the letter. A shard's goes to any list of that
    /// shard: its requests name their queues themselves. False if the letter was gone by then.
    pub fn requeue(&mut self, letter: &Letter) -> Result<bool, LetterError> {
        let not_whole = |reason: String| LetterError::NotWhole { id: letter.id.clone(), reason };
        let entry = letter.entry.as_ref().map_err(|fault| not_whole(fault.to_string()))?;
        let element = entry.whole_element().map_err(|fault| not_whole(fault.to_string()))?;
        let element = element.ok_or_else(|| {
            not_whole(format!("it was cut, of {} bytes, when it was buried", entry.element_bytes))
        })?;
        let list = self.keys.list(letter.unit, QueueId { lane: Lane::Realtime, fair: 0 });
        let push = match self.keys.units().get(letter.unit) {
            Unit::Shard(_) if !frame::looks_like_one(&element) => {
                return Err(not_whole("a shard's list takes frames of a door only".to_owned()));
            }
            Unit::Shard(_) => "RPUSH",
            Unit::Foreign(foreign) => match foreign.order {
                Order::Rpush => "RPUSH",
                Order::Lpush => "LPUSH",
            },
        };
        match self.link.call(Command::new(push, list).arg(&element[..])) {
            Ok(_) => Ok(self.remove(std::slice::from_ref(letter))? > 0),
            Err(reason) if reason.is_unknown() => Err(LetterError::Unsure { id: letter.id.clone(), reason }),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Removes these letters for good; how many were still there.
    pub fn remove(&mut self, letters: &[Letter]) -> Result<u64, LetterError> {
        let mut removed = 0;
        for letters in letters.chunks(ROUND_COUNT_MAX) {
            let remove = |letter: &Letter| {
                Command::new("LREM", self.keys.dead(letter.unit)).arg(1).arg(&letter.raw[..])
            };
            let commands: Vec<Command> = letters.iter().map(remove).collect();
            for result in self.link.round(&commands) {
                removed += match result? {
                    Value::Int(count) => count as u64,
                    _ => 0,
                };
            }
        }
        Ok(removed)
    }
}

impl LetterFilter {
    fn lets_through(&self, letter: &Letter) -> bool {
        let reason = || letter.entry.as_ref().ok().map(|entry| &*entry.reason);
        (self.ids.is_empty() || self.ids.contains(&letter.id))
            && self.reason.as_deref().is_none_or(|wanted| reason() == Some(wanted))
    }
}

fn letter(unit: UnitId, raw: Vec<u8>) -> Letter {
    let hash = blake3::hash(&raw);
    let id = hex::encode(&hash.as_bytes()[..6]);
    Letter { unit, id, entry: Entry::read(&raw), raw }
}
