//! The desk's decisions: accept, recognise or refuse, one request after the other, and write what was
//! accepted in groups.
//!
//! What holds: an id is known from the moment it is decided; totals move with the decision; nothing is told to
//! a caller before the journal has synced what the answer rests on (the caller of this file sees to that, by
//! the offset that [`Clerk::write`] answers). After a failed append the desk refuses everything: what it
//! remembers may not be on disk.

use std::sync::Arc;

use super::group::{Fresh, Group};
use super::memory::Memory;
use super::{BatchHead, CampaignChange, Decision, DeskOptions, Refused, rules};
use crate::crash;
use crate::domain::{Campaign, CampaignState, Kind, Lane, Refusal, Request, Status, UnixMs, record};
use crate::intake::admission::{self, Ahead, Bounds};
use crate::intake::embedded::EmbeddedIntake;
use crate::intake::embedded::entry::{Batch, FRAME_CONTROL, encode_campaign};
use crate::intake::embedded::identity::{Entries, Held, batch_key_hash, held_at, known_id};
use crate::intake::{Intake, IntakeError, QueueId};
use crate::journal::Journal;
use crate::journal::index::TOGETHER;
use crate::shaping::{Course, Forecast, Others, Promises, Seen, Since};

/// Control requests (funding, cancels) that may wait.
const CONTROL_BACKLOG_MAX: u64 = 100_000;

pub struct Clerk {
    pub memory: Memory,
    pub entries: Entries,
    pub intake: Arc<EmbeddedIntake>,
    pub journal: Journal,
    pub forecast: Forecast,
    pub options: DeskOptions,
    /// How fast work may go.
    course: Arc<dyn Fn() -> Course + Send + Sync>,
    group: Group,
    /// What may be promised as of the last look, and what has come since.
    promises: Promises,
    since: Since,
    seen: Vec<Seen>,
    /// Accepted and waiting in the queues, as of the last look, plus what was accepted since.
    pub(super) backlog: u64,
    parked: u64,
    control_parked: u64,
    /// Queues that have no room in the parking.
    full_queues: Vec<QueueId>,
    /// End of the last frame the desk wrote.
    pub written_end: u64,
    pub(super) stopped: Option<String>,
    /// Outcomes written by the desk itself, by state.
    pub followed: [u64; Status::ALL.len()],
    scratch: Vec<u8>,
}

fn refused(code: Refusal, detail: impl Into<String>) -> Decision {
    Decision::Refused(Refused::new(code, detail))
}

impl Clerk {
    pub fn new(
        memory: Memory,
        entries: Entries,
        intake: Arc<EmbeddedIntake>,
        journal: Journal,
        options: DeskOptions,
    ) -> Clerk {
        let fair = intake.fair_queue_count();
        let queues = Lane::ALL.into_iter().flat_map(|lane| (0..fair).map(move |fair| QueueId { lane, fair }));
        let course = Course::paced(options.transfers_per_s);
        let forecast = Forecast::new(fair, course);
        let group = Group::new(queues);
        let written_end = journal.synced();
        memory.parking().bound(options.parked_max);
        Clerk {
            memory,
            entries,
            intake,
            journal,
            forecast,
            options,
            course: Arc::new(move || course),
            group,
            promises: Promises::default(),
            since: Since::default(),
            seen: Vec::new(),
            backlog: 0,
            parked: 0,
            control_parked: 0,
            full_queues: Vec::new(),
            written_end,
            stopped: None,
            followed: [0; Status::ALL.len()],
            scratch: Vec::new(),
        }
    }

    /// Where not the configured pace alone says how fast work may go.
    #[must_use]
    pub fn with_course(self, course: Arc<dyn Fn() -> Course + Send + Sync>) -> Clerk {
        Clerk { course, ..self }
    }

    pub fn has_unwritten(&self) -> bool {
        !self.group.is_empty()
    }

    pub fn is_group_large(&self) -> bool {
        self.group.is_large()
    }

    pub fn stopped(&self) -> Option<&str> {
        self.stopped.as_deref()
    }

    /// Looks at the journal and the queues again; once per round, not per request.
    pub fn look_around(&mut self, now: UnixMs) {
        if let (None, Some(error)) = (&self.stopped, self.journal.failure()) {
            // Nothing that comes from now on can be accepted, which can be told for sure.
            self.stopped = Some(error.to_string());
        }
        self.backlog = self.intake.backlog();
        let parking = self.memory.parking();
        self.parked = parking.len() as u64;
        self.control_parked = parking.count_in_lane(Lane::Control) as u64;
        self.full_queues = parking.full_queues(0);
        drop(parking);
        if self.forecast.is_due(now) {
            self.intake.look(&mut self.seen);
            self.promises = self.forecast.look(now, &self.seen, Others::default(), (self.course)());
            self.since.clear();
        }
    }

    /// Requests were finished.
    pub(super) fn note_finished(&mut self, now: UnixMs, count: u64) {
        self.forecast.done(now, count, self.intake.unread(), (self.course)());
    }

    /// What a request finds before it that comes to this queue now; nothing, where it is not paced.
    fn ahead(&self, queue: QueueId) -> Ahead {
        let Some(position) = queue.paced_position(self.intake.fair_queue_count()) else {
            return Ahead::default();
        };
        Ahead {
            wait_ms: self.promises.wait_ms(position, self.since.to(position)),
            whole_ms: self.promises.whole_ms(self.since.all()),
            waiting: self.backlog + self.parked,
        }
    }

    fn note_accepted(&mut self, queue: QueueId) {
        let Some(position) = queue.paced_position(self.intake.fair_queue_count()) else { return };
        self.backlog += 1;
        self.since.add(Some(position));
    }

    pub(super) fn find(&mut self, key_hash: u64, key: (&str, &str)) -> Result<Option<Held>, IntakeError> {
        match self.group.find(key_hash, key) {
            Fresh::Held(record) => return Ok(Some(Held::fresh(record))),
            Fresh::Hidden => {
                self.write()?;
            }
            Fresh::Unknown => {}
        }
        for place in self.memory.index.candidates(key_hash) {
            if let Some(held) = held_at(&self.entries, place, key)? {
                return Ok(Some(held));
            }
        }
        Ok(None)
    }

    /// Decides encoded requests in order.
    pub fn decide_all(&mut self, requests: &mut [Vec<u8>], now: UnixMs) -> Vec<Decision> {
        let mut decisions = Vec::with_capacity(requests.len());
        for together in requests.chunks_mut(TOGETHER) {
            self.memory.index.touch(together.iter().map(|bytes| record::key_hash(bytes)));
            decisions.extend(together.iter_mut().map(|bytes| self.decide(bytes, now)));
        }
        decisions
    }

    /// Decides one encoded request.
    pub fn decide(&mut self, bytes: &mut [u8], now: UnixMs) -> Decision {
        if let Some(reason) = &self.stopped {
            return refused(Refusal::NotAccepting, format!("this instance accepts nothing: {reason}"));
        }
        match self.try_decide(bytes, now) {
            Ok(decision) => decision,
            Err(error) => {
                self.stopped = Some(error.to_string());
                refused(Refusal::NotAccepting, format!("this instance accepts nothing: {error}"))
            }
        }
    }

    fn try_decide(&mut self, bytes: &mut [u8], now: UnixMs) -> Result<Decision, IntakeError> {
        let request = Request::decode(bytes).map_err(|error| IntakeError::Damaged {
            place: 0,
            reason: format!("the door encoded it: {error}"),
        })?;
        let held = self.find(request.key_hash, (request.client, known_id(&request)))?;
        if let Some(held) = &held
            && let Some(decision) = recognise(&request, held)
        {
            return Ok(decision);
        }
        if request.kind == Kind::Cancel && !self.options.can_cancel {
            let detail = "the wallet of this service cannot take an id out of use (stored_value.burn = false), so \
                          nothing can be canceled; ask for its status";
            return Ok(refused(Refusal::NotCancelable, detail.to_owned()));
        }
        let number = self.memory.campaigns.number(request.client, request.campaign);
        let lane = match (request.kind, number) {
            (Kind::Cancel | Kind::Fund | Kind::Defund, _) => Lane::Control,
            (_, Some(number)) if request.lane == Lane::Control => {
                self.memory.campaigns.get(number).campaign.lane
            }
            _ => request.lane,
        };
        if let Some(number) = number {
            if let Err((code, detail)) =
                self.memory.campaigns.check(number, &request, now, self.options.retention_ms)
            {
                return Ok(refused(code, detail));
            }
        } else if request.kind != Kind::Cancel {
            return Ok(refused(
                Refusal::CampaignUnknown,
                format!(
                    "there is no campaign {}; PUT /v1/campaigns/{} first",
                    request.campaign, request.campaign
                ),
            ));
        }
        if request.kind == Kind::Reversal
            && let Some(left) = self.reversible(&request)?
            && request.amount.minor_units() > left
        {
            return Ok(refused(Refusal::AmountLimit, format!("{left} of it is left to take back")));
        }
        let queue = QueueId::of(lane, request.campaign, self.intake.fair_queue_count());
        let completion_at = match self.admit(&request, now, queue) {
            Ok(completion_at) => completion_at,
            Err(refused) => return Ok(Decision::Refused(refused)),
        };
        if let Some(number) = number {
            self.memory.campaigns.accepted(number, &request);
        }
        let position = queue.position(self.intake.fair_queue_count());
        let key_hash = request.key_hash;
        let holds_id = held.is_none();
        record::set_acceptance(bytes, now, lane, holds_id);
        self.group.push(position, key_hash, bytes, number, now);
        self.note_accepted(queue);
        Ok(Decision::Accepted { accepted_at: now, estimated_completion_at: completion_at })
    }

    /// How much of what a reversal names was not taken back yet, as far as it is settled.
    fn reversible(&mut self, reversal: &Request<'_>) -> Result<Option<u64>, IntakeError> {
        let key_hash = crate::digest::key_hash_of(reversal.client, reversal.original);
        let held = self.find(key_hash, (reversal.client, reversal.original))?;
        Ok(held.map(|held| {
            let taken = self.memory.reversed.get(&held.request_place).copied().unwrap_or(0);
            held.request().amount.minor_units().saturating_sub(taken)
        }))
    }

    /// When it will be done. Refuses what the backlog would keep too long, and what would have to park where there is no
    /// room. Control requests never wait; their lane has a bound of its own.
    fn admit(&self, request: &Request<'_>, now: UnixMs, queue: QueueId) -> Result<UnixMs, Refused> {
        let ahead = self.ahead(queue);
        let completion_at = admission::completion(request, now, ahead.wait_ms)?;
        let parks =
            request.not_before > now.saturating_add(ahead.wait_ms) && self.full_queues.contains(&queue);
        let refused = match queue.lane {
            Lane::Control => (self.intake.control_backlog() + self.control_parked >= CONTROL_BACKLOG_MAX)
                .then(|| admission::backlog_full(ahead, 0)),
            Lane::Realtime | Lane::Bulk => {
                let DeskOptions { wait_ms_max, backlog_max, .. } = self.options;
                admission::overload(ahead, Bounds { wait_ms_max, backlog_max })
            }
        };
        match refused.or_else(|| parks.then(|| admission::backlog_full(ahead, 0))) {
            Some(refused) => Err(refused),
            None => Ok(completion_at),
        }
    }

    /// Whether a batch is known already; refused if its id stands for another one.
    pub fn check_batch(&mut self, head: &BatchHead, digest: [u8; 16]) -> Result<bool, Refused> {
        let stop = |error: &dyn std::fmt::Display| Refused::new(Refusal::NotAccepting, error.to_string());
        let known = self.stored_batch(&head.client, &head.id).map_err(|error| stop(&error))?;
        let Some(bytes) = known else { return Ok(false) };
        let before = Batch::decode(&bytes).expect("decoded when it was found");
        if before.digest == digest {
            return Ok(true);
        }
        Err(rules::batch_conflict(&before, head))
    }

    /// Remembers a batch of which something was accepted.
    pub fn keep_batch(&mut self, head: &BatchHead, digest: [u8; 16], now: UnixMs) {
        let Some(currency) = crate::domain::Currency::parse(&head.currency) else { return };
        Batch {
            digest,
            key_hash: batch_key_hash(&head.client, &head.id),
            count: head.total_count,
            amount: head.total_amount,
            accepted_at: now,
            currency,
            client: &head.client,
            id: &head.id,
            campaign: &head.campaign,
        }
        .encode(&mut self.group.control);
    }

    /// The stored head of a batch, as [`Batch::decode`] reads it.
    pub fn stored_batch(&mut self, client: &str, id: &str) -> Result<Option<Vec<u8>>, IntakeError> {
        if !self.group.control.is_empty() {
            self.write()?;
        }
        for place in self.memory.index.candidates(batch_key_hash(client, id)) {
            if self.entries.is_gone(place) {
                continue;
            }
            let (_, bytes) = self.entries.read(place, &mut self.scratch)?;
            if Batch::decode(bytes).is_ok_and(|batch| batch.client == client && batch.id == id) {
                return Ok(Some(bytes.to_vec()));
            }
        }
        Ok(None)
    }

    /// Changes or creates a campaign.
    pub fn change_campaign(
        &mut self,
        client: &str,
        id: &str,
        change: CampaignChange,
        now: UnixMs,
    ) -> Result<u32, Refused> {
        if let Some(reason) = &self.stopped {
            return Err(Refused::new(
                Refusal::NotAccepting,
                format!("this instance accepts nothing: {reason}"),
            ));
        }
        let known = self.memory.campaigns.number(client, id);
        let mut campaign = match (known, change) {
            (None, CampaignChange::Put(campaign)) => Campaign { created_at: now, ..*campaign },
            (None, _) => {
                return Err(Refused::new(Refusal::NotFound, format!("there is no campaign {id}")));
            }
            (Some(number), change) => {
                let entry = self.memory.campaigns.get(number);
                rules::changed(&entry.campaign, &entry.books, change)?
            }
        };
        campaign.updated_at = now;
        if campaign.state == CampaignState::Closed && campaign.closed_at == 0 {
            campaign.closed_at = now;
        }
        let number = known.unwrap_or(self.memory.campaigns.len() as u32);
        let json = serde_json::to_vec(&super::campaigns::Definition::of(&campaign)).expect("plain fields");
        encode_campaign(&mut self.group.control, number, &json);
        self.memory.campaigns.define(number, campaign);
        Ok(number)
    }

    /// Writes the group. Everything decided so far is durable once the journal has synced to the answer.
    pub fn write(&mut self) -> Result<u64, IntakeError> {
        if let Some(reason) = &self.stopped {
            // What was decided and not written must not be told as durable by a later, empty group.
            self.group.clear();
            return Err(IntakeError::Stopped(reason.clone()));
        }
        if self.group.is_empty() {
            return Ok(self.written_end);
        }
        let written = self.try_write();
        if let Err(error) = &written {
            self.stopped = Some(error.to_string());
        }
        self.group.clear();
        written
    }

    fn try_write(&mut self) -> Result<u64, IntakeError> {
        if !self.group.control.is_empty() {
            let appended = self.journal.append(FRAME_CONTROL, &[&self.group.control])?;
            self.memory
                .control(appended.payload_at, &self.group.control)
                .map_err(|reason| IntakeError::Damaged { place: appended.payload_at, reason })?;
            self.written_end = appended.end;
        }
        for part in &self.group.parts {
            for (starts, records) in part.frames() {
                crash::point("accept::before_append");
                let (first_place, end) = self.intake.append(part.queue, starts.len() as u32, records)?;
                crash::point("accept::after_append");
                self.memory.spans.accepted_all(first_place, &part.campaigns, part.accepted_at);
                let each = starts.iter().map(|start| (*start - starts[0]) as usize);
                let named = each.filter(|at| record::holds_id(&records[*at..]));
                self.memory
                    .index
                    .insert_all(named.map(|at| (record::key_hash(&records[at..]), first_place + at as u64)));
                self.written_end = end;
            }
        }
        Ok(self.written_end)
    }
}

/// What a known id means for a request that names it; `None` for a cancel that should go on.
fn recognise(request: &Request<'_>, held: &Held) -> Option<Decision> {
    let before = held.request();
    let status = held.outcome().map_or(Status::Accepted, |outcome| outcome.status);
    if request.kind == Kind::Cancel && before.kind != Kind::Cancel {
        return match status {
            Status::Canceled => Some(Decision::Repeated(held.clone())),
            _ if status.is_final() => {
                let detail = format!("it is {} already", status.as_str());
                Some(Decision::Refused(Refused::new(Refusal::NotCancelable, detail)))
            }
            _ => None,
        };
    }
    if before.digest == request.digest {
        return Some(Decision::Repeated(held.clone()));
    }
    Some(Decision::Refused(rules::conflict(&before, request)))
}
