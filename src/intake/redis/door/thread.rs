//! The door's threads: each gathers, goes its rounds over a connection of its own, and gathers again.
//!
//! They share nothing but the queue. A panic in one poisons the service: what it had is told as unknown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use super::judge::Book;
use super::lately::Lately;
use super::listed::Listed;
use super::queue::Waiting;
use super::rounds::Clerk;
use super::{Door, DoorOptions, Outlook};
use crate::domain::UnixMs;
use crate::intake::redis::Keys;
use crate::intake::redis::registry::CampaignRegistry;
use crate::intake::redis::servers::Servers;
use crate::intake::refusals::Refusals;
use crate::redis::{Link, LinkError, Target};
use crate::ring::Poison;

/// Requests in one go: answers are not held back for long, and a script stays short.
const GATHER_COUNT_MAX: usize = 8_192;
/// Bytes of requests in one go.
const GATHER_BYTES_MAX: usize = 4 << 20;

/// What the door counts, for metrics.
#[derive(Debug, Default)]
pub struct DoorCounts {
    pub accepted: AtomicU64,
    pub repeated: AtomicU64,
    pub refusals: Refusals,
    pub rounds: AtomicU64,
}

impl DoorCounts {
    /// Accepted, repeated, rounds.
    pub fn read(&self) -> [u64; 3] {
        [&self.accepted, &self.repeated, &self.rounds].map(|count| count.load(Ordering::Relaxed))
    }
}

/// What the door needs of the rest.
pub struct DoorParts {
    pub target: Target,
    pub keys: Keys,
    pub registry: CampaignRegistry,
    /// Asked once a gathering.
    pub outlook: Arc<dyn Fn() -> Outlook + Send + Sync>,
    /// Called after a gathering: there may be something in the lists.
    pub on_pushed: Arc<dyn Fn() + Send + Sync>,
    pub now_ms: Arc<dyn Fn() -> UnixMs + Send + Sync>,
    pub poison: Poison,
    /// Called on a thread of the door when the service can go on no more.
    pub on_poison: Arc<dyn Fn() + Send + Sync>,
}

/// Why the door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(
        "replicas may take {asked_ms} ms to confirm, and a reply is waited for {response_ms} ms only: lower the \
         replicas' timeout, or raise the response timeout"
    )]
    Replicas { asked_ms: u64, response_ms: u64 },
    #[error("a thread for the door cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// The running threads.
pub struct DoorThreads {
    waiting: Arc<Waiting>,
    handles: Vec<JoinHandle<()>>,
}

impl Door {
    pub fn start(options: &DoorOptions, parts: &DoorParts) -> Result<(Door, DoorThreads), DoorError> {
        let response_ms = parts.target.response_timeout.as_millis() as u64;
        if let Some(asked_ms) = options.replicas.map(|replicas| replicas.timeout_ms)
            && asked_ms >= response_ms
        {
            return Err(DoorError::Replicas { asked_ms, response_ms });
        }
        let waiting = Arc::new(Waiting::new(options.ops_max, options.ops_bytes_max));
        let counts = Arc::new(DoorCounts::default());
        let lately = Arc::new(Lately::new((parts.now_ms)(), parts.keys.units().shard_count));
        let mut threads = DoorThreads { waiting: waiting.clone(), handles: Vec::new() };
        for number in 0..options.thread_count.max(1) {
            let mut clerk = Clerk {
                link: Link::new(&parts.target)?,
                keys: parts.keys.clone(),
                options: options.clone(),
                book: Book::new(parts.registry.clone()),
                counts: counts.clone(),
                lately: lately.clone(),
                servers: Servers::new(&parts.keys, usize::from(parts.keys.units().shard_count)),
                listed: Listed::new(&parts.keys),
                now_ms: parts.now_ms.clone(),
            };
            clerk.connect();
            let guard = Guard {
                waiting: waiting.clone(),
                poison: parts.poison.clone(),
                on_poison: parts.on_poison.clone(),
            };
            let (outlook, on_pushed) = (parts.outlook.clone(), parts.on_pushed.clone());
            let run = move || run(clerk, &guard, &*outlook, &*on_pushed);
            let handle = std::thread::Builder::new().name(format!("door-{number}")).spawn(run)?;
            threads.handles.push(handle);
        }
        let now_ms = parts.now_ms.clone();
        Ok((Door { waiting, counts, now_ms, dedupe: options.dedupe }, threads))
    }
}

fn run(mut clerk: Clerk, guard: &Guard, outlook: &dyn Fn() -> Outlook, on_pushed: &dyn Fn()) {
    while let Some(ops) = guard.waiting.take(GATHER_COUNT_MAX, GATHER_BYTES_MAX) {
        let now = (clerk.now_ms)();
        clerk.serve(ops, now, &outlook());
        on_pushed();
        clerk.counts.rounds.fetch_add(1, Ordering::Relaxed);
    }
}

impl DoorThreads {
    /// Takes nothing more in, serves what waits, and ends.
    pub fn stop(self) {
        self.waiting.stop();
        for handle in self.handles {
            // A panic has poisoned the service already.
            let _ = handle.join();
        }
    }
}

/// Poisons the service when its thread ends by a panic.
struct Guard {
    waiting: Arc<Waiting>,
    poison: Poison,
    on_poison: Arc<dyn Fn() + Send + Sync>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.waiting.abandon();
            self.poison.set("a thread of the door panicked".to_owned());
            (self.on_poison)();
        }
    }
}
