//! Who may own what, and so what follows for this instance: the board and the leases as views to be shared out.

use std::collections::BTreeMap;

use super::Worker;
use crate::intake::redis::board;
use crate::intake::redis::membership::BoardSight;
use crate::intake::redis::owner::observe::{Found, LeaseSight};
use crate::intake::redis::share::{Hold, Moves, View};
use crate::intake::redis::units::{Unit, UnitId};

impl Worker {
    pub(super) fn moves(&self, leases: &LeaseSight, board: &BoardSight) -> Moves {
        let mut moves = Moves::default();
        for (members, units) in self.sharers(board) {
            let holds = units.iter().map(|unit| self.hold_among(&members, *unit, leases)).collect();
            let me = members.iter().position(|member| *member == self.held.incarnation());
            let view =
                View { member_count: members.len(), me: me.expect("it knows its own units"), units: holds };
            moves.extend(view.moves(), &units);
        }
        moves
    }

    /// Units by the members that can own them, by incarnation: a list is shared among those only that have it in their
    /// settings. Whoever gave it up to others would leave it to nobody.
    fn sharers<'b>(&'b self, board: &'b BoardSight) -> BTreeMap<Vec<&'b str>, Vec<UnitId>> {
        let own = self.held.incarnation();
        let of_others = board.peers.live.iter().filter(|peer| peer.incarnation != own && peer.is_member());
        let others: Vec<(&str, Option<&board::Entry>)> =
            of_others.map(|peer| (peer.incarnation.as_str(), peer.entry.as_ref().ok())).collect();
        let mut groups: BTreeMap<Vec<&str>, Vec<UnitId>> = BTreeMap::new();
        for unit in self.keys.units().ids() {
            let can_own = |entry: &Option<&board::Entry>| match (self.keys.units().get(unit), entry) {
                // One of a newer version is believed, as it is when members are counted.
                (Unit::Shard(_), _) | (_, None) => true,
                (Unit::Foreign(list), Some(entry)) => entry.lists.contains(&list.name),
            };
            let mut members: Vec<&str> =
                others.iter().filter(|(_, entry)| can_own(entry)).map(|(name, _)| *name).collect();
            members.push(own);
            members.sort_unstable();
            groups.entry(members).or_default().push(unit);
        }
        groups
    }

    fn hold_among(&self, members: &[&str], unit: UnitId, leases: &LeaseSight) -> Hold {
        let own = self.held.incarnation();
        let position = |incarnation: &str| members.iter().position(|member| *member == incarnation);
        self.tenures.hold(unit).unwrap_or_else(|| match &leases.found[usize::from(unit.0)] {
            Found::Nothing => Hold::Free,
            Found::Lease(lease) if lease.incarnation == own || lease.deadline_ms <= leases.now => Hold::Free,
            Found::Lease(lease) => position(&lease.incarnation).map_or(Hold::Elsewhere, Hold::Theirs),
            // Lost within this round, or nobody's to own.
            Found::Unsaid | Found::Odd(_) => Hold::Elsewhere,
        })
    }
}
