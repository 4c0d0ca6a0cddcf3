//! The commands of one round: everything that is ripe, for all units.
//!
//! No command of a round rests on another's success: offsets are those before the round's acks, a seal goes into a
//! side that was empty before it. Cold lists (nothing found when last looked at) cost one `EXISTS` a unit and look.

use std::time::{Duration, Instant};

use super::Reader;
use super::state::{Grave, List};
use crate::domain::UnixMs;
use crate::intake::redis::contents::Dead;
use crate::intake::redis::credit::PROBE_STRIDE;
use crate::intake::redis::seal;
use crate::intake::redis::sizes::Manner;
use crate::intake::redis::window::{Side, Weight};
use crate::redis::Command;

/// Bytes of elements in one reply, and in all replies of a round, as far as can be told before: what one command
/// or one round keeps Redis from its other clients for (some 1.4 MB a millisecond).
const READ_BYTES_MAX: u64 = 4 << 20;
const ROUND_BYTES_MAX: u64 = 8 << 20;
/// Buried at once.
const BURY_COUNT_MAX: usize = 500;
const BURY_BYTES_MAX: usize = 4 << 20;
/// With both generations under way for so long, what comes behind them is appended to the later one.
const STALL: Duration = Duration::from_millis(10);
/// Between looks at how much has gathered while something is being read.
const DEPTH_INTERVAL: Duration = Duration::from_millis(200);

/// A command, and what its reply is for. Lists and units by number.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Lengths {
        list: usize,
    },
    Read {
        list: usize,
        count: u64,
        manner: Manner,
    },
    Probe {
        list: usize,
        ahead: u64,
    },
    Bury {
        unit: usize,
        count: usize,
    },
    Ack {
        list: usize,
        deadline: UnixMs,
    },
    Seal {
        list: usize,
        side: Side,
        deadline: UnixMs,
    },
    /// One of `count` alike.
    Append {
        list: usize,
        side: Side,
        count: u64,
        deadline: UnixMs,
    },
    Look {
        unit: usize,
    },
    Depth {
        list: usize,
    },
}

#[derive(Default)]
pub struct Round {
    pub steps: Vec<Step>,
    pub commands: Vec<Command>,
    /// What the reads may bring.
    expected: Weight,
    /// One element was asked for that there may be no credit for.
    is_overdrawn: bool,
    pub has_look: bool,
}

impl Round {
    fn push(&mut self, step: Step, command: Command) {
        self.steps.push(step);
        self.commands.push(command);
    }
}

impl Reader {
    pub(super) fn plan(&mut self, now: Instant) -> Round {
        let mut round = Round { has_look: now >= self.next_look, ..Round::default() };
        let has_depth = now >= self.next_depth;
        if has_depth {
            self.next_depth = now + DEPTH_INTERVAL;
        }
        let held = self.held_in_memory();
        let count = self.units.len();
        self.first_unit = (self.first_unit + 1) % count.max(1);
        for at in 0..count {
            let unit = (self.first_unit + at) % count;
            if self.units[unit].fence.is_none() || self.units[unit].is_paused(now) {
                continue;
            }
            self.plan_unit(unit, held, now, &mut round);
            if has_depth && !self.units[unit].is_leaving {
                let busy = self.units[unit].lists.clone().filter(|list| self.lists[*list].is_busy());
                for list in busy {
                    round.push(Step::Depth { list }, Command::new("LLEN", &self.lists[list].live));
                }
            }
        }
        round
    }

    pub(super) fn held_in_memory(&self) -> Weight {
        let held = self.lists.iter().map(|list| list.window.held());
        held.fold(Weight::default(), |all, one| Weight {
            requests: all.requests + one.requests,
            bytes: all.bytes + one.bytes,
        })
    }

    fn plan_unit(&mut self, unit: usize, held: Weight, now: Instant, round: &mut Round) {
        let is_leaving = self.units[unit].is_leaving;
        let server_ms = self.units[unit].server_ms();
        for list in self.units[unit].lists.clone() {
            server_ms.into_iter().for_each(|ms| self.lists[list].window.look_again(ms));
            if !self.lists[list].window.is_known() {
                let fence = self.units[unit].fence.as_ref().expect("only of units that are held");
                let beside = &self.units[unit].beside;
                round.push(Step::Lengths { list }, seal::lengths(fence, &self.lists[list].sealed, beside));
                continue;
            }
            if !is_leaving {
                self.plan_read(list, held, round);
            }
            self.plan_ack(list, round);
            if !is_leaving {
                self.plan_seal(list, round);
                self.plan_append(list, now, round);
            }
        }
        if is_leaving {
            return;
        }
        self.plan_burial(unit, now, round);
        if round.has_look {
            let is_cold = |list: &&List| !list.is_hot && list.is_dry();
            let mut cold = self.lists[self.units[unit].lists.clone()].iter().filter(is_cold);
            if let Some(first) = cold.next() {
                let mut look = Command::new("EXISTS", &first.live);
                cold.for_each(|list| look.push(&list.live));
                round.push(Step::Look { unit }, look);
            }
        }
    }

    fn plan_read(&mut self, list: usize, held: Weight, round: &mut Round) {
        let List { window, gauge, sizes, order, sealed, is_stopped, .. } = &self.lists[list];
        let Some(read) = window.next_read().filter(|_| !is_stopped) else { return };
        let all = Weight {
            requests: held.requests + round.expected.requests,
            bytes: held.bytes + round.expected.bytes,
        };
        let bytes_max = READ_BYTES_MAX.min(ROUND_BYTES_MAX.saturating_sub(round.expected.bytes));
        let share = self.credit.share(all, window.held());
        let mut manner = sizes.manner(read.side, read.count, ROUND_BYTES_MAX);
        if gauge.largest() > self.options.element_bytes_max {
            // Where one is too large, the next may be as well: it is cut before it is sent.
            manner = Manner::Scanned;
        }
        let mut count = gauge.count(read.count, share, bytes_max, manner);
        let is_bare = window.held() == Weight::default();
        if count == 0 && is_bare && !round.is_overdrawn && !self.credit.is_spent(all) {
            (count, manner, round.is_overdrawn) = (1, Manner::Scanned, true);
        }
        if count == 0 {
            return;
        }
        let (expected, scan_bytes) = (gauge.estimate(count), share.bytes.min(bytes_max));
        let key = &sealed[read.side as usize];
        let (command, bytes) = match manner {
            Manner::Known | Manner::Trusted => (seal::range(key, *order, read.offset, count), expected.bytes),
            Manner::Scanned => {
                let element_bytes_max = self.options.element_bytes_max;
                let scan = seal::scan(key, *order, (read.offset, count), scan_bytes, element_bytes_max);
                (scan, expected.bytes.min(scan_bytes))
            }
        };
        round.expected.requests += expected.requests;
        round.expected.bytes += bytes;
        round.push(Step::Read { list, count, manner }, command);
        let ahead = gauge.look_ahead(count, manner).min(read.count - count);
        if ahead > 0 {
            let offset = read.offset + count;
            let samples = ahead.div_ceil(PROBE_STRIDE);
            // With one so large, no more is read at once than what lies between two looks.
            let enough = READ_BYTES_MAX / PROBE_STRIDE;
            let probe = seal::probe(key, *order, offset, (PROBE_STRIDE, samples), enough);
            round.push(Step::Probe { list, ahead }, probe);
        }
    }

    fn plan_ack(&mut self, list: usize, round: &mut Round) {
        let List { unit, window, order, sealed, .. } = &mut self.lists[list];
        let unit = &self.units[*unit];
        let (Some(ack), Some(deadline), Some(fence)) =
            (window.next_ack(), unit.deadline(), unit.fence.as_ref())
        else {
            return;
        };
        let key = &sealed[ack.side as usize];
        window.sending(ack);
        let command = seal::ack(fence, key, *order, ack.expected, ack.count, deadline);
        round.push(Step::Ack { list, deadline }, command);
    }

    fn plan_seal(&mut self, list: usize, round: &mut Round) {
        let List { unit, window, live, sealed, is_hot, is_stopped, .. } = &self.lists[list];
        let unit = &self.units[*unit];
        let Some((side, not_before)) = window.next_seal().filter(|_| *is_hot && !is_stopped) else { return };
        let Some(deadline) = unit.deadline() else { return };
        if unit.server_ms().is_none_or(|now| now < not_before) {
            return;
        }
        let fence = unit.fence.as_ref().expect("only of units that are held");
        let command = seal::seal(fence, live, &sealed[side as usize], not_before, deadline);
        round.push(Step::Seal { list, side, deadline }, command);
    }

    fn plan_append(&mut self, list: usize, now: Instant, round: &mut Round) {
        let List { unit, window, live, sealed, order, is_hot, is_stopped, moved_at, append_count, .. } =
            &self.lists[list];
        let unit = &self.units[*unit];
        let has_stalled = *is_hot && !is_stopped && moved_at.is_none_or(|at| now >= at + STALL);
        let Some((side, length)) = window.next_append().filter(|_| has_stalled) else { return };
        let (Some(deadline), Some(fence)) = (unit.deadline(), unit.fence.as_ref()) else { return };
        let (key, count) = (&sealed[side as usize], *append_count);
        for _ in 0..count {
            let command = seal::append(fence, live, key, *order, (length, count), deadline);
            round.push(Step::Append { list, side, count, deadline }, command);
        }
    }

    fn plan_burial(&mut self, unit: usize, now: Instant, round: &mut Round) {
        let state = &self.units[unit];
        if state.graves.is_empty() || state.bury_after.is_some_and(|at| now < at) {
            return;
        }
        let mut bytes = 0;
        let fits = |grave: &&Grave| {
            let is_first = bytes == 0;
            bytes += grave.dead.element.len().max(1);
            is_first || bytes <= BURY_BYTES_MAX
        };
        let graves = state.graves.iter().take(BURY_COUNT_MAX).take_while(fits);
        let dead: Vec<Dead> = graves.map(|grave| grave.dead.clone()).collect();
        let command = self.parts.graveyard.bury(state.id, &dead, (self.parts.now_ms)());
        round.push(Step::Bury { unit, count: dead.len() }, command);
    }
}
