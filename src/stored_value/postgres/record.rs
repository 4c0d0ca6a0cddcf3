//! An entry of a batch as the database takes it, and a row of the database as the wallet's word on an id.

use tokio_postgres::Row;

use super::failure::Failure;
use crate::domain::{Currency, PayoutCode, TransferKind, TransferStatus};
use crate::stored_value::TransferBatch;
use crate::stored_value::remote::CallError;

/// A transfer whose names are text and whose amount is a `bigint`.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub kind: TransferKind,
    pub id: &'a str,
    pub digest: [u8; 16],
    pub debit: &'a str,
    pub credit: &'a str,
    pub amount: i64,
    pub currency: Currency,
    pub of: &'a str,
    pub expires_in_s: u32,
}

/// The entries of a batch; an error if one has a name that no text column holds.
pub fn entries(batch: &TransferBatch) -> Result<Vec<Entry<'_>>, Failure> {
    let refused =
        |what: &str| Failure::Call(CallError::Rejected(format!("a transfer {what}; none was sent")));
    let text = |bytes| {
        let name = std::str::from_utf8(bytes).ok().filter(|name| !name.contains('\0'));
        name.ok_or_else(|| refused("has a name that is not UTF-8, or holds a zero byte"))
    };
    batch
        .iter()
        .map(|transfer| {
            Ok(Entry {
                kind: transfer.kind,
                id: text(transfer.id)?,
                digest: transfer.digest,
                debit: text(transfer.debit)?,
                credit: text(transfer.credit)?,
                // Amounts end at 2^53 - 1.
                amount: i64::try_from(transfer.amount.minor_units())
                    .map_err(|_| refused("has an amount past 2^63"))?,
                currency: transfer.currency,
                of: text(transfer.of)?,
                expires_in_s: transfer.expires_in_s,
            })
        })
        .collect()
}

/// What decides a repeat of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    pub kind: TransferKind,
    pub code: Option<PayoutCode>,
    pub digest: [u8; 16],
}

impl Decided {
    /// From columns `kind`, `digest`, `code` that stand at `at` and behind; `None` where the kind is null.
    pub fn read(row: &Row, at: usize) -> Result<Option<Decided>, Failure> {
        let Some(kind) = row.try_get::<_, Option<i16>>(at)? else { return Ok(None) };
        let strange =
            |what: &str| Failure::unknown(format!("a row of hongbao_transfers has a {what} unknown here"));
        let byte = u8::try_from(kind).map_err(|_| strange("kind"))?;
        let kind = TransferKind::from_u8(byte).ok_or_else(|| strange("kind"))?;
        let digest: &[u8] = row.try_get(at + 1)?;
        let digest = digest.try_into().map_err(|_| strange("digest"))?;
        let code = match row.try_get::<_, Option<i16>>(at + 2)? {
            None => None,
            Some(number) => {
                let byte = u8::try_from(number).map_err(|_| strange("code"))?;
                Some(PayoutCode::from_u8(byte).ok_or_else(|| strange("code"))?)
            }
        };
        Ok(Some(Decided { kind, code, digest }))
    }

    pub fn status(&self) -> TransferStatus {
        match (self.kind, self.code) {
            (TransferKind::Burn, _) => TransferStatus::Failed(PayoutCode::Burned),
            (_, Some(code)) => TransferStatus::Failed(code),
            (_, None) => TransferStatus::Succeeded,
        }
    }

    /// What somebody gets who sends this id with these money fields.
    pub fn answer_to(&self, digest: &[u8; 16]) -> TransferStatus {
        if self.kind != TransferKind::Burn && self.digest != *digest {
            return TransferStatus::Failed(PayoutCode::IdConflict);
        }
        self.status()
    }
}

/// Whether an account stands for the world outside and may owe.
pub fn may_go_below_zero(name: &str) -> bool {
    name.starts_with("funding:")
}
