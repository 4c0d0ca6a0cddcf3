//! What happens seldom: a board that forgets, or whose clock is suddenly another machine's; an instance that is well again, or
//! has nothing to find it out with; a budget so small that the tries are a part of it.

use super::super::super::policy::{Phase, Wish};
use super::super::wallet::Health;
use super::super::world::{Act, Bugs, World};
use super::{DEATH_MS, Found, base, ensure, never_opened, peak, plan, share};

/// The board begins anew: in a fleet that is well nothing comes of it, and what somebody opened stays so.
pub fn board_forgets(seed: u64, bugs: Bugs) -> Result<Found, String> {
    let (mut dice, mut plan) = plan(seed, bugs);
    let rate = plan.settings.rate_per_s;
    let (calm_ms, open_ms) = (dice.between(500, 1_500), 2_500);
    let forget_ms = open_ms + dice.between(300, 2_000);
    let auto_ms = forget_ms + dice.between(500, 2_000);
    plan.for_ms = auto_ms + 6_000;
    plan.acts = vec![
        (calm_ms, Act::ForgetBoard),
        (open_ms, Act::Wish(Wish::Open)),
        (forget_ms, Act::ForgetBoard),
        (auto_ms, Act::Wish(Wish::Auto)),
    ];
    let world = World::run(seed, plan);
    let mut found = base(&world, rate)?;
    ensure(world.figures.forgotten.iter().any(|(_, was)| *was == "open"), || "it was not open".to_owned())?;
    ensure(found.strays == 0, || format!("{} calls while open", found.strays))?;
    let changes = &world.figures.changes;
    let is_held = changes.iter().all(|(at, _, to)| *to == "open" || *at >= auto_ms);
    ensure(is_held, || format!("went on against the operator's word: {changes:?}"))?;
    let again = changes.iter().filter(|(at, _, to)| *at >= forget_ms && *to == "open").count();
    ensure(again == 1, || format!("not put back: {changes:?}"))?;
    let used = share(&world.figures.arrived, auto_ms + 4_500, auto_ms + 6_000, rate as f64);
    found.used = Some(used);
    ensure(used >= 0.93, || format!("only {used:.3} of the budget is used after it: {changes:?}"))?;
    Ok(found)
}

/// The board's clock leaps, ahead or back, in a fleet that is well and in one that has stopped: nothing is exceeded, and
/// nobody waits for a time that does not come.
pub fn clock_leaps(seed: u64, bugs: Bugs) -> Result<Found, String> {
    let (mut dice, mut plan) = plan(seed, bugs);
    let rate = plan.settings.rate_per_s;
    let mut leap = || {
        let ms = dice.between(2_000, 7_200_000) as i64;
        if dice.below(2) == 0 { ms } else { -ms }
    };
    let (first, second) = (leap(), leap());
    let leap_ms = DEATH_MS + 600 + dice.between(0, 2_000);
    let back_ms = leap_ms + dice.between(0, 3_000);
    plan.for_ms = back_ms + 14_000;
    plan.acts = vec![
        (1_200, Act::BoardClock(first)),
        (DEATH_MS, Act::Wallet(Health::Down)),
        (leap_ms, Act::BoardClock(second)),
        (back_ms, Act::Wallet(Health::Up)),
    ];
    let world = World::run(seed, plan);
    let mut found = base(&world, rate)?;
    let changes = &world.figures.changes;
    ensure(changes.iter().all(|(at, ..)| *at >= DEATH_MS), || format!("stopped for a clock: {changes:?}"))?;
    let early = changes.iter().find(|(at, _, to)| *at < back_ms && (*to == "closed" || *to == "ramp"));
    ensure(early.is_none(), || format!("closed on a dead wallet: {changes:?}"))?;
    ensure(found.strays == 0, || format!("{} calls while open", found.strays))?;
    ensure(matches!(world.table.state.phase, Phase::Closed), || {
        format!("not closed in the end: {changes:?}")
    })?;
    let used = share(&world.figures.arrived, back_ms + 12_000, back_ms + 14_000, rate as f64);
    found.used = Some(used);
    ensure(used >= 0.9, || format!("only {used:.3} of the budget is used after it: {changes:?}"))?;
    Ok(found)
}

/// All but one have nothing to do while the wallet is tried, and that one not always: it closes all the same.
pub fn nothing_to_try(seed: u64, bugs: Bugs) -> Result<Found, String> {
    let (mut dice, mut plan) = plan(seed, bugs);
    let rate = plan.settings.rate_per_s;
    let back_ms = DEATH_MS + dice.between(500, 3_000);
    let idle_ms = dice.between(500, 4_000);
    plan.for_ms = back_ms + idle_ms + 14_000;
    plan.acts = vec![(DEATH_MS, Act::Wallet(Health::Down)), (back_ms, Act::Wallet(Health::Up))];
    for node in 0..plan.nodes {
        plan.acts.push((DEATH_MS + 400, Act::Backlog(node, 0)));
    }
    plan.acts.push((back_ms + idle_ms, Act::Backlog(0, 1 << 40)));
    let world = World::run(seed, plan);
    let mut found = base(&world, rate)?;
    let changes = &world.figures.changes;
    ensure(found.strays == 0, || format!("{} calls while open", found.strays))?;
    ensure(matches!(world.table.state.phase, Phase::Closed), || {
        format!("not closed in the end: {changes:?}")
    })?;
    let from_ms = back_ms + idle_ms + 11_000;
    let used = share(&world.figures.arrived, from_ms, from_ms + 3_000, rate as f64);
    found.used = Some(used);
    ensure(used >= 0.9, || format!("only {used:.3} of the budget is used: {changes:?}"))?;
    Ok(found)
}

/// One is cut off from the wallet, loses its work to others, and is mended: it takes part again though it has nothing to try.
pub fn network_mended(seed: u64, bugs: Bugs) -> Result<Found, String> {
    let (mut dice, mut plan) = plan(seed, bugs);
    plan.nodes = plan.nodes.max(3);
    let rate = plan.settings.rate_per_s;
    let node = dice.below(plan.nodes as u64) as usize;
    let has_work = dice.below(2) == 0;
    let mend_ms = 2_000 + dice.between(1_500, 6_000);
    plan.for_ms = mend_ms + 22_000;
    plan.acts = vec![(2_000, Act::BreakNetwork(node)), (mend_ms, Act::MendNetwork(node))];
    if !has_work {
        // Others have its work, and it gets some again only where it takes part.
        (0..10).for_each(|n| plan.acts.push((3_500 + 400 * n, Act::Backlog(node, 0))));
    }
    let world = World::run(seed, plan);
    never_opened(&world)?;
    let mut found = base(&world, rate)?;
    let now_ns = world.now_of(node);
    let governor = &world.nodes[node].governor;
    ensure(!governor.status(now_ns).is_alone, || format!("it stays away, with work: {has_work}"))?;
    ensure(!governor.wants_release(now_ns), || "it gives its work away".to_owned())?;
    let used = share(&world.figures.arrived, 4_500, 6_000, rate as f64);
    found.used = Some(used);
    ensure(used >= 0.93, || format!("the others use only {used:.3} of the budget"))?;
    Ok(found)
}

/// The tries of a breaker that is half open are a part of the budget, however small that is.
pub fn small_budget(seed: u64, bugs: Bugs) -> Result<Found, String> {
    let (mut dice, mut plan) = plan(seed, bugs);
    plan.nodes = plan.nodes.min(5);
    let rate = dice.between(30, 120);
    plan.settings.rate_per_s = rate;
    plan.capacity_per_s = 10_000.0;
    let back_ms = DEATH_MS + dice.between(1_500, 4_000);
    plan.for_ms = back_ms + 12_000;
    plan.acts = vec![(DEATH_MS, Act::Wallet(Health::Down)), (back_ms, Act::Wallet(Health::Up))];
    let world = World::run(seed, plan);
    let found = Found { runs: 1, peak: peak(&world, rate), ..Found::default() };
    // What each lets go at once is a transfer at least.
    let bound = 1.05 + 2.0 * world.nodes.len() as f64 / rate as f64;
    ensure(found.peak <= bound, || format!("{:.3} of {rate} in a second", found.peak))?;
    ensure(world.figures.probes > 0, || "nothing was tried".to_owned())?;
    ensure(matches!(world.table.state.phase, Phase::Closed), || {
        format!("not closed in the end: {:?}", world.figures.changes)
    })?;
    Ok(found)
}
