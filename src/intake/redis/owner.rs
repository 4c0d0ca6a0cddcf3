//! The owner's thread: heartbeats, renews what this instance owns, takes what is its share and leaves what is not.
//!
//! ```text
//!  every sixth of a lease's life, in one round:
//!    renew ours, look at the others' leases, heartbeat, read the board
//!      ─> lost? ─> may we own at all? ─> our share ─> leave what is above it, acquire what is free below it
//! ```
//!
//! What holds: what is not renewed in time is lost here before it is lost in Redis; a unit is opened to the reader
//! only after `on_gained` said that what must be known of it is known; nothing is acquired or left while Redis or
//! the board cannot be read. A stop leaves all, waits for quiet, releases all in one round and takes the entry off
//! the board. Dropped without a stop, it releases nothing: the leases run out, as after a crash.

mod observe;
mod worker;

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::anomaly::{Anomaly, Standing};
use super::board;
use super::held::Held;
use super::keys::Keys;
use super::units::UnitId;
use crate::redis::{Failure, Link, LinkError, Target, reply};
use crate::ring::Poison;
use worker::Worker;

/// Life of a lease without renewal, if nothing else is set.
pub const TTL_DEFAULT: Duration = Duration::from_millis(3_000);
/// Shorter ones would be lost to an ordinary pause of the machine or of Redis.
pub const TTL_MIN: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
pub struct OwnerOptions {
    /// Name and version of this instance, and where its door is, for the board.
    pub name: String,
    pub version: String,
    pub http: Option<String>,
    /// Life of a lease without renewal.
    pub ttl: Duration,
    /// Redis of the intake. Its timeouts are cut to a sixth of the lease's life.
    pub target: Target,
    /// Redis of the board, where it is another one.
    pub board: Option<Target>,
}

/// What the service knows of itself; counts since its start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vitals {
    pub accepted: u64,
    pub settled: u64,
    /// Accepted and not settled, of the units held.
    pub depth: u64,
    /// When the oldest of them was accepted, Unix ms, where that is known.
    pub oldest_at: Option<u64>,
    /// Identity of the wallet, once it said it. Until then nothing is owned.
    pub wallet: Option<String>,
    /// Identity of the outcome view that the fleet shares; none: the view is this instance's own.
    pub view: Option<String>,
    /// Its calls to the wallet fail while the others' do not: they should have its units.
    pub is_unwell: bool,
}

type Gained = Box<dyn FnMut(&[UnitId]) -> Result<(), String> + Send>;

/// What the owner's thread asks and tells. Each must return well within a sixth of a lease's life.
pub struct Hooks {
    pub vitals: Box<dyn Fn() -> Vitals + Send>,
    /// These units are ours and not read yet: suspects and campaigns are to be read anew. Asked again after a
    /// refusal (which says why), until the lease is lost.
    pub on_gained: Gained,
    /// Units, members or anomaly changed.
    pub on_change: Box<dyn Fn() + Send>,
    /// Set if the thread panics, and then `on_poison` is called.
    pub poison: Poison,
    pub on_poison: Arc<dyn Fn() + Send + Sync>,
}

#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    #[error(transparent)]
    Link(#[from] LinkError),
    /// This configuration does not go with what the fleet was set up with.
    #[error(transparent)]
    Refused(Anomaly),
    #[error("intake.redis.owner_ttl_ms is {}; it must be {} or more", .0.as_millis(), TTL_MIN.as_millis())]
    TtlTooShort(Duration),
    #[error("the thread of the owner cannot be started: {0}")]
    Thread(std::io::Error),
}

/// How the thread is to end.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Leave all, and wait until then for quiet.
    Release { until: Instant },
    /// At once, releasing nothing.
    Abandon,
}

#[derive(Default)]
struct Control {
    end: Mutex<Option<End>>,
    bell: Condvar,
}

impl Control {
    fn end(&self) -> Option<End> {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, end: End) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(end);
        self.bell.notify_all();
    }

    /// Waits at most this long; returns early when told to end.
    fn wait(&self, most: Duration) {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if end.is_none() {
            drop(self.bell.wait_timeout(end, most).unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// The running thread.
pub struct Owner {
    control: Arc<Control>,
    standing: Arc<Standing>,
    thread: Option<JoinHandle<()>>,
}

impl Owner {
    /// Refuses a configuration that does not go with the fleet's, if Redis can be asked now; otherwise that is found
    /// out later, and nothing is owned before.
    pub fn start(
        options: OwnerOptions,
        keys: Keys,
        held: Arc<Held>,
        hooks: Hooks,
    ) -> Result<Owner, OwnerError> {
        if options.ttl < TTL_MIN {
            return Err(OwnerError::TtlTooShort(options.ttl));
        }
        let incarnation = held.incarnation();
        assert!(!incarnation.is_empty() && !incarnation.contains('|'), "{incarnation:?} cannot be stored");
        let open = |target: &Target| Link::new(&hasty(target, options.ttl));
        let mut link = open(&options.target)?;
        let mut board = options.board.as_ref().map(open).transpose()?;
        let units = keys.units().clone();
        let has_agreed = match agree_on_shards(board.as_mut().unwrap_or(&mut link), &keys) {
            Ok(agreed) => agreed.map(|()| true).map_err(OwnerError::Refused)?,
            Err(failure) => {
                tracing::warn!(%failure, "nothing is owned before Redis can be asked");
                false
            }
        };
        let (control, standing) = (Arc::new(Control::default()), Arc::new(Standing::default()));
        let (poison, on_poison) = (hooks.poison.clone(), hooks.on_poison.clone());
        let mut worker = Worker::new(options, keys, held.clone(), hooks, (link, board), standing.clone());
        if has_agreed {
            worker.has_agreed();
        }
        let (its_control, units) = (control.clone(), units.ids());
        let run = move || {
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker.run(&its_control)));
            if let Err(panic) = ran {
                let reason = crate::ring::poison::panic_text(&*panic);
                tracing::error!(reason, "the owner's thread panicked");
                poison.set(format!("the owner's thread panicked: {reason}"));
                on_poison();
            }
            // Whatever ended it: nobody renews any more.
            units.for_each(|unit| held.lost(unit));
        };
        let thread = std::thread::Builder::new().name("owner".to_owned()).spawn(run);
        let thread = Some(thread.map_err(OwnerError::Thread)?);
        Ok(Owner { control, standing, thread })
    }

    /// How it stands, for readiness, door and metrics.
    pub fn standing(&self) -> Arc<Standing> {
        self.standing.clone()
    }

    /// Leaves every unit, waits for the reader to be quiet within `wait_max`, releases all at once, and takes this
    /// instance off the board. Returns when that is done or was tried in vain.
    pub fn stop(mut self, wait_max: Duration) {
        self.end(End::Release { until: Instant::now() + wait_max });
    }

    fn end(&mut self, end: End) {
        self.control.set(end);
        if let Some(thread) = self.thread.take() {
            // A panic in it is in the poison.
            let _ = thread.join();
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.end(End::Abandon);
    }
}

/// A lease must not run out while one command is waited for.
fn hasty(target: &Target, ttl: Duration) -> Target {
    let mut target = target.clone();
    target.connect_timeout = target.connect_timeout.min(ttl / 6);
    target.response_timeout = target.response_timeout.min(ttl / 6);
    target
}

/// Stores the number of shards and fair queues if none is stored, and compares.
fn agree_on_shards(link: &mut Link, keys: &Keys) -> Result<Result<(), Anomaly>, Failure> {
    let mut results = link.round(&[board::claim_shards(keys), board::read_shards(keys)]);
    let read = results.pop().expect("one result a command")?;
    let (ours, stored) = (board::shards_text(keys.units()), reply::text("GET", read)?);
    Ok(match stored {
        Some(stored) if stored == ours => Ok(()),
        Some(stored) => Err(Anomaly::ShardsDiffer { ours, stored }),
        None => return Err(Failure::Unknown("the number of shards could not be stored".to_owned())),
    })
}
