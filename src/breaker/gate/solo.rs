//! One instance by itself: tries one batch at a time, with growing pauses, while its calls fail and the fleet's do
//! not.

use super::{Held, MS};

/// Time for the fleet to make it its own affair.
const FIRST_NS: u64 = 1_000 * MS;
const PAUSE_NS: u64 = 500 * MS;
const PAUSE_NS_MAX: u64 = 8_000 * MS;
/// Successes in a row after which it was nothing.
const OK_MIN: u32 = 2;

#[derive(Clone, Debug, Default)]
pub struct Solo {
    resume_at_ns: u64,
    failures: u32,
    successes: u32,
    is_flying: bool,
}

impl Solo {
    pub fn begin(&mut self, now_ns: u64) {
        *self = Solo { resume_at_ns: now_ns + FIRST_NS, is_flying: self.is_flying, ..Solo::default() };
    }

    /// Whether one may be tried now.
    pub fn may_try(&self, now_ns: u64) -> Result<(), Held> {
        if self.is_flying {
            return Err(Held::Full);
        }
        if now_ns < self.resume_at_ns {
            return Err(Held::Alone { until_ns: self.resume_at_ns });
        }
        Ok(())
    }

    pub fn tries(&mut self) {
        self.is_flying = true;
    }

    pub fn withdrawn(&mut self) {
        self.is_flying = false;
    }

    /// What came of it; answers whether it is over.
    pub fn ended(&mut self, now_ns: u64, is_well: bool) -> bool {
        self.is_flying = false;
        if is_well {
            self.successes += 1;
            self.resume_at_ns = now_ns;
        } else {
            (self.successes, self.failures) = (0, self.failures + 1);
            self.resume_at_ns = now_ns + (PAUSE_NS << self.failures.min(8)).min(PAUSE_NS_MAX);
        }
        self.successes >= OK_MIN
    }
}
