//! A batch of transfers in two buffers that are kept from batch to batch, so that filling one allocates
//! nothing once it has grown.

use crate::domain::transfer::write_names;
use crate::domain::{Amount, Currency, Request, Transfer, TransferKind};

#[derive(Clone, Copy, Debug)]
struct Row {
    kind: TransferKind,
    key_hash: u64,
    digest: [u8; 16],
    amount: Amount,
    currency: Currency,
    expires_in_s: u32,
    /// Where id, debit, credit and `of` end in the name buffer; each begins where the one before ends.
    start: usize,
    ends: [usize; 4],
}

#[derive(Debug, Default)]
pub struct TransferBatch {
    rows: Vec<Row>,
    names: Vec<u8>,
}

impl TransferBatch {
    pub fn clear(&mut self) {
        self.rows.clear();
        self.names.clear();
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn push(&mut self, transfer: &Transfer<'_>) {
        let start = self.names.len();
        let ends = [transfer.id, transfer.debit, transfer.credit, transfer.of].map(|name| {
            self.names.extend_from_slice(name);
            self.names.len()
        });
        self.rows.push(Row {
            kind: transfer.kind,
            key_hash: transfer.key_hash,
            digest: transfer.digest,
            amount: transfer.amount,
            currency: transfer.currency,
            expires_in_s: transfer.expires_in_s,
            start,
            ends,
        });
    }

    /// What `request` asks for: the same as pushing the transfer over its [`Names`](crate::domain::transfer::Names),
    /// but that the names are written once.
    pub fn push_request(&mut self, request: &Request<'_>, kind: TransferKind) {
        let start = self.names.len();
        let ends = write_names(&mut self.names, request);
        self.rows.push(Row {
            kind,
            key_hash: request.key_hash,
            digest: request.digest,
            amount: request.amount,
            currency: request.currency,
            expires_in_s: 0,
            start,
            ends,
        });
    }

    pub fn iter(&self) -> impl Iterator<Item = Transfer<'_>> + Clone {
        self.rows.iter().map(|row| Transfer {
            kind: row.kind,
            id: &self.names[row.start..row.ends[0]],
            key_hash: row.key_hash,
            digest: row.digest,
            debit: &self.names[row.ends[0]..row.ends[1]],
            credit: &self.names[row.ends[1]..row.ends[2]],
            amount: row.amount,
            currency: row.currency,
            of: &self.names[row.ends[2]..row.ends[3]],
            expires_in_s: row.expires_in_s,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Kind;
    use crate::domain::transfer::{Names, transfer_kind};

    #[test]
    fn a_request_is_pushed_as_its_transfer_is() {
        let (mut as_transfers, mut as_requests) = (TransferBatch::default(), TransferBatch::default());
        for kind in (1..=6).filter_map(Kind::from_u8) {
            for merchant in ["", "m"] {
                let (amount, currency) = (Amount::new(7).unwrap(), Currency::parse("CNY").unwrap());
                let new = Request::new(kind, "s", "r", "c", amount, currency);
                let request =
                    Request { party: "p", merchant, original: "o", key_hash: 5, digest: [6; 16], ..new };
                let mut names = Names::default();
                names.fill(&request);
                as_transfers.push(&names.transfer(&request));
                as_requests.push_request(&request, transfer_kind(kind));
            }
        }
        assert!(as_requests.iter().eq(as_transfers.iter()));
        assert_eq!(as_requests.len(), 12);
    }
}
