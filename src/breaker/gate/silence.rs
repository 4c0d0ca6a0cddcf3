//! A wallet that takes calls and answers none: noticed long before the calls' deadline, which may be many seconds.
//!
//! What counts is that nothing at all comes back: a wallet that is slower, or has a queue, goes on answering. Silence is what
//! was looked at: an instance that was frozen itself, or whose machine gave it no time, does not blame the wallet for it.
//! The calls that wait then count as timed out, once; whether that is enough to stop is the vote's to say. How slow the wallet
//! is, every call that it decided tells, also one from before the stop: else one that has become slower would be stopped for
//! each time that it is tried. Absent: clocks.

use std::collections::BTreeMap;

use super::MS;

/// Silence is at least so long, and so many times the slowest answer of late.
const SILENCE_NS_MIN: u64 = 500 * MS;
const SLOWEST_FACTOR: u64 = 4;
/// Before any answer it is this part of the deadline, and at most so long: a wallet that is dead from the start is found, too.
const UNKNOWN_PART: u64 = 4;
const UNKNOWN_NS_MAX: u64 = 2_000 * MS;
/// The slowest is that of the last one to two such spans.
const SPAN_NS: u64 = 10_000 * MS;
/// Between two looks no more than this is counted as silence.
const LOOK_NS_MAX: u64 = 100 * MS;

/// Calls that were sent at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    calls: u64,
    transfers: u64,
    blamed_at_ns: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub struct Silence {
    /// Under way, by when they were sent.
    under_way: BTreeMap<u64, Group>,
    silent_ns: u64,
    looked_at_ns: u64,
    slowest_ns: [u64; 2],
    span_at_ns: u64,
    /// The slowest of those that are not of this epoch's pace, until one of these has been decided: what was held up in an
    /// outage is soon forgotten.
    others_slowest_ns: u64,
    unknown_ns: u64,
    replied_at_ns: u64,
}

impl Silence {
    /// A call's deadline, which says how slow the wallet may be.
    pub fn set_deadline(&mut self, deadline_ns: u64) {
        self.unknown_ns = (deadline_ns / UNKNOWN_PART).min(UNKNOWN_NS_MAX);
    }

    pub fn sent(&mut self, now_ns: u64, transfers: u64) {
        // Those that were blamed are the oldest.
        if self.under_way.last_key_value().is_none_or(|(_, group)| group.blamed_at_ns.is_some()) {
            self.begin(now_ns);
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

    /// One of those sent then is under way no more; answers when it was counted as timed out, if it was.
    pub fn ended(&mut self, sent_at_ns: u64) -> Option<u64> {
        let group = self.under_way.get_mut(&sent_at_ns)?;
        let blamed_at_ns = group.blamed_at_ns;
        group.transfers -= group.transfers / group.calls;
        group.calls -= 1;
        if group.calls == 0 {
            self.under_way.remove(&sent_at_ns);
        }
        blamed_at_ns
    }

    /// There is none from here on; a time that was taken earlier, on another thread, sets nothing back.
    fn begin(&mut self, now_ns: u64) {
        (self.silent_ns, self.looked_at_ns) = (0, self.looked_at_ns.max(now_ns));
    }

    /// Something came back; of what was decided, after how long.
    pub fn heard(&mut self, now_ns: u64, decided_after_ns: Option<u64>) {
        self.begin(now_ns);
        if now_ns >= self.span_at_ns + SPAN_NS {
            (self.span_at_ns, self.slowest_ns) = (now_ns, [0, self.slowest_ns[0]]);
        }
        if let Some(took_ns) = decided_after_ns {
            self.slowest_ns[0] = self.slowest_ns[0].max(took_ns);
            self.others_slowest_ns = 0;
        }
    }

    /// One that is not of this epoch's pace was decided after so long.
    pub fn learn(&mut self, took_ns: u64) {
        self.others_slowest_ns = self.others_slowest_ns.max(took_ns);
    }

    /// When something came back last, though nobody may have read it yet.
    pub fn replied(&mut self, at_ns: u64) {
        if at_ns != self.replied_at_ns {
            self.replied_at_ns = at_ns;
            self.begin(at_ns);
        }
    }

    fn bound_ns(&self) -> u64 {
        let slowest_ns = self.slowest_ns[0].max(self.slowest_ns[1]).max(self.others_slowest_ns);
        let usual_ns =
            if slowest_ns == 0 { self.unknown_ns } else { slowest_ns.saturating_mul(SLOWEST_FACTOR) };
        usual_ns.max(SILENCE_NS_MIN)
    }

    /// The transfers of each call that is to count as timed out from now on.
    pub fn look(&mut self, now_ns: u64) -> Vec<u64> {
        let passed_ns = now_ns.saturating_sub(self.looked_at_ns);
        self.looked_at_ns = self.looked_at_ns.max(now_ns);
        self.silent_ns += passed_ns.min(LOOK_NS_MAX);
        let bound_ns = self.bound_ns();
        if self.under_way.is_empty() || self.silent_ns < bound_ns {
            return Vec::new();
        }
        let waiting = self.under_way.range_mut(..=now_ns.saturating_sub(bound_ns / 2));
        let unblamed = waiting.map(|(_, group)| group).filter(|group| group.blamed_at_ns.is_none());
        unblamed
            .flat_map(|group| {
                group.blamed_at_ns = Some(now_ns);
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
        assert_eq!(silence.ended(1_000 * MS), None);
        silence.sent(70_000 * MS, 10);
        assert_eq!(watch(&mut silence, 70_000, 71_000), Some((70_500, 1)), "and then it counts anew");
        assert_eq!(silence.ended(70_000 * MS), Some(70_500 * MS), "once");
        assert_eq!(watch(&mut silence, 71_000, 99_000), None, "nothing is under way");
    }

    #[test]
    fn before_any_answer_the_deadline_says_how_slow_it_may_be() {
        for (deadline_ms, blamed_ms) in [(0, 500), (1_000, 500), (3_200, 800), (60_000, 2_000)] {
            let mut silence = Silence::default();
            silence.set_deadline(deadline_ms * MS);
            silence.sent(20_000 * MS, 1);
            let blamed = watch(&mut silence, 20_000, 29_000);
            assert_eq!(blamed, Some((20_000 + blamed_ms, 1)), "{deadline_ms}");
        }
    }

    #[test]
    fn what_an_outage_held_up_is_believed_until_one_of_the_pace_is_decided() {
        let mut silence = Silence::default();
        silence.learn(700 * MS);
        silence.sent(20_000 * MS, 1);
        assert_eq!(watch(&mut silence, 20_000, 22_780), None);
        silence.heard(22_790 * MS, Some(5 * MS));
        silence.ended(20_000 * MS);
        silence.sent(23_000 * MS, 1);
        assert_eq!(watch(&mut silence, 23_000, 29_000), Some((23_500, 1)));
    }

    #[test]
    fn what_is_sent_after_all_were_blamed_has_the_whole_of_the_patience() {
        let mut silence = Silence::default();
        silence.sent(1_000 * MS, 1);
        assert_eq!(watch(&mut silence, 1_000, 3_000), Some((1_500, 1)));
        assert_eq!(watch(&mut silence, 1_520, 3_000), None);
        silence.sent(3_000 * MS, 1);
        assert_eq!(watch(&mut silence, 3_000, 9_000), Some((3_500, 1)));
    }

    #[test]
    fn a_time_that_was_taken_earlier_adds_no_silence() {
        let mut silence = Silence::default();
        silence.sent(1_000 * MS, 1);
        for ms in (1_000..1_480).step_by(20) {
            silence.look(ms * MS);
            silence.heard((ms - 90) * MS, None);
            silence.look((ms - 90) * MS);
        }
        silence.heard(1_480 * MS, None);
        for ms in (1_480..1_980).step_by(20) {
            assert!(silence.look(ms * MS).is_empty(), "{ms}");
            assert!(silence.look((ms - 90) * MS).is_empty(), "{ms}");
        }
        assert_eq!(silence.look(1_980 * MS), [1]);
    }
}
