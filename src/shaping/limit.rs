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
    /// It is that of a call that was waited for in vain, and so was every other.
    is_in_vain: bool,
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
            is_in_vain: true,
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
            self.sum = Sample::default();
            (self.latency_ns, self.is_in_vain, self.calls) = (None, true, 0);
        }
        self.recorded_at_ns = self.recorded_at_ns.max(now_ns);
        if self.sum.healthy + self.sum.overloaded + self.sum.lost == 0 {
            // Time in which nothing came back is no measure of what could.
            self.started_ns = self.started_ns.max(now_ns.saturating_sub(INTERVAL_NS));
        }
        if sample.healthy > 0 || sample.timed_out {
            self.latency_ns = Some(self.latency_ns.map_or(sample.took_ns, |least| least.min(sample.took_ns)));
            self.is_in_vain &= sample.timed_out && sample.healthy == 0;
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
        // The floor may be so high that nothing is longer than the deadline.
        let is_in_vain = self.is_in_vain && self.latency_ns.is_some();
        let queued = is_in_vain || latency_ns > LATENCY_FACTOR * floor_ns + LATENCY_SLACK_NS;
        let is_sparse = self.calls < CALLS_MIN && elapsed_ns < INTERVAL_NS_MAX;
        if queued && is_sparse && self.sum.overloaded == 0 {
            return;
        }
        let sum = std::mem::take(&mut self.sum);
        (self.started_ns, self.latency_ns, self.is_in_vain, self.calls) = (now_ns, None, true, 0);
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
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A wallet with a queue, asked by one sender at the limit's pace; transfers are a fluid.
    struct Model {
        queue: f64,
        offered: f64,
        refused: f64,
        served: f64,
    }

    fn run(limit: &mut Limit, model: &mut Model, from_ms: u64, for_ms: u64, lease: f64, capacity: f64) {
        (model.offered, model.refused, model.served) = (0.0, 0.0, 0.0);
        for ms in (from_ms..from_ms + for_ms).step_by(10) {
            let rate = limit.value().map_or(lease, |value| (value as f64).min(lease));
            let arriving = rate * 0.01;
            let room = (capacity * 0.2 - model.queue).max(0.0);
            let taken = arriving.min(room);
            model.queue += taken;
            let served = model.queue.min(capacity * 0.01);
            model.queue -= served;
            model.offered += arriving;
            model.refused += arriving - taken;
            model.served += served;
            let took_ns = (5.0 * MS as f64 + model.queue / capacity * 1e9) as u64;
            let sample = Sample {
                took_ns,
                healthy: served.round() as u64,
                overloaded: (arriving - taken).round() as u64,
                under_way: 1,
                ..Sample::default()
            };
            limit.record(ms * MS, sample);
        }
    }

    #[test]
    fn finds_a_capacity_that_nobody_configured_down_and_up() {
        let mut limit = Limit::new(Measure::RatePerS, 10);
        let mut model = Model { queue: 0.0, offered: 0.0, refused: 0.0, served: 0.0 };
        run(&mut limit, &mut model, 0, 5_000, 30_000.0, 50_000.0);
        assert_eq!(limit.value(), None, "nothing is in the way");
        assert_eq!(limit.moves(), Moves::default());
        let mut now = 5_000;
        for capacity in [10_000.0, 30_000.0, 5_000.0, 20_000.0] {
            run(&mut limit, &mut model, now, 5_000, 30_000.0, capacity);
            run(&mut limit, &mut model, now + 5_000, 5_000, 30_000.0, capacity);
            assert!(model.refused / model.offered < 0.02, "{capacity}: {}", model.refused / model.offered);
            let used = model.served / 5.0 / capacity;
            assert!(used > 0.85, "{capacity}: {used}");
            now += 10_000;
        }
    }

    #[test]
    fn a_wallet_that_is_slower_and_not_congested_is_not_starved() {
        let mut limit = Limit::new(Measure::UnderWay, 1);
        for ms in (0..30_000).step_by(10) {
            let took_ns = if ms < 5_000 { 5 * MS } else { 100 * MS };
            let under_way = limit.value().unwrap_or(64).min(64);
            let sample = Sample { took_ns, healthy: 10, under_way, ..Sample::default() };
            limit.record(ms * MS, sample);
        }
        assert!(limit.value().is_none_or(|value| value >= 60), "{:?}", limit.value());
    }

    #[test]
    fn who_is_behind_catches_up_as_long_as_nothing_is_in_the_way() {
        let grown = |behind: f64| {
            let mut limit = Limit::new(Measure::RatePerS, 1);
            limit.record(100 * MS, Sample { overloaded: 100, under_way: 1, ..Sample::default() });
            let before = limit.value().expect("cut");
            limit.set_behind(behind);
            for step in 2..40 {
                let value = limit.value().expect("limited");
                let sample = Sample { took_ns: MS, healthy: value / 10, under_way: 1, ..Sample::default() };
                limit.record(step * 100 * MS, sample);
                if limit.value().expect("limited") >= 2 * before {
                    return step;
                }
            }
            40
        };
        assert_eq!((grown(-1.0), grown(0.0)), (15, 15));
        assert_eq!((grown(0.4), grown(2.0), grown(1e9)), (6, 3, 3));
    }

    #[test]
    fn who_has_a_narrower_way_than_others_is_not_driven_against_it() {
        let mut limit = Limit::new(Measure::RatePerS, 1);
        limit.set_behind(10.0);
        let (mut refused, mut taken) = (0, 0);
        for step in 1..600 {
            let tried = limit.value().unwrap_or(1_000).min(1_000) / 10;
            let healthy = tried.min(20);
            let sample = Sample {
                took_ns: MS,
                healthy,
                overloaded: tried - healthy,
                under_way: 1,
                ..Sample::default()
            };
            limit.record(step * 100 * MS, sample);
            if step > 100 {
                (refused, taken) = (refused + tried - healthy, taken + healthy);
            }
        }
        let share = refused as f64 / (refused + taken) as f64;
        assert!(share < 0.06, "{share:.3} of it refused");
        assert!(taken > 500 * 17, "{taken} of 10,000 taken");
    }

    #[test]
    fn where_nothing_is_answered_in_time_less_is_sent_however_slow_calls_are() {
        let mut limit = Limit::new(Measure::RatePerS, 1);
        for ms in (0..12_000).step_by(10) {
            let is_well = ms < 2_000;
            let (healthy, lost) = if is_well { (10, 0) } else { (0, 10) };
            let took_ns = if is_well { 1_100 * MS } else { 2_000 * MS };
            let sample =
                Sample { took_ns, healthy, lost, timed_out: !is_well, under_way: 1, ..Sample::default() };
            limit.record((2_000 + ms) * MS, sample);
        }
        assert!(limit.value().is_some_and(|value| value < 500), "{:?}", limit.value());
    }

    #[test]
    fn a_wallet_that_came_back_far_slower_is_not_held_against_what_it_was() {
        let mut limit = Limit::new(Measure::RatePerS, 10);
        let calls = |limit: &mut Limit, from_ms: u64, took_ms: u64| {
            for ms in (from_ms..from_ms + 5_000).step_by(10) {
                let sample = Sample { took_ns: took_ms * MS, healthy: 10, under_way: 1, ..Sample::default() };
                limit.record(ms * MS, sample);
            }
        };
        calls(&mut limit, 0, 5);
        limit.restart(5_000 * MS);
        assert_eq!(limit.latency_floor_ns(), None);
        calls(&mut limit, 5_800, 800);
        assert_eq!((limit.value(), limit.latency_floor_ns()), (None, Some(800 * MS)));
    }

    #[test]
    fn a_network_that_loses_a_part_of_everything_does_not_starve_it() {
        for lost_in_ten in [2, 3] {
            let (mut limit, mut dice) = (Limit::new(Measure::RatePerS, 1), 7u64);
            let (mut sent, mut credit) = (0.0, 0.0);
            for ms in (0..20_000).step_by(10) {
                let rate = limit.value().unwrap_or(10_000).min(10_000);
                credit += rate as f64 / 100.0;
                let count = credit as u64;
                credit -= count as f64;
                if count == 0 {
                    continue;
                }
                sent += if ms >= 10_000 { count as f64 } else { 0.0 };
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let is_lost = (dice >> 33) % 10 < lost_in_ten;
                let (healthy, lost) = if is_lost { (0, count) } else { (count, 0) };
                let took_ns = if is_lost { 400 * MS } else { 5 * MS };
                let sample =
                    Sample { took_ns, healthy, lost, timed_out: is_lost, under_way: 1, ..Sample::default() };
                limit.record(ms * MS, sample);
            }
            assert!(sent > 90_000.0, "{lost_in_ten} of ten lost: {sent} sent in ten seconds");
        }
    }

    #[test]
    fn a_call_held_up_now_and_then_is_no_queue_however_rare_calls_are() {
        // Between two calls, ms; every how many-th is slow; the limit there may be.
        for (pause_ms, slow_of, is_limited) in
            [(60, 3, false), (90, 2, false), (240, 3, false), (60, 1, true)]
        {
            let mut limit = Limit::new(Measure::RatePerS, 1);
            for call in 0..10_000 / pause_ms {
                let is_slow = call > 20 && call % slow_of == 0;
                let took_ns = if is_slow { 120 * MS } else { 5 * MS };
                let sample = Sample { took_ns, healthy: 1, under_way: 1, ..Sample::default() };
                limit.record(call * pause_ms * MS, sample);
            }
            let is_seen = limit.value().is_some();
            assert_eq!(
                is_seen,
                is_limited,
                "every {pause_ms} ms, one of {slow_of} slow: {:?}",
                limit.value()
            );
        }
    }

    #[test]
    fn silence_is_a_queue() {
        let mut limit = Limit::new(Measure::RatePerS, 1);
        for ms in (0..3_000).step_by(10) {
            let is_well = ms < 1_000;
            let (healthy, lost) = if is_well { (100, 0) } else { (0, 100) };
            let took_ns = if is_well { 5 * MS } else { 400 * MS };
            limit.record(
                ms * MS,
                Sample { took_ns, healthy, lost, timed_out: !is_well, under_way: 1, ..Sample::default() },
            );
        }
        assert!(limit.value().is_some_and(|value| value < 5_000), "{:?}", limit.value());
    }

    #[test]
    fn grows_out_of_a_fraction() {
        let mut limit = Limit::new(Measure::UnderWay, 1);
        limit.record(100 * MS, Sample { overloaded: 5, under_way: 2, ..Sample::default() });
        assert_eq!(limit.value(), Some(1), "1.9, and no more than one can be under way");
        for step in 2..40 {
            let under_way = limit.value().unwrap_or(1);
            limit.record(step * 100 * MS, Sample { took_ns: MS, healthy: 5, under_way, ..Sample::default() });
        }
        assert!(limit.value() > Some(8), "{:?}", limit.value());
    }

    #[test]
    fn refusals_halve_at_most_and_the_floor_stands() {
        let mut limit = Limit::new(Measure::UnderWay, 2);
        let mut at_floor = Vec::new();
        for step in 1..40 {
            let sample = Sample { overloaded: 5, under_way: 16, ..Sample::default() };
            limit.record(step * 100 * MS, sample);
            if step == 1 {
                assert_eq!(limit.value(), Some(15));
                let Moves { down, up, answered, overloaded, .. } = limit.moves();
                assert_eq!((down, up, answered, overloaded), (1, 0, 5, 5), "what made it");
            }
            if limit.value == Some(2.0) {
                at_floor.push(limit.moves().down);
            }
        }
        assert_eq!(limit.value(), Some(2));
        assert!(
            at_floor.len() > 10 && at_floor[1..].windows(2).all(|pair| pair[0] == pair[1]),
            "{at_floor:?}"
        );
    }

    #[test]
    fn a_few_slow_calls_are_no_queue() {
        let slow = |healthy, under_way| Sample { took_ns: 60 * MS, healthy, under_way, ..Sample::default() };
        let mut limit = Limit::new(Measure::RatePerS, 1);
        limit.record(100 * MS, Sample { took_ns: 5 * MS, ..slow(1, 1) });
        // One a tenth of a second, and each was slow: nothing is known before there were twenty in a row.
        for tenth in 2..21 {
            limit.record(tenth * 100 * MS, slow(1, 1));
        }
        assert_eq!(limit.value(), None);
        // A thousand a second go well; then the processor is busy with something else for twenty seconds.
        for tenth in 21..30 {
            limit.record(tenth * 100 * MS, Sample { took_ns: 5 * MS, ..slow(100, 4) });
        }
        for tenth in 30..120 {
            let took_ns = (60 + tenth * 37 % 50) * MS;
            let healthy = limit.value().unwrap_or(1_000) / 10;
            limit.record(tenth * 100 * MS, Sample { took_ns, ..slow(healthy, 4) });
        }
        assert!(limit.value().is_some_and(|value| value >= 125), "{:?}", limit.value());
    }

    #[test]
    fn what_came_back_before_a_rest_is_not_spread_over_it() {
        for rest_ms in [1_000, 30_000] {
            let mut limit = Limit::new(Measure::RatePerS, 1);
            let call = |ms: u64, took_ms: u64, healthy: u64| {
                (ms * MS, Sample { took_ns: took_ms * MS, healthy, under_way: 1, ..Sample::default() })
            };
            for ms in (10..1_000).step_by(10) {
                let (at, sample) = call(ms, 5, 10);
                limit.record(at, sample);
            }
            // A few slow ones, too few to tell; then a rest, and slow ones again.
            for ms in (1_010..1_060).step_by(10).chain([1_060 + rest_ms, 1_070 + rest_ms]) {
                let (at, sample) = call(ms, 120, 50);
                limit.record(at, sample);
            }
            assert!(limit.value().is_none_or(|value| value >= 400), "{rest_ms}: {:?}", limit.value());
        }
    }

    #[test]
    fn slow_calls_one_after_the_other_are_seen_though_they_come_back_seldom() {
        let mut limit = Limit::new(Measure::RatePerS, 1);
        for call in 0..10 {
            let took_ns = if call < 2 { 5 * MS } else { 700 * MS };
            let sample = Sample { took_ns, healthy: 50, under_way: 1, ..Sample::default() };
            limit.record((1_000 + call * 700) * MS, sample);
        }
        assert!(limit.value().is_some());
    }
}
