//! Stage one: can the request be read? Its head, that is; its text is read by the stage that looks at it first.

use std::sync::Arc;

use super::slot::{Slot, Verdict};
use super::suspects::{NOBODY, Suspects};
use crate::domain::record::Head;
use crate::ring::chain::StageError;
use crate::ring::{Batch, Stage};

pub struct Decode {
    batch_count_max: u64,
    suspects: Arc<Suspects>,
    working_on: u64,
}

impl Decode {
    pub fn new(batch_count_max: u64, suspects: Arc<Suspects>) -> Decode {
        Decode { batch_count_max, suspects, working_on: NOBODY }
    }
}

impl Stage<Slot> for Decode {
    fn name(&self) -> &'static str {
        "decode"
    }

    fn panicked(&mut self, reason: &str) {
        self.suspects.blame(self.working_on, &[], reason);
    }

    fn appetite(&mut self) -> u64 {
        self.batch_count_max
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, Slot>) -> Result<(), StageError> {
        while let Some(slot) = batch.next_slot() {
            self.working_on = slot.mark;
            if let Err(error) = Head::decode(&slot.record) {
                // Frames are verified when they are read: this is damage in memory or a bug, and never skipped.
                slot.set_verdict(Verdict::Unreadable, 0, 0);
                return Err(StageError(format!("the request at {} is not readable: {error}", slot.place)));
            }
        }
        self.working_on = NOBODY;
        Ok(())
    }
}
