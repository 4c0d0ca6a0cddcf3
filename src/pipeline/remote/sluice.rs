//! Between the calls and the breaker's gate: a permit a call, and what came of it by class.
//!
//! `Calls` asks once for each call and is told how many requests may be in it; what it does not use goes back. The
//! governor is shared with the loop that speaks to the board, so it may change at any time: while something waits and
//! no time is known, it is asked again every [`ASK_AGAIN`]. Where there is no governor, everything may go.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::breaker::classify::{Counts, of_answer, of_error};
use crate::breaker::gate::{Held, Ticket};
use crate::breaker::keeper::{Shared, lock};
use crate::stored_value::remote::{Answer, CallError};

const ASK_AGAIN: Duration = Duration::from_millis(20);

#[derive(Default)]
pub struct Sluice {
    /// With the moment that its clock counts from.
    governor: Option<(Shared, Instant)>,
    tickets: HashMap<u64, Ticket>,
    held_until: Option<Instant>,
}

impl Sluice {
    /// `since`: what the governor's clock counts from.
    pub fn new(governor: Shared, since: Instant) -> Sluice {
        Sluice { governor: Some((governor, since)), ..Sluice::default() }
    }

    /// Whether a call may be made now; with a governor, under which ticket.
    pub fn admit(&mut self, now: Instant, want: usize) -> Result<Option<Ticket>, Held> {
        let Some((governor, since)) = &self.governor else { return Ok(None) };
        let answer = lock(governor).admit(ns(now, *since), want as u64);
        self.held_until = match answer {
            Ok(_) => None,
            Err(Held::Paced { until_ns } | Held::Alone { until_ns }) => {
                Some(since.checked_add(Duration::from_nanos(until_ns)).unwrap_or(now + ASK_AGAIN))
            }
            Err(Held::Full | Held::NoShare | Held::Open) => Some(now + ASK_AGAIN),
        };
        answer.map(Some)
    }

    /// The call goes, with so many requests.
    pub fn sent(&mut self, ticket: Option<Ticket>, call: u64, count: usize) {
        if let (Some(ticket), Some((governor, _))) = (ticket, &self.governor) {
            let ticket = lock(governor).shrink(ticket, count as u64);
            self.tickets.insert(call, ticket);
        }
    }

    /// Nothing was there to go.
    pub fn unused(&mut self, ticket: Option<Ticket>) {
        if let (Some(ticket), Some((governor, _))) = (ticket, &self.governor) {
            lock(governor).withdraw(ticket);
        }
    }

    pub fn answered(
        &mut self,
        now: Instant,
        call: u64,
        count: usize,
        reply: &Result<Vec<Answer>, CallError>,
    ) {
        let (Some(ticket), Some((governor, since))) = (self.tickets.remove(&call), &self.governor) else {
            return;
        };
        let mut counts = Counts::default();
        match reply {
            Ok(answers) => answers.iter().for_each(|answer| counts.add(of_answer(answer.status), 1)),
            Err(error) => counts.add(of_error(error), count as u64),
        }
        lock(governor).answered(ns(now, *since), ticket, &counts);
    }

    /// When to ask again, while nothing may go.
    pub fn held_until(&self) -> Option<Instant> {
        self.held_until
    }
}

fn ns(now: Instant, since: Instant) -> u64 {
    now.saturating_duration_since(since).as_nanos() as u64
}
