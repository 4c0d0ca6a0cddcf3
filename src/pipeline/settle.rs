//! Stage three: the wallet decides.
//!
//! The transfer is computed from the stored request alone, so every attempt sends the same body under the same
//! id. One call a batch.

use std::sync::Arc;

use super::slot::{Slot, Verdict};
use super::suspects::{NOBODY, Suspects};
use crate::domain::transfer::transfer_kind;
use crate::domain::{Request, TransferKind, TransferStatus};
use crate::ring::chain::StageError;
use crate::ring::{Batch, Stage};
use crate::stored_value::{StoredValue, TransferBatch};

pub struct Settle {
    batch_count_max: u64,
    stored_value: Arc<dyn StoredValue>,
    suspects: Arc<Suspects>,
    working_on: u64,
    /// The batch, for when the wallet panics and names nobody.
    marks: Vec<u64>,
    transfers: TransferBatch,
    results: Vec<TransferStatus>,
}

impl Settle {
    pub fn new(batch_count_max: u64, stored_value: Arc<dyn StoredValue>, suspects: Arc<Suspects>) -> Settle {
        Settle {
            batch_count_max,
            stored_value,
            suspects,
            working_on: NOBODY,
            marks: Vec::new(),
            transfers: TransferBatch::default(),
            results: Vec::new(),
        }
    }
}

impl Stage<Slot> for Settle {
    fn name(&self) -> &'static str {
        "settle"
    }

    fn panicked(&mut self, reason: &str) {
        self.suspects.blame(self.working_on, &self.marks, reason);
    }

    fn appetite(&mut self) -> u64 {
        self.batch_count_max
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, Slot>) -> Result<(), StageError> {
        self.transfers.clear();
        self.marks.clear();
        let slots = batch.slots();
        for slot in &slots {
            self.working_on = slot.mark;
            self.marks.push(slot.mark);
            let kind = match slot.verdict() {
                Some(Verdict::Pay) => {
                    inject_panic(slot);
                    None
                }
                Some(Verdict::Burn(_)) => Some(TransferKind::Burn),
                Some(Verdict::Wait(_)) => continue,
                Some(Verdict::Unreadable) | None => {
                    return Err(StageError(format!("the request at {} was not checked", slot.place)));
                }
            };
            let request = Request::decode(&slot.record).map_err(|error| StageError(error.to_string()))?;
            self.transfers.push_request(&request, kind.unwrap_or(transfer_kind(request.kind)));
        }
        self.working_on = NOBODY;
        if self.transfers.is_empty() {
            return Ok(());
        }
        crate::crash::point("settle::before_transfer");
        self.stored_value
            .transfer(&self.transfers, &mut self.results)
            .map_err(|error| StageError(error.to_string()))?;
        if self.results.len() != self.transfers.len() {
            let (got, sent) = (self.results.len(), self.transfers.len());
            return Err(StageError(format!("the wallet answered {got} results for {sent} transfers")));
        }
        let asked = slots.iter().filter(|slot| !matches!(slot.verdict(), Some(Verdict::Wait(_))));
        for (slot, result) in asked.zip(&self.results) {
            slot.set_result(*result);
        }
        Ok(())
    }
}

/// For tests: panics on paying the request whose id the fail point names.
fn inject_panic(slot: &Slot) {
    fail::fail_point!("settle::item", |id| {
        let poisoned = Request::decode(&slot.record).is_ok_and(|request| Some(request.id) == id.as_deref());
        assert!(!poisoned, "injected");
    });
    let _ = slot;
}
