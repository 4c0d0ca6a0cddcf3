//! A wallet that is kept elsewhere: its record, asked for id by id, in place of the transfers of a ledger in the
//! journal.
//!
//! The wallet is asked by its id (`client:id`), so it cannot show that it moved money twice under one id: that is the
//! wallet's own promise. Absent: how it is asked; whoever audits brings that.

use std::path::Path;

use super::AuditError;
use super::entry::Kind;
use super::ids::{Ids, Recorded};
use super::report::request_name;
use super::requests::Requests;
use super::segments::Segments;

/// Ids asked for at once.
const PAGE: usize = 1_000;

/// What a wallet has on record for an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalletRecord {
    Nothing,
    Done {
        /// Minor units, where the wallet tells.
        amount: Option<u64>,
    },
    Refused,
    Undecided,
}

/// Asks the wallet for a page of ids; one record each, in order.
pub type Ask<'a> = dyn FnMut(&[String]) -> Result<Vec<WalletRecord>, String> + 'a;

/// The kind of the wallet whose books a folder holds.
pub fn wallet_kind(data_dir: &Path) -> String {
    let text = std::fs::read_to_string(data_dir.join("WALLET")).unwrap_or_default();
    text.split_whitespace().next().unwrap_or("embedded").to_owned()
}

/// Enters the wallet's record of every request's id; answers how many were asked for.
pub fn enter(
    requests: &Requests,
    ids: &mut Ids,
    segments: &Segments,
    ask: &mut Ask<'_>,
) -> Result<u64, AuditError> {
    let failed = |reason: String| AuditError::Wallet { reason };
    let rows: Vec<_> = requests.rows().iter().filter(|row| row.kind != Kind::Cancel).collect();
    let mut asked = 0;
    for page in rows.chunks(PAGE) {
        let names: Option<Vec<String>> = page.iter().map(|row| request_name(segments, row.place)).collect();
        let names =
            names.ok_or_else(|| failed("a request of the journal cannot be read again".to_owned()))?;
        let records = ask(&names).map_err(failed)?;
        if records.len() != names.len() {
            return Err(failed(format!("it gave {} records for {} ids", records.len(), names.len())));
        }
        for (row, record) in page.iter().zip(records) {
            let Some(id) = ids.get_mut(row.id) else { continue };
            id.recorded = match record {
                WalletRecord::Nothing | WalletRecord::Undecided => Recorded::Nothing,
                WalletRecord::Done { .. } => Recorded::Done,
                WalletRecord::Refused => Recorded::Refused,
            };
            let amount = match record {
                WalletRecord::Done { amount } => amount.unwrap_or(row.amount),
                _ => 0,
            };
            id.amount = amount;
            // The record tells the amount and not the accounts: that much is compared.
            id.fingerprint = if amount == row.amount { row.fingerprint } else { !row.fingerprint };
        }
        asked += names.len() as u64;
    }
    Ok(asked)
}
