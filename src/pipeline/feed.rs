//! The feed: takes requests from the queues in turn, at the pace, and publishes them into the ring.
//!
//! Lanes in order of urgency: control (never paced), realtime, bulk (only when realtime has nothing). Inside a
//! lane the fair queues are served round-robin, a few requests a turn. Where the wallet is elsewhere, the pace is its
//! breaker's ([`super::remote`]), and the feed keeps only a little ahead of it, so that whose turn it is is decided late. What is due in the parking goes first.
//! A queue that holds its share of the parking is not read, visibly, until it has room; nothing is ever rejected.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::slot::{Load, Origin, Slot};
use super::suspects::Suspects;
use super::{Parts, PipelineOptions};
use crate::domain::{Lane, UnixMs, WaitReason};
use crate::intake::{Due, Element, Intake, QueueId, Shelf};
use crate::ring::threads::Feeder;
use crate::ring::{self};
use crate::seldom::Seldom;
use crate::shaping::Pace;

/// Requests of one queue in one turn.
const TURN_COUNT: usize = 256;

/// While little is waiting, the feed lets it gather for this long: a trickle settled one request at a time would
/// cost a wallet call and three frames each.
const LINGER: Duration = Duration::from_millis(2);
/// With this much waiting it does not linger.
const LINGER_COUNT: u64 = 1_024;

/// What the pace grants is taken in steps worth this long, for the same reason: behind a backlog every wake would else
/// settle the one or two transfers that became free since the last. After a rest a step is there at once.
const STEP_NS: u64 = 5_000_000;

/// Why the feed held what waits unread, as it stands in metrics: the pace lets nothing go yet, the ring is full, the wallet has not been
/// sent what was fed, the parking has no room.
pub const HOLD_KINDS: [&str; 4] = ["pace", "ring", "wallet", "parking"];

#[derive(Clone, Copy)]
enum Hold {
    Pace,
    Ring,
    Wallet,
    Parking,
}

/// What the feed tells others, and is told.
pub struct FeedCounts {
    pub fed: AtomicU64,
    pub committed: AtomicU64,
    pub stop: AtomicBool,
    /// The feed sleeps until a time of its own: a sync that concerns nobody in the ring need not wake it.
    pub lingering: AtomicBool,
    /// Operators and tests may hold the feed.
    pub paused: AtomicBool,
    /// The wallet has not said who it is: nothing is fed.
    pub wallet_unknown: AtomicBool,
    /// Of those fed, how many were sent to a wallet elsewhere, or left; and how far they may be ahead of that.
    pub sent: AtomicU64,
    pub ahead_max: AtomicU64,
    /// Times that it held what waits, by [`HOLD_KINDS`]; and the lines that tell of it.
    pub held: [AtomicU64; HOLD_KINDS.len()],
    held_lines: [Seldom; HOLD_KINDS.len()],
}

impl Default for FeedCounts {
    fn default() -> FeedCounts {
        FeedCounts {
            fed: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            lingering: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            wallet_unknown: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            ahead_max: AtomicU64::new(u64::MAX),
            held: Default::default(),
            held_lines: Default::default(),
        }
    }
}

impl FeedCounts {
    /// Requests in the ring.
    pub fn in_ring(&self) -> u64 {
        let committed = self.committed.load(Ordering::Acquire);
        self.fed.load(Ordering::Acquire).saturating_sub(committed)
    }

    fn hold(&self, why: Hold, now_ms: UnixMs) {
        self.held[why as usize].fetch_add(1, Ordering::Relaxed);
        if let Some(times) = self.held_lines[why as usize].note(now_ms, 1) {
            let (reason, in_ring) = (HOLD_KINDS[why as usize], self.in_ring());
            tracing::debug!(times, reason, in_ring, "the feed holds what waits");
        }
    }

    /// Requests that may be fed though the wallet has not been sent those before.
    fn room_ahead(&self) -> u64 {
        let sent = self.sent.load(Ordering::Acquire);
        let ahead = self.fed.load(Ordering::Acquire).saturating_sub(sent);
        self.ahead_max.load(Ordering::Acquire).saturating_sub(ahead)
    }
}

pub struct Feed {
    intake: Arc<dyn Intake>,
    shelf: Arc<dyn Shelf>,
    /// All queues, and those that are paced, by position.
    queues: Vec<QueueId>,
    paced: Vec<QueueId>,
    suspects: Arc<Suspects>,
    counts: Arc<FeedCounts>,
    pace: Pace,
    now_ms: Arc<dyn Fn() -> UnixMs + Send + Sync>,
    started: Instant,
    /// Next fair queue to serve, by lane.
    turn: [u8; Lane::ALL.len()],
    /// Read and not yet published.
    ready: VecDeque<Load>,
    elements: Vec<Element>,
    due: Vec<Due>,
    /// What may be read of each queue, by position, in one gathering.
    rooms: Vec<usize>,
    slot_count: usize,
    batch_count_max: usize,
    paced_until_ns: u64,
    linger_until: Instant,
    /// Requests of the part of a blamed batch that is under way.
    isolated_count: u64,
}

impl Feed {
    pub fn new(
        options: &PipelineOptions,
        transfers_per_s: u64,
        parts: &Parts,
        suspects: Arc<Suspects>,
        counts: Arc<FeedCounts>,
    ) -> Feed {
        let fair_count = parts.intake.fair_queue_count();
        let of_lane = |lane| (0..fair_count).map(move |fair| QueueId { lane, fair });
        let queues: Vec<QueueId> = Lane::ALL.into_iter().flat_map(of_lane).collect();
        Feed {
            intake: parts.intake.clone(),
            shelf: parts.shelf.clone(),
            paced: queues.iter().copied().filter(|queue| queue.lane != Lane::Control).collect(),
            queues,
            suspects,
            counts,
            pace: Pace::new(transfers_per_s),
            now_ms: parts.now_ms.clone(),
            started: Instant::now(),
            turn: [0; Lane::ALL.len()],
            ready: VecDeque::new(),
            elements: Vec::new(),
            due: Vec::new(),
            slot_count: options.slot_count,
            rooms: Vec::new(),
            batch_count_max: options.batch_count_max,
            paced_until_ns: 0,
            linger_until: Instant::now(),
            isolated_count: 0,
        }
    }

    fn now_ns(&self) -> u64 {
        // From one second on, so that "a while ago" can be said at the start.
        1_000_000_000 + self.started.elapsed().as_nanos() as u64
    }

    fn is_held(&self) -> bool {
        let counts = &self.counts;
        [&counts.stop, &counts.paused, &counts.wallet_unknown].iter().any(|held| held.load(Ordering::Acquire))
    }

    fn lingers(&self) -> bool {
        Instant::now() < self.linger_until && {
            let backlog: u64 = self.paced.iter().map(|queue| self.intake.depth(*queue)).sum();
            backlog.saturating_sub(self.counts.in_ring()) < LINGER_COUNT
        }
    }

    /// Fills `ready` from the parking and the queues, at most `room` in all.
    fn gather(&mut self, room: usize) {
        self.shelf.rooms(&self.queues, self.counts.in_ring() as usize, &mut self.rooms);
        self.gather_lane(Lane::Control, room, false);
        if self.lingers() {
            return;
        }
        let now_ns = self.now_ns();
        let want = room.saturating_sub(self.ready.len()) as u64;
        let granted = self.granted(now_ns, want) as usize;
        let before = self.ready.len();
        // Those that waited may not keep the others from their turn, nor the others them.
        let share = if self.has_open_unread() { granted.div_ceil(2) } else { granted };
        self.gather_due(share);
        for lane in [Lane::Realtime, Lane::Bulk] {
            let left = granted - (self.ready.len() - before).min(granted);
            self.gather_lane(lane, left, true);
        }
        let unused = granted - (self.ready.len() - before).min(granted);
        self.pace.give_back(unused as u64);
        if self.ready.len() > before {
            self.linger_until = Instant::now() + LINGER;
        }
    }

    /// Counts that something waits and why, if something does.
    fn hold(&self, why: Hold) {
        let has_unread = || self.queues.iter().any(|queue| self.intake.has_unread(*queue));
        if !self.ready.is_empty() || has_unread() || self.has_due() {
            self.counts.hold(why, (self.now_ms)());
        }
    }

    fn has_due(&self) -> bool {
        self.shelf.next_due().is_some_and(|due| due <= (self.now_ms)())
    }

    /// How many may be fed now, but for the pace.
    fn room(&self) -> usize {
        let room_in_ring = self.slot_count.saturating_sub(self.counts.in_ring() as usize);
        let room_ahead = usize::try_from(self.counts.room_ahead()).unwrap_or(usize::MAX);
        let room = room_in_ring.min(self.batch_count_max).min(room_ahead);
        if room == 0 {
            self.hold(if room_in_ring == 0 { Hold::Ring } else { Hold::Wallet });
        }
        room
    }

    /// How many of `want` the pace lets go now; none, and when it will, while a step has not come together.
    fn granted(&mut self, now_ns: u64, want: u64) -> u64 {
        let taken = self.pace.take_step(now_ns, want, STEP_NS);
        self.paced_until_ns = taken.err().unwrap_or(0);
        if taken.is_err() && want > 0 {
            self.hold(Hold::Pace);
        }
        taken.unwrap_or(0)
    }

    /// Whether a paced queue has something to read, and room where it may have to wait.
    fn has_open_unread(&self) -> bool {
        let unread = self.paced.iter().copied().filter(|queue| self.intake.has_unread(*queue));
        let unread: Vec<QueueId> = unread.collect();
        if unread.is_empty() {
            return false;
        }
        let has_room = self.shelf.has_room(&unread, self.counts.in_ring() as usize);
        if !has_room {
            self.counts.hold(Hold::Parking, (self.now_ms)());
        }
        has_room
    }

    fn gather_due(&mut self, count_max: usize) {
        self.due.clear();
        self.shelf.take_due((self.now_ms)(), count_max, &mut self.due);
        self.ready.extend(self.due.drain(..).map(|due| {
            let Due { record, place, mark, entry_place, attempts, reason, is_unknown } = due;
            let lacks_balance = reason == WaitReason::LowBalance;
            let origin = Origin::Parked { entry_place, attempts, is_unknown, lacks_balance };
            Load { record, place, mark, may_be_sent: false, origin }
        }));
    }

    fn gather_lane(&mut self, lane: Lane, count_max: usize, in_turns: bool) {
        let fair_count = self.intake.fair_queue_count();
        let wanted = self.ready.len() + count_max;
        let mut empty = 0;
        while self.ready.len() < wanted && empty < fair_count {
            let fair = self.turn[lane as usize];
            self.turn[lane as usize] = (fair + 1) % fair_count;
            let queue = QueueId { lane, fair };
            let turn = if in_turns { TURN_COUNT } else { usize::MAX };
            self.elements.clear();
            let room = self.rooms[queue.position(fair_count)];
            let count = turn.min(wanted - self.ready.len()).min(room);
            if count == 0 {
                empty += 1;
                continue;
            }
            if let Err(error) = self.intake.read(queue, count, &mut self.elements) {
                // Unreadable storage is not a reason to skip anything: stop, by the panic that stops the service.
                panic!("queue {queue:?} cannot be read: {error}");
            }
            if self.elements.is_empty() {
                empty += 1;
                continue;
            }
            empty = 0;
            // Whichever queue they came from, they take of what is free for all.
            let count = self.elements.len();
            self.rooms.iter_mut().for_each(|room| *room = room.saturating_sub(count));
            for element in self.elements.drain(..) {
                let Element { index, place, mark, may_be_sent, record } = element;
                let origin = Origin::Queue { queue, index };
                self.ready.push_back(Load { record, place, mark, may_be_sent, origin });
            }
        }
    }
}

impl Feeder<Slot> for Feed {
    fn step(&mut self, feed: &mut ring::Feed<Slot>) -> bool {
        if self.is_held() && self.ready.is_empty() {
            return false;
        }
        let mut room = self.room();
        if self.suspects.is_isolating() {
            // One part of the blamed batch at a time, alone in the ring.
            let alone = self.counts.in_ring() == 0;
            if alone && self.isolated_count > 0 {
                self.suspects.passed(std::mem::take(&mut self.isolated_count));
            }
            room = if alone { room.min(self.suspects.batch_count_max() as usize) } else { 0 };
        }
        if self.ready.len() < room && !self.is_held() {
            self.gather(room - self.ready.len());
        }
        let count = self.ready.len().min(room);
        if count == 0 {
            return false;
        }
        if self.suspects.is_isolating() {
            self.isolated_count = count as u64;
        }
        // Counted before it can be committed.
        self.counts.fed.fetch_add(count as u64, Ordering::AcqRel);
        let ready = &mut self.ready;
        let published = feed.try_publish(count, |slot| {
            slot.fill(ready.pop_front().expect("counted above"));
        });
        if published.is_err() {
            self.counts.fed.fetch_sub(count as u64, Ordering::AcqRel);
        }
        published.is_ok()
    }

    fn has_work(&mut self) -> bool {
        let is_full = self.counts.in_ring() as usize >= self.slot_count || self.counts.room_ahead() == 0;
        if self.is_held() || is_full {
            return false;
        }
        if self.suspects.is_isolating() && self.counts.in_ring() > 0 {
            return false;
        }
        if !self.ready.is_empty() {
            return true;
        }
        if self.queues.iter().any(|queue| queue.lane == Lane::Control && self.intake.has_unread(*queue)) {
            return true;
        }
        if self.lingers() {
            return false;
        }
        let paced = self.paced_until_ns > self.now_ns();
        !paced && (self.has_due() || self.has_open_unread())
    }

    fn deadline(&self) -> Option<Instant> {
        if self.is_held() {
            return None;
        }
        let paced = (self.paced_until_ns > 0).then(|| {
            let ns = self.paced_until_ns.saturating_sub(self.now_ns());
            Instant::now() + Duration::from_nanos(ns)
        });
        let due = self.shelf.next_due().map(|due| {
            let ms = due.saturating_sub((self.now_ms)()).max(1);
            Instant::now() + Duration::from_millis(ms)
        });
        let linger = (Instant::now() < self.linger_until).then_some(self.linger_until);
        let is_step = paced.is_some_and(|at| at < Instant::now() + Duration::from_nanos(STEP_NS));
        self.counts.lingering.store(linger.is_some() || is_step, Ordering::Release);
        paced.into_iter().chain(due).chain(linger).min()
    }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
