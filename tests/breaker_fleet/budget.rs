//! The budget, offered more than it: kept in every second and used, whoever joins, leaves, freezes or dies.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::fleet::{Fleet, bound, is_asked, rate};
use crate::load::Load;
use crate::received::{self, Received};
use crate::support::{PATIENCE, await_until, env_number};

#[test]
fn never_more_than_the_budget_and_all_of_it_whoever_comes_and_goes() {
    let (rate, for_ms) = (rate(), env_number("HONGBAO_FLEET_S", 5) * 1_000);
    let factor = env_number("HONGBAO_FLEET_FACTOR", 3);
    let mut fleet = Fleet::start(1, &["stored_value.deadline_ms=2000"]);
    let load = fleet.load(["b0", "b1", "b2"], factor);
    fleet.await_backlog(rate / 2);
    let acked = || load.iter().map(Load::acked).sum::<u64>();
    let (began, acked_before) = (received::now_ms(fleet.wallet()), acked());
    let calm = received::await_time(fleet.wallet(), began + for_ms);
    let offered = (acked() - acked_before) as f64 * 1e3 / (for_ms * rate) as f64;
    println!("{offered:.2} times the budget offered for {for_ms} ms, and accepted");
    assert!(!is_asked() || offered >= 0.9 * factor as f64, "{offered:.2} times instead of {factor}");
    let used = calm.rate(began, began + for_ms) / rate as f64;
    let seconds = calm.seconds(|bucket| bucket.entries);
    let peak = calm.peak() as f64 / rate as f64;
    println!("calm: {used:.3} of the budget used, peak {peak:.3} of it in {} seconds", seconds.len());
    // In a few seconds a stall of the machine itself is some percent.
    let used_min = bound(0.95, 0.6);
    assert!(used >= used_min, "{used:.3} of the budget used\n{}\n{}", calm.picture(), fleet.said());

    // One joins, one leaves, one freezes and wakes, one dies: spread over as long a time, where there is time for it.
    let mut phase = Phase::begin(&fleet, if is_asked() { for_ms } else { 0 });
    phase.comes(&fleet, 100, "one joins");
    fleet.start_instance(3);
    fleet.await_shared(4);
    phase.comes(&fleet, 300, "one leaves");
    let leaving = fleet.instances[0].take().expect("it runs");
    let leaves = std::thread::spawn(move || leaving.terminate());
    phase.comes(&fleet, 450, "one freezes");
    fleet.at(1).signal(Signal::STOP);
    let frozen = Instant::now();
    await_until("it to lose its units", PATIENCE, || {
        let is_over = fleet.view().fleet() == 2 && frozen.elapsed() > Duration::from_millis(2_500);
        is_over.then_some(())
    });
    assert!(leaves.join().unwrap().success());
    phase.comes(&fleet, 0, "it wakes");
    fleet.at(1).signal(Signal::CONT);
    fleet.await_shared(3);
    phase.comes(&fleet, 700, "one dies");
    fleet.instances[2].take().expect("it runs").kill();
    await_until("the dead one's lease to be over", PATIENCE, || (fleet.view().fleet() == 2).then_some(()));
    fleet.await_shared(2);
    phase.comes(&fleet, 1_000, "the end");
    let all = received::await_time(fleet.wallet(), received::now_ms(fleet.wallet()) + 1_000);
    let used = phase.used(&all);
    all.must_keep_the_budget();
    assert!(fleet.changes(0).is_empty(), "the fleet stopped: {:?}", fleet.changes(0));
    // What one that froze or died had in its hands is given out again once its lease is over; in a few seconds that is much.
    let used_min = if for_ms >= 60_000 { 0.95 } else { bound(0.9, 0.6) };
    assert!(used >= used_min, "{used:.3} used\n{}\n{}", all.picture(), fleet.said());
    fleet.must_agree(load);
}

/// What happened when, by the wallet's clock.
struct Phase {
    for_ms: u64,
    events: Vec<(u64, &'static str)>,
}

impl Phase {
    /// To last so long, or as long as what happens in it takes.
    fn begin(fleet: &Fleet, for_ms: u64) -> Phase {
        Phase { for_ms, events: vec![(received::now_ms(fleet.wallet()), "nothing yet")] }
    }

    fn began_ms(&self) -> u64 {
        self.events[0].0
    }

    /// Waits until so many thousandths of it are over, for something to happen then.
    fn comes(&mut self, fleet: &Fleet, permille: u64, what: &'static str) {
        let at_ms = self.began_ms() + self.for_ms * permille / 1_000;
        received::await_time(fleet.wallet(), at_ms);
        self.events.push((received::now_ms(fleet.wallet()), what));
    }

    /// The part of the budget that was used in it; tells of what was not, after each event.
    fn used(&self, all: &Received) -> f64 {
        for (at_ms, what) in &self.events {
            let unused = |from_ms: u64, to_ms: u64| 1.0 - all.rate(from_ms, to_ms) / rate() as f64;
            println!(
                "{:>6} ms {what}: {:.3} of the budget not used in half a second, {:.3} in two",
                at_ms - self.began_ms(),
                unused(*at_ms, at_ms + 500),
                unused(*at_ms, at_ms + 2_000),
            );
        }
        let ended_ms = self.events.last().expect("the first").0;
        let used = all.rate(self.began_ms(), ended_ms) / rate() as f64;
        println!("coming and going: {used:.3} used in {} ms", ended_ms - self.began_ms());
        used
    }
}
