//! Proves that the audit can fail: a journal in which all is well passes, and every way of breaking it is
//! found by name.

mod checkpoint;
mod encoder;
mod mutations;
mod outside;
mod sample;
mod speed;

use std::fs;
use std::path::PathBuf;

use super::{AuditError, BreachKind, Options, Report, audit};
use encoder::{Encoder, Frame};

/// A data folder, with an acks file and room for an anchor beside it.
struct Site {
    folder: tempfile::TempDir,
    options: Options,
}

impl Site {
    fn new(frames: &[Frame]) -> (Site, Encoder) {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { data_dir: folder.path().join("data"), ..Options::default() };
        let mut encoder = Encoder::default();
        for frame in frames {
            encoder.push(frame);
        }
        encoder::write(&options.data_dir, &encoder.bytes);
        (Site { folder, options }, encoder)
    }

    fn with_acks(mut self, lines: &str) -> Site {
        let path = self.folder.path().join("acks");
        fs::write(&path, lines).unwrap();
        self.options.acks = Some(path);
        self
    }

    fn with_anchor(mut self) -> Site {
        self.options.anchor = Some(self.folder.path().join("anchor"));
        self
    }

    fn segment(&self, index: usize) -> PathBuf {
        self.options.data_dir.join(format!("journal/{index:016x}.seg"))
    }

    fn audit(&self) -> Result<Report, AuditError> {
        audit(&self.options, None, &mut |share| assert!((0.0..=1.0).contains(&share)))
    }

    /// The kinds of breach found.
    fn kinds(&self) -> Vec<BreachKind> {
        self.audit().unwrap().breaches.iter().map(|breach| breach.kind).collect()
    }
}
