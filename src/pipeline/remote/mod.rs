//! Settlement at a wallet elsewhere: many calls under way, answers late, out of order, or lost.
//!
//! ```text
//!  feed ──> decode ──> check ──> dispatch ───────────────> acknowledge
//!                                │   ▲  answers, late,     what is done
//!                                ▼   │  in any order       without a gap
//!                              the wallet        ──> outcome log (durable) ──> desk, window
//! ```
//!
//! [`calls`] decides what is sent when, and is pure; [`sluice`] asks the breaker whether it may go, and how much of it;
//! [`gate`] knows what the answers say of this instance; [`sender`] makes the calls; [`dispatch`] is the stage that joins
//! them to the ring and the outcome log; [`window`] is the side array of done slots that [`acknowledge`] takes the
//! prefix from; [`sent_before`] knows what an earlier process may have sent. A wallet's failure stops the feed by way of a full ring; it never fails or parks anything.

pub mod acknowledge;
pub mod calls;
pub mod counts;
pub mod dispatch;
pub mod gate;
mod pulse;
pub mod sender;
pub mod sent_before;
pub mod sluice;
pub mod window;

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use self::calls::CallOptions;
use self::counts::RemoteCounts;
use self::dispatch::{Dispatch, DispatchParts};
use self::sender::Sender;
use self::sent_before::SentBefore;
use self::sluice::Breaker;
use self::window::Window;
use super::commit::Teller;
use super::feed::FeedCounts;
use super::{Parts, PipelineOptions};
use crate::domain::Lane;
use crate::intake::QueueId;
use crate::ring::Bell;
use crate::stored_value::remote::RemoteWallet;

/// How a wallet elsewhere is met.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    pub batch_count_max: usize,
    pub calls_max: usize,
    pub deadline: Duration,
    pub can_burn: bool,
}

/// A wallet elsewhere, and what settling there needs to know.
pub struct Remote {
    pub wallet: Arc<dyn RemoteWallet>,
    pub runtime: tokio::runtime::Handle,
    pub options: RemoteOptions,
    /// Who the wallet is, once it has said so; nothing is fed before.
    pub identity: Arc<OnceLock<String>>,
    /// Slots of the ring that the earlier process may have had.
    pub slots_before: u64,
    /// Outcomes below this place were written by an earlier process.
    pub began_at: u64,
    /// Unacknowledged requests that have their final outcome, by place.
    pub settled: HashSet<u64>,
    /// What says whether it is called, and how fast; without one nothing holds a call.
    pub breaker: Option<Breaker>,
}

impl Remote {
    /// The stage, over the pipeline's parts.
    #[allow(clippy::too_many_arguments, reason = "the composition of one stage, called once")]
    pub(super) fn dispatch(
        &self,
        options: &PipelineOptions,
        parts: &Parts,
        teller: Teller,
        window: &Arc<Window>,
        counts: &Arc<FeedCounts>,
        remote: &Arc<RemoteCounts>,
        bells: &[Bell],
    ) -> Dispatch {
        let intake = &parts.intake;
        let lanes = Lane::ALL.into_iter();
        let queues =
            lanes.flat_map(|lane| (0..intake.fair_queue_count()).map(move |fair| QueueId { lane, fair }));
        let depths = queues.map(|queue| (queue, intake.depth(queue))).collect();
        let sent_before = SentBefore::new(self.slots_before, depths, self.began_at, self.settled.clone());
        let (calls_max, deadline) = (self.options.calls_max, self.options.deadline);
        Dispatch::new(DispatchParts {
            calls: CallOptions {
                batch_count_max: self.options.batch_count_max,
                calls_max,
                deadline,
                slot_count: options.slot_count,
            },
            sender: Sender::new(
                self.wallet.clone(),
                self.runtime.clone(),
                calls_max,
                deadline,
                self.identity.clone(),
                bells.to_vec(),
            )
            .with_stamp(self.breaker.as_ref().map(Breaker::reply_stamp)),
            window: window.clone(),
            teller,
            outcomes: parts.outcomes.clone(),
            suspects: parts.suspects.clone(),
            counts: counts.clone(),
            remote: remote.clone(),
            sent_before,
            now_ms: parts.now_ms.clone(),
            retry: options.retry,
            can_burn: self.options.can_burn,
            breaker: self.breaker.clone(),
        })
    }
}
