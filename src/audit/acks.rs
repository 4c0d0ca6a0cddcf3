//! The client's own list of what was acknowledged to it, held against the journal.
//!
//! A text file, one acknowledged request a line: `client id amount`, separated by one space, the amount in
//! minor units. A line that comes twice is fine; a last line without its newline is one that the client never
//! finished, and is not counted. A journal that only serves as a wallet has no requests: the lines are then held
//! against what the wallet recorded, and what it has no record of is missing. Absent: the list of all requests; what no client claims is not missed here.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::breach::{BreachKind, Breaches, name};
use super::error::AuditError;
use super::ids::{Ids, Recorded};
use super::requests::Requests;
use super::table::{NONE, key_of};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct AckCounts {
    pub lines: u64,
    /// Accepted here and final.
    pub settled: u64,
    /// Accepted here and visibly pending.
    pub pending: u64,
    /// From before the checkpoint, which vouches for them.
    pub removed: u64,
    /// Not here, or with another amount.
    pub missing: u64,
}

/// What the lines are held against.
pub struct Accepted<'a> {
    pub ids: &'a Ids,
    pub requests: &'a Requests,
    /// Requests that a checkpoint without ids stands for: so many lines may not be found.
    pub unlisted: u64,
}

/// Checks every line of the file at `path`.
pub fn check(path: &Path, accepted: &Accepted<'_>, breaches: &mut Breaches) -> Result<AckCounts, AuditError> {
    let mut reader =
        BufReader::with_capacity(1 << 20, File::open(path).map_err(AuditError::io("open", path))?);
    let mut counts = AckCounts::default();
    let mut line = Vec::new();
    let mut scratch = Vec::new();
    loop {
        line.clear();
        reader.read_until(b'\n', &mut line).map_err(AuditError::io("read", path))?;
        if line.pop() != Some(b'\n') {
            return Ok(counts);
        }
        counts.lines += 1;
        let Some((client, id, amount)) = split(&line) else {
            return Err(AuditError::AcksLine {
                path: path.to_owned(),
                line: counts.lines,
                text: name(&line),
            });
        };
        let key = key_of(&mut scratch, &[client, b":", id]);
        check_line(accepted, key, amount, &mut counts).unwrap_or_else(|fault| {
            counts.missing += 1;
            let id = || format!("{}:{}", name(client), name(id));
            breaches.add(BreachKind::Lost, id, || format!("{} was acknowledged, {fault}", id()));
        });
    }
}

fn check_line(
    accepted: &Accepted<'_>,
    key: super::table::Key,
    amount: u64,
    counts: &mut AckCounts,
) -> Result<(), &'static str> {
    if accepted.requests.rows().is_empty() && accepted.unlisted == 0 {
        return check_at_wallet(accepted.ids, key, amount, counts);
    }
    let found = accepted.ids.find(key).and_then(|id| Some((id, accepted.ids.get(id)?)));
    let Some((id, row)) = found.filter(|(_, row)| row.is_removed || row.request != NONE) else {
        if counts.removed < accepted.unlisted {
            counts.removed += 1;
            return Ok(());
        }
        return Err("and is not among the accepted");
    };
    if row.request == NONE {
        counts.removed += 1;
        return if row.amount == amount { Ok(()) } else { Err("and was accepted with another amount") };
    }
    let again = accepted.requests.accepted_again.get(&id).into_iter().flatten().copied();
    let mut rows = std::iter::once(row.request).chain(again).filter_map(|row| accepted.requests.get(row));
    match rows.find(|row| row.amount == amount) {
        Some(row) if row.status.is_final() => counts.settled += 1,
        Some(_) => counts.pending += 1,
        None => return Err("and was accepted with another amount"),
    }
    Ok(())
}

fn check_at_wallet(
    ids: &Ids,
    key: super::table::Key,
    amount: u64,
    counts: &mut AckCounts,
) -> Result<(), &'static str> {
    let row = ids.find(key).and_then(|id| ids.get(id));
    match row.map(|row| (row.recorded, row.amount)) {
        None | Some((Recorded::Nothing, _)) => return Err("and the wallet has no record of it"),
        Some((Recorded::Done, paid)) if paid != amount => return Err("and was paid with another amount"),
        Some((Recorded::Done | Recorded::Refused, _)) => counts.settled += 1,
    }
    Ok(())
}

/// `client id amount`; neither name holds a space.
fn split(line: &[u8]) -> Option<(&[u8], &[u8], u64)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let (client, id, amount) = (fields.next()?, fields.next()?, fields.next()?);
    let amount = std::str::from_utf8(amount).ok()?.parse().ok()?;
    (fields.next().is_none() && !client.is_empty() && !id.is_empty()).then_some((client, id, amount))
}
