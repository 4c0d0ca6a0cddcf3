//! Streams in memory, read one frame at a time in the order in which they were written: so that a model can follow.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hongbao::domain::Request;
use hongbao::outcome::Told;
use hongbao::outcome::redis::FrameWriter;
use hongbao::outcome::stream::{Position, StreamError, StreamFrame, StreamId, StreamSource, Stretch, Tail};

pub const NAMES: [&str; 3] = ["hb:0", "hb:1", "pay:in"];

#[derive(Default)]
pub struct State {
    frames: Vec<(usize, StreamFrame)>,
    /// The next read fails.
    pub breaks: bool,
    pub noted: Vec<Position>,
    /// The streams that are ours; all at first.
    pub ours: Option<Vec<usize>>,
    /// Frames a read may bring.
    pub frames_max: usize,
}

#[derive(Default)]
pub struct Streams {
    state: Mutex<State>,
}

impl Streams {
    /// The same streams, as an instance sees them that owns one of them.
    pub fn of(all: &Streams, stream: usize) -> Streams {
        let frames = all.state().frames.clone();
        Streams { state: Mutex::new(State { frames, ours: Some(vec![stream]), ..State::default() }) }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, stream: usize, facts: &[Told<'_>]) {
        let mut writer = FrameWriter::default();
        for told in facts {
            let request: &Request<'_> = &told.request;
            writer.push(&told.outcome(0), request);
        }
        self.push_bytes(stream, writer.finish().to_vec());
    }

    pub fn push_bytes(&self, stream: usize, bytes: Vec<u8>) {
        let mut state = self.state();
        let id = StreamId { ms: 1_000 + state.frames.len() as u64 / 2, number: state.frames.len() as u64 };
        state.frames.push((stream, StreamFrame { id, bytes }));
    }
}

fn number(name: &str) -> usize {
    NAMES.iter().position(|known| *known == name).expect("one of ours")
}

impl StreamSource for Streams {
    fn streams(&self) -> Vec<String> {
        let ours = self.state().ours.clone().unwrap_or_else(|| vec![0, 1, 2]);
        ours.into_iter().map(|stream| NAMES[stream].to_owned()).collect()
    }

    fn read(&self, after: &[Position], _bytes_max: usize) -> Result<Vec<Stretch>, StreamError> {
        let mut state = self.state();
        if std::mem::take(&mut state.breaks) {
            return Err(StreamError::Store("the network is gone".into()));
        }
        let behind = |stream: usize, frame: &StreamFrame| {
            after.iter().any(|position| number(&position.stream) == stream && position.id < frame.id)
        };
        let mut found: Vec<Stretch> = Vec::new();
        let mut frames = state.frames.iter().filter(|(stream, frame)| behind(*stream, frame));
        // More than one only of one stream, so that their order stays what it was written in.
        for (stream, frame) in frames.by_ref().take(state.frames_max.max(1)) {
            match found.last_mut() {
                None => found.push(Stretch { stream: NAMES[*stream].into(), frames: vec![frame.clone()] }),
                Some(last) if last.stream == NAMES[*stream] => last.frames.push(frame.clone()),
                Some(_) => break,
            }
        }
        Ok(found)
    }

    fn tails(&self, streams: &[String]) -> Result<Vec<Option<Tail>>, StreamError> {
        let state = self.state();
        let tail = |name: &String| {
            let own: Vec<&StreamFrame> = state
                .frames
                .iter()
                .filter(|(stream, _)| *stream == number(name))
                .map(|(_, frame)| frame)
                .collect();
            let id = own.last().map_or(StreamId::default(), |frame| frame.id);
            Some(Tail {
                id,
                frame_count: own.len() as u64,
                trimmed_count: 0,
                first_id: own.first().map_or(StreamId::default(), |frame| frame.id),
            })
        };
        Ok(streams.iter().map(tail).collect())
    }

    fn note(&self, positions: &[Position]) -> Result<bool, StreamError> {
        self.state().noted = positions.to_vec();
        Ok(true)
    }
}
