//! What an instance's side of the breaker tells whoever looks on: counts of its decisions, and how it stands.

use super::{Governor, Held, Kind, Ticket};
use crate::shaping::{Amount, Moves};

/// Why batches went, and why they did not, as they stand in metrics.
pub const SENT_KINDS: [&str; 3] = ["paced", "probe", "alone"];
pub const HELD_KINDS: [&str; 5] = ["paced", "full", "no_share", "open", "alone"];

/// Decisions since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// By [`SENT_KINDS`]; once a call came back, so that one that was not made after all is in no count.
    pub sent: [u64; SENT_KINDS.len()],
    /// By [`HELD_KINDS`]; each time that it was asked.
    pub held: [u64; HELD_KINDS.len()],
    pub probes_ok: u64,
    pub probes_failed: u64,
    /// Permits to try that this instance was given, and those of them that ran out or were void before it tried.
    pub permits: u64,
    pub permits_lost: u64,
    /// Shares of the budget that the board granted, and answers that came too late to count.
    pub shares: u64,
    pub shares_void: u64,
    /// Why nothing went when it was asked last, by [`HELD_KINDS`].
    pub holds: Option<usize>,
}

impl Tally {
    pub(super) fn note(&mut self, answer: &Result<Ticket, Held>) {
        self.holds = answer.as_ref().err().map(Held::number);
        if let Err(held) = answer {
            self.held[held.number()] += 1;
        }
    }

    pub(super) fn probed(&mut self, is_well: bool) {
        self.probes_ok += u64::from(is_well);
        self.probes_failed += u64::from(!is_well);
    }
}

impl Held {
    fn number(&self) -> usize {
        match self {
            Held::Paced { .. } => 0,
            Held::Full => 1,
            Held::NoShare => 2,
            Held::Open => 3,
            Held::Alone { .. } => 4,
        }
    }
}

const _: () = assert!(Kind::Paced as usize == 0 && Kind::Probe as usize == 1 && Kind::Solo as usize == 2);

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    pub tally: Tally,
    /// What it may use now, of the budget; what the lease gives, and what the adaptive limit leaves of it.
    pub lease: Amount,
    pub allowed: Amount,
    /// What the adaptive limit is, if it is one, and how it came to it: transfers a second, and calls under way.
    pub limits: [(Option<u64>, Moves); 2],
    pub under_way: u64,
    pub spent_per_s: u64,
    /// Instances with a lease, this one among them, as the board said last.
    pub fleet: u64,
    pub is_cut_off: bool,
    /// Its own calls fail while the fleet goes on.
    pub is_alone: bool,
    /// What the last window showed.
    pub failing: (u64, u64),
}

impl Governor {
    pub fn status(&self, now_ns: u64) -> Status {
        let counts = self.vote.counts(now_ns / super::MS);
        Status {
            tally: self.tally,
            lease: self.holder.amount(now_ns),
            allowed: self.allowed(now_ns),
            limits: [&self.rate_limit, &self.calls_limit].map(|limit| (limit.value(), limit.moves())),
            under_way: self.under_way,
            spent_per_s: self.spent_per_s,
            fleet: self.holder.fleet(),
            is_cut_off: self.is_cut_off(now_ns),
            is_alone: self.vote.tripped_at_ms().is_some(),
            failing: (counts.unhealthy(), counts.total()),
        }
    }

    /// Whether the board should hear of something before the next beat is due.
    pub fn wants_beat(&self) -> bool {
        self.wants_beat
    }
}
