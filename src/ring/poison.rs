//! What a panic leaves behind: a flag that every stage looks at before it touches a batch, and the reason.
//!
//! A poisoned pipeline never runs again in this process: a stage that panicked left its state half changed.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Clone, Default)]
pub struct Poison {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    set: AtomicBool,
    reason: Mutex<Option<String>>,
}

impl Poison {
    pub fn is_set(&self) -> bool {
        self.inner.set.load(Ordering::Acquire)
    }

    /// The first reason stays.
    pub fn set(&self, reason: String) {
        let mut held = self.inner.reason.lock().unwrap_or_else(PoisonError::into_inner);
        held.get_or_insert(reason);
        self.inner.set.store(true, Ordering::Release);
    }

    pub fn reason(&self) -> Option<String> {
        self.inner.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a panic said.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}
