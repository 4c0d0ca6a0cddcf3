//! The port of the Redis intake: local queues that the [reader](super::reader) fills, and the thread that runs it.
//!
//! What holds: a panic of the reader poisons the service and is told; reading and acknowledging here never wait for
//! Redis.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use super::held::Held;
use super::keys::Keys;
use super::reader::{Reader, ReaderOptions, ReaderParts, Shared};
use super::units::UnitId;
use crate::intake::{Element, Intake, IntakeError, QueueId};
use crate::redis::Link;
use crate::ring::Poison;
use crate::ring::poison::panic_text;
use crate::shaping::Seen;

/// What is accepted and not acknowledged in the units of this instance, as far as known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Elements in Redis, those that were read included.
    pub elements: u64,
    /// Requests that they hold, about, as not every element was read yet.
    pub requests: u64,
}

pub struct RedisIntake {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl RedisIntake {
    /// Starts the reader. `on_poison` is called when it stops because of a panic; `poison` has the reason.
    pub fn start(
        link: Link,
        keys: Keys,
        held: Arc<Held>,
        options: ReaderOptions,
        parts: ReaderParts,
        poison: Poison,
        on_poison: Arc<dyn Fn() + Send + Sync>,
    ) -> std::io::Result<RedisIntake> {
        let shared = Arc::new(Shared::new(keys.units().fair_queue_count));
        let reader = Reader::new(link, keys, held, options, parts, shared.clone());
        let thread = Builder::new().name("redis-reader".to_owned()).spawn(move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| reader.run())) {
                poison.set(format!("the reader of the Redis intake panicked: {}", panic_text(&*panic)));
                on_poison();
            }
        })?;
        Ok(RedisIntake { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Looks at all lists at once: something was pushed, or a unit was gained or is to be left.
    pub fn wake(&self) {
        self.shared.wake();
    }

    pub fn backlog(&self) -> Backlog {
        Backlog {
            elements: self.shared.elements.load(Ordering::Relaxed),
            requests: self.shared.requests.load(Ordering::Relaxed),
        }
    }

    /// How the queues outside the control lane stand, in the order of service: those of the units held here. How often units
    /// have changed hands, up to what was seen at least.
    pub fn look(&self, out: &mut Vec<Seen>) -> u64 {
        let queues = &self.shared.queues;
        queues.look(usize::from(queues.fair_queue_count()), out);
        self.shared.hands()
    }

    /// Units that cannot work now, and why.
    pub fn troubles(&self) -> Vec<(UnitId, String)> {
        self.shared.troubles()
    }

    /// Ends the reader where it is. What is done and not acknowledged in Redis comes again: have the units left first.
    pub fn stop(&self) {
        self.shared.stop();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic was caught inside; the poison has it.
            let _ = thread.join();
        }
    }
}

impl Drop for RedisIntake {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Intake for RedisIntake {
    fn fair_queue_count(&self) -> u8 {
        self.shared.queues.fair_queue_count()
    }

    fn read(&self, queue: QueueId, count_max: usize, out: &mut Vec<Element>) -> Result<(), IntakeError> {
        self.shared.queues.read(queue, count_max, out);
        Ok(())
    }

    fn has_unread(&self, queue: QueueId) -> bool {
        self.shared.queues.has_unread(queue)
    }

    fn ack(&self, queue: QueueId, below_index: u64) -> Result<(), IntakeError> {
        self.shared.queues.ack(queue, below_index);
        self.shared.ring();
        Ok(())
    }

    fn depth(&self, queue: QueueId) -> u64 {
        self.shared.queues.depth(queue)
    }
}
