//! How much may be read of a list: its share of the memory, and a count that its elements' size allows. Pure.
//!
//! *A list may hold as much as is still free* (dynamic thresholds, Choudhury and Hahne 1998): one list alone fills half
//! of the memory, and however many are stuck, an empty one finds room. What is not known before it is read, the size
//! of the elements, is guessed from those read last and from a look ahead; a list is begun with a few. One element is
//! always read when its list holds nothing and anything is free: whatever its size, nothing gets stuck. What could not
//! be read in time is asked for by halves, down to one element, and by more again only little by little.

use super::sizes::Manner;
use super::window::Weight;

/// Elements of the first read of a list; each full read raises it fourfold.
const READ_COUNT_FIRST: u64 = 16;
const READ_COUNT_MAX: u64 = 4_096;
/// What an element is taken for before one was seen.
const ELEMENT_BYTES_GUESS: u64 = 16 << 10;
/// Elements of one scan: each is a call inside of Redis, ten times the cost of one in a plain read.
const SCAN_COUNT_MAX: u64 = 512;
/// Elements that are read without having looked ahead, and how far the looks are apart.
const BLIND_COUNT: u64 = 512;
pub const PROBE_STRIDE: u64 = 128;

/// Memory shared by all lists.
#[derive(Clone, Copy, Debug)]
pub struct Credit {
    pub max: Weight,
}

impl Credit {
    /// What a list that holds `own` may add where all together hold `all`; nothing at all where nothing is free.
    pub fn share(&self, all: Weight, own: Weight) -> Weight {
        let share = |max: u64, all: u64, own: u64| max.saturating_sub(all).saturating_sub(own);
        Weight {
            requests: share(self.max.requests, all.requests, own.requests),
            bytes: share(self.max.bytes, all.bytes, own.bytes),
        }
    }

    pub fn is_spent(&self, all: Weight) -> bool {
        all.requests >= self.max.requests || all.bytes >= self.max.bytes
    }
}

/// What is known of the elements of a list.
#[derive(Clone, Copy, Debug)]
pub struct Gauge {
    count_max: u64,
    /// What the count does not grow beyond at once, as more failed.
    ceiling: u64,
    /// The largest of late, in memory; zero before the first.
    element_bytes: u64,
    /// The most requests of late in one element.
    element_requests: u64,
    /// Requests an element on average, in sixteenths.
    mean_requests: u64,
    /// Elements from the read position on that were looked at.
    seen_ahead: u64,
}

impl Default for Gauge {
    fn default() -> Gauge {
        Gauge {
            count_max: READ_COUNT_FIRST,
            ceiling: READ_COUNT_MAX,
            element_bytes: 0,
            element_requests: 1,
            mean_requests: 16,
            seen_ahead: 0,
        }
    }
}

impl Gauge {
    fn element_bytes(&self) -> u64 {
        if self.element_bytes == 0 { ELEMENT_BYTES_GUESS } else { self.element_bytes }
    }

    /// Elements to read of `count` with this share and at most `bytes_max` in one reply.
    pub fn count(&self, count: u64, share: Weight, bytes_max: u64, manner: Manner) -> u64 {
        let by_requests = share.requests / self.element_requests;
        let by_bytes = share.bytes.min(bytes_max) / self.element_bytes();
        let by_manner = match manner {
            Manner::Known => by_bytes,
            Manner::Trusted => by_bytes.min(self.seen_ahead.max(BLIND_COUNT)),
            // It stops by itself; not begun where no byte is free.
            Manner::Scanned => SCAN_COUNT_MAX.min(share.bytes).min(bytes_max),
        };
        count.min(self.count_max).min(by_requests).min(by_manner)
    }

    /// Bytes of the largest element of late.
    pub fn largest(&self) -> u64 {
        self.element_bytes
    }

    /// What so many elements may come to.
    pub fn estimate(&self, count: u64) -> Weight {
        Weight { requests: count * self.element_requests, bytes: count * self.element_bytes() }
    }

    /// How many elements behind a read of `count` are worth looking at before they are read.
    pub fn look_ahead(&self, count: u64, manner: Manner) -> u64 {
        if count < BLIND_COUNT || manner == Manner::Known { 0 } else { READ_COUNT_MAX }
    }

    /// A read of `asked` elements did not come in time, or its connection broke.
    pub fn note_failed(&mut self, asked: u64) {
        self.count_max = (asked / 2).max(1);
        self.ceiling = self.count_max;
    }

    /// `ahead` elements behind those that were read were looked at, and this was the largest.
    pub fn note_probe(&mut self, ahead: u64, bytes: u64) {
        self.seen_ahead = ahead;
        self.element_bytes = self.element_bytes.max(bytes);
    }

    /// `count` elements of `asked` were read, `sum` in all, the largest of them `largest`.
    pub fn note_read(&mut self, asked: u64, count: u64, sum: Weight, largest: Weight) {
        // What was large once is forgotten in a few reads.
        let faded = |number: u64| number - number.div_ceil(4);
        self.element_bytes = largest.bytes.max(faded(self.element_bytes)).max(1);
        self.element_requests = largest.requests.max(faded(self.element_requests)).max(1);
        self.seen_ahead = 0;
        let mean = (16 * sum.requests).checked_div(count).unwrap_or(self.mean_requests);
        self.mean_requests = (3 * self.mean_requests + mean) / 4;
        if count == asked && asked >= self.count_max.min(BLIND_COUNT) {
            self.ceiling = (self.ceiling + self.ceiling.div_ceil(8)).min(READ_COUNT_MAX);
            self.count_max = (self.count_max * 4).min(self.ceiling);
        }
    }

    /// Requests that so many elements probably hold.
    pub fn requests_in(&self, elements: u64) -> u64 {
        (elements * self.mean_requests).div_ceil(16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Weight = Weight { requests: 1_000, bytes: 100_000 };

    fn weight(requests: u64, bytes: u64) -> Weight {
        Weight { requests, bytes }
    }

    #[test]
    fn a_list_may_hold_as_much_as_is_free() {
        let credit = Credit { max: MAX };
        let table = [
            (weight(0, 0), weight(0, 0), weight(1_000, 100_000)),
            (weight(400, 40_000), weight(400, 40_000), weight(200, 20_000)),
            (weight(500, 10), weight(500, 10), weight(0, 99_980)),
            (weight(900, 10), weight(0, 0), weight(100, 99_990)),
            (weight(2_000, 0), weight(0, 0), weight(0, 100_000)),
        ];
        for (all, own, expected) in table {
            assert_eq!(credit.share(all, own), expected, "{all:?} {own:?}");
        }
        assert!(credit.is_spent(weight(1_000, 0)) && credit.is_spent(weight(0, 100_000)));
        assert!(!credit.is_spent(weight(999, 99_999)));
    }

    #[test]
    fn reads_begin_small_and_grow_while_elements_are_small() {
        let (mut gauge, share) = (Gauge::default(), weight(1 << 20, 1 << 30));
        let mut counts = Vec::new();
        for _ in 0..6 {
            let count = gauge.count(1_000_000, share, 4 << 20, Manner::Trusted);
            counts.push(count);
            gauge.note_read(count, count, weight(count, count * 200), weight(1, 200));
            gauge.note_probe(gauge.look_ahead(count, Manner::Trusted), 200);
        }
        assert_eq!(counts, [16, 64, 256, 512, 4_096, 4_096]);
    }

    #[test]
    fn size_bounds_a_read() {
        let read = |bytes: u64| {
            let mut gauge = Gauge::default();
            gauge.note_read(16, 16, weight(16, 16 * bytes), weight(1, bytes));
            gauge.note_read(64, 64, weight(64, 64 * bytes), weight(1, bytes));
            gauge.count(1_000_000, weight(1 << 20, 1 << 30), 4 << 20, Manner::Trusted)
        };
        assert_eq!([read(100), read(100 << 10), read(1 << 20), read(5 << 20)], [256, 40, 4, 0]);
        let mut gauge = Gauge::default();
        for _ in 0..4 {
            gauge.note_read(4_096, 4_096, weight(4_096, 4_096), weight(1, 1));
        }
        let count = |gauge: &Gauge, manner| gauge.count(9_999, MAX, 4 << 20, manner);
        assert_eq!(count(&gauge, Manner::Trusted), 512, "unseen elements are read with care");
        assert_eq!(count(&gauge, Manner::Known), 1_000, "not those that cannot be large");
        gauge.note_probe(4_096, 1_000);
        assert_eq!(count(&gauge, Manner::Trusted), 100, "by what was seen ahead");
        assert_eq!(count(&gauge, Manner::Scanned), 512, "a scan stops by itself");
    }

    #[test]
    fn what_failed_is_asked_for_by_halves() {
        let (mut gauge, share) = (Gauge::default(), weight(1 << 20, 1 << 30));
        let mut read = |has_failed: bool| {
            let count = gauge.count(1_000_000, share, 4 << 20, Manner::Scanned);
            match has_failed {
                true => gauge.note_failed(count),
                false => gauge.note_read(count, count, weight(count, count * 200), weight(1, 200)),
            }
            count
        };
        let counts: Vec<u64> = (0..6).map(|_| read(true)).collect();
        assert_eq!(counts, [16, 8, 4, 2, 1, 1]);
        let counts: Vec<u64> = (0..6).map(|_| read(false)).collect();
        assert_eq!(counts, [1, 2, 3, 4, 5, 6], "and by more again little by little");
        for _ in 0..100 {
            let _ = read(false);
        }
        assert_eq!(read(false), 512);
    }

    #[test]
    fn what_was_large_once_is_forgotten() {
        let mut gauge = Gauge::default();
        gauge.note_read(1, 1, weight(1_000, 1 << 20), weight(1_000, 1 << 20));
        let before = gauge.estimate(1);
        for _ in 0..60 {
            gauge.note_read(16, 16, weight(16, 16 * 200), weight(1, 200));
        }
        assert_eq!((before, gauge.estimate(1)), (weight(1_000, 1 << 20), weight(1, 200)));
        assert_eq!(gauge.requests_in(160), 160);
    }
}
