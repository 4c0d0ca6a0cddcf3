//! What this instance has of each unit: from acquired, over held, to left and released.
//!
//! ```text
//!  absent ─> acquired ─> held ─> leaving ─> releasing ─> absent
//!               │          │        │
//!               └──────────┴────────┴─> absent: another epoch rules, or the lease could not be renewed in time
//! ```
//!
//! What holds: [`Held`] names a unit only between `held` and `releasing`; a lease that was not renewed for two thirds
//! of its life by this process's own clock is given up here before it runs out in Redis. Pure but for
//! `Held`; takes `now`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::held::Held;
use super::share::Hold;
use super::units::UnitId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Absent,
    /// Leased; what must be known before it may be read is not yet there.
    Acquired,
    Held,
    Leaving {
        since: Instant,
    },
    /// Not ours any more as far as this process goes; Redis is still to be told.
    Releasing,
}

#[derive(Clone, Copy, Debug)]
struct Tenure {
    phase: Phase,
    epoch: u64,
    /// When the last command that was answered with success was sent.
    renewed_at: Instant,
    order: u64,
}

pub struct Tenures {
    held: Arc<Held>,
    ttl: Duration,
    units: Vec<Tenure>,
    /// Number of the next acquisition.
    order: u64,
}

impl Tenures {
    pub fn new(held: Arc<Held>, unit_count: usize, ttl: Duration, now: Instant) -> Tenures {
        let absent = Tenure { phase: Phase::Absent, epoch: 0, renewed_at: now, order: 0 };
        Tenures { held, ttl, units: vec![absent; unit_count], order: 0 }
    }

    fn unit(&mut self, unit: UnitId) -> &mut Tenure {
        &mut self.units[usize::from(unit.0)]
    }

    fn in_phase(&self, wanted: impl Fn(Phase) -> bool) -> Vec<(UnitId, u64)> {
        let all = self.units.iter().enumerate().filter(|(_, tenure)| wanted(tenure.phase));
        all.map(|(number, tenure)| (UnitId(number as u16), tenure.epoch)).collect()
    }

    /// Units whose lease is to be renewed, with their epochs.
    pub fn leased(&self) -> Vec<(UnitId, u64)> {
        self.in_phase(|phase| matches!(phase, Phase::Acquired | Phase::Held | Phase::Leaving { .. }))
    }

    /// Units that wait for what must be known of them.
    pub fn acquired(&self) -> Vec<(UnitId, u64)> {
        self.in_phase(|phase| phase == Phase::Acquired)
    }

    pub fn releasing(&self) -> Vec<(UnitId, u64)> {
        self.in_phase(|phase| phase == Phase::Releasing)
    }

    pub fn phase(&self, unit: UnitId) -> Phase {
        self.units[usize::from(unit.0)].phase
    }

    pub fn is_leaving_any(&self) -> bool {
        self.units.iter().any(|tenure| matches!(tenure.phase, Phase::Leaving { .. }))
    }

    /// How many are held, or are about to be.
    pub fn count(&self) -> usize {
        self.leased().len()
    }

    /// How a unit of ours stands in the sharing; nothing if it is not ours.
    pub fn hold(&self, unit: UnitId) -> Option<Hold> {
        let tenure = &self.units[usize::from(unit.0)];
        let mine = |is_leaving| Some(Hold::Mine { order: tenure.order, is_leaving });
        match tenure.phase {
            Phase::Acquired | Phase::Held => mine(false),
            Phase::Leaving { .. } | Phase::Releasing => mine(true),
            Phase::Absent => None,
        }
    }

    /// The lease was taken by a command sent at `sent`.
    pub fn take(&mut self, unit: UnitId, epoch: u64, sent: Instant) {
        self.order += 1;
        let order = self.order;
        *self.unit(unit) = Tenure { phase: Phase::Acquired, epoch, renewed_at: sent, order };
    }

    /// What must be known of it is known: it may be read.
    pub fn open(&mut self, unit: UnitId) {
        let tenure = self.unit(unit);
        assert_eq!(tenure.phase, Phase::Acquired, "{unit:?} is opened once");
        tenure.phase = Phase::Held;
        let epoch = tenure.epoch;
        self.held.gained(unit, epoch);
    }

    /// It was renewed by a command sent at `sent`.
    pub fn renewed(&mut self, unit: UnitId, sent: Instant) {
        self.unit(unit).renewed_at = sent;
    }

    /// Another epoch rules, or nobody's.
    pub fn lose(&mut self, unit: UnitId) {
        self.unit(unit).phase = Phase::Absent;
        self.held.lost(unit);
    }

    /// It is to go to somebody else.
    pub fn leave(&mut self, unit: UnitId, now: Instant) {
        let tenure = self.unit(unit);
        match tenure.phase {
            // Nobody has read it.
            Phase::Acquired => tenure.phase = Phase::Releasing,
            Phase::Held => {
                tenure.phase = Phase::Leaving { since: now };
                self.held.leave(unit);
            }
            Phase::Absent | Phase::Leaving { .. } | Phase::Releasing => {}
        }
    }

    /// Units that are left and quiet, or have had `quiet_max` to become so, are to be released.
    pub fn settle_leaving(&mut self, now: Instant, quiet_max: Duration) {
        for (unit, _) in self.in_phase(|phase| matches!(phase, Phase::Leaving { .. })) {
            let Phase::Leaving { since } = self.phase(unit) else { continue };
            let is_quiet = self.held.is_quiet(unit);
            if is_quiet || now.duration_since(since) >= quiet_max {
                if !is_quiet {
                    tracing::debug!(?unit, "released while something of it was under way; its acks are void");
                }
                // From here on the reader acks nothing of it.
                self.held.lost(unit);
                self.unit(unit).phase = Phase::Releasing;
            }
        }
    }

    /// Gives up what was not renewed in time, and what the reader found to be another's; which these are.
    pub fn expire(&mut self, now: Instant) -> Vec<UnitId> {
        let mut lost = Vec::new();
        for number in 0..self.units.len() {
            let unit = UnitId(number as u16);
            let Tenure { phase, epoch, renewed_at, .. } = self.units[number];
            let silent = now.saturating_duration_since(renewed_at);
            let is_over = match phase {
                Phase::Absent => false,
                Phase::Acquired => silent >= self.ttl * 2 / 3,
                Phase::Held | Phase::Leaving { .. } => {
                    silent >= self.ttl * 2 / 3 || self.held.epoch(unit) != Some(epoch)
                }
                // Redis sees to it by itself.
                Phase::Releasing => silent >= self.ttl,
            };
            if is_over {
                self.lose(unit);
                if phase != Phase::Releasing {
                    lost.push(unit);
                }
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(3);
    const UNIT: UnitId = UnitId(1);

    fn opened(now: Instant) -> (Arc<Held>, Tenures) {
        let held = Arc::new(Held::new("i".to_owned(), 2));
        let mut tenures = Tenures::new(held.clone(), 2, TTL, now);
        tenures.take(UNIT, 7, now);
        assert_eq!((held.epoch(UNIT), tenures.acquired()), (None, vec![(UNIT, 7)]));
        tenures.open(UNIT);
        assert_eq!((held.epoch(UNIT), tenures.leased()), (Some(7), vec![(UNIT, 7)]));
        (held, tenures)
    }

    #[test]
    fn what_is_not_renewed_is_lost_before_its_lease_runs_out() {
        let start = Instant::now();
        let (held, mut tenures) = opened(start);
        assert!(tenures.expire(start + TTL * 2 / 3 - Duration::from_millis(1)).is_empty());
        tenures.renewed(UNIT, start + TTL / 2);
        assert!(tenures.expire(start + TTL).is_empty());
        assert_eq!(held.epoch(UNIT), Some(7));
        assert_eq!(tenures.expire(start + TTL / 2 + TTL * 2 / 3), vec![UNIT]);
        assert_eq!((held.epoch(UNIT), tenures.count(), tenures.hold(UNIT)), (None, 0, None));
    }

    #[test]
    fn what_the_reader_lost_is_lost() {
        let start = Instant::now();
        let (held, mut tenures) = opened(start);
        held.lost(UNIT);
        assert_eq!(tenures.expire(start), vec![UNIT]);
        assert_eq!(tenures.phase(UNIT), Phase::Absent);
    }

    #[test]
    fn leaving_waits_for_quiet_within_bounds() {
        let start = Instant::now();
        for is_quiet in [true, false] {
            let (held, mut tenures) = opened(start);
            tenures.leave(UNIT, start);
            assert!(held.is_leaving(UNIT) && held.epoch(UNIT) == Some(7), "still ours, and still renewed");
            assert_eq!(tenures.leased(), vec![(UNIT, 7)]);
            tenures.settle_leaving(start, TTL / 3);
            assert!(tenures.releasing().is_empty());
            if is_quiet {
                held.set_quiet(UNIT);
            }
            let wait = if is_quiet { Duration::ZERO } else { TTL / 3 };
            tenures.settle_leaving(start + wait, TTL / 3);
            assert_eq!((tenures.releasing(), held.epoch(UNIT)), (vec![(UNIT, 7)], None));
            assert!(tenures.expire(start + TTL - Duration::from_millis(1)).is_empty());
            assert_eq!(tenures.releasing().len(), 1, "tried again until it is of no more use");
            tenures.expire(start + TTL);
            assert_eq!(tenures.phase(UNIT), Phase::Absent);
        }
    }
}
