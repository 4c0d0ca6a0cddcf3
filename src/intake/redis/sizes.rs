//! What is known of the bytes of a list before it is read, and so in which way to read it. Pure.
//!
//! A reply of `LRANGE` has as many bytes as its elements, and nothing in Redis tells how many those are. But the bytes
//! of a generation as a whole are told with its length, and nobody else touches it. What holds: a generation that is
//! small as a whole is read without more ado, which is what a short queue costs. Of a large one about as much must be
//! left as its elements of late make one expect; if more is, large ones are somewhere ahead, and until they are found
//! it is read by a script that adds up bytes and stops, as is every list whose elements nobody has seen, or whose last
//! read failed. Only what lies between two [probes](super::credit::PROBE_STRIDE) of a large generation that has the
//! bytes it should have is read on trust. (A server with `list-compress-depth` tells fewer bytes than there are.)

use super::seal::NODES_LOOKED_AT;
use super::window::Side;

/// Elements that must have been seen before a large generation is read on trust.
const SEEN_MIN: u64 = 16;

/// How to read what is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// All that is left comes to no more than one reply may have.
    Known,
    /// It probably has what elements of late had; probed ahead.
    Trusted,
    /// Nobody knows.
    Scanned,
}

#[derive(Clone, Copy, Debug)]
struct Total {
    unread_bytes: u64,
    is_exact: bool,
}

/// Of one list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    totals: [Option<Total>; 2],
    /// Of late: the older, the less it counts.
    seen_count: u64,
    seen_bytes: u64,
    has_failed: bool,
}

impl Sizes {
    /// A generation has so many elements and bytes (0: that is not known), read ones included.
    pub fn note_total(&mut self, side: Side, count: u64, bytes: u64) {
        let total = Total { unread_bytes: bytes, is_exact: count <= NODES_LOOKED_AT };
        self.totals[side as usize] = (bytes > 0).then_some(total);
    }

    /// There is something in it that was not counted.
    pub fn forget(&mut self, side: Side) {
        self.totals[side as usize] = None;
    }

    /// So many elements with so many bytes were read of it.
    pub fn note_read(&mut self, side: Side, count: u64, bytes: u64) {
        let fade = |number: &mut u64, more: u64| *number = *number - number.div_ceil(4) + more;
        fade(&mut self.seen_count, count);
        fade(&mut self.seen_bytes, bytes);
        self.has_failed = false;
        if let Some(total) = &mut self.totals[side as usize] {
            total.unread_bytes = total.unread_bytes.saturating_sub(bytes);
        }
    }

    /// What was asked for did not come.
    pub fn note_failed(&mut self) {
        self.has_failed = true;
    }

    /// How to read a generation of which `unread` elements are left, with no more than `bytes_max` unforeseen.
    pub fn manner(&self, side: Side, unread: u64, bytes_max: u64) -> Manner {
        let Some(total) = self.totals[side as usize].filter(|_| !self.has_failed) else {
            return Manner::Scanned;
        };
        if total.is_exact && total.unread_bytes <= bytes_max {
            return Manner::Known;
        }
        let mean = self.seen_bytes.checked_div(self.seen_count).unwrap_or(0);
        // Redis needs some for itself.
        let expected = unread.saturating_mul(mean + mean / 8 + 16);
        let excess = total.unread_bytes.saturating_sub(expected);
        let is_as_expected = excess <= bytes_max.max(total.unread_bytes / 4);
        if self.seen_count >= SEEN_MIN && is_as_expected { Manner::Trusted } else { Manner::Scanned }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    /// A list of which `seen` elements of 200 bytes were read, and then a generation of so many elements and bytes.
    fn manner(seen: u64, count: u64, bytes: u64) -> Manner {
        let mut sizes = Sizes::default();
        sizes.note_total(Side::B, seen, seen * 206);
        sizes.note_read(Side::B, seen, seen * 200);
        sizes.note_total(Side::A, count, bytes);
        sizes.manner(Side::A, count, 8 * MB)
    }

    #[test]
    fn what_may_be_large_is_scanned() {
        let table = [
            ("small as a whole", 0, 1_000, MB, Manner::Known),
            ("large, and nothing was seen", 0, 1_000_000, 200 * MB, Manner::Scanned),
            ("small, by an estimate only", 0, 100_000, MB, Manner::Scanned),
            ("deep, as it was before", 512, 5_000_000, 5_000_000 * 206, Manner::Trusted),
            ("deep, with a few large ones", 512, 5_000_120, 5_000_120 * 206 + 120 * 12 * MB, Manner::Scanned),
            ("a few large ones only", 512, 120, 120 * 12 * MB, Manner::Scanned),
            ("not told", 512, 100, 0, Manner::Scanned),
        ];
        for (name, seen, count, bytes, expected) in table {
            assert_eq!(manner(seen, count, bytes), expected, "{name}");
        }
    }

    #[test]
    fn what_was_read_or_added_changes_what_is_left() {
        let mut sizes = Sizes::default();
        sizes.note_total(Side::A, 1_016, 20 * MB);
        assert_eq!(sizes.manner(Side::A, 1_016, 8 * MB), Manner::Scanned);
        sizes.note_read(Side::A, 16, 13 * MB);
        assert_eq!(sizes.manner(Side::A, 1_000, 8 * MB), Manner::Known);
        sizes.note_failed();
        assert_eq!(sizes.manner(Side::A, 1_000, 8 * MB), Manner::Scanned);
        sizes.note_read(Side::A, 1, 200);
        assert_eq!(sizes.manner(Side::A, 999, 8 * MB), Manner::Known);
        sizes.forget(Side::A);
        assert_eq!(sizes.manner(Side::A, 1_000, 8 * MB), Manner::Scanned);
    }
}
