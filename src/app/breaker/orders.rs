//! An operator's word to an instance that has no fleet: a file in its data folder, written whole by `hongbao breaker`.
//!
//! It outlives the process, so that what somebody opened by hand stays open over a restart. Whoever may write into the
//! data folder may give it; a file that cannot be read changes nothing and is said once.

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

/// Follows the file.
pub struct OrdersFile {
    data_dir: PathBuf,
    board: LocalBoard,
    /// Of the file as it was carried out last, or could not be.
    seen: Option<(u64, SystemTime)>,
    before: Option<Orders>,
}

impl OrdersFile {
    pub fn new(data_dir: PathBuf, board: LocalBoard) -> OrdersFile {
        OrdersFile { data_dir, board, seen: None, before: None }
    }

    /// Does what the file says, if it says anything new.
    pub fn carry_out(&mut self) {
        // Each time it is another file: by its time alone two in a moment could not be told apart.
        let found =
            fs::metadata(self.data_dir.join(NAME)).and_then(|file| Ok((file.ino(), file.modified()?)));
        let Ok(found) = found else { return };
        if self.seen == Some(found) {
            return;
        }
        self.seen = Some(found);
        let done = match Orders::read(&self.data_dir) {
            Ok(Some(orders)) => self.apply(orders).map_err(|error| error.to_string()),
            Ok(None) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = done {
            let file = self.data_dir.join(NAME);
            tracing::error!(reason, file = %file.display(), "an operator's word cannot be read; say it again");
        }
    }

    fn apply(&mut self, orders: Orders) -> Result<(), BoardError> {
        let before = self.before.replace(orders.clone());
        let wish_before = before.as_ref().map_or(Wish::Auto, |before| before.wish);
        if orders.wish != wish_before {
            board::wish(&mut self.board, orders.wish, &orders.by, &orders.reason)?;
        }
        let mut settings: Settings = self.board.look()?.state.settings;
        let as_it_is = settings.clone();
        settings.rate_per_s = orders.transfers_per_s.unwrap_or(settings.rate_per_s);
        settings.calls_max = orders.calls_max.unwrap_or(settings.calls_max);
        if settings != as_it_is {
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
        assert_eq!(board.look().unwrap().state, state, "what cannot be read changes nothing");
        assert!(Orders::read(folder.path()).is_err());
    }
}
