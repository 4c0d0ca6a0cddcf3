//! What settled requests mean for others: a burned id cancels the request that holds it, a reversal lowers what was
//! paid, a failure frees its payee's limit.
//!
//! The outcomes that follow are written by the desk itself. They are found again after a crash, because the rows
//! that call for them are replayed, and written once, because `domain::transition` says whether they are news.

use super::decide::Clerk;
use super::memory::SettledRow;
use crate::crash;
use crate::domain::{Kind, Outcome, Request, Status, UnixMs};
use crate::intake::{Intake, IntakeError, QueueId};
use crate::outcome::entry::FRAME_OUTCOMES;

impl Clerk {
    /// Takes in durable outcomes.
    pub fn settled(&mut self, rows: &[SettledRow], now: UnixMs) -> Result<(), IntakeError> {
        let mut finished = 0;
        for row in rows {
            finished += u64::from(self.memory.settled(row) && row.status.is_final());
        }
        self.note_finished(now, finished);
        let acted = self.act_on_deferred(now);
        if let Err(error) = &acted {
            // What could not be carried out must not be sealed by a snapshot: the next start finds it again.
            self.stopped = Some(error.to_string());
        }
        acted
    }

    /// Carries out what settled requests mean for others: a burned id cancels the request that holds it, a
    /// reversal lowers what was paid, a failure frees its payee's limit.
    pub fn act_on_deferred(&mut self, now: UnixMs) -> Result<(), IntakeError> {
        // Carrying one out may call for another.
        while let Some(row) = self.memory.deferred.pop_front() {
            if self.entries.is_gone(row.request_place) {
                continue;
            }
            let mut buffer = Vec::new();
            let (_, bytes) = self.entries.read(row.request_place, &mut buffer)?;
            let request = Request::decode(bytes).map_err(|error| IntakeError::Damaged {
                place: row.request_place,
                reason: error.to_string(),
            })?;
            match (row.kind, row.status) {
                (Kind::Cancel, Status::Succeeded) => {
                    self.follow(&request, now, Status::Canceled, row.request_place)?;
                }
                (Kind::Reversal, Status::Succeeded) => {
                    let of_disbursement = request.merchant.is_empty();
                    self.memory.campaigns.reversed(row.campaign_number, row.amount, of_disbursement);
                    self.reverse(&request, now)?;
                }
                _ => self.memory.campaigns.free_payee(row.campaign_number, request.party, row.amount),
            }
        }
        Ok(())
    }

    fn reverse(&mut self, reversal: &Request<'_>, now: UnixMs) -> Result<(), IntakeError> {
        let key_hash = crate::digest::key_hash_of(reversal.client, reversal.original);
        let Some(held) = self.find(key_hash, (reversal.client, reversal.original))? else { return Ok(()) };
        if held.request_place == u64::MAX {
            return Ok(());
        }
        let total = self.memory.reversed.entry(held.request_place).or_insert(0);
        *total += reversal.amount.minor_units();
        if *total < held.request().amount.minor_units() {
            return Ok(());
        }
        self.follow(reversal, now, Status::Reversed, u64::MAX)
    }

    /// Writes the outcome `status` for the request named in `by.original`, unless it is there or may not follow.
    fn follow(
        &mut self,
        by: &Request<'_>,
        now: UnixMs,
        status: Status,
        own_place: u64,
    ) -> Result<(), IntakeError> {
        // What is decided and unwritten has no place yet.
        self.write()?;
        let key_hash = crate::digest::key_hash_of(by.client, by.original);
        let Some(held) = self.find(key_hash, (by.client, by.original))? else { return Ok(()) };
        let before = held.outcome().map_or(Status::Accepted, |outcome| outcome.status);
        if held.request_place == own_place || crate::domain::transition(before, status).is_none() {
            return Ok(());
        }
        let request = held.request();
        let fair = self.intake.fair_queue_count();
        let queue = QueueId::of(request.lane, request.campaign, fair);
        let in_ring = self.intake.is_dispatched(queue, held.request_place)
            && !self.memory.parking().is_waiting(held.request_place);
        if status == Status::Canceled && in_ring {
            // Its own outcome, on its way, says what it came to.
            return Ok(());
        }
        let number = self.memory.campaigns.number(request.client, request.campaign).unwrap_or(u32::MAX);
        let outcome = Outcome {
            status,
            code: None,
            reason: None,
            kind: request.kind,
            lane: Some(request.lane),
            request_place: held.request_place,
            follows_place: held.entry_place,
            key_hash,
            at: now,
            next_attempt_at: 0,
            attempts: held.outcome().map_or(0, |outcome| outcome.attempts),
            campaign_number: number,
            amount: request.amount.minor_units(),
            wallet_ref: "",
        };
        let mut bytes = Vec::new();
        outcome.encode(&mut bytes);
        crash::point("desk::before_follow");
        let appended = self.journal.append(FRAME_OUTCOMES, &[&bytes])?;
        crash::point("desk::after_follow");
        self.written_end = appended.end;
        self.followed[status as usize - 1] += 1;
        self.memory.settled(&SettledRow::new(&outcome, appended.payload_at));
        Ok(())
    }
}
