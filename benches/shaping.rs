//! The claim it backs: what the shaper decides costs nanoseconds a decision, whatever the rate and however long it
//! waited, so that asking once a batch is free beside the batch.
//!
//! Time is passed in, so nothing waits here. The breaker's decisions have their own bench beside its room.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use hongbao::shaping::{DrainRate, Pace};

fn shaping(c: &mut Criterion) {
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
        group.bench_function(format!("pace, when to ask again, {name}"), |b| {
            b.iter(|| black_box(&pace).next_at_ns());
        });
    }
    let (mut drain, mut now_ms) = (DrainRate::new(0), 1_000u64);
    group.bench_function("drain rate, a batch done each 10 ms and a wait told", |b| {
        b.iter(|| {
            now_ms += 10;
            drain.done(now_ms, black_box(1_000), true);
            drain.wait_ms(black_box(1_000_000))
        });
    });
    group.finish();
}

criterion_group!(benches, shaping);
criterion_main!(benches);
