//! A wallet that bears less than the budget, which nobody says.

use serde_json::json;

use crate::fleet::{Fleet, bound, is_asked, rate};
use crate::received;

#[test]
fn a_capacity_that_nobody_configured_is_found_and_followed() {
    let rate = rate();
    let fleet = Fleet::start(0, &["stored_value.deadline_ms=2000"]);
    let load = fleet.load(["h0", "h1", "h2"], 3);
    fleet.await_backlog(rate);
    let (low, high) = (rate / 3, rate * 9 / 10);
    // Where there is time for it, back up again, too.
    for capacity in [low, high].into_iter().take(if is_asked() { 2 } else { 1 }) {
        // A queue of a tenth of a second; past it calls are refused.
        fleet.set_faults(
            json!({"capacity_per_s": capacity, "queue_max": rate / 5, "collapse_queue": 100_000}),
        );
        let from = received::now_ms(fleet.wallet());
        let to = from + 10_000;
        let seen = received::await_time(fleet.wallet(), to);
        let refused = seen.sum(from + 5_000, to, |bucket| bucket.refused) as f64;
        let calls = seen.sum(from + 5_000, to, |bucket| bucket.calls) as f64;
        let used = seen.sum(from + 7_000, to, |bucket| bucket.executed) as f64 / (3 * capacity) as f64;
        println!("capacity {capacity}: {used:.3} of it used, {:.4} of calls refused", refused / calls);
        assert!(
            refused / calls < bound(0.02, 0.05),
            "{:.4}\n{}\n{}",
            refused / calls,
            seen.picture(),
            fleet.said()
        );
        assert!(used >= bound(0.85, 0.7), "{used:.3} of {capacity}\n{}\n{}", seen.picture(), fleet.said());
    }
    fleet.set_faults(json!({"capacity_per_s": null}));
    fleet.must_agree(load);
}
