//! What the board answered, or is heard to have become, and what an instance does about it.
//!
//! A state is taken over by its version. A board may go back: its hash is removed, or a replica without the last
//! writes takes its place, perhaps with another clock. Then whoever knows more puts it back, so that an operator's word and an
//! open breaker outlive the board; and for as long as a lease, shares are asked for by what was seen before, for the
//! leases of others may be unknown to the board and run all the same. An `open` or `close` that an
//! operator said to such a board meanwhile stands; `auto` and another budget must be said again.

use super::super::board::{Orders, View};
use super::super::policy::{Phase, State, Wish, decide};
use super::course::Trial;
use super::solo::Solo;
use super::{ASKED_NS_MAX, Governor, MS, vote_rule};

/// Two clocks may differ by so much over one exchange: one of them counts whole ms.
const CLOCK_SLACK_MS: u64 = 50;

/// How far the board's clock and one's own have come, by the last answer: its time lies between question and answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BoardClock {
    asked_ns: u64,
    answered_ns: u64,
    board_ms: u64,
}

impl BoardClock {
    /// The board's time, `seen_ms` of which was its last answer; of an earlier one nothing is known but that.
    pub(super) fn at_least_ms(&self, now_ns: u64, seen_ms: u64) -> u64 {
        let passed_ms = now_ns.saturating_sub(self.answered_ns) / MS;
        if seen_ms == self.board_ms { seen_ms.saturating_add(passed_ms) } else { seen_ms }
    }

    /// Whether it was answered within so long.
    pub(super) fn is_of_late(&self, now_ns: u64, for_ms: u64) -> bool {
        now_ns < self.answered_ns.saturating_add(for_ms * MS)
    }

    #[cfg(test)]
    pub(super) fn leap_for_test(&mut self) {
        self.board_ms += 3_600_000;
    }

    /// Whether the board's clock has leapt since `before`.
    fn has_leapt(&self, before: &BoardClock) -> bool {
        let (asked, answered) = (self.asked_ns / MS, self.answered_ns / MS);
        let least = asked.saturating_sub(before.answered_ns / MS);
        let most = answered.saturating_sub(before.asked_ns / MS);
        let Some(passed) = self.board_ms.checked_sub(before.board_ms) else {
            return before.board_ms - self.board_ms > CLOCK_SLACK_MS;
        };
        before.board_ms > 0 && (passed + CLOCK_SLACK_MS < least || passed > most + CLOCK_SLACK_MS)
    }
}

impl Governor {
    /// What the board answered. The state that the fleet should go to, if it is time, with what it was seen from.
    pub fn ordered(&mut self, now_ns: u64, orders: Orders) -> Option<(View, State)> {
        let asked_at_ns = self.holder.asked_at_ns();
        let Orders { sequence, granted, kept, has_permit, view } = orders;
        let settings = &view.state.settings;
        let (times_ms, ttl_ns) = ((settings.lease_ms, settings.reserve_ms), settings.permit_ttl_ms * MS);
        let is_current = self.holder.granted(sequence, (granted, kept), times_ms, view.fleet());
        let is_other = view.state.version == self.state.version && view.state != self.state;
        if is_current && is_other {
            // Written by others after the board had lost what was agreed here.
            self.take_over(now_ns, &view.state, view.now_ms);
        }
        self.adopt(now_ns, &view.state, view.now_ms);
        if !is_current {
            self.tally.shares_void += 1;
            return None;
        }
        self.tally.shares += 1;
        let is_same_epoch = view.state.epoch == self.state.epoch;
        if has_permit && is_same_epoch && !self.probe_flying {
            self.permit_until_ns = asked_at_ns.unwrap_or(now_ns) + ttl_ns;
            self.tally.permits += 1;
        }
        let lost = self.lost_by(&view);
        if lost.is_none() {
            self.believe(now_ns, view.now_ms);
        }
        self.see(now_ns, asked_at_ns.unwrap_or(now_ns), &view, lost.is_some() || is_other);
        self.hurry(now_ns, granted);
        let next = lost.or_else(|| decide(&view));
        next.map(|next| (view, next))
    }

    /// What a board that has gone back should be again.
    fn lost_by(&self, view: &View) -> Option<State> {
        if view.state.version >= self.state.version {
            return None;
        }
        let said_since = view.state.history.back().filter(|change| !self.state.history.contains(change));
        match (view.state.held, said_since) {
            (Some(_), Some(_)) => {
                let (version, epoch) = (self.state.version + 1, self.state.epoch.max(view.state.epoch) + 1);
                Some(State { version, epoch, ..view.state.clone() })
            }
            (Some(_) | None, _) => Some(self.state.clone()),
        }
    }

    /// Takes what is shown as what the others do, unless the board has just lost sight of them.
    fn see(&mut self, now_ns: u64, asked_ns: u64, view: &View, has_lost: bool) {
        let clock = BoardClock { asked_ns, answered_ns: now_ns, board_ms: view.now_ms };
        let before = std::mem::replace(&mut self.board_clock, clock);
        if has_lost || clock.has_leapt(&before) {
            self.seen_kept_until_ns = now_ns + self.state.settings.lease_ms * MS + ASKED_NS_MAX;
        }
        // What is fair could not be known before.
        self.wants_beat |= self.seen.is_none();
        if self.seen.is_none() || now_ns >= self.seen_kept_until_ns {
            self.seen = Some(view.clone());
        }
        let of_now = view.members.values().filter(|member| member.said.epoch == self.state.epoch);
        let count = of_now.map(|member| member.said.probes_ok + member.said.probes_bad).sum();
        self.trial.note(now_ns, count, self.probe_flying);
    }

    /// A state that was written meanwhile: by this instance, or heard of.
    pub fn heard(&mut self, now_ns: u64, state: &State) {
        self.adopt(now_ns, state, state.since_ms);
    }

    fn adopt(&mut self, now_ns: u64, state: &State, board_now_ms: u64) {
        if state.version > self.state.version {
            self.take_over(now_ns, state, board_now_ms);
        }
    }

    fn take_over(&mut self, now_ns: u64, state: &State, board_now_ms: u64) {
        if state.epoch != self.state.epoch {
            self.vote.reset();
            self.solo = Solo::default();
            // One that was not used by now is another epoch's.
            self.tally.permits_lost += u64::from(self.permit_until_ns > 0 && !self.probe_flying);
            self.silence.forget();
            (self.permit_until_ns, self.probe_flying) = (0, false);
            (self.probes_ok, self.probes_bad, self.probe_paused_until_ns) = (0, 0, 0);
            self.rate_limit.restart(now_ns);
            self.calls_limit.restart(now_ns);
        }
        // What changed concerns leases and permits: ask at once.
        self.wants_beat |= state.phase.as_str() != self.state.phase.as_str();
        self.vote.set_rule(vote_rule(&state.settings));
        let was_held_open = self.state.held == Some(Wish::Open);
        let is_tried_again = state.phase == Phase::HalfOpen && self.state.phase != Phase::HalfOpen;
        self.state = state.clone();
        if is_tried_again {
            self.trial = Trial { since_ns: now_ns, tried_at_ns: now_ns, count: 0 };
        }
        // How long somebody held it open says nothing of the wallet.
        if was_held_open && state.held.is_none() {
            self.down_since_ns = None;
        }
        self.down_since_ns = match state.phase {
            Phase::Closed => None,
            Phase::Open { .. } | Phase::HalfOpen | Phase::Ramp { .. } => self.down_since_ns.or(Some(now_ns)),
        };
        if self.is_held_closed() && self.vote.tripped_at_ms().is_some() {
            self.vote.reset();
            self.solo = Solo::default();
        }
        self.believe(now_ns, board_now_ms);
    }

    /// Until when what the board last said of an open breaker holds without it.
    fn believe(&mut self, now_ns: u64, board_now_ms: u64) {
        let left_ms = self.state.open_left_ms(board_now_ms);
        let wait_ns = (left_ms + self.state.settings.grace_ms).saturating_mul(MS);
        self.believed_until_ns = now_ns.saturating_add(wait_ns);
    }
}
