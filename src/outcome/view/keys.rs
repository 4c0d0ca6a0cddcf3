//! The numbers that stand for names and codes in rows and indexes, and how an id leads to its place.

use rusqlite::{Connection, params};

use super::ViewError;
use super::schema::ERA_BITS;
use crate::digest;
use crate::domain::{Currency, PayoutCode};

/// A currency as its three letters read as one number.
pub fn currency_number(bytes: [u8; 3]) -> i64 {
    i64::from(u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]))
}

pub fn currency_text(number: i64) -> Result<String, ViewError> {
    let [_, a, b, c] = u32::try_from(number).unwrap_or(0).to_be_bytes();
    Ok(Currency::from_bytes([a, b, c]).ok_or(ViewError::Stored("currency"))?.as_str().to_owned())
}

/// Under what a party is indexed: hash of `client number:party`.
pub fn party_hash(client: i64, party: &str) -> i64 {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = client.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let client = std::str::from_utf8(&digits[at..]).expect("digits are UTF-8");
    digest::key_hash_of(client, party) as i64
}

/// Index entries since the transaction began: written sorted, and much the cheaper for it.
#[derive(Debug, Default)]
pub struct Entries {
    keys: Vec<[i64; 3]>,
    parties: Vec<[i64; 3]>,
    era_last: Option<i64>,
}

impl Entries {
    pub fn add(&mut self, place: i64, key_hash: i64, party_hash: Option<i64>) {
        let era = place >> ERA_BITS;
        self.keys.push([era, key_hash, place]);
        if let Some(party_hash) = party_hash {
            self.parties.push([era, party_hash, place]);
        }
    }

    pub fn flush(&mut self, conn: &Connection) -> Result<(), ViewError> {
        self.keys.sort_unstable();
        self.parties.sort_unstable();
        for [era, ..] in &self.keys {
            if self.era_last != Some(*era) {
                conn.prepare_cached("INSERT OR IGNORE INTO eras VALUES (?1)")?.execute([era])?;
                self.era_last = Some(*era);
            }
        }
        let mut key = conn.prepare_cached("INSERT INTO keys VALUES (?1, ?2, ?3)")?;
        for entry in self.keys.drain(..) {
            key.execute(entry)?;
        }
        let mut party = conn.prepare_cached("INSERT INTO parties VALUES (?1, ?2, ?3)")?;
        for entry in self.parties.drain(..) {
            party.execute(entry)?;
        }
        Ok(())
    }
}

/// Where `client:id` was accepted. If it was accepted more than once, the first that is not a conflict with
/// another counts.
pub fn find_place(
    conn: &Connection,
    client: i64,
    client_name: &str,
    id: &str,
) -> Result<Option<i64>, ViewError> {
    let found = search(conn, client, client_name, id)?;
    Ok(found.holder.or(found.first))
}

/// The same, and nothing where there are conflicts only.
pub fn find_holder(
    conn: &Connection,
    client: i64,
    client_name: &str,
    id: &str,
) -> Result<Option<i64>, ViewError> {
    Ok(search(conn, client, client_name, id)?.holder)
}

#[derive(Default)]
struct Found {
    first: Option<i64>,
    /// The first that is no conflict.
    holder: Option<i64>,
}

fn search(conn: &Connection, client: i64, client_name: &str, id: &str) -> Result<Found, ViewError> {
    let mut select = conn.prepare_cached(
        "SELECT r.place, coalesce(o.code, 0) FROM eras e
         CROSS JOIN keys x ON x.era = e.era AND x.key_hash = ?1
         CROSS JOIN requests r ON r.place = x.place
         LEFT JOIN outcomes o ON o.place = r.place
         WHERE r.client = ?2 AND r.id = ?3 ORDER BY r.place",
    )?;
    let mut rows = select.query(params![digest::key_hash_of(client_name, id) as i64, client, id])?;
    let mut found = Found::default();
    while let Some(row) = rows.next()? {
        let (place, code): (i64, i64) = (row.get(0)?, row.get(1)?);
        found.first.get_or_insert(place);
        if code != PayoutCode::IdConflict as i64 {
            found.holder = Some(place);
            break;
        }
    }
    Ok(found)
}
