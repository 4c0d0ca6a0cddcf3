//! What became final in a span of time, in pages: for whoever compares our books with another's.
//!
//! It reads the view's file beside a running service, through a connection of its own that can only read. Ascending
//! by place; what becomes final meanwhile with a time before `to` may be missed, so end the span in the past.

use std::path::Path;

use rusqlite::Connection;

use super::keys::currency_text;
use super::{ViewError, schema};
use crate::domain::{Kind, PayoutCode, Status, UnixMs};

/// One request that became final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalRow {
    pub place: u64,
    pub client: String,
    pub id: String,
    pub kind: Kind,
    pub status: Status,
    pub code: Option<PayoutCode>,
    pub amount: u64,
    pub currency: String,
}

pub struct History {
    conn: Connection,
    from: i64,
    to: i64,
}

impl History {
    /// What became final from `from` on and before `to`, Unix ms.
    pub fn open(path: &Path, from: UnixMs, to: UnixMs) -> Result<History, ViewError> {
        let bound = |at: UnixMs| i64::try_from(at).unwrap_or(i64::MAX);
        Ok(History { conn: schema::open_reader(path)?, from: bound(from).max(1), to: bound(to) })
    }

    pub fn count(&self) -> Result<u64, ViewError> {
        let sql = "SELECT count(*) FROM outcomes o JOIN requests r ON r.place = o.place
            WHERE o.settled_at >= ?1 AND o.settled_at < ?2 AND r.kind <> ?3";
        let mut statement = self.conn.prepare_cached(sql)?;
        let count: i64 = statement.query_row((self.from, self.to, Kind::Cancel as u8), |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    /// The next ones after this place; fewer than `count_max` only at the end. Cancels are no transfers, and left out.
    pub fn page(&self, after_place: Option<u64>, count_max: usize) -> Result<Vec<FinalRow>, ViewError> {
        let sql = "SELECT r.place, c.name, r.id, r.kind, o.status, o.code, r.amount, r.currency
            FROM requests r CROSS JOIN outcomes o ON o.place = r.place
            CROSS JOIN clients c ON c.number = r.client
            WHERE r.place > ?1 AND o.settled_at >= ?2 AND o.settled_at < ?3 AND r.kind <> ?4
            ORDER BY r.place LIMIT ?5";
        let after = after_place.map_or(-1, |place| i64::try_from(place).unwrap_or(i64::MAX));
        let limit = i64::try_from(count_max).unwrap_or(i64::MAX);
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query((after, self.from, self.to, Kind::Cancel as u8, limit))?;
        let mut page = Vec::new();
        while let Some(row) = rows.next()? {
            page.push(FinalRow {
                place: row.get::<_, i64>(0)?.unsigned_abs(),
                client: row.get(1)?,
                id: row.get(2)?,
                kind: Kind::from_u8(row.get(3)?).ok_or(ViewError::Stored("kind"))?,
                status: Status::from_u8(row.get(4)?).ok_or(ViewError::Stored("status"))?,
                code: row.get::<_, Option<u8>>(5)?.and_then(PayoutCode::from_u8),
                amount: row.get::<_, i64>(6)?.unsigned_abs(),
                currency: currency_text(row.get(7)?)?,
            });
        }
        Ok(page)
    }
}
