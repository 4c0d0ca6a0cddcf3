//! One instance against a table of its own: what goes when, and what does not.

mod unanswered;

use super::super::board::{Permit, Report, Said, Workload};
use super::super::classify::Class;
use super::super::policy::Wish;
use super::super::table::Table;
use super::*;

const BOARD_MS: u64 = 5_000_000;

struct Rig {
    now_ms: u64,
    /// What the board's clock is ahead by.
    leapt_ms: u64,
    table: Table,
    governor: Governor,
}

impl Rig {
    /// Has beaten twice.
    fn new() -> Rig {
        let settings = Settings { rate_per_s: 1_000, calls_max: 4, ..Settings::default() };
        let table = Table::new(State::new(settings.clone(), BOARD_MS));
        let mut rig =
            Rig { now_ms: 1_000, leapt_ms: 0, table, governor: Governor::new("one", 100, settings) };
        rig.beat();
        rig.beat();
        rig
    }

    fn now_ns(&self) -> u64 {
        self.now_ms * MS
    }

    fn board_ms(&self) -> u64 {
        BOARD_MS + self.leapt_ms + self.now_ms
    }

    fn beat(&mut self) {
        self.beat_with(10_000);
    }

    fn beat_with(&mut self, backlog: u64) {
        self.now_ms += 10;
        let now_ns = self.now_ns();
        let report = self.governor.beat(now_ns, Workload::waiting(backlog));
        let orders = self.table.beat(self.board_ms(), &report);
        if let Some((seen, next)) = self.governor.ordered(now_ns, orders)
            && self.table.replace(self.board_ms(), &seen, &next)
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
    for sequence in 1..30 {
        well(&mut rig, sequence);
        let _ = rig.call(Class::Timeout);
        rig.beat();
    }
    assert_eq!(rig.phase(), "closed");
    assert!(matches!(rig.admit(), Err(Held::Alone { .. })));
    assert!(!rig.governor.wants_release(rig.now_ns()));
    rig.now_ms += 1_500;
    assert!(rig.governor.wants_release(rig.now_ns()), "others should have its work");
    well(&mut rig, 100);
    rig.beat();
    for _ in 0..2 {
        rig.now_ms += 200;
        let sequence = 100 + rig.now_ms;
        well(&mut rig, sequence);
        rig.beat();
        assert_eq!(rig.call(Class::Healthy), Ok(1), "one at a time, within its share");
    }
    assert!(!rig.governor.wants_release(rig.now_ns()));
    (0..3).for_each(|_| rig.beat());
    rig.now_ms += 150;
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

/// Trips by itself while another one, well and busy, holds the majority against it.
fn stopped_alone() -> Rig {
    let mut rig = Rig::new();
    for sequence in 1..30 {
        well(&mut rig, sequence);
        let _ = rig.call(Class::Timeout);
        rig.beat();
    }
    assert!(matches!(rig.admit(), Err(Held::Alone { .. })));
    rig
}

fn well(rig: &mut Rig, sequence: u64) {
    let counts = Counts::of(Class::Healthy, 500);
    let said = Said { epoch: rig.governor.state().epoch, counts, ..Said::default() };
    let ask = crate::shaping::lease::Ask { sequence, want: Amount::default(), keep: Amount::default() };
    let report = Report { instance: "two".to_owned(), ask, permit: Permit::None, said };
    rig.table.beat(BOARD_MS + rig.now_ms, &report);
}

#[test]
fn who_sends_less_than_its_part_by_what_waits_is_behind() {
    // own: waiting, sent a second; the other one's; by which part it would have to send more
    let table = [
        ((10_000, 500), (10_000, 1_500), 1.0),
        ((10_000, 1_500), (10_000, 500), -1.0 / 3.0),
        ((15_000, 300), (20_000, 400), 0.0),
        // A short line counts as three quarters of the longest.
        ((600, 300), (20_000, 400), 0.0),
        // No line to speak of.
        ((500, 500), (500, 1_500), 0.0),
        ((0, 0), (300, 1_500), 0.0),
        // What it sends without a line is no measure.
        ((10_000, 500), (0, 9_000), 0.0),
        ((100, 0), (100, 400), 199.0),
    ];
    for (row, (own, other, expected)) in table.into_iter().enumerate() {
        let mut rig = Rig::new();
        let work = Some(Workload::waiting(other.0));
        let said = Said { spent_per_s: other.1, work, ..Said::default() };
        let ask =
            crate::shaping::lease::Ask { sequence: 1, want: Amount::default(), keep: Amount::default() };
        let report = Report { instance: "two".to_owned(), ask, permit: Permit::None, said };
        rig.table.beat(rig.board_ms(), &report);
        rig.beat();
        rig.governor.spent_per_s = own.1;
        let told = rig.governor.behind(rig.now_ns(), Workload::waiting(own.0));
        assert!((told - expected).abs() < 1e-9, "row {row}: {told}");
        // Whoever is gone is no measure.
        let told = rig.governor.behind(rig.now_ns() + 500 * MS, Workload::waiting(own.0));
        assert_eq!(told, if own == (100, 0) { -1.0 } else { 0.0 }, "row {row}, alone");
        let told = rig.governor.behind(rig.now_ns() + 1_000 * MS, Workload::waiting(own.0));
        assert_eq!(told, 0.0, "row {row}, the board is lost");
    }
}

#[test]
fn who_has_the_longer_line_asks_for_more_of_a_budget_that_is_short() {
    // own line; the other one's, if it says; what is asked for of 1,000
    let table = [
        (12_000, Some(10_000), 545),
        (10_000, Some(12_000), 454),
        (10_000, Some(900_000), 428),
        (10_000, Some(10_000), 500),
        (12_000, None, 500),
        // Lines of next to nothing are none.
        (100, Some(20), 500),
    ];
    for (own, other, expected) in table {
        let mut rig = Rig::new();
        let work = other.map(Workload::waiting);
        let said = Said { demand: Amount { rate_per_s: 5_000, calls: 50 }, work, ..Said::default() };
        let (want, keep) = (Amount { rate_per_s: 1, calls: 1 }, Amount::default());
        let ask = crate::shaping::lease::Ask { sequence: 1, want, keep };
        let report = Report { instance: "two".to_owned(), ask, permit: Permit::None, said };
        rig.table.beat(rig.board_ms(), &report);
        rig.beat_with(own);
        let report = rig.governor.beat(rig.now_ns() + 10 * MS, Workload::waiting(own));
        assert_eq!(report.ask.want.rate_per_s, expected, "{own} beside {other:?}");
    }
}

#[test]
fn stopped_alone_with_nothing_to_try_it_takes_part_again_after_a_while() {
    for (backlog, expected) in [(0, false), (5, true)] {
        let mut rig = stopped_alone();
        for step in 0..90 {
            rig.now_ms += 100;
            well(&mut rig, 1_000 + step);
            rig.beat_with(backlog);
            assert!(step > 70 || rig.governor.vote.tripped_at_ms().is_some(), "too early: {step}");
        }
        assert_eq!(rig.governor.wants_release(rig.now_ns()), expected, "with {backlog} to try");
    }
}

#[test]
fn nobody_has_its_work_where_there_is_nobody_else() {
    let mut rig = Rig::new();
    for _ in 0..8 {
        rig.now_ms += 20;
        let _ = rig.call(Class::Timeout);
    }
    assert!(rig.governor.vote.tripped_at_ms().is_some() && rig.governor.holder.fleet() == 1);
    rig.now_ms += 2_000;
    assert!(!rig.governor.wants_release(rig.now_ns()));
}

#[test]
fn held_closed_by_hand_nothing_it_sees_stops_it_and_what_stopped_it_is_forgotten() {
    let mut rig = stopped_alone();
    rig.wish(Wish::Close);
    rig.beat();
    rig.beat();
    let (mut sent, mut is_told) = (0, false);
    for _ in 0..200 {
        rig.now_ms += 10;
        sent += rig.call(Class::Unknown).unwrap_or(0);
        rig.beat();
        assert!(!rig.governor.wants_release(rig.now_ns()));
        match rig.admit() {
            Ok(ticket) => rig.governor.withdraw(ticket),
            Err(held) => assert!(matches!(held, Held::Paced { .. } | Held::Full), "{held:?}"),
        }
        is_told |= rig.governor.status(rig.now_ns()).failing.0 > 0;
    }
    assert!(sent >= 40, "{sent}");
    assert!(is_told, "and it is told");
    rig.wish(Wish::Auto);
    // What the adaptive limit has left by now is too little to tell anything.
    rig.governor.rate_limit.restart(rig.now_ms * MS);
    while rig.governor.vote.tripped_at_ms().is_none() && rig.phase() == "closed" {
        rig.now_ms += 10;
        rig.beat();
        let _ = rig.call(Class::Unknown);
        assert!(rig.now_ms < 60_000, "and then it counts");
    }
}

#[test]
fn a_board_that_has_lost_its_state_gets_it_back_and_what_was_said_since_stands() {
    let mut rig = Rig::new();
    rig.wish(Wish::Open);
    rig.beat();
    let settings = rig.governor.state().settings.clone();
    let forget = |rig: &mut Rig| {
        let now_ms = BOARD_MS + rig.now_ms;
        rig.table = Table::new(State::new(settings.clone(), now_ms));
    };
    forget(&mut rig);
    rig.beat();
    assert!(matches!(rig.table.state.phase, Phase::Open { .. }), "{:?}", rig.table.state);
    assert_eq!((rig.table.state.held, rig.admit()), (Some(Wish::Open), Err(Held::Open)));
    rig.wish(Wish::Auto);
    rig.beat();
    assert_eq!(rig.phase(), "half_open", "it is heard");

    rig.wish(Wish::Close);
    rig.beat();
    let epoch = rig.governor.state().epoch;
    forget(&mut rig);
    rig.wish(Wish::Open);
    rig.beat();
    assert_eq!(
        (rig.phase(), rig.table.state.held),
        ("open", Some(Wish::Open)),
        "said to the one that forgot"
    );
    assert!(rig.governor.state().epoch > epoch && *rig.governor.state() == rig.table.state);

    // Back by one write, and another one in its place.
    rig.wish(Wish::Auto);
    rig.beat();
    let mut other = rig.table.state.wished(BOARD_MS, Wish::Close, "bob", "otherwise");
    other.version = rig.governor.state().version;
    rig.table.state = other;
    rig.beat();
    assert_eq!(rig.phase(), "closed");
}

#[test]
fn shares_are_asked_for_as_before_for_a_lease_after_the_board_forgot_or_its_clock_leapt() {
    for is_leap in [false, true] {
        let mut rig = Rig::new();
        let busy = |rig: &mut Rig, sequence| {
            let (want, keep) = (Amount { rate_per_s: 500, calls: 2 }, Amount::default());
            let demand = Amount { rate_per_s: 5_000, calls: 50 };
            let said = Said { epoch: rig.governor.state().epoch, demand, ..Said::default() };
            let ask = crate::shaping::lease::Ask { sequence, want, keep };
            let report = Report { instance: "two".to_owned(), ask, permit: Permit::None, said };
            rig.table.beat(rig.board_ms(), &report);
        };
        for sequence in 1..10 {
            busy(&mut rig, sequence);
            rig.beat();
        }
        assert_eq!(rig.governor.allowed(rig.now_ns()).rate_per_s, 500);
        if is_leap {
            rig.leapt_ms = 3_600_000;
        } else {
            let now_ms = rig.board_ms();
            let settings = rig.governor.state().settings.clone();
            rig.table = Table::new(State::new(settings, now_ms));
        }
        for step in 0..25 {
            rig.beat();
            let allowed = rig.governor.allowed(rig.now_ns()).rate_per_s;
            assert!(allowed <= 500, "{allowed} after {step} beats, leap: {is_leap}");
        }
        (0..20).for_each(|_| rig.beat());
        assert_eq!(rig.governor.allowed(rig.now_ns()).rate_per_s, 1_000, "the other one is gone");
    }
}

#[test]
fn tries_are_a_part_of_a_small_budget() {
    for (rate_per_s, count) in [(1_000, 8), (100, 4), (22, 1), (3, 1)] {
        let settings = Settings { rate_per_s, calls_max: 4, ..Settings::default() };
        assert_eq!(settings.probe_share(), count, "of {rate_per_s}");
        let table = Table::new(State::new(settings.clone(), BOARD_MS));
        let governor = Governor::new("one", 100, settings);
        let mut rig = Rig { now_ms: 1_000, leapt_ms: 0, table, governor };
        rig.wish(Wish::Open);
        rig.wish(Wish::Auto);
        let mut sent = Vec::new();
        while rig.phase() != "ramp" {
            rig.beat();
            if let Ok(ticket) = rig.admit() {
                assert!(ticket.count <= count, "{} of {rate_per_s}", ticket.count);
                sent.push((rig.now_ms, ticket.count));
                rig.governor.answered(rig.now_ns(), ticket, &Counts::of(Class::Healthy, ticket.count));
            }
            assert!(rig.now_ms < 60_000, "it never tried enough");
        }
        for (from_ms, _) in &sent {
            let second = sent.iter().filter(|(at_ms, _)| (*from_ms..from_ms + 1_000).contains(at_ms));
            let sum: u64 = second.map(|(_, count)| count).sum();
            assert!(sum <= rate_per_s.max(1) + 1, "{sum} in a second of {rate_per_s}: {sent:?}");
        }
    }
}

#[test]
fn one_that_has_left_sends_nothing_and_a_call_that_was_not_made_is_in_no_count() {
    let mut rig = Rig::new();
    let ticket = rig.admit().expect("a lease");
    rig.governor.withdraw(ticket);
    assert_eq!(rig.governor.status(rig.now_ns()).tally.sent, [0; 3]);
    rig.call(Class::Healthy).expect("a lease");
    assert_eq!(rig.governor.status(rig.now_ns()).tally.sent, [1, 0, 0]);
    rig.now_ms += 50;
    rig.governor.retire();
    assert_eq!(rig.admit(), Err(Held::NoShare));
}
