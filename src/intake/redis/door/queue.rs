//! Calls that wait for a door thread: bounded in number and in bytes; whoever comes when it is full is refused.
//!
//! What holds: a call that was taken in is answered, if only by its answer being dropped; once stopped, nothing more
//! is taken in and what waits is still served.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::{Finding, KnownBatch, Repeat};
use crate::intake::desk::{BatchHead, Refused};
use crate::intake::redis::identity::KnownId;

pub type Answer<T> = oneshot::Sender<T>;

pub struct Submit {
    pub batch: Option<BatchHead>,
    pub requests: Vec<Vec<u8>>,
    pub answer: Answer<Result<Vec<Finding>, Refused>>,
}

pub struct Push {
    pub repeats: Vec<Repeat>,
    pub answer: Answer<Vec<Option<Refused>>>,
}

pub struct Look {
    pub client: String,
    pub ids: Vec<String>,
    pub answer: Answer<Result<Vec<Option<KnownId>>, Refused>>,
}

pub struct LookBatch {
    pub client: String,
    pub id: String,
    pub with_items: bool,
    pub answer: Answer<Result<Option<KnownBatch>, Refused>>,
}

pub enum Op {
    Submit(Submit),
    Push(Push),
    Look(Look),
    Batch(LookBatch),
}

impl Op {
    /// Requests or ids in it.
    fn count(&self) -> usize {
        match self {
            Op::Submit(submit) => submit.requests.len(),
            Op::Push(push) => push.repeats.len(),
            Op::Look(look) => look.ids.len(),
            Op::Batch(_) => 1,
        }
    }
}

#[derive(Default)]
struct State {
    ops: VecDeque<(Op, usize)>,
    bytes: usize,
    is_stopped: bool,
}

pub struct Waiting {
    state: Mutex<State>,
    arrived: Condvar,
    ops_max: usize,
    bytes_max: usize,
}

impl Waiting {
    pub fn new(ops_max: usize, bytes_max: usize) -> Waiting {
        Waiting { state: Mutex::default(), arrived: Condvar::new(), ops_max, bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False: there is no room, or nothing is served any more. A call larger than the bound is taken in when nothing
    /// else waits.
    pub fn push(&self, op: Op, bytes: usize) -> bool {
        let mut state = self.lock();
        let fits = state.bytes + bytes <= self.bytes_max || state.bytes == 0;
        if state.is_stopped || state.ops.len() >= self.ops_max || !fits {
            return false;
        }
        state.bytes += bytes;
        state.ops.push_back((op, bytes));
        drop(state);
        self.arrived.notify_one();
        true
    }

    /// Waits for calls and takes them in order, until they hold about `count_max` requests or `bytes_max` bytes.
    /// `None`: it was stopped, and nothing waits.
    pub fn take(&self, count_max: usize, bytes_max: usize) -> Option<Vec<Op>> {
        let mut state = self.lock();
        while state.ops.is_empty() {
            if state.is_stopped {
                return None;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let (mut taken, mut count, mut bytes) = (Vec::new(), 0, 0);
        while count < count_max && bytes < bytes_max {
            let Some((op, size)) = state.ops.pop_front() else { break };
            count += op.count();
            bytes += size;
            taken.push(op);
        }
        state.bytes -= bytes;
        Some(taken)
    }

    pub fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    /// Takes nothing more in.
    pub fn stop(&self) {
        self.lock().is_stopped = true;
        self.arrived.notify_all();
    }

    /// The same when nobody will serve what waits: its callers see that their answers are gone.
    pub fn abandon(&self) {
        self.stop();
        self.lock().ops.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(count: usize) -> Op {
        let (answer, _) = oneshot::channel();
        Op::Look(Look { client: "s".to_owned(), ids: vec!["r".to_owned(); count], answer })
    }

    #[test]
    fn is_bounded_in_number_and_in_bytes() {
        let waiting = Waiting::new(3, 100);
        // bytes, whether it is taken in
        let table = [(60, true), (41, false), (40, true), (0, true), (0, false)];
        for (bytes, expected) in table {
            assert_eq!(waiting.push(look(10), bytes), expected, "{bytes} bytes");
        }
        assert_eq!(waiting.take(15, 1_000).unwrap().len(), 2, "until there are fifteen");
        assert_eq!(waiting.take(15, 1_000).unwrap().len(), 1);
        assert!(waiting.push(look(1), 500), "a large one is taken in when it is alone");
        assert!(!waiting.push(look(1), 1));
        waiting.stop();
        assert!(!waiting.push(look(1), 0));
        assert_eq!(waiting.take(1, 1).unwrap().len(), 1, "what waits is served");
        assert!(waiting.take(1, 1).is_none());
    }
}
