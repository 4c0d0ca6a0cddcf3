//! Writes a sheet back: what is new, what moved, and the tallies, each in one statement over arrays.
//!
//! Rows go in the order of the sheet, which is that of the locks.

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::connect::Failure;
use super::sheet::{Burned, Credit, Key, Sheet, Stored};

pub type Param<'p> = (&'p (dyn ToSql + Sync), Type);

pub async fn store(client: &Client, sheet: &Sheet) -> Result<(), Failure> {
    let all = || sheet.rows.values().flatten();
    let new: Vec<&Stored> = all().filter(|stored| stored.is_new).collect();
    let moved: Vec<&Stored> = all().filter(|stored| stored.is_changed && !stored.is_new).collect();
    if !new.is_empty() {
        insert(client, &new).await?;
    }
    if !moved.is_empty() {
        update(client, &moved).await?;
    }
    store_batches(client, sheet).await?;
    store_tallies(client, sheet).await?;
    store_kept(client, sheet).await
}

fn texts<'s>(rows: &[&'s Stored], text: impl Fn(&'s Stored) -> &'s str) -> Vec<&'s str> {
    rows.iter().map(|stored| text(stored)).collect()
}

fn numbers(rows: &[&Stored], number: impl Fn(&Stored) -> u64) -> Vec<i64> {
    // Times and sums beyond 63 bits are none of this world.
    rows.iter().map(|stored| i64::try_from(number(stored)).unwrap_or(i64::MAX)).collect()
}

fn smalls(rows: &[&Stored], number: impl Fn(&Stored) -> Option<u8>) -> Vec<Option<i16>> {
    rows.iter().map(|stored| number(stored).map(i16::from)).collect()
}

/// What of a row moves.
struct Moving<'s> {
    clients: Vec<&'s str>,
    ids: Vec<&'s str>,
    digests: Vec<&'s [u8]>,
    statuses: Vec<Option<i16>>,
    reasons: Vec<Option<i16>>,
    codes: Vec<Option<i16>>,
    updated: Vec<i64>,
    settled: Vec<i64>,
    next: Vec<i64>,
    attempts: Vec<i64>,
    wallet_refs: Vec<&'s str>,
    reversed: Vec<i64>,
}

impl<'s> Moving<'s> {
    fn of(rows: &[&'s Stored]) -> Moving<'s> {
        Moving {
            clients: texts(rows, |stored| &stored.row.client),
            ids: texts(rows, |stored| &stored.row.id),
            digests: rows.iter().map(|stored| stored.digest.as_slice()).collect(),
            statuses: smalls(rows, |stored| Some(stored.row.status as u8)),
            reasons: smalls(rows, |stored| stored.row.reason.map(|reason| reason as u8)),
            codes: smalls(rows, |stored| stored.row.code.map(|code| code as u8)),
            updated: numbers(rows, |stored| stored.row.updated_at),
            settled: numbers(rows, |stored| stored.row.settled_at),
            next: numbers(rows, |stored| stored.row.next_attempt_at),
            attempts: numbers(rows, |stored| u64::from(stored.row.attempts)),
            wallet_refs: texts(rows, |stored| &stored.row.wallet_ref),
            reversed: numbers(rows, |stored| stored.row.reversed_amount),
        }
    }

    fn params(&self) -> Vec<Param<'_>> {
        vec![
            (&self.clients, Type::TEXT_ARRAY),
            (&self.ids, Type::TEXT_ARRAY),
            (&self.digests, Type::BYTEA_ARRAY),
            (&self.statuses, Type::INT2_ARRAY),
            (&self.reasons, Type::INT2_ARRAY),
            (&self.codes, Type::INT2_ARRAY),
            (&self.updated, Type::INT8_ARRAY),
            (&self.settled, Type::INT8_ARRAY),
            (&self.next, Type::INT8_ARRAY),
            (&self.attempts, Type::INT8_ARRAY),
            (&self.wallet_refs, Type::TEXT_ARRAY),
            (&self.reversed, Type::INT8_ARRAY),
        ]
    }
}

/// A key that somebody else inserts at this moment is an error, and the whole is done again.
async fn insert(client: &Client, rows: &[&Stored]) -> Result<(), Failure> {
    let moving = Moving::of(rows);
    let mut params = moving.params();
    let kinds = smalls(rows, |stored| Some(stored.row.kind as u8));
    let campaigns = texts(rows, |stored| &stored.row.campaign);
    let parties = texts(rows, |stored| &stored.row.party);
    let merchants = texts(rows, |stored| &stored.row.merchant);
    let agreements = texts(rows, |stored| &stored.row.agreement);
    let originals = texts(rows, |stored| &stored.row.original);
    let batches = texts(rows, |stored| &stored.row.batch);
    let amounts = numbers(rows, |stored| stored.row.amount);
    let currencies = texts(rows, |stored| &stored.row.currency);
    let remarks = texts(rows, |stored| &stored.row.remark);
    let metadata = texts(rows, |stored| &stored.row.metadata);
    let accepted = numbers(rows, |stored| stored.row.accepted_at);
    params.push((&kinds, Type::INT2_ARRAY));
    for column in [&campaigns, &parties, &merchants, &agreements, &originals, &batches] {
        params.push((column, Type::TEXT_ARRAY));
    }
    params.push((&amounts, Type::INT8_ARRAY));
    for column in [&currencies, &remarks, &metadata] {
        params.push((column, Type::TEXT_ARRAY));
    }
    params.push((&accepted, Type::INT8_ARRAY));
    let columns = "client, id, digest, status, reason, code, updated_at, settled_at, next_attempt_at, attempts,
        wallet_ref, reversed_amount, kind, campaign, party, merchant, agreement, original, batch, amount, currency,
        remark, metadata, accepted_at";
    let places: Vec<String> = (1..=params.len()).map(|number| format!("${number}")).collect();
    // In the order of the sheet, which is that of the locks, and within an id that in which requests were met.
    let insert = format!(
        "INSERT INTO hongbao_view_requests ({columns}) SELECT {columns}
         FROM unnest({}) WITH ORDINALITY AS t ({columns}, position) ORDER BY position",
        places.join(", ")
    );
    client.execute_typed(&insert, &params).await?;
    Ok(())
}

async fn update(client: &Client, rows: &[&Stored]) -> Result<(), Failure> {
    let update = "UPDATE hongbao_view_requests r SET status = t.status, reason = t.reason, code = t.code,
        updated_at = t.updated_at, settled_at = t.settled_at, next_attempt_at = t.next_attempt_at,
        attempts = t.attempts, wallet_ref = t.wallet_ref, reversed_amount = t.reversed_amount
        FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) AS t (client, id, digest, status, reason,
        code, updated_at, settled_at, next_attempt_at, attempts, wallet_ref, reversed_amount)
        WHERE r.client = t.client AND r.id = t.id AND r.digest = t.digest";
    let changed = client.execute_typed(update, &Moving::of(rows).params()).await?;
    assert_eq!(changed, rows.len() as u64, "locked rows stay where they are");
    Ok(())
}

async fn store_batches(client: &Client, sheet: &Sheet) -> Result<(), Failure> {
    if sheet.batches.is_empty() {
        return Ok(());
    }
    let all = || sheet.batches.iter();
    let clients: Vec<&str> = all().map(|((client, _), _)| client.as_str()).collect();
    let ids: Vec<&str> = all().map(|((_, id), _)| id.as_str()).collect();
    let campaigns: Vec<&str> = all().map(|(_, first)| first.campaign.as_str()).collect();
    let currencies: Vec<&str> = all().map(|(_, first)| first.currency.as_str()).collect();
    let accepted: Vec<i64> = all().map(|(_, first)| first.accepted_at as i64).collect();
    let insert =
        "INSERT INTO hongbao_view_batches SELECT * FROM unnest($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
    let params: [Param<'_>; 5] = [
        (&clients, Type::TEXT_ARRAY),
        (&ids, Type::TEXT_ARRAY),
        (&campaigns, Type::TEXT_ARRAY),
        (&currencies, Type::TEXT_ARRAY),
        (&accepted, Type::INT8_ARRAY),
    ];
    client.execute_typed(insert, &params).await?;
    Ok(())
}

async fn store_tallies(client: &Client, sheet: &Sheet) -> Result<(), Failure> {
    let all = || sheet.tallies.iter().filter(|(_, change)| change.count != 0 || change.amount != 0);
    let owners: Vec<i16> = all().map(|(cell, _)| cell.owner as i16).collect();
    if owners.is_empty() {
        return Ok(());
    }
    let clients: Vec<&str> = all().map(|(cell, _)| cell.client.as_str()).collect();
    let names: Vec<&str> = all().map(|(cell, _)| cell.name.as_str()).collect();
    let streams: Vec<&str> = all().map(|(cell, _)| cell.stream.as_str()).collect();
    let kinds: Vec<i16> = all().map(|(cell, _)| i16::from(cell.kind)).collect();
    let statuses: Vec<i16> = all().map(|(cell, _)| i16::from(cell.status)).collect();
    let counts: Vec<i64> = all().map(|(_, change)| change.count).collect();
    // Sums can pass what 63 bits hold: they travel as text.
    let amounts: Vec<String> = all().map(|(_, change)| change.amount.to_string()).collect();
    let upsert = "INSERT INTO hongbao_view_tallies AS s
        SELECT owner, client, name, stream, kind, status, count, amount::numeric
        FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) AS t (owner, client, name, stream, kind, status, count, amount)
        ON CONFLICT (owner, client, name, stream, kind, status)
        DO UPDATE SET count = s.count + excluded.count, amount = s.amount + excluded.amount";
    let params: [Param<'_>; 8] = [
        (&owners, Type::INT2_ARRAY),
        (&clients, Type::TEXT_ARRAY),
        (&names, Type::TEXT_ARRAY),
        (&streams, Type::TEXT_ARRAY),
        (&kinds, Type::INT2_ARRAY),
        (&statuses, Type::INT2_ARRAY),
        (&counts, Type::INT8_ARRAY),
        (&amounts, Type::TEXT_ARRAY),
    ];
    client.execute_typed(upsert, &params).await?;
    Ok(())
}

/// What is kept for requests that are not there yet. Rare, so one by one; in order.
async fn store_kept(client: &Client, sheet: &Sheet) -> Result<(), Failure> {
    let mut burned: Vec<(&Key, &Burned)> = sheet.burned.iter().filter(|(_, burned)| burned.is_new).collect();
    burned.sort_unstable_by_key(|(key, _)| *key);
    if !burned.is_empty() {
        let clients: Vec<&str> = burned.iter().map(|((client, _), _)| client.as_str()).collect();
        let ids: Vec<&str> = burned.iter().map(|((_, id), _)| id.as_str()).collect();
        let currencies: Vec<&str> = burned.iter().map(|(_, burned)| burned.currency.as_str()).collect();
        let accepted: Vec<i64> = burned.iter().map(|(_, burned)| burned.accepted_at as i64).collect();
        let at: Vec<i64> = burned.iter().map(|(_, burned)| burned.at as i64).collect();
        let insert =
            "INSERT INTO hongbao_view_burned SELECT * FROM unnest($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
        let params: [Param<'_>; 5] = [
            (&clients, Type::TEXT_ARRAY),
            (&ids, Type::TEXT_ARRAY),
            (&currencies, Type::TEXT_ARRAY),
            (&accepted, Type::INT8_ARRAY),
            (&at, Type::INT8_ARRAY),
        ];
        client.execute_typed(insert, &params).await?;
    }
    let mut credits: Vec<(&Key, &Credit)> =
        sheet.credits.iter().filter(|(_, credit)| credit.is_changed).collect();
    credits.sort_unstable_by_key(|(key, _)| *key);
    for ((owner, id), credit) in credits {
        let key: [Param<'_>; 2] = [(owner, Type::TEXT), (id, Type::TEXT)];
        if credit.amount == 0 {
            let delete = "DELETE FROM hongbao_view_credits WHERE client = $1 AND id = $2";
            client.execute_typed(delete, &key).await?;
        } else {
            let upsert = "INSERT INTO hongbao_view_credits VALUES ($1, $2, $3)
                ON CONFLICT (client, id) DO UPDATE SET amount = excluded.amount";
            let amount: Param<'_> = (&credit.amount, Type::INT8);
            client.execute_typed(upsert, &[key[0].clone(), key[1].clone(), amount]).await?;
        }
    }
    Ok(())
}
