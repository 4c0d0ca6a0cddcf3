//! The ledger of this process without the embedded intake: its journal, its snapshots.
//!
//! For an intake elsewhere beside a wallet here. The desk runs too, and idles: the snapshots are the ones of the
//! embedded intake, whose folder this can become again. What holds: a folder with requests that the embedded intake
//! accepted and did not settle is refused, for nobody would settle them. Absent: giving up journal. A ledger
//! cannot tell which ids an intake elsewhere may still ask for, so it remembers all of them.

use std::sync::Arc;

use anyhow::bail;

use super::checkpoint::Checkpointer;
use super::folder::DataFolder;
use super::{Checkpoints, Clock, Recovered, Replay, recover};
use crate::config::Config;
use crate::intake::desk::decide::Clerk;
use crate::intake::desk::{Desk, DeskThread};
use crate::intake::embedded::EmbeddedIntake;
use crate::intake::embedded::entry::FRAME_ACCEPT;
use crate::intake::embedded::identity::Entries;
use crate::journal::{FolderStorage, Journal, Storage};
use crate::outcome::embedded::EmbeddedOutcomeLog;
use crate::ring::Poison;
use crate::stored_value::ledger::Ledger;

pub struct Books {
    pub journal: Journal,
    pub ledger: Arc<Ledger>,
    desk_thread: DeskThread,
    checkpoints: Checkpoints,
}

impl Books {
    pub fn open(
        config: &Config,
        folder: &DataFolder,
        clock: &Clock,
        poison: &Poison,
        on_poison: Arc<dyn Fn() + Send + Sync>,
    ) -> anyhow::Result<Books> {
        let storage: Arc<dyn Storage> = Arc::new(FolderStorage::new(folder.journal_dir())?);
        let Recovered { replay, journal, manifest, report } = recover(config, &storage)?;
        tracing::info!(report, "recovered the ledger");
        let Replay { memory, queues, ledger } = replay;
        let ledger = Arc::new(Ledger::new(ledger, folder.identity.clone(), journal.clone()));
        let intake = Arc::new(EmbeddedIntake::new(queues, journal.clone()));
        let left = intake.backlog() + intake.control_backlog() + memory.parking().len() as u64;
        if left > 0 {
            bail!(
                "the data folder {} holds {left} accepted requests of the embedded intake that are not final; let \
                 `hongbao serve --set intake.kind=embedded` finish them, or use another data folder",
                folder.path.display()
            );
        }
        let outcomes = Arc::new(EmbeddedOutcomeLog::new(journal.clone(), FRAME_ACCEPT));
        let clerk =
            Clerk::new(memory, Entries::new(journal.clone()), intake, journal.clone(), config.desk.clone());
        let (desk, desk_thread) = Desk::start(clerk, clock.clone(), poison.clone(), on_poison)?;
        let checkpointer =
            Checkpointer::new(manifest, storage, journal.clone(), desk, ledger.clone(), outcomes);
        let checkpoints = Checkpoints::start(checkpointer, None, config.checkpoint_bytes)?;
        Ok(Books { journal, ledger, desk_thread, checkpoints })
    }

    /// Stops in order; `take_last`: with a last snapshot, for a quick start.
    pub fn stop(self, take_last: bool) -> anyhow::Result<()> {
        let checkpointed = self.checkpoints.stop(take_last);
        self.desk_thread.stop();
        self.journal.shutdown()?;
        checkpointed
    }
}
