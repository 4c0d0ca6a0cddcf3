//! The claims it backs: what shaper and breaker decide costs nanoseconds a decision, whatever the rate and however long
//! it waited; and asking them once a call costs the settle path less than 2 % of its throughput (README of the benches).
//!
//! Decisions take the path that the service takes: [`Sluice`], a governor behind its lock, a keeper that renews the lease.
//! Their time is passed in, so nothing waits. The cost on the settle path is measured on two whole services over a wallet
//! that answers at once, one with a breaker whose limits never hold and one without: rounds in turns, in one run.
//!
//! `cargo bench --bench shaping`; a name as argument filters (`settle` is the pair), `HONGBAO_BENCH_REQUESTS` are those
//! of a round (default 200,000), `HONGBAO_BENCH_ROUNDS` the pairs of rounds (default 30).

mod support;

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use criterion::Criterion;
use hongbao::breaker::board::Workload;
use hongbao::breaker::{Governor, Keeper, LocalBoard, Settings};
use hongbao::domain::TransferStatus;
use hongbao::pipeline::remote::sluice::{Breaker, Sluice};
use hongbao::shaping::{Course, DrainRate, Forecast, Others, Pace, Seen};
use hongbao::stored_value::remote::Answer;

#[path = "support/guarded.rs"]
mod guarded;

fn pace(c: &mut Criterion) {
    let mut group = c.benchmark_group("shaping");
    for (name, rate) in [("unlimited", 0), ("2,000/s", 2_000), ("1,000,000/s", 1_000_000)] {
        let (mut pace, mut now_ns, mut granted) = (Pace::new(rate), 1_000_000_000, 0u64);
        group.bench_function(format!("pace, a wish for 1000 each 100 us, {name}"), |b| {
            b.iter(|| {
                now_ns += 100_000;
                granted += pace.take(black_box(now_ns), 1_000);
            });
        });
        assert!(granted > 0, "nothing was granted");
        group.bench_function(format!("pace, a step that has not come together, {name}"), |b| {
            b.iter(|| pace.take_step(black_box(now_ns), 1_000, 5_000_000));
        });
    }
    group.finish();
}

fn forecast(c: &mut Criterion) {
    let mut group = c.benchmark_group("shaping");
    let (mut drain, mut now_ms) = (DrainRate::default(), 1_000u64);
    group.bench_function("drain rate, a batch done each 10 ms", |b| {
        b.iter(|| {
            now_ms += 10;
            drain.done(now_ms, black_box(1_000), 1_000_000);
        });
    });
    for fair in [8u8, 64] {
        let course = Course::paced(100_000);
        let mut forecast = Forecast::new(fair, course);
        let seen = vec![Seen { come: 5_000, waiting: 5_000, unread: 5_000 }; 2 * usize::from(fair)];
        group.bench_function(format!("forecast, a look at {fair} fair queues a lane"), |b| {
            b.iter(|| {
                now_ms += 10;
                forecast.look(now_ms, black_box(&seen), Others::default(), course)
            });
        });
        let promises = forecast.look(now_ms, &seen, Others::default(), course);
        group.bench_function(format!("forecast, a wait told of {fair}"), |b| {
            b.iter(|| promises.wait_ms(black_box(3), black_box(7)));
        });
    }
    group.finish();
}

/// A sluice as the service has it, alone on its board, with a lease that is renewed by [`Guarded::beat`].
struct Guarded {
    sluice: Sluice,
    keeper: Keeper,
    since: Instant,
    now: Instant,
    board_ms: Arc<AtomicU64>,
    call: u64,
}

impl Guarded {
    fn new(rate_per_s: u64) -> Guarded {
        let since = Instant::now();
        let board_ms = Arc::new(AtomicU64::new(1_000_000));
        let clock = board_ms.clone();
        let settings = Settings { rate_per_s, calls_max: 64, ..Settings::default() };
        let board = LocalBoard::new(settings.clone(), Arc::new(move || clock.load(Ordering::Relaxed)));
        let governor = Arc::new(Mutex::new(Governor::new("bench", 1_000, settings)));
        let keeper = Keeper::new(governor.clone(), Box::new(board), "bench");
        let sluice = Sluice::new(Breaker { governor, since, on_news: Arc::new(|| {}) });
        let mut guarded =
            Guarded { sluice, keeper, since, now: since + Duration::from_secs(10), board_ms, call: 0 };
        (0..10).for_each(|_| guarded.beat());
        guarded
    }

    /// A heartbeat's time passes.
    fn beat(&mut self) {
        self.now += Duration::from_millis(80);
        let now_ns = (self.now - self.since).as_nanos() as u64;
        self.board_ms.store(1_000_000 + now_ns / 1_000_000, Ordering::Relaxed);
        self.keeper.step(&|| now_ns, Workload::waiting(1_000_000));
    }

    /// One call: asked for, sent and answered. False: it was held.
    fn call(&mut self, reply: &Result<Vec<Answer>, hongbao::stored_value::remote::CallError>) -> bool {
        self.now += Duration::from_micros(100);
        let Ok(ticket) = self.sluice.admit(self.now, 1_000) else { return false };
        self.call += 1;
        self.sluice.sent(ticket, self.call, 1_000);
        self.sluice.answered(self.now, self.call, 1_000, reply);
        true
    }
}

/// Calls between two beats.
const CALLS_A_BEAT: u64 = 500;

fn breaker(c: &mut Criterion) {
    let mut group = c.benchmark_group("breaker");
    let answer = Answer { status: TransferStatus::Succeeded, wallet_ref: String::new() };
    let reply = Ok(vec![answer; 1_000]);
    for (name, rate_per_s) in [("that goes", 1_000_000_000), ("or none, at 2,000/s", 2_000)] {
        let mut guarded = Guarded::new(rate_per_s);
        let (mut asked, mut went) = (0u64, 0u64);
        group.bench_function(format!("a call of 1000 {name}: asked, sent, answered"), |b| {
            b.iter_custom(|count| {
                let mut took = Duration::ZERO;
                for _ in 0..count.div_ceil(CALLS_A_BEAT) {
                    guarded.beat();
                    let began = Instant::now();
                    went += (0..CALLS_A_BEAT).filter(|_| guarded.call(black_box(&reply))).count() as u64;
                    took += began.elapsed();
                    asked += CALLS_A_BEAT;
                }
                took.mul_f64(count as f64 / (count.div_ceil(CALLS_A_BEAT) * CALLS_A_BEAT) as f64)
            });
        });
        assert!(went > 0 && (went == asked) == (rate_per_s > 1_000_000), "{went} of {asked} went");
    }
    let mut guarded = Guarded::new(1_000_000);
    group.bench_function("a heartbeat, on a board in this process", |b| b.iter(|| guarded.beat()));
    group.finish();
}

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    if wanted.as_deref().is_none_or(|wanted| wanted != "settle") {
        let mut criterion = Criterion::default().configure_from_args();
        pace(&mut criterion);
        forecast(&mut criterion);
        breaker(&mut criterion);
        criterion.final_summary();
    }
    if wanted.as_deref().is_none_or(|wanted| wanted == "settle") && std::env::args().any(|a| a == "--bench") {
        guarded::measure();
    }
}
