//! Reading the streams of all units that a reader is responsible for: one round for all of them.
//!
//! Plain cursors, kept by the reader with what it made of the facts, and no consumer groups: Redis need not know who
//! has read what, but for what may be trimmed (see [`trim`](super::trim)). What holds: a round asks for a bounded
//! number of bytes, by the largest frame seen lately.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::trim;
use crate::intake::redis::{Keys, UnitId};
use crate::outcome::stream::{Position, StreamError, StreamFrame, StreamId, StreamSource, Stretch, Tail};
use crate::redis::{Command, Failure, Link, LinkError, Target, Value, reply};

/// Bytes that one round may bring, about, whatever is asked.
const ROUND_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Frames of one stream in a round, at most.
const FRAMES_MAX: usize = 1_000;
/// What a frame is taken to have before one was seen.
const FRAME_BYTES_AT_FIRST: usize = 64 * 1024;

/// The streams of the units that `responsible` names at the time.
pub struct RedisStreams {
    link: Mutex<Link>,
    keys: Arc<Keys>,
    /// The name of this reader, among all of the fleet.
    reader: String,
    responsible: Box<dyn Fn() -> Vec<UnitId> + Send + Sync>,
    /// Whether this reader counts for what may be trimmed.
    counts: Box<dyn Fn() -> bool + Send + Sync>,
    by_name: HashMap<String, UnitId>,
    /// Of the largest frames lately.
    frame_bytes: AtomicUsize,
}

impl RedisStreams {
    /// `reader` is known by this name for trimming; it holds no `|`.
    pub fn new(
        target: &Target,
        keys: Arc<Keys>,
        reader: &str,
        responsible: Box<dyn Fn() -> Vec<UnitId> + Send + Sync>,
    ) -> Result<RedisStreams, LinkError> {
        assert!(!reader.contains('|'), "the name of a reader is written before a |");
        let by_name = keys.units().ids().map(|unit| (keys.unit_name(unit), unit)).collect();
        Ok(RedisStreams {
            link: Mutex::new(Link::new(target)?),
            keys,
            reader: reader.to_owned(),
            responsible,
            counts: Box::new(|| true),
            by_name,
            frame_bytes: AtomicUsize::new(FRAME_BYTES_AT_FIRST),
        })
    }

    /// It is waited for only if it was so at some time: an instance that may own nothing holds up nobody's memory.
    #[must_use]
    pub fn counted_while(mut self, counts: Box<dyn Fn() -> bool + Send + Sync>) -> RedisStreams {
        self.counts = counts;
        self
    }

    fn key(&self, stream: &str) -> Result<String, StreamError> {
        let unit = self.by_name.get(stream).copied();
        let unit = unit.ok_or_else(|| StreamError::Store(format!("{stream} is no unit of this instance")))?;
        Ok(self.keys.outcomes(unit))
    }

    fn round(&self, commands: &[Command]) -> Vec<Result<Value, Failure>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).round(commands)
    }

    /// Learns how large frames are: quickly when they grow, slowly when they shrink.
    fn learn(&self, stretches: &[Stretch]) {
        let largest =
            stretches.iter().flat_map(|stretch| &stretch.frames).map(|frame| frame.bytes.len()).max();
        if let Some(largest) = largest {
            let before = self.frame_bytes.load(Ordering::Relaxed);
            self.frame_bytes.store(largest.max(before - before / 8), Ordering::Relaxed);
        }
    }
}

fn failed(failure: Failure) -> StreamError {
    StreamError::Store(failure.to_string())
}

impl StreamSource for RedisStreams {
    fn streams(&self) -> Vec<String> {
        (self.responsible)().into_iter().map(|unit| self.keys.unit_name(unit)).collect()
    }

    fn read(&self, after: &[Position], bytes_max: usize) -> Result<Vec<Stretch>, StreamError> {
        let share = bytes_max.min(ROUND_BYTES_MAX)
            / self.frame_bytes.load(Ordering::Relaxed).max(1)
            / after.len().max(1);
        let count = share.clamp(1, FRAMES_MAX);
        let range = |position: &Position| {
            let key = self.key(&position.stream)?;
            let from = format!("({}", position.id);
            Ok(Command::new("XRANGE", key).arg(from).arg("+").arg("COUNT").arg(count))
        };
        let commands = after.iter().map(range).collect::<Result<Vec<Command>, StreamError>>()?;
        let mut stretches = Vec::new();
        for (position, result) in after.iter().zip(self.round(&commands)) {
            let frames = match result.and_then(frames) {
                // The unit stands still, and says so; others are read on.
                Err(failure) if failure.is_code("WRONGTYPE") => continue,
                other => other.map_err(failed)?,
            };
            if !frames.is_empty() {
                stretches.push(Stretch { stream: position.stream.clone(), frames });
            }
        }
        self.learn(&stretches);
        Ok(stretches)
    }

    fn tails(&self, streams: &[String]) -> Result<Vec<Option<Tail>>, StreamError> {
        let info = |stream: &String| {
            let key = self.key(stream)?;
            Ok(Command::routed("XINFO", &key).arg("STREAM").arg(key))
        };
        let commands = streams.iter().map(info).collect::<Result<Vec<Command>, StreamError>>()?;
        let tail = |result: Result<Value, Failure>| match result {
            // There is no such stream yet.
            Err(failure) if failure.is_code("ERR") => Ok(Some(Tail::default())),
            Err(failure) if failure.is_code("WRONGTYPE") => Ok(None),
            other => other.and_then(tail_of).map(Some).map_err(failed),
        };
        self.round(&commands).into_iter().map(tail).collect()
    }

    fn note(&self, positions: &[Position]) -> Result<bool, StreamError> {
        if !(self.counts)() {
            return Ok(false);
        }
        let commands = trim::note(&self.keys, &self.reader, positions);
        let noted = self.round(&commands).into_iter().try_for_each(|result| result.map(|_| ()));
        noted.map(|()| true).map_err(failed)
    }
}

const STRANGE: &str = "entries of a stream";

fn frames(value: Value) -> Result<Vec<StreamFrame>, Failure> {
    let strange = || Failure::Strange { command: "XRANGE".to_owned(), expected: STRANGE };
    let frame = |entry: Value| {
        let mut parts = reply::array("XRANGE", entry)?.into_iter();
        let (id, fields) = (parts.next().ok_or_else(strange)?, parts.next().ok_or_else(strange)?);
        let id = reply::text("XRANGE", id)?.and_then(|id| StreamId::parse(&id)).ok_or_else(strange)?;
        // An entry that somebody else wrote has other fields, and no frame: it is refused by name when it is read.
        let frame = reply::array("XRANGE", fields)?.into_iter().nth(1).ok_or_else(strange)?;
        Ok(StreamFrame { id, bytes: reply::bytes("XRANGE", frame)?.unwrap_or_default() })
    };
    reply::array("XRANGE", value)?.into_iter().map(frame).collect()
}

/// Of the first entry; none is there in an empty stream.
fn first_id(entry: Value) -> Result<StreamId, Failure> {
    if entry == Value::Nil {
        return Ok(StreamId::default());
    }
    let id =
        reply::array("XINFO", entry)?.into_iter().next().map(|id| reply::text("XINFO", id)).transpose()?;
    let strange = Failure::Strange { command: "XINFO".to_owned(), expected: STRANGE };
    id.flatten().and_then(|id| StreamId::parse(&id)).ok_or(strange)
}

fn tail_of(value: Value) -> Result<Tail, Failure> {
    let mut tail = Tail::default();
    let mut length = 0;
    let mut fields = reply::array("XINFO", value)?.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        match reply::text("XINFO", name)?.as_deref() {
            Some("length") => length = reply::int("XINFO", value)?.unsigned_abs(),
            Some("entries-added") => tail.frame_count = reply::int("XINFO", value)?.unsigned_abs(),
            Some("last-generated-id") => {
                let id = reply::text("XINFO", value)?.and_then(|id| StreamId::parse(&id));
                let expected = "the id of a stream's entry";
                tail.id = id.ok_or(Failure::Strange { command: "XINFO".to_owned(), expected })?;
            }
            Some("first-entry") => tail.first_id = first_id(value)?,
            _ => {}
        }
    }
    tail.trimmed_count = tail.frame_count.saturating_sub(length);
    Ok(tail)
}
