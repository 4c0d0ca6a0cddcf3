//! Reconciliation: our outcomes held against the wallet's record, id by id.
//!
//! | our outcome | the wallet must have |
//! |---|---|
//! | SUCCEEDED, REVERSED | the transfer, of the same amount where it tells one |
//! | FAILED by `id_conflict` | a transfer of another body: nothing is compared |
//! | FAILED, CANCELED, EXPIRED | no transfer: a refusal, a burned id, or nothing |
//!
//! What holds: it only looks (`lookup` has no side effect), at a bounded rate; what was compared is kept, so that a
//! run that was cut short goes on where it was. Absent: transfers that the wallet has and we do not know of, which the
//! contract cannot list; and any repair.

pub mod compare;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::ids;
use crate::outcome::view::history::FinalRow;
use crate::stored_value::remote::OnRecord;
use compare::{Difference, compare};

/// Differences that are kept by id; more are counted.
const KEPT_MAX: usize = 10_000;

/// What was compared so far; saved after every page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Place of the last row compared.
    pub after_place: Option<u64>,
    pub compared: u64,
    pub agreed: u64,
    pub differed: u64,
    /// The wallet could not say yet; compare again later.
    pub undecided: u64,
    /// Rows by our state and what the wallet has, as in "SUCCEEDED/succeeded".
    pub by_pair: BTreeMap<String, u64>,
    /// Minor units of what we say succeeded, and of what the wallet says it moved for it, by currency.
    pub sums: BTreeMap<String, Sums>,
    pub differences: Vec<Found>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    pub ours: u128,
    pub wallets: u128,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    pub id: String,
    pub difference: Difference,
    pub ours: String,
    pub wallets: String,
}

/// The id by which the wallet knows a request.
pub fn wallet_id(row: &FinalRow) -> String {
    let mut name = Vec::new();
    ids::write_key(&mut name, row.client.as_bytes(), row.id.as_bytes());
    String::from_utf8_lossy(&name).into_owned()
}

impl Tally {
    /// Compares a page with what the wallet has on record, in the same order.
    pub fn add(&mut self, rows: &[FinalRow], records: &[Option<OnRecord>]) {
        assert_eq!(rows.len(), records.len(), "a record a row");
        for (row, record) in rows.iter().zip(records) {
            self.add_one(row, record.as_ref());
            self.after_place = Some(row.place);
        }
    }

    fn add_one(&mut self, row: &FinalRow, record: Option<&OnRecord>) {
        let compared = compare(row, record);
        self.compared += 1;
        *self.by_pair.entry(format!("{}/{}", row.status.as_str(), compared.wallets)).or_default() += 1;
        let sums = self.sums.entry(row.currency.clone()).or_default();
        sums.ours += u128::from(compared.ours_moved);
        sums.wallets += u128::from(compared.wallets_moved);
        match compared.difference {
            None => self.agreed += 1,
            Some(Difference::Undecided) => self.undecided += 1,
            Some(difference) => {
                self.differed += 1;
                if self.differences.len() < KEPT_MAX {
                    self.differences.push(Found {
                        id: wallet_id(row),
                        difference,
                        ours: format!("{} {} {}", row.status.as_str(), row.amount, row.currency),
                        wallets: compared.wallets,
                    });
                }
            }
        }
    }

    pub fn is_clean(&self) -> bool {
        self.differed == 0 && self.undecided == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Kind, PayoutCode, Status, TransferStatus};
    use crate::stored_value::remote::Answer;

    fn row(place: u64, status: Status, code: Option<PayoutCode>) -> FinalRow {
        FinalRow {
            place,
            client: "shop".to_owned(),
            id: format!("r{place}"),
            kind: Kind::Disbursement,
            status,
            code,
            amount: 5,
            currency: "CNY".to_owned(),
        }
    }

    fn record(status: TransferStatus, amount: Option<u64>) -> Option<OnRecord> {
        Some(OnRecord { answer: Answer { status, wallet_ref: String::new() }, amount })
    }

    #[test]
    fn pages_add_up_and_name_what_differs() {
        let mut tally = Tally::default();
        let paid = record(TransferStatus::Succeeded, Some(5));
        tally.add(&[row(1, Status::Succeeded, None), row(2, Status::Succeeded, None)], &[paid.clone(), None]);
        tally.add(
            &[row(3, Status::Expired, None), row(9, Status::Failed, Some(PayoutCode::PayeeFrozen))],
            &[paid, record(TransferStatus::Unknown, None)],
        );
        assert_eq!((tally.compared, tally.agreed, tally.differed, tally.undecided), (4, 1, 2, 1));
        assert_eq!(tally.after_place, Some(9));
        assert_eq!(tally.sums["CNY"], Sums { ours: 10, wallets: 10 }, "sums alone would hide it");
        let ids: Vec<_> = tally.differences.iter().map(|found| found.id.as_str()).collect();
        assert_eq!(ids, ["shop:r2", "shop:r3"]);
        assert!(!tally.is_clean());
        let saved = serde_json::to_string(&tally).unwrap();
        assert_eq!(serde_json::from_str::<Tally>(&saved).unwrap(), tally);
    }
}
