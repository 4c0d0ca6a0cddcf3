//! Stage five: once the outcomes are durable, acknowledge the queues and tell the intake's side.
//!
//! [`Commit`] is the stage where the wallet answers in order (in this process), [`Teller`] what it shares with
//! `remote`, where it does not. It takes only slots whose outcome frames are durable; until then they stay in the ring. The ack is written
//! behind the outcomes and waits for nobody: an ack that is lost costs a redelivery, which changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Parts;
use super::feed::FeedCounts;
use super::slot::{Origin, Slot};
use crate::domain::bytes::entries;
use crate::domain::{Kind, Outcome, Status};
use crate::intake::desk::memory::SettledRow;
use crate::intake::{Informed, Intake, QueueId, Settled};
use crate::outcome::{Appended, OutcomeLog};
use crate::ring::chain::StageError;
use crate::ring::{Batch, Stage};

/// Final outcomes by state, for metrics.
#[derive(Default)]
pub struct SettleCounts {
    pub by_status: [AtomicU64; Status::ALL.len()],
}

/// Tells the intake's side, and the metrics, what became durable.
pub struct Teller {
    informed: Arc<dyn Informed>,
    settled: Arc<SettleCounts>,
    /// Settled rows there was no room for yet.
    held: Option<Settled>,
}

impl Teller {
    pub fn new(informed: Arc<dyn Informed>, settled: Arc<SettleCounts>) -> Teller {
        Teller { informed, settled, held: None }
    }

    /// Offers what there was no room for; true if it took it.
    pub fn offer_held(&mut self) -> bool {
        match self.held.take().map(|settled| self.informed.settled(settled)) {
            Some(Err(settled)) => {
                self.held = Some(settled);
                false
            }
            Some(Ok(())) => true,
            None => false,
        }
    }

    pub fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// Tells of a run of outcomes. Only when nothing is held.
    pub fn tell(&mut self, run: &Appended) -> Result<(), StageError> {
        assert!(self.held.is_none(), "one run at a time");
        let rows: Vec<SettledRow> = entries(&run.bytes)
            .flatten()
            .filter_map(|(at, _, bytes)| {
                Some(SettledRow::new(&Outcome::decode(bytes).ok()?, run.place + at as u64))
            })
            .collect();
        if rows.len() != run.count as usize {
            return Err(StageError("an outcome we encoded does not decode".to_owned()));
        }
        // A cancel is no payment: what it came to is counted where it cancels.
        for row in rows.iter().filter(|row| row.kind != Kind::Cancel) {
            self.settled.by_status[row.status as usize - 1].fetch_add(1, Ordering::Relaxed);
        }
        self.held = Some(Settled { rows, end: run.end });
        Ok(())
    }

    /// Nobody rings when there is room again; look every millisecond while something is held.
    pub fn deadline(&self) -> Option<Instant> {
        self.held.as_ref().map(|_| Instant::now() + Duration::from_millis(1))
    }
}

/// How far each queue is done, gathered slot by slot.
#[derive(Default)]
pub struct Acks {
    below: Vec<(QueueId, u64)>,
}

impl Acks {
    pub fn add(&mut self, origin: Origin) {
        if let Origin::Queue { queue, index } = origin {
            match self.below.iter_mut().find(|(acked, _)| *acked == queue) {
                Some((_, below)) => *below = index + 1,
                None => self.below.push((queue, index + 1)),
            }
        }
    }

    /// Acknowledges what was gathered.
    pub fn give(&mut self, intake: &dyn Intake) -> Result<(), StageError> {
        crate::crash::point("commit::before_ack");
        for (queue, below_index) in self.below.drain(..) {
            intake.ack(queue, below_index).map_err(|error| StageError(error.to_string()))?;
        }
        crate::crash::point("commit::after_ack");
        Ok(())
    }
}

pub struct Commit {
    intake: Arc<dyn Intake>,
    outcomes: Arc<dyn OutcomeLog>,
    counts: Arc<FeedCounts>,
    teller: Teller,
    /// The outcome frame at whose slots we are, once it is durable.
    next: Option<Appended>,
    acks: Acks,
}

impl Commit {
    pub fn new(parts: &Parts, counts: Arc<FeedCounts>, teller: Teller) -> Commit {
        Commit {
            intake: parts.intake.clone(),
            outcomes: parts.outcomes.clone(),
            counts,
            teller,
            next: None,
            acks: Acks::default(),
        }
    }
}

impl Stage<Slot> for Commit {
    fn name(&self) -> &'static str {
        "commit"
    }

    fn appetite(&mut self) -> u64 {
        self.teller.offer_held();
        if self.teller.is_holding() {
            return 0;
        }
        if self.next.is_none() {
            self.next = self.outcomes.take_durable();
        }
        self.next.as_ref().map_or(0, |next| next.count as u64)
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, Slot>) -> Result<(), StageError> {
        let next = self.next.take().ok_or_else(|| StageError("nothing is durable".to_owned()))?;
        let mut count = 0u64;
        while let Some(slot) = batch.next_slot() {
            count += 1;
            self.acks.add(slot.origin);
        }
        if count != next.count as u64 {
            return Err(StageError(format!("{} outcomes are durable for {count} slots", next.count)));
        }
        self.acks.give(&*self.intake)?;
        self.teller.tell(&next)?;
        self.teller.offer_held();
        self.counts.committed.fetch_add(count, Ordering::AcqRel);
        Ok(())
    }

    fn idle(&mut self) -> Result<bool, StageError> {
        Ok(self.teller.offer_held())
    }

    fn deadline(&self) -> Option<Instant> {
        self.teller.deadline()
    }
}
