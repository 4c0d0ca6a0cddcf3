//! When a parked request is tried again: backoff with jitter, a cap, and a deadline. Pure.

use crate::domain::UnixMs;

/// What was not tried is looked at again at least so often.
const UNTRIED_MS_MAX: u64 = 60_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    pub first_ms: u64,
    pub ms_max: u64,
}

impl Retry {
    /// The time of the next attempt after `attempts` earlier ones. The wait doubles with each up to the cap; up to a
    /// quarter of it is left off, by a hash of the request's place, so that what was parked together does not come
    /// back together for ever.
    pub fn at(self, now: UnixMs, attempts: u32, place: u64) -> UnixMs {
        let whole = self.first_ms.saturating_mul(1 << attempts.min(32)).min(self.ms_max);
        // The finalizer of splitmix64 (Steele et al. 2014).
        let mut hash = place ^ u64::from(attempts) << 48;
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        now + whole - hash % (whole / 4 + 1)
    }

    /// The time at which to look again at a request that was not tried, for others are in its way: about as long as it
    /// has waited since it was accepted (zero: not known) and might go, up to the cap and a minute at most. So a long
    /// queue of such costs few looks each, and none is forgotten once the way is free.
    pub fn untried(self, now: UnixMs, accepted_at: UnixMs, not_before: UnixMs, place: u64) -> UnixMs {
        let from = accepted_at.max(not_before);
        let waited = if from == 0 { 0 } else { now.saturating_sub(from) };
        let waits = waited / self.first_ms.max(1);
        let retry = Retry { ms_max: self.ms_max.min(UNTRIED_MS_MAX), ..self };
        retry.at(now, waits.checked_ilog2().unwrap_or(0), place)
    }
}

/// The time at which to look again: not slept past the first moment at which the request has expired. One that has
/// expired already is being burned, and keeps its backoff.
pub fn within(not_after: UnixMs, at: UnixMs, now: UnixMs) -> UnixMs {
    if not_after == 0 || not_after < now { at } else { at.min(not_after + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_tried_waits_as_long_again_as_it_has() {
        let table = [(0, 1_000), (1_500, 1_000), (2_000, 2_000), (9_000, 8_000), (86_400_000, 60_000)];
        for ((waited, whole), ms_max) in table.into_iter().flat_map(|row| [(row, 60_000), (row, 3_600_000)]) {
            let retry = Retry { first_ms: 1_000, ms_max };
            // Accepted then, or a day before and due then.
            for (accepted_at, not_before) in [(100_000_000, 0), (13_600_000, 100_000_000)] {
                let now = 100_000_000 + waited;
                let wait = retry.untried(now, accepted_at, not_before, 96) - now;
                assert!((whole * 3 / 4..=whole).contains(&wait), "{waited} of {ms_max}: {wait}");
            }
        }
    }

    #[test]
    fn waits_double_up_to_the_cap_less_a_quarter() {
        let retry = Retry { first_ms: 1_000, ms_max: 60_000 };
        let table = [(0, 1_000), (1, 2_000), (5, 32_000), (6, 60_000), (31, 60_000), (u32::MAX, 60_000)];
        for (attempts, whole) in table {
            let waits: Vec<u64> = (0..1_000).map(|n| retry.at(7, attempts, n * 96) - 7).collect();
            let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
            assert!(*least >= whole * 3 / 4 && *most <= whole, "{attempts}: {least} to {most}");
            assert!(most - least > whole / 5, "{attempts}: spread over {least} to {most}");
        }
        assert_eq!(retry.at(7, 2, 96), retry.at(7, 2, 96), "the same for the same");
        assert_eq!(Retry { first_ms: 1, ms_max: 1 }.at(7, 9, 96), 8);
        let longest = Retry { first_ms: 86_400_000, ms_max: 86_400_000 };
        assert!((64_800_000..=86_400_000).contains(&longest.at(0, u32::MAX, 5)));
    }

    #[test]
    fn nobody_sleeps_past_not_after() {
        // not_after, at, expected; the clock stands at 100.
        let table = [(0, 500, 500), (300, 500, 301), (300, 200, 200), (100, 500, 101), (99, 500, 500)];
        for (not_after, at, expected) in table {
            assert_eq!(within(not_after, at, 100), expected, "{not_after} {at}");
        }
    }
}
