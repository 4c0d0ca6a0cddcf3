//! How the wallet's own record tells when a hold ends by itself: as Unix ms in digits, in the `of` of its entry,
//! for which a hold has no other use.
//!
//! What holds: the mark is set behind the digest, once the clock that decides has been read, so that a repeat of the
//! hold is the same body at any time and keeps the first end. Nobody outside the wallet sees it: callers say
//! `expires_in_s`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::domain::TransferKind;
use crate::stored_value::TransferBatch;

/// When a hold ends by itself (Unix ms), earliest first.
pub type Expiries = BinaryHeap<Reverse<(u64, Box<[u8]>)>>;

/// The batch as the ledger is to write it down, or `None` where that is the batch as it is: no hold in it ends by
/// itself.
pub fn marked(batch: &TransferBatch, now_ms: u64) -> Option<TransferBatch> {
    let ends = |kind, expires_in_s| kind == TransferKind::Hold && expires_in_s > 0;
    if !batch.iter().any(|transfer| ends(transfer.kind, transfer.expires_in_s)) {
        return None;
    }
    let mut marked = TransferBatch::default();
    for mut transfer in batch.iter() {
        let mut mark = String::new();
        if ends(transfer.kind, transfer.expires_in_s) {
            mark = now_ms.saturating_add(u64::from(transfer.expires_in_s) * 1_000).to_string();
        }
        if !mark.is_empty() {
            transfer.of = mark.as_bytes();
        }
        marked.push(&transfer);
    }
    Some(marked)
}

/// When the hold with this `of` in its entry ends; `None`: never.
pub fn end_ms(of: &[u8]) -> Option<u64> {
    std::str::from_utf8(of).ok()?.parse().ok()
}
