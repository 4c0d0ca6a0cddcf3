//! The port's adapter: takes runs of outcomes, hands them to the scribe, gives them back once they are durable.
//!
//! What holds: runs come back in the order in which they were appended; `append` never waits. It needs no backpressure
//! of its own: an outcome's slot stays in the ring until its run was taken, so that never more are under way than
//! the ring has slots, which is asserted. Places and ends are positions in the sequence of all that this process
//! appended; they mean nothing outside of it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use super::hooks::{Announcer, Barrier, Parker};
use super::scribe;
use crate::domain::bytes::entries;
use crate::intake::redis::{Keys, UnitId};
use crate::outcome::{Appended, OutcomeError, OutcomeLog};
use crate::redis::{Link, LinkError, Target};
use crate::ring::{Bell, Poison};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Outcomes that may be appended and not taken: the ring's slots.
    pub items_max: usize,
    /// After a failure; doubles up to `backoff_max`.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
}

/// What the log works with.
pub struct LogParts {
    pub target: Target,
    pub keys: Arc<Keys>,
    pub barrier: Arc<dyn Barrier>,
    pub parker: Arc<dyn Parker>,
    pub announcer: Arc<dyn Announcer>,
    /// Told of a unit of which nothing can be recorded, as a key of it is not what it must be, before its outcomes are
    /// passed over: from then on nothing that was read of it may be acknowledged, so that it is all read again.
    pub on_refused: Box<dyn Fn(UnitId) + Send + Sync>,
    pub poison: Poison,
    /// Called on the scribe's thread when it can go on no more.
    pub on_poison: Arc<dyn Fn() + Send + Sync>,
}

/// Outcomes appended together.
pub(super) struct Run {
    pub appended: Appended,
    pub requests: Vec<Bytes>,
    /// See [`Barrier::mark`].
    pub mark: u64,
}

#[derive(Default)]
pub(super) struct Runs {
    /// Not with the scribe yet.
    pub waiting: VecDeque<Run>,
    pub durable: VecDeque<Appended>,
    /// Outcomes that were appended and not taken.
    item_count: usize,
    end: u64,
}

/// How the log is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogHealth {
    /// Why nothing can be recorded now, while that is so.
    pub failing: Option<String>,
    /// Outcomes that are not durable yet.
    pub waiting_count: usize,
    /// Since the start.
    pub frame_count: u64,
    pub frame_bytes: u64,
    /// Announcements that did not go through.
    pub unannounced_count: u64,
}

/// What the log and its scribe share.
pub(super) struct Shared {
    runs: Mutex<Runs>,
    pub bell: Bell,
    pub stopping: AtomicBool,
    pub on_news: OnceLock<Box<dyn Fn() + Send + Sync>>,
    pub failing: Mutex<Option<String>>,
    pub frame_count: AtomicU64,
    pub frame_bytes: AtomicU64,
    pub unannounced_count: AtomicU64,
}

impl Shared {
    pub fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_failing(&self, reason: Option<String>) {
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}

pub struct RedisOutcomeLog {
    shared: Arc<Shared>,
    barrier: Arc<dyn Barrier>,
    poison: Poison,
    items_max: usize,
    scribe: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, thiserror::Error)]
pub enum LogStartError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the scribe's thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

impl RedisOutcomeLog {
    /// Starts the scribe. It connects when there is something to write.
    pub fn start(options: LogOptions, parts: LogParts) -> Result<RedisOutcomeLog, LogStartError> {
        let link = Link::new(&parts.target)?;
        let shared = Arc::new(Shared {
            runs: Mutex::default(),
            bell: Bell::new(),
            stopping: AtomicBool::new(false),
            on_news: OnceLock::new(),
            failing: Mutex::default(),
            frame_count: AtomicU64::new(0),
            frame_bytes: AtomicU64::new(0),
            unannounced_count: AtomicU64::new(0),
        });
        let (barrier, poison) = (parts.barrier.clone(), parts.poison.clone());
        let scribe = scribe::start(shared.clone(), link, options, parts)?;
        let scribe = Mutex::new(Some(scribe));
        Ok(RedisOutcomeLog { shared, barrier, poison, items_max: options.items_max, scribe })
    }

    /// What is called whenever runs have become durable. Once.
    pub fn on_news(&self, tell: Box<dyn Fn() + Send + Sync>) {
        assert!(self.shared.on_news.set(tell).is_ok(), "told twice whom to tell");
    }

    /// The barrier may have been passed: to be called after every sync of the journal. Cheap.
    pub fn wake(&self) {
        self.shared.bell.ring();
    }

    pub fn health(&self) -> LogHealth {
        let runs = self.shared.runs();
        let durable: usize = runs.durable.iter().map(|run| run.count as usize).sum();
        LogHealth {
            failing: self.shared.failing.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            waiting_count: runs.item_count - durable,
            frame_count: self.shared.frame_count.load(Ordering::Relaxed),
            frame_bytes: self.shared.frame_bytes.load(Ordering::Relaxed),
            unannounced_count: self.shared.unannounced_count.load(Ordering::Relaxed),
        }
    }

    /// Stops the scribe where it is. What is not durable by then was not acknowledged either, and comes again.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.bell.ring();
        let scribe = self.scribe.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(scribe) = scribe {
            // A panic was caught inside; the poison has it.
            let _ = scribe.join();
        }
    }
}

impl Drop for RedisOutcomeLog {
    fn drop(&mut self) {
        self.stop();
    }
}

impl OutcomeLog for RedisOutcomeLog {
    fn wants_requests(&self) -> bool {
        true
    }

    fn append(&self, outcomes: &[u8], requests: Vec<Bytes>) -> Result<(), OutcomeError> {
        if let Some(reason) = self.poison.reason() {
            return Err(OutcomeError::Stopped(reason));
        }
        let count = entries(outcomes).count();
        assert_eq!(count, requests.len(), "every outcome comes with its request");
        let mark = self.barrier.mark();
        let bytes = outcomes.to_vec();
        let mut runs = self.shared.runs();
        runs.item_count += count;
        assert!(runs.item_count <= self.items_max, "more outcomes under way than the ring has slots");
        let place = runs.end;
        runs.end += outcomes.len() as u64;
        let appended = Appended { bytes, count: count as u32, place, end: runs.end };
        runs.waiting.push_back(Run { appended, requests, mark });
        drop(runs);
        self.shared.bell.ring();
        Ok(())
    }

    fn take_durable(&self) -> Option<Appended> {
        let mut runs = self.shared.runs();
        let run = runs.durable.pop_front()?;
        runs.item_count -= run.count as usize;
        Some(run)
    }

    fn has_durable(&self) -> bool {
        !self.shared.runs().durable.is_empty()
    }

    fn appended_end(&self) -> u64 {
        self.shared.runs().end
    }
}
