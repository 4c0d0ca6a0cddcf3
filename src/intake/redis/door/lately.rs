//! What this instance appended lately, so that a repeat of it needs no second append.
//!
//! A table of fixed size with a word a request: a tag of its identity, and when. A newer one may take an older one's
//! place, and then a repeat is appended once more, which is harmless; that something is here which was not appended,
//! nobody sees. What holds: only what Redis has confirmed is entered, with the shard it was appended to; and what is known
//! of a shard is given up when another connection leads to it or none does, because the server behind the next one
//! may have lost it. So each is entered with a [`Moment`] from before it was appended, and stands for nothing unless that is
//! later than when the shard's were given up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::domain::{UnixMs, record};
use crate::intake::redis::UnitId;
use crate::intake::redis::units::SHARD_COUNT_MAX;

const SLOT_COUNT: usize = 1 << 18;
/// Of a word, from below: when, in ticks since the start; the shard; the rest is the tag.
const TICK_BITS: u32 = 24;
const TICK_MASK: u64 = (1 << TICK_BITS) - 1;
const SHARD_MASK: u64 = SHARD_COUNT_MAX as u64 - 1;
const TAG_MASK: u64 = !(SHARD_MASK << TICK_BITS | TICK_MASK);
const _: () = assert!(SHARD_COUNT_MAX.is_power_of_two(), "a number of bits tells all shards apart");
/// Twelve days go by before a tick comes again; what is older than six is taken out when half of that has gone by since it was done
/// last, so that nothing is taken for younger than it is.
const TICK_MS: u64 = 64;
const SWEPT_TICKS: u64 = 1 << (TICK_BITS - 2);

/// Clocks of instances may be apart by so much.
const CLOCKS_APART_MS: u64 = 1_000;

/// When something began, in ticks since the start. The first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(u64);

/// Since when notes of a shard are believed.
struct Since {
    /// Our own, if from later than this tick.
    tick: AtomicU64,
    /// Those of others, in Unix ms.
    others: AtomicU64,
}

pub struct Lately {
    slots: Box<[AtomicU64]>,
    began: Instant,
    /// By now, in [`SWEPT_TICKS`].
    swept: AtomicU64,
    shards: Box<[Since]>,
}

impl Lately {
    pub fn new(now: UnixMs, shard_count: u16) -> Lately {
        assert!(shard_count <= SHARD_COUNT_MAX, "the settings allow no more");
        let since = |_| Since { tick: AtomicU64::new(0), others: AtomicU64::new(now) };
        Lately {
            slots: (0..SLOT_COUNT).map(|_| AtomicU64::new(0)).collect(),
            began: Instant::now(),
            swept: AtomicU64::new(0),
            shards: (0..shard_count).map(since).collect(),
        }
    }

    /// To be taken before something is appended, and entered with.
    pub fn moment(&self) -> Moment {
        let now = self.began.elapsed().as_millis() as u64 / TICK_MS + 1;
        self.sweep(now);
        Moment(now)
    }

    /// Takes out what is old, once in a while.
    fn sweep(&self, now: u64) {
        let round = now / SWEPT_TICKS;
        let before = self.swept.fetch_max(round, Ordering::Relaxed);
        if before >= round {
            return;
        }
        for slot in &self.slots {
            let held = slot.load(Ordering::Relaxed);
            let is_old = round - before > 1 || now.wrapping_sub(held) & TICK_MASK >= 2 * SWEPT_TICKS;
            if held != 0 && is_old {
                // Somebody else's is newer.
                let _ = slot.compare_exchange(held, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }

    /// The slot of an encoded request, and its tag in place.
    fn place(&self, record: &[u8]) -> (&AtomicU64, u64) {
        let mut hash = 0;
        for word in record::identity(record).chunks_exact(8) {
            hash ^= u64::from_le_bytes(word.try_into().expect("eight bytes"));
            hash = (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        }
        // The slot is told by the lower bits, the tag by the upper ones.
        let tag = hash & TAG_MASK;
        (&self.slots[hash as usize % SLOT_COUNT], if tag == 0 { TAG_MASK } else { tag })
    }

    /// These were appended, each to its shard, not before `began`.
    pub fn enter<'r>(&self, Moment(tick): Moment, appended: impl Iterator<Item = (UnitId, &'r [u8])>) {
        for (shard, record) in appended {
            let (slot, tag) = self.place(record);
            slot.store(tag | u64::from(shard.0) << TICK_BITS | tick & TICK_MASK, Ordering::Relaxed);
        }
    }

    /// How long ago this one was appended, if that is known.
    pub fn age_ms(&self, record: &[u8]) -> Option<u64> {
        // First of all, as it takes out what is too old to be told from new.
        let Moment(now) = self.moment();
        let (slot, tag) = self.place(record);
        let held = slot.load(Ordering::Relaxed);
        if held & TAG_MASK != tag {
            return None;
        }
        let age = now.wrapping_sub(held) & TICK_MASK;
        let since = self.shards.get((held >> TICK_BITS & SHARD_MASK) as usize)?;
        let is_believed = now.saturating_sub(age) > since.tick.load(Ordering::Acquire);
        is_believed.then_some(age * TICK_MS)
    }

    /// Whether a note from then, of what was appended to this shard, tells of what must still be there.
    pub fn believes(&self, shard: UnitId, noted_at: UnixMs) -> bool {
        let since = self.shards.get(usize::from(shard.0));
        since.is_some_and(|since| noted_at >= since.others.load(Ordering::Acquire))
    }

    /// Another connection leads to this shard, or none: nothing is known of it, and what others noted until now may be
    /// lost. `now` is when this was noticed.
    pub fn forget(&self, shard: UnitId, now: UnixMs) {
        let Some(since) = self.shards.get(usize::from(shard.0)) else { return };
        since.tick.fetch_max(self.moment().0, Ordering::AcqRel);
        since.others.fetch_max(now.saturating_add(CLOCKS_APART_MS), Ordering::AcqRel);
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
    fn what_was_appended_is_known_until_another_connection_leads_to_its_shard() {
        let lately = Lately::new(1_000, 2);
        let [zero, one] = [UnitId(0), UnitId(1)];
        let records: Vec<Vec<u8>> = (0..500).map(|n| encoded(&format!("r-{n}"), 5)).collect();
        let first = lately.moment();
        let shard = |n: usize| UnitId(n as u16 % 2);
        lately.enter(first, records.iter().enumerate().map(|(n, record)| (shard(n), record.as_slice())));
        let known = |of: UnitId| {
            let of = records.iter().enumerate().filter(|(n, _)| shard(*n) == of);
            of.filter(|(_, record)| lately.age_ms(record).is_some_and(|age| age < 10_000)).count()
        };
        assert!(known(zero) > 245 && known(one) > 245, "few share a slot: {} {}", known(zero), known(one));
        assert_eq!(lately.age_ms(&encoded("r-1", 6)), None, "another body");
        assert_eq!(lately.age_ms(&encoded("r-500", 5)), None, "another id");
        assert!(lately.believes(zero, 1_000) && !lately.believes(zero, 999));
        lately.forget(zero, 2_000);
        assert!(known(zero) == 0 && known(one) > 245, "{} {}", known(zero), known(one));
        // Another thread notices it with a clock read before.
        lately.forget(zero, 1_500);
        assert!(lately.believes(zero, 3_000) && !lately.believes(zero, 2_999) && lately.believes(one, 1_000));
        let enter = |moment| lately.enter(moment, std::iter::once((zero, records[0].as_slice())));
        enter(first);
        assert_eq!(known(zero), 0, "appended before it was gone");
        let mut moment = lately.moment();
        while moment.0 <= lately.shards[0].tick.load(Ordering::Acquire) {
            std::thread::yield_now();
            moment = lately.moment();
        }
        enter(moment);
        assert_eq!(known(zero), 1);
    }

    #[test]
    fn what_is_old_is_taken_out_before_its_tick_comes_again() {
        let record = encoded("r", 5);
        // Entered when, looked at when: whether it is there
        let table = [
            (vec![1, SWEPT_TICKS], true),
            (vec![1, SWEPT_TICKS, 2 * SWEPT_TICKS], true),
            (vec![1, SWEPT_TICKS, 2 * SWEPT_TICKS + 1], false),
            (vec![1, SWEPT_TICKS, 2 * SWEPT_TICKS, 3 * SWEPT_TICKS], false),
            (vec![SWEPT_TICKS + 9, 2 * SWEPT_TICKS, 3 * SWEPT_TICKS, 4 * SWEPT_TICKS], false),
            // Nobody looked for so long that nothing can be said of its age.
            (vec![1, 2 * SWEPT_TICKS], false),
            (vec![5, TICK_MASK + 6], false),
        ];
        for (row, (ticks, expected)) in table.into_iter().enumerate() {
            let lately = Lately::new(0, 1);
            lately.sweep(ticks[0]);
            lately.enter(Moment(ticks[0]), std::iter::once((UnitId(0), record.as_slice())));
            ticks[1..].iter().for_each(|tick| lately.sweep(*tick));
            assert_eq!(lately.place(&record).0.load(Ordering::Relaxed) != 0, expected, "row {row}");
        }
    }
}
