//! Makes the calls: each as a task of the wallet's runtime, its reply brought back to the settle thread.
//!
//! What holds: every call that was begun comes back once, as a reply or as an error, soon after its deadline at
//! the latest; also if the adapter panics.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use tokio::runtime::Handle;

use super::sluice::ReplyStamp;
use crate::ring::Bell;
use crate::stored_value::TransferBatch;
use crate::stored_value::remote::{Answer, CallError, RemoteWallet, Reply};

/// How long past the deadline an adapter may take to say that it has passed.
const GRACE: Duration = Duration::from_millis(500);

pub type Replied = (u64, Result<Vec<Answer>, CallError>);

/// What is sent.
pub enum Outgoing {
    Transfers(TransferBatch),
    Burn(Vec<String>),
}

pub struct Sender {
    wallet: Arc<dyn RemoteWallet>,
    runtime: Handle,
    deadline: Duration,
    identity: Arc<OnceLock<String>>,
    replies: Arc<ArrayQueue<Replied>>,
    bells: Vec<Bell>,
    stamp: Option<Arc<ReplyStamp>>,
}

impl Sender {
    pub fn new(
        wallet: Arc<dyn RemoteWallet>,
        runtime: Handle,
        calls_max: usize,
        deadline: Duration,
        identity: Arc<OnceLock<String>>,
        bells: Vec<Bell>,
    ) -> Sender {
        // The gate lets twice as many fly when some are late.
        let replies = Arc::new(ArrayQueue::new(4 * calls_max));
        Sender { wallet, runtime, deadline, identity, replies, bells, stamp: None }
    }

    /// Writes there when something came back, from now on.
    #[must_use]
    pub fn with_stamp(self, stamp: Option<ReplyStamp>) -> Sender {
        Sender { stamp: stamp.map(Arc::new), ..self }
    }

    /// Begins a call; its reply comes out of [`Sender::take`] under the same id. With `asks_who`, the wallet is asked
    /// who it is before anything is sent to it: what another wallet never saw, it would pay again.
    pub fn send(&self, id: u64, outgoing: Outgoing, asks_who: bool) {
        let (reply, count): (Reply<Vec<Answer>>, usize) = match outgoing {
            Outgoing::Transfers(batch) => {
                let count = batch.len();
                (self.wallet.transfer(Arc::new(batch), self.deadline), count)
            }
            Outgoing::Burn(ids) => {
                let count = ids.len();
                (self.wallet.burn(ids, self.deadline), count)
            }
        };
        let (replies, bells, deadline) = (self.replies.clone(), self.bells.clone(), self.deadline);
        let stamp = self.stamp.clone();
        let who = asks_who.then(|| (self.wallet.identity(), self.identity.clone()));
        let work = self.runtime.spawn(async move {
            if let Some((asked, known)) = who {
                let identity = match tokio::time::timeout(deadline + GRACE, asked).await {
                    Ok(answer) => answer?,
                    Err(_) => return Err(timed_out(deadline)),
                };
                if known.get().is_some_and(|known| *known != identity) {
                    let reason = format!("another wallet answers, {identity}, and nothing is sent to it");
                    return Err(CallError::Rejected(reason));
                }
            }
            tokio::time::timeout(deadline + GRACE, reply).await.unwrap_or_else(|_| Err(timed_out(deadline)))
        });
        self.runtime.spawn(async move {
            let result = match work.await {
                Ok(Ok(answers)) if answers.len() != count => Err(CallError::Unknown(format!(
                    "the adapter gave {} answers for {count} entries",
                    answers.len()
                ))),
                Ok(result) => result,
                Err(error) => Err(CallError::Unknown(format!("the adapter failed: {error}"))),
            };
            if let Some(stamp) = stamp {
                stamp.note(&result);
            }
            assert!(replies.push((id, result)).is_ok(), "there is room for every call under way");
            bells.iter().for_each(Bell::ring);
        });
    }

    pub fn take(&self) -> Option<Replied> {
        self.replies.pop()
    }

    pub fn has_replies(&self) -> bool {
        !self.replies.is_empty()
    }
}

fn timed_out(deadline: Duration) -> CallError {
    CallError::TimedOut { after_ms: (deadline + GRACE).as_millis() as u64 }
}
