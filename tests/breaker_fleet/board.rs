//! The board cut off, from one and from all: never more than the budget, and what was open stays so.

use std::time::Duration;

use serde_json::json;

use crate::fleet::{Fleet, rate};
use crate::received;
use crate::support::{PATIENCE, await_until};

fn pass(fleet: &Fleet, for_ms: u64) -> (u64, u64) {
    let from = received::now_ms(fleet.wallet());
    await_until("the time to pass", PATIENCE + Duration::from_millis(for_ms), || {
        let now = received::now_ms(fleet.wallet());
        (now >= from + for_ms).then_some((from, now))
    })
}

#[test]
fn without_the_board_there_is_never_more_than_the_budget_and_what_was_open_stays_so() {
    // Open for so long that all hear of it before the board is gone.
    let fleet = Fleet::start(0, &["breaker.open_ms=4000"]);
    let load = fleet.load(["c0", "c1", "c2"], 3);
    fleet.await_backlog(2 * rate());
    let cut = |n: usize, is_cut: bool| {
        fleet.to_board[n].refuse(is_cut);
        fleet.to_board[n].cut();
    };
    cut(0, true);
    await_until("the first to say so", PATIENCE, || {
        fleet.at(0).call("GET /readyz", "").body["breaker_board"].is_string().then_some(())
    });
    let (from, to) = pass(&fleet, 2_500);
    let seen = received::since(fleet.wallet(), from);
    let used = seen.rate(from + 500, to) / rate() as f64;
    println!("one cut off: {used:.3} used");
    assert!(used > 0.8, "the others go on: {used:.3}\n{}", seen.picture());
    (1..3).for_each(|n| cut(n, true));
    let (from, to) = pass(&fleet, 2_500);
    let seen = received::since(fleet.wallet(), from);
    let used = seen.rate(from + 500, to) / rate() as f64;
    println!("all cut off: {used:.3} used");
    assert!(used > 0.05, "they go on with less: {used:.3}\n{}\n{}", seen.picture(), fleet.said());
    (0..3).for_each(|n| cut(n, false));
    await_until("all to have their shares again", PATIENCE, || (fleet.view().fleet() == 3).then_some(()));
    assert!(fleet.changes(0).is_empty(), "{:?}", fleet.changes(0));

    // Open, and then nobody can ask.
    fleet.set_faults(json!({"error_rate": 1.0}));
    await_until("all to have heard that it is open", PATIENCE, || {
        (0..3).all(|n| fleet.fact(n, "breaker") == "open").then_some(())
    });
    (0..3).for_each(|n| cut(n, true));
    fleet.set_faults(json!({"error_rate": 0.0}));
    let (from, to) = pass(&fleet, 1_500);
    let seen = received::since(fleet.wallet(), from);
    let early = seen.sum(from + 300, to, |bucket| bucket.entries);
    assert_eq!(early, 0, "closed by themselves before the time and the grace\n{}", seen.picture());
    (0..3).for_each(|n| cut(n, false));
    fleet.await_phase("closed", PATIENCE);
    let all = received::since(fleet.wallet(), 0);
    let peak = all.peak() as f64 / rate() as f64;
    println!("peak {peak:.3} of the budget in any second");
    assert!(peak <= 1.05, "{peak:.3} of the budget in a second\n{}", all.picture());
    fleet.must_agree(load);
}
