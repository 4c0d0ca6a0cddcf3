//! The scribe: the thread that writes outcomes to their streams, and sees to what must follow.
//!
//! In turns, each over all runs that wait: record (one XADD a unit), park, unpark, each awaited; then the runs are
//! durable, and others are told. What holds: a step is repeated until it works, however long Redis is away, and
//! nothing behind it begins before; a step of unknown fate is repeated too, since all of them are harmless twice.
//!
//! Recording is not fenced by the unit's epoch, on purpose: whoever was owner when the wallet decided tells the truth,
//! and a fact lost to a fence would have to be asked from the wallet again.
//!
//! A key of the wrong type is mended by nobody but a person, and concerns one unit: that unit is given up, which voids
//! what was read of it, and its outcomes are passed over; the wallet is asked again when it is read again.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::frame::FrameWriter;
use super::hooks::Item;
use super::log::{LogOptions, LogParts, Run, Shared};
use crate::domain::bytes::{TAG_OUTCOME, entries};
use crate::domain::{Outcome, Request};
use crate::intake::redis::{UnitId, units};
use crate::redis::{Command, Failure, Link, Script};
use crate::ring::Listener;
use crate::ring::poison::panic_text;

/// Outcomes a turn, about.
const TURN_ITEMS_MAX: usize = 16 * 1024;
/// A frame is closed when it reaches this: entries stay small enough not to hold Redis up.
const FRAME_BYTES_MAX: usize = 256 * 1024;
/// How long to wait for the barrier without being woken.
const BARRIER_LOOK: Duration = Duration::from_millis(5);

/// For how long a server that was full is taken to be so.
const FULL: Duration = Duration::from_secs(1);

/// One entry of a stream, even when memory is full: acknowledging what is recorded is what frees it. Not used before
/// it must be, as a script reads every byte of its arguments twice.
static RECORD: Script =
    Script::new("record", "#!lua flags=allow-oom\nreturn redis.call('XADD', KEYS[1], '*', 'f', ARGV[1])");

struct Scribe {
    shared: Arc<Shared>,
    link: Link,
    options: LogOptions,
    parts: LogParts,
    /// By unit.
    streams: Vec<String>,
    /// Which unit a key of the steps is of.
    units: HashMap<Vec<u8>, UnitId>,
    writers: Vec<FrameWriter>,
    /// Empty between turns.
    items: Vec<Item<'static>>,
    /// Units given up in this turn: nothing more is done for them in it.
    given_up: HashSet<UnitId>,
    /// The server said that its memory is full.
    full_until: Option<Instant>,
}

/// It was told to stop before a step worked.
struct Stopped;

pub(super) fn start(
    shared: Arc<Shared>,
    link: Link,
    options: LogOptions,
    parts: LogParts,
) -> std::io::Result<JoinHandle<()>> {
    let streams: Vec<String> = parts.keys.units().ids().map(|unit| parts.keys.outcomes(unit)).collect();
    let writers = streams.iter().map(|_| FrameWriter::default()).collect();
    let keys_of =
        |unit| [parts.keys.outcomes(unit), parts.keys.parked(unit)].map(|key| (key.into_bytes(), unit));
    let units = parts.keys.units().ids().flat_map(keys_of).collect();
    let (items, given_up, full_until) = (Vec::new(), HashSet::new(), None);
    let mut scribe =
        Scribe { shared, link, options, parts, streams, units, writers, items, given_up, full_until };
    Builder::new().name("scribe".to_owned()).spawn(move || {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| scribe.run())) {
            scribe.parts.poison.set(format!("the scribe panicked: {}", panic_text(&*panic)));
            (scribe.parts.on_poison)();
            scribe.tell();
        }
    })
}

impl Scribe {
    fn run(&mut self) {
        let listener = self.shared.bell.listen();
        while !self.is_stopping() {
            let runs = self.ready_runs();
            if runs.is_empty() {
                self.rest(&listener);
            } else if let Err(Stopped) = self.turn(runs, &listener) {
                return;
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Acquire)
    }

    fn tell(&self) {
        if let Some(tell) = self.shared.on_news.get() {
            tell();
        }
    }

    /// Runs whose outcomes may be told, in order.
    fn ready_runs(&self) -> Vec<Run> {
        let mut runs = self.shared.runs();
        let (mut taken, mut count) = (Vec::new(), 0);
        while count < TURN_ITEMS_MAX
            && runs.waiting.front().is_some_and(|run| self.parts.barrier.is_past(run.mark))
            && let Some(run) = runs.waiting.pop_front()
        {
            count += run.requests.len();
            taken.push(run);
        }
        taken
    }

    fn rest(&self, listener: &Listener) {
        let is_blocked = !self.shared.runs().waiting.is_empty();
        let ready = || {
            let runs = self.shared.runs();
            self.is_stopping() || runs.waiting.front().is_some_and(|run| self.parts.barrier.is_past(run.mark))
        };
        if is_blocked {
            listener.wait_until(Instant::now() + BARRIER_LOOK, ready);
        } else {
            listener.wait(ready);
        }
    }

    fn turn(&mut self, runs: Vec<Run>, listener: &Listener) -> Result<(), Stopped> {
        self.given_up.clear();
        let mut items = recycled(std::mem::take(&mut self.items));
        read_items(&runs, &mut items);
        let records = self.records(&items);
        self.until_done(records, listener)?;
        // What is not on record must go on waiting where it waits.
        items.retain(|item| !self.given_up.contains(&item.unit));
        self.until_done(self.parts.parker.park(&items), listener)?;
        items.retain(|item| !self.given_up.contains(&item.unit));
        self.until_done(self.parts.parker.unpark(&items), listener)?;
        self.parts.parker.done(&items);
        let announcements = self.parts.announcer.announce(&items);
        self.items = recycled(items);
        self.shared.runs().durable.extend(runs.into_iter().map(|run| run.appended));
        self.tell();
        let failed = self.link.round(&announcements).iter().filter(|result| result.is_err()).count();
        self.shared.unannounced_count.fetch_add(failed as u64, Ordering::Relaxed);
        Ok(())
    }

    /// One frame a unit, or more where one would grow too large.
    fn records(&mut self, items: &[Item<'_>]) -> Vec<Command> {
        let mut commands = Vec::new();
        let mut touched: Vec<UnitId> = Vec::new();
        for item in items {
            let writer = &mut self.writers[usize::from(item.unit.0)];
            if writer.is_empty() {
                touched.push(item.unit);
            }
            writer.push(&item.outcome, &item.request);
            if writer.len() >= FRAME_BYTES_MAX {
                touched.retain(|unit| *unit != item.unit);
                commands.push(self.record(item.unit));
            }
        }
        commands.extend(touched.into_iter().map(|unit| self.record(unit)));
        commands
    }

    fn record(&mut self, unit: UnitId) -> Command {
        let frame = self.writers[usize::from(unit.0)].finish();
        self.shared.frame_count.fetch_add(1, Ordering::Relaxed);
        self.shared.frame_bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        let stream = &self.streams[usize::from(unit.0)];
        if self.full_until.is_some_and(|until| Instant::now() < until) {
            return Command::script(&RECORD, &[stream.as_bytes()]).arg(frame);
        }
        Command::new("XADD", stream).arg("*").arg("f").arg(frame)
    }

    /// The same entry, whether memory is full or not.
    fn record_anyway(&mut self, refused: &Command) -> Command {
        self.full_until = Some(Instant::now() + FULL);
        let frame = refused.last_arg().expect("an entry ends with its frame");
        Command::script(&RECORD, &[refused.key()]).arg(frame)
    }

    /// Sends commands until each was executed; those that failed again, after a while.
    fn until_done(&mut self, mut commands: Vec<Command>, listener: &Listener) -> Result<(), Stopped> {
        let mut failures: u32 = 0;
        while !commands.is_empty() {
            let results = self.link.round(&commands);
            let mut reason = None;
            let mut left = Vec::new();
            for (command, result) in commands.into_iter().zip(results) {
                match result {
                    Ok(_) => {}
                    Err(failure) if is_done_with(&failure) => {}
                    Err(failure) if failure.is_code("OOM") && command.script_of().is_none() => {
                        left.push(self.record_anyway(&command));
                    }
                    Err(failure) if self.gives_up(&command, &failure) => {}
                    Err(failure) => {
                        reason = Some(format!("{}: {failure}", String::from_utf8_lossy(command.key())));
                        left.push(command);
                    }
                }
            }
            commands = left;
            match reason {
                Some(reason) => {
                    failures = failures.saturating_add(1);
                    self.pause(failures, reason, listener)?;
                }
                None if failures > 0 => {
                    tracing::info!(failures, "outcomes are recorded again");
                    self.shared.set_failing(None);
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Whether the failure is of one unit's key alone, which is given up then.
    fn gives_up(&mut self, command: &Command, failure: &Failure) -> bool {
        let unit = command.keys().find_map(|key| self.units.get(key)).copied();
        let unit = unit.filter(|_| failure.is_code("WRONGTYPE"));
        if let Some(unit) = unit {
            self.given_up.insert(unit);
            let key = String::from_utf8_lossy(command.key()).into_owned();
            tracing::error!(key, "is not what it must be: rename it, or remove it; its unit stands still");
            (self.parts.on_refused)(unit);
        }
        unit.is_some()
    }

    fn pause(&self, failures: u32, reason: String, listener: &Listener) -> Result<(), Stopped> {
        if failures == 1 {
            tracing::error!(%reason, "outcomes cannot be recorded; settling stands still until they can");
        }
        self.shared.set_failing(Some(format!("outcomes cannot be recorded: {reason}")));
        let factor = 1u32 << (failures - 1).min(16);
        let backoff = self.options.backoff_min.saturating_mul(factor).min(self.options.backoff_max);
        let deadline = Instant::now() + backoff;
        while Instant::now() < deadline {
            if self.is_stopping() {
                return Err(Stopped);
            }
            listener.wait_until(deadline, || self.is_stopping());
        }
        Ok(())
    }
}

/// The unit is another's by now: what was to be done there is for its new owner.
fn is_done_with(failure: &Failure) -> bool {
    failure.is_code("STALE")
}

/// The memory of a list, for what borrows from elsewhere: megabytes that every turn would ask the system for anew.
fn recycled<'b>(mut items: Vec<Item<'_>>) -> Vec<Item<'b>> {
    items.clear();
    items.into_iter().map(|_| unreachable!("it is empty")).collect()
}

/// # Panics
/// If what the pipeline encoded does not decode: then memory is damaged, and nothing may be told.
fn read_items<'r>(runs: &'r [Run], items: &mut Vec<Item<'r>>) {
    items.reserve(runs.iter().map(|run| run.requests.len()).sum());
    for run in runs {
        for (entry, record) in entries(&run.appended.bytes).zip(&run.requests) {
            let (_, tag, bytes) = entry.expect("what was encoded decodes");
            assert_eq!(tag, TAG_OUTCOME, "only outcomes are appended");
            let outcome = Outcome::decode(bytes).expect("what was encoded decodes");
            let request = Request::decode(record).expect("a request that was settled decodes");
            items.push(Item { unit: units::unit_of(outcome.request_place), outcome, request, record });
        }
    }
}
