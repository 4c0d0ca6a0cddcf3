//! Makes the calls: each as a task of the wallet's runtime, its reply brought back to the settle thread.
//!
//! What holds: every call that was begun comes back once, as a reply or as an error, soon after its deadline at
//! the latest; also if the adapter panics.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use tokio::runtime::Handle;

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
    replies: Arc<ArrayQueue<Replied>>,
    bells: Vec<Bell>,
}

impl Sender {
    pub fn new(
        wallet: Arc<dyn RemoteWallet>,
        runtime: Handle,
        calls_max: usize,
        deadline: Duration,
        bells: Vec<Bell>,
    ) -> Sender {
        // The gate lets twice as many fly when some are late.
        let replies = Arc::new(ArrayQueue::new(4 * calls_max));
        Sender { wallet, runtime, deadline, replies, bells }
    }

    /// Begins a call; its reply comes out of [`Sender::take`] under the same id.
    pub fn send(&self, id: u64, outgoing: Outgoing) {
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
        let work = self.runtime.spawn(async move { tokio::time::timeout(deadline + GRACE, reply).await });
        self.runtime.spawn(async move {
            let result = match work.await {
                Ok(Ok(Ok(answers))) if answers.len() != count => Err(CallError::Unknown(format!(
                    "the adapter gave {} answers for {count} entries",
                    answers.len()
                ))),
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(CallError::TimedOut { after_ms: (deadline + GRACE).as_millis() as u64 }),
                Err(error) => Err(CallError::Unknown(format!("the adapter failed: {error}"))),
            };
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
