//! Which units this instance owns, as all of its threads see it.
//!
//! Written by the owner's thread alone. What holds: a unit that is not held has no epoch; a unit that is leaving is
//! read no more, and given up once the reader says that nothing of it is under way.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::units::UnitId;

#[derive(Debug, Default)]
struct Cell {
    /// Zero: not held.
    epoch: AtomicU64,
    is_leaving: AtomicBool,
    is_quiet: AtomicBool,
}

#[derive(Debug)]
pub struct Held {
    incarnation: String,
    cells: Vec<Cell>,
}

impl Held {
    /// `incarnation` names this process, once and for all.
    pub fn new(incarnation: String, unit_count: usize) -> Held {
        Held { incarnation, cells: (0..unit_count).map(|_| Cell::default()).collect() }
    }

    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }

    fn cell(&self, unit: UnitId) -> &Cell {
        &self.cells[usize::from(unit.0)]
    }

    /// The epoch under which this instance owns the unit.
    pub fn epoch(&self, unit: UnitId) -> Option<u64> {
        Some(self.cell(unit).epoch.load(Ordering::Acquire)).filter(|epoch| *epoch > 0)
    }

    /// It was acquired.
    pub fn gained(&self, unit: UnitId, epoch: u64) {
        let cell = self.cell(unit);
        cell.is_leaving.store(false, Ordering::Relaxed);
        cell.is_quiet.store(false, Ordering::Relaxed);
        cell.epoch.store(epoch, Ordering::Release);
    }

    /// It was lost, or given up.
    pub fn lost(&self, unit: UnitId) {
        self.cell(unit).epoch.store(0, Ordering::Release);
    }

    /// The reader: a script found another owner in place of this epoch.
    pub fn lost_epoch(&self, unit: UnitId, epoch: u64) {
        // If a later one was gained meanwhile, that is not the one that is lost.
        let _ = self.cell(unit).epoch.compare_exchange(epoch, 0, Ordering::AcqRel, Ordering::Acquire);
    }

    /// It is to be given up: nothing more is read of it.
    pub fn leave(&self, unit: UnitId) {
        self.cell(unit).is_leaving.store(true, Ordering::Release);
    }

    pub fn is_leaving(&self, unit: UnitId) -> bool {
        self.cell(unit).is_leaving.load(Ordering::Acquire)
    }

    /// The reader: nothing of a leaving unit is under way any more.
    pub fn set_quiet(&self, unit: UnitId) {
        self.cell(unit).is_quiet.store(true, Ordering::Release);
    }

    pub fn is_quiet(&self, unit: UnitId) -> bool {
        self.cell(unit).is_quiet.load(Ordering::Acquire)
    }

    /// How many units are held.
    pub fn count(&self) -> usize {
        self.cells.iter().filter(|cell| cell.epoch.load(Ordering::Acquire) > 0).count()
    }
}
