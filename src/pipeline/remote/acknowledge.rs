//! The last stage where the wallet is elsewhere: acknowledges what is done without a gap.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::window::Window;
use crate::intake::Intake;
use crate::pipeline::commit::Acks;
use crate::pipeline::feed::FeedCounts;
use crate::pipeline::slot::Slot;
use crate::ring::chain::StageError;
use crate::ring::{Batch, Stage};

pub struct Acknowledge {
    intake: Arc<dyn Intake>,
    counts: Arc<FeedCounts>,
    window: Arc<Window>,
    batch_count_max: u64,
    sequence_next: u64,
    acks: Acks,
}

impl Acknowledge {
    pub fn new(
        intake: Arc<dyn Intake>,
        counts: Arc<FeedCounts>,
        window: Arc<Window>,
        batch_count_max: u64,
    ) -> Acknowledge {
        Acknowledge { intake, counts, window, batch_count_max, sequence_next: 0, acks: Acks::default() }
    }
}

impl Stage<Slot> for Acknowledge {
    fn name(&self) -> &'static str {
        "acknowledge"
    }

    fn appetite(&mut self) -> u64 {
        self.window.done_from(self.sequence_next, self.batch_count_max)
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, Slot>) -> Result<(), StageError> {
        let mut count = 0;
        while let Some(slot) = batch.next_slot() {
            count += 1;
            self.acks.add(slot.origin);
        }
        self.acks.give(&*self.intake)?;
        self.sequence_next += count;
        self.counts.committed.fetch_add(count, Ordering::AcqRel);
        Ok(())
    }
}
