//! The loader: a thread with a connection of its own that keeps due requests ready in memory, and counts.
//!
//! In turns, one round each: how many there are in each owned set, how many are due, the next of those, and when the
//! first behind them is. It sleeps until that time, or until it is rung; at the latest it looks again after
//! [`LOOK_EVERY`], which is how it notices what other instances released. What holds: it only reads; a set that it
//! cannot read stops nothing but that set; the sets of a unit that was just gained are counted in pages meanwhile.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::member::Member;
use super::scripts::{self, Age, Filter, Looked};
use super::shelf::{ParkedShelf, Shared, State, queue_of};
use super::yard::{Ranks, Yard};
use crate::domain::{Lane, UnixMs};
use crate::intake::QueueId;
use crate::intake::redis::units::{self, UnitId};
use crate::redis::{Command, Failure, Link, Value, reply};
use crate::ring::Listener;
use crate::ring::poison::{Poison, panic_text};

/// The longest sleep.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two turns at the least: requests become due together more often than not.
const TURN_EVERY: Duration = Duration::from_millis(2);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Due members of one set in one turn.
const READ_COUNT_MAX: usize = 1_000;
/// Members that are counted in one script, and sets that are counted in one turn.
const COUNT_PAGE: usize = 1_000;
const COUNT_SETS: usize = 4;

/// What the loader is made of.
pub struct LoaderParts {
    pub link: Link,
    pub now_ms: Arc<dyn Fn() -> UnixMs + Send + Sync>,
    pub poison: Poison,
    pub on_poison: Arc<dyn Fn() + Send + Sync>,
}

/// The thread, under a guard.
pub struct Loader {
    stop: Arc<AtomicBool>,
    shared: Arc<Shared>,
    handle: JoinHandle<()>,
}

impl Loader {
    pub fn start(shelf: &ParkedShelf, parts: LoaderParts) -> std::io::Result<Loader> {
        let (shared, stop) = (shelf.shared().clone(), Arc::new(AtomicBool::new(false)));
        let (poison, on_poison) = (parts.poison.clone(), parts.on_poison.clone());
        let unit_count = shared.keys.units().len();
        let mut work = Work {
            shared: shared.clone(),
            link: parts.link,
            now_ms: parts.now_ms,
            stop: stop.clone(),
            server: None,
            failure_count: 0,
            is_failing: vec![false; unit_count],
            next_unit: 0,
        };
        let handle = Builder::new().name("parked".to_owned()).spawn(move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work.run())) {
                poison.set(format!("the loader of parked requests panicked: {}", panic_text(&*panic)));
                on_poison();
            }
        })?;
        Ok(Loader { stop, shared, handle })
    }

    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.shared.wake();
        // A panic has poisoned the service already.
        let _ = self.handle.join();
    }
}

struct Work {
    shared: Arc<Shared>,
    link: Link,
    now_ms: Arc<dyn Fn() -> UnixMs + Send + Sync>,
    stop: Arc<AtomicBool>,
    /// The server's clock, and when it was told.
    server: Option<(UnixMs, Instant)>,
    failure_count: u32,
    /// By unit: its set cannot be read, and that was said.
    is_failing: Vec<bool>,
    /// Who is served first next time.
    next_unit: usize,
}

/// What was asked of one set; the replies come in this order.
struct Asked {
    unit: UnitId,
    epoch: u64,
    ranks: Ranks,
    counts_from: Option<usize>,
}

/// Whether to look again, and when.
#[derive(Default)]
struct Next {
    at_once: bool,
    due: Option<UnixMs>,
}

impl Work {
    fn run(&mut self) {
        let listener = self.shared.bell.listen();
        while !self.is_stopping() {
            let started = Instant::now();
            // What is wanted from here on is seen in the rest.
            self.shared.is_wanted.store(false, Ordering::SeqCst);
            let wait = match self.turn() {
                Ok(next) => self.wait_for(&next),
                Err(failure) => self.pause(&failure),
            };
            self.rest(&listener, started, wait);
        }
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// After a failure it is not woken early, but to stop.
    fn rest(&self, listener: &Listener, started: Instant, wait: Duration) {
        let heeds = self.failure_count == 0;
        let is_wanted = || self.is_stopping() || (heeds && self.shared.is_wanted.load(Ordering::SeqCst));
        while Instant::now() < started + wait && !is_wanted() {
            listener.wait_until(started + wait, is_wanted);
        }
        std::thread::sleep((started + TURN_EVERY).saturating_duration_since(Instant::now()));
    }

    /// Until when a request is due: by the server's clock and by ours.
    fn due_until(&self) -> UnixMs {
        let server = self.server.map_or(0, |(told, at)| told + at.elapsed().as_millis() as UnixMs);
        server.min((self.now_ms)())
    }

    fn wait_for(&mut self, next: &Next) -> Duration {
        if self.failure_count > 0 {
            tracing::info!("parked requests can be read again");
            self.failure_count = 0;
        }
        let now = self.due_until();
        match next.due {
            _ if next.at_once => TURN_EVERY,
            Some(due) => Duration::from_millis(due.saturating_sub(now)).clamp(TURN_EVERY, LOOK_EVERY),
            None => LOOK_EVERY,
        }
    }

    fn pause(&mut self, failure: &Failure) -> Duration {
        if self.failure_count == 0 {
            tracing::warn!(%failure, "parked requests cannot be read; those that are due wait on");
        }
        self.failure_count += 1;
        (Duration::from_millis(20) * (1 << self.failure_count.min(6))).min(BACKOFF_MAX)
    }

    /// The sets of owned units, and no others.
    fn follow_ownership(&self) {
        let mut state = self.shared.state();
        for unit in self.shared.keys.units().ids() {
            let epoch = self.shared.held.epoch(unit);
            if state.yard(unit).map(|yard| yard.epoch) != epoch {
                state.drop_yard(unit);
                state.yards[usize::from(unit.0)] = epoch.map(Yard::new);
            }
        }
    }

    fn turn(&mut self) -> Result<Next, Failure> {
        self.follow_ownership();
        let (asked, commands) = self.ask(self.due_until());
        let mut results = self.link.round(&commands).into_iter();
        let time = results.next().expect("one result a command").and_then(read_time);
        let mut next = Next::default();
        match time {
            // The first time, nothing could be due before the clock was known.
            Ok(time) => next.at_once = self.server.replace((time, Instant::now())).is_none(),
            Err(failure) => {
                let mut state = self.shared.state();
                for asked in &asked {
                    asked.yard(&mut state).into_iter().for_each(Yard::end_look);
                }
                return Err(failure);
            }
        }
        let mut has_news = false;
        for asked in &asked {
            let replies: Vec<_> = results.by_ref().take(asked.reply_count()).collect();
            let seen = replies.into_iter().collect::<Result<Vec<Value>, Failure>>();
            has_news |= self.take_in(asked, seen.and_then(|replies| Seen::read(asked, replies)), &mut next);
        }
        {
            let mut state = self.shared.state();
            state.sum_up();
            has_news |= state.take_wish();
        }
        if has_news {
            self.shared.tell();
        }
        Ok(next)
    }

    fn ask(&mut self, due_until: UnixMs) -> (Vec<Asked>, Vec<Command>) {
        let mut asked = Vec::new();
        let mut commands = vec![Command::routed("TIME", "")];
        let mut state = self.shared.state();
        let unit_count = state.yards.len();
        let mut credit = self.shared.options.ready_count_max.saturating_sub(state.ready.len());
        let mut counted = 0;
        self.next_unit = (self.next_unit + 1) % unit_count.max(1);
        for turn in 0..unit_count {
            let unit = UnitId(((self.next_unit + turn) % unit_count) as u16);
            let is_leaving = self.shared.held.is_leaving(unit);
            let Some(yard) = state.yard(unit).filter(|_| !is_leaving) else { continue };
            let key = self.shared.keys.parked(unit);
            let ranks = yard.begin_look(credit.min(READ_COUNT_MAX));
            // Sets that are behind share; most have nothing that is due.
            credit -= ranks.count.min(yard.total);
            commands.push(Command::new("ZCARD", &key));
            commands.push(Command::new("ZCOUNT", &key).arg("-inf").arg(due_until));
            commands.push(by_score(&key, "-inf", &due_until.to_string(), ranks));
            commands.push(by_score(&key, &format!("({due_until}"), "+inf", Ranks { start: 0, count: 1 }));
            let counts_from = yard.counts_from().filter(|_| counted < COUNT_SETS);
            if let Some(start) = counts_from {
                counted += 1;
                let nothing = (Age::FIRST, Age::FIRST, 0);
                commands.push(scripts::look(&key, start, COUNT_PAGE, &Filter::default(), nothing));
            }
            asked.push(Asked { unit, epoch: yard.epoch, ranks, counts_from });
        }
        (asked, commands)
    }

    /// Whether something became ready.
    fn take_in(&mut self, asked: &Asked, seen: Result<Seen, Failure>, next: &mut Next) -> bool {
        let fair = self.shared.keys.units().fair_queue_count;
        let mut state = self.shared.state();
        let state = &mut *state;
        let Some(yard) = state.yards[usize::from(asked.unit.0)].as_mut() else { return false };
        if yard.epoch != asked.epoch {
            return false;
        }
        let said = std::mem::replace(&mut self.is_failing[usize::from(asked.unit.0)], seen.is_err());
        let seen = match seen {
            Ok(seen) => seen,
            Err(failure) => {
                yard.end_look();
                if !said {
                    let key = self.shared.keys.parked(asked.unit);
                    tracing::error!(%failure, key, "parked requests cannot be read; look at what stands there");
                }
                return false;
            }
        };
        yard.saw_total(seen.total);
        let queue_of =
            |member: &Member| queue_of(&member.record, fair).expect("it was decoded with the member");
        let numbers = || {
            state.last_number += 1;
            units::parked_place(asked.unit, state.last_number)
        };
        let taken = yard.take_in(asked.ranks, seen.due, seen.due_count, queue_of, numbers);
        if let Some(looked) = seen.looked {
            let counts = looked.groups.iter().map(|(group, count)| (queue_of_group(group, fair), *count));
            yard.counted(COUNT_PAGE, looked.member_count, counts);
        }
        next.at_once |= asked.counts_from.is_some() && yard.counts_from().is_some();
        next.due = [next.due, seen.next_due].into_iter().flatten().min();
        if let Some(fault) = taken.faults.first() {
            let (key, count) = (self.shared.keys.parked(asked.unit), taken.faults.len());
            tracing::error!(%fault, count, key, "parked requests stay where they are: a newer release can read them");
        }
        let has_ready = !taken.ready.is_empty();
        state.ready.extend(taken.ready);
        if taken.has_more {
            let has_credit = state.ready.len() < self.shared.options.ready_count_max;
            next.at_once |= has_credit;
            state.is_starved |= !has_credit;
        }
        has_ready
    }
}

impl Asked {
    fn yard<'s>(&self, state: &'s mut State) -> Option<&'s mut Yard> {
        state.yard(self.unit).filter(|yard| yard.epoch == self.epoch)
    }

    fn reply_count(&self) -> usize {
        4 + usize::from(self.counts_from.is_some())
    }
}

/// The replies about one set.
struct Seen {
    total: usize,
    due_count: usize,
    due: Vec<(Bytes, UnixMs)>,
    /// When the first is due that is not yet.
    next_due: Option<UnixMs>,
    looked: Option<Looked>,
}

impl Seen {
    fn read(asked: &Asked, replies: Vec<Value>) -> Result<Seen, Failure> {
        assert_eq!(replies.len(), asked.reply_count(), "one reply a command");
        let mut replies = replies.into_iter();
        let mut reply = || replies.next().unwrap_or(Value::Nil);
        Ok(Seen {
            total: reply::int("ZCARD", reply())? as usize,
            due_count: reply::int("ZCOUNT", reply())? as usize,
            due: scripts::scored("ZRANGEBYSCORE", reply())?,
            next_due: scripts::scored("ZRANGEBYSCORE", reply())?.first().map(|(_, due)| *due),
            looked: asked.counts_from.map(|_| scripts::read_look(reply())).transpose()?,
        })
    }
}

fn by_score(key: &str, from: &str, to: &str, ranks: Ranks) -> Command {
    let command = Command::new("ZRANGEBYSCORE", key).arg(from).arg(to).arg("WITHSCORES");
    command.arg("LIMIT").arg(ranks.start).arg(ranks.count)
}

/// `TIME`, in Unix ms.
fn read_time(value: Value) -> Result<UnixMs, Failure> {
    let mut words = reply::array("TIME", value)?.into_iter();
    let mut word = || -> Result<u64, Failure> {
        let text = reply::text("TIME", words.next().unwrap_or(Value::Nil))?.unwrap_or_default();
        text.parse().map_err(|_| Failure::Strange { command: "TIME".to_owned(), expected: "two numbers" })
    };
    Ok(word()? * 1_000 + word()? / 1_000)
}

/// The queue of a group as the script names it; none for what this release cannot read.
fn queue_of_group(group: &[u8], fair_queue_count: u8) -> Option<QueueId> {
    let (head, names) = group.split_at_checked(3)?;
    let campaign = std::str::from_utf8(names.get(usize::from(head[2])..)?).ok()?;
    Some(QueueId::of(Lane::from_u8(head[1])?, campaign, fair_queue_count))
}
