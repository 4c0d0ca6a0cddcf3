//! What the reader knows of each unit and each list.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::domain::UnixMs;
use crate::intake::redis::contents::Dead;
use crate::intake::redis::credit::Gauge;
use crate::intake::redis::keys::Keys;
use crate::intake::redis::queues::Ticket;
use crate::intake::redis::seal::Fence;
use crate::intake::redis::sizes::Sizes;
use crate::intake::redis::units::{Order, Unit, UnitId};
use crate::intake::redis::window::{Mismatch, Side, Window};

/// How long a writing command may be executed after it was sent; after that it is refused. What was sent over a
/// connection that broke holds up others for as long.
const COMMAND_MS: UnixMs = 2_000;
/// Elements that are appended in one round.
const APPEND_COUNT_FIRST: u64 = 8;
const APPEND_COUNT_MAX: u64 = 512;
/// Between attempts of a unit that cannot be reached; doubled up to [`PAUSE`].
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Between attempts of a unit that refuses.
pub const PAUSE: Duration = Duration::from_secs(1);

pub struct List {
    pub unit: usize,
    /// The queue whose depth it counts for.
    pub queue_position: usize,
    pub live: String,
    pub sealed: [String; 2],
    pub order: Order,
    pub window: Window,
    /// Counts up with every fresh window: tickets of an earlier one mean nothing any more.
    pub era: u32,
    pub gauge: Gauge,
    pub sizes: Sizes,
    /// The live list may have something.
    pub is_hot: bool,
    /// Elements of the live list when it was looked at last.
    pub live_count: u64,
    /// When it was sealed or acknowledged last.
    pub moved_at: Option<Instant>,
    /// How many to append in one round; more while there are as many.
    pub append_count: u64,
    /// The window is to be given up at the end of the round.
    pub is_spoilt: bool,
    /// Something of it cannot be buried: it is read no further.
    pub is_stopped: bool,
}

impl List {
    /// Elements that stand in Redis.
    pub fn elements(&self) -> u64 {
        self.live_count + self.window.length()
    }

    /// Requests that stand in Redis only, about.
    pub fn requests_waiting(&self) -> u64 {
        self.gauge.requests_in(self.live_count + self.window.unread())
    }

    /// The lengths of the generations are these, and their bytes.
    pub fn learn(&mut self, lengths: [u64; 2], bytes: [u64; 2]) -> Result<(), Mismatch> {
        // What was read of them already is counted once more, which is on the safe side.
        Side::ALL.into_iter().for_each(|side| {
            self.sizes.note_total(side, lengths[side as usize], bytes[side as usize]);
        });
        self.window.learn(lengths)
    }

    pub fn is_busy(&self) -> bool {
        self.is_hot || !self.window.is_empty()
    }

    /// Nothing is known of that could be read, and what comes could be.
    pub fn is_dry(&self) -> bool {
        self.window.next_seal().is_some() || self.window.next_append().is_some()
    }

    /// In a round in which `count` were to be appended, there was another one, or not.
    pub fn count_appended(&mut self, count: u64, has_more: bool) {
        self.append_count = if has_more { (count * 4).min(APPEND_COUNT_MAX) } else { APPEND_COUNT_FIRST };
    }
}

/// Something that could not be read and is not buried yet.
pub struct Grave {
    pub ticket: Ticket,
    pub dead: Dead,
}

pub struct UnitState {
    pub id: UnitId,
    /// While it is held.
    pub fence: Option<Fence>,
    pub owner_key: String,
    /// Its outcomes, and what is parked of it.
    pub beside: [String; 2],
    pub lists: Range<usize>,
    pub is_leaving: bool,
    /// The server's time, and when it was told.
    clock: Option<(Instant, UnixMs)>,
    /// Requests that were ever read of it.
    pub sequence: u64,
    pub graves: Vec<Grave>,
    /// There was no room for the dead.
    pub is_dead_full: bool,
    pub bury_after: Option<Instant>,
    /// What keeps it from working, as it was told.
    pub trouble: Option<String>,
    pub retry_at: Option<Instant>,
    failures: u32,
    pub has_failed: bool,
}

impl UnitState {
    pub fn is_paused(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| now < at)
    }

    pub fn set_clock(&mut self, now_ms: UnixMs) {
        self.clock = Some((Instant::now(), now_ms));
    }

    /// What the server's clock says now, about.
    pub fn server_ms(&self) -> Option<UnixMs> {
        self.clock.map(|(at, ms)| ms + at.elapsed().as_millis() as UnixMs)
    }

    /// Until when a command that is sent now may be executed.
    pub fn deadline(&self) -> Option<UnixMs> {
        self.server_ms().map(|ms| ms + COMMAND_MS)
    }

    /// It could not be reached.
    pub fn pause_shortly(&mut self, now: Instant) {
        let pause = PAUSE_FIRST.saturating_mul(1 << self.failures.min(10)).min(PAUSE);
        self.has_failed = true;
        self.retry_at = Some(self.retry_at.map_or(now + pause, |at| at.max(now + pause)));
    }

    /// It refused.
    pub fn pause(&mut self, now: Instant) {
        self.has_failed = true;
        self.retry_at = Some(now + PAUSE);
    }

    /// At the end of a round in which it took part; true if it recovered in it.
    pub fn conclude(&mut self) -> bool {
        if std::mem::take(&mut self.has_failed) {
            self.failures += 1;
            return false;
        }
        let has_recovered = std::mem::take(&mut self.failures) > 0;
        self.retry_at = None;
        has_recovered
    }

    /// Under a new epoch, or none, nothing of what was counts.
    pub fn begin(&mut self, fence: Option<Fence>) {
        *self = UnitState {
            fence,
            sequence: self.sequence,
            ..UnitState::new(self.id, self.owner_key.clone(), self.beside.clone(), self.lists.clone())
        };
    }

    fn new(id: UnitId, owner_key: String, beside: [String; 2], lists: Range<usize>) -> UnitState {
        UnitState {
            id,
            fence: None,
            owner_key,
            beside,
            lists,
            is_leaving: false,
            clock: None,
            sequence: 0,
            graves: Vec::new(),
            is_dead_full: false,
            bury_after: None,
            trouble: None,
            retry_at: None,
            failures: 0,
            has_failed: false,
        }
    }
}

/// All units and their lists, none of them held.
pub fn of(keys: &Keys) -> (Vec<UnitState>, Vec<List>) {
    let (mut units, mut lists) = (Vec::new(), Vec::new());
    for id in keys.units().ids() {
        let first = lists.len();
        let order = match keys.units().get(id) {
            Unit::Shard(_) => Order::Rpush,
            Unit::Foreign(list) => list.order,
        };
        lists.extend(keys.queues(id).into_iter().map(|queue| List {
            unit: units.len(),
            queue_position: queue.position(keys.units().fair_queue_count),
            live: keys.list(id, queue),
            sealed: keys.sealed(id, queue),
            order,
            window: Window::new(),
            era: 0,
            gauge: Gauge::default(),
            sizes: Sizes::default(),
            is_hot: false,
            live_count: 0,
            moved_at: None,
            append_count: APPEND_COUNT_FIRST,
            is_spoilt: false,
            is_stopped: false,
        }));
        let beside = [keys.outcomes(id), keys.parked(id)];
        units.push(UnitState::new(id, keys.owner(id), beside, first..lists.len()));
    }
    (units, lists)
}
