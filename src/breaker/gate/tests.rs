//! One instance against a table of its own: what goes when, and what does not.

use super::super::classify::Class;
use super::super::policy::Wish;
use super::super::table::Table;
use super::*;

const BOARD_MS: u64 = 5_000_000;

struct Rig {
    now_ms: u64,
    table: Table,
    governor: Governor,
}

impl Rig {
    /// Has beaten twice.
    fn new() -> Rig {
        let settings = Settings { rate_per_s: 1_000, calls_max: 4, ..Settings::default() };
        let table = Table::new(State::new(settings.clone(), BOARD_MS));
        let mut rig = Rig { now_ms: 1_000, table, governor: Governor::new("one", 100, settings) };
        rig.beat();
        rig.beat();
        rig
    }

    fn now_ns(&self) -> u64 {
        self.now_ms * MS
    }

    fn beat(&mut self) {
        self.now_ms += 10;
        let now_ns = self.now_ns();
        let report = self.governor.beat(now_ns, 10_000);
        let orders = self.table.beat(BOARD_MS + self.now_ms, &report);
        if let Some((seen, next)) = self.governor.ordered(now_ns, orders)
            && self.table.replace(BOARD_MS + self.now_ms, &seen, &next)
        {
            self.governor.heard(now_ns, &next);
        }
    }

    fn admit(&mut self) -> Result<Ticket, Held> {
        self.governor.admit(self.now_ns(), 100)
    }

    fn call(&mut self, class: Class) -> Result<u64, Held> {
        let ticket = self.admit()?;
        self.now_ms += 2;
        self.governor.answered(self.now_ns(), ticket, &Counts::of(class, ticket.count));
        Ok(ticket.count)
    }

    fn phase(&self) -> &'static str {
        self.governor.state().phase.as_str()
    }

    fn wish(&mut self, wish: Wish) {
        let seen = self.table.view(BOARD_MS + self.now_ms);
        let next = seen.state.wished(seen.now_ms, wish, "ann", "why");
        assert!(self.table.replace(seen.now_ms, &seen, &next));
    }
}

#[test]
fn nothing_goes_before_the_board_was_heard() {
    let mut governor = Governor::new("one", 100, Settings { rate_per_s: 9, ..Settings::default() });
    assert_eq!(governor.admit(5_000 * MS, 1), Err(Held::NoShare));
}

#[test]
fn rate_and_calls_are_those_of_the_lease() {
    let mut rig = Rig::new();
    assert_eq!(rig.call(Class::Healthy), Ok(20), "twenty milliseconds of a thousand a second");
    assert!(matches!(rig.admit(), Ok(_) | Err(Held::Paced { .. })));
    let mut held = Vec::new();
    for _ in 0..10 {
        rig.now_ms += 10;
        held.push(rig.admit().err());
    }
    assert_eq!(held.last(), Some(&Some(Held::Full)), "calls that do not come back: {held:?}");
    assert!(rig.governor.under_way() <= 4);
}

#[test]
fn what_was_admitted_and_not_sent_costs_nothing() {
    let mut rig = Rig::new();
    let ticket = rig.admit().expect("a lease");
    assert_eq!(ticket.count, 20);
    let part = rig.governor.shrink(ticket, 4);
    rig.governor.withdraw(part);
    assert_eq!((rig.governor.under_way(), rig.admit().map(|ticket| ticket.count)), (0, Ok(20)));
}

#[test]
fn a_lease_that_is_over_leaves_what_was_agreed() {
    let mut rig = Rig::new();
    rig.now_ms += 10_000;
    assert!(rig.governor.is_cut_off(rig.now_ns()));
    assert_eq!(rig.governor.allowed(rig.now_ns()).rate_per_s, 1_000, "alone in the fleet, all of it");
}

#[test]
fn failing_alone_in_the_fleet_it_trips_tries_with_permits_and_ramps() {
    let mut rig = Rig::new();
    while rig.phase() == "closed" {
        rig.now_ms += 10;
        let _ = rig.call(Class::Timeout);
        rig.beat();
    }
    assert_eq!((rig.phase(), rig.admit()), ("open", Err(Held::Open)));
    rig.now_ms += 500;
    rig.beat();
    assert_eq!((rig.phase(), rig.admit()), ("half_open", Err(Held::Open)), "no permit yet");
    rig.beat();
    let probe = rig.admit().expect("a permit");
    assert_eq!((probe.kind, probe.count, rig.admit()), (Kind::Probe, 8, Err(Held::Open)));
    rig.governor.answered(rig.now_ns(), probe, &Counts::of(Class::Healthy, 8));
    for _ in 0..20 {
        rig.beat();
        let _ = rig.call(Class::Healthy);
    }
    assert_eq!(rig.phase(), "ramp");
    rig.beat();
    assert!(rig.governor.allowed(rig.now_ns()).rate_per_s <= 140);
}

#[test]
fn a_permit_is_of_no_use_after_its_time() {
    for (wait_ms, expected) in [(280, Ok(Kind::Probe)), (290, Err(Held::Open))] {
        let mut rig = Rig::new();
        rig.table.state.settings.permit_ttl_ms = 290;
        rig.wish(Wish::Open);
        rig.wish(Wish::Auto);
        rig.beat();
        rig.beat();
        rig.now_ms += wait_ms;
        assert_eq!(rig.admit().map(|ticket| ticket.kind), expected, "after {wait_ms} ms");
    }
}

#[test]
fn an_open_breaker_is_believed_for_a_grace_without_the_board() {
    let mut rig = Rig::new();
    while rig.phase() == "closed" {
        rig.now_ms += 10;
        let _ = rig.call(Class::Timeout);
        rig.beat();
    }
    let grace_ms = 500 + rig.governor.state().settings.grace_ms;
    rig.now_ms += grace_ms - 20;
    assert_eq!(rig.admit(), Err(Held::Open));
    rig.now_ms += 40;
    assert!(rig.admit().is_ok(), "then with what was agreed");
    rig.wish(Wish::Open);
    rig.beat();
    rig.now_ms += 100_000_000;
    assert_eq!(rig.admit(), Err(Held::Open), "an operator's word has no time");
}

#[test]
fn one_that_fails_while_others_do_not_stops_itself_and_comes_back() {
    let mut rig = Rig::new();
    // Another one, well and busy, holds the majority against it.
    let other = |rig: &mut Rig, sequence| {
        let counts = Counts::of(Class::Healthy, 500);
        let said = Said { epoch: rig.governor.state().epoch, counts, ..Said::default() };
        let ask = crate::shaping::lease::Ask { sequence, want: Amount::default(), keep: Amount::default() };
        let report = Report { instance: "two".to_owned(), ask, permit: Permit::None, said };
        rig.table.beat(BOARD_MS + rig.now_ms, &report);
    };
    for sequence in 1..30 {
        other(&mut rig, sequence);
        let _ = rig.call(Class::Timeout);
        rig.beat();
    }
    assert_eq!(rig.phase(), "closed");
    assert!(matches!(rig.admit(), Err(Held::Alone { .. })));
    assert!(!rig.governor.wants_release(rig.now_ns()));
    rig.now_ms += 1_500;
    assert!(rig.governor.wants_release(rig.now_ns()), "others should have its work");
    other(&mut rig, 100);
    rig.beat();
    for _ in 0..2 {
        assert_eq!(rig.call(Class::Healthy), Ok(8), "one at a time");
    }
    assert!(!rig.governor.wants_release(rig.now_ns()));
    assert_eq!(rig.admit().map(|ticket| ticket.kind), Ok(Kind::Paced));
}

#[test]
fn what_was_sent_before_an_outage_says_nothing_after_it() {
    let mut rig = Rig::new();
    let old = rig.admit().expect("a lease");
    rig.wish(Wish::Open);
    rig.wish(Wish::Close);
    rig.beat();
    for _ in 0..5 {
        rig.governor.under_way += 1;
        rig.governor.answered(rig.now_ns(), old, &Counts::of(Class::Timeout, 100));
    }
    assert_eq!(rig.governor.vote.counts(rig.now_ms).total(), 0);
}
