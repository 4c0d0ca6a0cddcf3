//! Elements on their way from a reply to the local queues: each becomes requests, dead parts, or both.
//!
//! What holds: whatever an element holds counts as undone before any of it can be told as done.

use bytes::Bytes;

use super::Reader;
use super::state::Grave;
use crate::domain::{UnixMs, record};
use crate::intake::redis::contents::{Contents, Dead, DeadReason, Decoded};
use crate::intake::redis::queues::{Entry, Ticket};
use crate::intake::redis::sizes::Manner;
use crate::intake::redis::units::{Order, UnitId, place};
use crate::intake::redis::window::{Flight, Mismatch, Weight};
use crate::redis::{Failure, Value, reply};

/// Memory of a request beside its bytes.
const REQUEST_BYTES: u64 = 128;

/// An element, and how many bytes it has where this is only its beginning.
fn element_of(value: Value) -> Result<(Bytes, Option<u64>), Failure> {
    let (cut_from, value) = match value {
        Value::Array(mut parts) if parts.len() == 2 => {
            let (beginning, bytes) = (parts.pop().unwrap_or(Value::Nil), parts.pop().unwrap_or(Value::Nil));
            (Some(reply::int("scan", bytes)?.unsigned_abs()), beginning)
        }
        whole => (None, whole),
    };
    Ok((reply::bytes("LRANGE", value)?.map(Bytes::from).unwrap_or_default(), cut_from))
}

impl Reader {
    /// Takes in a reply of `asked` elements, or, of a scan, of the first of them; false if it is not that.
    pub(super) fn take_elements(
        &mut self,
        list: usize,
        (asked, manner): (u64, Manner),
        value: Value,
        now_ms: UnixMs,
    ) -> Result<bool, Failure> {
        let mut values = reply::array("LRANGE", value)?;
        // Not if its lengths came into doubt by another reply.
        let Some(read) = self.lists[list].window.next_read() else { return Ok(false) };
        let (count, is_scan) = (values.len() as u64, manner == Manner::Scanned);
        if count != asked && !(is_scan && count > 0 && count < asked) {
            let (expected, found) = (read.offset + asked, read.offset + values.len() as u64);
            self.spoil(list, Mismatch { side: read.side, expected, found });
            return Ok(false);
        }
        if self.lists[list].order == Order::Lpush && !is_scan {
            values.reverse();
        }
        let (mut sum, mut largest, mut all_bytes) = (Weight::default(), Weight::default(), 0);
        for value in values {
            let (element, cut_from) = element_of(value)?;
            let raw_bytes = cut_from.unwrap_or(element.len() as u64);
            all_bytes += raw_bytes;
            let flight = self.take_element(list, (element, cut_from), read.is_inherited, now_ms);
            sum.requests += u64::from(flight.requests);
            sum.bytes += u64::from(flight.bytes);
            largest.requests = largest.requests.max(u64::from(flight.requests));
            largest.bytes = largest.bytes.max(u64::from(flight.bytes)).max(raw_bytes);
        }
        self.lists[list].gauge.note_read(asked, count, sum, largest);
        self.lists[list].sizes.note_read(read.side, count, all_bytes);
        self.deliver();
        Ok(true)
    }

    fn take_element(
        &mut self,
        list: usize,
        (element, cut_from): (Bytes, Option<u64>),
        may_be_sent: bool,
        now_ms: UnixMs,
    ) -> Flight {
        let id = self.units[self.lists[list].unit].id;
        let mut contents = std::mem::take(&mut self.contents);
        self.take_apart(id, (&element, cut_from), now_ms, &mut contents);
        let Contents { requests, dead } = &contents;
        let record_bytes: usize = requests.iter().map(|decoded| decoded.record.len()).sum();
        let memory = element.len().max(record_bytes) as u64
            + REQUEST_BYTES * (requests.len() + dead.len()).max(1) as u64;
        let flight = Flight {
            undone: (requests.len() + dead.len()) as u32,
            requests: requests.len() as u32,
            bytes: memory.min(u64::from(u32::MAX)) as u32,
        };
        let era = self.lists[list].era;
        let position = self.lists[list].window.took(flight);
        let ticket = Ticket { list: list as u32, era, position };
        let unit = &mut self.units[self.lists[list].unit];
        for Decoded { queue, record } in contents.requests.drain(..) {
            let mark = record::key_hash(&record);
            let place = place(id, unit.sequence);
            unit.sequence += 1;
            let position = queue.position(self.keys.units().fair_queue_count);
            self.staged[position].push(Entry { ticket, place, mark, may_be_sent, record });
        }
        unit.graves.extend(contents.dead.drain(..).map(|dead| Grave { ticket, dead }));
        self.contents = contents;
        flight
    }

    fn take_apart(
        &self,
        id: UnitId,
        (element, cut_from): (&Bytes, Option<u64>),
        now_ms: UnixMs,
        contents: &mut Contents,
    ) {
        contents.clear();
        let bytes = cut_from.unwrap_or(element.len() as u64);
        let decoded = if bytes > self.options.element_bytes_max {
            let detail = format!("{bytes} bytes; at most {}", self.options.element_bytes_max);
            Err(DeadReason { code: "too_large", detail })
        } else {
            self.parts.elements.decode(id, element, now_ms, contents)
        };
        if let Err(reason) = decoded {
            contents.clear();
            contents.dead.push(Dead { element: element.clone(), cut_from, reason });
        }
    }

    /// Hands over what was read, so that a pipeline that waits need not wait for the rest of the round.
    fn deliver(&mut self) {
        let mut has_news = false;
        for (position, staged) in self.staged.iter_mut().enumerate() {
            if !staged.is_empty() {
                has_news = true;
                self.shared.queues.add(position, staged);
            }
        }
        if has_news {
            (self.parts.on_news)();
        }
    }
}
