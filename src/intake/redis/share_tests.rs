//! Fair shares against a model of a fleet: instances that see and act at times of their own, join, leave, crash.

use proptest::prelude::*;

use super::*;

fn moves(me: usize, member_count: usize, units: &[Hold]) -> Moves {
    View { member_count, me, units: units.to_vec() }.moves()
}

fn mine(order: u64) -> Hold {
    Hold::Mine { order, is_leaving: false }
}

#[test]
fn who_does_what() {
    let units = |numbers: &[u16]| numbers.iter().map(|number| UnitId(*number)).collect::<Vec<_>>();
    let leaving = Hold::Mine { order: 9, is_leaving: true };
    let theirs = Hold::Theirs;
    // me, members, units, to leave, to acquire, waiting
    type Row<'a> = (usize, usize, &'a [Hold], &'a [u16], &'a [u16], bool);
    let table: [Row; 9] = [
        (0, 1, &[Hold::Free, Hold::Free], &[], &[0, 1], false),
        (0, 2, &[mine(1), mine(3), mine(2), mine(4)], &[3, 1], &[], false),
        (1, 2, &[theirs(0), theirs(0)], &[], &[], true),
        (1, 2, &[Hold::Free, Hold::Free, Hold::Free, Hold::Free], &[], &[2, 3], false),
        // What is being left counts for the share of others, not for ours.
        (0, 2, &[mine(1), mine(2), leaving, leaving], &[], &[], false),
        // The remainder stays where it is.
        (1, 2, &[theirs(0), mine(1), mine(2)], &[], &[], false),
        (0, 2, &[mine(1), theirs(1), theirs(1)], &[], &[], false),
        // More members than units.
        (2, 3, &[theirs(0), theirs(1)], &[], &[], false),
        (0, 1, &[Hold::Elsewhere, Hold::Free], &[], &[1], true),
    ];
    for (row, (me, member_count, holds, leave, acquire, is_waiting)) in table.into_iter().enumerate() {
        let expected = Moves { leave: units(leave), acquire: units(acquire), is_waiting };
        assert_eq!(moves(me, member_count, holds), expected, "row {row}");
    }
}

/// One instance of the model; `number` stands for its incarnation.
#[derive(Clone, Debug)]
struct Instance {
    number: u32,
    /// What it saw last and has not acted upon.
    seen: Option<(Vec<u32>, Vec<Option<u32>>)>,
    leaving: Vec<usize>,
}

/// Leases as Redis has them; a crashed instance's are still there.
#[derive(Clone, Debug, Default)]
struct Fleet {
    instances: Vec<Instance>,
    leases: Vec<Option<u32>>,
    /// When a unit was acquired.
    orders: Vec<u64>,
    next_number: u32,
    next_order: u64,
}

impl Fleet {
    fn join(&mut self) {
        // Not always at the end of the order.
        let number = self.next_number.wrapping_mul(0x9E37_79B1) >> 8;
        self.next_number += 1;
        self.instances.push(Instance { number, seen: None, leaving: Vec::new() });
        self.instances.sort_by_key(|instance| instance.number);
    }

    /// Gone; with its leases (a clean stop) or without (a crash).
    fn remove(&mut self, at: usize, is_clean: bool) {
        let gone = self.instances.remove(at).number;
        if is_clean {
            self.leases.iter_mut().filter(|lease| **lease == Some(gone)).for_each(|lease| *lease = None);
        }
    }

    /// Leases of those that are gone run out.
    fn run_out(&mut self) {
        let live: Vec<u32> = self.instances.iter().map(|instance| instance.number).collect();
        let run_out = |lease: &&mut Option<u32>| lease.is_some_and(|number| !live.contains(&number));
        self.leases.iter_mut().filter(run_out).for_each(|lease| *lease = None);
    }

    fn look(&mut self, at: usize) {
        let live = self.instances.iter().map(|instance| instance.number).collect();
        self.instances[at].seen = Some((live, self.leases.clone()));
    }

    /// What was left is released.
    fn release(&mut self, at: usize) {
        for unit in std::mem::take(&mut self.instances[at].leaving) {
            self.leases[unit] = None;
        }
    }

    /// Acts on what it saw; how many moves it made.
    fn act(&mut self, at: usize) -> usize {
        let Some((live, leases)) = self.instances[at].seen.take() else { return 0 };
        let own = self.instances[at].number;
        let me = live.iter().position(|number| *number == own).expect("it sees itself");
        let hold = |(unit, lease): (usize, &Option<u32>)| match lease {
            None => Hold::Free,
            Some(number) if *number == own => {
                // One's own leases are known as they are.
                let is_leaving = self.instances[at].leaving.contains(&unit);
                match self.leases[unit] == Some(own) {
                    true => Hold::Mine { order: self.orders[unit], is_leaving },
                    false => Hold::Free,
                }
            }
            Some(number) => live.iter().position(|live| live == number).map_or(Hold::Elsewhere, Hold::Theirs),
        };
        let units = leases.iter().enumerate().map(hold).collect();
        let moves = View { member_count: live.len(), me, units }.moves();
        let count = moves.leave.len() + moves.acquire.len();
        self.instances[at].leaving.extend(moves.leave.iter().map(|unit| usize::from(unit.0)));
        for unit in moves.acquire.into_iter().map(|unit| usize::from(unit.0)) {
            // The script: only what is free.
            if self.leases[unit].is_none() {
                self.leases[unit] = Some(own);
                self.orders[unit] = self.next_order;
                self.next_order += 1;
            }
        }
        count
    }

    /// Looks and acts in one; what it left before is released first.
    fn turn(&mut self, at: usize) -> usize {
        self.release(at);
        self.look(at);
        self.act(at)
    }

    fn is_fair(&self) -> bool {
        let held = |of: &Instance| self.leases.iter().filter(|lease| **lease == Some(of.number)).count();
        let held: Vec<usize> = self.instances.iter().map(held).collect();
        let least = self.leases.len() / self.instances.len();
        let most = self.leases.len().div_ceil(self.instances.len());
        held.iter().all(|count| (least..=most).contains(count)) && self.leases.iter().all(Option::is_some)
    }
}

/// Rounds after which whatever happened is mended: one to leave, one to release, one to take, and slack for views
/// that were old when the quiet began.
const ROUNDS_MAX: usize = 6;

proptest! {
    #[test]
    fn a_fleet_comes_to_fair_shares_and_stays_there(
        unit_count in 1usize..40,
        joined in 1usize..6,
        events in prop::collection::vec((0u8..8, any::<prop::sample::Index>()), 0..80),
        lockstep in any::<bool>(),
    ) {
        let mut fleet =
            Fleet { leases: vec![None; unit_count], orders: vec![0; unit_count], ..Fleet::default() };
        (0..joined).for_each(|_| fleet.join());
        for (event, index) in events {
            let at = index.index(fleet.instances.len());
            match event {
                0 if fleet.instances.len() < 12 => fleet.join(),
                1 if fleet.instances.len() > 1 => fleet.remove(at, true),
                2 if fleet.instances.len() > 1 => fleet.remove(at, false),
                3 => fleet.run_out(),
                4 => fleet.look(at),
                5 => { fleet.act(at); }
                6 => fleet.release(at),
                _ => { fleet.turn(at); }
            }
        }
        fleet.run_out();
        let everybody = 0..fleet.instances.len();
        for _ in 0..ROUNDS_MAX {
            if lockstep {
                everybody.clone().for_each(|at| fleet.release(at));
                everybody.clone().for_each(|at| fleet.look(at));
                everybody.clone().for_each(|at| { fleet.act(at); });
            } else {
                everybody.clone().for_each(|at| { fleet.turn(at); });
            }
        }
        prop_assert!(fleet.is_fair(), "{fleet:?}");
        let before = fleet.leases.clone();
        let moved: usize = everybody.map(|at| fleet.turn(at)).sum();
        prop_assert_eq!(moved, 0);
        prop_assert_eq!(before, fleet.leases);
    }

    #[test]
    fn no_more_moves_than_must_be(unit_count in 1usize..64, member_count in 1usize..8) {
        let mut fleet =
            Fleet { leases: vec![None; unit_count], orders: vec![0; unit_count], ..Fleet::default() };
        (0..member_count).for_each(|_| fleet.join());
        for _ in 0..ROUNDS_MAX {
            (0..member_count).for_each(|at| { fleet.turn(at); });
        }
        fleet.join();
        let before = fleet.leases.clone();
        for _ in 0..ROUNDS_MAX {
            (0..=member_count).for_each(|at| { fleet.turn(at); });
        }
        prop_assert!(fleet.is_fair());
        let moved = before.iter().zip(&fleet.leases).filter(|(before, after)| before != after).count();
        prop_assert!(moved <= unit_count.div_ceil(member_count + 1), "{moved} of {unit_count}");
    }
}
