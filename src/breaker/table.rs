//! The board as a value: what one beat and one compare-and-set do to it.
//!
//! The embedded board is this behind a mutex, and the fleet in virtual time meets at one; the Redis board does the
//! same in a script, which a test holds against this. What holds: granted leases never exceed the budget (with what
//! `shaping::lease` says of holders); permits under way never exceed `permits_max`, and one is free again when its
//! time is over, whatever became of its holder; a beat that is overtaken by a later one of the same instance changes
//! nothing; a state is replaced only by one who has seen it, and lately; what is dated ahead of the clock is void, for
//! the clock may be another machine's after a failover.

use std::collections::BTreeMap;

use super::board::{Member, Orders, Permit, Report, View};
use super::policy::State;
use crate::shaping::lease::grant;
use crate::shaping::{Amount, Lease};

/// A decision from a view that is older is void: whoever made it was frozen.
pub const SEEN_AGE_MS_MAX: u64 = 1_000;
/// An instance not heard of for so long is forgotten.
pub const FORGET_MS: u64 = 60_000;

#[derive(Clone, Debug)]
pub struct Table {
    pub state: State,
    members: BTreeMap<String, Member>,
}

impl Table {
    pub fn new(state: State) -> Table {
        Table { state, members: BTreeMap::new() }
    }

    pub fn view(&self, now_ms: u64) -> View {
        View { now_ms, state: self.state.clone(), members: self.members.clone() }.without_the_future()
    }

    pub fn beat(&mut self, now_ms: u64, report: &Report) -> Orders {
        self.members.retain(|name, member| {
            let is_old = now_ms.saturating_sub(member.seen_ms) >= FORGET_MS;
            *name == report.instance || !(is_old || member.is_of_the_future(now_ms))
        });
        let before = self.members.get(&report.instance).copied().unwrap_or_default();
        if report.ask.sequence <= before.sequence {
            let (granted, kept) = Default::default();
            return Orders { sequence: 0, granted, kept, has_permit: false, view: self.view(now_ms) };
        }
        let terms = self.state.terms();
        let (granted, kept) = {
            let others = self.others(&report.instance).map(|member| &member.lease);
            grant(report.ask.want, report.ask.keep, terms.cap(), terms.budget(), others, now_ms)
        };
        let permit_until_ms = self.permit(now_ms, &before, report);
        let lease = Lease {
            granted,
            kept,
            // A millisecond more, for `now_ms` is rounded down and the holder counts in parts of one.
            until_ms: now_ms + terms.lease_ms + 1,
            kept_until_ms: now_ms + terms.lease_ms + 1 + terms.reserve_ms,
        };
        let member = Member {
            sequence: report.ask.sequence,
            seen_ms: now_ms,
            lease,
            permit_until_ms,
            permit_epoch: terms.epoch,
            said: report.said,
        };
        self.members.insert(report.instance.clone(), member);
        let has_permit = report.permit == Permit::Wants && permit_until_ms > now_ms;
        let sequence = report.ask.sequence;
        Orders { sequence, granted, kept, has_permit, view: self.view(now_ms) }
    }

    /// Until when the instance has a permit; zero: it has none.
    fn permit(&self, now_ms: u64, before: &Member, report: &Report) -> u64 {
        let terms = self.state.terms();
        match report.permit {
            Permit::None => 0,
            Permit::Holds if before.permit_epoch == terms.epoch => {
                before.permit_until_ms.min(now_ms + terms.permit_ttl_ms)
            }
            Permit::Holds => 0,
            Permit::Wants => {
                let held = self
                    .others(&report.instance)
                    .filter(|member| member.permit_epoch == terms.epoch && now_ms < member.permit_until_ms);
                let is_free = (held.count() as u64) < terms.permits;
                if is_free { now_ms + terms.permit_ttl_ms } else { 0 }
            }
        }
    }

    fn others(&self, instance: &str) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |(name, _)| *name != instance).map(|(_, member)| member)
    }

    pub fn replace(&mut self, now_ms: u64, seen: &View, next: &State) -> bool {
        let is_late = now_ms.abs_diff(seen.now_ms) > SEEN_AGE_MS_MAX;
        if is_late || self.state.version != seen.state.version {
            return false;
        }
        self.state = next.clone();
        true
    }

    pub fn leave(&mut self, instance: &str) {
        self.members.remove(instance);
    }

    /// What the leases that run add up to.
    pub fn granted(&self, now_ms: u64) -> Amount {
        let running = self.members.values().filter(|member| now_ms < member.lease.until_ms);
        running.fold(Amount::default(), |sum, member| sum.plus(member.lease.granted))
    }
}

#[cfg(test)]
mod tests {
    use super::super::board::Said;
    use super::super::policy::{Phase, Settings};
    use super::*;
    use crate::shaping::lease::Ask;

    #[test]
    fn what_is_dated_ahead_of_the_clock_is_void() {
        let settings = Settings { rate_per_s: 100, calls_max: 4, permits_max: 1, ..Settings::default() };
        let mut table = Table::new(State::new(settings, 1));
        table.state.phase = Phase::HalfOpen;
        let report = |instance: &str, permit| {
            let want = Amount { rate_per_s: 80, calls: 3 };
            let ask = Ask { sequence: 1, want, keep: want };
            Report { instance: instance.to_owned(), ask, permit, said: Said::default() }
        };
        assert!(table.beat(10_000_000, &report("dead", Permit::Wants)).has_permit);
        let held = table.beat(10_000_100, &report("held", Permit::Wants));
        assert!(!held.has_permit && held.kept.rate_per_s == 20, "of the one before it: {held:?}");
        let orders = table.beat(5_000_000, &report("new", Permit::Wants));
        assert_eq!((orders.has_permit, orders.kept.rate_per_s, orders.view.fleet()), (true, 80, 1));
        // One that is alive keeps its permit, for no longer than it would by the clock that is.
        let mut again = report("new", Permit::Holds);
        again.ask.sequence = 2;
        table.beat(4_000_000, &again);
        assert_eq!(table.view(4_000_000).members["new"].permit_until_ms, 4_002_000);
        let seen = table.view(4_000_000);
        assert!(!table.replace(3_990_000, &seen, &seen.state), "seen by another clock");
    }
}
