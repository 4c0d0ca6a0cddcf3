//! The view as a reader of streams: frames become facts, and how far each stream was read is stored with them.

use std::sync::{Arc, Mutex, PoisonError};

use super::apply::Chunk;
use super::{Applied, Lag, Progress, View, ViewError, keyed};
use crate::outcome::following::Following;
use crate::outcome::redis::{Frame, FrameError};
use crate::outcome::stream::{StreamError, StreamFrame, StreamSource, Stretch};
use crate::outcome::view::worker::Work;
use crate::outcome::{OutcomeView, Told};

/// Bytes of a frame that a fact takes, about.
pub const FACT_BYTES: usize = 80;

/// Hands over the facts of a frame; answers how many entries no release can read, which is said aloud. One that a later
/// release may read is an error, since passing over it would lose it.
pub fn collect_facts<'a>(
    stream: &str,
    frame: &'a StreamFrame,
    mut take: impl FnMut(Told<'a>),
) -> Result<u64, StreamError> {
    let unreadable = |error: FrameError| {
        tracing::error!(stream, id = %frame.id, %error, "an entry of the outcome stream was passed over");
        Ok(1)
    };
    let facts = match Frame::open(&frame.bytes) {
        Ok(facts) => facts,
        Err(error @ FrameError::Version(_)) => {
            let reason = format!("{error}; use the newer hongbao");
            return Err(StreamError::Frame { stream: stream.to_owned(), id: frame.id, reason });
        }
        Err(error) => return unreadable(error),
    };
    for told in facts {
        match told {
            Ok(told) => take(told),
            Err(error) => return unreadable(error),
        }
    }
    Ok(0)
}

/// A view that is made from streams.
pub trait FromStreams: OutcomeView {
    /// Reads what comes next in the streams that are followed, about `facts_max` facts, and applies it in one
    /// transaction.
    fn apply_streams(&self, following: &mut Following, facts_max: usize) -> Result<Applied, ViewError>;
}

impl FromStreams for View {
    fn apply_streams(&self, following: &mut Following, facts_max: usize) -> Result<Applied, ViewError> {
        let mut guard = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = &mut *guard;
        if std::mem::replace(&mut writer.dirty, true) {
            writer.memory.forget();
            following.forget();
        }
        let before = self.progress();
        if before.cursor > 0 {
            return Err(ViewError::OtherLog { path: self.path().to_owned() });
        }
        let stretches = following.next(facts_max * FACT_BYTES, |streams| {
            streams
                .iter()
                .map(|stream| keyed::position(&writer.conn, stream))
                .collect::<Result<_, ViewError>>()
        })?;
        if stretches.is_empty() {
            writer.dirty = false;
            return Ok(Applied::default());
        }
        let mut chunk = Chunk::begin_keyed(&writer.conn, &mut writer.memory)?;
        for Stretch { stream, frames } in &stretches {
            for frame in frames {
                let mut failed = None;
                let skipped = collect_facts(stream, frame, |told| {
                    if failed.is_none() {
                        failed = chunk.told(&told).err();
                    }
                })?;
                if let Some(error) = failed {
                    return Err(error);
                }
                chunk.skip(skipped);
            }
        }
        let applied = Applied { facts: chunk.facts(), advanced: true };
        let skipped = before.skipped + chunk.skipped();
        let positions = following.behind(&stretches);
        chunk.commit_streams(&positions)?;
        following.moved_to(positions);
        let progress = Progress { cursor: 0, facts: before.facts + applied.facts, skipped };
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
        writer.dirty = false;
        Ok(applied)
    }
}

/// What the worker does for a view of streams.
pub struct FollowStreams<V> {
    view: Arc<V>,
    following: Mutex<Following>,
    /// After the last chunk, so that nobody waits for one to ask.
    lag: Mutex<Lag>,
}

impl<V: FromStreams> FollowStreams<V> {
    pub fn new(view: Arc<V>, source: Arc<dyn StreamSource>) -> FollowStreams<V> {
        FollowStreams { view, following: Mutex::new(Following::new(source)), lag: Mutex::default() }
    }
}

impl<V: FromStreams> Work for FollowStreams<V> {
    fn apply(&self, facts_max: usize) -> Result<Applied, ViewError> {
        let mut following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        let applied = self.view.apply_streams(&mut following, facts_max)?;
        *self.lag.lock().unwrap_or_else(PoisonError::into_inner) = following.lag(self.view.progress());
        following.note_when_due()?;
        Ok(applied)
    }

    fn progress(&self) -> Progress {
        self.view.progress()
    }

    fn lag(&self) -> Lag {
        *self.lag.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
