//! The stored form of what the ledger decided. A frame of kind [`FRAME_TRANSFERS`] holds the accounts it
//! opened and the transfers it decided, in order.
//!
//! Transfer (tag 3):
//!
//! | bytes | field |
//! |---|---|
//! | 0..4, 4, 5 | length, tag, version (1) |
//! | 6, 7 | kind, payout code (0: succeeded) |
//! | 8..24 | digest of the money fields |
//! | 24..32 | amount, minor units |
//! | 32..36, 36..40 | numbers of the debit and the credit account (`u32::MAX`: none) |
//! | 40..48 | hash of the id |
//! | 48..51, 51, 52 | currency, lengths of id and of `of` |
//! | 53..56 | zero |
//! | 56.. | id, of |
//!
//! A hold is about no other transfer; its `of` may say when it ends by itself (Unix ms, decimal digits), which
//! whoever runs the ledger sees to. The digest does not cover it.
//!
//! Account (tag 4): 6 length of the name · 7 zero · 8..12 number · 12..15 currency · 16.. name. Numbers are
//! given out from zero without gaps, so an account's number is its place in the order of opening.

use crate::domain::bytes::{EntryError, TAG_ACCOUNT, TAG_TRANSFER, entry, padded, u32_at, u64_at};
use crate::domain::{Amount, Currency, PayoutCode, TransferKind};

/// Kind of the journal frames of the ledger.
pub const FRAME_TRANSFERS: u8 = 17;
/// Stands for "no account", in a burn.
pub const NO_ACCOUNT: u32 = u32::MAX;
const TRANSFER_HEADER_BYTES: usize = 56;
const ACCOUNT_HEADER_BYTES: usize = 16;
/// An upper bound of a stored transfer.
pub const TRANSFER_BYTES_MAX: usize = padded(TRANSFER_HEADER_BYTES + 2 * 255);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferEntry<'a> {
    pub kind: TransferKind,
    /// `None`: succeeded.
    pub code: Option<PayoutCode>,
    pub digest: [u8; 16],
    pub amount: Amount,
    pub debit: u32,
    pub credit: u32,
    pub key_hash: u64,
    pub currency: Currency,
    pub id: &'a [u8],
    pub of: &'a [u8],
}

impl<'a> TransferEntry<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let length = padded(TRANSFER_HEADER_BYTES + self.id.len() + self.of.len());
        let start = out.len();
        let mut header = [0u8; TRANSFER_HEADER_BYTES];
        header[0..4].copy_from_slice(&(length as u32).to_le_bytes());
        header[4] = TAG_TRANSFER;
        header[5] = 1;
        header[6] = self.kind as u8;
        header[7] = self.code.map_or(0, |code| code as u8);
        header[8..24].copy_from_slice(&self.digest);
        header[24..32].copy_from_slice(&self.amount.minor_units().to_le_bytes());
        header[32..36].copy_from_slice(&self.debit.to_le_bytes());
        header[36..40].copy_from_slice(&self.credit.to_le_bytes());
        header[40..48].copy_from_slice(&self.key_hash.to_le_bytes());
        header[48..51].copy_from_slice(&self.currency.bytes());
        header[51] = u8::try_from(self.id.len()).expect("ids are bounded where they enter");
        header[52] = u8::try_from(self.of.len()).expect("ids are bounded where they enter");
        out.extend_from_slice(&header);
        out.extend_from_slice(self.id);
        out.extend_from_slice(self.of);
        out.resize(start + length, 0);
    }

    pub fn decode(bytes: &'a [u8]) -> Result<TransferEntry<'a>, EntryError> {
        let bytes = entry(bytes, TAG_TRANSFER, TRANSFER_HEADER_BYTES)?;
        let id_end = TRANSFER_HEADER_BYTES + usize::from(bytes[51]);
        let of_end = id_end + usize::from(bytes[52]);
        if of_end > bytes.len() {
            return Err(EntryError::Truncated);
        }
        Ok(TransferEntry {
            kind: TransferKind::from_u8(bytes[6]).ok_or(EntryError::Field("kind"))?,
            code: match bytes[7] {
                0 => None,
                byte => Some(PayoutCode::from_u8(byte).ok_or(EntryError::Field("code"))?),
            },
            digest: bytes[8..24].try_into().expect("sixteen bytes"),
            amount: Amount::new(u64_at(bytes, 24)).ok_or(EntryError::Field("amount"))?,
            debit: u32_at(bytes, 32),
            credit: u32_at(bytes, 36),
            key_hash: u64_at(bytes, 40),
            currency: Currency::from_bytes([bytes[48], bytes[49], bytes[50]])
                .ok_or(EntryError::Field("currency"))?,
            id: &bytes[TRANSFER_HEADER_BYTES..id_end],
            of: &bytes[id_end..of_end],
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountEntry<'a> {
    pub number: u32,
    pub currency: Currency,
    pub name: &'a [u8],
}

impl<'a> AccountEntry<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let length = padded(ACCOUNT_HEADER_BYTES + self.name.len());
        let start = out.len();
        out.extend_from_slice(&(length as u32).to_le_bytes());
        let name_len = u8::try_from(self.name.len()).expect("names are bounded where they enter");
        out.extend_from_slice(&[TAG_ACCOUNT, 1, name_len, 0]);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.currency.bytes());
        out.push(0);
        out.extend_from_slice(self.name);
        out.resize(start + length, 0);
    }

    pub fn decode(bytes: &'a [u8]) -> Result<AccountEntry<'a>, EntryError> {
        let bytes = entry(bytes, TAG_ACCOUNT, ACCOUNT_HEADER_BYTES)?;
        let name_end = ACCOUNT_HEADER_BYTES + usize::from(bytes[6]);
        Ok(AccountEntry {
            number: u32_at(bytes, 8),
            currency: Currency::from_bytes([bytes[12], bytes[13], bytes[14]])
                .ok_or(EntryError::Field("currency"))?,
            name: bytes.get(ACCOUNT_HEADER_BYTES..name_end).ok_or(EntryError::Truncated)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn come_back_as_they_went() {
        let currency = Currency::parse("CNY").unwrap();
        let transfer = TransferEntry {
            kind: TransferKind::Reverse,
            code: Some(PayoutCode::Burned),
            digest: [3; 16],
            amount: Amount::new(88).unwrap(),
            debit: 1,
            credit: NO_ACCOUNT,
            key_hash: 9,
            currency,
            id: b"s:r-2",
            of: b"s:r-1",
        };
        let account = AccountEntry { number: 4, currency, name: b"person:ann" };
        let mut bytes = Vec::new();
        transfer.encode(&mut bytes);
        let second = bytes.len();
        account.encode(&mut bytes);
        assert_eq!(TransferEntry::decode(&bytes), Ok(transfer));
        assert_eq!(AccountEntry::decode(&bytes[second..]), Ok(account));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] = 0xff;
            let _ = TransferEntry::decode(&damaged);
            let _ = AccountEntry::decode(&damaged[second..]);
        }
    }
}
