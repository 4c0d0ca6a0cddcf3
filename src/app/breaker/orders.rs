//! An operator's word to an instance that has no fleet: a file in its data folder, written whole by `hongbao breaker`.
//!
//! It outlives the process, so that what somebody opened by hand stays open over a restart. Whoever may write into the
//! data folder may give it. A file that cannot be read may have said `open`: the breaker is held open until something
//! is said that can be read.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::breaker::policy::Wish;
use crate::breaker::{Board, BoardError, LocalBoard, Settings, board};

const FORMAT: u32 = 1;
const NAME: &str = "BREAKER";
/// Who holds it open where nobody's word can be read.
const NOBODY: &str = "hongbao";

/// What stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    pub format: u32,
    pub by: String,
    pub reason: String,
    pub wish: Wish,
    /// In place of those of the configuration.
    pub transfers_per_s: Option<u64>,
    pub calls_max: Option<u64>,
}

impl Orders {
    pub fn new(by: &str, reason: &str) -> Orders {
        let (by, reason) = (by.to_owned(), reason.to_owned());
        Orders { format: FORMAT, by, reason, wish: Wish::Auto, transfers_per_s: None, calls_max: None }
    }

    /// None: nobody has said anything.
    pub fn read(data_dir: &Path) -> io::Result<Option<Orders>> {
        let text = match fs::read_to_string(data_dir.join(NAME)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let orders: Orders = serde_json::from_str(&text)?;
        match orders.format {
            FORMAT => Ok(Some(orders)),
            other => {
                Err(io::Error::other(format!("it has the format {other}, which this version does not know")))
            }
        }
    }

    /// Puts it in place whole, durably.
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        let file = data_dir.join(NAME);
        let fresh = file.with_extension("new");
        fs::write(&fresh, serde_json::to_string(self)?)?;
        fs::File::open(&fresh)?.sync_all()?;
        fs::rename(&fresh, &file)?;
        fs::File::open(data_dir)?.sync_all()
    }
}

#[derive(Debug, thiserror::Error)]
enum OrderError {
    #[error("{0}")]
    Unfit(String),
    #[error(transparent)]
    Board(#[from] BoardError),
}

/// Follows the file.
pub struct OrdersFile {
    data_dir: PathBuf,
    board: LocalBoard,
    /// Of the file as it was carried out last, or could not be; nothing of one that is there and cannot be looked at.
    seen: Option<Option<(u64, SystemTime)>>,
    before: Option<Orders>,
}

impl OrdersFile {
    pub fn new(data_dir: PathBuf, board: LocalBoard) -> OrdersFile {
        OrdersFile { data_dir, board, seen: None, before: None }
    }

    /// Does what the file says, if it says anything new.
    pub fn carry_out(&mut self) {
        // Each time it is another file: by its time alone two in a moment could not be told apart.
        let found = match fs::metadata(self.data_dir.join(NAME)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            found => found.and_then(|file| Ok((file.ino(), file.modified()?))).ok(),
        };
        if self.seen == Some(found) {
            return;
        }
        self.seen = Some(found);
        let done = match Orders::read(&self.data_dir) {
            Ok(Some(orders)) => self.apply(orders).map_err(|error| error.to_string()),
            Ok(None) => Ok(()),
            Err(error) => {
                // Perhaps only this once: it is looked at again.
                self.seen = None;
                Err(error.to_string())
            }
        };
        if let Err(reason) = done {
            self.hold_open(&reason);
        }
    }

    fn hold_open(&mut self, reason: &str) {
        let file = self.data_dir.join(NAME);
        let why = format!("{} cannot be read: {reason}", file.display());
        if self.before.as_ref().is_some_and(|before| before.by == NOBODY && before.reason == why) {
            return;
        }
        tracing::error!(
            reason,
            file = %file.display(),
            "an operator's word cannot be read; nothing is sent to the wallet until it is said again (`hongbao breaker`)"
        );
        self.before = Some(Orders { wish: Wish::Open, ..Orders::new(NOBODY, &why) });
        if let Err(error) = board::wish(&mut self.board, Wish::Open, NOBODY, &why) {
            tracing::error!(%error, "the breaker could not be held open");
        }
    }

    fn apply(&mut self, orders: Orders) -> Result<(), OrderError> {
        let mut settings: Settings = self.board.look()?.state.settings;
        let as_it_is = settings.clone();
        settings.rate_per_s = orders.transfers_per_s.unwrap_or(settings.rate_per_s);
        settings.calls_max = orders.calls_max.unwrap_or(settings.calls_max);
        settings.check().map_err(OrderError::Unfit)?;
        let before = self.before.replace(orders.clone());
        let wish_before = before.as_ref().map_or(Wish::Auto, |before| before.wish);
        let is_nobodys = before.is_some_and(|before| before.by == NOBODY);
        if orders.wish != wish_before || is_nobodys {
            board::wish(&mut self.board, orders.wish, &orders.by, &orders.reason)?;
        }
        if settings != as_it_is {
            let Settings { rate_per_s, calls_max, .. } = settings;
            let (configured_per_s, by, reason) = (as_it_is.rate_per_s, &orders.by, &orders.reason);
            tracing::info!(
                rate_per_s,
                calls_max,
                configured_per_s,
                by,
                reason,
                "the budget is an operator's, not the settings'"
            );
            board::set(&mut self.board, &settings, &orders.by, &orders.reason)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::breaker::Phase;

    #[test]
    fn what_was_said_is_done_once_and_again_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { rate_per_s: 100, calls_max: 4, ..Settings::default() };
        let start = || {
            let board = LocalBoard::new(settings.clone(), Arc::new(|| 1_000));
            (board.clone(), OrdersFile::new(folder.path().to_owned(), board))
        };
        let (mut board, mut file) = start();
        file.carry_out();
        assert_eq!(board.look().unwrap().state.version, 1, "nobody has said anything");
        let mut orders = Orders { wish: Wish::Open, ..Orders::new("ann", "it is being moved") };
        orders.write(folder.path()).unwrap();
        file.carry_out();
        file.carry_out();
        let state = board.look().unwrap().state;
        assert!(matches!(state.phase, Phase::Open { .. }));
        assert_eq!((state.history.len(), state.history[0].by.as_str()), (1, "ann"));

        let (mut board, mut file) = start();
        file.carry_out();
        assert!(matches!(board.look().unwrap().state.phase, Phase::Open { .. }), "it stays open");
        orders.transfers_per_s = Some(700);
        orders.wish = Wish::Auto;
        orders.write(folder.path()).unwrap();
        file.carry_out();
        let state = board.look().unwrap().state;
        assert_eq!((state.phase, state.settings.rate_per_s), (Phase::HalfOpen, 700));

        fs::write(folder.path().join(NAME), "{").unwrap();
        file.seen = None;
        file.carry_out();
        let held = board.look().unwrap().state;
        assert_eq!((held.held, held.settings), (Some(Wish::Open), state.settings), "it may have said so");
        assert!(held.history.back().is_some_and(|change| change.reason.contains("BREAKER cannot be read")));
        assert!(Orders::read(folder.path()).is_err());
        let version = held.version;
        file.carry_out();
        assert_eq!(board.look().unwrap().state.version, version, "said once");

        for (wish, by) in [(Wish::Open, "ann"), (Wish::Auto, "bob")] {
            Orders { wish, ..Orders::new(by, "again") }.write(folder.path()).unwrap();
            file.carry_out();
            let state = board.look().unwrap().state;
            assert_eq!(state.held, (wish == Wish::Open).then_some(Wish::Open));
            assert_eq!(state.history.back().map(|change| change.by.as_str()), Some(by));
        }
        let astray = Orders { transfers_per_s: Some(u64::MAX), ..Orders::new("ann", "more") };
        astray.write(folder.path()).unwrap();
        file.carry_out();
        let state = board.look().unwrap().state;
        assert_eq!((state.held, state.settings.rate_per_s), (Some(Wish::Open), 700));
    }
}
