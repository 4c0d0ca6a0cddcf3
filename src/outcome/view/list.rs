//! Listings: pages in ascending order of acceptance (of place), which no later insert disturbs.
//!
//! The narrowest filter leads, in order of place: along an index, or through the zones that hold any of a
//! batch or campaign. The others are checked row by row. A page looks at no more than [`LOOKED_AT_MAX`] rows,
//! and is short if that was not enough to fill it.

use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, Row};

use super::keys::party_hash;
use super::names::{find_batch, find_campaign, find_client};
use super::row::{LIMIT_MAX, ListRows, PageRows};
use super::schema::{ERA_BITS, ZONE_BITS};
use super::{ViewError, cursor, query};
use crate::domain::{Kind, Status};

/// Rows looked at for one page, at most: about a tenth of a second.
pub const LOOKED_AT_MAX: usize = 50_000;

/// A listing with its names looked up.
#[derive(Debug)]
struct Plan {
    client: i64,
    campaign: Option<i64>,
    batch: Option<i64>,
    party: Option<(i64, String)>,
    status: Option<Status>,
    kind: Option<Kind>,
    accepted_from: i64,
    settled_from: i64,
    after: i64,
}

pub fn page(
    conn: &Connection,
    secret: &[u8; 32],
    asked: &ListRows,
    looked_at_max: usize,
) -> Result<PageRows, ViewError> {
    let after = match &asked.cursor {
        Some(text) => i64::try_from(cursor::read(secret, asked, text)?).unwrap_or(i64::MAX),
        None => -1,
    };
    let Some(plan) = plan(conn, asked, after)? else {
        return Ok(PageRows { data: Vec::new(), next_cursor: None });
    };
    let limit = asked.limit.clamp(1, LIMIT_MAX) as usize;
    let found = plan.scan(conn, Bounds { found: limit, looked_at: looked_at_max })?;
    let mut data = Vec::with_capacity(found.places.len());
    for place in found.places {
        data.push(query::at_place(conn, place)?.ok_or(ViewError::Stored("place"))?);
    }
    let next_cursor = found.go_on_after.map(|place| cursor::write(secret, asked, place.unsigned_abs()));
    Ok(PageRows { data, next_cursor })
}

/// `None` if a name was never met: then nothing can match.
fn plan(conn: &Connection, asked: &ListRows, after: i64) -> Result<Option<Plan>, ViewError> {
    let Some(client) = find_client(conn, &asked.client)? else { return Ok(None) };
    let campaign = match &asked.campaign {
        None => None,
        Some(name) => match find_campaign(conn, client, name)? {
            None => return Ok(None),
            found => found,
        },
    };
    let batch = match &asked.batch {
        None => None,
        Some(name) => match find_batch(conn, client, name)? {
            None => return Ok(None),
            found => found,
        },
    };
    Ok(Some(Plan {
        client,
        campaign,
        batch,
        party: asked.party.as_ref().map(|party| (party_hash(client, party), party.clone())),
        status: asked.status,
        kind: asked.kind,
        accepted_from: i64::try_from(asked.accepted_from).unwrap_or(i64::MAX),
        settled_from: i64::try_from(asked.settled_from).unwrap_or(i64::MAX),
        after,
    }))
}

#[derive(Debug, Default)]
struct Found {
    places: Vec<i64>,
    /// Where the next page begins, if there may be one.
    go_on_after: Option<i64>,
}

/// Where one page ends, at the latest.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    found: usize,
    looked_at: usize,
}

// The queries here and in `query` spell the width of a zone out.
const _: () = assert!(ZONE_BITS == 18);

const COLUMNS: &str = "SELECT r.place, r.client, r.campaign, r.batch, r.kind, r.accepted_at, r.party";

const BY_PARTY: &str = "FROM eras e CROSS JOIN parties x
    ON x.era = e.era AND x.party_hash = ?2 AND x.place > ?1
    CROSS JOIN requests r ON r.place = x.place WHERE e.era >= ?3 ORDER BY e.era, x.place";

const BY_STATE: &str = "FROM outcomes o INDEXED BY by_state CROSS JOIN requests r ON r.place = o.place
    WHERE o.client = ?2 AND o.status = ?3 AND o.status NOT IN (1, 5) AND o.place > ?1 ORDER BY o.place";

const BY_BATCH: &str = "FROM batch_zones q CROSS JOIN zones z ON z.zone = q.zone
    CROSS JOIN requests r NOT INDEXED
    ON r.place > max(?1, (z.zone << 18) - 1) AND r.place <= (z.zone << 18) + 262143
    WHERE q.owner = ?6 AND q.zone >= ?2
    AND z.accepted_max >= ?3 AND z.settled_max >= ?4 AND z.untouched_count >= ?5
    ORDER BY q.zone, r.place";

const BY_CAMPAIGN: &str = "FROM campaign_zones q CROSS JOIN zones z ON z.zone = q.zone
    CROSS JOIN requests r NOT INDEXED
    ON r.place > max(?1, (z.zone << 18) - 1) AND r.place <= (z.zone << 18) + 262143
    WHERE q.owner = ?6 AND q.zone >= ?2
    AND z.accepted_max >= ?3 AND z.settled_max >= ?4 AND z.untouched_count >= ?5
    ORDER BY q.zone, r.place";

const BY_PLACE: &str = "FROM zones z CROSS JOIN requests r NOT INDEXED
    ON r.place > max(?1, (z.zone << 18) - 1) AND r.place <= (z.zone << 18) + 262143
    WHERE z.zone >= ?2 AND z.accepted_max >= ?3 AND z.settled_max >= ?4 AND z.untouched_count >= ?5
    ORDER BY z.zone, r.place";

const OUTCOME: &str = "SELECT status, settled_at FROM outcomes WHERE place = ?1";

impl Plan {
    /// Picks the way with the fewest rows to look at.
    fn scan(&self, conn: &Connection, bounds: Bounds) -> Result<Found, ViewError> {
        let after = self.after;
        let zone = after.max(0) >> ZONE_BITS;
        let untouched = i64::from(self.status == Some(Status::Accepted));
        let zones = [after, zone, self.accepted_from, self.settled_from, untouched];
        let zones_of = |owner| [zones[0], zones[1], zones[2], zones[3], zones[4], owner];
        if let Some(batch) = self.batch {
            return self.walk(conn, BY_BATCH, zones_of(batch), bounds);
        }
        if let Some((hash, _)) = &self.party {
            return self.walk(conn, BY_PARTY, [after, *hash, after.max(0) >> ERA_BITS], bounds);
        }
        match (self.status, self.campaign) {
            (None | Some(Status::Accepted | Status::Succeeded), Some(campaign)) => {
                self.walk(conn, BY_CAMPAIGN, zones_of(campaign), bounds)
            }
            (None | Some(Status::Accepted | Status::Succeeded), None) => {
                self.walk(conn, BY_PLACE, zones, bounds)
            }
            (Some(status), _) => self.walk(conn, BY_STATE, [after, self.client, status as i64], bounds),
        }
    }

    fn walk(
        &self,
        conn: &Connection,
        way: &str,
        values: impl Params,
        bounds: Bounds,
    ) -> Result<Found, ViewError> {
        let mut select = conn.prepare_cached(&format!("{COLUMNS} {way}"))?;
        let mut outcome = conn.prepare_cached(OUTCOME)?;
        let mut rows = select.query(values)?;
        let mut found = Found::default();
        let mut looked_at = 0;
        let mut last = self.after;
        while let Some(row) = rows.next()? {
            if looked_at == bounds.looked_at {
                found.go_on_after = Some(last);
                break;
            }
            looked_at += 1;
            let place = row.get(0)?;
            if self.takes(row)? && self.takes_outcome(&mut outcome, place)? {
                if found.places.len() == bounds.found {
                    found.go_on_after = Some(last);
                    break;
                }
                found.places.push(place);
            }
            last = place;
        }
        Ok(found)
    }

    fn takes(&self, row: &Row<'_>) -> Result<bool, ViewError> {
        let kind: u8 = row.get(4)?;
        let kind = Kind::from_u8(kind).ok_or(ViewError::Stored("kind"))?;
        let kind_taken = match self.kind {
            Some(wanted) => kind == wanted,
            None => is_listed(kind),
        };
        if !kind_taken || row.get::<_, i64>(1)? != self.client {
            return Ok(false);
        }
        if self.campaign.is_some() && row.get::<_, Option<i64>>(2)? != self.campaign {
            return Ok(false);
        }
        if self.batch.is_some() && row.get::<_, Option<i64>>(3)? != self.batch {
            return Ok(false);
        }
        if row.get::<_, i64>(5)? < self.accepted_from {
            return Ok(false);
        }
        Ok(match &self.party {
            Some((_, party)) => row.get_ref(6)?.as_str().is_ok_and(|found| found == party),
            None => true,
        })
    }

    /// Asked only of rows that are right in all else.
    fn takes_outcome(&self, select: &mut CachedStatement<'_>, place: i64) -> Result<bool, ViewError> {
        if self.status.is_none() && self.settled_from == 0 {
            return Ok(true);
        }
        let outcome = select.query_row([place], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let (status, settled_at): (u8, i64) = outcome.unwrap_or((Status::Accepted as u8, 0));
        let status_taken = self.status.is_none_or(|wanted| wanted as u8 == status);
        Ok(status_taken && settled_at >= self.settled_from)
    }
}

/// Whether a kind is listed when nobody asks for one.
const fn is_listed(kind: Kind) -> bool {
    match kind {
        Kind::Disbursement | Kind::Collection | Kind::Reversal => true,
        Kind::Fund | Kind::Defund | Kind::Cancel => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_is_led_by_an_index_and_sorts_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let conn = super::super::schema::open_writer(&folder.path().join("view.sqlite")).unwrap();
        for way in [BY_BATCH, BY_PARTY, BY_STATE, BY_CAMPAIGN, BY_PLACE] {
            let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {COLUMNS} {way}")).unwrap();
            let values = vec![0i64; explain.parameter_count()];
            let steps = explain.query_map(rusqlite::params_from_iter(values), |row| row.get(3)).unwrap();
            let steps: Vec<String> = steps.map(Result::unwrap).collect();
            for step in steps {
                assert!(!step.contains("TEMP B-TREE") && !step.contains("SCAN r"), "{way}: {step}");
            }
        }
    }
}
