//! How fast ids are accepted; run in release by hand: `cargo test --release --test redis_door -- --ignored speed`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hongbao::gateway::port::Accepting;
use hongbao::intake::redis::door::DoorOptions;

use crate::support::env_number;
use crate::support::redis::{Fsync, Setup};
use crate::world::{World, batch, owner_mode};

/// Callers at a time, and items of a batch.
const CALLERS: usize = 16;
const ITEMS: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn speed_of_acceptance() {
    let seconds = env_number("SPEED_S", 5);
    for (name, fsync) in
        [("memory", Fsync::NoFile), ("everysec", Fsync::EverySecond), ("always", Fsync::Always)]
    {
        for thread_count in [1, 2] {
            for (mode, options) in [("strict", DoorOptions::default()), ("owner", owner_mode())] {
                let world = World::with(Setup::new(fsync));
                let one = world.instance_with(DoorOptions { thread_count, ..options });
                one.campaign("c", 1 << 50).await;
                let next = Arc::new(AtomicU64::new(0));
                let began = Instant::now();
                let calls: Vec<_> = (0..CALLERS)
                    .map(|_| {
                        let (office, next) = (one.office.clone(), next.clone());
                        tokio::spawn(async move {
                            let (mut waits, mut accepted) = (Vec::new(), 0);
                            while began.elapsed() < Duration::from_secs(seconds) {
                                let number = next.fetch_add(1, Ordering::Relaxed);
                                let id = format!("batch-{number:08}");
                                let names: Vec<String> = (0..ITEMS).map(|n| format!("{id}-{n:08}")).collect();
                                let items: Vec<(&str, u64)> = names.iter().map(|n| (n.as_str(), 5)).collect();
                                let (head, submissions) = batch(&id, &items);
                                let asked = Instant::now();
                                accepted += office.submit(Some(head), submissions).await.unwrap().len();
                                waits.push(asked.elapsed());
                            }
                            (waits, accepted)
                        })
                    })
                    .collect();
                let (mut waits, mut accepted) = (Vec::new(), 0);
                for call in calls {
                    let (own, count) = call.await.unwrap();
                    waits.extend(own);
                    accepted += count;
                }
                let per_s = accepted as f64 / began.elapsed().as_secs_f64();
                waits.sort();
                let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_micros();
                let rounds = one.door.counts().read()[2];
                println!(
                    "{name} {mode} threads={thread_count}: {per_s:.0}/s p50={}us p99={}us per round={}",
                    at(0.5),
                    at(0.99),
                    accepted as u64 / rounds.max(1)
                );
            }
        }
    }
}
