//! Who should own which unit: fair shares with as little movement as can be. Pure.
//!
//! Every member of the fleet looks at the same leases and decides for itself alone. Of `n` units and `m` members
//! each gets `n / m`, and the remainder goes one by one to those that hold most already (ties by the order of
//! incarnations). Who holds more than its share leaves the excess, the most recently acquired first; who
//! holds less takes free units. What holds: a fair partition changes no more; from any other, fresh views
//! lead to one in a few rounds, for whoever leaves is above a share that somebody else is below, and nobody ever
//! takes more than its share.

use std::cmp::Reverse;

use super::units::UnitId;

/// How one unit stands in the eyes of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Nobody's: never owned, released, or its lease has run out.
    Free,
    /// Ours; `order` rises with each acquisition.
    Mine { order: u64, is_leaving: bool },
    /// Of another member, by its position among the members.
    Theirs(usize),
    /// Leased to somebody who is no member (any more): it will be free once the lease has run out.
    Elsewhere,
}

/// The fleet as one member sees it.
#[derive(Clone, Debug)]
pub struct View {
    /// Live instances that take units, ourselves among them.
    pub member_count: usize,
    /// Our position among them, in the order of incarnations.
    pub me: usize,
    /// By number of the unit, or by position among some units that are shared on their own.
    pub units: Vec<Hold>,
}

/// What one member should do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    pub leave: Vec<UnitId>,
    pub acquire: Vec<UnitId>,
    /// More is due to us than there is to take now.
    pub is_waiting: bool,
}

impl Moves {
    /// Adds the moves of a view of these units only, by their positions among them.
    pub fn extend(&mut self, of_some: Moves, units: &[UnitId]) {
        let unit = |position: &UnitId| units[usize::from(position.0)];
        self.leave.extend(of_some.leave.iter().map(unit));
        self.acquire.extend(of_some.acquire.iter().map(unit));
        self.is_waiting |= of_some.is_waiting;
    }
}

impl View {
    /// How many units each member has, those that it is leaving included.
    fn held(&self) -> Vec<usize> {
        let mut held = vec![0; self.member_count];
        for hold in &self.units {
            match hold {
                Hold::Mine { .. } => held[self.me] += 1,
                Hold::Theirs(member) => held[*member] += 1,
                Hold::Free | Hold::Elsewhere => {}
            }
        }
        held
    }

    /// Our share.
    pub fn share(&self) -> usize {
        let mut held = self.held();
        // What is above every share counts no more than the largest one: else who has released its excess would
        // fall behind those who are still about to.
        let most = self.units.len().div_ceil(self.member_count);
        held.iter_mut().for_each(|count| *count = most.min(*count));
        // How many come before us where the remainder is given out.
        let key = |member: usize| (Reverse(held[member]), member);
        let rank = (0..self.member_count).filter(|member| key(*member) < key(self.me)).count();
        let remainder = self.units.len() % self.member_count;
        self.units.len() / self.member_count + usize::from(rank < remainder)
    }

    pub fn moves(&self) -> Moves {
        let share = self.share();
        let mut staying: Vec<(u64, UnitId)> = Vec::new();
        for (number, hold) in self.units.iter().enumerate() {
            if let Hold::Mine { order, is_leaving: false } = hold {
                staying.push((*order, UnitId(number as u16)));
            }
        }
        if staying.len() >= share {
            staying.sort_unstable();
            let leave = staying.drain(share..).rev().map(|(_, unit)| unit).collect();
            return Moves { leave, ..Moves::default() };
        }
        let missing = share - staying.len();
        let count = self.units.len();
        // Each begins at another place, so that members who join together do not reach for the same units.
        let first = self.me * count / self.member_count;
        let in_turn = (0..count).map(|at| (first + at) % count);
        let free = in_turn.filter(|number| self.units[*number] == Hold::Free);
        let acquire: Vec<UnitId> = free.take(missing).map(|number| UnitId(number as u16)).collect();
        Moves { leave: Vec::new(), is_waiting: acquire.len() < missing, acquire }
    }
}

#[cfg(test)]
#[path = "share_tests.rs"]
mod tests;
