//! What takes one statement and one round trip: a batch of transfers, burns, look-ups.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::failure::Failure;
use super::record::{Decided, Entry, may_go_below_zero};
use crate::domain::{Currency, TransferKind, TransferStatus};
use crate::stored_value::remote::{Answer, OnRecord};

/// Decides a batch of transfers. Parameters: ids in order, digests, debits, credits, amounts, currencies, each an
/// array with an element an entry; then name, currency and sum of every account that is debited and may not owe.
/// Answers only the entries that it did not do: what is on record for them, or nulls where it decided nothing.
///
/// - `enough` is a look without a lock: where it sees too little, nothing is written at all, and where it sees
///   too much, the constraint of the balance undoes the whole statement. Either way the batch is then decided
///   entry by entry.
/// - Ids are claimed before the accounts are touched, and held until the end: a hot account is locked only for
///   the rest of the statement and the commit.
/// - One pass over all accounts, in order, makes new ones and changes old ones, so that two statements never
///   wait for each other in a circle. An old account that is debited is proposed as one that may owe, because the
///   constraint is first tried on the proposed row; the row that is kept has its own mark, and `enough` has seen
///   that it exists (accounts are never removed).
/// - A record that was committed after this statement's snapshot is not seen here and answered as nulls.
pub const STATEMENT: &str = "
WITH input AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::bytea[], $3::text[], $4::text[], $5::bigint[], $6::text[])
        AS input (id, digest, debit, credit, amount, currency)
), enough AS MATERIALIZED (
    SELECT NOT EXISTS (
        SELECT 1 FROM unnest($7::text[], $8::text[], $9::bigint[]) AS payer (name, currency, need)
        WHERE NOT EXISTS (
            SELECT 1 FROM hongbao_accounts AS account
            WHERE account.name = payer.name AND account.currency = payer.currency
                AND account.balance - account.held >= payer.need)
    ) AS yes
), fresh AS (
    INSERT INTO hongbao_transfers (id, kind, digest, debit, credit, amount, currency)
    SELECT id, 1, digest, debit, credit, amount, currency FROM input WHERE (SELECT yes FROM enough)
    ON CONFLICT (id) DO NOTHING
    RETURNING id, debit, credit, amount, currency
), moves AS (
    SELECT name, currency, sum(change)::bigint AS change
    FROM (SELECT debit AS name, currency, -amount AS change FROM fresh
        UNION ALL SELECT credit, currency, amount FROM fresh) AS sides
    GROUP BY name, currency
), moved AS (
    INSERT INTO hongbao_accounts AS account (name, currency, balance, may_go_below_zero)
    SELECT name, currency, change, change < 0 OR name LIKE 'funding:%' FROM moves ORDER BY name, currency
    ON CONFLICT (name, currency) DO UPDATE SET balance = account.balance + excluded.balance
)
SELECT input.id, record.kind, record.digest, record.code
FROM input LEFT JOIN LATERAL (
    SELECT kind, digest, code FROM hongbao_transfers WHERE hongbao_transfers.id = input.id LIMIT 1
) AS record ON true
WHERE NOT EXISTS (SELECT 1 FROM fresh WHERE fresh.id = input.id)";

const BURN: &str = "
WITH fresh AS (
    INSERT INTO hongbao_transfers (id, kind, digest, amount)
    SELECT id, 6, $2::bytea, 0 FROM unnest($1::text[]) AS input (id)
    ON CONFLICT (id) DO NOTHING
    RETURNING id
)
SELECT input.id, record.kind, record.digest, record.code, fresh.id IS NOT NULL
FROM unnest($1::text[]) AS input (id)
LEFT JOIN fresh ON fresh.id = input.id
LEFT JOIN LATERAL (
    SELECT kind, digest, code FROM hongbao_transfers WHERE hongbao_transfers.id = input.id LIMIT 1
) AS record ON true";

const LOOKUP: &str = "
SELECT input.id, record.kind, record.digest, record.code, record.amount
FROM unnest($1::text[]) AS input (id)
JOIN LATERAL (
    SELECT kind, digest, code, amount FROM hongbao_transfers WHERE hongbao_transfers.id = input.id LIMIT 1
) AS record ON true";

/// The order in which a batch is sent, and what it takes from whom.
pub struct Plan {
    /// Positions in the batch, by id, each id once.
    order: Vec<usize>,
    /// Positions of repeats within the batch, and of what they repeat.
    repeats: Vec<(usize, usize)>,
    needs: Vec<(String, Currency, i64)>,
}

impl Plan {
    /// `None` for a batch that is to be decided entry by entry: another kind of transfer, two bodies under one id,
    /// or an account that both pays and receives, where the order of the entries decides what fits.
    pub fn of(entries: &[Entry<'_>]) -> Option<Plan> {
        let mut sorted: Vec<usize> = (0..entries.len()).collect();
        sorted.sort_unstable_by_key(|position| (entries[*position].id, *position));
        let (mut order, mut repeats) = (Vec::with_capacity(entries.len()), Vec::new());
        let mut needs: BTreeMap<(&str, Currency), i64> = BTreeMap::new();
        for position in sorted {
            let entry = &entries[position];
            if entry.kind != TransferKind::Transfer || entry.amount == 0 || entry.debit == entry.credit {
                return None;
            }
            match order.last().copied().filter(|first: &usize| entries[*first].id == entry.id) {
                Some(first) if entries[first].digest == entry.digest => repeats.push((position, first)),
                Some(_) => return None,
                None => {
                    let need = needs.entry((entry.debit, entry.currency)).or_insert(0);
                    *need = need.checked_add(entry.amount)?;
                    order.push(position);
                }
            }
        }
        let circular = |entry: &Entry<'_>| needs.contains_key(&(entry.credit, entry.currency));
        if entries.iter().any(circular) {
            return None;
        }
        let needs = needs.into_iter().filter(|((name, _), _)| !may_go_below_zero(name));
        let needs = needs.map(|((name, currency), need)| (name.to_owned(), currency, need)).collect();
        Some(Plan { order, repeats, needs })
    }
}

/// Decides what one statement can; `None` for the entries that it left open.
pub async fn decide(
    client: &Client,
    plan: &Plan,
    entries: &[Entry<'_>],
) -> Result<Vec<Option<TransferStatus>>, Failure> {
    let in_order = || plan.order.iter().map(|position| &entries[*position]);
    let ids: Vec<&str> = in_order().map(|entry| entry.id).collect();
    let digests: Vec<&[u8]> = in_order().map(|entry| entry.digest.as_slice()).collect();
    let debits: Vec<&str> = in_order().map(|entry| entry.debit).collect();
    let credits: Vec<&str> = in_order().map(|entry| entry.credit).collect();
    let amounts: Vec<i64> = in_order().map(|entry| entry.amount).collect();
    let currencies: Vec<&str> = in_order().map(|entry| entry.currency.as_str()).collect();
    let payers: Vec<&str> = plan.needs.iter().map(|(name, _, _)| name.as_str()).collect();
    let payer_currencies: Vec<&str> = plan.needs.iter().map(|(_, currency, _)| currency.as_str()).collect();
    let needs: Vec<i64> = plan.needs.iter().map(|(_, _, need)| *need).collect();
    // Unnamed, so that it is planned with the real sizes of the arrays.
    let rows = client
        .query_typed(
            STATEMENT,
            &[
                (&ids, Type::TEXT_ARRAY),
                (&digests, Type::BYTEA_ARRAY),
                (&debits, Type::TEXT_ARRAY),
                (&credits, Type::TEXT_ARRAY),
                (&amounts, Type::INT8_ARRAY),
                (&currencies, Type::TEXT_ARRAY),
                (&payers, Type::TEXT_ARRAY),
                (&payer_currencies, Type::TEXT_ARRAY),
                (&needs, Type::INT8_ARRAY),
            ],
        )
        .await?;
    let mut statuses = vec![Some(TransferStatus::Succeeded); entries.len()];
    for row in &rows {
        let id: &str = row.try_get(0)?;
        let place = plan.order.binary_search_by_key(&id, |position| entries[*position].id);
        let place =
            place.map_err(|_| Failure::unknown("the database answered for an id that was not sent"))?;
        let position = plan.order[place];
        let record = Decided::read(row, 1)?;
        statuses[position] = record.map(|record| record.answer_to(&entries[position].digest));
    }
    for (repeat, first) in &plan.repeats {
        statuses[*repeat] = statuses[*first];
    }
    Ok(statuses)
}

/// Takes the ids out of use, or tells what was recorded before.
pub async fn burn(client: &Client, ids: &[String]) -> Result<Vec<TransferStatus>, Failure> {
    let mut sorted: Vec<&str> = ids.iter().map(String::as_str).collect::<HashSet<_>>().into_iter().collect();
    sorted.sort_unstable();
    let digest: &[u8] = &[0; 16];
    let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&sorted, Type::TEXT_ARRAY), (&digest, Type::BYTEA)];
    let rows = client.query_typed(BURN, &params).await?;
    let mut statuses: HashMap<&str, TransferStatus> = HashMap::with_capacity(rows.len());
    for row in &rows {
        let status = match (row.try_get(4)?, Decided::read(row, 1)?) {
            (true, _) => TransferStatus::Failed(crate::domain::PayoutCode::Burned),
            (false, Some(record)) => record.status(),
            // Recorded by somebody else after this statement's snapshot: the next one sees it.
            (false, None) => return Err(Failure::Again("an id was decided at this moment".to_owned())),
        };
        statuses.insert(row.try_get(0)?, status);
    }
    let status = |id: &String| statuses.get(id.as_str()).copied().unwrap_or(TransferStatus::Unknown);
    Ok(ids.iter().map(status).collect())
}

pub async fn lookup(client: &Client, ids: &[String]) -> Result<Vec<Option<OnRecord>>, Failure> {
    let rows = client.query_typed(LOOKUP, &[(&ids, Type::TEXT_ARRAY)]).await?;
    let mut found: HashMap<&str, OnRecord> = HashMap::with_capacity(rows.len());
    for row in &rows {
        let Some(record) = Decided::read(row, 1)? else { continue };
        let amount = u64::try_from(row.try_get::<_, i64>(4)?).ok();
        let answer = Answer { status: record.status(), wallet_ref: String::new() };
        let amount = amount.filter(|_| record.kind != TransferKind::Burn);
        found.insert(row.try_get(0)?, OnRecord { answer, amount });
    }
    Ok(ids.iter().map(|id| found.get(id.as_str()).cloned()).collect())
}
