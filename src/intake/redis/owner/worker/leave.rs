//! Leaving: unit by unit to others, or all at once at the end.

use std::time::{Duration, Instant};

use super::Worker;
use crate::intake::redis::board;
use crate::intake::redis::owner::observe::LeaseRound;

/// How often a leaving unit is looked at.
pub(super) const QUIET_POLL: Duration = Duration::from_millis(10);

impl Worker {
    pub(super) fn leave_all(&mut self) {
        let now = Instant::now();
        for (unit, _) in self.tenures.leased() {
            self.tenures.leave(unit, now);
        }
    }

    /// Releases what is left and quiet, or has had its time to be.
    pub(super) fn settle_leaving(&mut self, quiet_max: Duration) {
        self.tenures.settle_leaving(Instant::now(), quiet_max);
        self.release();
    }

    fn release(&mut self) {
        let (round, commands) = LeaseRound::releases(&self.tenures, &self.keys, self.held.incarnation());
        if commands.is_empty() {
            return;
        }
        let results = self.link.round(&commands);
        let sight = round.take(results, Instant::now(), &mut self.tenures, &mut self.seen);
        if let Some(unit) = sight.gone {
            self.data_gone(self.keys.owner(unit));
        }
        if self.note_counts(None) {
            (self.hooks.on_change)();
        }
    }

    /// Leaves all, waits for quiet, releases all at once, and goes off the board.
    pub(super) fn finish(&mut self, until: Instant) {
        self.is_stopping = true;
        self.leave_all();
        // Said at once: the others reckon without this instance from now on.
        self.observe();
        let mut renew_at = Instant::now() + self.tick();
        while self.tenures.leased().iter().any(|(unit, _)| !self.held.is_quiet(*unit)) {
            let now = Instant::now();
            if now >= until {
                tracing::warn!("stops with requests under way; whoever owns the units next sends them again");
                break;
            }
            if now >= renew_at {
                self.observe();
                renew_at = Instant::now() + self.tick();
            }
            self.expire();
            std::thread::sleep(QUIET_POLL.min(until.saturating_duration_since(now)));
        }
        self.tenures.settle_leaving(Instant::now(), Duration::ZERO);
        // Twice, for a reply may be lost; after that the leases run out by themselves.
        for _ in 0..2 {
            self.release();
            let own = [self.held.incarnation().to_owned()];
            let off = vec![board::remove(&self.keys, &own)];
            let (_, off) = self.send(Vec::new(), off);
            match off.into_iter().find_map(Result::err) {
                None if self.tenures.releasing().is_empty() => return,
                None => {}
                Some(failure) => tracing::warn!(%failure, "could not leave the board"),
            }
        }
    }
}
