//! Holds that end by themselves: which have, in the way of a batch; and the table that knows when.
//!
//! What holds: the only clock is the database's, read once a transaction (`now()`), so that everything a transaction
//! decides it decides as of one moment, and a call that began in time is in time. A row stands here as long as its
//! hold is open; one whose hold has ended (an older release knows nothing of this table) does no harm and is
//! removed when it falls due. What is due is found without a lock, and voided only where it is still open once the
//! hold and then the account are locked, in the order of `exact`. Absent: any sweep; a hold that stands in
//! nobody's way stays as it is.

use std::collections::BTreeSet;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::books::{Hold, Record};
use super::exact::Param;
use super::failure::Failure;
use super::record::Entry;

/// Holds that one transaction voids; where as many are due, it does nothing else, and another follows.
pub const DUE_MAX: usize = 1_000;

const DUE: &str = "
SELECT id FROM (
    SELECT id FROM hongbao_expiries WHERE id = ANY($1) AND expires_at <= now()
    UNION
    SELECT due.id FROM unnest($2::text[], $3::text[]) AS payer (name, currency), LATERAL (
        SELECT id FROM hongbao_expiries
        WHERE debit = payer.name AND currency = payer.currency AND expires_at <= now()
        ORDER BY expires_at LIMIT $4) AS due) AS due
LIMIT $4";

const NOTE: &str = "
INSERT INTO hongbao_expiries (id, debit, currency, expires_at)
SELECT id, debit, currency, now() + interval '1 second' * seconds
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS hold (id, debit, currency, seconds)";

const FORGET: &str = "DELETE FROM hongbao_expiries WHERE id = ANY($1)";

/// The holds that have expired among those that the entries are about, or that set money of their payers aside.
pub async fn due(client: &Client, entries: &[Entry<'_>]) -> Result<Vec<String>, Failure> {
    let of: Vec<&str> = entries.iter().map(|entry| entry.of).filter(|of| !of.is_empty()).collect();
    let payers: BTreeSet<(&str, &str)> = entries
        .iter()
        .filter(|entry| !entry.debit.is_empty())
        .map(|entry| (entry.debit, entry.currency.as_str()))
        .collect();
    let (names, currencies): (Vec<&str>, Vec<&str>) = payers.into_iter().unzip();
    let limit = DUE_MAX as i64;
    let params: [Param<'_>; 4] = [
        (&of, Type::TEXT_ARRAY),
        (&names, Type::TEXT_ARRAY),
        (&currencies, Type::TEXT_ARRAY),
        (&limit, Type::INT8),
    ];
    let rows = client.query_typed(DUE, &params).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Writes down when the holds among these new records end.
pub async fn note(client: &Client, claimed: &[(&String, &Record)]) -> Result<(), Failure> {
    let (mut ids, mut debits, mut currencies, mut seconds) = (vec![], vec![], vec![], vec![]);
    for (id, record) in claimed {
        // A hold that its own batch has ended needs none.
        if record.hold != Some(Hold::Open) || record.expires_in_s == 0 {
            continue;
        }
        let (debit, _, currency) = record.sides.as_ref().expect("a hold has sides");
        ids.push(id.as_str());
        debits.push(debit.as_str());
        currencies.push(currency.as_str());
        seconds.push(i64::from(record.expires_in_s));
    }
    if ids.is_empty() {
        return Ok(());
    }
    let params: [Param<'_>; 4] = [
        (&ids, Type::TEXT_ARRAY),
        (&debits, Type::TEXT_ARRAY),
        (&currencies, Type::TEXT_ARRAY),
        (&seconds, Type::INT8_ARRAY),
    ];
    client.execute_typed(NOTE, &params).await?;
    Ok(())
}

/// Removes what was due, and the holds among these records that have ended.
pub async fn forget(client: &Client, changed: &[(&String, &Record)], due: &[String]) -> Result<(), Failure> {
    let ended = changed.iter().filter(|(_, record)| record.hold.is_some_and(|hold| hold != Hold::Open));
    let mut ids: BTreeSet<&str> = ended.map(|(id, _)| id.as_str()).collect();
    ids.extend(due.iter().map(String::as_str));
    if ids.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = ids.into_iter().collect();
    client.execute_typed(FORGET, &[(&ids, Type::TEXT_ARRAY)]).await?;
    Ok(())
}
