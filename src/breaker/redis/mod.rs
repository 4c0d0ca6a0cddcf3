//! The board of a fleet, in Redis: one hash, so that one script sees and writes it in one step.
//!
//! | field of `N:board:breaker` | what |
//! |---|---|
//! | `state` | the fleet's [`State`] with its terms as JSON; replaced by compare-and-set on its version |
//! | `i:<instance>` | what the board knows of an instance, as numbers ([`entry`]); one HSET a beat |
//!
//! What holds: what [`super::table`] says, for the scripts do the same (a test holds them together); Redis's clock
//! only; every script writes the key once. Both formats are named in what is stored; of another one, nothing is
//! granted and nothing overwritten. Absent: listening for changes between beats, so that a change is known a
//! beat later.

mod entry;
mod scripts;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::board::{Board, BoardError, Member, Orders, Report, View};
use super::policy::{Settings, State, Terms};
use super::table::{FORGET_MS, SEEN_AGE_MS_MAX};
use crate::redis::{Command, Failure, Link, Value, reply};
use crate::shaping::Amount;

pub const FORMAT: u32 = 1;
const STATE: &str = "state";
const INSTANCE: &str = "i:";

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    /// What the script grants by.
    terms: Terms,
    #[serde(flatten)]
    state: State,
}

pub struct RedisBoard {
    link: Link,
    key: String,
    /// What a board that has no state yet begins with.
    settings: Settings,
}

impl RedisBoard {
    /// `key`: the hash, the same for the whole fleet. `settings` are used where the board has none yet.
    pub fn new(link: Link, key: &str, settings: Settings) -> RedisBoard {
        RedisBoard { link, key: key.to_owned(), settings }
    }

    /// Writes the first state, unless there is one.
    fn begin(&mut self) -> Result<(), BoardError> {
        let time = self.link.call(Command::routed("TIME", &self.key)).map_err(unreachable)?;
        let seconds = reply::array("TIME", time).map_err(unreachable)?.into_iter().next();
        let seconds = reply::text("TIME", seconds.unwrap_or(Value::Nil)).map_err(unreachable)?;
        let now_ms = seconds.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) * 1_000;
        let state = State::new(self.settings.clone(), now_ms);
        let command = Command::new("HSETNX", &self.key).arg(STATE).arg(stored(&state));
        self.link.call(command).map_err(unreachable)?;
        Ok(())
    }

    fn ask(&mut self, report: &Report) -> Result<Vec<Value>, BoardError> {
        let ask = &report.ask;
        let numbers = [
            ask.sequence,
            ask.want.rate_per_s,
            ask.want.calls,
            ask.keep.rate_per_s,
            ask.keep.calls,
            report.permit as u64,
        ];
        let command = Command::script(&scripts::BEAT, &[self.key.as_bytes()])
            .arg(format!("{INSTANCE}{}", report.instance))
            .arg(&numbers[..])
            .arg(entry::said(&report.said));
        let value = self.link.call(command).map_err(unreachable)?;
        reply::array("beat", value).map_err(unreachable)
    }

    /// What is shown, and nothing is written where there is no state yet.
    pub fn peek(&mut self) -> Result<Option<View>, BoardError> {
        let command = Command::script(&scripts::LOOK, &[self.key.as_bytes()]);
        let value = self.link.call(command).map_err(unreachable)?;
        let mut parts = reply::array("look", value).map_err(unreachable)?.into_iter();
        let now_ms = number(parts.next())?;
        let flat = reply::array("look", parts.next().unwrap_or(Value::Nil)).map_err(unreachable)?;
        view_of(now_ms, flat)
    }

    /// Forgets instances that were not heard of for long, if they still were not.
    fn prune(&mut self, view: &View) -> Result<(), BoardError> {
        let is_old = |member: &Member| view.now_ms.saturating_sub(member.seen_ms) >= FORGET_MS;
        let old = view.members.iter().filter(|(_, member)| is_old(member));
        let prune = |(name, member): (&String, &Member)| {
            let field = format!("{INSTANCE}{name}");
            let script = Command::script(&scripts::PRUNE, &[self.key.as_bytes()]);
            script.arg(field).arg(entry::entry(member))
        };
        let commands: Vec<Command> = old.map(prune).collect();
        for result in self.link.round(&commands) {
            result.map_err(unreachable)?;
        }
        Ok(())
    }
}

fn stored(state: &State) -> String {
    let stored = Stored { format: FORMAT, terms: state.terms(), state: state.clone() };
    serde_json::to_string(&stored).expect("plain fields")
}

fn unreachable(failure: Failure) -> BoardError {
    BoardError::Unreachable(failure.to_string())
}

fn unreadable(what: impl Into<String>) -> BoardError {
    BoardError::Unreadable(what.into())
}

/// Fields and values to what they show; nothing where there is no state yet.
fn view_of(now_ms: u64, flat: Vec<Value>) -> Result<Option<View>, BoardError> {
    let (mut state, mut members) = (None, BTreeMap::new());
    let mut flat = flat.into_iter();
    while let (Some(field), Some(value)) = (flat.next(), flat.next()) {
        let text = |value| reply::text("board", value).map_err(unreachable).map(Option::unwrap_or_default);
        let (field, value) = (text(field)?, text(value)?);
        if field == STATE {
            let stored: Stored =
                serde_json::from_str(&value).map_err(|error| unreadable(format!("its state: {error}")))?;
            if stored.format != FORMAT {
                return Err(unreadable(format!("its state has format {}", stored.format)));
            }
            state = Some(stored.state);
        } else if let Some(name) = field.strip_prefix(INSTANCE) {
            let member = entry::parse(&value).ok_or_else(|| unreadable(format!("the entry of {name}")))?;
            members.insert(name.to_owned(), member);
        }
    }
    Ok(state.map(|state| View { now_ms, state, members }))
}

fn number(value: Option<Value>) -> Result<u64, BoardError> {
    let value = reply::int("beat", value.unwrap_or(Value::Nil)).map_err(unreachable)?;
    u64::try_from(value).map_err(|_| unreadable(format!("{value} where a count was expected")))
}

impl Board for RedisBoard {
    fn beat(&mut self, report: &Report) -> Result<Orders, BoardError> {
        let mut parts = self.ask(report)?;
        if parts.is_empty() {
            self.begin()?;
            parts = self.ask(report)?;
        }
        let mut parts = parts.into_iter();
        let mut numbers = [0; 7];
        for slot in &mut numbers {
            *slot = number(parts.next())?;
        }
        let [now_ms, sequence, rate_per_s, calls, kept_rate_per_s, kept_calls, has_permit] = numbers;
        let own = parts.next().unwrap_or(Value::Nil);
        let mut flat = reply::array("beat", parts.next().unwrap_or(Value::Nil)).map_err(unreachable)?;
        if sequence > 0 {
            // Shown was what was there before; what comes later in the list counts.
            let field = format!("{INSTANCE}{}", report.instance);
            flat.extend([Value::BulkString(field.into_bytes()), own]);
        }
        let view = view_of(now_ms, flat)?.ok_or_else(|| unreadable("no state"))?;
        self.prune(&view)?;
        let granted = Amount { rate_per_s, calls };
        let kept = Amount { rate_per_s: kept_rate_per_s, calls: kept_calls };
        Ok(Orders { sequence, granted, kept, has_permit: has_permit == 1, view })
    }

    fn replace(&mut self, seen: &View, next: &State) -> Result<bool, BoardError> {
        let command = Command::script(&scripts::REPLACE, &[self.key.as_bytes()])
            .arg(&[seen.state.version, seen.now_ms, SEEN_AGE_MS_MAX][..])
            .arg(stored(next));
        let value = self.link.call(command).map_err(unreachable)?;
        Ok(reply::int("replace", value).map_err(unreachable)? == 1)
    }

    fn leave(&mut self, instance: &str) -> Result<(), BoardError> {
        let command = Command::new("HDEL", &self.key).arg(format!("{INSTANCE}{instance}"));
        self.link.call(command).map(drop).map_err(unreachable)
    }

    fn look(&mut self) -> Result<View, BoardError> {
        for _ in 0..2 {
            if let Some(view) = self.peek()? {
                return Ok(view);
            }
            self.begin()?;
        }
        Err(BoardError::Unreachable("its state was removed as it was written; try again".to_owned()))
    }
}
