//! What the owner's thread says: to the board, to the log (each thing once), to whoever reads its standing.

use std::time::Instant;

use super::super::Vitals;
use super::super::observe::{Found, LeaseSight};
use super::Worker;
use crate::intake::redis::anomaly::Anomaly;
use crate::intake::redis::board::{self, Entry, FORMAT, UnknownFormat};
use crate::intake::redis::membership::BoardSight;
use crate::intake::redis::units::UnitId;
use crate::redis::Failure;
use crate::shaping::Others;

#[derive(Default)]
pub(super) struct Said {
    pub(super) outage: bool,
    pub(super) remarks: Vec<String>,
    pub(super) gained: Option<String>,
    pub(super) counts: (usize, usize),
}

impl Worker {
    pub(super) fn note_lost(&mut self, count: usize) {
        self.standing.add(0, count);
        self.note_counts(None);
        (self.hooks.on_change)();
    }

    pub(super) fn names(&self, units: &[UnitId]) -> String {
        let names: Vec<String> = units.iter().map(|unit| self.keys.unit_name(*unit)).collect();
        names.join(" ")
    }

    pub(super) fn note_outage(&mut self, failure: Option<&Failure>) {
        if let Some(failure) = failure.filter(|_| !self.said.outage) {
            tracing::warn!(%failure, "the units cannot be renewed or shared; it is tried again and again");
        } else if failure.is_none() && self.said.outage {
            tracing::info!("units are renewed and shared again");
        }
        self.said.outage = failure.is_some();
        self.standing.set_unreachable(failure.map(ToString::to_string));
    }

    pub(super) fn set_anomaly(&mut self, anomaly: Option<Anomaly>) {
        let is_of_view = anomaly.as_ref().is_some_and(Anomaly::is_of_view);
        if self.standing.set_anomaly(anomaly.clone()) {
            match &anomaly {
                // It may only be what the process before this one left on the board.
                Some(anomaly) if is_of_view => tracing::warn!(%anomaly, "nothing is owned"),
                Some(anomaly) => tracing::error!(code = anomaly.code(), %anomaly, "nothing is owned"),
                None => tracing::info!("what kept this instance from owning units is over"),
            }
            self.view_anomaly_since = is_of_view.then(Instant::now);
            (self.hooks.on_change)();
        }
        if self.view_anomaly_since.is_some_and(|since| since.elapsed() > self.options.ttl * 2) {
            self.view_anomaly_since = None;
            if let Some(anomaly) = anomaly {
                tracing::error!(code = anomaly.code(), %anomaly, "nothing is owned");
            }
        }
    }

    /// What somebody should know and nothing stops for; each once.
    pub(super) fn remark(&mut self, leases: &LeaseSight, sight: &BoardSight) {
        let mut remarks = Vec::new();
        for (number, found) in leases.found.iter().enumerate() {
            if let Found::Odd(found) = found {
                let key = self.keys.owner(UnitId(number as u16));
                let found: String = found.chars().take(80).collect();
                remarks.push(format!(
                    "{key} holds no lease, so that nobody can own the unit; see what wrote it, then delete it: {found:?}"
                ));
            }
        }
        let lists = self.lists();
        for peer in &sight.peers.live {
            match &peer.entry {
                Ok(entry) if entry.lists != lists => remarks.push(format!(
                    "{} reads the lists {:?}, this instance {lists:?}; a list is shared among those that have it in their settings",
                    peer.shown(),
                    entry.lists
                )),
                Ok(_) => {}
                Err(UnknownFormat(_)) => remarks.push(format!("{} is of a newer version", peer.shown())),
            }
        }
        let odd = |field: &String| {
            format!("{field} of {} is no entry of an instance", self.keys.board("instances"))
        };
        remarks.extend(sight.peers.unreadable.iter().map(odd));
        for remark in remarks.iter().filter(|remark| !self.said.remarks.contains(remark)) {
            tracing::warn!("{remark}");
        }
        self.said.remarks = remarks;
    }

    pub(super) fn lists(&self) -> Vec<String> {
        self.keys.units().foreign.iter().map(|list| list.name.clone()).collect()
    }

    pub(super) fn note_counts(&mut self, member_count: Option<usize>) -> bool {
        let counts = (self.held.count(), member_count.unwrap_or(self.said.counts.1));
        let is_news = counts != self.said.counts;
        self.said.counts = counts;
        self.standing.set_counts(counts.0, counts.1);
        is_news
    }

    pub(super) fn tell(&mut self, sight: &BoardSight) {
        let own = self.held.incarnation();
        let mut load = Others::default();
        for peer in sight.peers.live.iter().filter(|peer| peer.incarnation != own) {
            if let Ok(Entry { depth, settled_per_s, .. }) = &peer.entry {
                load.add(*depth, *settled_per_s, true);
            }
        }
        self.standing.set_others(load);
        let others = sight.peers.live.iter().filter(|peer| peer.incarnation != own && peer.is_member());
        let members = others.count() + usize::from(self.membership.member_since > 0);
        if self.note_counts(Some(members)) {
            (self.hooks.on_change)();
        }
    }

    pub(super) fn entry(&self) -> Entry {
        let anomaly = self.standing.anomaly();
        let held = self.tenures.leased();
        Entry {
            seen_at: 0,
            format: FORMAT,
            name: self.options.name.clone(),
            version: self.options.version.clone(),
            pid: std::process::id(),
            started_at: self.started_at,
            ttl_ms: self.ttl_ms(),
            joined_at: self.membership.joined_at,
            member_since: if self.is_stopping { 0 } else { self.membership.member_since },
            anomaly: anomaly.map(|anomaly| (anomaly.code().to_owned(), anomaly.to_string())),
            is_stopping: self.is_stopping,
            units: held.iter().map(|(unit, _)| self.keys.unit_name(*unit)).collect(),
            lists: self.lists(),
            list_marks: board::list_marks(self.keys.units()),
            accepted_per_s: self.rates.accepted_per_s,
            settled_per_s: self.rates.settled_per_s,
            depth: self.vitals.depth,
            oldest_at: self.vitals.oldest_at,
            wallet: self.vitals.wallet.clone(),
            view: self.vitals.view.clone(),
            http: self.options.http.clone(),
        }
    }
}

/// Requests a second, measured over a second or more.
pub(super) struct Rates {
    at: Instant,
    accepted: u64,
    settled: u64,
    pub(super) accepted_per_s: u64,
    pub(super) settled_per_s: u64,
}

impl Rates {
    pub(super) fn new(at: Instant) -> Rates {
        Rates { at, accepted: 0, settled: 0, accepted_per_s: 0, settled_per_s: 0 }
    }

    pub(super) fn note(&mut self, now: Instant, vitals: &Vitals) {
        let ms = now.saturating_duration_since(self.at).as_millis() as u64;
        if ms < 1_000 {
            return;
        }
        self.accepted_per_s = vitals.accepted.saturating_sub(self.accepted) * 1_000 / ms;
        self.settled_per_s = vitals.settled.saturating_sub(self.settled) * 1_000 / ms;
        (self.at, self.accepted, self.settled) = (now, vitals.accepted, vitals.settled);
    }
}
