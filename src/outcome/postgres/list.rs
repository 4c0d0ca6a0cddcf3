//! Listings: pages in ascending order of acceptance, then of id.
//!
//! The narrowest filter leads, along an index that has this order; the others are checked row by row. A page looks at
//! no more than [`LOOKED_AT_MAX`] rows, and is short if that was not enough to fill it. What is met later with an
//! earlier time of acceptance than the page before is not shown: a listing that is still growing is not complete.

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::connect::Failure;
use super::cursor::{self, After};
use super::query::{COLUMNS, standing_row};
use crate::domain::{Kind, Status};
use crate::outcome::view::{LIMIT_MAX, ListRows, PageRows, ViewError};

/// Rows looked at for one page, at most.
pub const LOOKED_AT_MAX: i64 = 20_000;

/// Conditions and their values, numbered as they come.
#[derive(Default)]
struct Conditions<'a> {
    text: Vec<String>,
    values: Vec<(&'a (dyn ToSql + Sync), Type)>,
}

impl<'a> Conditions<'a> {
    /// `condition` has `?` where the value goes.
    fn add(&mut self, condition: &str, value: &'a (dyn ToSql + Sync), of: Type) {
        self.values.push((value, of));
        self.text.push(condition.replace('?', &format!("${}", self.values.len())));
    }

    fn joined(&self) -> String {
        if self.text.is_empty() { "true".to_owned() } else { self.text.join(" AND ") }
    }
}

/// Whether a kind is listed when nobody asks for one.
const LISTED: [i16; 3] = [Kind::Disbursement as i16, Kind::Collection as i16, Kind::Reversal as i16];

pub async fn page(
    client: &Client,
    secret: &[u8; 32],
    asked: &ListRows,
    looked_at_max: i64,
) -> Result<PageRows, Failure> {
    let after = match &asked.cursor {
        Some(text) => Some(cursor::read(secret, asked, text).map_err(ViewError::from)?),
        None => None,
    };
    let limit = asked.limit.clamp(1, LIMIT_MAX) as usize;
    let bound = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
    let (accepted_from, settled_from) = (bound(asked.accepted_from), bound(asked.settled_from));
    let after_at = after.as_ref().map(|after| bound(after.accepted_at));
    let status = asked.status.map(|status| status as i16);
    let kinds: Vec<i16> = asked.kind.map_or(LISTED.to_vec(), |kind| vec![kind as i16]);
    let leads = leads(asked);

    let mut led = Conditions::default();
    led.add("r.client = ?", &asked.client, Type::TEXT);
    led.add("r.accepted_at >= ?", &accepted_from, Type::INT8);
    if let (Some(after), Some(at)) = (&after, &after_at) {
        let ids = led.values.len();
        led.values.extend([
            (at as _, Type::INT8),
            (&after.id as _, Type::TEXT),
            (&after.digest as _, Type::BYTEA),
        ]);
        led.text.push(format!(
            "(r.accepted_at, r.id, r.digest) > (${}, ${}, ${})",
            ids + 1,
            ids + 2,
            ids + 3
        ));
    }
    let lead_value: &(dyn ToSql + Sync) = match leads {
        Lead::Batch => &asked.batch,
        Lead::Party => &asked.party,
        Lead::Status => &status,
        Lead::Campaign => &asked.campaign,
        Lead::Time => &asked.client,
    };
    match leads {
        // The constants let the partial indexes be used whatever the values are.
        Lead::Batch => led.add("r.batch = ? AND r.batch <> ''", lead_value, Type::TEXT),
        Lead::Party => led.add("r.party = ? AND r.party <> ''", lead_value, Type::TEXT),
        Lead::Status => led.add("r.status = ? AND r.status <> 5", lead_value, Type::INT2),
        Lead::Campaign => led.add("r.campaign = ?", lead_value, Type::TEXT),
        Lead::Time => {}
    }
    let looked =
        format!("FROM hongbao_view_requests r WHERE {} ORDER BY r.accepted_at, r.id, r.digest", led.joined());

    let mut checked = Conditions { text: Vec::new(), values: led.values.clone() };
    checked.add("r.kind = ANY (?)", &kinds, Type::INT2_ARRAY);
    for (column, wanted) in [("campaign", &asked.campaign), ("party", &asked.party), ("batch", &asked.batch)]
    {
        if wanted.is_some() {
            checked.add(&format!("r.{column} = ?"), wanted, Type::TEXT);
        }
    }
    if status.is_some() {
        checked.add("r.status = ?", &status, Type::INT2);
    }
    checked.add("r.settled_at >= ?", &settled_from, Type::INT8);
    let select = format!(
        "SELECT {COLUMNS}, r.digest FROM (SELECT * {looked} LIMIT {looked_at_max}) r WHERE {}
         ORDER BY r.accepted_at, r.id, r.digest LIMIT {}",
        checked.joined(),
        limit + 1
    );
    let rows = client.query_typed(&select, &checked.values).await?;
    let mut data = Vec::with_capacity(rows.len().min(limit));
    for row in rows.iter().take(limit) {
        data.push(standing_row(row)?);
    }
    let go_on_after = if rows.len() > limit {
        let last = &data[limit - 1];
        let digest: &[u8] = rows[limit - 1].get("digest");
        Some(After { accepted_at: last.accepted_at, id: last.id.clone(), digest: digest.to_vec() })
    } else {
        last_looked_at(client, &looked, &led, looked_at_max).await?
    };
    let next_cursor = go_on_after.map(|after| cursor::write(secret, asked, &after));
    Ok(PageRows { data, next_cursor })
}

/// The last row that a page looked at, if there may be others behind it.
async fn last_looked_at(
    client: &Client,
    looked: &str,
    led: &Conditions<'_>,
    looked_at_max: i64,
) -> Result<Option<After>, Failure> {
    let select =
        format!("SELECT r.accepted_at, r.id, r.digest {looked} LIMIT 1 OFFSET {}", looked_at_max - 1);
    let rows = client.query_typed(&select, &led.values).await?;
    Ok(rows.first().map(|row| After {
        accepted_at: row.get::<_, i64>(0).unsigned_abs(),
        id: row.get(1),
        digest: row.get(2),
    }))
}

/// The filter that leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lead {
    Batch,
    Party,
    Status,
    Campaign,
    Time,
}

fn leads(asked: &ListRows) -> Lead {
    let is_some = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    if is_some(&asked.batch) {
        Lead::Batch
    } else if is_some(&asked.party) {
        Lead::Party
    } else if asked.status.is_some_and(|status| status != Status::Succeeded) {
        Lead::Status
    } else if asked.campaign.is_some() {
        Lead::Campaign
    } else {
        Lead::Time
    }
}
