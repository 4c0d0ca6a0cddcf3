//! What the reader is given, what it tells, and what it shares with whoever reads its queues.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::UnixMs;
use crate::intake::redis::contents::{Elements, Graveyard};
use crate::intake::redis::queues::Queues;
use crate::intake::redis::units::UnitId;
use crate::ring::Bell;

#[derive(Clone, Debug)]
pub struct ReaderOptions {
    /// Requests read and not acknowledged, in all.
    pub requests_max: u64,
    /// The memory they take, in bytes.
    pub bytes_max: u64,
    /// Elements that are larger are not looked into.
    pub element_bytes_max: u64,
    /// Between looks at empty lists, ms; less while something is found.
    pub poll_ms_max: u64,
}

impl Default for ReaderOptions {
    fn default() -> ReaderOptions {
        ReaderOptions {
            requests_max: 65_536,
            bytes_max: 64 << 20,
            element_bytes_max: 1 << 20,
            poll_ms_max: 50,
        }
    }
}

/// What must not happen unless somebody else changes our keys, or Redis loses them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Anomaly {
    #[error(
        "{key} is gone: Redis has lost its data (FLUSHALL, or a restart without its append-only file), or somebody \
         removed the key; nothing of this unit is read until it is owned again"
    )]
    OwnerGone { key: String },
    #[error(
        "{key} has {found} elements where {expected} must be: somebody else changes the key, or Redis lost \
         acknowledged writes (a failover, a restart); everything in it is read again"
    )]
    LengthChanged { key: String, expected: u64, found: u64 },
    #[error(
        "{key}, or a generation sealed from it, is not a list: rename it, or remove it; the unit stands still"
    )]
    WrongType { key: String },
}

/// Whoever is told that something is wrong with a unit.
pub type OnAnomaly = Box<dyn Fn(UnitId, &Anomaly) + Send + Sync>;

/// What the reader works with.
pub struct ReaderParts {
    pub elements: Arc<dyn Elements>,
    pub graveyard: Arc<dyn Graveyard>,
    pub now_ms: Arc<dyn Fn() -> UnixMs + Send + Sync>,
    /// Called after requests were added to the local queues.
    pub on_news: Box<dyn Fn() + Send + Sync>,
    /// Called once for each time that something is found to be wrong with a unit.
    pub on_anomaly: OnAnomaly,
}

/// What the reader shares with whoever reads its queues.
pub struct Shared {
    pub queues: Queues,
    pub(super) bell: Bell,
    is_woken: AtomicBool,
    stop: AtomicBool,
    /// Elements in Redis, and requests there and here, of the units that are held.
    pub elements: AtomicU64,
    pub requests: AtomicU64,
    /// How often a unit was gained or lost.
    hands: AtomicU64,
    troubles: Mutex<BTreeMap<UnitId, String>>,
}

impl Shared {
    pub fn new(fair_queue_count: u8) -> Shared {
        Shared {
            queues: Queues::new(fair_queue_count),
            bell: Bell::new(),
            is_woken: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            elements: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            hands: AtomicU64::new(0),
            troubles: Mutex::default(),
        }
    }

    pub fn hands(&self) -> u64 {
        self.hands.load(Ordering::Acquire)
    }

    pub(super) fn change_hands(&self) {
        self.hands.fetch_add(1, Ordering::Release);
    }

    /// There may be something in a list.
    pub fn wake(&self) {
        self.is_woken.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// Something is done.
    pub fn ring(&self) {
        self.bell.ring();
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.bell.ring();
    }

    pub(super) fn has_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Whether it was woken since this was asked last.
    pub(super) fn take_woken(&self) -> bool {
        self.is_woken.swap(false, Ordering::AcqRel)
    }

    pub(super) fn is_woken(&self) -> bool {
        self.is_woken.load(Ordering::Acquire)
    }

    pub(super) fn set_trouble(&self, unit: UnitId, what: String) {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).insert(unit, what);
    }

    pub(super) fn clear_trouble(&self, unit: UnitId) {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).remove(&unit);
    }

    /// Units that cannot work now, and why.
    pub fn troubles(&self) -> Vec<(UnitId, String)> {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.iter().map(|(unit, what)| (*unit, what.clone())).collect()
    }
}
