//! When a beat comes before its time, so that a share of the budget moves within one: who has too little asks again soon,
//! who has more than it should by what the board shows now gives it back soon, and who had asked for little and finds
//! more to do says so.
//!
//! What holds: only where the budget is spoken for, as else there is enough for all; a few beats for one change, however
//! long a share takes to come. Absent: what a fair share is ([`super::report`]).

use super::{Governor, MS};
use crate::shaping::Amount;

/// Between two beats, the second of which is before its time.
const HASTE_NS: u64 = 25 * MS;
/// Beats before their time, one after the other, for a share that does not come.
const HASTY_BEATS_MAX: u32 = 6;
/// The part of a share that is worth a beat.
const WORTH_PART: u64 = 8;

#[derive(Clone, Copy, Debug, Default)]
pub struct Haste {
    /// The demand that was told last.
    told: Amount,
    due_at_ns: Option<u64>,
    beats: u32,
}

/// Whether one has so much less than the other that a beat is worth it.
fn is_short(has: u64, of: u64) -> bool {
    has.saturating_add((of / WORTH_PART).max(1)) < of
}

impl Haste {
    pub fn due_at_ns(&self) -> Option<u64> {
        self.due_at_ns
    }

    pub fn told(&mut self, demand: Amount) {
        (self.told, self.due_at_ns) = (demand, None);
    }
}

impl Governor {
    /// The board has granted so much, and shows what it shows.
    pub(super) fn hurry(&mut self, now_ns: u64, granted: Amount) {
        let Some((share, spare)) = self.fair(now_ns, self.haste.told) else { return };
        let moves = |granted: u64, share: u64, spare: u64| {
            spare == 0 && (is_short(granted, share) || is_short(share, granted))
        };
        let is_moving = moves(granted.rate_per_s, share.rate_per_s, spare.rate_per_s)
            || moves(granted.calls, share.calls, spare.calls);
        self.haste.beats = if is_moving { self.haste.beats + 1 } else { 0 };
        if is_moving && self.haste.beats <= HASTY_BEATS_MAX {
            self.haste.due_at_ns = Some(now_ns.max(self.last_beat_ns() + HASTE_NS));
        }
    }

    /// Something waits until then for its part of the rate: with a demand told that what is held would do for, the fleet
    /// does not know.
    pub(super) fn note_paced(&mut self, now_ns: u64, until_ns: u64) {
        let since_ns = now_ns.saturating_sub(self.last_beat_ns());
        let is_known = self.haste.told.rate_per_s > self.allowed(now_ns).rate_per_s;
        let is_long = until_ns.saturating_sub(now_ns) >= HASTE_NS;
        self.wants_beat |= is_long && !is_known && since_ns >= HASTE_NS && self.holder.fleet() > 1;
    }
}
