//! Answers about single requests, batches, campaigns, and what waits. All of it reads one snapshot.
//!
//! Absent: listings (`list`).

use rusqlite::{Connection, OptionalExtension, Row};

use super::ViewError;
use super::keyed::find_burned;
use super::keys::{currency_text, find_place};
use super::names::{find_batch, find_campaign, find_client};
use super::row::{BatchRow, StandingRow, TallyRow, WaitingRow};
use super::tally::{self, Filled, Table};
use crate::domain::{Kind, PayoutCode, Status, WaitReason};

const STANDING: &str = "SELECT r.place, c.name, r.id, r.kind, coalesce(o.status, 1), o.reason, o.code,
    k.name, r.party, r.merchant, r.agreement, r.original, b.name, r.amount, r.currency, r.remark,
    r.metadata, r.accepted_at, coalesce(o.updated_at, r.accepted_at), coalesce(o.settled_at, 0),
    coalesce(o.next_attempt_at, 0), coalesce(o.attempts, 0), o.wallet_ref, coalesce(o.reversed_amount, 0)
    FROM requests r CROSS JOIN clients c ON c.number = r.client
    CROSS JOIN campaigns k ON k.number = r.campaign
    LEFT JOIN batches b ON b.number = r.batch
    LEFT JOIN outcomes o ON o.place = r.place
    WHERE r.place = ?1";

fn known<T>(value: Option<T>, field: &'static str) -> Result<T, ViewError> {
    value.ok_or(ViewError::Stored(field))
}

fn number(row: &Row<'_>, column: usize) -> Result<u64, ViewError> {
    Ok(row.get::<_, i64>(column)?.unsigned_abs())
}

fn optional_text(row: &Row<'_>, column: usize) -> Result<String, ViewError> {
    Ok(row.get::<_, Option<String>>(column)?.unwrap_or_default())
}

fn standing_row(row: &Row<'_>) -> Result<StandingRow, ViewError> {
    Ok(StandingRow {
        place: number(row, 0)?,
        client: row.get(1)?,
        id: row.get(2)?,
        kind: known(Kind::from_u8(row.get(3)?), "kind")?,
        status: known(Status::from_u8(row.get(4)?), "status")?,
        reason: match row.get::<_, Option<u8>>(5)? {
            None => None,
            Some(byte) => Some(known(WaitReason::from_u8(byte), "reason")?),
        },
        code: match row.get::<_, Option<u8>>(6)? {
            None => None,
            Some(byte) => Some(known(PayoutCode::from_u8(byte), "code")?),
        },
        campaign: row.get(7)?,
        party: row.get(8)?,
        merchant: optional_text(row, 9)?,
        agreement: optional_text(row, 10)?,
        original: optional_text(row, 11)?,
        batch: optional_text(row, 12)?,
        amount: number(row, 13)?,
        currency: currency_text(row.get(14)?)?,
        remark: optional_text(row, 15)?,
        metadata: optional_text(row, 16)?,
        accepted_at: number(row, 17)?,
        updated_at: number(row, 18)?,
        settled_at: number(row, 19)?,
        next_attempt_at: number(row, 20)?,
        attempts: row.get(21)?,
        wallet_ref: optional_text(row, 22)?,
        reversed_amount: number(row, 23)?,
    })
}

/// The request accepted at `place`.
pub fn at_place(conn: &Connection, place: i64) -> Result<Option<StandingRow>, ViewError> {
    let mut select = conn.prepare_cached(STANDING)?;
    let mut rows = select.query([place])?;
    rows.next()?.map(standing_row).transpose()
}

/// One answer an id, in order.
pub fn find(conn: &Connection, client: &str, ids: &[String]) -> Result<Vec<Option<StandingRow>>, ViewError> {
    let Some(number) = find_client(conn, client)? else { return Ok(vec![None; ids.len()]) };
    ids.iter()
        .map(|id| match find_place(conn, number, client, id)? {
            Some(place) => at_place(conn, place),
            None => canceled(conn, (number, client), id),
        })
        .collect()
}

/// An id that was burned and never seen as a request is known by the cancel.
fn canceled(
    conn: &Connection,
    (number, client): (i64, &str),
    id: &str,
) -> Result<Option<StandingRow>, ViewError> {
    let Some(burned) = find_burned(conn, number, id)? else { return Ok(None) };
    let currency = currency_text(burned.currency)?;
    Ok(Some(StandingRow::canceled(client, id, currency, burned.accepted_at, burned.at)))
}

/// Whether a kind is tallied when nobody asks for one: what pays out or collects. A reversal shows as the
/// state of what it reversed, funding is not a payout.
pub const fn is_payout(kind: Kind) -> bool {
    match kind {
        Kind::Disbursement | Kind::Collection => true,
        Kind::Reversal | Kind::Fund | Kind::Defund | Kind::Cancel => false,
    }
}

fn wanted(kind: Option<Kind>) -> impl Fn(Kind) -> bool {
    move |found| kind.map_or(is_payout(found), |kind| found == kind)
}

pub fn batch(conn: &Connection, client: &str, id: &str) -> Result<Option<BatchRow>, ViewError> {
    let Some(client_number) = find_client(conn, client)? else { return Ok(None) };
    let Some(number) = find_batch(conn, client_number, id)? else { return Ok(None) };
    let (campaign, currency, accepted_at): (String, i64, i64) = conn
        .prepare_cached(
            "SELECT k.name, b.currency, b.accepted_at FROM batches b
             JOIN campaigns k ON k.number = b.campaign WHERE b.number = ?1",
        )?
        .query_row([number], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(Some(BatchRow {
        client: client.to_owned(),
        id: id.to_owned(),
        campaign,
        currency: currency_text(currency)?,
        accepted_at: accepted_at.unsigned_abs(),
        tally: tally::of_owner(conn, Table::Batch, number, wanted(None))?,
    }))
}

pub fn campaign(
    conn: &Connection,
    client: &str,
    id: &str,
    kind: Option<Kind>,
) -> Result<Option<TallyRow>, ViewError> {
    let Some(client) = find_client(conn, client)? else { return Ok(None) };
    let Some(number) = find_campaign(conn, client, id)? else { return Ok(None) };
    Ok(Some(tally::of_owner(conn, Table::Campaign, number, wanted(kind))?))
}

/// What is not final, of all clients and kinds, in the order of states and reasons.
pub fn waiting(conn: &Connection) -> Result<Vec<WaitingRow>, ViewError> {
    let mut found: Vec<WaitingRow> = Vec::new();
    let mut cells = tally::cells(conn, Table::Wait, None)?;
    cells.sort_by_key(|filled| (filled.cell.status, filled.cell.owner));
    for Filled { cell, count, amount } in cells {
        let status = cell.status;
        let reason = match u8::try_from(cell.owner) {
            Ok(0) => None,
            Ok(byte) => Some(known(WaitReason::from_u8(byte), "reason")?),
            Err(_) => return Err(ViewError::Stored("reason")),
        };
        match found.last_mut() {
            Some(last) if (last.status, last.reason) == (status, reason) => {
                last.count += count;
                last.amount = last.amount.saturating_add(amount);
            }
            _ => {
                let oldest_accepted_at = oldest(conn, status, reason)?;
                found.push(WaitingRow { status, reason, count, amount, oldest_accepted_at });
            }
        }
    }
    Ok(found)
}

/// When the first accepted one of those in a waiting state was accepted. Every query is led by an index.
fn oldest(conn: &Connection, status: Status, reason: Option<WaitReason>) -> Result<u64, ViewError> {
    let accepted_at = "SELECT accepted_at FROM requests WHERE place =";
    let reason = reason.map(|reason| reason as u8);
    let at: Option<i64> = match status {
        Status::Accepted => conn
            .prepare_cached(
                "SELECT r.accepted_at FROM zones z CROSS JOIN requests r
                 ON r.place BETWEEN (z.zone << 18) AND (z.zone << 18) + 262143
                 LEFT JOIN outcomes o ON o.place = r.place
                 WHERE z.untouched_count > 0 AND coalesce(o.status, 1) = 1 LIMIT 1",
            )?
            .query_row([], |row| row.get(0))
            .optional()?,
        Status::Queued => conn
            .prepare_cached(&format!(
                "{accepted_at} (SELECT place FROM outcomes INDEXED BY by_wait
                 WHERE status = 2 AND reason IS ?1 ORDER BY place LIMIT 1)"
            ))?
            .query_row([reason], |row| row.get(0))
            .optional()?,
        Status::Processing
        | Status::Unknown
        | Status::Succeeded
        | Status::Failed
        | Status::Canceled
        | Status::Expired
        | Status::Reversed => conn
            .prepare_cached(&format!(
                "{accepted_at} (SELECT min(first) FROM (SELECT (SELECT place FROM outcomes INDEXED BY by_state
                 WHERE client = c.number AND status = ?1 AND status NOT IN (1, 5) AND reason IS ?2
                 ORDER BY place LIMIT 1) AS first FROM clients c))"
            ))?
            .query_row((status as u8, reason), |row| row.get(0))
            .optional()?,
    };
    Ok(at.unwrap_or(0).unsigned_abs())
}
