//! Answers about single requests, batches and campaigns. Absent: listings (`list`).

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::connect::Failure;
use super::sheet::Owner;
use crate::domain::{Kind, PayoutCode, Status, WaitReason};
use crate::outcome::view::{BatchRow, StandingRow, TallyRow, ViewError, is_payout};

/// Of a request `r`; read by [`standing_row`].
pub const COLUMNS: &str =
    "r.client, r.id, r.kind, r.status, r.reason, r.code, r.campaign, r.party, r.merchant,
    r.agreement, r.original, r.batch, r.amount, r.currency, r.remark, r.metadata, r.accepted_at, r.updated_at,
    r.settled_at, r.next_attempt_at, r.attempts, r.wallet_ref, r.reversed_amount";

fn small<T>(
    number: Option<i16>,
    read: impl Fn(u8) -> Option<T>,
    field: &'static str,
) -> Result<Option<T>, ViewError> {
    let Some(number) = number else { return Ok(None) };
    let known = u8::try_from(number).ok().and_then(read);
    Ok(Some(known.ok_or(ViewError::Stored(field))?))
}

fn known<T>(number: i16, read: impl Fn(u8) -> Option<T>, field: &'static str) -> Result<T, ViewError> {
    small(Some(number), read, field)?.ok_or(ViewError::Stored(field))
}

fn number(row: &Row, column: usize) -> u64 {
    row.get::<_, i64>(column).unsigned_abs()
}

pub fn standing_row(row: &Row) -> Result<StandingRow, ViewError> {
    Ok(StandingRow {
        place: 0,
        client: row.get(0),
        id: row.get(1),
        kind: known(row.get(2), Kind::from_u8, "kind")?,
        status: known(row.get(3), Status::from_u8, "status")?,
        reason: small(row.get(4), WaitReason::from_u8, "reason")?,
        code: small(row.get(5), PayoutCode::from_u8, "code")?,
        campaign: row.get(6),
        party: row.get(7),
        merchant: row.get(8),
        agreement: row.get(9),
        original: row.get(10),
        batch: row.get(11),
        amount: number(row, 12),
        currency: row.get(13),
        remark: row.get(14),
        metadata: row.get(15),
        accepted_at: number(row, 16),
        updated_at: number(row, 17),
        settled_at: number(row, 18),
        next_attempt_at: number(row, 19),
        attempts: u32::try_from(number(row, 20)).map_err(|_| ViewError::Stored("attempts"))?,
        wallet_ref: row.get(21),
        reversed_amount: number(row, 22),
    })
}

/// One answer an id, in order: the first under it that is no conflict; else the first; else what a cancel left.
pub async fn find(client: &Client, name: &str, ids: &[String]) -> Result<Vec<Option<StandingRow>>, Failure> {
    let mut found: std::collections::HashMap<String, StandingRow> = std::collections::HashMap::new();
    let select = format!(
        "SELECT {COLUMNS} FROM hongbao_view_requests r WHERE r.client = $1 AND r.id = ANY ($2) ORDER BY r.number"
    );
    for row in client.query_typed(&select, &[(&name, Type::TEXT), (&ids, Type::TEXT_ARRAY)]).await? {
        let row = standing_row(&row)?;
        let is_conflict = |row: &StandingRow| row.code == Some(PayoutCode::IdConflict);
        let replaces = found.get(&row.id).is_none_or(|first| is_conflict(first) && !is_conflict(&row));
        if replaces {
            found.insert(row.id.clone(), row);
        }
    }
    let missing: Vec<&str> = ids.iter().map(String::as_str).filter(|id| !found.contains_key(*id)).collect();
    if !missing.is_empty() {
        let select = "SELECT id, currency, accepted_at, at FROM hongbao_view_burned
            WHERE client = $1 AND id = ANY ($2)";
        let params =
            [(&name as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT), (&missing, Type::TEXT_ARRAY)];
        for row in client.query_typed(select, &params).await? {
            let id: String = row.get(0);
            let canceled = StandingRow::canceled(name, &id, row.get(1), number(&row, 2), number(&row, 3));
            found.insert(id, canceled);
        }
    }
    Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
}

/// `None` if nothing was ever counted under this name.
async fn tally(
    client: &Client,
    owner: Owner,
    (client_name, name): (&str, &str),
    kind: Option<Kind>,
) -> Result<Option<TallyRow>, Failure> {
    // Sums can pass what 63 bits hold, and stop at what 64 do.
    let select = "SELECT kind, status, sum(count)::bigint, least(sum(amount), 18446744073709551615)::text
        FROM hongbao_view_tallies WHERE owner = $1 AND client = $2 AND name = $3 GROUP BY kind, status";
    let owner = owner as i16;
    let params = [
        (&owner as &(dyn tokio_postgres::types::ToSql + Sync), Type::INT2),
        (&client_name, Type::TEXT),
        (&name, Type::TEXT),
    ];
    let rows = client.query_typed(select, &params).await?;
    let mut tally = TallyRow::default();
    for row in &rows {
        let found = known(row.get(0), Kind::from_u8, "kind")?;
        let status = known(row.get(1), Status::from_u8, "status")?;
        let is_wanted = kind.map_or(is_payout(found), |kind| kind == found);
        if is_wanted {
            let amount: u64 =
                row.get::<_, &str>(3).parse().map_err(|_| ViewError::Stored("sum of amounts"))?;
            let at = status as usize - 1;
            tally.count[at] += number(row, 2);
            tally.amount[at] = tally.amount[at].saturating_add(amount);
        }
    }
    Ok((!rows.is_empty()).then_some(tally))
}

pub async fn batch(client: &Client, name: &str, id: &str) -> Result<Option<BatchRow>, Failure> {
    let select =
        "SELECT campaign, currency, accepted_at FROM hongbao_view_batches WHERE client = $1 AND id = $2";
    let rows = client.query_typed(select, &[(&name, Type::TEXT), (&id, Type::TEXT)]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(BatchRow {
        client: name.to_owned(),
        id: id.to_owned(),
        campaign: row.get(0),
        currency: row.get(1),
        accepted_at: number(row, 2),
        tally: tally(client, Owner::Batch, (name, id), None).await?.unwrap_or_default(),
    }))
}

pub async fn campaign(
    client: &Client,
    name: &str,
    id: &str,
    kind: Option<Kind>,
) -> Result<Option<TallyRow>, Failure> {
    tally(client, Owner::Campaign, (name, id), kind).await
}
