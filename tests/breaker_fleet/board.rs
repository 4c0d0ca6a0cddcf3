//! The board cut off, from one and from all: never more than the budget, and what was open stays so.

use std::time::Duration;

use serde_json::json;

use crate::fleet::{Fleet, bound, rate};
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
    let sets = ["breaker.open_ms=1000", "breaker.open_ms_max=2000", "stored_value.deadline_ms=2000"];
    let fleet = Fleet::start(0, &sets);
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
    assert!(used > bound(0.8, 0.6), "the others go on: {used:.3}\n{}", seen.picture());
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
    let is_open = || (0..3).all(|n| fleet.fact(n, "breaker") == "open");
    // One that is slow to hear of it may find it half open: then at the next opening.
    let left_ms = await_until("all to be cut off while it is open", PATIENCE * 2, || {
        is_open().then_some(())?;
        (0..3).for_each(|n| cut(n, true));
        let view = fleet.view();
        if is_open() && view.state.phase.as_str() == "open" {
            return Some(view.state.open_left_ms(view.now_ms));
        }
        (0..3).for_each(|n| cut(n, false));
        None
    });
    fleet.set_faults(json!({"error_rate": 0.0}));
    // Past the time, and not yet past the two seconds of grace.
    let (from, to) = pass(&fleet, left_ms + 1_200);
    let seen = received::since(fleet.wallet(), from);
    let early = seen.sum(from + 300, to.min(from + left_ms + 1_300), |bucket| bucket.entries);
    assert_eq!(early, 0, "closed by themselves before the grace was over\n{}", seen.picture());
    (0..3).for_each(|n| cut(n, false));
    fleet.await_phase("closed", PATIENCE);
    let all = received::since(fleet.wallet(), 0);
    all.must_keep_the_budget();
    fleet.must_agree(load);
}
