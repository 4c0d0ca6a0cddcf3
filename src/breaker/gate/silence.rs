//! A wallet that takes calls and answers none: noticed long before the calls' deadline, which may be many seconds.
//!
//! What counts is that nothing at all comes back: a wallet that is slower, or has a queue, goes on answering. Silence is what
//! was looked at: an instance that was frozen itself, or whose machine gave it no time, does not blame the wallet for it.
//! The calls that wait then count as timed out, once; whether that is enough to stop is the vote's to say. Absent: clocks.

use std::collections::BTreeMap;

use super::MS;

/// Silence is at least so long, and so many times the slowest answer of late.
const SILENCE_NS_MIN: u64 = 500 * MS;
const SLOWEST_FACTOR: u64 = 4;
/// The slowest is that of the last one to two such spans.
const SPAN_NS: u64 = 10_000 * MS;
/// Between two looks no more than this is counted as silence.
const LOOK_NS_MAX: u64 = 100 * MS;

/// Calls that were sent at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    calls: u64,
    transfers: u64,
    is_blamed: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Silence {
    /// Under way, by when they were sent.
    under_way: BTreeMap<u64, Group>,
    silent_ns: u64,
    looked_at_ns: u64,
    slowest_ns: [u64; 2],
    span_at_ns: u64,
}

impl Silence {
    pub fn sent(&mut self, now_ns: u64, transfers: u64) {
        if self.under_way.is_empty() {
            (self.silent_ns, self.looked_at_ns) = (0, now_ns);
        }
        let group = self.under_way.entry(now_ns).or_default();
        (group.calls, group.transfers) = (group.calls + 1, group.transfers + transfers);
    }

    /// Fewer were sent than was said.
    pub fn shrunk(&mut self, sent_at_ns: u64, unsent: u64) {
        if let Some(group) = self.under_way.get_mut(&sent_at_ns) {
            group.transfers = group.transfers.saturating_sub(unsent);
        }
    }

    /// One of those sent then is under way no more; answers whether it was counted as timed out.
    pub fn ended(&mut self, sent_at_ns: u64) -> bool {
        let Some(group) = self.under_way.get_mut(&sent_at_ns) else { return false };
        let was_blamed = group.is_blamed;
        group.transfers -= group.transfers / group.calls;
        group.calls -= 1;
        if group.calls == 0 {
            self.under_way.remove(&sent_at_ns);
        }
        was_blamed
    }

    /// Something came back; of what was decided, after how long.
    pub fn heard(&mut self, now_ns: u64, decided_after_ns: Option<u64>) {
        (self.silent_ns, self.looked_at_ns) = (0, now_ns);
        if now_ns >= self.span_at_ns + SPAN_NS {
            (self.span_at_ns, self.slowest_ns) = (now_ns, [0, self.slowest_ns[0]]);
        }
        self.slowest_ns[0] = self.slowest_ns[0].max(decided_after_ns.unwrap_or(0));
    }

    /// The transfers of each call that is to count as timed out from now on.
    pub fn look(&mut self, now_ns: u64) -> Vec<u64> {
        let passed_ns = now_ns.saturating_sub(std::mem::replace(&mut self.looked_at_ns, now_ns));
        self.silent_ns += passed_ns.min(LOOK_NS_MAX);
        let slowest_ns = self.slowest_ns[0].max(self.slowest_ns[1]);
        let bound_ns = SILENCE_NS_MIN.max(slowest_ns.saturating_mul(SLOWEST_FACTOR));
        if self.under_way.is_empty() || self.silent_ns < bound_ns {
            return Vec::new();
        }
        let waiting = self.under_way.range_mut(..=now_ns.saturating_sub(bound_ns / 2));
        let unblamed = waiting.map(|(_, group)| group).filter(|group| !group.is_blamed);
        unblamed
            .flat_map(|group| {
                group.is_blamed = true;
                (0..group.calls).map(|_| (group.transfers / group.calls).max(1))
            })
            .collect()
    }

    /// Another epoch: what is under way says nothing about it.
    pub fn forget(&mut self) {
        (self.under_way, self.silent_ns) = Default::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every 20 ms from the first time to the second; when calls were blamed first, ms, and how many.
    fn watch(silence: &mut Silence, from_ms: u64, to_ms: u64) -> Option<(u64, usize)> {
        (from_ms..=to_ms).step_by(20).find_map(|ms| {
            let blamed = silence.look(ms * MS).len();
            (blamed > 0).then_some((ms, blamed))
        })
    }

    #[test]
    fn only_what_nobody_answers_is_silence() {
        // Answers of so many ms before; sent when and with which pause an answer comes all the same; blamed when.
        let table: [(u64, Option<u64>, Option<u64>); 6] = [
            (5, None, Some(1_500)),
            (100, None, Some(1_500)),
            (400, None, Some(2_600)),
            (5, Some(400), None),
            // Slower by a factor of three, one at a time.
            (300, Some(900), None),
            (1_000, Some(3_000), None),
        ];
        for (took_ms, answered_each_ms, expected) in table {
            let mut silence = Silence::default();
            silence.heard(900 * MS, Some(took_ms * MS));
            (0..4).for_each(|at| silence.sent((1_000 + at) * MS, 10));
            let mut blamed = None;
            for ms in (1_000..9_000).step_by(20) {
                if answered_each_ms.is_some_and(|each| (ms - 1_000) % each < 20 && ms > 1_000) {
                    silence.heard(ms * MS, None);
                }
                blamed = blamed.or(watch(&mut silence, ms, ms));
            }
            assert_eq!(blamed.map(|(ms, _)| ms), expected, "{took_ms} ms usually, then {answered_each_ms:?}");
            assert!(blamed.is_none_or(|(_, calls)| calls == 4));
        }
    }

    #[test]
    fn who_was_frozen_itself_does_not_blame_the_wallet() {
        let mut silence = Silence::default();
        silence.sent(1_000 * MS, 10);
        assert_eq!(watch(&mut silence, 1_000, 1_300), None);
        assert_eq!(watch(&mut silence, 61_300, 61_380), None, "a minute that it did not see");
        assert!(!silence.ended(1_000 * MS));
        silence.sent(70_000 * MS, 10);
        assert_eq!(watch(&mut silence, 70_000, 71_000), Some((70_500, 1)), "and then it counts anew");
        assert!(silence.ended(70_000 * MS), "once");
        assert_eq!(watch(&mut silence, 71_000, 99_000), None, "nothing is under way");
    }
}
