//! The breaker of the running service: its governor, and the thread that keeps it in step with the board.
//!
//! On the embedded intake the board is in this process, and an operator's word comes through a file in the data folder
//! ([`orders`]); over Redis it is the fleet's, and the same code runs. What holds: the thread owns the connection; the
//! governor is locked for as long as a decision takes. Stopped, it gives its share back at once.

pub mod orders;
mod sight;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use self::orders::OrdersFile;
pub use self::sight::{Sight, told};
use super::now_ms;
use crate::breaker::board::Workload;
use crate::breaker::keeper::lock;
use crate::breaker::{Board, Governor, Keeper, LocalBoard, RedisBoard, Settings, board};
use crate::config::Config;
use crate::config::redis::RedisConfig;
use crate::intake::redis::Keys;
use crate::pipeline::remote::sluice::Breaker;
use crate::redis::{Link, LinkError, Target};
use crate::ring::Poison;
use crate::ring::poison::panic_text;

/// A board that takes longer does so past the end of the lease.
const BOARD_WAIT_MAX: Duration = Duration::from_millis(250);
/// The first moment of the governor's clock is so long ago that "a while ago" can be said at the start.
const SINCE: Duration = Duration::from_secs(1);

/// Made before the pipeline, which asks it; [`BreakerThread::start`] then keeps it in step.
pub struct Made {
    pub breaker: Breaker,
    instance: String,
    waker: Arc<OnceLock<Thread>>,
}

/// A governor that sends nothing until its thread runs. `instance` names this process and no other.
pub fn make(config: &Config, instance: &str) -> Made {
    let batch_max = config.remote.batch_count_max as u64;
    let governor = Governor::new(instance, batch_max, config.breaker.clone())
        .with_deadline(config.remote.deadline.as_nanos() as u64);
    let waker: Arc<OnceLock<Thread>> = Arc::default();
    let woken = waker.clone();
    let now = Instant::now();
    let breaker = Breaker {
        governor: Arc::new(Mutex::new(governor)),
        since: now.checked_sub(SINCE).unwrap_or(now),
        on_news: Arc::new(move || {
            if let Some(thread) = woken.get() {
                thread.unpark();
            }
        }),
    };
    Made { breaker, instance: instance.to_owned(), waker }
}

/// What the thread works with.
pub struct KeeperParts {
    pub board: Box<dyn Board>,
    /// An operator's word for a board that nobody else reaches.
    pub orders: Option<OrdersFile>,
    /// What there is to do here, for the next beat.
    pub work: Box<dyn Fn() -> Workload + Send>,
    pub poison: Poison,
    pub on_poison: Arc<dyn Fn() + Send + Sync>,
}

/// The running thread.
pub struct BreakerThread {
    pub sight: Sight,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl BreakerThread {
    pub fn start(made: Made, parts: KeeperParts) -> std::io::Result<BreakerThread> {
        let Made { breaker, instance, waker } = made;
        let KeeperParts { board, mut orders, work, poison, on_poison } = parts;
        let lost: Arc<Mutex<Option<String>>> = Arc::default();
        let sight = Sight { breaker: breaker.clone(), lost: lost.clone() };
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        tracing::info!(breaker_as = instance, "takes part in the breaker");
        let mut keeper = Keeper::new(breaker.governor.clone(), board, &instance);
        let mut run = move || {
            waker.get_or_init(std::thread::current);
            let now_ns = || breaker.ns(Instant::now());
            while !stopping.load(Ordering::Acquire) {
                let wait_ns = keeper.due_at_ns().saturating_sub(now_ns());
                if wait_ns > 0 {
                    std::thread::park_timeout(Duration::from_nanos(wait_ns));
                    continue;
                }
                if let Some(orders) = &mut orders {
                    orders.carry_out();
                }
                keeper.step(&now_ns, work());
                let mut told = lost.lock().unwrap_or_else(PoisonError::into_inner);
                if told.as_deref() != keeper.lost() {
                    *told = keeper.lost().map(str::to_owned);
                }
            }
            keeper.leave();
        };
        let thread = std::thread::Builder::new().name("breaker".to_owned()).spawn(move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(&mut run)) {
                poison.set(format!("the breaker's thread panicked: {}", panic_text(&*panic)));
                on_poison();
            }
        })?;
        Ok(BreakerThread { sight, stop, thread })
    }

    /// Gives the share of the budget back. Nothing may be sent after it.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        // A panic was caught inside; the poison has it.
        let _ = self.thread.join();
    }
}

/// The board of an instance that shares with nobody.
pub fn own_board(settings: &Settings, data_dir: PathBuf) -> (Box<dyn Board>, OrdersFile) {
    // Reads as the time of day, and goes on evenly whatever is done to that.
    let (began_ms, began) = (now_ms(), Instant::now());
    let now_ms = move || began_ms + began.elapsed().as_millis() as u64;
    let board = LocalBoard::new(settings.clone(), Arc::new(now_ms));
    let orders = OrdersFile::new(data_dir, board.clone());
    (Box::new(board), orders)
}

/// The board of the fleet.
pub fn fleet_board(
    redis: &RedisConfig,
    keys: &Keys,
    settings: &Settings,
) -> Result<Box<dyn Board>, LinkError> {
    let target = Target {
        connect_timeout: redis.board.connect_timeout.min(BOARD_WAIT_MAX),
        response_timeout: redis.board.response_timeout.min(BOARD_WAIT_MAX),
        ..redis.board.clone()
    };
    Ok(Box::new(RedisBoard::new(Link::new(&target)?, &keys.board("breaker"), settings.clone())))
}

/// Who finds nobody else on the board brings its own settings; who joins goes by the fleet's, and says where they differ.
pub fn agree(board: &mut dyn Board, settings: &Settings, instance: &str) {
    let view = match board.look() {
        Ok(view) => view,
        Err(error) => {
            tracing::warn!(%error, "the budget of the fleet is not known yet; nothing is sent to the wallet");
            return;
        }
    };
    if view.state.settings == *settings {
        return;
    }
    let agreed = view.fleet() == 0;
    if !agreed {
        tracing::warn!(
            budget_per_s = view.state.settings.rate_per_s,
            ours_per_s = settings.rate_per_s,
            "the fleet's budget and breaker are set otherwise than this instance's settings say; the fleet's hold \
             (`hongbao breaker budget` changes them)"
        );
    } else if let Err(error) = board::set(board, settings, instance, "the first instance brings its own") {
        tracing::warn!(%error, "the settings of budget and breaker could not be put on the board");
    }
}

impl Sight {
    /// Whether others should have the units of this instance.
    pub fn wants_release(&self) -> bool {
        let now_ns = self.breaker.ns(Instant::now());
        lock(&self.breaker.governor).wants_release(now_ns)
    }
}
