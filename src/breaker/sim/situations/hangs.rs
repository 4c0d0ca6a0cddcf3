//! A wallet that does not answer, with a deadline of seconds: one that hangs is stopped for, one that is slow is not.

use super::super::super::policy::Phase;
use super::super::wallet::Health;
use super::super::world::{Act, Bugs, World};
use super::{DEATH_MS, Found, base, ensure, never_opened, outage, plan, share};

/// An instance that wakes as the others have just heard half a second of silence hears its own before it says so, too.
const TRIP_MS_MAX: u64 = 1_200;

/// It takes calls and answers none: that is noticed about as soon as a death is, whatever the deadline.
pub fn hangs(seed: u64, bugs: Bugs) -> Result<Found, String> {
    let (mut dice, mut plan) = plan(seed, bugs);
    let rate = plan.settings.rate_per_s;
    plan.deadline_ms = dice.between(1_000, 5_000);
    let back_ms = DEATH_MS + dice.between(1_500, 6_000);
    plan.for_ms = back_ms + 12_000;
    plan.acts = vec![
        (DEATH_MS, Act::Wallet(Health::Hung)),
        (DEATH_MS - dice.between(1, 400), Act::Freeze(1, dice.between(100, 3_000))),
        (back_ms, Act::Wallet(Health::Up)),
    ];
    let world = World::run(seed, plan);
    outage(&world, (rate, rate as f64), back_ms, TRIP_MS_MAX)
}

/// Its capacity falls to a third, so that what it has taken on takes three times as long, and one instance freezes: nobody
/// stops, and it is not for the deadline that they do not.
pub fn is_slow(seed: u64, bugs: Bugs) -> Result<Found, String> {
    let (mut dice, mut plan) = plan(seed, bugs);
    let rate = plan.settings.rate_per_s;
    plan.deadline_ms = 5_000;
    plan.for_ms = 14_000;
    let low = plan.capacity_per_s / 3.0;
    plan.acts = vec![
        (2_000, Act::Capacity(low)),
        (dice.between(1_000, 4_000), Act::Freeze(1, dice.between(100, 3_000))),
        (9_000, Act::Capacity(plan.capacity_per_s)),
    ];
    let world = World::run(seed, plan);
    never_opened(&world)?;
    let mut found = base(&world, rate)?;
    let used = share(&world.figures.done, 6_000, 9_000, low);
    found.used = Some(used);
    ensure(used >= 0.8, || format!("only {used:.3} of the capacity is used"))?;
    ensure(matches!(world.table.state.phase, Phase::Closed), || "not closed in the end".to_owned())?;
    let alone = world.nodes.iter().filter(|node| node.governor.status(0).is_alone).count();
    ensure(alone == 0, || format!("{alone} blame the wallet"))?;
    Ok(found)
}

/// Each call takes most of a second, from the start or from a moment on: it is stopped for once at most, not for long, and
/// then goes on.
pub fn is_far(seed: u64, bugs: Bugs) -> Result<Found, String> {
    let (mut dice, mut plan) = plan(seed, bugs);
    let rate = plan.settings.rate_per_s;
    plan.deadline_ms = dice.between(1_500, 5_000);
    plan.for_ms = 30_000;
    let from_ms = dice.below(2) * DEATH_MS;
    plan.acts = vec![(from_ms, Act::Latency(dice.between(550, 900)))];
    let world = World::run(seed, plan);
    let mut found = base(&world, rate)?;
    let changes = &world.figures.changes;
    let openings = changes.iter().filter(|(_, _, to)| *to == "open").count();
    ensure(openings <= 1, || format!("stopped {openings} times: {changes:?}"))?;
    let held = changes.iter().find(|(at, _, to)| *at > from_ms + 5_000 && *to != "closed");
    ensure(held.is_none(), || format!("stopped for long: {changes:?}"))?;
    ensure(matches!(world.table.state.phase, Phase::Closed), || "not closed in the end".to_owned())?;
    let alone = world.nodes.iter().filter(|node| node.governor.status(0).is_alone).count();
    ensure(alone == 0, || format!("{alone} blame the wallet"))?;
    // As many calls as may be under way bear less than the budget.
    let used = share(&world.figures.done, from_ms + 8_000, 30_000, rate as f64);
    found.used = Some(used);
    ensure(used >= 0.3, || format!("only {used:.3} of the budget is used: {changes:?}"))?;
    Ok(found)
}
