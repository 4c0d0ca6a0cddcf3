//! The board of a fleet, in Redis: one hash, so that one script sees and writes it in one step.
//!
//! | field of `N:board:breaker` | what |
//! |---|---|
//! | `state` | the fleet's [`State`] with its terms as JSON; replaced by compare-and-set on its version |
//! | `i:<instance>` | what the board knows of an instance, as numbers ([`entry`]); one HSET a beat |
//! | `w:<instance>` | what that has to do and how fast it does it; with the same HSET. It goes with the other |
//!
//! What holds: what [`super::table`] says, for the scripts do the same (a test holds them together); Redis's clock
//! only; every script writes the key once. Both formats are named in what is stored; of another one, or of what is
//! damaged, nothing is granted and nothing overwritten, and whoever must look is told where and what to do. Absent: listening for changes between beats, so that a change is known a
//! beat later.

mod entry;
mod scripts;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::board::{Board, BoardError, Member, Orders, Report, View};
use super::policy::{NEVER_MS, Settings, State, Terms};
use super::table::{FORGET_MS, SEEN_AGE_MS_MAX};
use crate::redis::{Command, Failure, Link, Value, reply};
use crate::seldom::Seldom;
use crate::shaping::Amount;

pub const FORMAT: u32 = 1;
const STATE: &str = "state";
const INSTANCE: &str = "i:";
const WORKLOAD: &str = "w:";

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
    prune_lines: Seldom,
}

impl RedisBoard {
    /// `key`: the hash, the same for the whole fleet. `settings` are used where the board has none yet.
    pub fn new(link: Link, key: &str, settings: Settings) -> RedisBoard {
        RedisBoard { link, key: key.to_owned(), settings, prune_lines: Seldom::default() }
    }

    /// Writes the first state, unless there is one.
    fn begin(&mut self) -> Result<(), BoardError> {
        let time = self.call(Command::routed("TIME", &self.key))?;
        let seconds = reply::array("TIME", time).map_err(unreachable)?.into_iter().next();
        let seconds = reply::text("TIME", seconds.unwrap_or(Value::Nil)).map_err(unreachable)?;
        let now_ms = seconds.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1_000);
        let state = State::new(self.settings.clone(), now_ms);
        let command = Command::script(&scripts::BEGIN, &[self.key.as_bytes()]).arg(stored(&state));
        self.call(command).map(drop)
    }

    fn call(&mut self, command: Command) -> Result<Value, BoardError> {
        self.link.call(command).map_err(|failure| refused(&self.key, failure))
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
        let [field, work_field] = fields(&report.instance);
        let command = Command::script(&scripts::BEAT, &[self.key.as_bytes()])
            .arg(field)
            .arg(&numbers.map(|number| number.min(NEVER_MS))[..])
            .arg(entry::said(&report.said))
            .arg(work_field)
            .arg(report.said.work.map_or(String::new(), entry::workload));
        let value = self.call(command)?;
        reply::array("beat", value).map_err(|failure| refused(&self.key, failure))
    }

    /// What is shown, and nothing is written where there is no state yet.
    pub fn peek(&mut self) -> Result<Option<View>, BoardError> {
        let command = Command::script(&scripts::LOOK, &[self.key.as_bytes()]);
        let value = self.call(command)?;
        let mut parts = reply::array("look", value).map_err(unreachable)?.into_iter();
        let now_ms = number(parts.next())?;
        let flat = reply::array("look", parts.next().unwrap_or(Value::Nil)).map_err(unreachable)?;
        let view = view_of(&self.key, now_ms, flat)?;
        Ok(view.map(View::without_the_future))
    }

    /// Forgets instances that were not heard of for long, if they still were not; and those that are dated ahead. Best effort: what
    /// was granted stands, and who is not forgotten now is with a later beat.
    fn prune(&mut self, view: &View) {
        let is_old = |member: &Member| {
            view.now_ms.saturating_sub(member.seen_ms) >= FORGET_MS || member.is_of_the_future(view.now_ms)
        };
        let old = view.members.iter().filter(|(_, member)| is_old(member));
        let prune = |(name, member): (&String, &Member)| {
            let [field, work_field] = fields(name);
            let script = Command::script(&scripts::PRUNE, &[self.key.as_bytes()]);
            script.arg(field).arg(entry::entry(member)).arg(work_field)
        };
        let commands: Vec<Command> = old.map(prune).collect();
        let failures: Vec<Failure> = self.link.round(&commands).into_iter().filter_map(Result::err).collect();
        let Some(failure) = failures.first() else { return };
        if let Some(count) = self.prune_lines.note(view.now_ms, failures.len() as u64) {
            tracing::warn!(%failure, count, key = self.key, "instances that are gone stay on the breaker's board");
        }
    }
}

/// Of an instance: what it says, and what it has to do.
fn fields(instance: &str) -> [String; 2] {
    [INSTANCE, WORKLOAD].map(|kind| format!("{kind}{instance}"))
}

fn stored(state: &State) -> String {
    let stored = Stored { format: FORMAT, terms: state.terms(), state: state.clone() };
    serde_json::to_string(&stored).expect("plain fields")
}

fn unreachable(failure: Failure) -> BoardError {
    BoardError::Unreachable(failure.to_string())
}

/// What is stored under a field makes no sense here. Nothing of it is lost that the instances do not say again.
fn unreadable(key: &str, field: &str, reason: impl Into<String>) -> BoardError {
    let at = format!("{key}, field {field}");
    let more = field.strip_prefix(INSTANCE).map_or(String::new(), |name| format!(" '{WORKLOAD}{name}'"));
    let mend = format!(
        "update this instance, or remove it with HDEL {key} '{field}'{more}: the instances say it anew"
    );
    BoardError::Unreadable { at, reason: reason.into(), mend }
}

/// Why a command came to nothing: whether Redis is away, or holds what it should not.
fn refused(key: &str, failure: Failure) -> BoardError {
    match failure {
        Failure::Refused { code, detail, .. } if code == "BOARD" => match detail.split_once(' ') {
            Some((field, reason)) => unreadable(key, field, reason),
            None => unreadable(key, STATE, detail),
        },
        Failure::Refused { code, detail, .. } if code == "WRONGTYPE" => BoardError::Unreadable {
            at: key.to_owned(),
            reason: detail,
            mend: format!("it is no board: look at what wrote it, and remove it with DEL {key}"),
        },
        other => unreachable(other),
    }
}

/// Fields and values to what they show; nothing where there is no state yet.
fn view_of(key: &str, now_ms: u64, flat: Vec<Value>) -> Result<Option<View>, BoardError> {
    let (mut state, mut members, mut works) = (None, BTreeMap::new(), Vec::new());
    let mut flat = flat.into_iter();
    while let (Some(field), Some(value)) = (flat.next(), flat.next()) {
        // What is no text is no field of ours.
        let Ok(Some(field)) = reply::text("board", field) else { continue };
        let value = reply::text("board", value).map(Option::unwrap_or_default);
        let value = || value.map_err(|_| unreadable(key, &field, "it is no text"));
        if field == STATE {
            state = Some(state_of(&value()?).map_err(|reason| unreadable(key, STATE, reason))?);
        } else if let Some(name) = field.strip_prefix(INSTANCE) {
            let damaged = || unreadable(key, &field, "damaged, or of another format");
            let member = entry::parse(&value()?).ok_or_else(damaged)?;
            members.insert(name.to_owned(), member);
        } else if let Some(name) = field.strip_prefix(WORKLOAD) {
            // Without it all lines count the same.
            works.push((name.to_owned(), value().ok().as_deref().and_then(entry::parse_workload)));
        }
    }
    for (name, work) in works {
        if let Some(member) = members.get_mut(&name) {
            member.said.work = work;
        }
    }
    Ok(state.map(|state| View { now_ms, state, members }))
}

/// The state as it is stored, if this version can go by it.
fn state_of(text: &str) -> Result<State, String> {
    #[derive(Deserialize)]
    struct AnyFormat {
        format: u32,
    }
    let AnyFormat { format } = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if format != FORMAT {
        return Err(format!("it has format {format}"));
    }
    let stored: Stored = serde_json::from_str(text).map_err(|error| error.to_string())?;
    stored.state.check()?;
    Ok(stored.state)
}

fn number(value: Option<Value>) -> Result<u64, BoardError> {
    let value = reply::int("beat", value.unwrap_or(Value::Nil)).map_err(unreachable)?;
    u64::try_from(value).map_err(|_| BoardError::Unreachable(format!("it answered {value} for a count")))
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
            let [field, _] = fields(&report.instance);
            flat.extend([Value::BulkString(field.into_bytes()), own]);
        }
        let gone = || BoardError::Unreachable("its state was removed meanwhile".to_owned());
        let mut view = view_of(&self.key, now_ms, flat)?.ok_or_else(gone)?;
        if let (true, Some(own)) = (sequence > 0, view.members.get_mut(&report.instance)) {
            own.said.work = report.said.work;
        }
        self.prune(&view);
        let view = view.without_the_future();
        let granted = Amount { rate_per_s, calls };
        let kept = Amount { rate_per_s: kept_rate_per_s, calls: kept_calls };
        Ok(Orders { sequence, granted, kept, has_permit: has_permit == 1, view })
    }

    fn replace(&mut self, seen: &View, next: &State) -> Result<bool, BoardError> {
        let command = Command::script(&scripts::REPLACE, &[self.key.as_bytes()])
            .arg(&[seen.state.version, seen.now_ms, SEEN_AGE_MS_MAX][..])
            .arg(stored(next));
        let value = self.call(command)?;
        Ok(reply::int("replace", value).map_err(unreachable)? == 1)
    }

    fn leave(&mut self, instance: &str) -> Result<(), BoardError> {
        let command = Command::new("HDEL", &self.key).arg(&fields(instance)[..]);
        self.call(command).map(drop)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Governor;
    use super::super::board::Workload;
    use super::super::policy::{NEVER_MS, Phase, decide};
    use super::*;
    use crate::shaping::lease::Ask;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    /// Numbers as they are written, and as somebody else might write them.
    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![0..100u64, 0..10_000_000u64, Just(NEVER_MS), NEVER_MS - 5..NEVER_MS + 5, any::<u64>()]
    }

    fn entry_text() -> impl Strategy<Value = String> {
        let numbers = proptest::collection::vec(number(), 21..=22);
        let written = numbers.prop_map(|numbers| {
            let texts: Vec<String> = numbers.iter().map(u64::to_string).collect();
            format!("1|{}", texts[1..].join("|"))
        });
        prop_oneof![4 => written, 1 => ".{0,40}"]
    }

    fn state_text() -> impl Strategy<Value = String> {
        let phase = prop_oneof![
            Just(Phase::Closed),
            Just(Phase::HalfOpen),
            number().prop_map(|until_ms| Phase::Open { until_ms }),
            (number(), number())
                .prop_map(|(cap_permille, step_at_ms)| Phase::Ramp { cap_permille, step_at_ms }),
        ];
        let numbers = proptest::collection::vec(number(), 8);
        (phase, numbers, any::<u32>(), any::<bool>()).prop_map(|(phase, n, opens_in_a_row, is_garbled)| {
            let settings = Settings {
                rate_per_s: n[0],
                calls_max: n[1],
                open_ms: n[2],
                window_ms: 500 + n[3],
                probes_ok_min: n[4],
                ..Settings::default()
            };
            let (version, epoch, since_ms) = (n[5], n[6], n[7]);
            let state = State { phase, version, epoch, since_ms, opens_in_a_row, ..State::new(settings, 1) };
            // As somebody else wrote it: terms that were never computed.
            let terms = State::new(Settings::default(), 1).terms();
            let text = serde_json::to_string(&Stored { format: FORMAT, terms, state }).expect("plain fields");
            if is_garbled { text.replacen('1', "", 3) } else { text }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        /// Whatever stands on a board: it is refused, or everything that follows from it can be computed.
        #[test]
        fn no_board_is_too_strange(
            state in prop_oneof![4 => state_text(), 1 => ".{0,60}"],
            members in proptest::collection::vec(("[a-c]", entry_text()), 0..4),
            work in prop_oneof![".{0,9}", (0..=NEVER_MS).prop_map(|number| format!("{number}|{number}"))],
            now_ms in 0..NEVER_MS,
        ) {
            let mut flat = vec![bulk(STATE), bulk(&state)];
            for (name, entry) in &members {
                flat.extend([bulk(&format!("{INSTANCE}{name}")), bulk(entry)]);
                flat.extend([bulk(&format!("{WORKLOAD}{name}")), bulk(&work)]);
            }
            let Ok(Some(view)) = view_of("k", now_ms, flat) else { return Ok(()) };
            let view = view.without_the_future();
            if let Some(next) = decide(&view) {
                next.terms();
            }
            let mut governor = Governor::new("a", 100, Settings { rate_per_s: 5, ..Settings::default() });
            for now_ns in [1_000_000, 500_000_000] {
                let report = governor.beat(now_ns, Workload::waiting(10));
                let Ask { sequence, want, keep } = report.ask;
                let orders =
                    Orders { sequence, granted: want, kept: keep, has_permit: true, view: view.clone() };
                governor.ordered(now_ns, orders);
                governor.status(now_ns);
                if let Ok(ticket) = governor.admit(now_ns, 10) {
                    governor.withdraw(ticket);
                }
            }
        }
    }
}
