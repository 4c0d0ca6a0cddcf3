//! The port to the fleet's board, and the words spoken over it.
//!
//! An instance sends one beat a period: what it needs, what it saw of late, how its probes went. The board grants a
//! lease and perhaps a permit in one step, and answers with everything it shows, from which each instance computes
//! its own next question and, by [`super::policy::decide`], the fleet's next state. Counts are those of the last
//! window, not those since the last beat: a beat that is lost, late or doubled then changes nothing. All times here
//! are the board's, Unix ms; no instance's clock is compared with another's.

use std::collections::BTreeMap;

use super::classify::Counts;
use super::policy::{Settings, State, Wish};
use crate::shaping::lease::Ask;
use crate::shaping::{Amount, Lease};

/// What a beat says about a permit to probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Permit {
    #[default]
    None,
    /// It has one, and has not finished with it.
    Holds,
    Wants,
}

/// What an instance has to do, and how fast it gets it done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    pub waiting: u64,
    /// While there is more of it than can be done; 0: not measured yet.
    pub done_per_s: u64,
}

impl Workload {
    pub fn waiting(waiting: u64) -> Workload {
        Workload { waiting, done_per_s: 0 }
    }
}

/// What an instance says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The epoch in which the rest was counted.
    pub epoch: u64,
    /// What it could use.
    pub demand: Amount,
    /// Transfers by class in the last window; of one that has tripped, in the window that tripped it.
    pub counts: Counts,
    /// It has tripped, or would have if it had more to do.
    pub is_for_stopping: bool,
    pub probes_ok: u64,
    pub probes_bad: u64,
    /// Transfers sent, a second.
    pub spent_per_s: u64,
    /// Nothing: it does not say.
    pub work: Option<Workload>,
}

/// One beat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub instance: String,
    pub ask: Ask,
    pub permit: Permit,
    pub said: Said,
}

/// An instance as the board shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Member {
    pub sequence: u64,
    pub seen_ms: u64,
    pub lease: Lease,
    pub permit_until_ms: u64,
    pub permit_epoch: u64,
    pub said: Said,
}

/// An entry that is dated so far ahead, ms, is from before the board's clock went back (it may be another machine's).
pub const AHEAD_MS_MAX: u64 = 1_000;

impl Member {
    /// Dated by a clock that the board no longer has: it says nothing.
    pub fn is_of_the_future(&self, now_ms: u64) -> bool {
        self.seen_ms > now_ms.saturating_add(AHEAD_MS_MAX)
    }
}

/// All that the board shows, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub now_ms: u64,
    pub state: State,
    /// By instance; everybody sees the same order.
    pub members: BTreeMap<String, Member>,
}

impl View {
    #[must_use]
    pub fn without_the_future(mut self) -> View {
        let now_ms = self.now_ms;
        self.members.retain(|_, member| !member.is_of_the_future(now_ms));
        self
    }

    /// Instances whose leases run.
    pub fn fleet(&self) -> u64 {
        self.members.values().filter(|member| self.now_ms < member.lease.until_ms).count() as u64
    }
}

/// The answer to a beat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orders {
    /// The beat that is answered; zero: a later one had come before, and this one changed nothing.
    pub sequence: u64,
    pub granted: Amount,
    pub kept: Amount,
    pub has_permit: bool,
    pub view: View,
}

#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// The instance goes on by what it has; the next beat tries again.
    #[error("the fleet's board cannot be reached: {0}")]
    Unreachable(String),
    /// Somebody must look: it stays so. `at`: the key, with the field where there is one.
    #[error("the fleet's board cannot be read at {at}: {reason}; {mend}")]
    Unreadable { at: String, reason: String, mend: String },
}

/// Where the fleet meets.
pub trait Board: Send {
    /// Grants, and shows everything.
    fn beat(&mut self, report: &Report) -> Result<Orders, BoardError>;
    /// Puts `next` in the place of what `seen` showed; false: somebody else was faster, or `seen` is old.
    fn replace(&mut self, seen: &View, next: &State) -> Result<bool, BoardError>;
    /// Gives lease and permit back: this instance has stopped.
    fn leave(&mut self, instance: &str) -> Result<(), BoardError>;
    /// What is shown, without taking part.
    fn look(&mut self) -> Result<View, BoardError>;
}

/// An operator's word, tried until it is written. Answers the state that it became.
pub fn wish(board: &mut dyn Board, wish: Wish, by: &str, reason: &str) -> Result<State, BoardError> {
    amend(board, |view| view.state.wished(view.now_ms, wish, by, reason))
}

/// Other settings for the whole fleet.
pub fn set(board: &mut dyn Board, settings: &Settings, by: &str, why: &str) -> Result<State, BoardError> {
    amend(board, |view| view.state.with_settings(view.now_ms, settings.clone(), by, why))
}

const AMEND_MAX: u32 = 20;

fn amend(board: &mut dyn Board, next: impl Fn(&View) -> State) -> Result<State, BoardError> {
    for _ in 0..AMEND_MAX {
        let view = board.look()?;
        let state = next(&view);
        if board.replace(&view, &state)? {
            return Ok(state);
        }
    }
    Err(BoardError::Unreachable(format!("it changed under {AMEND_MAX} attempts to write; try again")))
}
