//! Which slots of the ring are done: the side array from which the acknowledgement takes the contiguous prefix.
//!
//! A wallet elsewhere answers out of order, the ring passes slots on in order. A slot is named by its sequence, which
//! grows for ever; two sequences share a cell only a whole ring apart, and the ring holds no more than that.

use std::sync::atomic::{AtomicU64, Ordering};

pub struct Window {
    /// Each cell holds the last sequence that was done there, plus one.
    cells: Box<[AtomicU64]>,
}

impl Window {
    /// For a ring of this many slots, a power of two.
    pub fn new(slot_count: usize) -> Window {
        assert!(slot_count.is_power_of_two());
        Window { cells: (0..slot_count).map(|_| AtomicU64::new(0)).collect() }
    }

    fn cell(&self, sequence: u64) -> &AtomicU64 {
        &self.cells[sequence as usize & (self.cells.len() - 1)]
    }

    pub fn set_done(&self, sequence: u64) {
        self.cell(sequence).store(sequence + 1, Ordering::Release);
    }

    /// How many from `sequence` on are done without a gap, at most `count_max`.
    pub fn done_from(&self, sequence: u64, count_max: u64) -> u64 {
        (0..count_max)
            .find(|ahead| self.cell(sequence + ahead).load(Ordering::Acquire) != sequence + ahead + 1)
            .unwrap_or(count_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_prefix_counts_round_after_round() {
        let window = Window::new(4);
        for base in [0u64, 4, 8, 400] {
            assert_eq!(window.done_from(base, 4), 0, "what was done a round ago does not count");
            window.set_done(base + 1);
            window.set_done(base + 3);
            assert_eq!(window.done_from(base, 4), 0);
            window.set_done(base);
            assert_eq!(window.done_from(base, 4), 2);
            assert_eq!(window.done_from(base + 3, 1), 1);
            window.set_done(base + 2);
            assert_eq!((window.done_from(base, 4), window.done_from(base, 3)), (4, 3));
        }
    }
}
