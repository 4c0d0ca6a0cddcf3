//! The board of one that is alone: the same table, in this process.
//!
//! Several instances in one process may share it; nothing of it outlives the process, as nothing of the wallet's
//! health does.

use std::sync::{Arc, Mutex, MutexGuard};

use super::board::{Board, BoardError, Orders, Report, View};
use super::policy::{Settings, State};
use super::table::Table;

pub type NowMs = Arc<dyn Fn() -> u64 + Send + Sync>;

#[derive(Clone)]
pub struct LocalBoard {
    table: Arc<Mutex<Table>>,
    now_ms: NowMs,
}

impl LocalBoard {
    pub fn new(settings: Settings, now_ms: NowMs) -> LocalBoard {
        let table = Table::new(State::new(settings, now_ms()));
        LocalBoard { table: Arc::new(Mutex::new(table)), now_ms }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A panic elsewhere leaves the table whole: every change of it is one assignment.
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Board for LocalBoard {
    fn beat(&mut self, report: &Report) -> Result<Orders, BoardError> {
        Ok(self.table().beat((self.now_ms)(), report))
    }

    fn replace(&mut self, seen: &View, next: &State) -> Result<bool, BoardError> {
        Ok(self.table().replace((self.now_ms)(), seen, next))
    }

    fn leave(&mut self, instance: &str) -> Result<(), BoardError> {
        self.table().leave(instance);
        Ok(())
    }

    fn look(&mut self) -> Result<View, BoardError> {
        Ok(self.table().view((self.now_ms)()))
    }
}
