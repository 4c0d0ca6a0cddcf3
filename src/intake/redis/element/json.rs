//! The JSON of a foreign list: one object, or an array of them, to encoded requests.
//!
//! The fast reader takes what is in order; the diagnosing one reads again what it refuses, and says why.

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;

use super::super::contents::{Contents, Dead, DeadReason, Decoded};
use super::lanes::Lanes;
use super::signature::Signer;
use super::{ITEMS_MAX, code, dead};
use crate::domain::{Refusal, UnixMs, record};
use crate::intake::QueueId;
use crate::intake::desk::campaigns::Registry;
use crate::request::fault::{Faults, Place};
use crate::request::judge::{Bench, Expect, Inherited, Judge};
use crate::request::wire::{Bounded, Payout};
use crate::request::{diagnose, wire};

/// Faults of one payout that are told; the rest are counted.
const FAULTS_TOLD_MAX: usize = 5;

/// Records are kept in pieces of memory of this size. One that waits long keeps its neighbours' memory.
const ROOM_BYTES: usize = 32 << 10;

/// Reads for one client; keeps its buffers between elements.
pub struct JsonReader {
    judge: Judge<'static>,
    lanes: Lanes,
    fair_queue_count: u8,
    record: Vec<u8>,
    room: BytesMut,
}

impl JsonReader {
    pub fn new(client: String, registry: Registry, fair_queue_count: u8) -> JsonReader {
        let lanes = Lanes::new(client.clone(), registry);
        let (record, room) = (Vec::new(), BytesMut::new());
        JsonReader { judge: Judge::new(client), lanes, fair_queue_count, record, room }
    }

    /// Adds what is in a payload. A dead item is kept as its own text, signed if its array was, so that it can be
    /// pushed again as it is.
    pub fn read(
        &mut self,
        payload: &[u8],
        now: UnixMs,
        signer: Option<&Signer>,
        out: &mut Contents,
    ) -> Result<(), DeadReason> {
        let text = std::str::from_utf8(payload).map_err(|error| {
            dead(code::MALFORMED_JSON, format!("not UTF-8 behind byte {}", error.valid_up_to()))
        })?;
        if !text.trim_ascii_start().starts_with('[') {
            out.requests.push(self.payout(text, now)?);
            return Ok(());
        }
        let items: Bounded<&RawValue> =
            serde_json::from_str(text).map_err(|error| dead(code::MALFORMED_JSON, error.to_string()))?;
        if items.count > ITEMS_MAX {
            let detail = format!("the array has {} items; at most {ITEMS_MAX} are taken", items.count);
            return Err(dead(code::TOO_MANY_ITEMS, detail));
        }
        for item in items.kept {
            match self.payout(item.get(), now) {
                Ok(decoded) => out.requests.push(decoded),
                Err(reason) => {
                    let text = item.get().as_bytes();
                    let element = signer.map_or_else(|| text.to_vec(), |signer| signer.sign(text));
                    out.dead.push(Dead { element: Bytes::from(element), cut_from: None, reason });
                }
            }
        }
        Ok(())
    }

    fn payout(&mut self, text: &str, now: UnixMs) -> Result<Decoded, DeadReason> {
        let mut faults = Faults::default();
        let payout = match wire::payout(text) {
            Some(payout) => payout,
            None => diagnose::payout(text, Expect::Either.shape(), &mut faults)
                .map_err(|not_json| dead(code::MALFORMED_JSON, not_json.0))?,
        };
        self.judge(&payout, now, &mut faults).ok_or_else(|| told(faults))
    }

    fn judge(&mut self, payout: &Payout<'_>, now: UnixMs, faults: &mut Faults) -> Option<Decoded> {
        let bench = Bench { place: Place::Top, faults };
        let (request, lane_given) =
            self.judge.request(payout, Expect::Either, Inherited::default(), bench)?;
        let lane = match lane_given {
            true => request.lane,
            false => self.lanes.of(request.campaign, now),
        };
        let queue = QueueId::of(lane, request.campaign, self.fair_queue_count);
        self.record.clear();
        request.encode(&mut self.record);
        record::set_acceptance(&mut self.record, now, lane, true);
        Some(Decoded { queue, record: self.keep() })
    }

    /// Records that are read together lie together, and are given back together.
    fn keep(&mut self) -> Bytes {
        if self.room.capacity() < self.record.len() {
            self.room = BytesMut::with_capacity(ROOM_BYTES.max(self.record.len()));
        }
        self.room.extend_from_slice(&self.record);
        self.room.split().freeze()
    }
}

/// The faults of a payout, as one reason.
fn told(faults: Faults) -> DeadReason {
    let code = match faults.refusal() {
        Refusal::UnknownField => code::UNKNOWN_FIELD,
        _ => code::INVALID_FIELD,
    };
    let list = faults.into_list();
    let mut told: Vec<String> = list
        .iter()
        .take(FAULTS_TOLD_MAX)
        .map(|fault| match fault.pointer.as_str() {
            "" => fault.detail.clone(),
            pointer => format!("{pointer}: {}", fault.detail),
        })
        .collect();
    if list.len() > FAULTS_TOLD_MAX {
        told.push(format!("and {} more", list.len() - FAULTS_TOLD_MAX));
    }
    dead(code, told.join("; "))
}
