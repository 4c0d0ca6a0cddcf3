//! A log line for what may happen thousands of times a second: at most one a second, with how often it happened.
//!
//! What holds: no lock, and no allocation; of many threads one tells. What happens after a line is told with the next one: if
//! nothing more comes, only the counter beside it in `/metrics` knows. Pure: `now` is passed in.

use std::sync::atomic::{AtomicU64, Ordering};

const APART_MS: u64 = 1_000;

#[derive(Debug, Default)]
pub struct Seldom {
    told_at_ms: AtomicU64,
    untold: AtomicU64,
}

impl Seldom {
    /// It happened `count` times more: of how many a line is to tell now, if one is.
    pub fn note(&self, now_ms: u64, count: u64) -> Option<u64> {
        self.untold.fetch_add(count, Ordering::Relaxed);
        let told_at_ms = self.told_at_ms.load(Ordering::Relaxed);
        // A clock that was set back tells at once.
        let is_time = told_at_ms == 0 || now_ms.abs_diff(told_at_ms) >= APART_MS;
        let ours = is_time && {
            let order = Ordering::Relaxed;
            self.told_at_ms.compare_exchange(told_at_ms, now_ms.max(1), order, order).is_ok()
        };
        ours.then(|| self.untold.swap(0, Ordering::Relaxed)).filter(|count| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_with_all_that_happened() {
        let seldom = Seldom::default();
        // when, how often; what is told
        let table = [
            (5_000, 1, Some(1)),
            (5_001, 400, None),
            (5_999, 1, None),
            (6_000, 2, Some(403)),
            (9_000, 0, None),
            (9_500, 7, None),
            (10_000, 1, Some(8)),
            (2_000, 1, Some(1)),
        ];
        for (row, (now_ms, count, expected)) in table.into_iter().enumerate() {
            assert_eq!(seldom.note(now_ms, count), expected, "row {row}");
        }
    }

    #[test]
    fn of_many_threads_each_happening_is_told_once() {
        let seldom = Seldom::default();
        let told: u64 = std::thread::scope(|scope| {
            let each = || (1..=10_000u64).filter_map(|step| seldom.note(step * 50, 1)).sum::<u64>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(each)).collect();
            threads.into_iter().map(|thread| thread.join().expect("it ends")).sum()
        });
        assert_eq!(told + seldom.untold.load(Ordering::Relaxed), 40_000);
    }
}
