//! Decides a batch entry by entry, in one transaction: lock what it rests on, read, decide here, write. Holds in its
//! way that have expired (`expiry`) are voided first.
//!
//! What holds: the transfers that others refer to are locked first, then the accounts, each in order, and the ids
//! are read after that, so that nobody who moves this money can come between. Ids are claimed last: an id that
//! somebody claims at the same moment for other accounts makes the whole transaction start anew. Since a single
//! statement (`at_once`) claims ids before accounts, a wait for an id is cut short: it could be a circle.

use std::collections::{BTreeSet, HashSet};

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::books::{Account, Books, Hold, Record};
use super::expiry;
use super::failure::Failure;
use super::record::{Decided, Entry, may_go_below_zero};
use crate::domain::{Currency, TransferStatus};

/// Milliseconds to wait for somebody who claims the same id.
const CLAIM_WAIT: &str = "SET LOCAL lock_timeout = 100";

const LOCK_RECORDS: &str = "
SELECT id, kind, digest, code, debit, credit, currency, amount, of_id, hold, reversed
FROM hongbao_transfers WHERE id = ANY($1) ORDER BY id FOR UPDATE";

const READ_RECORDS: &str = "
SELECT id, kind, digest, code, debit, credit, currency, amount, of_id, hold, reversed
FROM hongbao_transfers WHERE id = ANY($1)";

const LOCK_ACCOUNTS: &str = "
SELECT name, currency, balance, held FROM hongbao_accounts
WHERE (name, currency) IN (SELECT name, currency FROM unnest($1::text[], $2::text[]) AS wanted (name, currency))
ORDER BY name, currency FOR UPDATE";

const CLAIM: &str = "
INSERT INTO hongbao_transfers
    (id, kind, digest, debit, credit, currency, amount, code, of_id, hold, reversed)
SELECT * FROM unnest($1::text[], $2::smallint[], $3::bytea[], $4::text[], $5::text[], $6::text[], $7::bigint[],
    $8::smallint[], $9::text[], $10::smallint[], $11::bigint[])
ON CONFLICT (id) DO NOTHING";

const UPDATE_RECORDS: &str = "
UPDATE hongbao_transfers SET hold = changed.hold, reversed = changed.reversed
FROM unnest($1::text[], $2::smallint[], $3::bigint[]) AS changed (id, hold, reversed)
WHERE hongbao_transfers.id = changed.id";

const UPDATE_ACCOUNTS: &str = "
UPDATE hongbao_accounts SET balance = balance + changed.balance_change, held = held + changed.held_change
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])
    AS changed (name, currency, balance_change, held_change)
WHERE hongbao_accounts.name = changed.name AND hongbao_accounts.currency = changed.currency";

/// A new account that somebody else opened since it was looked for can only hold more than was thought.
const OPEN_ACCOUNTS: &str = "
INSERT INTO hongbao_accounts AS account (name, currency, balance, held, may_go_below_zero)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::boolean[])
ON CONFLICT (name, currency) DO UPDATE
SET balance = account.balance + excluded.balance, held = account.held + excluded.held";

pub type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// Decides the entries in order. After an error the connection stands outside the
/// transaction, or is of no use.
pub async fn decide(client: &Client, entries: &[Entry<'_>]) -> Result<Vec<TransferStatus>, Failure> {
    // Each round commits; all but the last void as many holds as one transaction may.
    let decided = loop {
        match transact(client, entries).await {
            Ok(None) => {}
            Ok(Some(statuses)) => break Ok(statuses),
            Err(failure) => break Err(failure),
        }
    };
    if let Err(failure) = &decided {
        let outside = client.batch_execute("ROLLBACK").await;
        // To send it again on a connection that broke would only fail.
        if let (Failure::Again(_), Err(error)) = (failure, outside) {
            return Err(error.into());
        }
    }
    decided
}

/// `None`: so many holds had expired that only they were voided, and there may be more.
async fn transact(client: &Client, entries: &[Entry<'_>]) -> Result<Option<Vec<TransferStatus>>, Failure> {
    client.batch_execute("BEGIN").await?;
    let due = expiry::due(client, entries).await?;
    let entries = if due.len() < expiry::DUE_MAX { Some(entries) } else { None };
    let mut books = read(client, entries.unwrap_or_default(), &due).await?;
    due.iter().for_each(|id| books.expire(id));
    let statuses = entries.map(|entries| entries.iter().map(|entry| books.decide(entry)).collect());
    write(client, &books, &due).await?;
    client.batch_execute("COMMIT").await?;
    Ok(statuses)
}

async fn read(client: &Client, entries: &[Entry<'_>], due: &[String]) -> Result<Books, Failure> {
    let mut books = Books::default();
    let mut of: Vec<&str> = entries.iter().map(|entry| entry.of).filter(|of| !of.is_empty()).collect();
    of.extend(due.iter().map(String::as_str));
    if !of.is_empty() {
        add_records(&mut books, &client.query_typed(LOCK_RECORDS, &[(&of, Type::TEXT_ARRAY)]).await?)?;
    }
    let mut wanted: BTreeSet<(&str, Currency)> = BTreeSet::new();
    for entry in entries.iter().filter(|entry| !entry.debit.is_empty() && !entry.credit.is_empty()) {
        wanted.extend([(entry.debit, entry.currency), (entry.credit, entry.currency)]);
    }
    let referred: Vec<(String, String, Currency)> =
        books.records.values().filter_map(|record| record.sides.clone()).collect();
    for (debit, credit, currency) in &referred {
        wanted.extend([(debit.as_str(), *currency), (credit.as_str(), *currency)]);
    }
    let names: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
    let currencies: Vec<&str> = wanted.iter().map(|(_, currency)| currency.as_str()).collect();
    let params: [Param<'_>; 2] = [(&names, Type::TEXT_ARRAY), (&currencies, Type::TEXT_ARRAY)];
    for row in client.query_typed(LOCK_ACCOUNTS, &params).await? {
        let account =
            Account { balance: row.try_get(2)?, held: row.try_get(3)?, stored: true, ..Account::default() };
        books.accounts.insert((row.try_get(0)?, currency(row.try_get(1)?)?), account);
    }
    // Those that are locked already are read: another view of them could be older.
    let known: HashSet<&str> = books.records.keys().map(String::as_str).collect();
    let ids: Vec<&str> = entries.iter().map(|entry| entry.id).filter(|id| !known.contains(id)).collect();
    let rows = client.query_typed(READ_RECORDS, &[(&ids, Type::TEXT_ARRAY)]).await?;
    add_records(&mut books, &rows)?;
    Ok(books)
}

fn currency(text: &str) -> Result<Currency, Failure> {
    Currency::parse(text).ok_or_else(|| Failure::unknown("a row of the wallet has a currency unknown here"))
}

fn add_records(books: &mut Books, rows: &[Row]) -> Result<(), Failure> {
    for row in rows {
        let Some(decided) = Decided::read(row, 1)? else { continue };
        let (debit, credit): (Option<String>, Option<String>) = (row.try_get(4)?, row.try_get(5)?);
        let unit: Option<&str> = row.try_get(6)?;
        let sides = match (debit, credit, unit) {
            (Some(debit), Some(credit), Some(unit)) => Some((debit, credit, currency(unit)?)),
            _ => None,
        };
        let hold = match row.try_get::<_, Option<i16>>(9)? {
            None => None,
            Some(1) => Some(Hold::Open),
            Some(2) => Some(Hold::Posted),
            Some(3) => Some(Hold::Voided),
            Some(_) => return Err(Failure::unknown("a hold has a state unknown here")),
        };
        let record = Record {
            decided,
            sides,
            amount: row.try_get(7)?,
            of: row.try_get::<_, Option<String>>(8)?.unwrap_or_default(),
            hold,
            expires_in_s: 0,
            reversed: row.try_get(10)?,
            stored: true,
            changed: false,
        };
        books.records.insert(row.try_get(0)?, record);
    }
    Ok(())
}

async fn write(client: &Client, books: &Books, due: &[String]) -> Result<(), Failure> {
    let mut claimed: Vec<(&String, &Record)> =
        books.records.iter().filter(|(_, record)| !record.stored).collect();
    let changed: Vec<(&String, &Record)> =
        books.records.iter().filter(|(_, record)| record.stored && record.changed).collect();
    if !claimed.is_empty() {
        claimed.sort_unstable_by_key(|(id, _)| *id);
        client.batch_execute(CLAIM_WAIT).await?;
        if claim(client, &claimed).await? != claimed.len() as u64 {
            return Err(Failure::Again("an id was decided at this moment".to_owned()));
        }
        expiry::note(client, &claimed).await?;
    }
    if !changed.is_empty() {
        let ids: Vec<&str> = changed.iter().map(|(id, _)| id.as_str()).collect();
        let holds: Vec<Option<i16>> =
            changed.iter().map(|(_, record)| record.hold.map(|hold| hold as i16)).collect();
        let reversed: Vec<i64> = changed.iter().map(|(_, record)| record.reversed).collect();
        let params: [Param<'_>; 3] =
            [(&ids, Type::TEXT_ARRAY), (&holds, Type::INT2_ARRAY), (&reversed, Type::INT8_ARRAY)];
        let rows = client.execute_typed(UPDATE_RECORDS, &params).await?;
        assert_eq!(rows, ids.len() as u64, "locked rows stay where they are");
    }
    expiry::forget(client, &changed, due).await?;
    write_accounts(client, books).await
}

async fn claim(client: &Client, claimed: &[(&String, &Record)]) -> Result<u64, Failure> {
    let ids: Vec<&str> = claimed.iter().map(|(id, _)| id.as_str()).collect();
    let kinds: Vec<i16> = claimed.iter().map(|(_, record)| record.decided.kind as i16).collect();
    let digests: Vec<&[u8]> = claimed.iter().map(|(_, record)| record.decided.digest.as_slice()).collect();
    let sides = || claimed.iter().map(|(_, record)| record.sides.as_ref());
    let debits: Vec<Option<&str>> = sides().map(|sides| Some(sides?.0.as_str())).collect();
    let credits: Vec<Option<&str>> = sides().map(|sides| Some(sides?.1.as_str())).collect();
    let currencies: Vec<Option<&str>> = sides().map(|sides| Some(sides?.2.as_str())).collect();
    let amounts: Vec<i64> = claimed.iter().map(|(_, record)| record.amount).collect();
    let codes: Vec<Option<i16>> =
        claimed.iter().map(|(_, record)| record.decided.code.map(|code| code as i16)).collect();
    let of: Vec<Option<&str>> =
        claimed.iter().map(|(_, record)| Some(record.of.as_str()).filter(|of| !of.is_empty())).collect();
    let holds: Vec<Option<i16>> =
        claimed.iter().map(|(_, record)| record.hold.map(|hold| hold as i16)).collect();
    let reversed: Vec<i64> = claimed.iter().map(|(_, record)| record.reversed).collect();
    let params: [Param<'_>; 11] = [
        (&ids, Type::TEXT_ARRAY),
        (&kinds, Type::INT2_ARRAY),
        (&digests, Type::BYTEA_ARRAY),
        (&debits, Type::TEXT_ARRAY),
        (&credits, Type::TEXT_ARRAY),
        (&currencies, Type::TEXT_ARRAY),
        (&amounts, Type::INT8_ARRAY),
        (&codes, Type::INT2_ARRAY),
        (&of, Type::TEXT_ARRAY),
        (&holds, Type::INT2_ARRAY),
        (&reversed, Type::INT8_ARRAY),
    ];
    Ok(client.execute_typed(CLAIM, &params).await?)
}

async fn write_accounts(client: &Client, books: &Books) -> Result<(), Failure> {
    let conserved: i128 = books.accounts.values().map(|account| i128::from(account.balance_change)).sum();
    assert_eq!(conserved, 0, "what one account loses another gains");
    for stored in [true, false] {
        let changed: Vec<(&(String, Currency), &Account)> = books
            .accounts
            .iter()
            .filter(|(_, account)| account.stored == stored)
            .filter(|(_, account)| account.balance_change != 0 || account.held_change != 0)
            .collect();
        if changed.is_empty() {
            continue;
        }
        let names: Vec<&str> = changed.iter().map(|((name, _), _)| name.as_str()).collect();
        let currencies: Vec<&str> = changed.iter().map(|((_, currency), _)| currency.as_str()).collect();
        let balances: Vec<i64> = changed.iter().map(|(_, account)| account.balance_change).collect();
        let held: Vec<i64> = changed.iter().map(|(_, account)| account.held_change).collect();
        let owing: Vec<bool> = names.iter().map(|name| may_go_below_zero(name)).collect();
        let mut params: Vec<Param<'_>> = vec![
            (&names, Type::TEXT_ARRAY),
            (&currencies, Type::TEXT_ARRAY),
            (&balances, Type::INT8_ARRAY),
            (&held, Type::INT8_ARRAY),
        ];
        let statement = if stored {
            UPDATE_ACCOUNTS
        } else {
            params.push((&owing, Type::BOOL_ARRAY));
            OPEN_ACCOUNTS
        };
        let rows = client.execute_typed(statement, &params).await?;
        assert_eq!(rows, names.len() as u64, "every account that moved is written once");
    }
    Ok(())
}
