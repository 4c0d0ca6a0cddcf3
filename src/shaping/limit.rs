//! The adaptive limit below the lease: finds a capacity that nobody configured, and follows it.
//!
//! Increase by steps, decrease by a factor (Chiu & Jain 1989, "Analysis of the increase and decrease algorithms for congestion
//! avoidance"). The step is a part of what there is and grows while nothing is in the way, so that a capacity that came back is
//! found in seconds; it would leave many that see the same congestion as unequal as it found them, so that who hears that it is
//! behind the others takes larger ones ([`Limit::set_behind`]). As in TCP Vegas (Brakmo & Peterson 1995) and TIMELY (Mittal et
//! al. 2015), latency well above its floor counts as congestion: a queue is noticed while it is short, before the wallet has to
//! refuse. It delays every call, so it is the fastest of a few that is looked at: what holds up single calls, or loses their
//! replies, is no queue, however rare calls are.
//!
//! What holds: at most one decrease a round trip (answers to what was sent before it tell nothing new); no increase
//! past what is used; never below the floor; latency counts once enough transfers have shown it, and not below a part of what went
//! well a moment ago. Where latency stays high however little is sent, the wallet has become
//! slower and is not congested: the floor of latency is learnt anew. Absent: clocks; what is done about an outage,
//! which is the breaker's.

/// Judged this often, and no more often than answers come back.
const INTERVAL_NS: u64 = 100_000_000;
/// The fastest of so many calls is what latency is judged by, or of those of so long a time: of fewer it would be higher,
/// and an instance that was cut would find itself cut again for having few.
const CALLS_MIN: u32 = 8;
const INTERVAL_NS_MAX: u64 = 500_000_000;
/// Latency above this many floors, and this much more, is a queue.
const LATENCY_FACTOR: f64 = 2.0;
const LATENCY_SLACK_NS: f64 = 30_000_000.0;
/// The part of an interval's answers that may be refusals without being congestion.
const OVERLOADED_SHARE: f64 = 0.005;
/// What a decrease leaves: of the limit, of what got through, and at least.
const CUT: f64 = 0.9;
const CUT_ACHIEVED: f64 = 0.95;
const CUT_MIN: f64 = 0.5;
/// Growth of an interval, at first and at most; and how fast the one becomes the other.
const STEP_MIN: f64 = 0.02;
const STEP_MAX: f64 = 0.2;
const STEP_GROWTH: f64 = 1.12;
/// Who is behind others makes up for so much of it in an interval, and of no more than this: growing by parts of what each has
/// would leave them as unequal as the first decrease made them.
const CATCH_UP: f64 = 0.5;
const BEHIND_MAX: f64 = 2.0;
/// What a decrease leaves of the belief that more is possible because others have more, and what an increase gives back: who has a
/// narrower way to the wallet than they has nothing to make up for.
const FAITH_KEPT: f64 = 0.8;
const FAITH_STEP: f64 = 0.05;
/// The part of the limit that must be in use for it to grow.
const USED_SHARE: f64 = 0.7;
/// Without any congestion for so long, there is no limit.
const FORGET_NS: u64 = 60_000_000_000;
/// The floor of latency is that of the last one to two such spans.
const FLOOR_SPAN_NS: u64 = 10_000_000_000;
/// Transfers that were slow, and nothing but slow, before latency alone is a reason to send less: a call or two say nothing.
const SLOW_COUNT_MIN: u64 = 20;
/// Latency alone leaves this part of the best of the last one to two spans: what is slow while so little is sent waits for
/// something else, such as a processor that is busy here.
const BEST_SHARE_MIN: f64 = 0.125;
/// Decreases for latency alone that bring it no lower, after which it is the floor.
const VAIN_CUTS_MAX: u32 = 6;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Transfers a second.
    RatePerS,
    /// Calls under way.
    UnderWay,
}

/// What came of one call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    pub took_ns: u64,
    /// Transfers that were decided, refused for overload, and not answered.
    pub healthy: u64,
    pub overloaded: u64,
    pub lost: u64,
    /// It was not answered within its deadline, rather than cut off.
    pub timed_out: bool,
    /// Calls under way when it came back, itself among them.
    pub under_way: u64,
}

/// What was decided so far, and the numbers that made the last decrease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    pub down: u64,
    pub up: u64,
    /// Of how many answers, how many were refusals; the fastest call, and the floor that it is held against.
    pub answered: u64,
    pub overloaded: u64,
    pub latency_ns: u64,
    pub floor_ns: u64,
}

#[derive(Clone, Debug)]
pub struct Limit {
    measure: Measure,
    moves: Moves,
    floor: f64,
    /// None: nothing was ever in the way.
    value: Option<f64>,
    step: f64,
    started_ns: u64,
    recorded_at_ns: u64,
    sum: Sample,
    /// The shortest latency in the interval, of calls that were decided or waited for in vain: a refusal is fast.
    latency_ns: Option<u64>,
    /// How many these were.
    calls: u32,
    cut_at_ns: u64,
    latency_floors_ns: [u64; 2],
    /// What was achieved at best in the same spans.
    best: [f64; 2],
    floor_span_ns: u64,
    /// Transfers answered since an interval was not slow, or since the last decrease.
    slow_count: u64,
    latency_at_cut_ns: f64,
    vain_cuts: u32,
    behind: f64,
    faith: f64,
}

impl Limit {
    /// `floor`: what is always tried, in what `measure` counts.
    pub fn new(measure: Measure, floor: u64) -> Limit {
        Limit {
            measure,
            moves: Moves::default(),
            floor: floor.max(1) as f64,
            value: None,
            step: STEP_MIN,
            started_ns: 0,
            recorded_at_ns: 0,
            sum: Sample::default(),
            latency_ns: None,
            calls: 0,
            cut_at_ns: 0,
            latency_floors_ns: [u64::MAX; 2],
            best: [0.0; 2],
            floor_span_ns: 0,
            slow_count: 0,
            latency_at_cut_ns: 0.0,
            vain_cuts: 0,
            behind: 0.0,
            faith: 1.0,
        }
    }

    /// What may be used; none: the lease alone says.
    pub fn value(&self) -> Option<u64> {
        self.value.map(|value| value as u64)
    }

    pub fn moves(&self) -> Moves {
        self.moves
    }

    /// What the fastest call of late took, if there was one.
    pub fn latency_floor_ns(&self) -> Option<u64> {
        let floor_ns = self.latency_floors_ns[0].min(self.latency_floors_ns[1]);
        (floor_ns < u64::MAX).then_some(floor_ns)
    }

    /// Starts over: after an outage nothing is known, not even how long a call takes at the least. The first step of the ramp
    /// shows it, and a wallet that has come back slower is not held against what it was.
    pub fn restart(&mut self, now_ns: u64) {
        let (measure, floor, moves) = (self.measure, self.floor as u64, self.moves);
        *self = Limit { moves, started_ns: now_ns, ..Limit::new(measure, floor) };
    }

    /// By which part of what is used here others who are limited by the same wallet use more; until it is said anew.
    pub fn set_behind(&mut self, behind: f64) {
        self.behind = behind;
    }

    pub fn record(&mut self, now_ns: u64, sample: Sample) {
        // Time in which nothing was asked for is no measure either: what was gathered before it is of another day.
        let sent_at_ns = now_ns.saturating_sub(sample.took_ns);
        if sent_at_ns.saturating_sub(self.recorded_at_ns) > INTERVAL_NS_MAX {
            (self.sum, self.latency_ns, self.calls) = (Sample::default(), None, 0);
        }
        self.recorded_at_ns = self.recorded_at_ns.max(now_ns);
        if self.sum.healthy + self.sum.overloaded + self.sum.lost == 0 {
            // Time in which nothing came back is no measure of what could.
            self.started_ns = self.started_ns.max(now_ns.saturating_sub(INTERVAL_NS));
        }
        if sample.healthy > 0 || sample.timed_out {
            self.latency_ns = Some(self.latency_ns.map_or(sample.took_ns, |least| least.min(sample.took_ns)));
            self.calls += 1;
        }
        if sample.healthy > 0 {
            self.note_floor(now_ns, sample.took_ns);
        }
        self.sum.healthy += sample.healthy;
        self.sum.overloaded += sample.overloaded;
        self.sum.lost += sample.lost;
        self.sum.under_way = self.sum.under_way.max(sample.under_way);
        if now_ns.saturating_sub(self.started_ns) >= INTERVAL_NS {
            self.judge(now_ns);
        }
    }

    fn note_floor(&mut self, now_ns: u64, took_ns: u64) {
        if now_ns >= self.floor_span_ns + FLOOR_SPAN_NS {
            self.floor_span_ns = now_ns;
            self.latency_floors_ns = [u64::MAX, self.latency_floors_ns[0]];
            self.best = [0.0, self.best[0]];
        }
        self.latency_floors_ns[0] = self.latency_floors_ns[0].min(took_ns);
    }

    fn judge(&mut self, now_ns: u64) {
        let elapsed_ns = now_ns - self.started_ns;
        let latency_ns = self.latency_ns.unwrap_or(0) as f64;
        let floor_ns = self.latency_floors_ns[0].min(self.latency_floors_ns[1]) as f64;
        // Every call was waited for in vain: the floor may be so high that nothing is longer than the deadline.
        let is_in_vain = self.sum.healthy == 0 && self.latency_ns.is_some();
        let queued = is_in_vain || latency_ns > LATENCY_FACTOR * floor_ns + LATENCY_SLACK_NS;
        let is_sparse = self.calls < CALLS_MIN && elapsed_ns < INTERVAL_NS_MAX;
        if queued && is_sparse && self.sum.overloaded == 0 {
            return;
        }
        let sum = std::mem::take(&mut self.sum);
        (self.started_ns, self.latency_ns, self.calls) = (now_ns, None, 0);
        let achieved = match self.measure {
            Measure::RatePerS => sum.healthy as f64 * 1e9 / elapsed_ns as f64,
            Measure::UnderWay => sum.under_way as f64,
        };
        let total = (sum.healthy + sum.overloaded + sum.lost).max(1) as f64;
        let refused = sum.overloaded as f64 / total > OVERLOADED_SHARE;
        // What was refused or lost was tried, too.
        let tried = match self.measure {
            Measure::RatePerS => total * 1e9 / elapsed_ns as f64,
            Measure::UnderWay => achieved,
        };
        self.best[0] = self.best[0].max(achieved);
        self.slow_count = if queued { self.slow_count + sum.healthy + sum.lost } else { 0 };
        if refused || queued {
            let is_evident = refused || self.slow_count >= SLOW_COUNT_MIN;
            if is_evident && (now_ns - self.cut_at_ns) as f64 >= latency_ns {
                self.slow_count = 0;
                if self.cut(now_ns, (tried, achieved), latency_ns, refused) {
                    self.moves = Moves {
                        down: self.moves.down + 1,
                        answered: sum.healthy + sum.overloaded + sum.lost,
                        overloaded: sum.overloaded,
                        latency_ns: latency_ns as u64,
                        floor_ns: floor_ns as u64,
                        ..self.moves
                    };
                }
            }
        } else {
            self.grow(now_ns, tried);
        }
    }

    /// Answers whether there is less than there was.
    fn cut(&mut self, now_ns: u64, (tried, achieved): (f64, f64), latency_ns: f64, is_refused: bool) -> bool {
        let in_vain = !is_refused && latency_ns >= 0.9 * self.latency_at_cut_ns && self.cut_at_ns > 0;
        self.vain_cuts = if in_vain { self.vain_cuts + 1 } else { 0 };
        (self.cut_at_ns, self.latency_at_cut_ns, self.step) = (now_ns, latency_ns, STEP_MIN);
        self.faith *= FAITH_KEPT;
        if self.vain_cuts >= VAIN_CUTS_MAX {
            self.vain_cuts = 0;
            self.latency_floors_ns = [latency_ns as u64, u64::MAX];
            return false;
        }
        let value = self.value.unwrap_or(tried / CUT_ACHIEVED);
        let left = (value * CUT).min(achieved * CUT_ACHIEVED).max(value * CUT_MIN);
        let least = if is_refused { 0.0 } else { self.best[0].max(self.best[1]) * BEST_SHARE_MIN };
        let before = self.value.replace(left.max(least.min(value)).max(self.floor));
        before.is_none() || self.value < before
    }

    fn grow(&mut self, now_ns: u64, tried: f64) {
        self.vain_cuts = 0;
        let Some(value) = self.value else { return };
        if now_ns.saturating_sub(self.cut_at_ns) >= FORGET_NS {
            self.value = None;
            self.moves.up += 1;
        } else if tried >= USED_SHARE * value.floor() {
            self.step = (self.step * STEP_GROWTH).min(STEP_MAX);
            let behind = self.behind.clamp(0.0, BEHIND_MAX) * self.faith;
            let stepped = value + (value * self.step).max(self.least_step());
            let caught_up = (value * (1.0 + behind * CATCH_UP)).min(tried * (1.0 + behind));
            self.value = Some(stepped.max(caught_up));
            self.faith = (self.faith + FAITH_STEP).min(1.0);
            self.moves.up += 1;
        }
    }

    fn least_step(&self) -> f64 {
        match self.measure {
            Measure::RatePerS => 1.0,
            Measure::UnderWay => 0.25,
        }
    }
}

#[cfg(test)]
#[path = "limit_tests.rs"]
mod tests;
