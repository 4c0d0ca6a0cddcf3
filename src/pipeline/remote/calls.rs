//! Which requests go into which call to the wallet, and what becomes of them: the heart of remote settlement, pure,
//! with time passed in.
//!
//! What holds: a request that was sent is either answered, or under way, or waiting to be sent again, under the same
//! id with the same body; nothing is guessed. Requests sent before travel apart from those sent for the first time.
//! A batch that is held up while others are answered is sent again in parts before its deadline, so that the one
//! request (or payee) that holds it up is found and the rest go on; payees found so travel alone, and what the
//! wallet does not answer even alone is handed back unanswered, to wait elsewhere than in the ring. Failures of the
//! wallet as a whole are the [`Gate`]'s: they hand nothing back.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::gate::{Gate, GateState, backoff};
use super::pulse::Pulse;
use super::sluice::Sluice;
use crate::domain::{PayoutCode, TransferStatus};
use crate::stored_value::remote::{Answer, CallError};

/// Parts into which a batch is split that is held up or was not answered in time.
const PARTS: usize = 32;
/// Calls of payees that hold up their batches, under way at once; their other requests wait elsewhere.
const SOLO_CALLS_MAX: usize = 2;
/// How long a payee is known to hold up its batches after it did so last, unless it is found to be well.
const SLOW_FOR: Duration = Duration::from_secs(60);
/// Calls of a payee alone, one after the other, that were not late: it is well. Any call is late once in a while, and a payee
/// of many requests would not come out of it again.
const PROMPT_ENOUGH: u32 = 3;
/// A first call waits this long for company while others are under way.
const LINGER: Duration = Duration::from_millis(4);
/// Failures of a request sent alone, with others succeeding, after which it is handed back.
const ALONE_FAILURES_MAX: u32 = 3;
/// Failures of a batch after which it is sent in parts.
const WHOLE_FAILURES_MAX: u32 = 3;
/// Calls at a lowered bound that must be taken before it is doubled.
const FITTED_MAX: u32 = 64;
/// A refusal of one call, this soon after another call was answered, says nothing of the wallet as a whole.
const WELL_FOR: Duration = Duration::from_secs(2);
/// Payees remembered as slow past which those whose time is over are forgotten.
const SLOW_MAX: usize = 4_096;
/// Entries sent early a second time, at most: a tenth of those answered.
const EARLY_SHARE: f64 = 0.1;
const EARLY_CREDIT_MAX: f64 = 4_000.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    Transfer,
    Burn,
}

#[derive(Clone, Debug)]
pub struct CallOptions {
    pub batch_count_max: usize,
    pub calls_max: usize,
    pub deadline: Duration,
    /// Requests under way and waiting, at most: the slots of the ring.
    pub slot_count: usize,
}

/// A call to be made now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub id: u64,
    pub errand: Errand,
    /// Sent before, all of them, or none.
    pub is_repeat: bool,
    pub sequences: Vec<u64>,
}

/// How a request left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Answered(Answer),
    /// The wallet answers others and not this one. If it was sent, its state is unknown.
    NoAnswer,
}

/// A request that leaves.
#[derive(Debug)]
pub struct Done<T> {
    pub payload: T,
    /// How often it was sent.
    pub sends: u32,
    /// Of these, those that count: a call that our credentials did not open does not.
    pub attempts: u32,
    pub ended: Ended,
}

struct Entry<T> {
    sequence: u64,
    party: u64,
    sends: u32,
    attempts: u32,
    /// Times it failed in a call of its own while others succeeded.
    alone_failures: u32,
    /// In how many calls under way and groups waiting it is.
    places: u32,
    since: Instant,
    /// When it was sent last, and the time before.
    sent_at: [Option<Instant>; 2],
    payload: T,
}

struct Flight {
    errand: Errand,
    sequences: Vec<u64>,
    sent_at: Instant,
    is_late: bool,
    is_solo: bool,
}

struct Group {
    errand: Errand,
    sequences: Vec<u64>,
}

/// A payee that held up a call.
struct Slow {
    until: Instant,
    /// Calls of it alone since then that were not late.
    prompt: u32,
}

pub struct Calls<T> {
    options: CallOptions,
    /// Lowered by a wallet that answers that a batch was too large.
    batch_count_max: usize,
    table: Vec<Option<Entry<T>>>,
    count: usize,
    fresh: VecDeque<u64>,
    burns: VecDeque<u64>,
    solo: VecDeque<u64>,
    solo_flying: usize,
    again: BTreeMap<(Instant, u64), Group>,
    flying: HashMap<u64, Flight>,
    slow: HashMap<u64, Slow>,
    early_credit: f64,
    pulse: Pulse,
    gate: Gate,
    sluice: Sluice,
    /// Requests of the call that is being made, at most: the bound above, or what the breaker lets go.
    call_count_max: usize,
    number_next: u64,
    /// Whether the last call was of requests sent before.
    last_was_again: bool,
    /// Calls at the bound that the wallet has taken since it last refused one as too large.
    fitted: u32,
    dice: u64,
}

impl<T> Calls<T> {
    pub fn new(options: CallOptions, seed: u64) -> Calls<T> {
        assert!(options.slot_count.is_power_of_two());
        Calls {
            batch_count_max: options.batch_count_max,
            table: (0..options.slot_count).map(|_| None).collect(),
            count: 0,
            fresh: VecDeque::new(),
            burns: VecDeque::new(),
            solo: VecDeque::new(),
            solo_flying: 0,
            again: BTreeMap::new(),
            flying: HashMap::new(),
            slow: HashMap::new(),
            early_credit: EARLY_CREDIT_MAX / 4.0,
            pulse: Pulse::default(),
            gate: Gate::new(options.calls_max),
            sluice: Sluice::default(),
            call_count_max: 0,
            number_next: 0,
            last_was_again: false,
            fitted: 0,
            dice: seed | 1,
            options,
        }
    }

    /// Asks a breaker before each call from now on.
    #[must_use]
    pub fn with_sluice(self, sluice: Sluice) -> Calls<T> {
        Calls { sluice, ..self }
    }

    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// How many more requests it would take now: no more than soon find a call, so that the queues decide late
    /// whose turn it is.
    pub fn room(&self) -> usize {
        (2 * self.batch_count_max).saturating_sub(self.fresh.len() + self.burns.len())
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Calls under way.
    pub fn flying(&self) -> usize {
        self.flying.len()
    }

    fn cell(&self, sequence: u64) -> usize {
        sequence as usize & (self.table.len() - 1)
    }

    fn entry(&mut self, sequence: u64) -> Option<&mut Entry<T>> {
        let cell = self.cell(sequence);
        self.table[cell].as_mut().filter(|entry| entry.sequence == sequence)
    }

    pub fn payload(&self, sequence: u64) -> Option<&T> {
        let entry = self.table[self.cell(sequence)].as_ref();
        entry.filter(|entry| entry.sequence == sequence).map(|entry| &entry.payload)
    }

    /// Takes a request over. `party` stands for who may hold it up.
    pub fn push(
        &mut self,
        sequence: u64,
        party: u64,
        errand: Errand,
        payload: T,
        now: Instant,
        done: &mut Vec<Done<T>>,
    ) {
        let cell = self.cell(sequence);
        assert!(self.table[cell].is_none(), "the ring holds no more than the table");
        self.table[cell] = Some(Entry {
            sequence,
            party,
            sends: 0,
            attempts: 0,
            alone_failures: 0,
            places: 0,
            since: now,
            sent_at: [None; 2],
            payload,
        });
        self.count += 1;
        match errand {
            Errand::Burn => self.burns.push_back(sequence),
            Errand::Transfer if self.is_slow(party, now) => self.push_solo(sequence, done),
            Errand::Transfer => self.fresh.push_back(sequence),
        }
    }

    fn is_slow(&mut self, party: u64, now: Instant) -> bool {
        match self.slow.get(&party) {
            Some(slow) if slow.until > now => true,
            Some(_) => {
                self.slow.remove(&party);
                false
            }
            None => false,
        }
    }

    fn note_slow(&mut self, party: u64, now: Instant) {
        self.slow.insert(party, Slow { until: now + SLOW_FOR, prompt: 0 });
    }

    /// A call of one payee was answered in time.
    fn note_prompt(&mut self, party: u64) {
        let Some(slow) = self.slow.get_mut(&party) else { return };
        slow.prompt += 1;
        if slow.prompt >= PROMPT_ENOUGH {
            self.slow.remove(&party);
        }
    }

    fn push_solo(&mut self, sequence: u64, done: &mut Vec<Done<T>>) {
        if self.solo.len() + self.solo_flying >= SOLO_CALLS_MAX {
            self.end(sequence, Ended::NoAnswer, done);
        } else {
            self.solo.push_back(sequence);
        }
    }

    fn end(&mut self, sequence: u64, ended: Ended, done: &mut Vec<Done<T>>) {
        let cell = self.cell(sequence);
        if let Some(entry) = self.table[cell].take_if(|entry| entry.sequence == sequence) {
            self.count -= 1;
            done.push(Done { payload: entry.payload, sends: entry.sends, attempts: entry.attempts, ended });
        }
    }

    /// Requests that were taken over and not yet sent for the first time.
    pub fn unsent(&self) -> usize {
        self.fresh.len() + self.burns.len() + self.solo.len()
    }

    /// Requests that may be taken out of the queues and not yet be sent.
    pub fn ahead_max(&self) -> u64 {
        self.sluice.ahead_max()
    }

    /// Requests that could go now, up to a call's worth.
    fn waiting(&self, now: Instant) -> usize {
        let again = self.again.first_key_value().filter(|((at, _), _)| *at <= now);
        let again = again.map_or(0, |(_, group)| group.sequences.len());
        (self.unsent() + again).min(self.batch_count_max)
    }

    /// The next call to be made, if one may be made now.
    pub fn next(&mut self, now: Instant, done: &mut Vec<Done<T>>) -> Option<Call> {
        let late = self.flying.values().filter(|flight| flight.is_late).count();
        let waiting = self.waiting(now);
        if waiting == 0 || !self.gate.admits(now, self.flying.len(), late) {
            return None;
        }
        let ticket = self.sluice.admit(now, waiting).ok()?;
        let admitted = ticket.map_or(usize::MAX, |ticket| ticket.count as usize);
        self.call_count_max = self.batch_count_max.min(admitted);
        let Some((errand, sequences, is_solo)) = self.pick(now, done) else {
            self.sluice.unused(ticket);
            return None;
        };
        let mut is_repeat = false;
        for sequence in &sequences {
            let entry = self.entry(*sequence).expect("picked a moment ago");
            is_repeat = entry.sends > 0;
            entry.sends += 1;
            entry.attempts += 1;
            entry.places += 1;
            entry.sent_at = [Some(now), entry.sent_at[0]];
        }
        self.number_next += 1;
        let id = self.number_next;
        self.sluice.sent(ticket, id, sequences.len());
        self.solo_flying += usize::from(is_solo);
        let flight = Flight { errand, sequences: sequences.clone(), sent_at: now, is_late: false, is_solo };
        self.flying.insert(id, flight);
        Some(Call { id, errand, is_repeat, sequences })
    }

    /// What goes next. While the wallet is not well and calls go one at a time, those that keep failing take turns
    /// with the others: they must not starve them.
    fn pick(&mut self, now: Instant, done: &mut Vec<Done<T>>) -> Option<(Errand, Vec<u64>, bool)> {
        let others_first = self.last_was_again && *self.gate.state() != GateState::Open;
        if others_first && let Some(picked) = self.pick_first_timers(now, done) {
            self.last_was_again = false;
            return Some(picked);
        }
        if let Some((errand, sequences)) = self.pick_again(now) {
            self.last_was_again = true;
            return Some((errand, sequences, false));
        }
        self.last_was_again = false;
        self.pick_first_timers(now, done)
    }

    fn pick_again(&mut self, now: Instant) -> Option<(Errand, Vec<u64>)> {
        while let Some(first) = self.again.first_entry().filter(|first| first.key().0 <= now) {
            let group = first.remove();
            let mut sequences = group.sequences;
            sequences.retain(|sequence| self.entry(*sequence).is_some());
            for sequence in &sequences {
                self.entry(*sequence).expect("retained").places -= 1;
            }
            if sequences.len() > self.call_count_max {
                let rest = sequences.split_off(self.call_count_max);
                self.send_again(group.errand, rest, now);
            }
            if !sequences.is_empty() {
                return Some((group.errand, sequences));
            }
        }
        None
    }

    fn pick_first_timers(
        &mut self,
        now: Instant,
        done: &mut Vec<Done<T>>,
    ) -> Option<(Errand, Vec<u64>, bool)> {
        if !self.burns.is_empty() {
            let count = self.burns.len().min(self.call_count_max);
            return Some((Errand::Burn, self.burns.drain(..count).collect(), false));
        }
        if self.solo_flying < SOLO_CALLS_MAX
            && let Some(sequence) = self.solo.pop_front()
        {
            return Some((Errand::Transfer, vec![sequence], true));
        }
        self.pick_fresh(now, done).map(|sequences| (Errand::Transfer, sequences, false))
    }

    fn pick_fresh(&mut self, now: Instant, done: &mut Vec<Done<T>>) -> Option<Vec<u64>> {
        let first = *self.fresh.front()?;
        let since = self.entry(first).map_or(now, |entry| entry.since);
        let lingers = !self.flying.is_empty() && now < since + LINGER;
        if lingers && self.fresh.len() < self.call_count_max {
            return None;
        }
        let mut sequences = Vec::with_capacity(self.fresh.len().min(self.call_count_max));
        while sequences.len() < self.call_count_max
            && let Some(sequence) = self.fresh.pop_front()
        {
            let party = self.entry(sequence).expect("fresh ones are in the table").party;
            if self.is_slow(party, now) {
                self.push_solo(sequence, done);
            } else {
                sequences.push(sequence);
            }
        }
        (!sequences.is_empty()).then_some(sequences)
    }

    fn send_again(&mut self, errand: Errand, sequences: Vec<u64>, at: Instant) {
        for sequence in &sequences {
            if let Some(entry) = self.entry(*sequence) {
                entry.places += 1;
            }
        }
        self.number_next += 1;
        self.again.insert((at, self.number_next), Group { errand, sequences });
    }

    fn send_again_in_parts(&mut self, errand: Errand, sequences: &[u64], at: Instant) {
        for part in sequences.chunks(sequences.len().div_ceil(PARTS).max(1)) {
            self.send_again(errand, part.to_vec(), at);
        }
    }

    /// A call came back.
    pub fn answered(
        &mut self,
        id: u64,
        reply: Result<Vec<Answer>, CallError>,
        now: Instant,
        done: &mut Vec<Done<T>>,
    ) {
        let Some(flight) = self.flying.remove(&id) else { return };
        self.sluice.answered(now, id, flight.sequences.len(), &reply);
        self.solo_flying -= usize::from(flight.is_solo);
        for sequence in &flight.sequences {
            if let Some(entry) = self.entry(*sequence) {
                entry.places -= 1;
            }
        }
        match reply {
            Ok(answers) => {
                assert_eq!(answers.len(), flight.sequences.len(), "an adapter answers entry by entry");
                self.take_answers(flight, answers, now, done);
            }
            Err(error) => self.take_failure(flight, &error, now, done),
        }
    }

    fn take_answers(&mut self, flight: Flight, answers: Vec<Answer>, now: Instant, done: &mut Vec<Done<T>>) {
        let (mut unknown, mut overloaded) = (Vec::new(), Vec::new());
        let total = answers.len();
        // A burn or a refusal waits for nobody's account.
        let is_prompt = flight.errand == Errand::Transfer
            && !flight.is_late
            && now - flight.sent_at < self.late_after()
            && answers.iter().all(|answer| is_decided(answer.status));
        if let [only] = flight.sequences[..]
            && is_prompt
            && let Some(party) = self.entry(only).map(|entry| entry.party)
        {
            self.note_prompt(party);
        }
        for (sequence, answer) in flight.sequences.iter().zip(answers) {
            match answer.status {
                TransferStatus::Unknown => unknown.push(*sequence),
                TransferStatus::Failed(PayoutCode::WalletOverloaded) => overloaded.push(*sequence),
                TransferStatus::Succeeded | TransferStatus::Failed(_) => {
                    self.end(*sequence, Ended::Answered(answer), done);
                }
            }
        }
        let decided = total - unknown.len() - overloaded.len();
        self.early_credit = (self.early_credit + decided as f64 * EARLY_SHARE).min(EARLY_CREDIT_MAX);
        if decided > 0 {
            self.pulse.record(now - flight.sent_at);
            self.gate.succeeded(now);
            self.note_fit(flight.errand, total);
        } else {
            self.note_undecided(&flight, overloaded.len(), now);
        }
        self.retry_overloaded(flight.errand, overloaded, flight.sent_at, now, done);
        // A wallet that keeps its deadline answers `unknown` when something held up the batch.
        let took = now - flight.sent_at;
        let error = if decided == 0 && took >= self.options.deadline / 2 {
            CallError::TimedOut { after_ms: took.as_millis() as u64 }
        } else {
            CallError::Unknown("the wallet answered unknown".to_owned())
        };
        self.retry(flight.errand, unknown, &error, flight.sent_at, now, done);
    }

    /// A reply in which nothing was decided says that the wallet is not well, unless others are answered.
    fn note_undecided(&mut self, flight: &Flight, overloaded: usize, now: Instant) {
        if self.gate.others_succeed_since(flight.sent_at) {
            return;
        }
        let total = flight.sequences.len();
        let error = if overloaded > 0 {
            let reason = format!("the wallet answered wallet_overloaded for {overloaded} of {total}");
            CallError::Overloaded { reason, retry_after: None }
        } else {
            CallError::Unknown("the wallet answered unknown for a whole batch".to_owned())
        };
        self.gate.failed(&error, now);
    }

    /// Each is sent again alone or with its like. One that is refused again and again while others are paid waits
    /// elsewhere than in the ring.
    fn retry_overloaded(
        &mut self,
        errand: Errand,
        mut sequences: Vec<u64>,
        sent_at: Instant,
        now: Instant,
        done: &mut Vec<Done<T>>,
    ) {
        let mut worn_out = Vec::new();
        sequences.retain(|sequence| self.entry(*sequence).is_some_and(|entry| entry.places == 0));
        sequences.retain(|sequence| {
            let is_worn_out = self.count_failure(*sequence, sent_at) >= ALONE_FAILURES_MAX;
            if is_worn_out {
                worn_out.push(*sequence);
            }
            !is_worn_out
        });
        for sequence in worn_out {
            let status = TransferStatus::Failed(PayoutCode::WalletOverloaded);
            self.end(sequence, Ended::Answered(Answer { status, wallet_ref: String::new() }), done);
        }
        let sends = sequences.first().and_then(|first| self.entry(*first)).map_or(1, |entry| entry.sends);
        self.requeue(errand, sequences, sends, now);
    }

    /// Counts a failure of one request if others were answered meanwhile, or since it was sent the time before: a
    /// refusal comes back too fast for others to be answered meanwhile. Answers how many there were.
    fn count_failure(&mut self, sequence: u64, sent_at: Instant) -> u32 {
        let Some(entry) = self.entry(sequence) else { return 0 };
        let before = entry.sent_at[1].unwrap_or(sent_at);
        let others_succeeded = self.gate.others_succeed_since(before);
        let Some(entry) = self.entry(sequence) else { return 0 };
        entry.alone_failures += u32::from(others_succeeded);
        entry.alone_failures
    }

    /// A bound that was lowered is tried again after a while.
    fn note_fit(&mut self, errand: Errand, count: usize) {
        if errand == Errand::Transfer && count >= self.batch_count_max {
            self.fitted += 1;
            if self.fitted >= FITTED_MAX {
                self.fitted = 0;
                self.batch_count_max = (2 * self.batch_count_max).min(self.options.batch_count_max);
            }
        }
    }

    fn take_failure(&mut self, flight: Flight, error: &CallError, now: Instant, done: &mut Vec<Done<T>>) {
        // One that failed while others succeed says nothing of the wallet.
        let is_its_own = match error {
            CallError::TimedOut { .. } | CallError::Unknown(_) => {
                self.gate.others_succeed_since(flight.sent_at)
            }
            CallError::Rejected(_) => {
                now.checked_sub(WELL_FOR).is_some_and(|since| self.gate.others_succeed_since(since))
            }
            CallError::Unauthorized(_) | CallError::Overloaded { .. } | CallError::TooLarge(_) => false,
        };
        if !is_its_own {
            self.gate.failed(error, now);
        }
        if matches!(error, CallError::Unauthorized(_)) {
            for sequence in &flight.sequences {
                if let Some(entry) = self.entry(*sequence) {
                    entry.attempts = entry.attempts.saturating_sub(1);
                }
            }
        }
        self.retry(flight.errand, flight.sequences, error, flight.sent_at, now, done);
    }

    /// What was sent in vain, and is nowhere else, is sent again.
    fn retry(
        &mut self,
        errand: Errand,
        mut sequences: Vec<u64>,
        error: &CallError,
        sent_at: Instant,
        now: Instant,
        done: &mut Vec<Done<T>>,
    ) {
        sequences.retain(|sequence| self.entry(*sequence).is_some_and(|entry| entry.places == 0));
        let Some(first) = sequences.first().copied() else { return };
        let is_alone = sequences.len() == 1;
        let sends = self.entry(first).map_or(1, |entry| entry.sends);
        match error {
            CallError::TooLarge(_) if !is_alone => {
                if errand == Errand::Transfer {
                    self.batch_count_max = self.batch_count_max.min(sequences.len().div_ceil(2));
                    self.fitted = 0;
                }
                let rest = sequences.split_off(sequences.len().div_ceil(2));
                self.requeue(errand, sequences, 1, now);
                self.requeue(errand, rest, 1, now);
            }
            CallError::Unauthorized(_) | CallError::Overloaded { retry_after: None, .. } => {
                self.requeue(errand, sequences, 1, now);
            }
            // The others go on, as fast as the adaptive limit lets them: what was refused is what is to wait.
            CallError::Overloaded { retry_after: Some(wait), .. } => {
                let at = now + self.pause(1).max(*wait);
                self.send_again(errand, sequences, at);
            }
            CallError::TimedOut { .. }
            | CallError::Unknown(_)
            | CallError::Rejected(_)
            | CallError::TooLarge(_)
                if is_alone =>
            {
                let timed_out = matches!(error, CallError::TimedOut { .. });
                self.retry_alone(errand, first, timed_out, sent_at, now, done);
            }
            CallError::TimedOut { .. }
            | CallError::Unknown(_)
            | CallError::Rejected(_)
            | CallError::TooLarge(_) => {
                let timed_out = matches!(error, CallError::TimedOut { .. });
                let held_up = timed_out && self.gate.others_succeed_since(sent_at);
                if held_up || sends >= WHOLE_FAILURES_MAX {
                    let at = now + self.pause(sends);
                    self.send_again_in_parts(errand, &sequences, at);
                } else {
                    self.requeue(errand, sequences, sends, now);
                }
            }
        }
    }

    fn retry_alone(
        &mut self,
        errand: Errand,
        sequence: u64,
        timed_out: bool,
        sent_at: Instant,
        now: Instant,
        done: &mut Vec<Done<T>>,
    ) {
        let others_succeed = self.gate.others_succeed_since(sent_at);
        let failures = self.count_failure(sequence, sent_at);
        let Some(entry) = self.entry(sequence) else { return };
        let (sends, party) = (entry.sends, entry.party);
        // It has held the ring for a whole deadline, and would for another.
        let holds_up = timed_out && others_succeed;
        if holds_up {
            self.note_slow(party, now);
        }
        if holds_up || failures >= ALONE_FAILURES_MAX {
            self.end(sequence, Ended::NoAnswer, done);
        } else {
            self.requeue(errand, vec![sequence], sends, now);
        }
    }

    fn requeue(&mut self, errand: Errand, sequences: Vec<u64>, failures: u32, now: Instant) {
        if !sequences.is_empty() {
            let at = now + self.pause(failures);
            self.send_again(errand, sequences, at);
        }
    }

    /// The first time soon, for a lost reply is the likeliest cause; then with backoff. A wallet that is well is spared
    /// less: what fails there holds up the ring, and is soon found out.
    fn pause(&mut self, failures: u32) -> Duration {
        let jitter = self.roll();
        let failures = if *self.gate.state() == GateState::Open { failures.min(2) } else { failures };
        if failures <= 1 { backoff(0, jitter) / 5 } else { backoff(failures - 1, jitter) }
    }

    /// Looks for calls that are held up while others are answered.
    pub fn tick(&mut self, now: Instant) {
        if self.slow.len() > SLOW_MAX {
            self.slow.retain(|_, slow| slow.until > now);
        }
        let late_after = self.late_after();
        let due: Vec<u64> = self
            .flying
            .iter()
            .filter(|(_, flight)| !flight.is_late && now >= flight.sent_at + late_after)
            .filter(|(_, flight)| self.gate.others_succeed_since(flight.sent_at))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let flight = self.flying.get_mut(&id).expect("listed a moment ago");
            flight.is_late = true;
            let (errand, sequences) = (flight.errand, flight.sequences.clone());
            self.part_with(errand, &sequences, now);
        }
    }

    fn part_with(&mut self, errand: Errand, sequences: &[u64], now: Instant) {
        if let [only] = sequences {
            let Some(party) = self.entry(*only).map(|entry| entry.party) else { return };
            // It may have its whole deadline; what else is for the payee travels alone, or waits elsewhere.
            self.note_slow(party, now);
            return;
        }
        let alive: Vec<u64> = sequences
            .iter()
            .copied()
            .filter(|sequence| self.entry(*sequence).is_some_and(|entry| entry.places == 1))
            .collect();
        if !alive.is_empty() && self.early_credit >= alive.len() as f64 {
            self.early_credit -= alive.len() as f64;
            self.send_again_in_parts(errand, &alive, now);
        }
    }

    /// When a call is held up: well past what others take, well before the deadline.
    fn late_after(&self) -> Duration {
        self.pulse.late_after().min(self.options.deadline / 2)
    }

    /// When `next` or `tick` want to be asked again though nothing comes back.
    pub fn next_at(&self, now: Instant) -> Option<Instant> {
        let late_after = self.late_after();
        let flights = self.flying.values().filter(|flight| !flight.is_late);
        let late = flights.map(|flight| flight.sent_at + late_after).filter(|at| *at > now).min();
        let again = self.again.first_key_value().map(|((at, _), _)| *at);
        let waiting = !(self.fresh.is_empty() && self.burns.is_empty() && self.solo.is_empty());
        let linger = waiting.then_some(now + LINGER);
        let lates = self.flying.values().filter(|flight| flight.is_late).count();
        match self.gate.next_at() {
            Some(at) if at > now => late.into_iter().chain([at]).min(),
            // No room for another call: only an answer changes that.
            _ if !self.gate.admits(now, self.flying.len(), lates) => late,
            _ if self.sluice.held_until().is_some_and(|at| at > now) => {
                let asks_again = (waiting || again.is_some()).then_some(self.sluice.held_until()).flatten();
                late.into_iter().chain(asks_again).min()
            }
            _ => late.into_iter().chain(again).chain(linger).min(),
        }
    }

    fn roll(&mut self) -> f64 {
        // xorshift64 (Marsaglia 2003): enough to spread retries.
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn is_decided(status: TransferStatus) -> bool {
    match status {
        TransferStatus::Unknown | TransferStatus::Failed(PayoutCode::WalletOverloaded) => false,
        TransferStatus::Succeeded | TransferStatus::Failed(_) => true,
    }
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod tests;
