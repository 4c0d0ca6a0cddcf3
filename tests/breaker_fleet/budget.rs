//! The budget, offered more than it: kept in every second and used, whoever joins, leaves, freezes or dies.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::fleet::{Fleet, bound, is_asked, rate};
use crate::load::Load;
use crate::received;
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
    let used = all.rate(began, ended) / rate as f64;
    println!("coming and going: {used:.3} used in {} ms", ended - began);
    all.must_keep_the_budget();
    assert!(fleet.changes(0).is_empty(), "the fleet stopped: {:?}", fleet.changes(0));
    assert!(used >= bound(0.8, 0.6), "{used:.3} used\n{}\n{}", all.picture(), fleet.said());
    fleet.must_agree(load);
}
