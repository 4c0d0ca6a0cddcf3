//! Zones: what a run of the log holds at most, so that a scan can pass over it.
//!
//! Gathered in memory during a transaction, written at its end. A zone never forgets: its bounds may be wider
//! than what it holds, never narrower.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;

use super::ViewError;
use super::schema::ZONE_BITS;

/// What changed in the zones since the transaction began.
#[derive(Debug, Default)]
pub struct Zones {
    changes: HashMap<i64, ZoneChange>,
    last: Option<(i64, ZoneChange)>,
    campaigns: Owners,
    batches: Owners,
}

/// Who has requests in which zones.
#[derive(Debug, Default)]
struct Owners {
    new: HashSet<(i64, i64)>,
    last: Option<(i64, i64)>,
}

impl Owners {
    fn add(&mut self, owner: i64, zone: i64) {
        if self.last != Some((owner, zone)) {
            self.last = Some((owner, zone));
            self.new.insert((owner, zone));
        }
    }

    fn flush(&mut self, conn: &Connection, insert: &str) -> Result<(), ViewError> {
        self.last = None;
        let mut insert = conn.prepare_cached(insert)?;
        for (owner, zone) in self.new.drain() {
            insert.execute([owner, zone])?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct ZoneChange {
    accepted_max: i64,
    settled_max: i64,
    untouched: i64,
}

impl ZoneChange {
    fn merge(&mut self, other: ZoneChange) {
        self.accepted_max = self.accepted_max.max(other.accepted_max);
        self.settled_max = self.settled_max.max(other.settled_max);
        self.untouched += other.untouched;
    }
}

impl Zones {
    fn change(&mut self, place: i64, change: ZoneChange) {
        let zone = place >> ZONE_BITS;
        match &mut self.last {
            Some((last, gathered)) if *last == zone => gathered.merge(change),
            _ => {
                self.settle_last();
                self.last = Some((zone, change));
            }
        }
    }

    fn settle_last(&mut self) {
        if let Some((zone, change)) = self.last.take() {
            self.changes.entry(zone).or_default().merge(change);
        }
    }

    pub fn accepted(&mut self, place: i64, at: i64, campaign: i64, batch: Option<i64>) {
        self.campaigns.add(campaign, place >> ZONE_BITS);
        if let Some(batch) = batch {
            self.batches.add(batch, place >> ZONE_BITS);
        }
        self.change(place, ZoneChange { accepted_max: at, settled_max: 0, untouched: 1 });
    }

    pub fn left_accepted(&mut self, place: i64) {
        self.change(place, ZoneChange { untouched: -1, ..ZoneChange::default() });
    }

    pub fn settled(&mut self, place: i64, at: i64) {
        self.change(place, ZoneChange { settled_max: at, ..ZoneChange::default() });
    }

    pub fn flush(&mut self, conn: &Connection) -> Result<(), ViewError> {
        self.settle_last();
        let mut upsert = conn.prepare_cached(
            "INSERT INTO zones VALUES (?1, ?2, ?3, ?4) ON CONFLICT (zone) DO UPDATE SET
             accepted_max = max(accepted_max, excluded.accepted_max),
             settled_max = max(settled_max, excluded.settled_max),
             untouched_count = untouched_count + excluded.untouched_count",
        )?;
        for (zone, change) in self.changes.drain() {
            upsert.execute([zone, change.accepted_max, change.settled_max, change.untouched])?;
        }
        self.campaigns.flush(conn, "INSERT OR IGNORE INTO campaign_zones VALUES (?1, ?2)")?;
        self.batches.flush(conn, "INSERT OR IGNORE INTO batch_zones VALUES (?1, ?2)")
    }
}
