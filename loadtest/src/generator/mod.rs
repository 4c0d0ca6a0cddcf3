//! The load: threads that send calls when they are due, whatever the answers do (open loop).
//!
//! ```text
//! Schedule ─> due calls ─> waiting ─> connection ─> answer ─┬─> definite: the fates of its requests
//!                 ^                                         └─> anything else: the same call again, later
//! ```
//!
//! What holds: latency counts from the time a call was meant to be sent, so a call that waits for a connection or
//! for a retry is as late as its user would find it. A thread owns its connections, its requests and its counts, and
//! shares nothing while it runs but [`Live`] numbers. The golden rule for callers: on anything but a definite answer,
//! the same id and body again. Absent: looking up what became of requests later on.

mod connection;
mod judge;
mod lane;
mod tally;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

pub use tally::{BIN_MS, Bin, Counts, Interval, Violations, latencies};

use crate::arrivals::Arrivals;
use crate::scenario::{Door, Generator, Load, Spacing};
use crate::traffic::{HttpHead, Traffic};

/// The list that anyone may push requests to.
pub const LIST: &str = "hongbao:intake";

#[derive(Debug, thiserror::Error)]
pub enum GeneratorError {
    #[error("the load generator cannot {what}: {error}")]
    Io { what: &'static str, error: std::io::Error },
    #[error("a thread of the load generator panicked: {0}")]
    Panicked(String),
}

/// What became of a fresh request, as its caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fate {
    Unsent,
    /// Sent, and never answered definitely.
    Open,
    Acknowledged,
    /// Definitely not accepted.
    Refused,
}

/// How calls are paced.
#[derive(Clone, Debug)]
pub enum Pace {
    /// When the arrivals are due.
    Arrivals { arrivals: Arrivals, spacing: Spacing, seed: u64 },
    /// As fast as the connections are answered (closed loop): for ceilings only.
    Flood { for_s: f64 },
}

impl Pace {
    pub fn length_s(&self) -> f64 {
        match self {
            Pace::Arrivals { arrivals, .. } => arrivals.length_s(),
            Pace::Flood { for_s } => *for_s,
        }
    }
}

/// What all threads of a phase share.
#[derive(Debug)]
pub struct Plan {
    pub pace: Pace,
    pub traffic: Arc<Traffic>,
    pub load: Load,
    pub settings: Generator,
    pub head: HttpHead,
    pub addresses: Vec<SocketAddr>,
    /// Zero of all times told.
    pub epoch: Instant,
    /// When the phase begins.
    pub begin: Instant,
    /// This process makes part `part` of `parts` of the load.
    pub part: u32,
    pub parts: u32,
    pub lane_first: u32,
    pub live: Arc<Live>,
    pub stop: Arc<AtomicBool>,
}

impl Plan {
    pub fn is_list(&self) -> bool {
        self.load.door == Door::List
    }
}

/// Numbers for the screen, while it runs; requests.
#[derive(Debug, Default)]
pub struct Live {
    pub offered: AtomicU64,
    pub accepted: AtomicU64,
    pub refused: AtomicU64,
    /// Calls that were sent again.
    pub retried: AtomicU64,
    /// Calls that are due and wait for a connection.
    pub waiting: AtomicU64,
    /// The worst lag of the generator itself.
    pub lag_us: AtomicU64,
}

impl Live {
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// Fresh requests of one lane, acknowledged at a time.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    pub lane: u32,
    pub first: u32,
    pub count: u32,
    /// Microseconds since the epoch.
    pub at_us: u64,
}

/// What a lane leaves behind.
#[derive(Debug)]
pub struct LaneReport {
    pub lane: u32,
    pub fates: Vec<Fate>,
    pub counts: Counts,
    pub bins: Vec<Bin>,
}

/// Where a lane sends what it finds while it runs.
#[derive(Clone, Debug)]
pub struct Outlets {
    pub acknowledged: Sender<Vec<Acknowledged>>,
    pub intervals: Sender<Interval>,
}

/// Runs one phase on its threads, to the end.
pub fn generate(plan: &Arc<Plan>, outlets: &Outlets) -> Result<Vec<LaneReport>, GeneratorError> {
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for thread in 0..plan.settings.threads {
            let (plan, outlets) = (plan.clone(), outlets.clone());
            let named = std::thread::Builder::new().name(format!("generator-{thread}"));
            let spawned = named.spawn_scoped(scope, move || lane::run(&plan, thread, &outlets));
            threads.push(spawned.map_err(|error| GeneratorError::Io { what: "start a thread", error })?);
        }
        let joined = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "no message".to_owned());
                Err(GeneratorError::Panicked(text))
            })
        });
        joined.collect()
    })
}

/// Time between two looks at what no event announces: timeouts, the stop flag.
pub(crate) const TICK: Duration = Duration::from_millis(50);
