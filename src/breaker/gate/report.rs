//! What an instance asks of the board, and what it says of itself there: the beat.
//!
//! A share of the budget is asked for by everybody's demand and line as the board showed them last, so that nobody divides it
//! but the arithmetic. Absent: what is done with the answer ([`super::orders`]).

use super::super::board::{Permit, Report, Said, Workload};
use super::super::policy::{NEVER_MS, Phase};
use super::solo::Solo;
use super::{ASKED_NS_MAX, DRAIN_PER_S, Governor, IDLE_NS, MS};
use crate::shaping::Amount;
use crate::shaping::lease::{Claim, fair_share};

/// A line counts as shorter than the longest by no more than this part of it.
const SHORTER_PART: u64 = 4;
/// Nor does one of less than such a part of a second's work count as one.
const LINE_PER_S: u64 = 4;

impl Governor {
    /// When the next beat is due; at once where something has happened that others should know.
    pub fn beat_at_ns(&self) -> u64 {
        let unanswered = self.holder.asked_at_ns().map_or(0, |at| at + ASKED_NS_MAX);
        let hasty = self.haste.due_at_ns().unwrap_or(u64::MAX);
        let due = if self.wants_beat { 0 } else { self.beat_at_ns.min(hasty) };
        due.max(unanswered)
    }

    pub(super) fn last_beat_ns(&self) -> u64 {
        self.beat_at_ns.saturating_sub(self.state.settings.beat_ms * MS)
    }

    /// The next report.
    pub fn beat(&mut self, now_ns: u64, work: Workload) -> Report {
        let backlog = work.waiting;
        self.listen(now_ns);
        self.note_spent(now_ns);
        self.note_idle(now_ns, backlog);
        self.note_permit(now_ns);
        let demand = self.demand(backlog);
        self.haste.told(demand, work);
        let behind = self.behind(now_ns, work);
        self.rate_limit.set_behind(behind);
        self.calls_limit.set_behind(behind);
        let want = self.fair(now_ns, (demand, work)).map_or(
            demand.min(self.state.terms().cap()),
            |(share, spare)| {
                if self.vote.tripped_at_ms().is_some() { share } else { share.plus(spare) }
            },
        );
        let ask = self.holder.ask(now_ns, want);
        let counts = self.vote.counts(now_ns / MS);
        let said = Said {
            epoch: self.state.epoch,
            demand,
            counts,
            is_for_stopping: self.vote.is_for_stopping(now_ns / MS),
            probes_ok: self.probes_ok,
            probes_bad: self.probes_bad,
            spent_per_s: self.spent_per_s,
            work: Some(work),
        };
        (self.wants_beat, self.beat_at_ns) = (false, now_ns + self.state.settings.beat_ms * MS);
        Report { instance: self.instance.clone(), ask, permit: self.permit(now_ns, backlog), said }
    }

    /// Stopped by itself and with nothing to try: nobody can find out but by going on.
    fn note_idle(&mut self, now_ns: u64, backlog: u64) {
        if backlog > 0 || self.under_way > 0 {
            self.busy_at_ns = now_ns;
        } else if self.vote.tripped_at_ms().is_some() && now_ns.saturating_sub(self.busy_at_ns) >= IDLE_NS {
            self.vote.reset();
            self.solo = Solo::default();
        }
    }

    /// A permit that ran out before anything was tried.
    fn note_permit(&mut self, now_ns: u64) {
        if self.permit_until_ns > 0 && now_ns >= self.permit_until_ns && !self.probe_flying {
            self.permit_until_ns = 0;
            self.tally.permits_lost += 1;
        }
    }

    fn permit(&self, now_ns: u64, backlog: u64) -> Permit {
        let has_one = self.probe_flying || now_ns < self.permit_until_ns;
        let may_try = backlog > 0 && now_ns >= self.probe_paused_until_ns;
        match self.state.phase {
            Phase::HalfOpen if has_one => Permit::Holds,
            Phase::HalfOpen if may_try => Permit::Wants,
            Phase::HalfOpen | Phase::Open { .. } | Phase::Closed | Phase::Ramp { .. } => Permit::None,
        }
    }

    fn note_spent(&mut self, now_ns: u64) {
        let beat_ns = self.state.settings.beat_ms * MS;
        let elapsed_ns = now_ns.saturating_sub(self.last_beat_ns()).max(MS);
        let per_s = std::mem::take(&mut self.spent).saturating_mul(1_000 * MS) / elapsed_ns;
        // Halved with each whole beat: what was unspent goes back within a few.
        let (weight, whole) = (u128::from(elapsed_ns.min(beat_ns)), 2 * u128::from(beat_ns));
        let sum = u128::from(self.spent_per_s) * (whole - weight) + u128::from(per_s) * weight;
        self.spent_per_s = u64::try_from(sum.div_ceil(whole)).unwrap_or(u64::MAX);
    }

    /// By which part of what it sends it would have to send more to send what is its part of what all do, where it has a line: more
    /// than a second's work.
    pub(super) fn behind(&self, now_ns: u64, work: Workload) -> f64 {
        let Some((view, now_ms)) = self.seen_of_late(now_ns) else { return 0.0 };
        if work.waiting <= self.spent_per_s {
            return 0.0;
        }
        let (mut lines, mut spent) = (vec![work.waiting], self.spent_per_s as f64);
        for (name, member) in &view.members {
            let others_work = member.said.work.filter(|work| work.waiting > 0);
            if let (Some(work), true) =
                (others_work, *name != self.instance && now_ms < member.lease.until_ms)
            {
                lines.push(work.waiting);
                spent += member.said.spent_per_s as f64;
            }
        }
        let weights = weights(&lines, 0);
        let part = spent * weights[0] as f64 / weights.iter().map(|weight| *weight as f64).sum::<f64>();
        part / self.spent_per_s.max(1) as f64 - 1.0
    }

    /// What it could use: what it uses and a little more, and what it takes to work off what waits.
    fn demand(&mut self, backlog: u64) -> Amount {
        let peak = std::mem::replace(&mut self.under_way_peak, self.under_way);
        if self.vote.tripped_at_ms().is_some() {
            // Alone in its trouble it tries one batch at a time, and the others can use the rest.
            return Amount { rate_per_s: self.state.settings.probe_share(), calls: 1 };
        }
        let spent = self.spent_per_s.min(1 << 40);
        let rate_per_s = spent + spent / 4 + backlog.saturating_mul(DRAIN_PER_S).min(1 << 40);
        let calls = peak + backlog.div_ceil(self.batch_max.max(1)).max(1);
        let limits = self.limits();
        let ample = Amount {
            rate_per_s: limits.rate_per_s.saturating_add(limits.rate_per_s / 4),
            calls: limits.calls.saturating_add(1),
        };
        Amount { rate_per_s: rate_per_s.max(1), calls }.min(ample)
    }

    /// Its fair share of what may be used, by what the board showed last, and its part of what nobody asked for.
    pub(super) fn fair(&self, now_ns: u64, (own, work): (Amount, Workload)) -> Option<(Amount, Amount)> {
        let view = self.seen.as_ref()?;
        let now_ms = self.board_clock.at_least_ms(now_ns, view.now_ms);
        let (mut demands, mut works, mut at) = (Vec::new(), Vec::new(), None);
        let mut lost = Amount::default();
        for (name, member) in &view.members {
            let is_own = *name == self.instance;
            if is_own {
                at = Some(demands.len());
            } else if now_ms >= member.lease.until_ms {
                let is_alive = now_ms < member.lease.kept_until_ms;
                lost = lost.plus(if is_alive { member.lease.kept } else { Amount::default() });
                continue;
            }
            let (demand, work) =
                if is_own { (own, Some(work)) } else { (member.said.demand, member.said.work) };
            demands.push(demand);
            works.push(work);
        }
        let at = at?;
        let (left, turn) = (self.state.terms().cap().minus(lost), view.now_ms / 1_000);
        let (even, least) = (vec![1; demands.len()], left.rate_per_s / demands.len() as u64 / LINE_PER_S);
        // Where somebody does not say how long its line is, all count the same.
        let lines: Option<Vec<u64>> = works.iter().map(|work| work.map(|work| work.waiting)).collect();
        let weights = lines.map_or(even.clone(), |lines| weights(&lines, least));
        let claims = |of: fn(&Amount) -> u64, weights: &[u64]| -> Vec<Claim> {
            let claims = demands.iter().map(of).zip(weights);
            claims.map(|(demand, weight)| Claim { demand, weight: *weight }).collect()
        };
        // Calls may be fewer than instances: nobody has two before all have one.
        let (rates, calls) =
            (claims(|demand| demand.rate_per_s, &weights), claims(|demand| demand.calls, &even));
        let share = Amount {
            rate_per_s: fair_share(&rates, at, left.rate_per_s, turn),
            calls: fair_share(&calls, at, left.calls, turn),
        };
        let spare = Amount { rate_per_s: spare(&rates, left.rate_per_s), calls: spare(&calls, left.calls) };
        Some((share, spare))
    }
}

/// What nobody asked for, divided: so that who was idle need not ask before it may send.
fn spare(claims: &[Claim], left: u64) -> u64 {
    let asked = claims.iter().fold(0u64, |sum, claim| sum.saturating_add(claim.demand));
    left.saturating_sub(asked) / claims.len().max(1) as u64
}

/// How much each counts by the length of its line, so that lines that differ a little, by the units that each holds, move at one
/// pace; no less than a part of who has the longest, as what is short may be urgent. A line of less than `least` is none.
fn weights(lines: &[u64], least: u64) -> Vec<u64> {
    let longest = lines.iter().max().copied().unwrap_or(0);
    let least = least.max(longest - longest / SHORTER_PART).max(1);
    lines.iter().map(|line| (*line).max(least).min(NEVER_MS)).collect()
}
