//! What every reader of streams keeps in mind: how far it is in each, whether anything was lost, when to say so.
//!
//! The positions themselves live with what the reader made of the facts; here is a copy of those that it reads now.
//! Streams come and go with the units that an instance owns: one that comes is asked for at the reader's store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::stream::{Position, StreamError, StreamId, StreamSource, Stretch, Tail};
use super::view::{Lag, Progress};
use crate::request::rfc3339::Rfc3339;

/// How often streams are looked at whole: for how far they go, and whether anything was lost.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often the source is told how far we are.
const NOTE_EVERY: Duration = Duration::from_secs(5);

pub struct Following {
    source: Arc<dyn StreamSource>,
    positions: BTreeMap<String, Position>,
    looked_at: Option<Instant>,
    noted_at: Option<Instant>,
    tails: BTreeMap<String, Tail>,
}

impl Following {
    pub fn new(source: Arc<dyn StreamSource>) -> Following {
        let (positions, tails) = (BTreeMap::new(), BTreeMap::new());
        Following { source, positions, looked_at: None, noted_at: None, tails }
    }

    /// What comes next in all streams that are ours now, about `bytes_max` of it. `stored` answers how far the store
    /// has read a stream.
    pub fn next<E: From<StreamError>>(
        &mut self,
        bytes_max: usize,
        stored: impl FnOnce(&[String]) -> Result<Vec<Position>, E>,
    ) -> Result<Vec<Stretch>, E> {
        let streams = self.source.streams();
        self.positions.retain(|stream, _| streams.contains(stream));
        self.tails.retain(|stream, _| streams.contains(stream));
        let new: Vec<String> =
            streams.iter().filter(|stream| !self.positions.contains_key(*stream)).cloned().collect();
        if !new.is_empty() {
            let found = stored(&new)?;
            self.positions.extend(found.into_iter().map(|position| (position.stream.clone(), position)));
        }
        if !new.is_empty() || self.looked_at.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            self.look(streams)?;
        }
        if self.positions.is_empty() {
            return Ok(Vec::new());
        }
        let positions: Vec<Position> = self.positions.values().cloned().collect();
        Ok(self.source.read(&positions, bytes_max)?)
    }

    fn look(&mut self, streams: Vec<String>) -> Result<(), StreamError> {
        let tails = self.source.tails(&streams)?;
        let new = |stream: &String| self.positions.get(stream).is_some_and(is_new);
        let begun = streams
            .iter()
            .zip(&tails)
            .filter(|(stream, _)| new(stream))
            .filter_map(|(_, tail)| tail.as_ref());
        if let Some(Begun { missed, from_ms }) = begun_late(begun) {
            let from = Rfc3339(from_ms).to_string();
            tracing::warn!(
                missed,
                from,
                "this outcome view begins with what the streams still hold: outcomes from before then are unknown to \
                 it, and a request that it does not know may be settled (send it again under its id to learn; a copy \
                 of another instance's view, put in place before the start, knows more)"
            );
        }
        for (stream, tail) in streams.into_iter().zip(tails) {
            let Some(tail) = tail else { continue };
            if let Some(position) = self.positions.get_mut(&stream) {
                compare(position, &tail);
            }
            self.tails.insert(stream, tail);
        }
        self.looked_at = Some(Instant::now());
        Ok(())
    }

    /// The positions behind these stretches: to be stored with what was made of them.
    pub fn behind(&self, stretches: &[Stretch]) -> Vec<Position> {
        let behind = |stretch: &Stretch| {
            let before = self.positions.get(&stretch.stream)?;
            let frame_count = before.frame_count + stretch.frames.len() as u64;
            let id = stretch.frames.last().map_or(before.id, |frame| frame.id);
            Some(Position { stream: stretch.stream.clone(), id, frame_count })
        };
        stretches.iter().filter_map(behind).collect()
    }

    /// Where each of these was before; the default where it is not followed.
    pub fn at(&self, stream: &str) -> StreamId {
        self.positions.get(stream).map_or(StreamId::default(), |position| position.id)
    }

    /// They are stored.
    pub fn moved_to(&mut self, positions: Vec<Position>) {
        self.positions.extend(positions.into_iter().map(|position| (position.stream.clone(), position)));
    }

    /// What is stored may be otherwise than is kept here: it is asked for again.
    pub fn forget(&mut self) {
        self.positions.clear();
    }

    /// Frames that are there and not read, as of the last look.
    pub fn lag(&self, progress: Progress) -> Lag {
        let lag = |(stream, tail): (&String, &Tail)| {
            let read = self.positions.get(stream).map_or(0, |position| position.frame_count);
            tail.frame_count.saturating_sub(read)
        };
        let read: u64 = self.positions.values().map(|position| position.frame_count).sum();
        Lag::estimate(self.tails.iter().map(lag).sum(), progress.facts, read)
    }

    /// Tells the source how far we are, now and then.
    pub fn note_when_due(&mut self) -> Result<(), StreamError> {
        if self.positions.is_empty() || self.noted_at.is_some_and(|at| at.elapsed() < NOTE_EVERY) {
            return Ok(());
        }
        let positions: Vec<Position> = self.positions.values().cloned().collect();
        if self.source.note(&positions)? {
            self.noted_at = Some(Instant::now());
        }
        Ok(())
    }
}

fn is_new(position: &Position) -> bool {
    position.id == StreamId::default() && position.frame_count == 0
}

/// What a reader cannot have read that begins now.
#[derive(Debug, PartialEq, Eq)]
struct Begun {
    missed: u64,
    /// When the first entry was written that it finds; where it finds none, the last one.
    from_ms: u64,
}

/// Of the streams that are read from their beginning.
fn begun_late<'t>(tails: impl Iterator<Item = &'t Tail>) -> Option<Begun> {
    let cut: Vec<&Tail> = tails.filter(|tail| tail.trimmed_count > 0).collect();
    let first =
        |tail: &&Tail| if tail.first_id == StreamId::default() { tail.id.ms } else { tail.first_id.ms };
    let from_ms = cut.iter().map(first).max()?;
    Some(Begun { missed: cut.iter().map(|tail| tail.trimmed_count).sum(), from_ms })
}

/// Says so if entries are gone that were never read, or all of them are.
fn compare(position: &mut Position, tail: &Tail) {
    let stream = position.stream.clone();
    if is_new(position) {
        // What it missed is said of all streams together.
        position.frame_count = tail.trimmed_count;
        return;
    }
    if tail.id < position.id {
        let (read_to, ends_at) = (position.id, tail.id);
        tracing::error!(
            stream,
            %read_to,
            %ends_at,
            "a stream of outcomes ends before what was read of it: Redis lost it, and it is read from its beginning"
        );
        *position = Position { stream, ..Position::default() };
        return;
    } else if tail.frame_count < position.frame_count {
        tracing::error!(stream, "a stream of outcomes was made anew: Redis lost what was in it");
        position.frame_count = tail.trimmed_count;
    }
    if tail.trimmed_count > position.frame_count {
        let missed = tail.trimmed_count - position.frame_count;
        tracing::error!(
            stream,
            missed,
            "outcomes were given up before they were read; keep them for longer (outcomes_retention_s)"
        );
        position.frame_count = tail.trimmed_count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_noticed_and_what_is_not_is_not() {
        let at = |ms| StreamId { ms, number: 0 };
        let position = |ms, frame_count| Position { stream: "s".into(), id: at(ms), frame_count };
        let tail = |ms, frame_count, trimmed_count| Tail {
            id: at(ms),
            frame_count,
            trimmed_count,
            ..Tail::default()
        };
        let table = [
            ("new to it", position(0, 0), tail(9, 5, 0), position(0, 0)),
            ("new, and cut before it came", position(0, 0), tail(9, 5, 2), position(0, 2)),
            ("up with it", position(9, 5), tail(9, 5, 2), position(9, 5)),
            ("behind what is gone", position(3, 2), tail(9, 5, 4), position(3, 4)),
            ("made anew, later", position(4, 5), tail(9, 2, 0), position(4, 0)),
            ("all gone, made anew", position(9, 5), tail(4, 2, 0), position(0, 0)),
            ("not there any more", position(9, 5), Tail::default(), position(0, 0)),
        ];
        for (name, mut before, tail, after) in table {
            compare(&mut before, &tail);
            assert_eq!(before, after, "{name}");
        }
    }

    #[test]
    fn a_reader_that_begins_late_is_told_from_when_on() {
        let at = |ms| StreamId { ms, number: 0 };
        let tail = |first, last, trimmed_count| Tail {
            id: at(last),
            frame_count: 9,
            trimmed_count,
            first_id: at(first),
        };
        let table = [
            (vec![], None),
            (vec![tail(3, 9, 0)], None),
            (vec![tail(3, 9, 2), tail(5, 8, 0)], Some(Begun { missed: 2, from_ms: 3 })),
            (vec![tail(3, 9, 2), tail(5, 8, 4)], Some(Begun { missed: 6, from_ms: 5 })),
            (vec![tail(0, 7, 9)], Some(Begun { missed: 9, from_ms: 7 })),
        ];
        for (tails, expected) in table {
            assert_eq!(begun_late(tails.iter()), expected, "{tails:?}");
        }
    }
}
