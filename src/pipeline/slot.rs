//! A slot of the ring: one request on its way, and a lane for each stage's result.
//!
//! The feed writes the plain fields while it owns the slot; every later stage sees it shared and writes its own
//! lane only. Lanes are relaxed atomics: the ring's cursors order them.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use bytes::Bytes;

use crate::domain::{PayoutCode, TransferStatus, WaitReason};
use crate::intake::QueueId;

/// Where a request came from, and so what is to be acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Queue {
        queue: QueueId,
        index: u64,
    },
    /// Handed out by the parking; `entry_place` is its latest outcome.
    Parked {
        entry_place: u64,
        attempts: u32,
        /// That outcome was UNKNOWN.
        is_unknown: bool,
        /// It said that the money was not there.
        lacks_balance: bool,
    },
}

/// What check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Ask the wallet to pay.
    Pay,
    /// It must not be paid: burn the id, then it has failed with this code.
    Burn(PayoutCode),
    /// Not now.
    Wait(WaitReason),
    /// Not readable; only damage on the way here does that.
    Unreadable,
}

/// A request as the feed hands it to a slot.
#[derive(Debug)]
pub struct Load {
    pub record: Bytes,
    pub place: u64,
    pub mark: u64,
    pub may_be_sent: bool,
    pub origin: Origin,
}

pub struct Slot {
    pub record: Bytes,
    pub place: u64,
    /// What it is blamed by.
    pub mark: u64,
    /// Another process may have sent it.
    pub may_be_sent: bool,
    pub origin: Origin,
    verdict: AtomicU8,
    verdict_detail: AtomicU8,
    campaign_number: AtomicU64,
    /// When to try again, for a verdict of waiting.
    due: AtomicU64,
    result: AtomicU8,
}

impl Default for Slot {
    fn default() -> Slot {
        Slot {
            record: Bytes::new(),
            place: 0,
            mark: 0,
            may_be_sent: false,
            origin: Origin::Parked { entry_place: 0, attempts: 0, is_unknown: false, lacks_balance: false },
            verdict: AtomicU8::new(0),
            verdict_detail: AtomicU8::new(0),
            campaign_number: AtomicU64::new(0),
            due: AtomicU64::new(0),
            result: AtomicU8::new(0),
        }
    }
}

const RESULT_SUCCEEDED: u8 = 254;
const RESULT_UNKNOWN: u8 = 255;

impl Slot {
    /// A new request takes the slot.
    pub fn fill(&mut self, load: Load) {
        self.record = load.record;
        self.place = load.place;
        self.mark = load.mark;
        self.may_be_sent = load.may_be_sent;
        self.origin = load.origin;
        *self.verdict.get_mut() = 0;
        *self.result.get_mut() = RESULT_UNKNOWN;
    }

    pub fn set_verdict(&self, verdict: Verdict, campaign_number: u32, due: u64) {
        let (kind, detail) = match verdict {
            Verdict::Pay => (1, 0),
            Verdict::Burn(code) => (2, code as u8),
            Verdict::Wait(reason) => (3, reason as u8),
            Verdict::Unreadable => (4, 0),
        };
        self.verdict.store(kind, Ordering::Relaxed);
        self.verdict_detail.store(detail, Ordering::Relaxed);
        self.campaign_number.store(u64::from(campaign_number), Ordering::Relaxed);
        self.due.store(due, Ordering::Relaxed);
    }

    /// `None` where no stage has decided.
    pub fn verdict(&self) -> Option<Verdict> {
        let detail = self.verdict_detail.load(Ordering::Relaxed);
        match self.verdict.load(Ordering::Relaxed) {
            1 => Some(Verdict::Pay),
            2 => PayoutCode::from_u8(detail).map(Verdict::Burn),
            3 => WaitReason::from_u8(detail).map(Verdict::Wait),
            4 => Some(Verdict::Unreadable),
            _ => None,
        }
    }

    pub fn campaign_number(&self) -> u32 {
        self.campaign_number.load(Ordering::Relaxed) as u32
    }

    pub fn due(&self) -> u64 {
        self.due.load(Ordering::Relaxed)
    }

    pub fn set_result(&self, result: TransferStatus) {
        let byte = match result {
            TransferStatus::Succeeded => RESULT_SUCCEEDED,
            TransferStatus::Failed(code) => code as u8,
            TransferStatus::Unknown => RESULT_UNKNOWN,
        };
        self.result.store(byte, Ordering::Relaxed);
    }

    pub fn result(&self) -> TransferStatus {
        match self.result.load(Ordering::Relaxed) {
            RESULT_SUCCEEDED => TransferStatus::Succeeded,
            byte => PayoutCode::from_u8(byte).map_or(TransferStatus::Unknown, TransferStatus::Failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_come_back() {
        let slot = Slot::default();
        assert_eq!(slot.verdict(), None);
        for verdict in [
            Verdict::Pay,
            Verdict::Burn(PayoutCode::Expired),
            Verdict::Wait(WaitReason::LowBalance),
            Verdict::Unreadable,
        ] {
            slot.set_verdict(verdict, 7, 9);
            assert_eq!((slot.verdict(), slot.campaign_number(), slot.due()), (Some(verdict), 7, 9));
        }
        let failed = PayoutCode::ALL.map(TransferStatus::Failed);
        for result in [TransferStatus::Succeeded, TransferStatus::Unknown].into_iter().chain(failed) {
            slot.set_result(result);
            assert_eq!(slot.result(), result);
        }
    }
}
