//! Puts the feed and the stages of a chain on threads: all on one where cores are few, one each where they
//! are many. Each thread runs what it carries in order, and sleeps when none of it has work.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use super::chain::{Chain, Feed, Poller};
use super::poison::panic_text;
use super::{Bell, Poison};

/// What publishes into the ring.
pub trait Feeder<S>: Send {
    /// Publishes what there is room and reason for; true if it published.
    fn step(&mut self, feed: &mut Feed<S>) -> bool;
    /// Whether `step` would publish something.
    fn has_work(&mut self) -> bool;
    fn deadline(&self) -> Option<Instant>;
}

/// The running threads of a chain.
pub struct Threads {
    handles: Vec<JoinHandle<()>>,
    bells: Vec<Bell>,
    stop: Arc<AtomicBool>,
    poison: Poison,
}

struct Load<S> {
    feeder: Option<(Box<dyn Feeder<S>>, Feed<S>)>,
    pollers: Vec<Poller<S>>,
    bell: Bell,
    /// Rung after progress: the others may have work now.
    others: Vec<Bell>,
    stop: Arc<AtomicBool>,
    poison: Poison,
    on_poison: Arc<dyn Fn() + Send + Sync>,
}

/// How many empty rounds a thread makes before it parks: a hand-over between threads is usually shorter.
const SPIN_ROUNDS: u32 = 64;

impl<S> Load<S> {
    fn step(&mut self) -> bool {
        let mut progress = false;
        if let Some((feeder, feed)) = &mut self.feeder {
            progress |= feeder.step(feed);
        }
        for poller in &mut self.pollers {
            progress |= poller.step(&self.poison);
        }
        progress
    }

    fn run(mut self) {
        let listener = self.bell.listen();
        let mut empty_rounds = 0;
        let spin_rounds = if self.others.is_empty() { 0 } else { SPIN_ROUNDS };
        while !self.stop.load(Ordering::Acquire) && !self.poison.is_set() {
            if self.step() {
                empty_rounds = 0;
                self.others.iter().for_each(Bell::ring);
                continue;
            }
            empty_rounds += 1;
            if empty_rounds < spin_rounds {
                std::hint::spin_loop();
                continue;
            }
            let feeder_deadline = self.feeder.as_ref().and_then(|(feeder, _)| feeder.deadline());
            let deadlines = self.pollers.iter().filter_map(Poller::deadline);
            let deadline = deadlines.chain(feeder_deadline).min();
            let (feeder, pollers, stop) = (&mut self.feeder, &mut self.pollers, &self.stop);
            let poison = &self.poison;
            let ready = || {
                stop.load(Ordering::Acquire)
                    || poison.is_set()
                    || feeder.as_mut().is_some_and(|(feeder, _)| feeder.has_work())
                    || pollers.iter_mut().any(Poller::has_work)
            };
            match deadline {
                Some(deadline) => listener.wait_until(deadline, ready),
                None => listener.wait(ready),
            }
        }
        if self.poison.is_set() {
            self.others.iter().for_each(Bell::ring);
            (self.on_poison)();
        }
    }
}

impl Threads {
    /// Spreads the stages over `thread_count` threads in order, the feeder with the first. `bells` wake the
    /// threads, one each; whoever brings work from outside rings the right one. `on_poison` is called when
    /// a thread stops because of a panic.
    pub fn start<S: Send + Sync + 'static>(
        chain: Chain<S>,
        feeder: Box<dyn Feeder<S>>,
        bells: Vec<Bell>,
        poison: Poison,
        on_poison: Arc<dyn Fn() + Send + Sync>,
    ) -> std::io::Result<Threads> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread_count = bells.len().min(chain.pollers.len());
        let stage_count = chain.pollers.len();
        let mut loads: Vec<Load<S>> = (0..thread_count)
            .map(|position| Load {
                feeder: None,
                pollers: Vec::new(),
                bell: bells[position].clone(),
                others: (0..thread_count).filter(|o| *o != position).map(|o| bells[o].clone()).collect(),
                stop: stop.clone(),
                poison: poison.clone(),
                on_poison: on_poison.clone(),
            })
            .collect();
        for (position, poller) in chain.pollers.into_iter().enumerate() {
            loads[position * thread_count / stage_count].pollers.push(poller);
        }
        loads[0].feeder = Some((feeder, chain.feed));
        let handles = loads
            .into_iter()
            .enumerate()
            .map(|(position, load)| {
                let poison = poison.clone();
                Builder::new().name(format!("settle-{position}")).spawn(move || {
                    let on_poison = load.on_poison.clone();
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| load.run())) {
                        poison.set(format!("a settle thread panicked: {}", panic_text(&*panic)));
                        on_poison();
                    }
                })
            })
            .collect::<std::io::Result<_>>()?;
        Ok(Threads { handles, bells, stop, poison })
    }

    pub fn poison(&self) -> &Poison {
        &self.poison
    }

    /// Stops the threads where they are; what is in the ring stays unacknowledged.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.bells.iter().for_each(Bell::ring);
        for handle in self.handles {
            // A panic was caught inside; the poison has it.
            let _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::{Batch, Stage, StageError};
    use super::*;
    use std::sync::atomic::AtomicU64;
    use std::sync::mpsc;
    use std::time::Duration;

    #[derive(Default)]
    struct Slot {
        number: u64,
        lane: AtomicU64,
    }

    struct Count {
        left: u64,
        next: u64,
    }
    impl Feeder<Slot> for Count {
        fn step(&mut self, feed: &mut Feed<Slot>) -> bool {
            let want = self.left.min(100) as usize;
            let mut next = self.next;
            let published = match feed.try_publish(want, |slot| {
                slot.number = next;
                next += 1;
            }) {
                Ok(()) => want,
                Err(missing) => {
                    let room = want - missing.min(want);
                    feed.try_publish(room, |slot| {
                        slot.number = next;
                        next += 1;
                    })
                    .map_or(0, |()| room)
                }
            };
            (self.next, self.left) = (next, self.left - published as u64);
            published > 0
        }
        fn has_work(&mut self) -> bool {
            self.left > 0
        }
        fn deadline(&self) -> Option<Instant> {
            None
        }
    }

    struct Double;
    impl Stage<Slot> for Double {
        fn name(&self) -> &'static str {
            "double"
        }
        fn appetite(&mut self) -> u64 {
            64
        }
        fn on_batch(&mut self, batch: &mut Batch<'_, '_, Slot>) -> Result<(), StageError> {
            while let Some(slot) = batch.next_slot() {
                slot.lane.store(slot.number * 2, Ordering::Relaxed);
            }
            Ok(())
        }
    }

    struct Collect {
        panic_at: Option<u64>,
        seen: mpsc::Sender<u64>,
    }
    impl Stage<Slot> for Collect {
        fn name(&self) -> &'static str {
            "collect"
        }
        fn appetite(&mut self) -> u64 {
            u64::MAX
        }
        fn on_batch(&mut self, batch: &mut Batch<'_, '_, Slot>) -> Result<(), StageError> {
            while let Some(slot) = batch.next_slot() {
                assert_ne!(Some(slot.number), self.panic_at, "injected");
                self.seen.send(slot.lane.load(Ordering::Relaxed)).map_err(|e| StageError(e.to_string()))?;
            }
            Ok(())
        }
    }

    fn run(thread_count: usize, count: u64, panic_at: Option<u64>) -> (Vec<u64>, Option<String>) {
        let (seen, received) = mpsc::channel();
        let stages: Vec<Box<dyn Stage<Slot>>> = vec![Box::new(Double), Box::new(Collect { panic_at, seen })];
        let chain = Chain::new(256, Slot::default, stages);
        let poison = Poison::default();
        let bells = (0..thread_count).map(|_| Bell::new()).collect();
        let feeder = Box::new(Count { left: count, next: 0 });
        let (poisoned, on_poison) = mpsc::channel();
        let poisoned = std::sync::Mutex::new(poisoned);
        let tell: Arc<dyn Fn() + Send + Sync> =
            Arc::new(move || poisoned.lock().unwrap().send(()).unwrap_or(()));
        let threads = Threads::start(chain, feeder, bells, poison.clone(), tell).unwrap();
        let mut got = Vec::new();
        if panic_at.is_some() {
            on_poison.recv_timeout(Duration::from_secs(10)).expect("the panic is told");
            got.extend(received.try_iter());
        } else {
            for _ in 0..count {
                got.push(received.recv_timeout(Duration::from_secs(10)).expect("every slot arrives"));
            }
        }
        threads.stop();
        (got, poison.reason())
    }

    #[test]
    fn every_slot_passes_every_stage_in_order() {
        for thread_count in [1, 2] {
            let (got, reason) = run(thread_count, 10_000, None);
            assert_eq!(reason, None);
            assert!(got.iter().copied().eq((0..10_000).map(|n| n * 2)), "{thread_count} threads");
        }
    }

    #[test]
    fn a_panic_poisons_and_names_the_stage() {
        for thread_count in [1, 2] {
            let (got, reason) = run(thread_count, 10_000, Some(777));
            assert!(got.iter().copied().eq((0..777).map(|n| n * 2)), "nothing after the panic is seen");
            let reason = reason.unwrap();
            assert!(reason.contains("collect") && reason.contains("injected"), "{reason}");
        }
    }
}
