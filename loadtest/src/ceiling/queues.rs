//! From one thread to another: a bounded channel, and the ring that hongbao's pipeline is built on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use disruptor::{BusySpin, Producer, build_single_producer};

use super::Options;

const SLOTS: usize = 1 << 15;
/// Items between two looks at the clock.
const STRIDE: u64 = 10_000;

pub fn channel_per_s(options: &Options) -> anyhow::Result<f64> {
    let (sender, receiver) = crossbeam::channel::bounded::<u64>(SLOTS);
    let length = options.length();
    let began = Instant::now();
    let taken = std::thread::scope(|scope| {
        let taker = scope
            .spawn(move || receiver.iter().fold(0u64, |count, item| count + u64::from(item != u64::MAX)));
        while began.elapsed() < length {
            for item in 0..STRIDE {
                if sender.send(item).is_err() {
                    break;
                }
            }
        }
        drop(sender);
        taker.join()
    });
    let taken = taken.map_err(|_| anyhow::anyhow!("the receiving thread panicked"))?;
    Ok(taken as f64 / began.elapsed().as_secs_f64())
}

#[derive(Default)]
struct Slot(u64);

/// With busy waiting, which hongbao does not do: this is what the ring itself could.
pub fn ring_per_s(options: &Options) -> anyhow::Result<f64> {
    let taken = std::sync::Arc::new(AtomicU64::new(0));
    let counter = taken.clone();
    let count = move |slot: &Slot, _sequence: i64, _end_of_batch: bool| {
        counter.fetch_add(u64::from(slot.0 != u64::MAX), Ordering::Relaxed);
    };
    let mut producer =
        build_single_producer(SLOTS, Slot::default, BusySpin).handle_events_with(count).build();
    let began = Instant::now();
    let mut item = 0u64;
    while began.elapsed() < options.length() {
        for _ in 0..STRIDE {
            producer.publish(|slot| slot.0 = item);
            item += 1;
        }
    }
    // Waits until all are taken.
    drop(producer);
    Ok(taken.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
}
