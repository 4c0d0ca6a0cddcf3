//! What the breaker has decided about the time to come, for whoever forecasts when work will be done.
//!
//! What holds: while it is open the time told is the time until it is tried again, which the policy doubles with each
//! failure, and no less than half of the longest of these: what opens a breaker is seldom over at the first try. Past twice the
//! longest the outage is taken to last as long again as it did beyond that; so is what an operator opened. Half open it is not known
//! to be down, and where there is nothing to try it with the next request is what it waits for.

use super::super::board::{View, Workload};
use super::super::policy::{NEVER_MS, Phase};
use super::{Governor, MS};
use crate::shaping::{Course, Others, Ramp};

/// Beats that half open takes, if the wallet is well.
const TRIAL_BEATS: u64 = 3;
/// The time closed doubles up to the longest; by then an outage is about twice as long.
const DOUBLED: u64 = 2;
/// What the board showed so long ago says little of now.
const OLD_MS: u64 = 1_000;
/// What waits at an instance that is not heard of any more is taken over by others within twice `owner_ttl_ms`; of the default.
const TAKEN_OVER_MS: u64 = 6_000;
/// Where nothing was tried for so long while that could be, there is nothing to try it with: longer than the pause after a try
/// that failed.
const UNTRIED_NS: u64 = 1_500 * MS;

/// What has been tried since it may be, half open.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trial {
    pub(super) since_ns: u64,
    /// Something was tried last, here or elsewhere.
    pub(super) tried_at_ns: u64,
    /// Tries of the whole fleet, as the board showed them.
    pub(super) count: u64,
}

impl Trial {
    pub(super) fn note(&mut self, now_ns: u64, count: u64, is_trying: bool) {
        if is_trying || count != self.count {
            (self.tried_at_ns, self.count) = (now_ns, count);
        }
    }
}

impl Governor {
    /// How fast the fleet may go from now on.
    pub fn course(&self, now_ns: u64) -> Course {
        let settings = &self.state.settings;
        // Since it is tried again it is not known to be down.
        let down_until_ns = if self.state.phase == Phase::HalfOpen { self.trial.since_ns } else { now_ns };
        let down_ms = self.down_since_ns.map_or(0, |since| down_until_ns.saturating_sub(since) / MS);
        let is_idle = now_ns.saturating_sub(self.trial.tried_at_ns) >= UNTRIED_NS;
        let again_ms = down_ms.saturating_sub(DOUBLED * settings.open_ms_max);
        let trial_ms = TRIAL_BEATS * settings.beat_ms;
        let cap = settings.rate_per_s as f64;
        let growth = 1.0 + settings.ramp_growth_percent as f64 / 100.0;
        let step_ms = settings.ramp_step_ms as f64;
        let ramp = |permille: u64, first_ms| {
            Some(Ramp { per_s: cap * permille as f64 / 1_000.0, first_ms, step_ms, growth })
        };
        let least_ms = trial_ms.max(settings.open_ms_max / 2).max(again_ms);
        let whole = ramp(settings.ramp_start_permille, step_ms);
        let (held_ms, ramp) = match self.state.phase {
            Phase::Closed => (0, None),
            // In the middle of a step, as far as is known here.
            Phase::Ramp { cap_permille, .. } => (0, ramp(cap_permille, step_ms / 2.0)),
            // Whatever comes next is tried, and must not be refused for a wait that would never end without it.
            Phase::HalfOpen if is_idle => (trial_ms, whole),
            Phase::HalfOpen => (trial_ms.max(again_ms), whole),
            Phase::Open { until_ms: NEVER_MS } => (trial_ms.max(down_ms), whole),
            Phase::Open { .. } => {
                let believed_ms = self.believed_until_ns.saturating_sub(now_ns) / MS;
                let closed_ms = believed_ms.saturating_sub(settings.grace_ms);
                ((closed_ms + trial_ms).max(least_ms), whole)
            }
        };
        Course {
            held_ms,
            cap_per_s: (settings.rate_per_s > 0).then_some(settings.rate_per_s),
            ramp,
            call_ms: self.rate_limit.latency_floor_ns().map_or(0, |ns| ns / MS),
            is_free: self.state.phase == Phase::Closed && self.vote.tripped_at_ms().is_none(),
        }
    }

    /// What the others have to do and how fast they get it done, by the last beat; none: it is not known of late, or not
    /// everybody says it.
    pub fn others(&self, now_ns: u64) -> Option<Others> {
        let (view, now_ms) = self.seen_of_late(now_ns)?;
        let mut others = Others::default();
        for (_, member) in view.members.iter().filter(|(name, _)| **name != self.instance) {
            if now_ms < member.lease.until_ms {
                let Workload { waiting, done_per_s } = member.said.work?;
                let sent_per_s = member.said.spent_per_s;
                // Of what was measured once, no more than is borne out by what it sends now.
                let per_s = if done_per_s > 0 { done_per_s.min(2 * sent_per_s) } else { sent_per_s };
                others.add(waiting, per_s, done_per_s > 0);
            } else if now_ms < member.seen_ms.saturating_add(TAKEN_OVER_MS) {
                // It is dead or frozen, and what it had is somebody's before long.
                others.add(member.said.work?.waiting, 0, false);
            }
        }
        Some(others)
    }

    /// What the board showed, unless that is too long ago, and its time now.
    pub(super) fn seen_of_late(&self, now_ns: u64) -> Option<(&View, u64)> {
        let view = self.seen.as_ref().filter(|_| self.board_clock.is_of_late(now_ns, OLD_MS))?;
        let now_ms = self.board_clock.at_least_ms(now_ns, view.now_ms);
        (now_ms < view.now_ms.saturating_add(OLD_MS)).then_some((view, now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::policy::{Settings, State};
    use crate::breaker::table::Table;

    #[test]
    fn what_is_decided_of_the_time_to_come() {
        let settings = Settings { rate_per_s: 1_000, open_ms_max: 4_000, ..Settings::default() };
        let governor = |phase, down_since_ms: u64, believed_ms: u64| {
            let mut governor = Governor::new("one", 10, settings.clone());
            governor.state.phase = phase;
            governor.down_since_ns = Some(down_since_ms * MS);
            governor.believed_until_ns = (believed_ms + settings.grace_ms) * MS;
            governor.trial = Trial { since_ns: 60_000 * MS, tried_at_ns: 60_000 * MS, count: 0 };
            governor
        };
        let (open, never) = (Phase::Open { until_ms: 7 }, Phase::Open { until_ms: NEVER_MS });
        // phase, since when, believed until when; what is held; the clock stands at 60 s
        let table = [
            (open, 59_900, 60_400, 2_000),
            (open, 56_000, 63_500, 3_740),
            (open, 30_000, 63_500, 22_000),
            (never, 59_000, 0, 1_000),
            (never, 59_990, 0, 240),
            (never, 10_000, 0, 50_000),
            (Phase::HalfOpen, 59_000, 0, 240),
            (Phase::HalfOpen, 30_000, 0, 22_000),
            (Phase::Ramp { cap_permille: 500, step_at_ms: 7 }, 30_000, 0, 0),
        ];
        for (phase, since_ms, believed_ms, held_ms) in table {
            let course = governor(phase, since_ms, believed_ms).course(60_000 * MS);
            assert_eq!((course.held_ms, course.is_free), (held_ms, false), "{phase:?} since {since_ms}");
            let starts = if matches!(phase, Phase::Ramp { .. }) { 500.0 } else { 100.0 };
            assert_eq!(course.ramp.map(|ramp| ramp.per_s), Some(starts), "{phase:?}");
        }
        // What it is tried for adds nothing.
        let mut trying = governor(Phase::HalfOpen, 30_000, 0);
        assert_eq!(trying.course(61_000 * MS).held_ms, 22_000);
        // Nothing to try it with.
        assert_eq!(trying.course(61_500 * MS).held_ms, 240);
        trying.trial.note(61_500 * MS, 0, false);
        assert_eq!(trying.course(61_500 * MS).held_ms, 240);
        for (count, is_trying) in [(1, false), (1, true)] {
            trying.trial.note(61_500 * MS, count, is_trying);
            assert_eq!(trying.course(61_500 * MS).held_ms, 22_000);
            trying.trial.tried_at_ns = 60_000 * MS;
        }
        let closed = governor(Phase::Closed, 0, 0).course(60_000 * MS);
        assert_eq!(closed, Course::paced(1_000));
    }

    #[test]
    fn what_others_have_to_do_is_known_from_the_last_beat() {
        let settings = Settings { rate_per_s: 1_000, ..Settings::default() };
        let mut table = Table::new(State::new(settings.clone(), 5_000));
        let mut governor = Governor::new("one", 10, settings.clone());
        assert_eq!(governor.others(MS), None, "never heard of");
        // name, what it has, what it was measured to do, what it sends; when it was heard last
        let peers = [("gone", 900, 9, 9, 1_000), ("dead", 70, 30, 30, 2_005), ("idle", 0, 40, 40, 8_000)];
        let more = [("new", 500, 0, 7, 8_000), ("slowed", 60, 900, 5, 8_000), ("well", 300, 20, 15, 8_000)];
        for (name, waiting, done_per_s, spent_per_s, at_ms) in peers.into_iter().chain(more) {
            let mut report =
                Governor::new(name, 10, settings.clone()).beat(0, Workload { waiting, done_per_s });
            report.said.spent_per_s = spent_per_s;
            table.beat(at_ms, &report);
        }
        let now_ns = 9_000 * MS;
        let report = governor.beat(now_ns, Workload { waiting: 10, done_per_s: 1 });
        let orders = table.beat(8_000, &report);
        governor.ordered(now_ns, orders);
        let expected = Others { waiting: 70 + 500 + 60 + 300, per_s: 7 + 2 * 5 + 20, is_measured: true };
        assert_eq!(governor.others(now_ns), Some(expected));
        // No more than 6 s after it was heard of.
        let later = governor.others(now_ns + 10 * MS).expect("of late");
        assert_eq!(later.waiting, expected.waiting - 70);
        assert_eq!(governor.others(now_ns + 1_000 * MS), None, "the board has not been heard for a second");
        // Nor where the view is one that was kept, of a clock that the board no longer has.
        governor.board_clock.leap_for_test();
        assert!(governor.others(now_ns + 900 * MS).is_some());
        assert_eq!(governor.others(now_ns + 1_000 * MS), None, "kept, and not of late");
        // One of a release of before says nothing.
        let mut governor = Governor::new("one", 10, settings.clone());
        let mut old = Governor::new("old", 10, settings.clone()).beat(0, Workload::waiting(5));
        old.said.work = None;
        table.beat(8_000, &old);
        let report = governor.beat(now_ns, Workload::default());
        let orders = table.beat(8_000, &report);
        governor.ordered(now_ns, orders);
        assert_eq!(governor.others(now_ns), None);
    }
}
