//! A chain of stages over one ring: the feed publishes, each stage sees what the stage before has passed on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use disruptor::{
    BusySpin, EventGuard, EventPoller, Polling, Producer, SingleConsumerBarrier, SingleProducer,
    SingleProducerBarrier, build_single_producer,
};

use super::poison::{Poison, panic_text};

/// One step of the pipeline. It sees every slot once, in order, and leaves its result in the slot's own lane.
pub trait Stage<S>: Send {
    fn name(&self) -> &'static str;
    /// How many slots it would take now; 0 keeps them waiting.
    fn appetite(&mut self) -> u64;
    /// Takes a batch. What it does not iterate is passed on all the same.
    fn on_batch(&mut self, batch: &mut Batch<'_, '_, S>) -> Result<(), StageError>;
    /// Called when the stage's thread has nothing else to do; true if it moved something.
    fn idle(&mut self) -> Result<bool, StageError> {
        Ok(false)
    }
    /// Called on the stage's thread after it panicked; its state may be half changed.
    fn panicked(&mut self, _reason: &str) {}
    /// Whether `idle` would move something. Reads only.
    fn has_work(&self) -> bool {
        false
    }
    /// When the stage wants to be called again though nobody rings.
    fn deadline(&self) -> Option<std::time::Instant> {
        None
    }
}

/// A stage cannot go on; the pipeline stops with this reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StageError(pub String);

enum Guard<'g, 'p, S> {
    First(&'g mut EventGuard<'p, S, SingleProducerBarrier>),
    Next(&'g mut EventGuard<'p, S, SingleConsumerBarrier>),
}

/// The slots of one call, in order.
pub struct Batch<'g, 'p, S> {
    guard: Guard<'g, 'p, S>,
}

impl<S> Batch<'_, '_, S> {
    pub fn len(&mut self) -> usize {
        match &mut self.guard {
            Guard::First(guard) => ExactSizeIterator::len(&(&mut **guard)),
            Guard::Next(guard) => ExactSizeIterator::len(&(&mut **guard)),
        }
    }

    pub fn is_empty(&mut self) -> bool {
        self.len() == 0
    }

    /// All slots that are left, for stages that look at a batch more than once.
    pub fn slots(&mut self) -> Vec<&S> {
        match &mut self.guard {
            Guard::First(guard) => (&mut **guard).collect(),
            Guard::Next(guard) => (&mut **guard).collect(),
        }
    }

    /// The next slot, or `None` at the end of the batch.
    #[inline]
    pub fn next_slot(&mut self) -> Option<&S> {
        match &mut self.guard {
            Guard::First(guard) => (&mut **guard).next(),
            Guard::Next(guard) => (&mut **guard).next(),
        }
    }
}

enum Source<S> {
    First(EventPoller<S, SingleProducerBarrier>),
    Next(EventPoller<S, SingleConsumerBarrier>),
}

/// A stage with its place in the ring.
pub struct Poller<S> {
    source: Source<S>,
    stage: Box<dyn Stage<S>>,
}

fn run<S>(stage: &mut dyn Stage<S>, poison: &Poison, mut batch: Batch<'_, '_, S>) {
    if poison.is_set() {
        return;
    }
    // The guard is dropped by our caller, after this: whoever sees the slots sees the poison too.
    match catch_unwind(AssertUnwindSafe(|| stage.on_batch(&mut batch))) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => poison.set(format!("stage {} stopped: {error}", stage.name())),
        Err(panic) => {
            let reason = format!("stage {} panicked: {}", stage.name(), panic_text(&*panic));
            stage.panicked(&reason);
            poison.set(reason);
        }
    }
}

impl<S> Poller<S> {
    /// Runs the stage once over what there is; true if it saw a slot or moved something.
    pub fn step(&mut self, poison: &Poison) -> bool {
        let limit = self.stage.appetite();
        let mut progress = false;
        // A limit of zero would answer an empty batch, which is not progress.
        if limit > 0 {
            progress = match &mut self.source {
                Source::First(poller) => match poller.take(limit) {
                    Ok(mut guard) => {
                        run(&mut *self.stage, poison, Batch { guard: Guard::First(&mut guard) });
                        true
                    }
                    Err(Polling::NoEvents | Polling::Shutdown) => false,
                },
                Source::Next(poller) => match poller.take(limit) {
                    Ok(mut guard) => {
                        run(&mut *self.stage, poison, Batch { guard: Guard::Next(&mut guard) });
                        true
                    }
                    Err(Polling::NoEvents | Polling::Shutdown) => false,
                },
            };
        }
        if poison.is_set() {
            return false;
        }
        match catch_unwind(AssertUnwindSafe(|| self.stage.idle())) {
            Ok(Ok(moved)) => progress | moved,
            Ok(Err(error)) => {
                poison.set(format!("stage {} stopped: {error}", self.stage.name()));
                false
            }
            Err(panic) => {
                let reason = format!("stage {} panicked: {}", self.stage.name(), panic_text(&*panic));
                self.stage.panicked(&reason);
                poison.set(reason);
                false
            }
        }
    }

    /// Whether a slot waits that the stage would take, or it has work without one.
    pub fn has_work(&mut self) -> bool {
        let available = match &self.source {
            Source::First(poller) => poller.has_available(),
            Source::Next(poller) => poller.has_available(),
        };
        (available && self.stage.appetite() > 0) || self.stage.has_work()
    }

    pub fn deadline(&self) -> Option<std::time::Instant> {
        self.stage.deadline()
    }
}

/// The publishing end.
pub struct Feed<S> {
    producer: SingleProducer<S, SingleConsumerBarrier>,
}

impl<S> Feed<S> {
    /// Publishes `count` slots, filled in order, or none if they are not free. A caller with more than there
    /// is room for asks again with less.
    pub fn try_publish(&mut self, count: usize, fill: impl FnMut(&mut S)) -> Result<(), usize> {
        if count == 0 {
            return Ok(());
        }
        let published = self.producer.try_batch_publish(count, |slots| slots.for_each(fill));
        published.map(|_| ()).map_err(|missing| missing.0 as usize)
    }
}

/// A ring and its stages, not yet on threads.
pub struct Chain<S> {
    pub feed: Feed<S>,
    pub pollers: Vec<Poller<S>>,
}

impl<S: Send + Sync + 'static> Chain<S> {
    /// # Panics
    /// If `slot_count` is not a power of two or there are fewer than two stages: both are fixed by the configuration's
    /// checks.
    pub fn new(slot_count: usize, slot: impl FnMut() -> S, stages: Vec<Box<dyn Stage<S>>>) -> Chain<S> {
        let mut stages = stages.into_iter();
        let mut stage = || stages.next().expect("a chain has two stages or more");
        let builder = build_single_producer(slot_count, slot, BusySpin);
        let (first, builder) = builder.new_event_poller();
        let (second, mut builder) = builder.and_then().new_event_poller();
        let mut pollers = vec![
            Poller { source: Source::First(first), stage: stage() },
            Poller { source: Source::Next(second), stage: stage() },
        ];
        for stage in stages {
            let (poller, next) = builder.and_then().new_event_poller();
            pollers.push(Poller { source: Source::Next(poller), stage });
            builder = next;
        }
        Chain { feed: Feed { producer: builder.build() }, pollers }
    }
}
