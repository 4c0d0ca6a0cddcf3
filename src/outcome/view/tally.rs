//! Counts and amounts that move with transitions: gathered in memory during a transaction, written at its end.
//!
//! An amount total can pass what 63 bits hold (refused requests count too), so it is kept exactly in two
//! columns: `amount_high * 2^60 + amount_low`.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::ViewError;
use super::row::TallyRow;
use crate::domain::{Kind, Status};

const LOW_BITS: u32 = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Campaign,
    Batch,
    /// What is not final; the owner is the reason, 0 for none.
    Wait,
}

impl Table {
    const fn name(self) -> &'static str {
        match self {
            Table::Campaign => "campaign_tally",
            Table::Batch => "batch_tally",
            Table::Wait => "wait_tally",
        }
    }
}

/// One cell of a tally.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cell {
    pub owner: i64,
    pub kind: Kind,
    pub status: Status,
}

#[derive(Debug, Default)]
struct Change {
    count: i64,
    amount: i128,
}

/// The changes of one table since the transaction began.
#[derive(Debug)]
pub struct Tally {
    table: Table,
    changes: HashMap<Cell, Change>,
}

impl Tally {
    pub fn new(table: Table) -> Tally {
        Tally { table, changes: HashMap::new() }
    }

    pub fn add(&mut self, cell: Cell, amount: u64) {
        let change = self.changes.entry(cell).or_default();
        change.count += 1;
        change.amount += i128::from(amount);
    }

    pub fn remove(&mut self, cell: Cell, amount: u64) {
        let change = self.changes.entry(cell).or_default();
        change.count -= 1;
        change.amount -= i128::from(amount);
    }

    /// Writes the changes and forgets them.
    ///
    /// # Panics
    /// If a count or an amount would fall below zero: something left a state it was never in.
    pub fn flush(&mut self, conn: &Connection) -> Result<(), ViewError> {
        let table = self.table.name();
        let mut select = conn.prepare_cached(&format!(
            "SELECT count, amount_low, amount_high FROM {table} WHERE owner = ?1 AND kind = ?2 AND status = ?3"
        ))?;
        let mut upsert =
            conn.prepare_cached(&format!("INSERT OR REPLACE INTO {table} VALUES (?1, ?2, ?3, ?4, ?5, ?6)"))?;
        for (cell, change) in self.changes.drain() {
            if change.count == 0 && change.amount == 0 {
                continue;
            }
            let key = (cell.owner, cell.kind as u8, cell.status as u8);
            let (count, amount) =
                select.query_row(key, |row| Ok((row.get(0)?, total(row, 1)?))).optional()?.unwrap_or((0, 0));
            let (count, amount) = (count + change.count, amount + change.amount);
            assert!(count >= 0 && amount >= 0, "the {table} of {cell:?} would fall below zero");
            let low = (amount & ((1 << LOW_BITS) - 1)) as i64;
            let high = (amount >> LOW_BITS) as i64;
            upsert.execute(params![key.0, key.1, key.2, count, low, high])?;
        }
        Ok(())
    }
}

/// The exact total in the columns from `column` on.
fn total(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<i128> {
    let low: i64 = row.get(column)?;
    let high: i64 = row.get(column + 1)?;
    Ok((i128::from(high) << LOW_BITS) + i128::from(low))
}

/// A cell as it stands, with its amount cut at `u64::MAX`.
#[derive(Clone, Copy, Debug)]
pub struct Filled {
    pub cell: Cell,
    pub count: u64,
    pub amount: u64,
}

/// Every cell of `table`, or of one owner in it, that is not empty.
pub fn cells(conn: &Connection, table: Table, owner: Option<i64>) -> Result<Vec<Filled>, ViewError> {
    let table = table.name();
    let (first, last) = owner.map_or((i64::MIN, i64::MAX), |owner| (owner, owner));
    let mut select = conn.prepare_cached(&format!(
        "SELECT owner, kind, status, count, amount_low, amount_high FROM {table}
         WHERE owner BETWEEN ?1 AND ?2 AND count > 0"
    ))?;
    let mut rows = select.query([first, last])?;
    let mut cells = Vec::new();
    while let Some(row) = rows.next()? {
        let kind = Kind::from_u8(row.get(1)?).ok_or(ViewError::Stored("kind"))?;
        let status = Status::from_u8(row.get(2)?).ok_or(ViewError::Stored("status"))?;
        let count: i64 = row.get(3)?;
        let amount = u64::try_from(total(row, 4)?).unwrap_or(u64::MAX);
        let cell = Cell { owner: row.get(0)?, kind, status };
        cells.push(Filled { cell, count: count.unsigned_abs(), amount });
    }
    Ok(cells)
}

/// The tally of one owner over the kinds that `wanted` takes.
pub fn of_owner(
    conn: &Connection,
    table: Table,
    owner: i64,
    wanted: impl Fn(Kind) -> bool,
) -> Result<TallyRow, ViewError> {
    let mut tally = TallyRow::default();
    for Filled { cell, count, amount } in cells(conn, table, Some(owner))? {
        if wanted(cell.kind) {
            let at = cell.status as usize - 1;
            tally.count[at] += count;
            tally.amount[at] = tally.amount[at].saturating_add(amount);
        }
    }
    Ok(tally)
}
