//! When a beat comes before its time, so that a share of the budget moves within one: who has too little asks again soon,
//! who has more than it should by what the board shows now gives it back soon, and who had asked for little and finds
//! more to do says so.
//!
//! What holds: only where the budget is spoken for, as else there is enough for all; a few beats for one change, however
//! long a share takes to come. Absent: what a fair share is ([`super::report`]).

use super::super::board::Workload;
use super::{Governor, MS};
use crate::shaping::Amount;

/// Between two beats, the second of which is before its time.
const HASTE_NS: u64 = 25 * MS;
/// Beats before their time, one after the other, for a share that does not come.
const HASTY_BEATS_MAX: u32 = 6;
/// The part of a share that is worth a beat.
const WORTH_PART: u64 = 8;

#[derive(Clone, Copy, Debug, Default)]
pub struct Haste {
    /// The demand that was told last, and what there was to do.
    told: (Amount, Workload),
    due_at_ns: Option<u64>,
    beats: u32,
}

/// Whether one has so much less than the other that a beat is worth it.
fn is_short(has: u64, of: u64) -> bool {
    has.saturating_add((of / WORTH_PART).max(1)) < of
}

impl Haste {
    pub fn due_at_ns(&self) -> Option<u64> {
        self.due_at_ns
    }

    pub fn told(&mut self, demand: Amount, work: Workload) {
        (self.told, self.due_at_ns) = ((demand, work), None);
    }
}

impl Governor {
    /// The board has granted so much, and shows what it shows.
    pub(super) fn hurry(&mut self, now_ns: u64, granted: Amount) {
        let Some((share, spare)) = self.fair(now_ns, self.haste.told) else { return };
        let moves = |granted: u64, share: u64, spare: u64| {
            spare == 0 && (is_short(granted, share) || is_short(share, granted))
        };
        let is_moving = moves(granted.rate_per_s, share.rate_per_s, spare.rate_per_s)
            || moves(granted.calls, share.calls, spare.calls);
        self.haste.beats = if is_moving { self.haste.beats + 1 } else { 0 };
        if is_moving && self.haste.beats <= HASTY_BEATS_MAX {
            self.haste.due_at_ns = Some(now_ns.max(self.last_beat_ns() + HASTE_NS));
        }
    }

    /// Something waits until then for its part of the rate: with a demand told that what is held would do for, the fleet
    /// does not know.
    pub(super) fn note_paced(&mut self, now_ns: u64, until_ns: u64) {
        let since_ns = now_ns.saturating_sub(self.last_beat_ns());
        let held = self.holder.amount(now_ns).rate_per_s;
        let is_for_the_lease = held < self.limits().rate_per_s && self.holder.fleet() > 1;
        let is_long = until_ns.saturating_sub(now_ns) >= HASTE_NS && since_ns >= HASTE_NS;
        self.wants_beat |= is_for_the_lease && is_long && self.haste.told.0.rate_per_s <= held;
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::classify::{Class, Counts};
    use super::super::super::policy::{Settings, State};
    use super::super::super::settings::CALLS_UNBOUNDED;
    use super::super::super::table::Table;
    use super::*;

    const BOARD_MS: u64 = 5_000_000;

    /// Instances that share a budget of 1,000; what each has to do, and how often it beat.
    struct Fleet {
        now_ms: u64,
        table: Table,
        members: Vec<(Governor, u64, u64)>,
    }

    impl Fleet {
        fn new(backlogs: &[u64]) -> Fleet {
            let settings = Settings { rate_per_s: 1_000, calls_max: CALLS_UNBOUNDED, ..Settings::default() };
            let table = Table::new(State::new(settings.clone(), BOARD_MS));
            let member = |(at, backlog): (usize, &u64)| {
                (Governor::new(&format!("i{at}"), 100, settings.clone()), *backlog, 0)
            };
            let mut fleet =
                Fleet { now_ms: 1_000, table, members: backlogs.iter().enumerate().map(member).collect() };
            // Not all at once.
            (0..fleet.members.len()).for_each(|at| {
                (0..23).for_each(|_| fleet.pass(at + 1));
            });
            (0..1_000).for_each(|_| fleet.pass(usize::MAX));
            fleet
        }

        /// A millisecond, in which the first so many do what they do.
        fn pass(&mut self, count: usize) {
            self.now_ms += 1;
            let (now_ns, board_ms) = (self.now_ms * MS, BOARD_MS + self.now_ms);
            for (governor, backlog, beats) in self.members.iter_mut().take(count) {
                if let Ok(ticket) = governor.admit(now_ns, (*backlog).min(100)) {
                    governor.answered(now_ns, ticket, &Counts::of(Class::Healthy, ticket.count));
                }
                if now_ns >= governor.beat_at_ns() {
                    let report = governor.beat(now_ns, Workload::waiting(*backlog));
                    governor.ordered(now_ns, self.table.beat(board_ms, &report));
                    *beats += 1;
                }
            }
        }

        fn share(&self, at: usize) -> u64 {
            self.members[at].0.allowed(self.now_ms * MS).rate_per_s
        }
    }

    #[test]
    fn a_share_comes_within_a_beat_of_being_asked_for_and_then_there_is_peace() {
        for beat in (0..80).step_by(9) {
            let mut fleet = Fleet::new(&[1 << 30, 1 << 30, 0]);
            (0..beat).for_each(|_| fleet.pass(3));
            assert!(fleet.share(2) < 50, "{}", fleet.share(2));
            fleet.members[2].1 = 1 << 30;
            let began_ms = fleet.now_ms;
            while fleet.share(2) < 320 {
                fleet.pass(3);
                assert!(fleet.now_ms - began_ms <= 135, "{} of its share", fleet.share(2));
            }
            (0..200).for_each(|_| fleet.pass(3));
            fleet.members.iter_mut().for_each(|member| member.2 = 0);
            (0..1_000).for_each(|_| fleet.pass(3));
            let beats: Vec<u64> = fleet.members.iter().map(|member| member.2).collect();
            assert!(beats.iter().all(|beats| *beats <= 14), "{beats:?} in a second");
            assert!((0..3).all(|at| (330..=340).contains(&fleet.share(at))), "of a third each");
        }
    }

    #[test]
    fn a_share_that_does_not_come_is_asked_for_in_haste_a_few_times() {
        let mut fleet = Fleet::new(&[1 << 30, 1 << 30]);
        // Dead: what it had, and then what it kept, is nobody else's.
        fleet.members.truncate(1);
        fleet.members[0].2 = 0;
        (0..1_000).for_each(|_| fleet.pass(1));
        let beats = fleet.members[0].2;
        assert!(fleet.share(0) > 700, "{}", fleet.share(0));
        assert!(beats <= 14 + u64::from(HASTY_BEATS_MAX), "{beats} in a second");
    }
}
