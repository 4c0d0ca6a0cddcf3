//! What this instance appended lately, so that a repeat of it needs no second append.
//!
//! A table of fixed size with a word a request: a tag of its identity, and when. A newer one may take an older one's
//! place, and then a repeat is appended once more, which is harmless; that something is here which was not appended,
//! nobody sees. What holds: only what Redis has confirmed is entered, and all of it is given up with the connection it
//! was confirmed on, because the server behind the next one may have lost it; so nothing is entered under a
//! [`Generation`] from after it was confirmed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::domain::{UnixMs, record};

const SLOT_COUNT: usize = 1 << 18;
/// Of a word: when, in ticks since the start; the rest is the tag.
const TICK_BITS: u32 = 24;
const TICK_MASK: u64 = (1 << TICK_BITS) - 1;
/// Twelve days go by before a tick comes again.
const TICK_MS: u64 = 64;

/// Clocks of instances may be apart by so much.
const CLOCKS_APART_MS: u64 = 1_000;

/// What is known of as long as no connection is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u64);

pub struct Lately {
    slots: Box<[AtomicU64]>,
    began: Instant,
    /// Part of every tag.
    generation: AtomicU64,
    /// Unix ms from which on notes of others are believed.
    since: AtomicU64,
}

impl Lately {
    pub fn new(now: UnixMs) -> Lately {
        Lately {
            slots: (0..SLOT_COUNT).map(|_| AtomicU64::new(0)).collect(),
            began: Instant::now(),
            generation: AtomicU64::new(0),
            since: AtomicU64::new(now),
        }
    }

    /// To be taken before something is appended, and entered with.
    pub fn generation(&self) -> Generation {
        Generation(self.generation.load(Ordering::Acquire))
    }

    /// The slot of an encoded request, and its tag in place.
    fn place(&self, Generation(generation): Generation, record: &[u8]) -> (&AtomicU64, u64) {
        let mut hash = generation;
        for word in record::identity(record).chunks_exact(8) {
            hash ^= u64::from_le_bytes(word.try_into().expect("eight bytes"));
            hash = (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        }
        // The slot is told by the lower bits, the tag by the upper ones.
        let tag = hash & !TICK_MASK;
        (&self.slots[hash as usize % SLOT_COUNT], if tag == 0 { !TICK_MASK } else { tag })
    }

    fn tick(&self) -> u64 {
        (self.began.elapsed().as_millis() as u64 / TICK_MS) & TICK_MASK
    }

    /// These were appended, on connections of that generation.
    pub fn enter<'r>(&self, generation: Generation, records: impl Iterator<Item = &'r [u8]>) {
        let tick = self.tick();
        for record in records {
            let (slot, tag) = self.place(generation, record);
            slot.store(tag | tick, Ordering::Relaxed);
        }
    }

    /// How long ago this one was appended, if that is known.
    pub fn age_ms(&self, record: &[u8]) -> Option<u64> {
        let (slot, tag) = self.place(self.generation(), record);
        let held = slot.load(Ordering::Relaxed);
        (held & !TICK_MASK == tag).then(|| (self.tick().wrapping_sub(held) & TICK_MASK) * TICK_MS)
    }

    /// Whether a note from then tells of what must still be there.
    pub fn believes(&self, noted_at: UnixMs) -> bool {
        noted_at >= self.since.load(Ordering::Acquire)
    }

    /// A connection was made anew: nothing is known, and what others noted until now may be lost. `now` is when this was
    /// noticed.
    pub fn forget(&self, now: UnixMs) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.since.fetch_max(now.saturating_add(CLOCKS_APART_MS), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Stamper;
    use crate::domain::{Amount, Currency, Kind, Request};

    fn encoded(id: &str, amount: u64) -> Vec<u8> {
        let (amount, currency) = (Amount::new(amount).unwrap(), Currency::parse("CNY").unwrap());
        Stamper::default().encode(Request::new(Kind::Disbursement, "s", id, "c", amount, currency))
    }

    #[test]
    fn what_was_appended_is_known_until_the_connection_is_another() {
        let lately = Lately::new(1_000);
        let records: Vec<Vec<u8>> = (0..500).map(|n| encoded(&format!("r-{n}"), 5)).collect();
        let first = lately.generation();
        lately.enter(first, records.iter().map(Vec::as_slice));
        let known = |lately: &Lately| {
            records.iter().filter(|record| lately.age_ms(record).is_some_and(|age| age < 10_000)).count()
        };
        assert!(known(&lately) > 490, "few share a slot: {}", known(&lately));
        assert_eq!(lately.age_ms(&encoded("r-1", 6)), None, "another body");
        assert_eq!(lately.age_ms(&encoded("r-500", 5)), None, "another id");
        assert!(lately.believes(1_000) && !lately.believes(999));
        lately.forget(2_000);
        assert_eq!(known(&lately), 0);
        // Another thread notices it with a clock read before.
        lately.forget(1_500);
        assert!(lately.believes(3_000) && !lately.believes(2_999));
        lately.enter(first, std::iter::once(records[0].as_slice()));
        assert_eq!(known(&lately), 0, "confirmed on a connection that is gone");
        lately.enter(lately.generation(), std::iter::once(records[0].as_slice()));
        assert_eq!(known(&lately), 1);
    }
}
