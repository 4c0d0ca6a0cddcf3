//! Asks the breaker before each call to the wallet, and tells it what came of it.
//!
//! Between [`super::calls`], whose calls have numbers, and [`Governor`], whose tickets must come back. What holds: a
//! call that the breaker does not let go is not made, first or repeated, transfers or burns; nothing is lost, refused or
//! parked on the way. One permit a call, however many requests are in it. Without a governor everything goes, for
//! scenes that are about something else, and to see what one costs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::breaker::classify::{Counts, of_answer, of_error};
use crate::breaker::gate::{Held, Ticket};
use crate::breaker::keeper::{Shared, lock};
use crate::shaping::{Course, Others};
use crate::stored_value::remote::{Answer, CallError};

const ASK_AGAIN: Duration = Duration::from_millis(20);
/// How much of what may be sent is taken out of the queues ahead of it, as time, and at the least: what was taken
/// stands before whatever comes later, of whichever lane or campaign. A call's worth, and some for the way through the ring:
/// what that takes longer, the pace has saved up.
const AHEAD_MS: u64 = 16;
const AHEAD_MIN: u64 = 2;

/// What a breaker is reached by.
#[derive(Clone)]
pub struct Breaker {
    pub governor: Shared,
    /// What the governor's clock counts from.
    pub since: Instant,
    /// Something happened that the board should hear of at once.
    pub on_news: Arc<dyn Fn() + Send + Sync>,
}

impl Breaker {
    pub fn ns(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.since).as_nanos() as u64
    }

    pub fn reply_stamp(&self) -> ReplyStamp {
        ReplyStamp { since: self.since, at_ns: lock(&self.governor).replied_at_ns() }
    }

    /// How fast the fleet may go from now on.
    pub fn course(&self) -> Course {
        let now_ns = self.ns(Instant::now());
        lock(&self.governor).course(now_ns)
    }

    /// What the others of the fleet have to do; none: the board was not heard of late.
    pub fn others(&self) -> Option<Others> {
        let now_ns = self.ns(Instant::now());
        lock(&self.governor).others(now_ns)
    }
}

/// Tells the breaker at once, and without its lock, that something came back from the wallet.
pub struct ReplyStamp {
    since: Instant,
    at_ns: Arc<AtomicU64>,
}

impl ReplyStamp {
    pub fn note(&self, reply: &Result<Vec<Answer>, CallError>) {
        if !matches!(reply, Err(CallError::TimedOut { .. })) {
            self.at_ns.fetch_max(self.since.elapsed().as_nanos() as u64, Ordering::Relaxed);
        }
    }
}

#[derive(Default)]
pub struct Sluice {
    breaker: Option<Breaker>,
    tickets: HashMap<u64, Ticket>,
    held_until: Option<Instant>,
    /// What might go a second, when it was asked last.
    rate_per_s: u64,
}

impl Sluice {
    pub fn new(breaker: Breaker) -> Sluice {
        Sluice { breaker: Some(breaker), ..Sluice::default() }
    }

    /// Whether a call may be made now; with a governor, under which ticket.
    pub fn admit(&mut self, now: Instant, want: usize) -> Result<Option<Ticket>, Held> {
        let Some(breaker) = &self.breaker else { return Ok(None) };
        let now_ns = breaker.ns(now);
        let mut governor = lock(&breaker.governor);
        let answer = governor.admit(now_ns, want as u64);
        self.rate_per_s = governor.allowed(now_ns).rate_per_s;
        let wants_beat = governor.wants_beat();
        drop(governor);
        if wants_beat {
            (breaker.on_news)();
        }
        self.held_until = match answer {
            Ok(_) => None,
            Err(Held::Paced { until_ns } | Held::Alone { until_ns }) => {
                let at = breaker.since.checked_add(Duration::from_nanos(until_ns));
                Some(at.unwrap_or(now).clamp(now, now + ASK_AGAIN))
            }
            Err(Held::Full | Held::NoShare | Held::Open) => Some(now + ASK_AGAIN),
        };
        answer.map(Some)
    }

    /// The call goes, with so many requests.
    pub fn sent(&mut self, ticket: Option<Ticket>, call: u64, count: usize) {
        if let (Some(ticket), Some(breaker)) = (ticket, &self.breaker) {
            let ticket = lock(&breaker.governor).shrink(ticket, count as u64);
            self.tickets.insert(call, ticket);
        }
    }

    /// Nothing was there to go.
    pub fn unused(&mut self, ticket: Option<Ticket>) {
        if let (Some(ticket), Some(breaker)) = (ticket, &self.breaker) {
            lock(&breaker.governor).withdraw(ticket);
        }
    }

    pub fn answered(
        &mut self,
        now: Instant,
        call: u64,
        count: usize,
        reply: &Result<Vec<Answer>, CallError>,
    ) {
        let (Some(ticket), Some(breaker)) = (self.tickets.remove(&call), &self.breaker) else {
            return;
        };
        let mut counts = Counts::default();
        match reply {
            Ok(answers) => answers.iter().for_each(|answer| counts.add(of_answer(answer.status), 1)),
            Err(error) => counts.add(of_error(error), count as u64),
        }
        let mut governor = lock(&breaker.governor);
        governor.answered(breaker.ns(now), ticket, &counts);
        if governor.wants_beat() {
            drop(governor);
            (breaker.on_news)();
        }
    }

    /// When to ask again, while nothing may go.
    pub fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// Requests that may be out of the queues and not yet sent.
    pub fn ahead_max(&self) -> u64 {
        match self.breaker {
            Some(_) => (self.rate_per_s.saturating_mul(AHEAD_MS) / 1_000).max(AHEAD_MIN),
            None => u64::MAX,
        }
    }
}
