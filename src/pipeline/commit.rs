//! Stage five: once the outcomes are durable, acknowledge the queues and tell the desk.
//!
//! It takes only slots whose outcome frames are durable; until then they stay in the ring. The ack is written
//! behind the outcomes and waits for nobody: an ack that is lost costs a redelivery, which changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Parts;
use super::feed::FeedCounts;
use super::slot::{Origin, Slot};
use crate::domain::bytes::entries;
use crate::domain::{Kind, Outcome, Status};
use crate::intake::desk::thread::Settled;
use crate::intake::desk::{Desk, memory::SettledRow};
use crate::intake::{Intake, QueueId};
use crate::outcome::{Appended, OutcomeLog};
use crate::ring::chain::StageError;
use crate::ring::{Batch, Stage};

/// Final outcomes by state, for metrics.
#[derive(Default)]
pub struct SettleCounts {
    pub by_status: [AtomicU64; Status::ALL.len()],
}

pub struct Commit {
    desk: Desk,
    outcomes: Arc<dyn OutcomeLog>,
    counts: Arc<FeedCounts>,
    settled: Arc<SettleCounts>,
    /// The outcome frame at whose slots we are, once it is durable.
    next: Option<Appended>,
    /// Settled rows the desk had no room for yet.
    held: Option<Settled>,
    acks: Vec<(QueueId, u64)>,
}

impl Commit {
    pub fn new(parts: &Parts, counts: Arc<FeedCounts>, settled: Arc<SettleCounts>) -> Commit {
        Commit {
            desk: parts.desk.clone(),
            outcomes: parts.outcomes.clone(),
            counts,
            settled,
            next: None,
            held: None,
            acks: Vec::new(),
        }
    }

    fn offer_held(&mut self) -> bool {
        match self.held.take().map(|settled| self.desk.settled(settled)) {
            Some(Err(settled)) => {
                self.held = Some(settled);
                false
            }
            Some(Ok(())) => true,
            None => false,
        }
    }
}

impl Stage<Slot> for Commit {
    fn name(&self) -> &'static str {
        "commit"
    }

    fn appetite(&mut self) -> u64 {
        self.offer_held();
        if self.held.is_some() {
            return 0;
        }
        if self.next.is_none() {
            self.next = self.outcomes.take_durable();
        }
        self.next.as_ref().map_or(0, |next| next.count as u64)
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, Slot>) -> Result<(), StageError> {
        let next = self.next.take().ok_or_else(|| StageError("nothing is durable".to_owned()))?;
        self.acks.clear();
        let mut count = 0u64;
        while let Some(slot) = batch.next_slot() {
            count += 1;
            if let Origin::Queue { queue, index } = slot.origin {
                match self.acks.iter_mut().find(|(acked, _)| *acked == queue) {
                    Some((_, below)) => *below = index + 1,
                    None => self.acks.push((queue, index + 1)),
                }
            }
        }
        if count != next.count as u64 {
            return Err(StageError(format!("{} outcomes are durable for {count} slots", next.count)));
        }
        let rows: Vec<SettledRow> = entries(&next.bytes)
            .flatten()
            .filter_map(|(at, _, bytes)| {
                Some(SettledRow::new(&Outcome::decode(bytes).ok()?, next.place + at as u64))
            })
            .collect();
        if rows.len() as u64 != count {
            return Err(StageError("an outcome we encoded does not decode".to_owned()));
        }
        // A cancel is no payment: what it came to is counted where it cancels.
        for row in rows.iter().filter(|row| row.kind != Kind::Cancel) {
            self.settled.by_status[row.status as usize - 1].fetch_add(1, Ordering::Relaxed);
        }
        crate::crash::point("commit::before_ack");
        for (queue, below_index) in &self.acks {
            self.desk.intake.ack(*queue, *below_index).map_err(|error| StageError(error.to_string()))?;
        }
        crate::crash::point("commit::after_ack");
        self.held = Some(Settled { rows, end: next.end });
        self.offer_held();
        self.counts.committed.fetch_add(count, Ordering::AcqRel);
        Ok(())
    }

    fn idle(&mut self) -> Result<bool, StageError> {
        Ok(self.offer_held())
    }

    fn deadline(&self) -> Option<std::time::Instant> {
        // The desk rings nobody when it has room again; look every millisecond while something is held.
        self.held.as_ref().map(|_| std::time::Instant::now() + std::time::Duration::from_millis(1))
    }
}
