//! One thread of the generator: its loop, its connections, its requests.
//!
//! ```text
//! release (what is due) ─> revive (retries) ─> dispatch (to idle connections) ─> wait (events, or the next due time) ─┐
//!    ^─────────────────────────────────── answers, timeouts, reconnects <──────────────────────────────────────┘
//! ```

mod answers;
mod due;

use std::collections::{BinaryHeap, VecDeque};
use std::iter::Peekable;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::epoll;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use self::due::{Later, schedules};
use super::connection::{Connection, Progress, State};
use super::tally::Tally;
use super::{Acknowledged, Fate, GeneratorError, LIST, LaneReport, Live, Outlets, Pace, Plan, TICK};
use crate::arrivals::Schedule;
use crate::traffic::{Call, Item};

const TIMER: u64 = u64::MAX;
const EVENTS_AT_ONCE: usize = 256;
const CONNECT_TIMEOUT_US: u64 = 2_000_000;
const RECONNECT_PAUSE_US: u64 = 100_000;
/// After a call that was never answered its instance is given a rest.
const TIMED_OUT_PAUSE_US: u64 = 1_000_000;
const RETRY_FIRST_US: u64 = 20_000;
const RETRY_MAX_US: u64 = 2_000_000;
/// Acknowledged requests from which repeats and conflicts are drawn.
const KNOWN_MAX: usize = 4_096;
const FLUSH_COUNT: usize = 512;

struct Lane<'a> {
    plan: &'a Plan,
    lane: u32,
    outlets: &'a Outlets,
    poller: OwnedFd,
    timer: OwnedFd,
    connections: Vec<Connection>,
    idle: VecDeque<usize>,
    singles: Peekable<Schedule<'a>>,
    batches: Peekable<Schedule<'a>>,
    begin_us: u64,
    end_us: u64,
    waiting: VecDeque<Call>,
    later: BinaryHeap<Later>,
    in_flight: usize,
    fates: Vec<Fate>,
    known: Vec<u32>,
    /// Requests made, odd ones included; batches made.
    turns: u64,
    batch_count: u32,
    tally: Tally,
    acknowledged: Vec<Acknowledged>,
    tick_us: u64,
    scratch: Vec<u8>,
}

pub fn run(plan: &Plan, thread: u32, outlets: &Outlets) -> Result<LaneReport, GeneratorError> {
    let nothing = crate::arrivals::Arrivals::of_pieces([]);
    let mut lane = Lane::new(plan, thread, outlets, &nothing)?;
    lane.work()?;
    Ok(lane.finish())
}

fn io(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> GeneratorError {
    move |error| GeneratorError::Io { what, error: error.into() }
}

impl<'a> Lane<'a> {
    fn new(
        plan: &'a Plan,
        thread: u32,
        outlets: &'a Outlets,
        nothing: &'a crate::arrivals::Arrivals,
    ) -> Result<Lane<'a>, GeneratorError> {
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io("make a poller"))?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer =
            rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags).map_err(io("make a timer"))?;
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&poller, &timer, epoll::EventData::new_u64(TIMER), edge).map_err(io("watch a timer"))?;
        let threads = plan.settings.threads;
        let count =
            plan.settings.connections / threads + u32::from(thread < plan.settings.connections % threads);
        let (singles, batches) = schedules(plan, thread, nothing);
        let begin_us = plan.begin.saturating_duration_since(plan.epoch).as_micros() as u64;
        Ok(Lane {
            plan,
            lane: plan.lane_first + thread,
            outlets,
            poller,
            timer,
            connections: (0..count)
                .map(|index| Connection::new((index as usize) % plan.addresses.len()))
                .collect(),
            idle: VecDeque::new(),
            singles: singles.peekable(),
            batches: batches.peekable(),
            begin_us,
            end_us: begin_us + (plan.pace.length_s() * 1e6) as u64,
            waiting: VecDeque::new(),
            later: BinaryHeap::new(),
            in_flight: 0,
            fates: Vec::new(),
            known: Vec::new(),
            turns: 0,
            batch_count: 0,
            tally: Tally::new(),
            acknowledged: Vec::new(),
            tick_us: 0,
            scratch: Vec::new(),
        })
    }

    fn now_us(&self) -> u64 {
        self.plan.epoch.elapsed().as_micros() as u64
    }

    fn work(&mut self) -> Result<(), GeneratorError> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_AT_ONCE);
        loop {
            let now = self.now_us();
            if now >= self.tick_us {
                self.tick(now)?;
            }
            self.release(now);
            while self.later.peek().is_some_and(|later| later.at_us <= now) {
                let later = self.later.pop().expect("seen a line above");
                self.waiting.push_back(later.call);
            }
            self.dispatch(now);
            if self.is_done(now) {
                return Ok(());
            }
            let wake = self.next_wake();
            self.arm(wake, now)?;
            events.clear();
            let spare = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.poller, spare, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io("wait for events")(error)),
            }
            for event in &events {
                if event.data.u64() != TIMER {
                    self.event(event.data.u64() as usize);
                }
            }
        }
    }

    fn next_due_us(&mut self) -> Option<u64> {
        let due = match (self.singles.peek(), self.batches.peek()) {
            (Some(a), Some(b)) => a.min(*b),
            (Some(due), None) | (None, Some(due)) => *due,
            (None, None) => return None,
        };
        Some(self.begin_us + (due * 1e6) as u64)
    }

    /// Puts everything that is due in the line.
    fn release(&mut self, now: u64) {
        if let Pace::Flood { .. } = self.plan.pace {
            if now >= self.begin_us && now < self.end_us && !self.is_stopped() {
                let is_batch = self.plan.load.batch_share >= 0.5;
                for _ in self.waiting.len()..self.idle.len() {
                    let call = self.make(is_batch, now);
                    self.waiting.push_back(call);
                }
            }
            return;
        }
        let lag_max_us = (self.plan.settings.lag_ms * 1e3) as u64;
        while let Some(due) = self.next_due_us().filter(|due| *due <= now) {
            let is_batch = match (self.singles.peek(), self.batches.peek()) {
                (Some(single), Some(batch)) => batch < single,
                (single, _) => single.is_none(),
            };
            if is_batch {
                self.batches.next()
            } else {
                self.singles.next()
            };
            let call = self.make(is_batch, due);
            let lag = now - due;
            let counts = &mut self.tally.counts;
            counts.late += u64::from(lag > lag_max_us);
            counts.lag_us_max = counts.lag_us_max.max(lag);
            self.plan.live.lag_us.fetch_max(lag, Ordering::Relaxed);
            counts.waited += u64::from(self.idle.is_empty());
            if self.waiting.len() >= self.plan.settings.waiting_max as usize {
                counts.unsent += u64::from(call.count());
            } else {
                self.waiting.push_back(call);
            }
        }
    }

    fn make(&mut self, is_batch: bool, due_us: u64) -> Call {
        let count = if is_batch { self.plan.load.batch_size } else { 1 };
        let (first, mut fresh, mut odd) = (self.fates.len() as u32, 0, Vec::new());
        for _ in 0..count {
            self.turns += 1;
            match self.plan.traffic.odd(self.lane, self.turns, &self.known) {
                Some(item) => odd.push(item),
                None => fresh += 1,
            }
        }
        self.fates.resize(self.fates.len() + fresh as usize, Fate::Unsent);
        let batch = is_batch.then(|| {
            self.batch_count += 1;
            self.batch_count
        });
        self.tally.counts.offered += u64::from(count);
        self.tally.bin(due_us).offered += count;
        Live::add(&self.plan.live.offered, u64::from(count));
        Call { first, fresh, odd, batch, due_us, attempts: 0, is_doubtful: false }
    }

    fn dispatch(&mut self, now: u64) {
        while !self.waiting.is_empty() {
            let Some(index) = self.idle.pop_front() else { break };
            // One that was lost since may still stand in the line.
            if self.connections[index].state != State::Idle {
                continue;
            }
            let mut call = self.waiting.pop_front().expect("not empty");
            if call.attempts == 0 {
                self.count_first(&call);
            }
            call.attempts += 1;
            let (plan, lane, scratch) = (self.plan, self.lane, &mut self.scratch);
            let connection = &mut self.connections[index];
            connection.until_us = now + (plan.settings.answer_timeout_s * 1e6) as u64;
            self.in_flight += 1;
            let progress = connection.send(call, |out, call| {
                if plan.is_list() {
                    plan.traffic.write_push(out, LIST, lane, call, scratch);
                } else {
                    plan.traffic.write_http(out, &plan.head, lane, call, scratch);
                }
            });
            if let Progress::Lost(cause) = progress {
                self.lost(index, cause, now, RECONNECT_PAUSE_US);
            }
        }
    }

    fn count_first(&mut self, call: &Call) {
        let counts = &mut self.tally.counts;
        counts.calls += 1;
        for item in call.items() {
            match item {
                Item::Fresh(number) => {
                    counts.submitted += 1;
                    self.fates[number as usize] = Fate::Open;
                }
                Item::Duplicate(_) => counts.duplicates_sent += 1,
                Item::Conflict(_) => counts.conflicts_sent += 1,
                Item::Invalid(_) => counts.invalid_sent += 1,
            }
        }
    }

    fn event(&mut self, index: usize) {
        let is_list = self.plan.is_list();
        let Some(connection) = self.connections.get_mut(index) else { return };
        let progress = connection.advance(is_list);
        let now = self.now_us();
        match progress {
            Progress::Nothing => {}
            Progress::Connected => self.idle.push_back(index),
            Progress::Lost(cause) => self.lost(index, cause, now, RECONNECT_PAUSE_US),
            Progress::Answered(answer) => {
                self.in_flight -= 1;
                let call = self.connections[index].call.take().expect("a busy connection has a call");
                if answer.closes {
                    self.connections[index].close();
                } else {
                    self.idle.push_back(index);
                }
                self.answered(call, &answer, now);
            }
        }
    }

    fn lost(&mut self, index: usize, cause: &'static str, now: u64, pause_us: u64) {
        let connection = &mut self.connections[index];
        let call = connection.close();
        connection.until_us = now + pause_us;
        if let Some(call) = call {
            self.in_flight -= 1;
            self.tally.counts.connections_lost += 1;
            self.again(Call { is_doubtful: true, ..call }, cause.to_owned(), None, now);
        }
    }

    /// What no event announces: pauses that ended, calls and connects that took too long.
    fn tick(&mut self, now: u64) -> Result<(), GeneratorError> {
        self.tick_us = now + TICK.as_micros() as u64;
        for index in 0..self.connections.len() {
            let connection = &mut self.connections[index];
            let is_over = connection.until_us <= now;
            match connection.state {
                State::Down if is_over => {
                    connection.until_us = now + CONNECT_TIMEOUT_US;
                    self.tally.counts.connects += 1;
                    let address = self.plan.addresses[connection.address];
                    if connection.connect(address, &self.poller, index as u64).is_err() {
                        self.lost(index, "connect", now, RECONNECT_PAUSE_US);
                    }
                }
                State::Connecting if is_over => self.lost(index, "connect timeout", now, RECONNECT_PAUSE_US),
                State::Busy if is_over => self.lost(index, "no answer", now, TIMED_OUT_PAUSE_US),
                _ => {}
            }
        }
        self.flush();
        if let Some(done) = self.tally.turn_to(now / 1_000_000) {
            let _ = self.outlets.intervals.send(done);
        }
        self.plan.live.waiting.store((self.waiting.len() + self.later.len()) as u64, Ordering::Relaxed);
        Ok(())
    }

    fn is_done(&mut self, now: u64) -> bool {
        if self.is_stopped() || now > self.give_up_us() {
            return true;
        }
        let all_due = match self.plan.pace {
            Pace::Flood { .. } => now >= self.end_us,
            Pace::Arrivals { .. } => self.next_due_us().is_none(),
        };
        all_due && self.waiting.is_empty() && self.later.is_empty() && self.in_flight == 0
    }

    fn next_wake(&mut self) -> u64 {
        let retry = self.later.peek().map_or(u64::MAX, |later| later.at_us);
        let due = self.next_due_us().unwrap_or(u64::MAX);
        self.tick_us.min(retry).min(due)
    }

    fn arm(&mut self, wake_us: u64, now_us: u64) -> Result<(), GeneratorError> {
        // Zero would disarm it.
        let wait = Duration::from_micros(wake_us.saturating_sub(now_us).max(1));
        let at = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        let set = rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once);
        set.map(|_| ()).map_err(io("set a timer"))
    }

    fn finish(mut self) -> LaneReport {
        let now = self.now_us();
        let busy: Vec<Call> = self.connections.iter_mut().filter_map(Connection::close).collect();
        for call in busy {
            self.give_up(Call { is_doubtful: true, ..call }, "no answer", now);
        }
        let left: Vec<Call> =
            self.waiting.drain(..).chain(self.later.drain().map(|later| later.call)).collect();
        for call in left {
            self.give_up(call, "given up", now);
        }
        self.flush();
        if let Some(done) = self.tally.turn_to(u64::MAX) {
            let _ = self.outlets.intervals.send(done);
        }
        LaneReport { lane: self.lane, fates: self.fates, counts: self.tally.counts, bins: self.tally.bins }
    }
}
