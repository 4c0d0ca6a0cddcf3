//! The claim it backs: what passes through the pipeline's ring in batches costs a few nanoseconds an item and hop, parking
//! included, and less than through a channel. One at a time it is a channel's work, and `std`'s is the fastest for it
//! (loadtest's `ceiling` has the raw ring that spins).
//!
//! `hongbao` is the ring as the pipeline uses it: a feed and two stages on two threads that park when idle. Beside it
//! `crossbeam` and `std` channels of as many places, one producer and one consumer. A batch is published at once in
//! the ring; through a channel it travels as one `Vec`. Absent: what stages do with a slot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hongbao::ring::chain::StageError;
use hongbao::ring::threads::{Feeder, Threads};
use hongbao::ring::{Batch, Bell, Chain, Feed, Poison, Stage};

const SLOTS: usize = 1 << 14;
const ITEMS: u64 = 1_000_000;
const BATCHES: [u64; 3] = [1, 64, 1_000];

#[derive(Default)]
struct Slot(u64);

/// Publishes up to `until`, a batch at a time.
struct Count {
    until: Arc<AtomicU64>,
    next: u64,
    batch: u64,
}

impl Feeder<Slot> for Count {
    fn step(&mut self, feed: &mut Feed<Slot>) -> bool {
        let count = self.batch.min(self.until.load(Ordering::Acquire) - self.next);
        let mut next = self.next;
        let fill = |slot: &mut Slot| {
            slot.0 = next;
            next += 1;
        };
        let is_published = count > 0 && feed.try_publish(count as usize, fill).is_ok();
        self.next = next;
        is_published
    }

    fn has_work(&mut self) -> bool {
        self.next < self.until.load(Ordering::Acquire)
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// Looks at each slot; the last stage tells how far it is.
struct Look {
    seen: Option<Arc<AtomicU64>>,
    sum: u64,
}

impl Stage<Slot> for Look {
    fn name(&self) -> &'static str {
        "look"
    }

    fn appetite(&mut self) -> u64 {
        u64::MAX
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, Slot>) -> Result<(), StageError> {
        let mut count = 0;
        while let Some(slot) = batch.next_slot() {
            self.sum = self.sum.wrapping_add(slot.0);
            count += 1;
        }
        if let Some(seen) = &self.seen {
            seen.fetch_add(count, Ordering::Release);
        }
        Ok(())
    }
}

fn wait_for(seen: &AtomicU64, count: u64) {
    while seen.load(Ordering::Acquire) < count {
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn hongbao(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring/hongbao");
    group.throughput(Throughput::Elements(ITEMS)).sample_size(10);
    for batch in BATCHES {
        let (until, seen) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let stages: Vec<Box<dyn Stage<Slot>>> =
            vec![Box::new(Look { seen: None, sum: 0 }), Box::new(Look { seen: Some(seen.clone()), sum: 0 })];
        let chain = Chain::new(SLOTS, Slot::default, stages);
        let bells: Vec<Bell> = (0..2).map(|_| Bell::new()).collect();
        let wake = bells[0].clone();
        let feeder = Box::new(Count { until: until.clone(), next: 0, batch });
        let threads = Threads::start(chain, feeder, bells, Poison::default(), Arc::new(|| {}));
        let threads = threads.expect("threads start");
        group.bench_function(BenchmarkId::from_parameter(batch), |b| {
            b.iter(|| {
                let end = until.fetch_add(ITEMS, Ordering::AcqRel) + ITEMS;
                wake.ring();
                wait_for(&seen, end);
            });
        });
        threads.stop();
    }
    group.finish();
}

/// A consumer that lives through all rounds, and how many items it took.
fn consume<I: IntoIterator<Item = Vec<u64>> + Send + 'static>(items: I) -> Arc<AtomicU64> {
    let seen = Arc::new(AtomicU64::new(0));
    let counter = seen.clone();
    std::thread::spawn(move || {
        for item in items {
            counter.fetch_add(item.len() as u64, Ordering::Release);
        }
    });
    seen
}

fn consume_singles<I: IntoIterator<Item = u64> + Send + 'static>(items: I) -> Arc<AtomicU64> {
    let seen = Arc::new(AtomicU64::new(0));
    let counter = seen.clone();
    std::thread::spawn(move || {
        for item in items {
            counter.fetch_add(u64::from(item != u64::MAX), Ordering::Release);
        }
    });
    seen
}

/// `send` takes the numbers of one batch; everything is waited for.
fn channel(
    c: &mut Criterion,
    name: &str,
    batch: u64,
    seen: &AtomicU64,
    mut send: impl FnMut(std::ops::Range<u64>),
) {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(ITEMS)).sample_size(10);
    let mut end = 0;
    group.bench_function(BenchmarkId::from_parameter(batch), |b| {
        b.iter(|| {
            for at in (end..end + ITEMS).step_by(batch as usize) {
                send(at..(at + batch).min(end + ITEMS));
            }
            end += ITEMS;
            wait_for(seen, end);
        });
    });
    group.finish();
}

fn channels(c: &mut Criterion) {
    let (sender, receiver) = crossbeam::channel::bounded(SLOTS);
    let seen = consume_singles(receiver);
    channel(c, "ring/crossbeam", 1, &seen, |range| sender.send(range.start).expect("it is taken"));
    let (sender, receiver) = mpsc::sync_channel(SLOTS);
    let seen = consume_singles(receiver);
    channel(c, "ring/std", 1, &seen, |range| sender.send(range.start).expect("it is taken"));
    for batch in &BATCHES[1..] {
        let (sender, receiver) = crossbeam::channel::bounded(SLOTS / *batch as usize);
        let seen = consume(receiver);
        channel(c, "ring/crossbeam", *batch, &seen, |range| {
            sender.send(range.collect()).expect("it is taken")
        });
        let (sender, receiver) = mpsc::sync_channel(SLOTS / *batch as usize);
        let seen = consume(receiver);
        channel(c, "ring/std", *batch, &seen, |range| sender.send(range.collect()).expect("it is taken"));
    }
}

criterion_group!(benches, hongbao, channels);
criterion_main!(benches);
