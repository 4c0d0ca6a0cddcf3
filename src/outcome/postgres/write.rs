//! A chunk as one transaction: what it concerns is read under locks, the sheet decides, all of it is written back.
//!
//! Locks are taken in one order: the gate, the streams, the rows, each in the order of their names. The gate is shared
//! by chunks that say nothing of requests which may not be there yet, and taken alone by one that does (a cancel, a
//! reversal): so that what is kept for a request and the request itself never miss each other. Whoever finds a stream
//! read further than it thought is fenced and writes nothing.

use std::collections::BTreeSet;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::connect::Failure;
use super::query::{COLUMNS, standing_row};
use super::sheet::{Burned, Credit, Sheet, Stored, concerned, crosses};
use super::store::{Param, store};
use crate::outcome::Told;
use crate::outcome::stream::{Position, StreamId};
use crate::outcome::view::ViewError;

/// Facts of streams, and how far they reach.
pub struct Facts<'a> {
    /// With the name of the stream of each.
    pub told: Vec<(&'a str, Told<'a>)>,
    /// Where each stream stands before and behind them.
    pub steps: Vec<Step>,
}

/// A stream moves on.
pub struct Step {
    pub from: StreamId,
    pub to: Position,
    pub fact_count: u64,
    pub skipped_count: u64,
}

/// Applies facts, whole or not at all. The connection must not be used again after a failure.
pub async fn write(client: &Client, facts: &Facts<'_>) -> Result<(), Failure> {
    client.batch_execute("BEGIN").await?;
    let crosses = facts.told.iter().any(|(_, told)| crosses(told));
    let gate = if crosses { "UPDATE" } else { "SHARE" };
    client.batch_execute(&format!("SELECT 1 FROM hongbao_view_gate FOR {gate}")).await?;
    fence(client, &facts.steps).await?;
    let mut sheet = load(client, facts).await?;
    for (stream, told) in &facts.told {
        sheet.told(stream, told);
    }
    store(client, &sheet).await?;
    step(client, &facts.steps).await?;
    client.batch_execute("COMMIT").await?;
    Ok(())
}

/// Locks the streams and sees that each stands where we think.
async fn fence(client: &Client, steps: &[Step]) -> Result<(), Failure> {
    let names: Vec<&str> = steps.iter().map(|step| step.to.stream.as_str()).collect();
    let lock = "SELECT stream, ms, number FROM hongbao_view_streams WHERE stream = ANY ($1)
        ORDER BY stream FOR UPDATE";
    let rows = client.query_typed(lock, &[(&names, Type::TEXT_ARRAY)]).await?;
    let stands = |step: &Step| {
        rows.iter().any(|row| {
            let id = StreamId { ms: unsigned(row, 1), number: unsigned(row, 2) };
            row.get::<_, &str>(0) == step.to.stream && id == step.from
        })
    };
    if steps.iter().all(stands) { Ok(()) } else { Err(Failure::Fenced) }
}

async fn step(client: &Client, steps: &[Step]) -> Result<(), Failure> {
    let names: Vec<&str> = steps.iter().map(|step| step.to.stream.as_str()).collect();
    let all = |number: fn(&Step) -> u64| steps.iter().map(|step| number(step) as i64).collect::<Vec<i64>>();
    let (ms, numbers) = (all(|step| step.to.id.ms), all(|step| step.to.id.number));
    let frames = all(|step| step.to.frame_count);
    let (facts, skipped) = (all(|step| step.fact_count), all(|step| step.skipped_count));
    let update = "UPDATE hongbao_view_streams s SET ms = t.ms, number = t.number, frames = t.frames,
        facts = s.facts + t.facts, skipped = s.skipped + t.skipped
        FROM unnest($1, $2, $3, $4, $5, $6) AS t (stream, ms, number, frames, facts, skipped)
        WHERE s.stream = t.stream";
    let params: [Param<'_>; 6] = [
        (&names, Type::TEXT_ARRAY),
        (&ms, Type::INT8_ARRAY),
        (&numbers, Type::INT8_ARRAY),
        (&frames, Type::INT8_ARRAY),
        (&facts, Type::INT8_ARRAY),
        (&skipped, Type::INT8_ARRAY),
    ];
    client.execute_typed(update, &params).await?;
    Ok(())
}

fn unsigned(row: &Row, column: usize) -> u64 {
    row.get::<_, i64>(column) as u64
}

async fn load(client: &Client, facts: &Facts<'_>) -> Result<Sheet, Failure> {
    let keys: BTreeSet<(&str, &str)> = facts.told.iter().flat_map(|(_, told)| concerned(told)).collect();
    let (clients, ids): (Vec<&str>, Vec<&str>) = keys.into_iter().unzip();
    let params: [Param<'_>; 2] = [(&clients, Type::TEXT_ARRAY), (&ids, Type::TEXT_ARRAY)];
    let mut sheet = Sheet::default();
    let select = format!(
        "SELECT {COLUMNS}, r.digest FROM unnest($1, $2) AS k (client, id)
         JOIN hongbao_view_requests r ON r.client = k.client AND r.id = k.id
         ORDER BY r.client, r.id, r.number FOR UPDATE OF r"
    );
    for row in client.query_typed(&select, &params).await? {
        let standing = standing_row(&row)?;
        let digest: &[u8] = row.get("digest");
        let digest = digest.try_into().map_err(|_| ViewError::Stored("digest"))?;
        let key = (standing.client.clone(), standing.id.clone());
        let stored = Stored { digest, row: standing, is_new: false, is_changed: false };
        sheet.rows.entry(key).or_default().push(stored);
    }
    let select =
        "SELECT b.client, b.id, b.currency, b.accepted_at, b.at FROM unnest($1, $2) AS k (client, id)
        JOIN hongbao_view_burned b ON b.client = k.client AND b.id = k.id";
    for row in client.query_typed(select, &params).await? {
        let (accepted_at, at) = (unsigned(&row, 3), unsigned(&row, 4));
        let burned = Burned { currency: row.get(2), accepted_at, at, is_new: false };
        sheet.burned.insert((row.get(0), row.get(1)), burned);
    }
    let select = "SELECT c.client, c.id, c.amount FROM unnest($1, $2) AS k (client, id)
        JOIN hongbao_view_credits c ON c.client = k.client AND c.id = k.id
        ORDER BY c.client, c.id FOR UPDATE OF c";
    for row in client.query_typed(select, &params).await? {
        let credit = Credit { amount: row.get(2), is_changed: false };
        sheet.credits.insert((row.get(0), row.get(1)), credit);
    }
    Ok(sheet)
}
