//! Crash suspects in the data folder: for an instance by itself.

use std::sync::Arc;

use super::{Saved, SuspectError, SuspectStore, VERSION};
use crate::domain::UnixMs;
use crate::journal::Storage;
use crate::journal::snapshot::{read_blob, write_blob};

const NAME: &str = "suspects";

pub struct BlobSuspects {
    storage: Arc<dyn Storage>,
}

impl BlobSuspects {
    pub fn new(storage: Arc<dyn Storage>) -> BlobSuspects {
        BlobSuspects { storage }
    }
}

impl SuspectStore for BlobSuspects {
    fn load(&self) -> Result<Saved, SuspectError> {
        Ok(match read_blob(&*self.storage, NAME)? {
            // Losing the suspects costs one more crash; refusing to start would cost the night.
            Some(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            None => Saved::default(),
        })
    }

    fn save(&self, saved: &Saved) -> Result<(), SuspectError> {
        let bytes = serde_json::to_vec(saved).expect("plain fields");
        Ok(write_blob(&*self.storage, NAME, &bytes)?)
    }

    fn tidy(&self, dated: &[u64], now: UnixMs, forgotten: &[u64]) -> Result<(), SuspectError> {
        let mut saved = self.load()?;
        saved.since.extend(dated.iter().map(|mark| (*mark, now)));
        for mark in forgotten {
            saved.crashes.remove(mark);
            saved.since.remove(mark);
        }
        self.save(&Saved { version: VERSION, ..saved })
    }
}
