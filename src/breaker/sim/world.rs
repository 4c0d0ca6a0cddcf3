//! Instances, a board and a wallet in virtual time, and messages between them that take their time, or get lost.
//!
//! Each instance has a clock of its own. One that is frozen takes no step and receives nothing; when it wakes it
//! finds its messages and acts on what it knew. A call that was answered after its deadline counts as not answered,
//! and is repeated, as `pipeline::remote` does.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use super::super::board::{Orders, Report, View, Workload};
use super::super::classify::{Class, Counts};
use super::super::gate::{Governor, Kind, Sabotage, Ticket};
use super::super::policy::{Phase, Settings, State, Wish};
use super::super::table::Table;
use super::wallet::{Health, Taken, Wallet};

pub type CallId = u64;

pub const TICK_MS: u64 = 5;
/// Far above what any policy lets go at once: what bounds a run whose policy has a bug put back.
const BATCHES_A_TICK_MAX: usize = 50;
/// The board's clock is not the instances'.
const BOARD_EPOCH_MS: u64 = 1_700_000_000_000;

/// Marsaglia's xorshift64: the same on every machine.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..8 {
            dice.below(2);
        }
        dice
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound.max(1)
    }

    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }
}

/// Known bugs that may be put back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bugs {
    /// The fleet stops as soon as one instance would.
    pub no_quorum: bool,
    pub half_open_without_permits: bool,
    pub share_undivided: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Act {
    Crash(usize),
    Leave(usize),
    Join,
    Freeze(usize, u64),
    /// Cut off from the board for so many ms: one, or all.
    Cut(Option<usize>, u64),
    /// Its calls are lost from now on, and from then on no longer.
    BreakNetwork(usize),
    MendNetwork(usize),
    /// The board begins anew, and knows of nothing.
    ForgetBoard,
    /// Another machine's clock: so many ms ahead of what it was, or behind.
    BoardClock(i64),
    Capacity(f64),
    /// The wallet takes so many ms longer for each call.
    Latency(u64),
    Wallet(Health),
    Backlog(usize, u64),
    /// The next so many that are given a permit die with it.
    KillProbers(u64),
    /// An operator's word.
    Wish(Wish),
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: usize,
    pub settings: Settings,
    pub capacity_per_s: f64,
    pub for_ms: u64,
    /// Of a call.
    pub deadline_ms: u64,
    /// Of a hundred messages to and from the board.
    pub lost_percent: u64,
    pub acts: Vec<(u64, Act)>,
    pub bugs: Bugs,
}

enum Event {
    ToBoard(usize, Report),
    FromBoard(usize, Box<Orders>),
    Propose(usize, Box<(View, State)>),
    News(usize, State),
    ToWallet(CallId),
    FromWallet(CallId, Class),
    Deadline(CallId),
}

struct Call {
    node: usize,
    ticket: Ticket,
}

pub struct Node {
    pub governor: Governor,
    name: String,
    pub backlog: u64,
    pub is_alive: bool,
    pub is_broken: bool,
    /// Its last beat was answered before it said so, as its keeper waits for it.
    has_left: bool,
    clock_ahead_ns: u64,
    frozen_until_ms: u64,
    cut_until_ms: u64,
    pub last_paced_ms: u64,
}

/// What is measured, in steps of 100 ms where it is over time.
#[derive(Default)]
pub struct Figures {
    pub arrived: Vec<u64>,
    pub done: Vec<u64>,
    /// The same of each instance.
    pub done_by: Vec<Vec<u64>>,
    pub overloaded: Vec<u64>,
    /// When the fleet's state changed, and to what.
    pub changes: Vec<(u64, &'static str, &'static str)>,
    /// When the board forgot everything, and what it was.
    pub forgotten: Vec<(u64, &'static str)>,
    /// Calls that were sent 200 ms and more after the fleet stopped, and were no permits.
    pub strays: u64,
    /// How long after the stop the last instance that could hear of it sent a paced call.
    pub spread_ms: u64,
    /// Most probes at the wallet in any half open second.
    pub probers_killed: u64,
    pub probes: u64,
    pub granted_max: u64,
}

pub struct World {
    pub now_ms: u64,
    plan: Plan,
    dice: Dice,
    pub table: Table,
    pub nodes: Vec<Node>,
    wallet: Wallet,
    latency_ms: u64,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    bodies: HashMap<u64, Event>,
    calls: BTreeMap<CallId, Call>,
    number_next: u64,
    kill_probers: u64,
    board_ahead_ms: i64,
    stopped_at_ms: Option<u64>,
    pub figures: Figures,
}

impl World {
    pub fn run(seed: u64, plan: Plan) -> World {
        let mut world = World {
            now_ms: 0,
            dice: Dice::new(seed),
            table: Table::new(State::new(plan.settings.clone(), BOARD_EPOCH_MS)),
            nodes: Vec::new(),
            wallet: Wallet::new(plan.capacity_per_s),
            latency_ms: 0,
            events: BinaryHeap::new(),
            bodies: HashMap::new(),
            calls: BTreeMap::new(),
            number_next: 0,
            kill_probers: 0,
            board_ahead_ms: 0,
            stopped_at_ms: None,
            figures: Figures::default(),
            plan,
        };
        (0..world.plan.nodes).for_each(|_| world.join());
        let mut acts = world.plan.acts.clone();
        acts.sort_by_key(|(at, _)| Reverse(*at));
        let mut done = Vec::new();
        while world.now_ms < world.plan.for_ms {
            while acts.last().is_some_and(|(at, _)| *at <= world.now_ms) {
                let (_, act) = acts.pop().expect("looked at");
                world.act(act);
            }
            world.deliver();
            world.wallet.work(world.now_ms, TICK_MS, &mut done);
            for call in done.drain(..) {
                world.answer(call, Class::Healthy);
            }
            (0..world.nodes.len()).for_each(|node| world.step(node));
            world.now_ms += TICK_MS;
        }
        world
    }

    fn join(&mut self) {
        self.figures.done_by.push(Vec::new());
        let name = format!("node-{:03}", self.nodes.len());
        let mut governor = Governor::new(&name, 500, self.plan.settings.clone())
            .with_deadline(self.plan.deadline_ms * 1_000_000);
        governor.sabotage = Sabotage {
            probes_without_permit: self.plan.bugs.half_open_without_permits,
            share_undivided: self.plan.bugs.share_undivided,
        };
        let clock_ahead_ns = (1 + self.dice.below(1_000_000)) * 1_000_000_000;
        self.nodes.push(Node {
            governor,
            name,
            backlog: 1 << 40,
            is_alive: true,
            is_broken: false,
            has_left: false,
            clock_ahead_ns,
            frozen_until_ms: 0,
            cut_until_ms: 0,
            last_paced_ms: 0,
        });
    }

    fn act(&mut self, act: Act) {
        let count = self.nodes.len();
        match act {
            Act::Crash(node) => self.nodes[node % count].is_alive = false,
            Act::Leave(node) => {
                let node = &mut self.nodes[node % count];
                (node.is_alive, node.has_left) = (false, true);
                self.table.leave(&node.name);
            }
            Act::Join => self.join(),
            Act::Freeze(node, ms) => self.nodes[node % count].frozen_until_ms = self.now_ms + ms,
            Act::Cut(Some(node), ms) => self.nodes[node % count].cut_until_ms = self.now_ms + ms,
            Act::Cut(None, ms) => {
                self.nodes.iter_mut().for_each(|node| node.cut_until_ms = self.now_ms + ms);
            }
            Act::BreakNetwork(node) => self.nodes[node % count].is_broken = true,
            Act::MendNetwork(node) => self.nodes[node % count].is_broken = false,
            Act::ForgetBoard => {
                let before = self.table.state.phase;
                self.table = Table::new(State::new(self.plan.settings.clone(), self.board_ms()));
                self.figures.forgotten.push((self.now_ms, before.as_str()));
            }
            Act::BoardClock(ms) => self.board_ahead_ms += ms,
            Act::Capacity(per_s) => self.wallet.capacity_per_s = per_s,
            Act::Latency(ms) => self.latency_ms = ms,
            Act::Wallet(health) => self.wallet.set_health(self.now_ms, health),
            Act::Backlog(node, backlog) => self.nodes[node % count].backlog = backlog,
            Act::KillProbers(count) => self.kill_probers = count,
            Act::Wish(wish) => {
                let seen = self.table.view(self.board_ms());
                let next = seen.state.wished(seen.now_ms, wish, "operator", "a drill");
                self.replace(&seen, next);
            }
        }
    }

    fn post(&mut self, delay_ms: u64, event: Event) {
        self.number_next += 1;
        self.bodies.insert(self.number_next, event);
        self.events.push(Reverse((self.now_ms + delay_ms, self.number_next)));
    }

    /// To or from the board: mostly soon, now and then late, now and then never.
    fn post_board(&mut self, node: usize, event: Event) {
        let is_lost =
            self.now_ms < self.nodes[node].cut_until_ms || self.dice.below(100) < self.plan.lost_percent;
        let delay_ms =
            if self.dice.below(50) == 0 { self.dice.between(20, 300) } else { self.dice.between(1, 10) };
        if !is_lost {
            self.post(delay_ms, event);
        }
    }

    fn deliver(&mut self) {
        while let Some(Reverse((at, number))) = self.events.peek().copied()
            && at <= self.now_ms
        {
            self.events.pop();
            let event = self.bodies.remove(&number).expect("posted with its number");
            let receiver = match &event {
                Event::FromBoard(node, _) | Event::News(node, _) => Some(*node),
                Event::FromWallet(call, _) | Event::Deadline(call) => {
                    self.calls.get(call).map(|call| call.node)
                }
                Event::ToBoard(..) | Event::Propose(..) | Event::ToWallet(_) => None,
            };
            match receiver {
                Some(node) if !self.nodes[node].is_alive => {}
                Some(node) if self.now_ms < self.nodes[node].frozen_until_ms => {
                    let wait = self.nodes[node].frozen_until_ms - self.now_ms + self.dice.below(20);
                    self.post(wait, event);
                }
                _ => self.receive(event),
            }
        }
    }

    fn board_ms(&self) -> u64 {
        (BOARD_EPOCH_MS + self.now_ms).saturating_add_signed(self.board_ahead_ms)
    }

    pub fn now_of(&self, node: usize) -> u64 {
        self.nodes[node].clock_ahead_ns + self.now_ms * 1_000_000
    }

    fn receive(&mut self, event: Event) {
        match event {
            Event::ToBoard(node, _) if self.nodes[node].has_left => {}
            Event::ToBoard(node, report) => {
                let orders = self.table.beat(self.board_ms(), &report);
                if self.plan.bugs.no_quorum && report.said.is_for_stopping {
                    self.open_for_one();
                }
                let granted = self.table.granted(self.board_ms()).rate_per_s;
                self.figures.granted_max = self.figures.granted_max.max(granted);
                self.post_board(node, Event::FromBoard(node, Box::new(orders)));
            }
            Event::FromBoard(node, orders) => self.ordered(node, *orders),
            Event::Propose(node, proposal) => {
                let (seen, next) = *proposal;
                if self.replace(&seen, next.clone()) {
                    self.post_board(node, Event::News(node, next));
                }
            }
            Event::News(node, state) => {
                let now_ns = self.now_of(node);
                self.nodes[node].governor.heard(now_ns, &state);
            }
            Event::ToWallet(call) => self.arrive(call),
            Event::FromWallet(call, class) => self.end_call(call, class),
            Event::Deadline(call) => self.end_call(call, Class::Timeout),
        }
    }

    /// Compare-and-set; who succeeds tells everybody.
    fn replace(&mut self, seen: &View, next: State) -> bool {
        let before = self.table.state.phase;
        let is_done = self.table.replace(self.board_ms(), seen, &next);
        if is_done {
            self.changed(before);
            for node in 0..self.nodes.len() {
                self.post_board(node, Event::News(node, next.clone()));
            }
        }
        is_done
    }

    fn open_for_one(&mut self) {
        if let Phase::Closed | Phase::Ramp { .. } = self.table.state.phase {
            let before = self.table.state.phase;
            let until_ms = self.board_ms() + self.table.state.settings.open_ms;
            self.table.state.phase = Phase::Open { until_ms };
            self.table.state.epoch += 1;
            self.table.state.version += 1;
            self.changed(before);
        }
    }

    fn changed(&mut self, before: Phase) {
        let phase = self.table.state.phase;
        if phase.as_str() != before.as_str() {
            self.figures.changes.push((self.now_ms, before.as_str(), phase.as_str()));
        }
        self.stopped_at_ms = match phase {
            Phase::Open { .. } | Phase::HalfOpen => self.stopped_at_ms.or(Some(self.now_ms)),
            Phase::Closed | Phase::Ramp { .. } => None,
        };
    }

    fn ordered(&mut self, node: usize, orders: Orders) {
        let now_ns = self.now_of(node);
        let has_permit = orders.has_permit;
        let proposal = self.nodes[node].governor.ordered(now_ns, orders);
        if let Some(proposal) = proposal {
            self.post_board(node, Event::Propose(node, Box::new(proposal)));
        }
        if has_permit && self.kill_probers > 0 {
            self.kill_probers -= 1;
            self.figures.probers_killed += 1;
            self.nodes[node].is_alive = false;
        }
    }

    fn count(bins: &mut Vec<u64>, now_ms: u64, count: u64) {
        let bin = (now_ms / 100) as usize;
        if bins.len() <= bin {
            bins.resize(bin + 1, 0);
        }
        bins[bin] += count;
    }

    fn arrive(&mut self, id: CallId) {
        // A crashed instance's calls arrive all the same.
        let Some(call) = self.calls.get(&id) else { return };
        let (count, node) = (call.ticket.count, call.node);
        if self.nodes[node].is_broken {
            return;
        }
        World::count(&mut self.figures.arrived, self.now_ms, count);
        let delay = self.dice.between(1, 5);
        match self.wallet.take(self.now_ms, id, count) {
            Taken::Queued | Taken::Swallowed => {}
            Taken::Refused => {
                World::count(&mut self.figures.overloaded, self.now_ms, count);
                self.post(delay, Event::FromWallet(id, Class::Overload));
            }
            Taken::Unreachable => self.post(delay, Event::FromWallet(id, Class::Unknown)),
        }
    }

    fn answer(&mut self, id: CallId, class: Class) {
        if let Some(call) = self.calls.get(&id) {
            World::count(&mut self.figures.done, self.now_ms, call.ticket.count);
            World::count(&mut self.figures.done_by[call.node], self.now_ms, call.ticket.count);
            let delay = self.latency_ms + self.dice.between(1, 5);
            self.post(delay, Event::FromWallet(id, class));
        }
    }

    fn end_call(&mut self, id: CallId, class: Class) {
        let Some(call) = self.calls.remove(&id) else { return };
        let now_ns = self.now_of(call.node);
        let count = call.ticket.count;
        let node = &mut self.nodes[call.node];
        node.governor.answered(now_ns, call.ticket, &Counts::of(class, count));
        if class != Class::Healthy {
            node.backlog += count;
        }
    }

    fn step(&mut self, index: usize) {
        let now_ns = self.now_of(index);
        let node = &mut self.nodes[index];
        if !node.is_alive || self.now_ms < node.frozen_until_ms {
            return;
        }
        if now_ns >= node.governor.beat_at_ns() {
            let report = node.governor.beat(now_ns, Workload::waiting(node.backlog));
            self.post_board(index, Event::ToBoard(index, report));
        }
        for _ in 0..BATCHES_A_TICK_MAX {
            let node = &mut self.nodes[index];
            let Ok(ticket) = node.governor.admit(now_ns, node.backlog.min(500)) else { return };
            node.backlog -= ticket.count;
            self.note_sent(index, &ticket);
            self.number_next += 1;
            let id = self.number_next;
            self.calls.insert(id, Call { node: index, ticket });
            let delay = self.dice.between(1, 8);
            self.post(delay, Event::ToWallet(id));
            self.post(self.plan.deadline_ms, Event::Deadline(id));
        }
    }

    fn note_sent(&mut self, index: usize, ticket: &Ticket) {
        self.figures.probes += u64::from(ticket.kind == Kind::Probe);
        let node = &mut self.nodes[index];
        if ticket.kind == Kind::Probe {
            return;
        }
        node.last_paced_ms = self.now_ms;
        let is_over = |until_ms: u64| until_ms == 0 || self.now_ms >= until_ms + 400;
        let can_hear = is_over(node.cut_until_ms) && is_over(node.frozen_until_ms);
        if let (Some(stopped_at_ms), true) = (self.stopped_at_ms, can_hear) {
            let after_ms = self.now_ms - stopped_at_ms;
            self.figures.spread_ms = self.figures.spread_ms.max(after_ms);
            self.figures.strays += u64::from(after_ms > 200);
        }
    }
}
