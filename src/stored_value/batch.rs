//! A batch of transfers in two buffers that are kept from batch to batch, so that filling one allocates
//! nothing once it has grown.

use crate::domain::{Amount, Currency, Transfer, TransferKind};

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

    pub fn iter(&self) -> impl Iterator<Item = Transfer<'_>> {
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
