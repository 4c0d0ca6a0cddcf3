//! The stage between check and acknowledgement: takes requests from the ring, has the wallet decide them, makes
//! what it answers durable, and says which slots are done.
//!
//! [`Calls`] decides what is sent when; this file turns requests into transfers and answers into outcomes. The
//! rules are `record`'s: a final outcome rests on the wallet's evidence. Outcomes are appended as answers come,
//! so that one slow call holds back the acknowledgement of what is behind it, and nobody's outcome.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;

use super::calls::{Call, CallOptions, Calls, Done, Ended, Errand};
use super::counts::RemoteCounts;
use super::gate::GateState;
use super::sender::{Outgoing, Sender};
use super::sent_before::SentBefore;
use super::sluice::{Breaker, Sluice};
use super::window::Window;
use crate::domain::transfer::Names;
use crate::domain::{Outcome, PayoutCode, Request, Status, TransferStatus, UnixMs, WaitReason};
use crate::outcome::OutcomeLog;
use crate::pipeline::commit::Teller;
use crate::pipeline::feed::FeedCounts;
use crate::pipeline::record::outcome_of;
use crate::pipeline::retry::{self, Retry};
use crate::pipeline::slot::{Origin, Slot, Verdict};
use crate::pipeline::suspects::{NOBODY, Suspects};
use crate::ring::chain::StageError;
use crate::ring::{Batch, Stage};
use crate::stored_value::TransferBatch;

/// Outcomes of one frame, at most: it must fit into the smallest segment.
const OUTCOMES_MAX: usize = 8_192;

/// A request under way.
pub struct Item {
    sequence: u64,
    record: Bytes,
    place: u64,
    mark: u64,
    follows_place: u64,
    /// Attempts of earlier stays in the ring.
    attempts: u32,
    /// An earlier process, or an earlier stay, may have sent it.
    may_be_sent: bool,
    /// It was UNKNOWN when it came.
    is_unknown: bool,
    verdict: Verdict,
    due: UnixMs,
    campaign_number: u32,
}

/// A request that needs an outcome.
struct Finished {
    item: Item,
    sends: u32,
    attempts: u32,
    result: TransferStatus,
    wallet_ref: String,
    no_answer: bool,
}

pub struct DispatchParts {
    pub calls: CallOptions,
    pub sender: Sender,
    pub window: Arc<Window>,
    pub teller: Teller,
    pub outcomes: Arc<dyn OutcomeLog>,
    pub suspects: Arc<Suspects>,
    pub counts: Arc<FeedCounts>,
    pub remote: Arc<RemoteCounts>,
    pub sent_before: SentBefore,
    pub now_ms: Arc<dyn Fn() -> UnixMs + Send + Sync>,
    pub retry: Retry,
    /// Whether the wallet can take an id out of use.
    pub can_burn: bool,
    pub breaker: Option<Breaker>,
}

pub struct Dispatch {
    parts: DispatchParts,
    calls: Calls<Item>,
    sequence_next: u64,
    done: Vec<Done<Item>>,
    finished: Vec<Finished>,
    /// The sequences of each run of outcomes that was appended and is not durable yet.
    appended: VecDeque<Vec<u64>>,
    names: Names,
    bytes: Vec<u8>,
    requests: Vec<Bytes>,
    working_on: u64,
}

impl Dispatch {
    pub fn new(parts: DispatchParts) -> Dispatch {
        let seed = (parts.now_ms)();
        let sluice = parts.breaker.clone().map_or_else(Sluice::default, Sluice::new);
        Dispatch {
            calls: Calls::new(parts.calls.clone(), seed).with_sluice(sluice),
            parts,
            sequence_next: 0,
            done: Vec::new(),
            finished: Vec::new(),
            appended: VecDeque::new(),
            names: Names::default(),
            bytes: Vec::new(),
            requests: Vec::new(),
            working_on: NOBODY,
        }
    }

    fn take_slot(&mut self, slot: &Slot, now: Instant) -> Result<(), StageError> {
        let sequence = self.sequence_next;
        self.sequence_next += 1;
        self.working_on = slot.mark;
        let verdict = slot.verdict().ok_or_else(|| StageError("a slot passed unchecked".to_owned()))?;
        let (follows_place, attempts, is_unknown) = match slot.origin {
            Origin::Queue { .. } => (slot.place, 0, false),
            Origin::Parked { entry_place, attempts, is_unknown, .. } => (entry_place, attempts, is_unknown),
        };
        let may_be_sent = self.parts.sent_before.may_be_sent(slot.origin) || slot.may_be_sent;
        if self.parts.sent_before.is_settled(slot.place) {
            self.parts.window.set_done(sequence);
            return Ok(());
        }
        let item = Item {
            sequence,
            record: slot.record.clone(),
            place: slot.place,
            mark: slot.mark,
            follows_place,
            attempts,
            may_be_sent,
            is_unknown,
            verdict,
            due: slot.due(),
            campaign_number: slot.campaign_number(),
        };
        let errand = match verdict {
            Verdict::Pay => self.errand_of(&item)?,
            Verdict::Burn(_) if self.parts.can_burn => Errand::Burn,
            // It may have reached the wallet: only the wallet can say what became of it.
            Verdict::Burn(_) if may_be_sent => Errand::Transfer,
            Verdict::Burn(_) => {
                self.finish_here(item, TransferStatus::Failed(PayoutCode::Burned));
                return Ok(());
            }
            Verdict::Wait(_) => {
                self.finish_here(item, TransferStatus::Unknown);
                return Ok(());
            }
            Verdict::Unreadable => {
                return Err(StageError(format!("the request at {} was not checked", slot.place)));
            }
        };
        let party = self.party_of(&item)?;
        self.calls.push(sequence, party, errand, item, now, &mut self.done);
        Ok(())
    }

    /// A cancel burns, and is a request like another.
    fn errand_of(&mut self, item: &Item) -> Result<Errand, StageError> {
        let request = decode(item)?;
        let burns = crate::domain::transfer::transfer_kind(request.kind) == crate::domain::TransferKind::Burn;
        Ok(if burns { Errand::Burn } else { Errand::Transfer })
    }

    /// Whoever may hold up a call: the person that is paid or pays.
    fn party_of(&self, item: &Item) -> Result<u64, StageError> {
        let mut hasher = DefaultHasher::new();
        let request = decode(item)?;
        // Requests without a person have nothing in common that could hold them up.
        let party = if request.party.is_empty() { request.key_hash } else { 0 };
        (request.party, party).hash(&mut hasher);
        Ok(hasher.finish())
    }

    fn finish_here(&mut self, item: Item, result: TransferStatus) {
        let wallet_ref = String::new();
        self.finished.push(Finished { item, sends: 0, attempts: 0, result, wallet_ref, no_answer: false });
    }

    /// Everything that can move, moves: replies, calls, outcomes, what became durable.
    fn drive(&mut self) -> Result<bool, StageError> {
        let now = Instant::now();
        let mut moved = false;
        while let Some((id, reply)) = self.parts.sender.take() {
            self.parts.remote.note_reply(&reply, (self.parts.now_ms)());
            self.calls.answered(id, reply, now, &mut self.done);
            moved = true;
        }
        self.calls.tick(now);
        while let Some(call) = self.calls.next(now, &mut self.done) {
            self.send(&call)?;
            moved = true;
        }
        self.working_on = NOBODY;
        self.note_ahead();
        self.parts.remote.note_state(self.calls.flying(), self.calls.gate().state());
        moved |= self.record()?;
        moved |= self.tell()?;
        Ok(moved)
    }

    /// Lets the feed know how far it is ahead.
    fn note_ahead(&self) {
        let sent = self.sequence_next - self.calls.unsent() as u64;
        self.parts.counts.sent.store(sent, Ordering::Release);
        self.parts.counts.ahead_max.store(self.calls.ahead_max(), Ordering::Release);
    }

    fn send(&mut self, call: &Call) -> Result<(), StageError> {
        let (mut batch, mut ids) = (TransferBatch::default(), Vec::new());
        for sequence in &call.sequences {
            let item = self
                .calls
                .payload(*sequence)
                .ok_or_else(|| StageError(format!("the request {sequence} of a call is not under way")))?;
            self.working_on = item.mark;
            let request = decode(item)?;
            self.names.fill(&request);
            match call.errand {
                Errand::Transfer => batch.push(&self.names.transfer(&request)),
                Errand::Burn => ids.push(String::from_utf8_lossy(self.names.id()).into_owned()),
            }
        }
        self.working_on = NOBODY;
        crate::crash::point("settle::before_transfer");
        self.parts.remote.note_call(call.sequences.len());
        let outgoing = match call.errand {
            Errand::Transfer => Outgoing::Transfers(batch),
            Errand::Burn => Outgoing::Burn(ids),
        };
        // A wallet that was away may come back as another one.
        let asks_who = *self.calls.gate().state() != GateState::Open;
        self.parts.sender.send(call.id, outgoing, asks_who);
        Ok(())
    }

    /// What was answered becomes outcomes, and goes into the log.
    fn record(&mut self) -> Result<bool, StageError> {
        for done in self.done.drain(..) {
            let Done { payload: item, sends, attempts, ended } = done;
            let (result, wallet_ref, no_answer) = match ended {
                Ended::Answered(answer) => (answer.status, answer.wallet_ref, false),
                Ended::NoAnswer => (TransferStatus::Unknown, String::new(), true),
            };
            self.finished.push(Finished { item, sends, attempts, result, wallet_ref, no_answer });
        }
        if self.finished.is_empty() {
            return Ok(false);
        }
        let now = (self.parts.now_ms)();
        let finished = std::mem::take(&mut self.finished);
        for run in finished.chunks(OUTCOMES_MAX) {
            self.bytes.clear();
            for finished in run {
                self.encode(finished, now)?;
            }
            crate::crash::point("record::before_append");
            self.requests.clear();
            if self.parts.outcomes.wants_requests() {
                self.requests.extend(run.iter().map(|finished| finished.item.record.clone()));
            }
            let appended = self.parts.outcomes.append(&self.bytes, std::mem::take(&mut self.requests));
            appended.map_err(|error| StageError(error.to_string()))?;
            crate::crash::point("record::after_append");
            self.appended.push_back(run.iter().map(|finished| finished.item.sequence).collect());
        }
        Ok(true)
    }

    fn encode(&mut self, finished: &Finished, now: UnixMs) -> Result<(), StageError> {
        let item = &finished.item;
        let request = decode(item)?;
        let is_sent = item.may_be_sent || item.is_unknown || finished.sends > 0;
        let mut attempts = item.attempts + finished.attempts;
        let retry_at = if finished.no_answer && finished.sends == 0 {
            self.parts.retry.untried(now, request.accepted_at, request.not_before, item.place)
        } else {
            self.parts.retry.at(now, item.attempts, item.place)
        };
        let (mut status, code, reason, next_attempt_at) = if finished.no_answer {
            (Status::Queued, None, Some(WaitReason::NoAnswer), retry_at)
        } else {
            outcome_of(request.kind, item.verdict, item.due, finished.result, retry_at)
        };
        let was_asked = !finished.no_answer && finished.sends > 0;
        if status == Status::Queued && is_sent && !was_asked {
            // Never sent, it would be known not to be paid; as it is, only the wallet knows.
            let is_open = finished.no_answer || item.is_unknown;
            status = if is_open { Status::Unknown } else { status };
        }
        if is_sent && !status.is_final() {
            // An attempt at least: so the next look knows, in this process or another.
            attempts = attempts.max(1);
        }
        let outcome = Outcome {
            status,
            code,
            reason,
            kind: request.kind,
            lane: Some(request.lane),
            request_place: item.place,
            follows_place: item.follows_place,
            key_hash: request.key_hash,
            at: now,
            next_attempt_at: retry::within(request.not_after, next_attempt_at, now),
            attempts,
            campaign_number: item.campaign_number,
            amount: request.amount.minor_units(),
            wallet_ref: &finished.wallet_ref,
        };
        outcome.encode(&mut self.bytes);
        Ok(())
    }

    /// Outcomes that became durable: the desk hears of them, and their slots are done.
    fn tell(&mut self) -> Result<bool, StageError> {
        let mut moved = self.parts.teller.offer_held();
        while !self.parts.teller.is_holding()
            && let Some(run) = self.parts.outcomes.take_durable()
        {
            let sequences = self.appended.pop_front().unwrap_or_default();
            if sequences.len() != run.count as usize {
                let (count, expected) = (run.count, sequences.len());
                return Err(StageError(format!(
                    "{count} outcomes are durable where {expected} were appended"
                )));
            }
            self.parts.teller.tell(&run)?;
            self.parts.teller.offer_held();
            sequences.iter().for_each(|sequence| self.parts.window.set_done(*sequence));
            moved = true;
        }
        Ok(moved)
    }
}

fn decode(item: &Item) -> Result<Request<'_>, StageError> {
    Request::decode(&item.record).map_err(|error| StageError(error.to_string()))
}

impl Stage<Slot> for Dispatch {
    fn name(&self) -> &'static str {
        "dispatch"
    }

    fn panicked(&mut self, reason: &str) {
        self.parts.suspects.blame(self.working_on, &[], reason);
    }

    fn appetite(&mut self) -> u64 {
        self.calls.room() as u64
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, Slot>) -> Result<(), StageError> {
        let now = Instant::now();
        while let Some(slot) = batch.next_slot() {
            self.take_slot(slot, now)?;
        }
        self.working_on = NOBODY;
        self.drive().map(|_| ())
    }

    fn idle(&mut self) -> Result<bool, StageError> {
        self.drive()
    }

    fn has_work(&self) -> bool {
        self.parts.sender.has_replies() || (!self.appended.is_empty() && self.parts.outcomes.has_durable())
    }

    fn deadline(&self) -> Option<Instant> {
        let calls = self.calls.next_at(Instant::now());
        calls.into_iter().chain(self.parts.teller.deadline()).min()
    }
}
