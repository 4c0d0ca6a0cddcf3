//! How a thread with nothing to do waits, and how it is woken: spin a little, then park; ring after publishing.
//!
//! The danger is a lost wake-up: work is published after the waiter looked and before it sleeps. Both sides
//! write first and read second, with a full fence between (Dekker's handshake), so at least one of them sees
//! the other: either the waiter finds the work, or the ringer finds the waiter asleep and unparks it. An unpark
//! before the park is kept as a token by the thread. Ringing an awake listener costs one fence and one load.
//!
//! The same source is compiled against `std` and, in tests, against `shuttle`, which tries the interleavings.

use std::time::{Duration, Instant};

macro_rules! bell {
    ($atomic:path, $sync:path, $threads:path) => {
        use $atomic as atomic;
        use $sync as sync;
        use $threads as threads;

        use atomic::{AtomicBool, Ordering, fence};
        use sync::{Arc, Mutex};

        struct Shared {
            sleeping: AtomicBool,
            /// Set once, when the listener is made on its thread.
            thread: Mutex<Option<threads::Thread>>,
        }

        /// Wakes one listener. Cloned for everyone who publishes to it.
        #[derive(Clone)]
        pub struct Bell {
            shared: Arc<Shared>,
        }

        /// The waiting side; stays on the thread that called [`Bell::listen`].
        pub struct Listener {
            shared: Arc<Shared>,
        }

        impl Default for Bell {
            fn default() -> Bell {
                Bell::new()
            }
        }

        impl Bell {
            pub fn new() -> Bell {
                let sleeping = AtomicBool::new(false);
                Bell { shared: Arc::new(Shared { sleeping, thread: Mutex::new(None) }) }
            }

            /// Makes the calling thread the one that this bell wakes.
            pub fn listen(&self) -> Listener {
                *self.shared.thread.lock().unwrap() = Some(threads::current());
                Listener { shared: self.shared.clone() }
            }

            /// Call after what was published can be seen.
            #[inline]
            pub fn ring(&self) {
                fence(Ordering::SeqCst);
                if self.shared.sleeping.load(Ordering::Relaxed) {
                    self.wake();
                }
            }

            #[cold]
            fn wake(&self) {
                // One of several ringers is enough.
                if self.shared.sleeping.swap(false, Ordering::AcqRel)
                    && let Some(thread) = self.shared.thread.lock().unwrap().as_ref()
                {
                    thread.unpark();
                }
            }
        }

        impl Listener {
            /// Sleeps until rung, unless `ready` says there is something to do. May return early.
            pub fn wait(&self, ready: impl FnMut() -> bool) {
                self.wait_with(ready, threads::park);
            }

            pub(super) fn wait_with(&self, mut ready: impl FnMut() -> bool, park: impl FnOnce()) {
                self.shared.sleeping.store(true, Ordering::Relaxed);
                fence(Ordering::SeqCst);
                if !ready() {
                    park();
                }
                self.shared.sleeping.store(false, Ordering::Relaxed);
            }
        }
    };
}

mod real {
    bell!(std::sync::atomic, std::sync, std::thread);
}

pub use real::{Bell, Listener};

impl Listener {
    /// Like [`Listener::wait`], at most until `deadline`.
    pub fn wait_until(&self, deadline: Instant, ready: impl FnMut() -> bool) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left > Duration::ZERO {
            self.wait_with(ready, || std::thread::park_timeout(left));
        }
    }
}

#[cfg(test)]
mod model {
    bell!(shuttle::sync::atomic, shuttle::sync, shuttle::thread);

    use atomic::AtomicU32;

    /// Two publishers, one listener: every published item is seen, and nobody sleeps for ever (shuttle reports
    /// a deadlock if a wake-up is lost).
    fn handshake(ring_after_publish: bool) {
        let bell = Bell::new();
        let published = Arc::new(AtomicU32::new(0));
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                let (bell, published) = (bell.clone(), published.clone());
                threads::spawn(move || {
                    if !ring_after_publish {
                        bell.ring();
                    }
                    published.fetch_add(1, Ordering::Release);
                    if ring_after_publish {
                        bell.ring();
                    }
                })
            })
            .collect();
        let listener = bell.listen();
        let mut seen = 0;
        while seen < 2 {
            seen = published.load(Ordering::Acquire);
            let last = seen;
            if seen < 2 {
                listener.wait(|| published.load(Ordering::Acquire) != last);
            }
        }
        for publisher in publishers {
            publisher.join().unwrap();
        }
    }

    #[test]
    fn no_wake_up_is_lost() {
        shuttle::check_random(|| handshake(true), 2_000);
        shuttle::check_pct(|| handshake(true), 2_000, 3);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn the_model_finds_a_bell_rung_too_early() {
        shuttle::check_random(|| handshake(false), 2_000);
    }
}
