//! The view in a file, over streams.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hongbao::outcome::OutcomeView;
use hongbao::outcome::following::Following;
use hongbao::outcome::view::{FromStreams, StandingRow, State, View, ViewError, ViewWorker, WorkerOptions};
use hongbao::outcome::{Fact, FactSource, SourceError};
use proptest::prelude::*;

use crate::contract::{Rig, frames, holds, interruptions};
use crate::streams::Streams;
use crate::support::{PATIENCE, await_until};
use crate::{paid, request};

struct InFile {
    path: PathBuf,
    _folder: tempfile::TempDir,
    view: Option<Arc<View>>,
    streams: Arc<Streams>,
    following: Following,
}

fn open(streams: Arc<Streams>) -> InFile {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("view.sqlite");
    let view = Some(Arc::new(View::open(&path).unwrap()));
    let following = Following::new(streams.clone());
    InFile { path, _folder: folder, view, streams, following }
}

impl InFile {
    fn opened(&self) -> &Arc<View> {
        self.view.as_ref().expect("it is open")
    }
}

impl Rig for InFile {
    fn apply(&mut self) -> Result<bool, String> {
        let view = self.view.as_ref().expect("it is open");
        let applied = view.apply_streams(&mut self.following, 1_000);
        applied.map(|applied| applied.advanced).map_err(|error| error.to_string())
    }

    fn reopen(&mut self) {
        self.view = None;
        self.view = Some(Arc::new(View::open(&self.path).unwrap()));
        self.following = Following::new(self.streams.clone());
    }

    fn view(&self) -> &dyn OutcomeView {
        &**self.opened()
    }

    /// As they were met, which is how the model has them.
    fn order(&self, _rows: &mut [([u8; 16], StandingRow)]) {}
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn says_what_the_model_says(
        frames in frames(),
        interruptions in interruptions(),
        frames_max in 1usize..4,
    ) {
        holds(&frames, &interruptions, frames_max, open);
    }
}

/// A journal with one request in it.
struct Journal;

impl FactSource for Journal {
    fn read(
        &self,
        _cursor: u64,
        _count_max: usize,
        apply: &mut dyn FnMut(Fact<'_>),
    ) -> Result<u64, SourceError> {
        apply(Fact::Accepted { place: 8, request: request("r-1") });
        Ok(100)
    }

    fn end(&self) -> u64 {
        100
    }
}

#[test]
fn a_file_is_read_from_one_kind_of_log_only() {
    let streams = Arc::new(Streams::default());
    streams.push(0, &[paid("r-1")]);
    let mut of_streams = open(streams.clone());
    of_streams.apply().unwrap();
    assert!(matches!(of_streams.opened().apply(&Journal, 9), Err(ViewError::OtherLog { .. })));
    let mut of_journal = open(streams);
    of_journal.opened().apply(&Journal, 9).unwrap();
    assert!(of_journal.apply().unwrap_err().contains("another kind of intake"));
}

#[test]
fn the_worker_follows_notes_and_tells_how_far_it_is() {
    let streams = Arc::new(Streams::default());
    streams.push(0, &[paid("r-1"), paid("r-2")]);
    let rig = open(streams.clone());
    let options = WorkerOptions { idle_max: Duration::from_secs(600), ..WorkerOptions::default() };
    let handle = ViewWorker::start_streams(rig.opened().clone(), streams.clone(), options).unwrap();
    await_until("the worker to be up", PATIENCE, || (handle.health().state == State::Idle).then_some(()));
    assert_eq!(handle.health().progress.facts, 2);
    assert_eq!(handle.lag().distance, 0);
    let noted = streams.state().noted.clone();
    assert_eq!(noted.iter().filter(|position| position.frame_count == 1).count(), 1);
    streams.push(2, &[paid("r-3")]);
    handle.wake();
    await_until("the next one", PATIENCE, || (handle.health().progress.facts == 3).then_some(()));
    handle.stop();
}
