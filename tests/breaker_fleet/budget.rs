//! The budget, offered more than it: kept in every second and used, whoever joins, leaves, freezes or dies.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::fleet::{Fleet, rate};
use crate::received;
use crate::support::{PATIENCE, await_until, env_number};

#[test]
fn never_more_than_the_budget_and_all_of_it_whoever_comes_and_goes() {
    let (rate, for_ms) = (rate(), env_number("HONGBAO_FLEET_S", 5) * 1_000);
    let mut fleet = Fleet::start(1, &[]);
    let load = fleet.load(["b0", "b1", "b2"], env_number("HONGBAO_FLEET_FACTOR", 3));
    fleet.await_backlog(rate / 2);
    let began = received::now_ms(fleet.wallet());
    let calm = received::await_time(fleet.wallet(), began + for_ms);
    let used = calm.rate(began, began + for_ms) / rate as f64;
    let seconds = calm.seconds(|bucket| bucket.entries);
    let peak = calm.peak() as f64 / rate as f64;
    println!("calm: {used:.3} of the budget used, peak {peak:.3} of it in {} seconds", seconds.len());
    // In a few seconds a stall of the machine itself is some percent.
    let used_min = if for_ms >= 10_000 { 0.95 } else { 0.85 };
    assert!(used >= used_min, "{used:.3} of the budget used\n{}\n{}", calm.picture(), fleet.said());

    // One joins, one leaves, one freezes and wakes, one dies.
    let began = received::now_ms(fleet.wallet());
    fleet.start_instance(3);
    fleet.await_shared(4);
    let leaving = fleet.instances[0].take().expect("it runs");
    let leaves = std::thread::spawn(move || leaving.terminate());
    fleet.at(1).signal(Signal::STOP);
    let frozen = Instant::now();
    await_until("it to lose its units", PATIENCE, || {
        let is_over = fleet.view().fleet() == 2 && frozen.elapsed() > Duration::from_millis(2_500);
        is_over.then_some(())
    });
    assert!(leaves.join().unwrap().success());
    fleet.at(1).signal(Signal::CONT);
    fleet.await_shared(3);
    fleet.instances[2].take().expect("it runs").kill();
    await_until("the dead one's lease to be over", PATIENCE, || (fleet.view().fleet() == 2).then_some(()));
    fleet.await_shared(2);
    let ended = received::now_ms(fleet.wallet());
    let all = received::await_time(fleet.wallet(), ended + 1_000);
    let peak = all.peak() as f64 / rate as f64;
    let used = all.rate(began, ended) / rate as f64;
    println!(
        "coming and going: {used:.3} used in {} ms, peak {peak:.3} in any second of it all",
        ended - began
    );
    assert!(peak <= 1.05, "{peak:.3} of the budget in a second\n{}", all.picture());
    assert!(fleet.changes(0).is_empty(), "the fleet stopped: {:?}", fleet.changes(0));
    assert!(used >= 0.8, "{used:.3} used\n{}\n{}", all.picture(), fleet.said());
    fleet.must_agree(load);
}
