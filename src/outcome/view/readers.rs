//! Read-only connections, a few, lent out one caller at a time.
//!
//! Readers never wait for the writer (the store's write-ahead log sees to that); past [`OPEN_MAX`] at once
//! they wait for one another. A caller that panics gives its connection back all the same.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, Transaction};

use super::{ViewError, schema};

/// The most connections open at once.
const OPEN_MAX: usize = 4;

#[derive(Debug)]
pub struct Readers {
    path: PathBuf,
    lent: Mutex<Lent>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct Lent {
    idle: Vec<Connection>,
    open: usize,
}

/// A connection on loan.
struct Loan<'r> {
    readers: &'r Readers,
    conn: Option<Connection>,
}

impl Readers {
    pub fn new(path: &Path) -> Readers {
        Readers { path: path.to_owned(), lent: Mutex::default(), returned: Condvar::new() }
    }

    /// Answers `ask` from one consistent snapshot.
    pub fn ask<T>(&self, ask: impl FnOnce(&Transaction<'_>) -> Result<T, ViewError>) -> Result<T, ViewError> {
        let loan = self.borrow()?;
        let conn = loan.conn.as_ref().expect("a loan holds its connection until it is dropped");
        let snapshot = conn.unchecked_transaction()?;
        ask(&snapshot)
    }

    fn lock(&self) -> MutexGuard<'_, Lent> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn borrow(&self) -> Result<Loan<'_>, ViewError> {
        let mut lent = self.lock();
        loop {
            if let Some(conn) = lent.idle.pop() {
                return Ok(Loan { readers: self, conn: Some(conn) });
            }
            if lent.open < OPEN_MAX {
                lent.open += 1;
                break;
            }
            lent = self.returned.wait(lent).unwrap_or_else(PoisonError::into_inner);
        }
        drop(lent);
        // From here on the loan's drop gives the slot back, whether or not opening works.
        let mut loan = Loan { readers: self, conn: None };
        loan.conn = Some(schema::open_reader(&self.path)?);
        Ok(loan)
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let mut lent = self.readers.lock();
        match self.conn.take() {
            Some(conn) => lent.idle.push(conn),
            None => lent.open -= 1,
        }
        drop(lent);
        self.readers.returned.notify_one();
    }
}
