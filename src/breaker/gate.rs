//! One instance's side: whether a batch may go to the wallet now, and how large it may be.
//!
//! Asked once a batch, with the time ([`Governor::admit`]); told what came of it ([`Governor::answered`]). Between, it
//! speaks to the board: [`Governor::beat`] makes the next report, [`Governor::ordered`] takes what came back and may
//! answer the state that the fleet should be in. What holds:
//!
//! - No more goes than lease and adaptive limit allow together, repeats included, whatever piled up meanwhile.
//! - While the fleet's breaker is open nothing goes; half open, one batch a permit, and none past the permit's time.
//! - Calls that nobody answers, one after the other, count as failed long before their deadline ([`silence`]).
//! - An instance whose own calls fail stops by itself at once. If the fleet goes on without it, something is wrong
//!   with this instance: it tries one batch at a time, with backoff, and says that others should have its shards. With
//!   nothing to try it believes after a while that it is well, for nobody else would find out.
//! - Held closed by an operator nothing stops it, not even what it sees itself; lease and adaptive limit remain.
//! - Tries are within the budget like everything else.
//! - Without the board it goes on with what was agreed (`shaping::lease`); what was open stays so until its time and
//!   a grace. Before it ever heard from the board it sends nothing.
//! - What was sent in an earlier epoch says nothing about this one.
//!
//! Absent: clocks, threads, messages, the queue of what waits.

mod course;
mod haste;
mod orders;
mod report;
mod silence;
mod solo;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::course::Trial;
use self::haste::Haste;
use self::orders::BoardClock;
use self::silence::Silence;
use self::solo::Solo;
pub use self::status::{HELD_KINDS, SENT_KINDS, Status, Tally};
use super::board::View;
use super::classify::{Class, Counts};
use super::policy::{Phase, Settings, State, Wish};
use super::vote::{Vote, VoteRule};
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
const DRAIN_PER_S: u64 = 8;
/// Alone in its trouble with nothing to try for so long, it takes part again: longer than any pause between two tries.
const IDLE_NS: u64 = 8_000 * MS;
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
    silence: Silence,
    /// When something came back last, by whoever received it.
    replied_at_ns: Arc<AtomicU64>,
    seen: Option<View>,
    /// Until when what was seen last is gone by, and not what the board shows since it lost or forgot something.
    seen_kept_until_ns: u64,
    board_clock: BoardClock,
    state: State,
    /// By this clock: until when an open breaker is believed without the board.
    believed_until_ns: u64,
    /// Since when, by this clock, the breaker has not been closed.
    down_since_ns: Option<u64>,
    trial: Trial,
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
    haste: Haste,
    /// When it last had something to try.
    busy_at_ns: u64,
    is_retired: bool,
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
            silence: Silence::default(),
            replied_at_ns: Arc::default(),
            seen: None,
            seen_kept_until_ns: 0,
            board_clock: BoardClock::default(),
            state: State { version: 0, epoch: 0, ..State::new(settings, 0) },
            believed_until_ns: 0,
            down_since_ns: None,
            trial: Trial::default(),
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
            haste: Haste::default(),
            busy_at_ns: 0,
            is_retired: false,
            tally: Tally::default(),
            #[cfg(test)]
            sabotage: Sabotage::default(),
        }
    }

    /// A call's deadline, by which it is told how long the wallet may take before anything is known of it.
    #[must_use]
    pub fn with_deadline(mut self, deadline_ns: u64) -> Governor {
        self.silence.set_deadline(deadline_ns);
        self
    }

    /// Where to write when something came back: what lies unread is no silence of the wallet.
    pub fn replied_at_ns(&self) -> Arc<AtomicU64> {
        self.replied_at_ns.clone()
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn under_way(&self) -> u64 {
        self.under_way
    }

    /// Whether this instance is in trouble that the fleet does not share, and others should have its work.
    pub fn wants_release(&self, now_ns: u64) -> bool {
        let has_others = self.holder.fleet() > 1;
        has_others && self.vote.tripped_at_ms().is_some_and(|at| now_ns >= at * MS + RELEASE_NS)
    }

    /// Nothing goes from now on: its share is about to be somebody else's.
    pub fn retire(&mut self) {
        self.is_retired = true;
    }

    fn is_held_closed(&self) -> bool {
        self.state.held == Some(Wish::Close)
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
        if self.is_retired {
            return Err(Held::NoShare);
        }
        self.listen(now_ns);
        let probe_count = self.state.settings.probe_share().min(want);
        let (count, kind) = match self.state.phase {
            Phase::Open { .. } | Phase::HalfOpen if !self.may_act_alone(now_ns) => {
                (self.probe(now_ns, probe_count)?, Kind::Probe)
            }
            _ if self.vote.tripped_at_ms().is_some() => {
                self.solo.may_try(now_ns)?;
                let count = self.paced(now_ns, probe_count)?;
                self.solo.tries();
                (count, Kind::Solo)
            }
            _ => (self.paced(now_ns, want)?, Kind::Paced),
        };
        self.under_way += 1;
        self.under_way_peak = self.under_way_peak.max(self.under_way);
        self.spent += count;
        if kind == Kind::Paced {
            self.silence.sent(now_ns, count);
        }
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
        // The lease is for nothing: a try has its part of the budget by itself.
        let sharers = self.state.settings.permits_max.min(self.holder.fleet()).max(1);
        self.pace.set_rate(Rate::PerS((self.state.settings.rate_per_s / sharers).max(1)));
        let count = self.pace.take_at_least(now_ns, count, 1).map_err(|until_ns| Held::Paced { until_ns })?;
        self.probe_flying = true;
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
        self.pace.take_step(now_ns, want, STEP_NS).map_err(|until_ns| {
            self.note_paced(now_ns, until_ns);
            Held::Paced { until_ns }
        })
    }

    /// Fewer go than were admitted: the rest is given back.
    pub fn shrink(&mut self, ticket: Ticket, count: u64) -> Ticket {
        let unused = ticket.count.saturating_sub(count);
        self.pace.give_back(unused);
        self.spent = self.spent.saturating_sub(unused);
        self.silence.shrunk(ticket.sent_at_ns, unused);
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
            Kind::Paced => {
                self.silence.ended(ticket.sent_at_ns);
            }
            Kind::Probe => self.probe_flying = false,
            Kind::Solo => self.solo.withdrawn(),
        }
    }

    /// What came of a batch; what was of our own doing is in no count.
    pub fn answered(&mut self, now_ns: u64, ticket: Ticket, counts: &Counts) {
        self.under_way -= 1;
        self.tally.sent[ticket.kind as usize] += 1;
        let is_well = counts.total() > 0 && 2 * counts.unhealthy() < counts.total();
        let took_ns = now_ns.saturating_sub(ticket.sent_at_ns);
        let decided_after_ns = (counts.healthy > 0).then_some(took_ns);
        let is_of_now = ticket.epoch == self.state.epoch;
        if !is_of_now || ticket.kind != Kind::Paced {
            decided_after_ns.into_iter().for_each(|took_ns| self.silence.learn(took_ns));
        }
        if !is_of_now {
            return;
        }
        match ticket.kind {
            Kind::Probe => self.probed(now_ns, is_well, counts.total() > 0),
            Kind::Paced => {
                let sample = Sample {
                    took_ns,
                    healthy: counts.healthy,
                    overloaded: counts.overload,
                    lost: counts.timeout + counts.unknown,
                    timed_out: counts.timeout > 0,
                    under_way: self.under_way + 1,
                };
                self.rate_limit.record(now_ns, sample);
                self.calls_limit.record(now_ns, sample);
                let blamed_at_ns = self.silence.ended(ticket.sent_at_ns);
                let was_counted =
                    blamed_at_ns.is_some_and(|at_ns| self.vote.is_in_window(at_ns / MS, now_ns / MS));
                if counts.timeout == 0 {
                    self.silence.heard(now_ns, decided_after_ns);
                }
                if !was_counted || is_well {
                    self.vote_on(now_ns, counts);
                }
            }
            Kind::Solo => {
                self.busy_at_ns = now_ns;
                if counts.healthy > 0 {
                    self.silence.heard(now_ns, None);
                }
                if self.solo.ended(now_ns, is_well) {
                    self.vote.reset();
                }
            }
        }
    }

    fn vote_on(&mut self, now_ns: u64, counts: &Counts) {
        if self.is_held_closed() {
            self.vote.note(now_ns / MS, counts);
        } else if self.vote.record(now_ns / MS, counts) {
            self.solo.begin(now_ns);
            (self.wants_beat, self.busy_at_ns) = (true, now_ns);
        }
    }

    /// Calls that nobody answers count as timed out before their deadline.
    fn listen(&mut self, now_ns: u64) {
        self.silence.replied(self.replied_at_ns.load(Ordering::Relaxed));
        for transfers in self.silence.look(now_ns) {
            self.vote_on(now_ns, &Counts::of(Class::Timeout, transfers));
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
}

fn vote_rule(settings: &Settings) -> VoteRule {
    VoteRule {
        window_ms: settings.window_ms,
        volume_min: settings.instance_volume_min.max(1),
        failure_percent: settings.failure_percent,
    }
}
