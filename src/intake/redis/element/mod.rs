//! What is in an element of a list: one request, or many.
//!
//! | list | element | whose it is |
//! |---|---|---|
//! | foreign | one JSON object, fields as in the HTTP API | the list's client |
//! | foreign | one JSON array of such objects, up to [`ITEMS_MAX`] | the list's client |
//! | foreign, with a key | `hmac-sha256:<64 hex>:` and one of these; see [`signature`] | the list's client |
//! | shard | a [frame](frame) of many requests, written by a door | whom each names |
//!
//! What holds: a frame names its clients and so is trusted on a shard list only, and JSON on a foreign one only. Else
//! whoever may push somewhere could pay in another's name; so only the service's own Redis user should be allowed to
//! write the shards' keys. `payer`, `merchant` and `agreement` make a collection. A foreign request is accepted when
//! it is read. Items of an array are judged each on its own: a bad one dies alone. Arbitrary bytes never panic. Absent:
//! whatever depends on time or state; a request that has expired, or whose campaign is not known, goes on, and gets
//! its final state from the pipeline.

pub mod frame;
mod json;
mod lanes;
pub mod signature;

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::contents::{Contents, DeadReason, Elements};
use super::units::{ForeignList, UnitId, Units};
use crate::domain::UnixMs;
use crate::intake::desk::campaigns::Registry;
use crate::request::shape::BATCH_ITEMS_MAX;
use json::JsonReader;
use signature::Signer;

pub use frame::encode_frame;

/// Items of an array.
pub const ITEMS_MAX: usize = BATCH_ITEMS_MAX;

/// Why an element, or an item of an array, is dead: the words that stand in `dead`.
pub mod code {
    /// Not JSON, or not UTF-8.
    pub const MALFORMED_JSON: &str = "malformed_json";
    /// A field is missing or wrong.
    pub const INVALID_FIELD: &str = "invalid_field";
    /// There is a field that no payout has.
    pub const UNKNOWN_FIELD: &str = "unknown_field";
    /// An array of more than [`super::ITEMS_MAX`].
    pub const TOO_MANY_ITEMS: &str = "too_many_items";
    /// The list has a key, and the element no signature.
    pub const UNSIGNED: &str = "unsigned";
    pub const BAD_SIGNATURE: &str = "bad_signature";
    /// The element is signed, and the list has no key to check it by.
    pub const NO_KEY: &str = "no_key";
    /// Not what this list takes: a frame on a foreign list, or anything else on a shard.
    pub const UNEXPECTED: &str = "unexpected";
    /// A frame, or a request in it, of another release.
    pub const UNKNOWN_VERSION: &str = "unknown_version";
    /// A frame that is not as it was written.
    pub const DAMAGED: &str = "damaged";
}

fn dead(code: &'static str, detail: impl Into<String>) -> DeadReason {
    DeadReason { code, detail: detail.into() }
}

/// A foreign list, and what is kept between its elements.
struct Foreign {
    name: String,
    signer: Option<Signer>,
    reader: Mutex<JsonReader>,
}

/// Takes the elements of all units apart.
pub struct ElementReader {
    shard_count: usize,
    fair_queue_count: u8,
    foreign: Vec<Foreign>,
}

impl ElementReader {
    pub fn new(units: &Units, registry: &Registry) -> ElementReader {
        let foreign = |list: &ForeignList| Foreign {
            name: list.name.clone(),
            signer: list.hmac_key.as_deref().map(Signer::new),
            reader: Mutex::new(JsonReader::new(
                list.client.clone(),
                registry.clone(),
                units.fair_queue_count,
            )),
        };
        ElementReader {
            shard_count: usize::from(units.shard_count),
            fair_queue_count: units.fair_queue_count,
            foreign: units.foreign.iter().map(foreign).collect(),
        }
    }
}

impl Elements for ElementReader {
    fn decode(
        &self,
        unit: UnitId,
        element: &Bytes,
        now: UnixMs,
        out: &mut Contents,
    ) -> Result<(), DeadReason> {
        match usize::from(unit.0).checked_sub(self.shard_count) {
            None => frame::decode(element, self.fair_queue_count, &mut out.requests),
            Some(position) => self.foreign[position].decode(element, now, out),
        }
    }
}

impl Foreign {
    fn decode(&self, element: &[u8], now: UnixMs, out: &mut Contents) -> Result<(), DeadReason> {
        let payload = match &self.signer {
            Some(signer) => signer.verify(element)?,
            None => signature::none_wanted(element)?,
        };
        if frame::looks_like_one(payload) {
            let detail = format!("a binary frame; {} takes a JSON object, or an array of them", self.name);
            return Err(dead(code::UNEXPECTED, detail));
        }
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader.read(payload, now, self.signer.as_ref(), out)
    }
}

#[cfg(test)]
mod tests;
