//! One instance's side: whether a batch may go to the wallet now, and how large it may be.
//!
//! Asked once a batch, with the time ([`Governor::admit`]); told what came of it ([`Governor::answered`]). Between, it
//! speaks to the board: [`Governor::beat`] makes the next report, [`Governor::ordered`] takes what came back and may
//! answer the state that the fleet should be in. What holds:
//!
//! - No more goes than lease and adaptive limit allow together, repeats included, whatever piled up meanwhile.
//! - While the fleet's breaker is open nothing goes; half open, one batch a permit, and none past the permit's time.
//! - An instance whose own calls fail stops by itself at once. If the fleet goes on without it, something is wrong
//!   with this instance: it tries one batch at a time, with backoff, and says that others should have its shards.
//! - Without the board it goes on with what was agreed (`shaping::lease`); what was open stays so until its time and
//!   a grace. Before it ever heard from the board it sends nothing.
//! - What was sent in an earlier epoch says nothing about this one.
//!
//! Absent: clocks, threads, messages, the queue of what waits.

mod course;
mod solo;
mod status;
#[cfg(test)]
mod tests;

use self::solo::Solo;
pub use self::status::{HELD_KINDS, SENT_KINDS, Status, Tally};
use super::board::{Orders, Permit, Report, Said, View};
use super::classify::Counts;
use super::policy::{Phase, Settings, State, decide};
use super::vote::{Vote, VoteRule};
use crate::shaping::lease::fair_share;
use crate::shaping::{Amount, Holder, Limit, Measure, Pace, Rate, Sample};

const MS: u64 = 1_000_000;
/// The longest time whose unspent share may be spent at once, and the share of time that a call is to carry: both far
/// below the fiftieth of a second that an instance may release as a spike after it froze.
const BURST_NS: u64 = 20 * MS;
const STEP_NS: u64 = 8 * MS;
/// A failed probe's instance leaves the permits to others for so long.
const PROBE_PAUSE_NS: u64 = 1_000 * MS;
/// A beat that was not answered for so long is asked anew.
const ASKED_NS_MAX: u64 = 120 * MS;
/// An instance is to have its backlog of now done within this time, if it had its way.
const DRAIN_PER_S: u64 = 2;
/// Alone in its trouble for so long, it says that others should have its shards.
const RELEASE_NS: u64 = 1_500 * MS;

/// Why a batch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Paced,
    /// With one of the fleet's permits.
    Probe,
    /// To find out whether it is this instance that is broken.
    Solo,
}

/// A batch that goes. To be given back by [`Governor::answered`], whatever becomes of it, or by
/// [`Governor::withdraw`] if it does not go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Ticket {
    /// Transfers that may go, at least one.
    pub count: u64,
    pub kind: Kind,
    pub epoch: u64,
    sent_at_ns: u64,
}

/// Why nothing goes now, and when to ask again; without a time: when something has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The rate is spent.
    Paced { until_ns: u64 },
    /// As many calls are under way as may be.
    Full,
    /// The lease is for nothing, or none was ever granted.
    NoShare,
    /// The fleet's breaker is open, or half open with others trying.
    Open,
    /// This instance's own calls fail while the fleet goes on.
    Alone { until_ns: u64 },
}

/// Faults of this kind that the simulation puts in, to see that it notices.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Sabotage {
    pub probes_without_permit: bool,
    pub share_undivided: bool,
}

pub struct Governor {
    instance: String,
    batch_max: u64,
    holder: Holder,
    pace: Pace,
    rate_limit: Limit,
    calls_limit: Limit,
    vote: Vote,
    solo: Solo,
    seen: Option<View>,
    state: State,
    /// By this clock: until when an open breaker is believed without the board.
    believed_until_ns: u64,
    /// Since when, by this clock, the breaker has not been closed.
    down_since_ns: Option<u64>,
    permit_until_ns: u64,
    probe_flying: bool,
    probes_ok: u64,
    probes_bad: u64,
    probe_paused_until_ns: u64,
    under_way: u64,
    under_way_peak: u64,
    spent: u64,
    spent_per_s: u64,
    beat_at_ns: u64,
    wants_beat: bool,
    tally: Tally,
    #[cfg(test)]
    pub sabotage: Sabotage,
}

impl Governor {
    /// `instance` names this process and no other, not even its next run. `batch_max`: transfers of one call.
    /// `settings` hold until the board has said its own.
    pub fn new(instance: &str, batch_max: u64, settings: Settings) -> Governor {
        let rule = vote_rule(&settings);
        Governor {
            instance: instance.to_owned(),
            batch_max,
            holder: Holder::default(),
            pace: Pace::new(1).with_burst(BURST_NS),
            rate_limit: Limit::new(Measure::RatePerS, 1),
            calls_limit: Limit::new(Measure::UnderWay, 1),
            vote: Vote::new(rule),
            solo: Solo::default(),
            seen: None,
            state: State { version: 0, epoch: 0, ..State::new(settings, 0) },
            believed_until_ns: 0,
            down_since_ns: None,
            permit_until_ns: 0,
            probe_flying: false,
            probes_ok: 0,
            probes_bad: 0,
            probe_paused_until_ns: 0,
            under_way: 0,
            under_way_peak: 0,
            spent: 0,
            spent_per_s: 0,
            beat_at_ns: 0,
            wants_beat: true,
            tally: Tally::default(),
            #[cfg(test)]
            sabotage: Sabotage::default(),
        }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn under_way(&self) -> u64 {
        self.under_way
    }

    /// Whether this instance is in trouble that the fleet does not share, and others should have its work.
    pub fn wants_release(&self, now_ns: u64) -> bool {
        self.vote.tripped_at_ms().is_some_and(|at| now_ns >= at * MS + RELEASE_NS)
    }

    /// Whether it goes by what was agreed for the time without the board.
    pub fn is_cut_off(&self, now_ns: u64) -> bool {
        self.holder.is_known() && self.holder.is_cut_off(now_ns)
    }

    /// What lease and limit allow together now.
    pub fn allowed(&self, now_ns: u64) -> Amount {
        let held = self.holder.amount(now_ns);
        #[cfg(test)]
        let held = match self.sabotage.share_undivided && self.holder.is_cut_off(now_ns) {
            true => self.holder.share_undivided(),
            false => held,
        };
        held.min(self.limits())
    }

    fn limits(&self) -> Amount {
        let or_all = |limit: &Limit| limit.value().unwrap_or(u64::MAX);
        Amount { rate_per_s: or_all(&self.rate_limit), calls: or_all(&self.calls_limit) }
    }

    /// Whether a batch of up to `want` transfers may go now.
    pub fn admit(&mut self, now_ns: u64, want: u64) -> Result<Ticket, Held> {
        if want == 0 {
            return Err(Held::Full);
        }
        let answer = self.judge(now_ns, want);
        self.tally.note(&answer);
        answer
    }

    fn judge(&mut self, now_ns: u64, want: u64) -> Result<Ticket, Held> {
        let probe_count = self.state.settings.probe_count.min(want);
        let (count, kind) = match self.state.phase {
            Phase::Open { .. } | Phase::HalfOpen if !self.may_act_alone(now_ns) => {
                (self.probe(now_ns, probe_count)?, Kind::Probe)
            }
            _ if self.vote.tripped_at_ms().is_some() => {
                (self.solo.try_one(now_ns).map(|()| probe_count)?, Kind::Solo)
            }
            _ => (self.paced(now_ns, want)?, Kind::Paced),
        };
        self.under_way += 1;
        self.under_way_peak = self.under_way_peak.max(self.under_way);
        self.spent += count;
        Ok(Ticket { count, kind, epoch: self.state.epoch, sent_at_ns: now_ns })
    }

    /// Cut off, and past the time for which what the board said last is believed.
    fn may_act_alone(&self, now_ns: u64) -> bool {
        self.is_cut_off(now_ns) && now_ns >= self.believed_until_ns
    }

    fn probe(&mut self, now_ns: u64, count: u64) -> Result<u64, Held> {
        let has_permit = now_ns < self.permit_until_ns && !self.probe_flying;
        #[cfg(test)]
        let has_permit = has_permit || self.sabotage.probes_without_permit;
        if self.state.phase != Phase::HalfOpen || !has_permit {
            return Err(Held::Open);
        }
        (self.probe_flying, self.permit_until_ns) = (true, now_ns.max(self.permit_until_ns));
        Ok(count)
    }

    fn paced(&mut self, now_ns: u64, want: u64) -> Result<u64, Held> {
        let allowed = self.allowed(now_ns);
        if allowed.rate_per_s == 0 || allowed.calls == 0 {
            return Err(Held::NoShare);
        }
        if self.under_way >= allowed.calls {
            return Err(Held::Full);
        }
        self.pace.set_rate(Rate::PerS(allowed.rate_per_s));
        let want = want.min(self.batch_max);
        let step = (u128::from(allowed.rate_per_s) * u128::from(STEP_NS) / 1_000_000_000) as u64;
        let least = want.min(step.max(1));
        self.pace.take_at_least(now_ns, want, least).map_err(|until_ns| Held::Paced { until_ns })
    }

    /// Fewer go than were admitted: the rest is given back.
    pub fn shrink(&mut self, ticket: Ticket, count: u64) -> Ticket {
        let unused = ticket.count.saturating_sub(count);
        if ticket.kind == Kind::Paced {
            self.pace.give_back(unused);
        }
        self.spent = self.spent.saturating_sub(unused);
        Ticket { count: ticket.count - unused, ..ticket }
    }

    /// Nothing goes after all: as if it had not been asked for. A permit may be used by the next batch.
    pub fn withdraw(&mut self, ticket: Ticket) {
        let ticket = self.shrink(ticket, 0);
        self.under_way -= 1;
        if ticket.epoch != self.state.epoch {
            return;
        }
        match ticket.kind {
            Kind::Paced => {}
            Kind::Probe => self.probe_flying = false,
            Kind::Solo => self.solo.withdrawn(),
        }
    }

    /// What came of a batch; what was of our own doing is in no count.
    pub fn answered(&mut self, now_ns: u64, ticket: Ticket, counts: &Counts) {
        self.under_way -= 1;
        let is_well = counts.total() > 0 && 2 * counts.unhealthy() < counts.total();
        if ticket.epoch != self.state.epoch {
            return;
        }
        match ticket.kind {
            Kind::Probe => self.probed(now_ns, is_well, counts.total() > 0),
            Kind::Paced => {
                let sample = Sample {
                    took_ns: now_ns - ticket.sent_at_ns,
                    healthy: counts.healthy,
                    overloaded: counts.overload,
                    lost: counts.timeout + counts.unknown,
                    timed_out: counts.timeout > 0,
                    under_way: self.under_way + 1,
                };
                self.rate_limit.record(now_ns, sample);
                self.calls_limit.record(now_ns, sample);
                if self.vote.record(now_ns / MS, counts) {
                    self.solo.begin(now_ns);
                    self.wants_beat = true;
                }
            }
            Kind::Solo => {
                if self.solo.ended(now_ns, is_well) {
                    self.vote.reset();
                }
            }
        }
    }

    fn probed(&mut self, now_ns: u64, is_well: bool, is_evidence: bool) {
        self.tally.probed(is_well);
        (self.probe_flying, self.permit_until_ns, self.wants_beat) = (false, 0, true);
        if is_well {
            self.probes_ok += 1;
        } else {
            self.probes_bad += u64::from(is_evidence);
            self.probe_paused_until_ns = now_ns + PROBE_PAUSE_NS;
        }
    }

    /// When the next beat is due; at once where something has happened that others should know.
    pub fn beat_at_ns(&self) -> u64 {
        let unanswered = self.holder.asked_at_ns().map_or(0, |at| at + ASKED_NS_MAX);
        let due = if self.wants_beat { 0 } else { self.beat_at_ns };
        due.max(unanswered)
    }

    /// The next report; `backlog`: transfers that wait here.
    pub fn beat(&mut self, now_ns: u64, backlog: u64) -> Report {
        self.note_spent(now_ns);
        let demand = self.demand(backlog);
        let ask = self.holder.ask(now_ns, self.want(demand));
        let counts = self.vote.counts(now_ns / MS);
        let said = Said {
            epoch: self.state.epoch,
            demand,
            counts,
            is_for_stopping: self.vote.is_for_stopping(now_ns / MS),
            probes_ok: self.probes_ok,
            probes_bad: self.probes_bad,
            spent_per_s: self.spent_per_s,
        };
        (self.wants_beat, self.beat_at_ns) = (false, now_ns + self.state.settings.beat_ms * MS);
        Report { instance: self.instance.clone(), ask, permit: self.permit(now_ns, backlog), said }
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
        let since_ns = self.beat_at_ns.saturating_sub(self.state.settings.beat_ms * MS);
        let elapsed_ns = now_ns.saturating_sub(since_ns).max(MS);
        let per_s = std::mem::take(&mut self.spent).saturating_mul(1_000 * MS) / elapsed_ns;
        // Halved with each beat: what was unspent goes back within a few.
        self.spent_per_s = (self.spent_per_s + per_s).div_ceil(2);
    }

    /// What it could use: what it uses and a little more, and what it takes to work off what waits.
    fn demand(&mut self, backlog: u64) -> Amount {
        let peak = std::mem::replace(&mut self.under_way_peak, self.under_way);
        if self.vote.tripped_at_ms().is_some() {
            // Alone in its trouble it tries one batch at a time, and the others can use the rest.
            return Amount { rate_per_s: 1, calls: 1 };
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

    /// Its fair share of what may be used, by what the board showed last.
    fn want(&self, own: Amount) -> Amount {
        let cap = self.state.terms().cap();
        let Some(view) = &self.seen else { return own };
        let (mut rates, mut calls, mut at) = (Vec::new(), Vec::new(), None);
        let mut lost = Amount::default();
        for (name, member) in &view.members {
            let is_own = *name == self.instance;
            if is_own {
                at = Some(rates.len());
            } else if view.now_ms >= member.lease.until_ms {
                let is_alive = view.now_ms < member.lease.kept_until_ms;
                lost = lost.plus(if is_alive { member.lease.kept } else { Amount::default() });
                continue;
            }
            let demand = if is_own { own } else { member.said.demand };
            rates.push(demand.rate_per_s);
            calls.push(demand.calls);
        }
        let Some(at) = at else { return own.min(cap) };
        let is_tripped = self.vote.tripped_at_ms().is_some();
        let (left, turn) = (cap.minus(lost), view.now_ms / 1_000);
        let share = Amount {
            rate_per_s: fair_share(&rates, at, left.rate_per_s, turn),
            calls: fair_share(&calls, at, left.calls, turn),
        };
        let spare = Amount { rate_per_s: spare(&rates, left.rate_per_s), calls: spare(&calls, left.calls) };
        if is_tripped { share } else { share.plus(spare) }
    }

    /// What the board answered. The state that the fleet should go to, if it is time, with what it was seen from.
    pub fn ordered(&mut self, now_ns: u64, orders: Orders) -> Option<(View, State)> {
        let asked_at_ns = self.holder.asked_at_ns();
        let Orders { sequence, granted, kept, has_permit, view } = orders;
        let settings = &view.state.settings;
        let (times_ms, ttl_ns) = ((settings.lease_ms, settings.reserve_ms), settings.permit_ttl_ms * MS);
        let is_current = self.holder.granted(sequence, (granted, kept), times_ms, view.fleet());
        self.adopt(now_ns, &view.state, view.now_ms);
        if !is_current {
            return None;
        }
        let is_same_epoch = view.state.epoch == self.state.epoch;
        if has_permit && is_same_epoch && !self.probe_flying {
            self.permit_until_ns = asked_at_ns.unwrap_or(now_ns) + ttl_ns;
        }
        self.believe(now_ns, view.now_ms);
        // What is fair could not be known before.
        self.wants_beat |= self.seen.is_none();
        let next = decide(&view);
        match next {
            Some(next) => {
                self.seen = Some(view.clone());
                Some((view, next))
            }
            None => {
                self.seen = Some(view);
                None
            }
        }
    }

    /// A state that was written meanwhile: by this instance, or heard of.
    pub fn heard(&mut self, now_ns: u64, state: &State) {
        self.adopt(now_ns, state, state.since_ms);
    }

    fn adopt(&mut self, now_ns: u64, state: &State, board_now_ms: u64) {
        if state.version <= self.state.version {
            return;
        }
        if state.epoch != self.state.epoch {
            self.vote.reset();
            self.solo = Solo::default();
            (self.permit_until_ns, self.probe_flying) = (0, false);
            (self.probes_ok, self.probes_bad, self.probe_paused_until_ns) = (0, 0, 0);
            self.rate_limit.restart(now_ns);
            self.calls_limit.restart(now_ns);
        }
        // What changed concerns leases and permits: ask at once.
        self.wants_beat |= state.phase.as_str() != self.state.phase.as_str();
        self.vote.set_rule(vote_rule(&state.settings));
        self.state = state.clone();
        self.down_since_ns = match state.phase {
            Phase::Closed => None,
            Phase::Open { .. } | Phase::HalfOpen | Phase::Ramp { .. } => self.down_since_ns.or(Some(now_ns)),
        };
        self.believe(now_ns, board_now_ms);
    }

    /// Until when what the board last said of an open breaker holds without it.
    fn believe(&mut self, now_ns: u64, board_now_ms: u64) {
        let left_ms = match self.state.phase {
            Phase::Open { until_ms } => until_ms.saturating_sub(board_now_ms),
            Phase::Closed | Phase::HalfOpen | Phase::Ramp { .. } => 0,
        };
        let wait_ns = (left_ms + self.state.settings.grace_ms).saturating_mul(MS);
        self.believed_until_ns = now_ns.saturating_add(wait_ns);
    }
}

/// What nobody asked for, divided: so that who was idle need not ask before it may send.
fn spare(demands: &[u64], left: u64) -> u64 {
    let asked = demands.iter().fold(0u64, |sum, demand| sum.saturating_add(*demand));
    left.saturating_sub(asked) / demands.len().max(1) as u64
}

fn vote_rule(settings: &Settings) -> VoteRule {
    VoteRule {
        window_ms: settings.window_ms,
        volume_min: settings.instance_volume_min.max(1),
        failure_percent: settings.failure_percent,
    }
}
