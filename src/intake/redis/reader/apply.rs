//! What the replies of a round come to.
//!
//! What is not certain is looked at again before anything rests on it. A unit that refuses is paused and says why;
//! the others go on.

use std::time::Instant;

use super::plan::{Round, Step};
use super::state::PAUSE;
use super::{Anomaly, Reader};
use crate::domain::UnixMs;
use crate::intake::redis::seal::{self, Sealed};
use crate::intake::redis::window::{Mismatch, Side};
use crate::redis::{Failure, Value, reply};

/// The code of a refusal that does not pass by itself, as it does when a server starts or another takes its place.
fn lasting(failure: &Failure) -> Option<&str> {
    let passing = ["LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY"];
    match failure {
        Failure::Refused { code, .. } => Some(code.as_str()).filter(|code| !passing.contains(code)),
        Failure::NotSent(_) | Failure::Unknown(_) | Failure::Strange { .. } => None,
    }
}

impl Step {
    fn list(self) -> Option<usize> {
        match self {
            Step::Lengths { list }
            | Step::Read { list, .. }
            | Step::Probe { list, .. }
            | Step::Ack { list, .. }
            | Step::Seal { list, .. }
            | Step::Append { list, .. }
            | Step::Depth { list } => Some(list),
            Step::Bury { .. } | Step::Look { .. } => None,
        }
    }
}

impl Reader {
    /// Applies the replies; true if anything was found.
    pub(super) fn apply(&mut self, round: Round, results: Vec<Result<Value, Failure>>) -> bool {
        let (now, now_ms) = (Instant::now(), (self.parts.now_ms)());
        assert_eq!(results.len(), round.steps.len(), "one result a command");
        let (mut found, mut unreached) = (false, None);
        let units: Vec<usize> = round.steps.iter().map(|step| self.unit_of(*step)).collect();
        for (step, result) in round.steps.iter().zip(results) {
            match result.and_then(|value| self.succeeded(*step, value, now_ms)) {
                Ok(news) => found |= news,
                Err(failure) => {
                    if lasting(&failure).is_none() {
                        unreached.get_or_insert_with(|| failure.clone());
                    }
                    self.failed(*step, &failure, now);
                }
            }
        }
        self.say_reached(unreached);
        self.conclude(units);
        self.renew_spoilt();
        found
    }

    fn unit_of(&self, step: Step) -> usize {
        match step {
            Step::Bury { unit, .. } | Step::Look { unit } => unit,
            _ => self.lists[step.list().expect("every other step is of a list")].unit,
        }
    }

    /// Ends the round for every unit that took part.
    fn conclude(&mut self, mut units: Vec<usize>) {
        units.sort_unstable();
        units.dedup();
        for unit in units {
            if self.units[unit].conclude() && !self.units[unit].is_dead_full {
                self.clear_trouble(unit);
            }
        }
    }

    fn succeeded(&mut self, step: Step, value: Value, now_ms: UnixMs) -> Result<bool, Failure> {
        match step {
            Step::Lengths { list } => {
                let (lengths, server_ms, bytes) = seal::lengths_reply(value)?;
                self.units[self.lists[list].unit].set_clock(server_ms);
                if let Err(mismatch) = self.lists[list].learn(lengths, bytes) {
                    self.spoil(list, mismatch);
                }
                Ok(true)
            }
            Step::Read { list, count, manner } => self.take_elements(list, (count, manner), value, now_ms),
            Step::Probe { list, ahead } => {
                let bytes = reply::int("probe", value)?;
                self.lists[list].gauge.note_probe(ahead, bytes.max(0) as u64);
                Ok(false)
            }
            Step::Bury { unit, count } => {
                self.buried(unit, count);
                Ok(true)
            }
            Step::Ack { list, .. } => {
                let (_, server_ms) = seal::ack_reply(value)?;
                self.units[self.lists[list].unit].set_clock(server_ms);
                self.lists[list].window.acked();
                self.lists[list].moved_at = Some(Instant::now());
                Ok(false)
            }
            Step::Seal { list, side, .. } => self.sealed(list, side, value),
            Step::Append { list, side, count, .. } => self.appended(list, side, count, value),
            Step::Look { unit } => {
                let is_found = reply::int("EXISTS", value)? > 0;
                if is_found {
                    let lists = self.units[unit].lists.clone();
                    self.lists[lists].iter_mut().filter(|list| list.is_dry()).for_each(|l| l.is_hot = true);
                }
                Ok(is_found)
            }
            Step::Depth { list } => {
                let count = reply::int("LLEN", value)?.max(0) as u64;
                self.lists[list].live_count = count;
                self.lists[list].is_hot |= count > 0;
                Ok(false)
            }
        }
    }

    fn sealed(&mut self, list: usize, side: Side, value: Value) -> Result<bool, Failure> {
        let (sealed, count, server_ms, bytes) = seal::seal_reply(value)?;
        let list = &mut self.lists[list];
        self.units[list.unit].set_clock(server_ms);
        match sealed {
            Sealed::Yes => {
                list.window.sealed(side, count);
                list.sizes.note_total(side, count, bytes);
                list.moved_at = Some(Instant::now());
            }
            Sealed::Nothing => {
                list.is_hot = false;
                list.window.found_dry();
            }
            // By a command of ours whose reply was lost.
            Sealed::Occupied => list.window.doubt(),
            Sealed::Early => {}
        }
        if matches!(sealed, Sealed::Yes | Sealed::Nothing) {
            list.live_count = 0;
        }
        Ok(sealed == Sealed::Yes)
    }

    fn appended(&mut self, list: usize, side: Side, count: u64, value: Value) -> Result<bool, Failure> {
        let (has_moved, length, server_ms) = seal::append_reply(value)?;
        let list = &mut self.lists[list];
        self.units[list.unit].set_clock(server_ms);
        // The last of the round says whether there may be more.
        list.is_hot = has_moved;
        list.count_appended(count, has_moved);
        if has_moved {
            list.window.appended(side, length);
            list.sizes.forget(side);
            list.live_count = list.live_count.saturating_sub(1);
        } else {
            list.live_count = 0;
        }
        Ok(has_moved)
    }

    fn failed(&mut self, step: Step, failure: &Failure, now: Instant) {
        let unit = self.unit_of(step);
        let mut refused = None;
        if let Step::Ack { list, deadline } = step {
            let window = &mut self.lists[list].window;
            if failure.is_unknown() {
                window.ack_doubtful(deadline);
            } else {
                refused = Some((list, window.ack_refused()));
            }
        }
        match step {
            Step::Read { list, count, .. } if failure.is_unknown() => {
                self.lists[list].gauge.note_failed(count);
                self.lists[list].sizes.note_failed();
            }
            Step::Seal { list, side, deadline } if failure.is_unknown() => {
                self.lists[list].window.seal_doubtful(side, deadline);
            }
            Step::Append { list, side, count, deadline } if failure.is_unknown() => {
                self.lists[list].window.append_doubtful(side, count, deadline);
            }
            _ => {}
        }
        let Some(code) = lasting(failure) else {
            // What was counted on may have changed while we were away.
            self.doubt(unit);
            self.units[unit].pause_shortly(now);
            return;
        };
        match (code, refused) {
            ("STALE", _) => {
                let id = self.units[unit].id;
                if let Some(fence) = &self.units[unit].fence
                    && self.held.epoch(id) == Some(fence.epoch)
                {
                    tracing::warn!(unit = self.keys.unit_name(id), epoch = fence.epoch, "lost: {failure}");
                    self.held.lost_epoch(id, fence.epoch);
                }
            }
            ("LENGTH", Some((list, ack))) => {
                let found = seal::number_in(failure).unwrap_or(0);
                self.spoil(list, Mismatch { side: ack.side, expected: ack.expected, found });
            }
            ("LENGTH", None) => {
                // Appended to by a command of ours whose reply was lost.
                step.list().into_iter().for_each(|list| self.lists[list].window.doubt());
            }
            ("LATE", _) => {
                // The server's clock is not what it was taken for; sent again by what it is.
                seal::number_in(failure).into_iter().for_each(|ms| self.units[unit].set_clock(ms));
            }
            ("FULL", None) if matches!(step, Step::Bury { .. }) => self.no_room_for_dead(unit, failure, now),
            ("GONE", _) => {
                self.doubt(unit);
                self.units[unit].pause(now);
                let key = self.units[unit].owner_key.clone();
                self.tell_anomaly_once(unit, Anomaly::OwnerGone { key });
            }
            _ => {
                self.units[unit].pause(now);
                match step.list().filter(|_| code == "WRONGTYPE").map(|list| self.lists[list].live.clone()) {
                    Some(key) => self.tell_anomaly_once(unit, Anomaly::WrongType { key }),
                    None => self.set_trouble(unit, failure.to_string()),
                }
            }
        }
    }

    /// Looks at the lengths of a unit's lists before anything else.
    fn doubt(&mut self, unit: usize) {
        let lists = self.units[unit].lists.clone();
        self.lists[lists].iter_mut().for_each(|list| list.window.doubt());
    }

    fn buried(&mut self, unit: usize, count: usize) {
        let state = &mut self.units[unit];
        for grave in state.graves.drain(..count) {
            let list = &mut self.lists[grave.ticket.list as usize];
            if list.era == grave.ticket.era {
                list.window.done(grave.ticket.position);
            }
        }
        state.bury_after = None;
        if std::mem::take(&mut state.is_dead_full) {
            let lists = state.lists.clone();
            self.lists[lists].iter_mut().for_each(|list| list.is_stopped = false);
            self.clear_trouble(unit);
        }
    }

    fn no_room_for_dead(&mut self, unit: usize, failure: &Failure, now: Instant) {
        let state = &mut self.units[unit];
        (state.is_dead_full, state.bury_after) = (true, Some(now + PAUSE));
        for grave in &state.graves {
            self.lists[grave.ticket.list as usize].is_stopped = true;
        }
        let what = format!("no room for unreadable elements, their lists stand still: {failure}");
        self.set_trouble(unit, what);
    }
}
