//! Request bodies, serialised straight from the batch: one buffer, and no string of its own for any field.

use std::borrow::Cow;
use std::time::Duration;

use crate::domain::Transfer;
use crate::stored_value::TransferBatch;
use crate::stored_value::contract::{Entry, Ids, Transfers};

/// Room for an entry of common length, so that the buffer grows seldom.
const ENTRY_BYTES_USUAL: usize = 224;
const ID_BYTES_USUAL: usize = 64;

/// The body of `POST /v1/transfers`, or what is wrong with the batch.
pub(super) fn transfers(batch: &TransferBatch, deadline: Duration) -> Result<Vec<u8>, String> {
    let rows: Vec<Transfer<'_>> = batch.iter().collect();
    let entries: Result<Vec<Entry<'_>>, String> = rows.iter().map(entry).collect();
    let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX).max(1);
    let transfers = Transfers { deadline_ms, transfers: entries? };
    Ok(json(&transfers, batch.len() * ENTRY_BYTES_USUAL))
}

/// The body of a burn or a lookup.
pub(super) fn ids(ids: &Ids) -> Vec<u8> {
    json(ids, ids.ids.len() * ID_BYTES_USUAL)
}

fn json(value: &impl serde::Serialize, bytes_usual: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes_usual + 64);
    serde_json::to_writer(&mut out, value).expect("text and numbers always have a form in JSON");
    out
}

fn entry<'a>(transfer: &'a Transfer<'a>) -> Result<Entry<'a>, String> {
    Ok(Entry {
        id: text(transfer.id)?,
        kind: Cow::Borrowed(transfer.kind.as_str()),
        debit: text(transfer.debit)?,
        credit: text(transfer.credit)?,
        amount: transfer.amount.minor_units(),
        currency: Cow::Borrowed(transfer.currency.as_str()),
        of: text(transfer.of)?,
        expires_in_s: None,
        memo: None,
    })
}

/// JSON has no other text than UTF-8; a name that is not was never accepted by the door.
fn text(name: &[u8]) -> Result<Cow<'_, str>, String> {
    match std::str::from_utf8(name) {
        Ok(text) => Ok(Cow::Borrowed(text)),
        Err(_) => Err(format!(
            "the name {:?} is not UTF-8 and cannot be sent as JSON",
            name.escape_ascii().to_string()
        )),
    }
}
