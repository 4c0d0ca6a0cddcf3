//! Watches the Redis servers: what may be stated of durability, whether they are full, what they need.
//!
//! One thread with a link of its own, so that a slow server slows nobody's work here. It looks often while servers
//! fill up, rarely while they idle; it asks for the rewrite of an append-only file that may have been cut off; and
//! it trims the outcome streams of the units that are held, and the results of all clients. What holds: until a first look succeeded, and whenever
//! the last one failed, no more than `memory` is stated.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::intake::redis::{Held, Keys, UnitId, results_room};
use crate::outcome::redis::trim::{TrimOptions, Trimmer};
use crate::redis::{Command, Durability, Failure, Finding, Link, Servers, Severity, Target, Watch, Wish};

/// Between looks while a server fills up, and while none does.
const LOOK_BUSY: Duration = Duration::from_millis(200);
const LOOK_IDLE: Duration = Duration::from_secs(1);
/// Share of its memory from which on a server counts as filling up, in percent.
const FILLING_PERCENT: u64 = 50;
const TRIM_EVERY: Duration = Duration::from_secs(5);
/// One in so many bytes of a server may be results of one client.
const RESULTS_SHARE: u64 = 16;
/// How long outcomes that all have read are kept while a server fills up.
const RETENTION_FILLING: Duration = Duration::from_secs(5);
/// Share from which on, shortly before the door closes, nothing is kept for readers that were not seen for a while.
const PRESSING_PERCENT: u64 = 75;
const SILENT_PRESSING: Duration = Duration::from_secs(300);

/// How the servers are, as of the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What an acknowledged write may be said to have.
    pub durability: Arc<str>,
    pub is_full: bool,
    /// Why they could not be looked at, if so.
    pub unreachable: Option<String>,
    /// Memory used and its bound (0: none) of the fullest.
    pub used_bytes: u64,
    pub bound_bytes: u64,
}

#[derive(Default)]
struct Stop {
    is_set: Mutex<bool>,
    bell: Condvar,
}

pub struct Sentry {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

/// Who reads what the sentry saw.
#[derive(Clone)]
pub struct Sight(Arc<Mutex<Seen>>);

impl Sight {
    pub fn seen(&self) -> Seen {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub struct SentryOptions {
    pub target: Target,
    pub keys: Arc<Keys>,
    pub held: Arc<Held>,
    pub durability_min: Durability,
    pub durability_assumed: Option<Durability>,
    pub retention: Duration,
    /// Of one client's results.
    pub results_bytes_max: u64,
}

/// Looks at the servers before anything is started: what is wrong with them is logged, each with the command that mends it;
/// refuses those that cannot be used.
pub fn inspect(options: &SentryOptions) -> anyhow::Result<()> {
    let mut link = Link::new(&options.target)?;
    let servers = Servers::read(&mut link)
        .with_context(|| format!("Redis at {} does not tell how it is", options.target.shown()))?;
    let findings =
        crate::redis::durability::findings(&servers, options.durability_min, options.durability_assumed);
    let mut refusals = Vec::new();
    for Finding { severity, what, command } in findings {
        match severity {
            Severity::Refuse => refusals.push(format!("{what}\n    mend it: {command}")),
            Severity::Warn => tracing::warn!(mend = command, "{what}"),
        }
    }
    if refusals.is_empty() {
        return Ok(());
    }
    anyhow::bail!(
        "this Redis cannot be trusted with requests:\n  {}\nCONFIG SET lasts until Redis restarts: put the same into its \
         redis.conf",
        refusals.join("\n  ")
    )
}

impl Sentry {
    pub fn start(options: SentryOptions) -> anyhow::Result<Sentry> {
        let link = Link::new(&options.target)?;
        let first = Seen {
            durability: Arc::from(Durability::Memory.as_str()),
            is_full: false,
            unreachable: None,
            used_bytes: 0,
            bound_bytes: 0,
        };
        let (seen, stop) = (Arc::new(Mutex::new(first)), Arc::new(Stop::default()));
        let trim =
            TrimOptions { retention_ms: options.retention.as_millis() as u64, ..TrimOptions::default() };
        let mut rounds = Rounds {
            trimmer: Trimmer::new(options.keys.clone(), trim),
            options,
            link,
            watch: Watch::default(),
            seen: seen.clone(),
            trim_at: Instant::now() + TRIM_EVERY,
            untrimmed: None,
        };
        // The first look is awaited, so that the first 202 says what is so.
        let mut wait = rounds.look();
        let stopping = stop.clone();
        let thread = std::thread::Builder::new().name("sentry".to_owned()).spawn(move || {
            while !stopping.wait(wait) {
                wait = rounds.look();
            }
        })?;
        Ok(Sentry { seen, stop, thread: Some(thread) })
    }

    pub fn sight(&self) -> Sight {
        Sight(self.seen.clone())
    }
}

impl Drop for Sentry {
    fn drop(&mut self) {
        *self.stop.is_set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.bell.notify_all();
        if let Some(thread) = self.thread.take() {
            // It holds nothing that a panic could have spoiled.
            let _ = thread.join();
        }
    }
}

impl Stop {
    /// Waits; true if told to stop.
    fn wait(&self, most: Duration) -> bool {
        let is_set = self.is_set.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.bell.wait_timeout_while(is_set, most, |is_set| !*is_set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

struct Rounds {
    options: SentryOptions,
    link: Link,
    watch: Watch,
    trimmer: Trimmer,
    seen: Arc<Mutex<Seen>>,
    trim_at: Instant,
    /// Why trimming failed last.
    untrimmed: Option<Failure>,
}

impl Rounds {
    /// One look, and what follows from it; answers when to look again.
    fn look(&mut self) -> Duration {
        let seen = match Servers::read(&mut self.link) {
            Ok(servers) => self.judge(&servers),
            Err(failure) => self.blind(&failure),
        };
        let percent = match &seen.unreachable {
            None => share(seen.used_bytes, seen.bound_bytes),
            Some(_) => 0,
        };
        let is_filling = percent >= FILLING_PERCENT;
        let mut held = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        report_change(&held, &seen);
        *held = seen;
        drop(held);
        self.trim(percent);
        if is_filling { LOOK_BUSY } else { LOOK_IDLE }
    }

    fn judge(&mut self, servers: &Servers) -> Seen {
        let outlook = self.watch.see(servers, self.options.durability_assumed, Instant::now());
        for Wish::Rewrite { server } in outlook.wishes {
            let rewrite = Command::routed("BGREWRITEAOF", "");
            match self.link.round_at(&server, &[rewrite]).pop() {
                Some(Ok(_)) => tracing::info!(
                    server,
                    "its append-only file is being rewritten: it may have been cut off before this start"
                ),
                Some(Err(failure)) => {
                    tracing::warn!(server, %failure, "its append-only file was not rewritten")
                }
                None => {}
            }
        }
        let fullest = servers.each.iter().max_by_key(|facts| share(facts.used_memory, facts.maxmemory));
        let (used_bytes, bound_bytes) = fullest.map_or((0, 0), |facts| (facts.used_memory, facts.maxmemory));
        Seen {
            durability: Arc::from(outlook.durability.as_str()),
            is_full: outlook.is_full,
            unreachable: outlook.is_loading.then(|| "Redis is reading its data".to_owned()),
            used_bytes,
            bound_bytes,
        }
    }

    fn blind(&self, failure: &Failure) -> Seen {
        let before = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let durability = Arc::from(Durability::Memory.as_str());
        Seen { durability, unreachable: Some(failure.to_string()), ..before }
    }

    /// Where memory runs short, results go first, then what every reader has, and last what only a silent one has not.
    fn trim(&mut self, percent: u64) {
        let is_filling = percent >= FILLING_PERCENT;
        if Instant::now() < self.trim_at && !is_filling {
            return;
        }
        self.trim_results(percent);
        let retention = if is_filling { RETENTION_FILLING } else { self.options.retention };
        let calm = TrimOptions::default();
        let silent_ms_max = match percent >= PRESSING_PERCENT {
            true => SILENT_PRESSING.as_millis() as u64,
            false => calm.silent_ms_max,
        };
        self.trimmer.retain(TrimOptions { retention_ms: retention.as_millis() as u64, silent_ms_max });
        self.trim_at = Instant::now() + TRIM_EVERY;
        let held = &self.options.held;
        let units: Vec<UnitId> =
            self.options.keys.units().ids().filter(|unit| held.epoch(*unit).is_some()).collect();
        let failure = self.trimmer.run(&mut self.link, &units).err();
        match (&failure, &self.untrimmed) {
            (Some(failure), before) if before.as_ref() != Some(failure) => {
                tracing::warn!(%failure, "an outcome stream was not trimmed; tried again and again");
            }
            (None, Some(_)) => tracing::info!("the outcome streams are trimmed again"),
            _ => {}
        }
        self.untrimmed = failure;
    }

    fn trim_results(&mut self, percent: u64) {
        let maxmemory = self.seen.lock().unwrap_or_else(PoisonError::into_inner).bound_bytes;
        let mut bytes_max = self.options.results_bytes_max;
        if maxmemory > 0 {
            bytes_max = bytes_max.min(maxmemory / RESULTS_SHARE);
        }
        let is_pressing = percent >= PRESSING_PERCENT;
        match results_room::trim(&mut self.link, &self.options.keys, bytes_max, is_pressing) {
            Ok(0) => {}
            Ok(entries) if is_pressing => {
                tracing::warn!(
                    entries,
                    "Redis runs short of memory: results that nobody may have read were given up"
                );
            }
            Ok(entries) => tracing::debug!(entries, "the result streams were cut to their bytes"),
            Err(failure) => tracing::debug!(%failure, "the result streams were not cut; tried again"),
        }
    }
}

/// In percent; zero where there is no bound.
fn share(used: u64, bound: u64) -> u64 {
    used.saturating_mul(100).checked_div(bound).unwrap_or(0)
}

fn report_change(before: &Seen, now: &Seen) {
    if before.is_full != now.is_full {
        if now.is_full {
            tracing::error!(
                used_bytes = now.used_bytes,
                bound_bytes = now.bound_bytes,
                "Redis is nearly full: nothing new is accepted until it has drained"
            );
        } else {
            tracing::info!("Redis has room again: the door is open");
        }
    }
    match (&before.unreachable, &now.unreachable) {
        (None, Some(reason)) => tracing::error!(reason, "Redis cannot be reached; it is tried on and on"),
        (Some(_), None) => tracing::info!("Redis answers again"),
        _ => {}
    }
    if before.durability != now.durability && now.unreachable.is_none() {
        tracing::info!(from = %before.durability, to = %now.durability, "the durability that is stated changes");
    }
}
