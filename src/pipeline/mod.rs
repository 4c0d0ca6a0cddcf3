//! The settle pipeline: from accepted to final.
//!
//! ```text
//!  feed ──> decode ──> check ──> settle ──> record ──> commit
//!  queues   readable?  may it    the        outcome    once durable: ack the queues,
//!  in turn,            be paid   wallet     into the   tell the desk
//!  at the   ─> lane    now?      decides    log
//!  pace                ─> lane   ─> lane
//! ```
//!
//! What holds: an outcome rests on what the wallet answered; a queue is acknowledged only past outcomes that
//! are durable; a stage that panics stops the pipeline before anyone uses what it left. Slots pass every stage
//! in order, so what commit sees is always a contiguous prefix of each queue. Absent: HTTP, and any adapter's
//! name. The graph is that of a wallet in this process; [`remote`] has the other, where settle, record and commit are
//! one stage that sends, and one that acknowledges.

pub mod check;
pub mod commit;
pub mod decode;
pub mod feed;
pub mod record;
pub mod remote;
pub mod retry;
pub mod settle;
pub mod slot;
pub mod suspects;

use std::sync::Arc;

use crate::domain::UnixMs;
use crate::intake::desk::campaigns::Registry;
use crate::intake::{Informed, Intake, Shelf};
use crate::outcome::OutcomeLog;
use crate::ring::threads::Threads;
use crate::ring::{Bell, Chain, Poison, Stage};
use crate::stored_value::StoredValue;
use feed::{Feed, FeedCounts};
use remote::Remote;
use remote::acknowledge::Acknowledge;
use remote::counts::RemoteCounts;
use remote::window::Window;
use retry::Retry;
use slot::Slot;
use suspects::Suspects;

#[derive(Clone, Debug)]
pub struct PipelineOptions {
    /// Slots of the ring; a power of two.
    pub slot_count: usize,
    /// Threads that carry the stages, from 1 to 5.
    pub thread_count: usize,
    /// Slots a stage takes at once.
    pub batch_count_max: usize,
    /// Transfers a second of a wallet in this process, 0 for unlimited.
    pub transfers_per_s: u64,
    /// When a parked request is tried again.
    pub retry: Retry,
}

/// Where transfers are decided.
pub enum Wallet {
    /// In this process: at once, in order.
    Here(Arc<dyn StoredValue>),
    Elsewhere(Remote),
}

/// Takes into the registry what others have decided about campaigns by now; false if that cannot be known. May block
/// for as long as a reply is waited for.
pub type CatchUp = Arc<dyn Fn() -> bool + Send + Sync>;

/// The parts that the stages work with.
pub struct Parts {
    pub intake: Arc<dyn Intake>,
    pub shelf: Arc<dyn Shelf>,
    pub informed: Arc<dyn Informed>,
    pub registry: Registry,
    pub catch_up: Option<CatchUp>,
    pub wallet: Wallet,
    pub outcomes: Arc<dyn OutcomeLog>,
    pub suspects: Arc<Suspects>,
    pub now_ms: Arc<dyn Fn() -> UnixMs + Send + Sync>,
}

/// The running pipeline.
pub struct Pipeline {
    threads: Threads,
    bells: Vec<Bell>,
    pub counts: Arc<FeedCounts>,
    pub settled: Arc<commit::SettleCounts>,
    /// Stays at nothing where the wallet is in this process.
    pub remote: Arc<RemoteCounts>,
}

impl Pipeline {
    /// The graph.
    pub fn start(
        options: &PipelineOptions,
        parts: Parts,
        poison: Poison,
        on_poison: Arc<dyn Fn() + Send + Sync>,
    ) -> std::io::Result<Pipeline> {
        let counts = Arc::new(FeedCounts::default());
        let settled = Arc::new(commit::SettleCounts::default());
        let remote = Arc::new(RemoteCounts::default());
        let suspects = parts.suspects.clone();
        let batch = options.batch_count_max as u64;
        let thread_count = options.thread_count.clamp(1, 5);
        let bells: Vec<Bell> = (0..thread_count).map(|_| Bell::new()).collect();
        let mut stages: Vec<Box<dyn Stage<Slot>>> = vec![
            Box::new(decode::Decode::new(batch, suspects.clone())),
            Box::new(check::Check::new(batch, &parts, suspects.clone())),
        ];
        let teller = commit::Teller::new(parts.informed.clone(), settled.clone());
        match &parts.wallet {
            Wallet::Here(wallet) => {
                stages.push(Box::new(settle::Settle::new(batch, wallet.clone(), suspects.clone())));
                stages.push(Box::new(record::Record::new(batch, &parts, options.retry)));
                stages.push(Box::new(commit::Commit::new(&parts, counts.clone(), teller)));
            }
            Wallet::Elsewhere(wallet) => {
                let is_unknown = wallet.identity.get().is_none();
                counts.wallet_unknown.store(is_unknown, std::sync::atomic::Ordering::Release);
                // Nothing ahead, until the stage says how much.
                counts.ahead_max.store(1, std::sync::atomic::Ordering::Release);
                let window = Arc::new(Window::new(options.slot_count));
                let dispatch = wallet.dispatch(options, &parts, teller, &window, &counts, &remote, &bells);
                stages.push(Box::new(dispatch));
                stages.push(Box::new(Acknowledge::new(parts.intake.clone(), counts.clone(), window, batch)));
            }
        }
        let chain = Chain::new(options.slot_count, Slot::default, stages);
        let pace = match &parts.wallet {
            Wallet::Here(_) => options.transfers_per_s,
            // The breaker's lease is the pace.
            Wallet::Elsewhere(_) => 0,
        };
        let feeder = Box::new(Feed::new(options, pace, &parts, suspects, counts.clone()));
        let threads = Threads::start(chain, feeder, bells.clone(), poison, on_poison)?;
        Ok(Pipeline { threads, bells, counts, settled, remote })
    }

    /// Wakes the threads.
    pub fn ring(&self) {
        self.bells.iter().for_each(Bell::ring);
    }

    pub fn bells(&self) -> Vec<Bell> {
        self.bells.clone()
    }

    /// What is to be called when requests or outcomes have become durable. It does not keep the pipeline alive.
    pub fn on_sync(&self) -> impl Fn() + Send + Sync + 'static {
        let (bells, counts) = (self.bells.clone(), self.counts.clone());
        move || {
            // A feed that lingers has a deadline: a ring that it misses costs it at most that.
            let concerns_ring = counts.in_ring() > 0;
            if concerns_ring || !counts.lingering.load(std::sync::atomic::Ordering::Acquire) {
                bells.iter().for_each(Bell::ring);
            }
        }
    }

    /// Nothing more is fed; what is in the ring goes on.
    pub fn stop_feeding(&self) {
        self.counts.stop.store(true, std::sync::atomic::Ordering::Release);
        self.ring();
    }

    /// Whether everything that was fed is committed.
    pub fn is_drained(&self) -> bool {
        self.counts.in_ring() == 0
    }

    pub fn stop(self) {
        self.threads.stop();
    }
}
