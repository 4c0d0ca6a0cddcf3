//! The thread that keeps the view up with the log: woken by it, last in line for the processor.
//!
//! What holds: it sleeps when nothing is new; while `pause_while` says that the hot path is busy it applies
//! one small chunk an interval and no more, so that the view lags instead of taking a core, yet always moves;
//! an error or a panic is shown with its reason and retried with backoff, and never leaves this thread.
//!
//! On Linux the thread runs at the lowest priority (there a process's priority call, made for oneself, is the
//! thread's own). Elsewhere such a call would slow the whole process, so none is made.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use super::streams::FollowStreams;
use super::{Applied, Progress, View, ViewError};
use crate::outcome::FactSource;
use crate::outcome::stream::StreamSource;

/// How the worker paces itself.
#[derive(Clone)]
pub struct WorkerOptions {
    /// Facts a transaction, at most about.
    pub facts_max: usize,
    /// The same while paused.
    pub facts_paused_max: usize,
    /// Between two chunks while paused.
    pub paused_interval: Duration,
    /// After a chunk that was not full: lets facts gather, so that a steady trickle does not become a
    /// transaction each.
    pub gather: Duration,
    /// How long to sleep without being woken.
    pub idle_max: Duration,
    /// After a failure; doubles up to `backoff_max`.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    /// Whether the hot path needs the processor more. Asked once a chunk.
    pub pause_while: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Default for WorkerOptions {
    fn default() -> WorkerOptions {
        WorkerOptions {
            facts_max: 20_000,
            facts_paused_max: 2_000,
            paused_interval: Duration::from_millis(200),
            gather: Duration::from_millis(25),
            idle_max: Duration::from_secs(1),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            pause_while: Arc::new(|| false),
        }
    }
}

/// What the worker is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Up with the log.
    Idle,
    /// Catching up.
    Reading,
    /// Catching up slowly, to leave the processor to the hot path.
    Paused,
    /// Could not go on; being retried.
    Failed {
        reason: String,
        /// In a row.
        failures: u32,
    },
    Stopped,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub state: State,
    pub progress: Progress,
}

/// How far the view is behind the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// In the log's own measure.
    pub distance: u64,
    /// Facts that makes, by how many there were a distance so far; zero before the first.
    pub facts_estimated: u64,
}

/// What the worker does, again and again: applies what comes next to some view.
pub trait Work: Send + Sync + 'static {
    /// About `facts_max` of it.
    fn apply(&self, facts_max: usize) -> Result<Applied, ViewError>;
    fn progress(&self) -> Progress;
    fn lag(&self) -> Lag;
}

/// Starts a worker.
#[derive(Debug)]
pub struct Worker;

/// Wakes, watches and stops a worker. Dropping it stops it too.
pub struct WorkerHandle {
    work: Arc<dyn Work>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Starts the worker of a view in a file.
#[derive(Debug)]
pub struct ViewWorker;

/// The worker of a view in a file, and the view.
pub struct ViewHandle {
    view: Arc<View>,
    worker: WorkerHandle,
}

impl std::ops::Deref for ViewHandle {
    type Target = WorkerHandle;

    fn deref(&self) -> &WorkerHandle {
        &self.worker
    }
}

struct Shared {
    woken: AtomicBool,
    stopping: AtomicBool,
    worker: OnceLock<Thread>,
    state: Mutex<State>,
}

impl Shared {
    fn unpark(&self) {
        if let Some(worker) = self.worker.get() {
            worker.unpark();
        }
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Sleeps for `time` or until stopped; being woken cuts it short if `wakeable`.
    fn sleep(&self, time: Duration, wakeable: bool) {
        let deadline = Instant::now() + time;
        loop {
            if self.stopping() || (wakeable && self.woken.swap(false, Ordering::AcqRel)) {
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
    }
}

/// A view that reads the journal.
struct FollowFacts {
    view: Arc<View>,
    source: Arc<dyn FactSource>,
}

impl Work for FollowFacts {
    fn apply(&self, facts_max: usize) -> Result<Applied, ViewError> {
        self.view.apply(&*self.source, facts_max)
    }

    fn progress(&self) -> Progress {
        self.view.progress()
    }

    fn lag(&self) -> Lag {
        let Progress { cursor, facts, .. } = self.view.progress();
        Lag::estimate(self.source.end().saturating_sub(cursor), facts, cursor)
    }
}

impl Lag {
    /// By how many facts there were so far, in how long a distance.
    pub fn estimate(distance: u64, facts: u64, distance_so_far: u64) -> Lag {
        let estimate = u128::from(distance) * u128::from(facts) / u128::from(distance_so_far.max(1));
        Lag { distance, facts_estimated: u64::try_from(estimate).unwrap_or(u64::MAX) }
    }
}

impl ViewWorker {
    /// # Errors
    /// If the thread cannot be made.
    pub fn start(
        view: Arc<View>,
        source: Arc<dyn FactSource>,
        options: WorkerOptions,
    ) -> std::io::Result<ViewHandle> {
        let work = Arc::new(FollowFacts { view: view.clone(), source });
        Ok(ViewHandle { view, worker: Worker::start(work, options)? })
    }

    /// The same over streams.
    ///
    /// # Errors
    /// If the thread cannot be made.
    pub fn start_streams(
        view: Arc<View>,
        source: Arc<dyn StreamSource>,
        options: WorkerOptions,
    ) -> std::io::Result<ViewHandle> {
        let work = Arc::new(FollowStreams::new(view.clone(), source));
        Ok(ViewHandle { view, worker: Worker::start(work, options)? })
    }
}

impl ViewHandle {
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }
}

impl Worker {
    /// # Errors
    /// If the thread cannot be made.
    pub fn start(work: Arc<dyn Work>, options: WorkerOptions) -> std::io::Result<WorkerHandle> {
        let shared = Arc::new(Shared {
            woken: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            worker: OnceLock::new(),
            state: Mutex::new(State::Reading),
        });
        let thread = {
            let (work, shared) = (work.clone(), shared.clone());
            thread::Builder::new().name("view".into()).spawn(move || {
                lower_priority();
                shared.worker.get_or_init(thread::current);
                run(&*work, &shared, &options);
                shared.set(State::Stopped);
            })?
        };
        shared.worker.get_or_init(|| thread.thread().clone());
        Ok(WorkerHandle { work, shared, thread: Mutex::new(Some(thread)) })
    }
}

impl WorkerHandle {
    /// Something new is in the log. Cheap enough to be called at every sync.
    pub fn wake(&self) {
        if !self.shared.woken.swap(true, Ordering::AcqRel) {
            self.shared.unpark();
        }
    }

    pub fn health(&self) -> Health {
        Health { state: self.shared.state(), progress: self.work.progress() }
    }

    pub fn lag(&self) -> Lag {
        self.work.lag()
    }

    /// Lets the chunk under way end, and waits for the thread. Once is enough; more does no harm.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.unpark();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the outcome view's thread ended in a panic outside of a chunk");
        }
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(work: &dyn Work, shared: &Shared, options: &WorkerOptions) {
    let mut failures: u32 = 0;
    while !shared.stopping() {
        let mut paused = false;
        let outcome = contained(|| {
            paused = (options.pause_while)();
            let facts_max = if paused { options.facts_paused_max } else { options.facts_max };
            work.apply(facts_max).map_err(|error| error.to_string())
        });
        match outcome {
            Ok(applied) => {
                if failures > 0 {
                    tracing::info!(failures, "the outcome view goes on");
                }
                failures = 0;
                rest(shared, options, applied, paused);
            }
            Err(reason) => {
                failures = failures.saturating_add(1);
                if failures == 1 {
                    tracing::error!(%reason, "the outcome view cannot go on; it will be retried");
                }
                shared.set(State::Failed { reason, failures });
                let factor = 1u32 << (failures - 1).min(16);
                let backoff = options.backoff_min.saturating_mul(factor).min(options.backoff_max);
                shared.sleep(backoff, false);
            }
        }
    }
}

/// What to do after a chunk that went well.
fn rest(shared: &Shared, options: &WorkerOptions, applied: Applied, paused: bool) {
    if !applied.advanced {
        shared.set(State::Idle);
        shared.sleep(options.idle_max, true);
    } else if paused {
        shared.set(State::Paused);
        shared.sleep(options.paused_interval, false);
    } else {
        shared.set(State::Reading);
        if (applied.facts as usize) < options.facts_max / 2 {
            shared.sleep(options.gather, false);
        }
    }
}

/// Runs `work`; a panic becomes the reason of a failure.
fn contained<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    // The view drops its transaction as it unwinds, and forgets what it had gathered at the next chunk.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        Err(format!("it panicked: {text}"))
    })
}

#[cfg(target_os = "linux")]
fn lower_priority() {
    if let Err(error) = rustix::process::setpriority_process(None, 19) {
        tracing::warn!(%error, "the outcome view keeps its priority");
    }
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {}
