//! One outcome against one record.

use serde::{Deserialize, Serialize};

use crate::domain::{PayoutCode, Status, TransferStatus};
use crate::outcome::view::history::FinalRow;
use crate::stored_value::remote::OnRecord;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// We say paid, the wallet has no such transfer.
    NotAtWallet,
    /// We say not paid, the wallet has paid.
    PaidAtWallet,
    /// Both say paid, of another amount.
    OtherAmount,
    /// The wallet does not know yet.
    Undecided,
}

pub struct Compared {
    pub difference: Option<Difference>,
    /// What the wallet has, in a word.
    pub wallets: String,
    /// Minor units.
    pub ours_moved: u64,
    pub wallets_moved: u64,
}

pub fn compare(row: &FinalRow, record: Option<&OnRecord>) -> Compared {
    let status = record.map(|record| record.answer.status);
    let wallets = match status {
        None => "not_found".to_owned(),
        Some(TransferStatus::Succeeded) => "succeeded".to_owned(),
        Some(TransferStatus::Failed(code)) => code.as_str().to_owned(),
        Some(TransferStatus::Unknown) => "unknown".to_owned(),
    };
    let is_conflict = row.code == Some(PayoutCode::IdConflict);
    let at_wallet = record.and_then(|record| record.amount).unwrap_or(row.amount);
    let is_paid = status == Some(TransferStatus::Succeeded);
    let claims_paid = matches!(row.status, Status::Succeeded | Status::Reversed);
    let difference = match status {
        Some(TransferStatus::Unknown) => Some(Difference::Undecided),
        _ if is_conflict => None,
        _ if claims_paid && !is_paid => Some(Difference::NotAtWallet),
        _ if claims_paid && at_wallet != row.amount => Some(Difference::OtherAmount),
        _ if !claims_paid && is_paid => Some(Difference::PaidAtWallet),
        _ => None,
    };
    Compared {
        difference,
        wallets,
        ours_moved: if claims_paid { row.amount } else { 0 },
        wallets_moved: if is_paid && !is_conflict { at_wallet } else { 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Kind;
    use crate::stored_value::remote::Answer;

    #[test]
    fn every_pair() {
        use Difference::{NotAtWallet, OtherAmount, PaidAtWallet, Undecided};
        use Status::{Canceled, Expired, Failed, Reversed, Succeeded};
        use TransferStatus as T;
        let paid = Some((T::Succeeded, Some(5)));
        let burned = Some((T::Failed(PayoutCode::Burned), None));
        let refused = Some((T::Failed(PayoutCode::PayeeFrozen), Some(5)));
        let table = [
            (Succeeded, None, paid, None),
            (Succeeded, None, Some((T::Succeeded, None)), None),
            (Reversed, None, paid, None),
            (Succeeded, None, Some((T::Succeeded, Some(6))), Some(OtherAmount)),
            (Succeeded, None, None, Some(NotAtWallet)),
            (Succeeded, None, burned, Some(NotAtWallet)),
            (Succeeded, None, refused, Some(NotAtWallet)),
            (Succeeded, None, Some((T::Unknown, None)), Some(Undecided)),
            (Failed, Some(PayoutCode::PayeeFrozen), refused, None),
            (Failed, Some(PayoutCode::PayeeFrozen), paid, Some(PaidAtWallet)),
            (Failed, Some(PayoutCode::IdConflict), paid, None),
            (Expired, Some(PayoutCode::Expired), burned, None),
            (Expired, Some(PayoutCode::Expired), None, None),
            (Expired, Some(PayoutCode::Expired), paid, Some(PaidAtWallet)),
            (Canceled, None, burned, None),
            (Canceled, None, paid, Some(PaidAtWallet)),
        ];
        for (line, (status, code, record, expected)) in table.into_iter().enumerate() {
            let row = FinalRow {
                place: 1,
                client: "s".to_owned(),
                id: "r".to_owned(),
                kind: Kind::Disbursement,
                status,
                code,
                amount: 5,
                currency: "CNY".to_owned(),
            };
            let record = record.map(|(status, amount)| OnRecord {
                answer: Answer { status, wallet_ref: String::new() },
                amount,
            });
            assert_eq!(compare(&row, record.as_ref()).difference, expected, "line {line}");
        }
    }
}
