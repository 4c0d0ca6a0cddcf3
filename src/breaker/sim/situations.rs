//! What may happen to a fleet, and what must hold then. Each situation draws its particulars from a seed.

mod hangs;
mod odd;

use std::fmt;

use super::super::policy::{Phase, Settings, Wish};
use super::KEPT;
use super::wallet::Health;
use super::world::{Act, Bugs, Dice, Plan, World};

pub struct Situation {
    pub name: &'static str,
    pub run: fn(u64, Bugs) -> Result<Found, String>,
}

pub const SITUATIONS: [Situation; 17] = [
    Situation { name: "steady", run: steady },
    Situation { name: "churn", run: churn },
    Situation { name: "hidden capacity", run: hidden },
    Situation { name: "death and return", run: death },
    Situation { name: "dead prober", run: dead_prober },
    Situation { name: "board lost", run: board_lost },
    Situation { name: "one cut off", run: one_cut_off },
    Situation { name: "one broken", run: one_broken },
    Situation { name: "open without board", run: open_without_board },
    Situation { name: "opened by hand", run: by_hand },
    Situation { name: "board forgets", run: odd::board_forgets },
    Situation { name: "board's clock leaps", run: odd::clock_leaps },
    Situation { name: "nothing to try", run: odd::nothing_to_try },
    Situation { name: "network mended", run: odd::network_mended },
    Situation { name: "small budget", run: odd::small_budget },
    Situation { name: "hangs", run: hangs::hangs },
    Situation { name: "is slow", run: hangs::is_slow },
];

/// Not dealt out with the others, which have their seeds.
pub const FAR: Situation = Situation { name: "is far away", run: hangs::is_far };

pub fn situation_of(seed: u64) -> &'static Situation {
    &SITUATIONS[(seed % SITUATIONS.len() as u64) as usize]
}

/// What was measured; of many runs, the worst.
#[derive(Clone, Debug, Default)]
pub struct Found {
    runs: u64,
    peak: f64,
    used: Option<f64>,
    trip_ms: u64,
    spread_ms: u64,
    strays: u64,
    recovery_ms: u64,
    overloaded: f64,
    /// What the instance that got least done, of the mean.
    least: Option<f64>,
}

fn lesser(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.zip(b).map(|(a, b)| a.min(b)).or(a).or(b)
}

impl Found {
    pub fn worsen(&mut self, other: &Found) {
        self.runs += other.runs;
        self.peak = self.peak.max(other.peak);
        self.used = lesser(self.used, other.used);
        self.least = lesser(self.least, other.least);
        self.trip_ms = self.trip_ms.max(other.trip_ms);
        self.spread_ms = self.spread_ms.max(other.spread_ms);
        self.strays += other.strays;
        self.recovery_ms = self.recovery_ms.max(other.recovery_ms);
        self.overloaded = self.overloaded.max(other.overloaded);
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} runs; worst: peak {:.3} of the budget", self.runs, self.peak)?;
        if let Some(used) = self.used {
            write!(f, ", used {used:.3}")?;
        }
        if let Some(least) = self.least {
            write!(f, ", least done of the mean {least:.3}")?;
        }
        write!(
            f,
            ", trip {} ms, spread {} ms, strays {}, recovery {} ms, overloaded {:.4}",
            self.trip_ms, self.spread_ms, self.strays, self.recovery_ms, self.overloaded
        )
    }
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

/// Of a call, where a situation is not about it.
const DEADLINE_MS: u64 = 400;
/// Of a thousand seeds so many have a large fleet: it costs as much as all others together.
const LARGE_AMONG: u64 = 10;

/// Small fleets find as much as larger ones, for a part of the time.
const SIZES: [usize; 8] = [2, 2, 3, 3, 4, 4, 5, 8];

/// Mostly small fleets, for speed; now and then the hundred.
fn plan(seed: u64, bugs: Bugs) -> (Dice, Plan) {
    let mut dice = Dice::new(seed);
    let is_large = (seed / LARGE_AMONG) % 100 == 11;
    let drawn = dice.between(2, 9) as usize;
    let nodes = match seed {
        // As they were when they failed.
        _ if KEPT.contains(&seed) && !is_large => drawn,
        _ if is_large => 100,
        _ => SIZES[drawn - 2],
    };
    let rate_per_s = if is_large { 20_000 } else { dice.between(200, 600) * nodes as u64 };
    let settings = Settings { rate_per_s, calls_max: 40 * nodes as u64, ..Settings::default() };
    let plan = Plan {
        nodes,
        capacity_per_s: rate_per_s as f64 * 1.5,
        settings,
        for_ms: 6_000,
        deadline_ms: DEADLINE_MS,
        lost_percent: dice.below(3),
        acts: Vec::new(),
        bugs,
    };
    (dice, plan)
}

fn windows(bins: &[u64], from_ms: u64, to_ms: u64) -> impl Iterator<Item = u64> + '_ {
    let end = bins.len().min((to_ms / 100) as usize);
    let start = end.min((from_ms / 100) as usize);
    bins[start..end].windows(10).map(|window| window.iter().sum())
}

fn peak(world: &World, rate: u64) -> f64 {
    windows(&world.figures.arrived, 0, u64::MAX).max().unwrap_or(0) as f64 / rate as f64
}

fn share(bins: &[u64], from_ms: u64, to_ms: u64, rate: f64) -> f64 {
    let end = bins.len().min((to_ms / 100) as usize);
    let sum: u64 = bins[end.min((from_ms / 100) as usize)..end].iter().sum();
    sum as f64 / (rate * (to_ms - from_ms) as f64 / 1e3)
}

/// What the instance that got least done got done, of what one did on average.
fn least(world: &World, from_ms: u64, to_ms: u64) -> f64 {
    let of = |bins: &Vec<u64>| share(bins, from_ms, to_ms, 1.0);
    let all: Vec<f64> = world.figures.done_by.iter().map(of).collect();
    let sum: f64 = all.iter().sum();
    all.iter().copied().fold(f64::MAX, f64::min) * all.len() as f64 / sum
}

fn base(world: &World, rate: u64) -> Result<Found, String> {
    let peak = peak(world, rate);
    ensure(peak <= 1.05, || format!("{peak:.3} of the budget in a second"))?;
    ensure(world.figures.granted_max <= rate, || {
        format!("{} granted of a budget of {rate}", world.figures.granted_max)
    })?;
    let (spread_ms, strays) = (world.figures.spread_ms, world.figures.strays);
    Ok(Found { runs: 1, peak, spread_ms, strays, ..Found::default() })
}

fn never_opened(world: &World) -> Result<(), String> {
    ensure(world.figures.changes.is_empty(), || format!("the fleet stopped: {:?}", world.figures.changes))
}

/// Demand moves from some to others; the budget is used and not exceeded.
fn steady(seed: u64, bugs: Bugs) -> Result<Found, String> {
    let (mut dice, mut plan) = plan(seed, bugs);
    let rate = plan.settings.rate_per_s;
    for node in 0..plan.nodes {
        let (first, second) = (dice.below(3) > 0, dice.below(3) > 0);
        let backlog = |has: bool| if has || node == 0 { 1 << 40 } else { 0 };
        plan.acts.push((0, Act::Backlog(node, backlog(first))));
        plan.acts.push((3_000, Act::Backlog(node, backlog(second))));
    }
    let world = World::run(seed, plan);
    never_opened(&world)?;
    let mut found = base(&world, rate)?;
    let used = share(&world.figures.arrived, 1_000, 3_000, rate as f64);
    let used = used.min(share(&world.figures.arrived, 4_000, 6_000, rate as f64));
    found.used = Some(used);
    ensure(used >= 0.95, || format!("only {used:.3} of the budget is used"))?;
    Ok(found)
}

/// Joins, leaves, crashes and freezes.
fn churn(seed: u64, bugs: Bugs) -> Result<Found, String> {
    let (mut dice, mut plan) = plan(seed, bugs);
    let rate = plan.settings.rate_per_s;
    let mut reserve = 0.0;
    for _ in 0..dice.between(2, 6) {
        // The first is spared: somebody must be left to use the budget.
        let (at, node) = (dice.between(500, 4_000), dice.between(1, plan.nodes as u64 - 1) as usize);
        let act = match dice.below(4) {
            0 => Act::Join,
            1 => Act::Leave(node),
            2 => Act::Crash(node),
            _ => Act::Freeze(node, dice.between(50, 2_500)),
        };
        if let Act::Crash(_) | Act::Freeze(..) = act {
            // What a dead one may be using is kept from the others: its share by the size of the fleet.
            reserve += 1.0 / (plan.nodes * plan.nodes) as f64;
        }
        plan.acts.push((at, act));
    }
    let nodes = plan.nodes;
    let world = World::run(seed, plan);
    never_opened(&world)?;
    let mut found = base(&world, rate)?;
    let used = share(&world.figures.arrived, 4_500, 6_000, rate as f64);
    // Two that fall silent at once had more than an equal share before.
    let slack = if reserve > 0.0 { 2.0 * reserve + 1.0 / (nodes * nodes) as f64 } else { 0.0 };
    found.used = Some(used);
    ensure(used >= 0.93 - slack, || format!("only {used:.3} of the budget is used"))?;
    Ok(found)
}

/// The wallet's capacity falls to a third and comes back, and nobody says so.
fn hidden(seed: u64, bugs: Bugs) -> Result<Found, String> {
    let (mut dice, mut plan) = plan(seed, bugs);
    let rate = plan.settings.rate_per_s;
    let low = rate as f64 / 3.0;
    let high = rate as f64 * (80 + dice.below(40)) as f64 / 100.0;
    plan.for_ms = 25_000;
    plan.acts = vec![(1_500, Act::Capacity(low)), (13_000, Act::Capacity(high))];
    let world = World::run(seed, plan);
    let mut found = base(&world, rate)?;
    for (from, to, capacity) in [(6_500, 13_000, low), (18_000, 25_000, high)] {
        let arrived = share(&world.figures.arrived, from, to, 1.0);
        found.overloaded = found.overloaded.max(share(&world.figures.overloaded, from, to, 1.0) / arrived);
        let used = share(&world.figures.done, to - 3_000, to, capacity.min(rate as f64));
        found.used = Some(found.used.unwrap_or(1.0).min(used));
        found.least = lesser(found.least, Some(least(&world, to - 3_000, to)));
    }
    let (used, overloaded) = (found.used.unwrap_or(0.0), found.overloaded);
    ensure(overloaded < 0.02, || format!("{overloaded:.4} refused for overload"))?;
    ensure(used >= 0.85, || format!("only {used:.3} of the capacity is used"))?;
    let least = found.least.unwrap_or(0.0);
    ensure(least >= 0.75, || format!("one got {least:.3} of what they get on average"))?;
    Ok(found)
}

const DEATH_MS: u64 = 2_000;

/// A wallet that dies is stopped for within so long.
const TRIP_MS_MAX: u64 = 1_000;

/// What holds of every outage from `DEATH_MS` to `back_ms`.
fn outage(
    world: &World,
    (rate, usable): (u64, f64),
    back_ms: u64,
    trip_ms_max: u64,
) -> Result<Found, String> {
    let mut found = base(world, rate)?;
    let changes = &world.figures.changes;
    let trip = changes.iter().find(|(_, _, to)| *to == "open");
    let trip_ms = trip.map(|(at, ..)| *at).ok_or("the fleet did not stop")?;
    ensure(trip_ms >= DEATH_MS, || "the fleet stopped before the wallet died".to_owned())?;
    found.trip_ms = trip_ms - DEATH_MS;
    ensure(found.trip_ms <= trip_ms_max, || format!("stopped after {} ms", found.trip_ms))?;
    ensure(found.spread_ms <= 200, || format!("one went on for {} ms", found.spread_ms))?;
    ensure(found.strays == 0, || format!("{} calls while open", found.strays))?;
    let early = changes.iter().find(|(at, _, to)| *at < back_ms && (*to == "closed" || *to == "ramp"));
    ensure(early.is_none(), || format!("closed on a dead wallet: {changes:?}"))?;
    let again = changes.iter().find(|(at, from, to)| *at > back_ms && *from != "half_open" && *to == "open");
    ensure(again.is_none(), || format!("stopped again after the return: {changes:?}"))?;
    let recovered = windows(&world.figures.done, back_ms, u64::MAX)
        .position(|done| done as f64 >= 0.9 * usable)
        .ok_or_else(|| format!("never back at 0.9: {changes:?}"))?;
    found.recovery_ms = (recovered as u64 + 10) * 100;
    ensure(found.recovery_ms <= 10_000, || format!("recovered after {} ms: {changes:?}", found.recovery_ms))?;
    ensure(matches!(world.table.state.phase, Phase::Closed), || "not closed in the end".to_owned())?;
    Ok(found)
}

/// At most so many probes as permits allow while the wallet is away.
fn few_probes(world: &World) -> Result<(), String> {
    let openings = world.figures.changes.iter().filter(|(_, _, to)| *to == "half_open").count() as u64;
    let settings = &world.table.state.settings;
    let most = openings * (settings.probes_ok_min + settings.permits_max + world.nodes.len() as u64);
    let (probes, limit) = (world.figures.probes, most);
    ensure(probes <= limit, || format!("{probes} probes in {openings} half openings"))
}

fn death(seed: u64, bugs: Bugs) -> Result<Found, String> {
    let (mut dice, mut plan) = plan(seed, bugs);
    let rate = plan.settings.rate_per_s;
    let health = if dice.below(2) == 0 { Health::Down } else { Health::Hung };
    let back_ms = DEATH_MS + dice.between(1_500, 8_000);
    plan.for_ms = back_ms + 11_000;
    plan.acts = vec![(DEATH_MS, Act::Wallet(health)), (back_ms, Act::Wallet(Health::Up))];
    let world = World::run(seed, plan);
    few_probes(&world)?;
    outage(&world, (rate, rate as f64), back_ms, TRIP_MS_MAX)
}

fn dead_prober(seed: u64, bugs: Bugs) -> Result<Found, String> {
    let (mut dice, mut plan) = plan(seed, bugs);
    plan.nodes = plan.nodes.max(5);
    let rate = plan.settings.rate_per_s;
    let back_ms = DEATH_MS + dice.between(1_500, 4_000);
    plan.for_ms = back_ms + 11_000;
    plan.acts = vec![
        (DEATH_MS, Act::Wallet(Health::Down)),
        (back_ms, Act::Wallet(Health::Up)),
        (back_ms, Act::KillProbers(dice.between(1, 3))),
    ];
    let (nodes, ttl_ms) = (plan.nodes as f64, plan.settings.permit_ttl_ms);
    let world = World::run(seed, plan);
    let killed = world.figures.probers_killed;
    ensure(killed > 0, || "nobody was killed".to_owned())?;
    // The dead keep some of the budget for a while.
    let usable = rate as f64 * (1.0 - killed as f64 / (nodes * nodes));
    let found = outage(&world, (rate, usable), back_ms, TRIP_MS_MAX)?;
    let changes = &world.figures.changes;
    let half_open = changes.iter().rfind(|(_, _, to)| *to == "half_open").ok_or("never half open")?;
    let ramp = changes.iter().rfind(|(_, _, to)| *to == "ramp").ok_or("never ramped")?;
    let tried_ms = ramp.0.saturating_sub(half_open.0);
    ensure(tried_ms <= ttl_ms + 1_000, || format!("half open for {tried_ms} ms: {changes:?}"))?;
    Ok(found)
}

/// The whole fleet loses the board, for a part of the run.
fn board_lost(seed: u64, bugs: Bugs) -> Result<Found, String> {
    let (mut dice, mut plan) = plan(seed, bugs);
    let rate = plan.settings.rate_per_s;
    let for_ms = dice.between(1_000, 3_000);
    plan.acts = vec![(2_000, Act::Cut(None, for_ms))];
    // What is undivided shows where what is held moves: half of them had nothing to do before.
    for node in 0..plan.nodes {
        if node % 2 == 1 {
            plan.acts.push((0, Act::Backlog(node, 0)));
            plan.acts.push((1_000, Act::Backlog(node, 1 << 40)));
        } else {
            plan.acts.push((1_000, Act::Backlog(node, 0)));
            plan.acts.push((2_300, Act::Backlog(node, 1 << 40)));
        }
    }
    let nodes = plan.nodes as f64;
    let world = World::run(seed, plan);
    never_opened(&world)?;
    let cut = share(&world.figures.arrived, 2_500, 2_000 + for_ms, rate as f64);
    ensure(cut > 0.2 / nodes, || format!("{cut:.3} of the budget without the board: too little"))?;
    // Shares that were on the way from one to another are divided, too.
    ensure(cut < 1.6 / nodes + 0.05, || format!("{cut:.3} of the budget without the board: too much"))?;
    base(&world, rate)
}

/// One loses the board, and the rest goes on.
fn one_cut_off(seed: u64, bugs: Bugs) -> Result<Found, String> {
    let (mut dice, mut plan) = plan(seed, bugs);
    let rate = plan.settings.rate_per_s;
    let node = dice.below(plan.nodes as u64) as usize;
    plan.acts = vec![(2_000, Act::Cut(Some(node), dice.between(500, 3_500)))];
    let world = World::run(seed, plan);
    never_opened(&world)?;
    let mut found = base(&world, rate)?;
    let used = share(&world.figures.arrived, 3_000, 6_000, rate as f64);
    found.used = Some(used);
    ensure(used >= 0.93, || format!("only {used:.3} of the budget is used"))?;
    Ok(found)
}

/// One has a broken network: it stops, and nobody else does.
fn one_broken(seed: u64, bugs: Bugs) -> Result<Found, String> {
    let (mut dice, mut plan) = plan(seed, bugs);
    plan.nodes = plan.nodes.max(3);
    let rate = plan.settings.rate_per_s;
    let node = dice.below(plan.nodes as u64) as usize;
    plan.acts = vec![(2_000, Act::BreakNetwork(node))];
    let world = World::run(seed, plan);
    never_opened(&world)?;
    let broken = world.nodes.iter().find(|node| node.is_broken).ok_or("nobody is broken")?;
    ensure(broken.governor.state().phase == Phase::Closed, || "the fleet stopped".to_owned())?;
    let mut found = base(&world, rate)?;
    let used = share(&world.figures.arrived, 4_500, 6_000, rate as f64);
    found.used = Some(used);
    ensure(used >= 0.93, || format!("the others use only {used:.3} of the budget"))?;
    Ok(found)
}

/// The wallet dies, and then the board is lost: nobody goes on before the breaker's time and the grace.
fn open_without_board(seed: u64, bugs: Bugs) -> Result<Found, String> {
    let (mut dice, mut plan) = plan(seed, bugs);
    let rate = plan.settings.rate_per_s;
    let cut_ms = DEATH_MS + 1_200;
    let back_ms = cut_ms + dice.between(0, 2_000);
    let for_ms = dice.between(2_000, 5_000);
    plan.acts = vec![
        (DEATH_MS, Act::Wallet(Health::Down)),
        (cut_ms, Act::Cut(None, for_ms)),
        (back_ms, Act::Wallet(Health::Up)),
    ];
    plan.for_ms = cut_ms + for_ms + 12_000;
    let grace_ms = plan.settings.grace_ms;
    let world = World::run(seed, plan);
    let found = base(&world, rate)?;
    let tripped = world.figures.changes.iter().find(|(_, _, to)| *to == "open").ok_or("never stopped")?;
    let quiet = share(&world.figures.arrived, tripped.0 + 300, cut_ms + grace_ms - 500, rate as f64);
    ensure(quiet < 0.02, || format!("{quiet:.3} of the budget while open"))?;
    ensure(matches!(world.table.state.phase, Phase::Closed), || {
        format!("not closed in the end: {:?}", world.figures.changes)
    })?;
    Ok(found)
}

/// An operator stops a fleet that is well: only messages can tell it to.
fn by_hand(seed: u64, bugs: Bugs) -> Result<Found, String> {
    let (mut dice, mut plan) = plan(seed, bugs);
    let rate = plan.settings.rate_per_s;
    let (open_ms, auto_ms) = (2_000, 2_000 + dice.between(1_000, 6_000));
    plan.lost_percent = 0;
    plan.for_ms = auto_ms + 6_000;
    plan.acts = vec![
        (open_ms, Act::Wish(Wish::Open)),
        (open_ms - dice.between(1, 50), Act::Freeze(1, dice.between(100, 900))),
        (auto_ms, Act::Wish(Wish::Auto)),
    ];
    let world = World::run(seed, plan);
    let found = base(&world, rate)?;
    ensure(found.spread_ms <= 200, || format!("one went on for {} ms", found.spread_ms))?;
    ensure(found.strays == 0, || format!("{} calls while open", found.strays))?;
    let changes = &world.figures.changes;
    let is_held = changes.iter().all(|(at, _, to)| *to == "open" || *at >= auto_ms);
    ensure(is_held, || format!("went on against the operator's word: {changes:?}"))?;
    let used = share(&world.figures.arrived, auto_ms + 4_500, auto_ms + 6_000, rate as f64);
    ensure(used >= 0.93, || format!("only {used:.3} of the budget is used after it: {changes:?}"))?;
    Ok(found)
}
