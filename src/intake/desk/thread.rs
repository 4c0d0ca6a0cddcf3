//! The desk's thread and the handle by which the rest of the service reaches it.
//!
//! A round: take in what was settled, decide what arrived, write the group unless the journal is busy with the
//! one before (then more can gather), answer whoever's offset is durable, sleep. When the queue is full, an
//! operation is refused at once and nothing has changed; settled outcomes wait in the pipeline, which holds its
//! acks back.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use bytes::Bytes;
use crossbeam::queue::ArrayQueue;
use tokio::sync::oneshot;

use super::decide::Clerk;
use super::rules::batch_digest;
use super::snapshot::DeskCheckpoint;
use super::{BatchHead, CampaignChange, CampaignStanding, Decision, Refused};
use crate::domain::{Refusal, Status, UnixMs, WaitReason};
use crate::intake::embedded::EmbeddedIntake;
use crate::intake::embedded::identity::{Entries, Held, held_at};
use crate::intake::refusals::Refusals;
use crate::intake::{Due, Informed, IntakeError, QueueId, Settled, Shelf};
use crate::ring::{Bell, Poison};

/// Batches of settled rows that may wait for the desk.
const SETTLED_MAX: usize = 256;
/// Operations decided in one round, so that answers are not held back for long.
const ROUND_OPS_MAX: usize = 1_024;

/// Operations that may gather during a sync before the desk is woken to decide them.
const GATHER_OPS_MAX: usize = 64;

type Answer<T> = oneshot::Sender<T>;

enum Op {
    Submit {
        batch: Option<BatchHead>,
        requests: Vec<Vec<u8>>,
        bytes: usize,
        answer: Answer<Result<Vec<Decision>, Refused>>,
    },
    Places {
        key_hashes: Vec<u64>,
        answer: Answer<Vec<Vec<u64>>>,
    },
    Batch {
        client: String,
        id: String,
        answer: Answer<Option<Vec<u8>>>,
    },
    Campaign {
        client: String,
        id: String,
        change: Option<CampaignChange>,
        answer: Answer<Result<CampaignStanding, Refused>>,
    },
    WaitFinal {
        key_hash: u64,
        answer: Answer<()>,
    },
    Checkpoint {
        answer: std::sync::mpsc::Sender<Result<DeskCheckpoint, IntakeError>>,
    },
    /// How far the journal may be given up, as far as the desk knows.
    Retained {
        retention_ms: u64,
        answer: std::sync::mpsc::Sender<u64>,
    },
    /// The journal will be given up below `offset`: forget what stood there.
    Forget {
        offset: u64,
        answer: std::sync::mpsc::Sender<()>,
    },
}

struct Shared {
    ops: ArrayQueue<Op>,
    ops_bytes: AtomicUsize,
    ops_bytes_max: usize,
    settled: ArrayQueue<Settled>,
    settled_through: AtomicU64,
    stop: AtomicBool,
    stopped: AtomicBool,
    bell: Bell,
    is_syncing: Box<dyn Fn() -> bool + Send + Sync>,
    /// Settled rows handed over and not taken in yet: some of them may park.
    untaken: AtomicUsize,
    ring_feeder: OnceLock<Box<dyn Fn() + Send + Sync>>,
    drain_per_s: AtomicU64,
    accepted: AtomicU64,
    refusals: Refusals,
    now_ms: Arc<dyn Fn() -> UnixMs + Send + Sync>,
    repeated: AtomicU64,
    outcomes: AtomicU64,
    followed: [AtomicU64; Status::ALL.len()],
}

/// The handle.
#[derive(Clone)]
pub struct Desk {
    shared: Arc<Shared>,
    entries: Entries,
    pub intake: Arc<EmbeddedIntake>,
    registry: super::campaigns::Registry,
    parking: Arc<std::sync::Mutex<crate::intake::embedded::parking::Parking>>,
}

/// What the desk counts, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeskCounts {
    pub accepted: u64,
    pub repeated: u64,
    pub backlog: u64,
    pub drain_per_s: u64,
}

/// The running thread.
pub struct DeskThread {
    handle: JoinHandle<()>,
    shared: Arc<Shared>,
}

fn busy() -> Refused {
    let mut refused = Refused::new(Refusal::BacklogFull, "the accept queue is full; retry with the same id");
    refused.retry_after_s = Some(1);
    refused
}

fn gone() -> Refused {
    let detail = "the service is stopping or has failed; retry with the same id";
    Refused { accepted_unknown: true, ..Refused::new(Refusal::AppendUnknown, detail) }
}

impl Desk {
    /// Starts the desk's thread. `now_ms` is read once a round.
    pub fn start(
        clerk: Clerk,
        now_ms: Arc<dyn Fn() -> UnixMs + Send + Sync>,
        poison: Poison,
        on_poison: Arc<dyn Fn() + Send + Sync>,
    ) -> std::io::Result<(Desk, DeskThread)> {
        let shared = Arc::new(Shared {
            ops: ArrayQueue::new(clerk.options.ops_max),
            ops_bytes: AtomicUsize::new(0),
            ops_bytes_max: clerk.options.ops_bytes_max,
            settled: ArrayQueue::new(SETTLED_MAX),
            settled_through: AtomicU64::new(clerk.journal.synced()),
            stop: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            bell: Bell::new(),
            untaken: AtomicUsize::new(0),
            ring_feeder: OnceLock::new(),
            is_syncing: Box::new(clerk.journal.syncing_reader()),
            drain_per_s: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            refusals: Refusals::default(),
            now_ms: now_ms.clone(),
            repeated: AtomicU64::new(0),
            outcomes: AtomicU64::new(0),
            followed: Default::default(),
        });
        let desk = Desk {
            shared: shared.clone(),
            entries: clerk.entries.clone(),
            intake: clerk.intake.clone(),
            registry: clerk.memory.campaigns.registry(),
            parking: clerk.memory.parking.clone(),
        };
        let bell = shared.bell.clone();
        clerk.journal.on_sync(Box::new(move || bell.ring()));
        let thread_shared = shared.clone();
        let handle = std::thread::Builder::new().name("desk".to_owned()).spawn(move || {
            let stopped = Stopped { shared: thread_shared.clone(), poison, on_poison };
            let thread = Rounds {
                clerk,
                shared: thread_shared,
                now_ms,
                undated: Vec::new(),
                awaiting: VecDeque::new(),
                waiters: HashMap::new(),
            };
            thread.run();
            drop(stopped);
        })?;
        Ok((desk, DeskThread { handle, shared }))
    }

    fn send(&self, op: Op) -> bool {
        if self.shared.stopped.load(Ordering::Acquire) {
            return false;
        }
        let sent = self.shared.ops.push(op).is_ok();
        // While the journal syncs, the desk can only gather, and the end of the sync wakes it anyway. The fence
        // pairs with the one in that ring: either we see that the sync is over, or the desk sees the operation.
        fence(Ordering::SeqCst);
        if !(self.shared.is_syncing)() || self.shared.ops.len() >= GATHER_OPS_MAX {
            self.shared.bell.ring();
        }
        if self.shared.stopped.load(Ordering::Acquire) {
            // The thread ended meanwhile: nobody will take what is left, whose callers are told by the drop.
            while self.shared.ops.pop().is_some() {}
        }
        sent
    }

    /// Decides encoded requests in order; answers when everything the decisions rest on is durable.
    pub async fn submit(
        &self,
        batch: Option<BatchHead>,
        requests: Vec<Vec<u8>>,
    ) -> Result<Vec<Decision>, Refused> {
        let (count, bytes) = (requests.len() as u64, requests.iter().map(Vec::len).sum());
        let before = self.shared.ops_bytes.fetch_add(bytes, Ordering::Relaxed);
        let (answer, decided) = oneshot::channel();
        let fits = before + bytes <= self.shared.ops_bytes_max || before == 0;
        if !fits || !self.send(Op::Submit { batch, requests, bytes, answer }) {
            self.shared.ops_bytes.fetch_sub(bytes, Ordering::Relaxed);
            let refused = busy();
            self.shared.refusals.note(&refused, count, (self.shared.now_ms)());
            return Err(refused);
        }
        decided.await.unwrap_or_else(|_| Err(gone()))
    }

    /// The holders of these ids, as far as they are durable.
    pub async fn find(&self, client: &str, ids: &[String]) -> Result<Vec<Option<Held>>, Refused> {
        let key_hashes = ids.iter().map(|id| crate::digest::key_hash_of(client, id)).collect();
        let (answer, places) = oneshot::channel();
        if !self.send(Op::Places { key_hashes, answer }) {
            return Err(busy());
        }
        let places = places.await.map_err(|_| gone())?;
        let read = |places: &Vec<u64>, id: &String| {
            let mut found = places.iter().map(|place| held_at(&self.entries, *place, (client, id)));
            found.find_map(Result::transpose).transpose()
        };
        let damaged = |error: IntakeError| Refused::new(Refusal::NotAccepting, error.to_string());
        // From the page cache, as a rule; a cold read may take a disk's time and must not hold up other tasks.
        tokio::task::block_in_place(|| {
            places.iter().zip(ids).map(|(places, id)| read(places, id).map_err(damaged)).collect()
        })
    }

    pub async fn batch(&self, client: &str, id: &str) -> Result<Option<Vec<u8>>, Refused> {
        let (answer, found) = oneshot::channel();
        let op = Op::Batch { client: client.to_owned(), id: id.to_owned(), answer };
        if !self.send(op) {
            return Err(busy());
        }
        found.await.map_err(|_| gone())
    }

    /// Changes a campaign, or tells how it stands (`change: None`).
    pub async fn campaign(
        &self,
        client: &str,
        id: &str,
        change: Option<CampaignChange>,
    ) -> Result<CampaignStanding, Refused> {
        let (answer, changed) = oneshot::channel();
        let op = Op::Campaign { client: client.to_owned(), id: id.to_owned(), change, answer };
        if !self.send(op) {
            return Err(busy());
        }
        changed.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Resolves once a request with this key becomes final after the call.
    pub fn wait_final(&self, key_hash: u64) -> Result<oneshot::Receiver<()>, Refused> {
        let (answer, finished) = oneshot::channel();
        if self.send(Op::WaitFinal { key_hash, answer }) { Ok(finished) } else { Err(busy()) }
    }

    /// The offset below which no id needs to be remembered: its campaign is closed, and has been for
    /// `retention_ms`.
    pub fn retained_from(&self, retention_ms: u64) -> Option<u64> {
        let (answer, told) = std::sync::mpsc::channel();
        self.send(Op::Retained { retention_ms, answer }).then(|| told.recv().ok()).flatten()
    }

    /// Forgets every id whose entries stood below `offset`.
    pub fn forget_below(&self, offset: u64) -> bool {
        let (answer, done) = std::sync::mpsc::channel();
        self.send(Op::Forget { offset, answer }) && done.recv().is_ok()
    }

    pub fn entries(&self) -> Entries {
        self.entries.clone()
    }

    /// End of the last outcome frame that was taken in.
    pub fn settled_through(&self) -> u64 {
        self.shared.settled_through.load(Ordering::Acquire)
    }

    /// The desk's state between two rounds.
    pub fn checkpoint(&self) -> Option<Result<DeskCheckpoint, IntakeError>> {
        let (answer, taken) = std::sync::mpsc::channel();
        if !self.send(Op::Checkpoint { answer }) {
            return None;
        }
        taken.recv().ok()
    }

    /// Whether calls or outcomes are waiting for the desk: a burst is on.
    pub fn is_busy(&self) -> bool {
        !self.shared.settled.is_empty() || self.shared.ops.len() > 8
    }

    /// Outcomes of this state that the desk wrote itself: cancels and reversals of others.
    pub fn followed(&self, status: Status) -> u64 {
        self.shared.followed[status as usize - 1].load(Ordering::Relaxed)
    }

    /// Wakes the feed, when the parking was changed from outside of the desk.
    pub fn ring_feeder(&self) {
        if let Some(ring_feeder) = self.shared.ring_feeder.get() {
            ring_feeder();
        }
    }

    /// What is to be called when the parking has changed. Only the first call counts.
    pub fn on_parked(&self, ring_feeder: Box<dyn Fn() + Send + Sync>) {
        self.shared.ring_feeder.get_or_init(|| ring_feeder);
    }

    /// Requests decided and outcomes taken in, so far.
    pub fn requests_moved(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed) + self.shared.outcomes.load(Ordering::Relaxed)
    }

    pub fn registry(&self) -> &super::campaigns::Registry {
        &self.registry
    }

    pub fn parking(&self) -> std::sync::MutexGuard<'_, crate::intake::embedded::parking::Parking> {
        self.parking.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What was refused, by code.
    pub fn refused(&self) -> Vec<(&'static str, u64)> {
        self.shared.refusals.read()
    }

    pub fn counts(&self) -> DeskCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DeskCounts {
            accepted: read(&self.shared.accepted),
            repeated: read(&self.shared.repeated),
            backlog: self.intake.backlog(),
            drain_per_s: read(&self.shared.drain_per_s),
        }
    }
}

impl Informed for Desk {
    fn settled(&self, settled: Settled) -> Result<(), Settled> {
        let count = settled.rows.len();
        self.shared.untaken.fetch_add(count, Ordering::AcqRel);
        let pushed = self.shared.settled.push(settled);
        if pushed.is_err() {
            self.shared.untaken.fetch_sub(count, Ordering::AcqRel);
        }
        self.shared.bell.ring();
        pushed
    }
}

impl Desk {
    /// Requests that may still park: in the ring, or handed over and not taken in.
    fn under_way(&self, in_ring: usize) -> usize {
        in_ring + self.shared.untaken.load(Ordering::Acquire)
    }
}

impl Shelf for Desk {
    fn rooms(&self, queues: &[QueueId], in_ring: usize, out: &mut Vec<usize>) {
        let parking = self.parking();
        let under_way = self.under_way(in_ring);
        out.clear();
        out.extend(queues.iter().map(|queue| parking.room(*queue, under_way)));
    }

    fn has_room(&self, queues: &[QueueId], in_ring: usize) -> bool {
        let mut parking = self.parking();
        // Under the lock: what the desk takes in from here on, it sees the wish after.
        let under_way = self.under_way(in_ring);
        let is_open = queues.iter().any(|queue| parking.room(*queue, under_way) > 0);
        if !is_open {
            parking.feed_waits_for_room();
        }
        is_open
    }

    fn next_due(&self) -> Option<UnixMs> {
        self.parking().next_due()
    }

    fn take_due(&self, now: UnixMs, count_max: usize, out: &mut Vec<Due>) {
        let mut taken = Vec::new();
        {
            let mut parking = self.parking();
            if parking.next_due().is_none_or(|due| due > now) {
                return;
            }
            parking.take_due(now, count_max, &mut taken);
        }
        let mut buffer = Vec::new();
        out.extend(taken.into_iter().map(|parked| {
            // Its request was read before; one that cannot be read now is found out by decode.
            let record = match self.entries.read(parked.request_place, &mut buffer) {
                Ok((_, bytes)) => Bytes::copy_from_slice(bytes),
                Err(_) => Bytes::new(),
            };
            Due {
                record,
                place: parked.request_place,
                mark: parked.request_place,
                entry_place: parked.entry_place,
                attempts: parked.attempts,
                reason: parked.reason,
                is_unknown: parked.reason == WaitReason::NoAnswer && parked.attempts > 0,
            }
        }));
    }
}

impl DeskThread {
    /// Lets the thread finish what it has, and waits for it.
    pub fn stop(self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.bell.ring();
        // A panic has poisoned the service already.
        let _ = self.handle.join();
    }
}

/// Nothing is told of what may not be on disk; whoever asked sees that the answer is gone.
fn tell_if<T>(durable: bool, answer: Answer<T>, told: T) {
    if durable {
        answer.send(told).unwrap_or_else(drop);
    }
}

/// Marks the desk as gone when its thread ends, and the service as poisoned when it ends by a panic.
struct Stopped {
    shared: Arc<Shared>,
    poison: Poison,
    on_poison: Arc<dyn Fn() + Send + Sync>,
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        while self.shared.ops.pop().is_some() {}
        if std::thread::panicking() {
            self.poison.set("the desk's thread panicked".to_owned());
            (self.on_poison)();
        }
    }
}

/// An answer that waits for the journal. Called with whether the offset became durable.
type Reply = Box<dyn FnOnce(bool) + Send>;

struct Rounds {
    clerk: Clerk,
    shared: Arc<Shared>,
    now_ms: Arc<dyn Fn() -> UnixMs + Send + Sync>,
    /// Answers of the group that is not written yet.
    undated: Vec<Reply>,
    awaiting: VecDeque<(u64, Reply)>,
    waiters: HashMap<u64, Vec<Answer<()>>>,
}

impl Rounds {
    fn run(mut self) {
        let listener = self.shared.bell.listen();
        loop {
            let now = (self.now_ms)();
            let has_settled = self.take_settled(now);
            let mut progress = has_settled;
            progress |= self.take_ops(now);
            progress |= self.write();
            progress |= self.answer();
            self.tell(has_settled);
            if progress {
                continue;
            }
            if self.shared.stop.load(Ordering::Acquire) && self.is_idle() {
                return;
            }
            let (shared, clerk, awaiting) = (&self.shared, &self.clerk, &self.awaiting);
            listener.wait(|| {
                let synced = clerk.journal.synced();
                !shared.ops.is_empty()
                    || !shared.settled.is_empty()
                    || shared.stop.load(Ordering::Acquire)
                    || awaiting.front().is_some_and(|(end, _)| *end <= synced)
                    || (clerk.has_unwritten() && !clerk.journal.is_syncing())
                    || (clerk.journal.failure().is_some() && !awaiting.is_empty())
            });
        }
    }

    fn is_idle(&self) -> bool {
        self.awaiting.is_empty() && !self.clerk.has_unwritten() && self.shared.ops.is_empty()
    }

    fn take_settled(&mut self, now: UnixMs) -> bool {
        let mut progress = false;
        while let Some(settled) = self.shared.settled.pop() {
            progress = true;
            self.shared.outcomes.fetch_add(settled.rows.len() as u64, Ordering::Relaxed);
            let taken = self.clerk.settled(&settled.rows, now);
            self.shared.untaken.fetch_sub(settled.rows.len(), Ordering::AcqRel);
            if taken.is_err() {
                // The desk has stopped itself; what it could not read is named by every refusal.
                continue;
            }
            if !self.waiters.is_empty() {
                for row in settled.rows.iter().filter(|row| row.status.is_final()) {
                    for answer in self.waiters.remove(&row.key_hash).unwrap_or_default() {
                        let end = self.clerk.written_end;
                        self.awaiting.push_back((end, Box::new(move |_| answer.send(()).unwrap_or(()))));
                    }
                }
            }
            self.shared.settled_through.fetch_max(settled.end, Ordering::AcqRel);
        }
        progress
    }

    fn take_ops(&mut self, now: UnixMs) -> bool {
        if self.shared.ops.is_empty() {
            return false;
        }
        self.clerk.look_around(now);
        for _ in 0..ROUND_OPS_MAX {
            let Some(op) = self.shared.ops.pop() else { break };
            self.take(op, now);
            if self.clerk.is_group_large() {
                break;
            }
        }
        true
    }

    fn take(&mut self, op: Op, now: UnixMs) {
        match op {
            Op::Submit { batch, requests, bytes, answer } => {
                self.shared.ops_bytes.fetch_sub(bytes, Ordering::Relaxed);
                let reply = self.submit(batch, requests, now, answer);
                self.undated.push(reply);
            }
            Op::Places { key_hashes, answer } => {
                // What was decided must be in the index to be found.
                self.write_now();
                let index = &self.clerk.memory.index;
                let places: Vec<Vec<u64>> =
                    key_hashes.into_iter().map(|hash| index.candidates(hash).collect()).collect();
                self.undated.push(Box::new(move |durable| tell_if(durable, answer, places)));
            }
            Op::Batch { client, id, answer } => {
                let found = self.clerk.stored_batch(&client, &id).unwrap_or(None);
                self.undated.push(Box::new(move |durable| tell_if(durable, answer, found)));
            }
            Op::Campaign { client, id, change, answer } => {
                let number =
                    match change {
                        Some(change) => self.clerk.change_campaign(&client, &id, change, now),
                        None => self.clerk.memory.campaigns.number(&client, &id).ok_or_else(|| {
                            Refused::new(Refusal::NotFound, format!("there is no campaign {id}"))
                        }),
                    };
                let standing = number.map(|number| {
                    let entry = self.clerk.memory.campaigns.get(number);
                    CampaignStanding { campaign: (*entry.campaign).clone(), books: entry.books.clone() }
                });
                self.undated.push(Box::new(move |durable| {
                    let standing = if durable { standing } else { Err(gone()) };
                    answer.send(standing).unwrap_or(());
                }));
            }
            Op::WaitFinal { key_hash, answer } => {
                self.waiters.retain(|_, answers| answers.iter().any(|answer| !answer.is_closed()));
                self.waiters.entry(key_hash).or_default().push(answer);
            }
            Op::Retained { retention_ms, answer } => {
                let memory = &self.clerk.memory;
                let parked = memory.parking().iter().map(|parked| parked.request_place).min();
                let retained = memory.spans.retained_from(&memory.campaigns, now, retention_ms);
                let unacked = self.clerk.intake.oldest_unacked().unwrap_or(u64::MAX);
                // The caller may have given up.
                let _ = answer.send(retained.min(unacked).min(parked.unwrap_or(u64::MAX)));
            }
            Op::Forget { offset, answer } => {
                self.clerk.entries.give_up_below(offset);
                self.clerk.memory.index.sweep_below(offset);
                self.clerk.memory.spans.forget_below(offset);
                self.clerk.memory.reversed.retain(|place, _| *place >= offset);
                let _ = answer.send(());
            }
            Op::Checkpoint { answer } => {
                self.write_now();
                // The caller may have given up.
                let _ = answer.send(self.clerk.checkpoint());
            }
        }
    }

    fn submit(
        &mut self,
        batch: Option<BatchHead>,
        mut requests: Vec<Vec<u8>>,
        now: UnixMs,
        answer: Answer<Result<Vec<Decision>, Refused>>,
    ) -> Reply {
        let digest = batch.as_ref().map(|head| batch_digest(head, &requests));
        let mut is_known = true;
        if let (Some(head), Some(digest)) = (&batch, digest) {
            match self.clerk.check_batch(head, digest) {
                Ok(known) => is_known = known,
                Err(refused) => {
                    self.shared.refusals.note(&refused, requests.len() as u64, now);
                    return Box::new(move |_| answer.send(Err(refused)).unwrap_or(()));
                }
            }
        }
        let decisions = self.clerk.decide_all(&mut requests, now);
        let (mut accepted, mut repeated) = (0, 0);
        for decision in &decisions {
            match decision {
                Decision::Accepted { .. } => accepted += 1,
                Decision::Repeated(_) => repeated += 1,
                Decision::Refused(refused) => self.shared.refusals.note(refused, 1, now),
            }
        }
        if let (Some(head), Some(digest), false) = (&batch, digest, is_known)
            && accepted + repeated > 0
        {
            self.clerk.keep_batch(head, digest, now);
        }
        self.shared.accepted.fetch_add(accepted, Ordering::Relaxed);
        self.shared.repeated.fetch_add(repeated, Ordering::Relaxed);
        Box::new(move |durable| {
            // Without a sync, only refusals can be told for sure.
            let told = if durable || decisions.iter().all(|d| matches!(d, Decision::Refused(_))) {
                Ok(decisions)
            } else {
                Err(gone())
            };
            answer.send(told).unwrap_or(());
        })
    }

    /// Writes the group if the journal is free to take it, or if it has grown large.
    fn write(&mut self) -> bool {
        let waiting = self.clerk.has_unwritten() || !self.undated.is_empty();
        if !waiting
            || (self.clerk.has_unwritten() && self.clerk.journal.is_syncing() && !self.clerk.is_group_large())
        {
            return false;
        }
        self.write_now();
        true
    }

    fn write_now(&mut self) {
        match self.clerk.write() {
            Ok(end) => self.awaiting.extend(self.undated.drain(..).map(|reply| (end, reply))),
            Err(_) => self.undated.drain(..).for_each(|reply| reply(false)),
        }
    }

    fn answer(&mut self) -> bool {
        let synced = self.clerk.journal.synced();
        let failed = self.clerk.journal.failure().is_some();
        let mut progress = false;
        while let Some((end, _)) = self.awaiting.front()
            && (*end <= synced || failed)
        {
            let (end, reply) = self.awaiting.pop_front().expect("seen above");
            crate::crash::point("accept::before_answer");
            reply(end <= synced);
            progress = true;
        }
        progress
    }

    fn tell(&self, has_settled: bool) {
        // Something is due earlier than the feed knows, or there is room again.
        let has_news = self.clerk.memory.parking().take_news(has_settled);
        if let (true, Some(ring_feeder)) = (has_news, self.shared.ring_feeder.get()) {
            ring_feeder();
        }
        for (told, count) in self.shared.followed.iter().zip(self.clerk.followed) {
            told.store(count, Ordering::Relaxed);
        }
        self.shared.drain_per_s.store(self.clerk.forecast.rate_per_s() as u64, Ordering::Relaxed);
    }
}
