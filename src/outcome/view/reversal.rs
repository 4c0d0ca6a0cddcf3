//! What a reversal that came through does to the request that it names: credits it, and reverses it once the whole
//! amount is back.

use super::ViewError;
use super::apply::{Chunk, Subject, time};
use super::keys::{find_holder, find_place};
use crate::domain::{Status, UnixMs, transition};

impl Chunk<'_> {
    /// A reversal came through: what it names has that much less.
    pub(super) fn credit_original(&mut self, reversal: &Subject, at: UnixMs) -> Result<(), ViewError> {
        let names = "SELECT c.name, r.original FROM requests r JOIN clients c ON c.number = r.client
                     WHERE r.place = ?1";
        let (client, original): (String, Option<String>) = self
            .conn
            .prepare_cached(names)?
            .query_row([reversal.place], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let id = original.unwrap_or_default();
        // What it names may have been accepted in this same transaction.
        self.gathered.entries.flush(self.conn)?;
        let find = if self.keyed.is_some() { find_holder } else { find_place };
        let Some(place) = find(self.conn, reversal.client, &client, &id)? else {
            if self.keyed.is_some() {
                return self.keep_credit(reversal.client, &id, reversal.amount);
            }
            self.gathered.skipped += 1;
            return Ok(());
        };
        self.credit(place, reversal.amount)?;
        let subject = self.subject(place)?.ok_or(ViewError::Stored("place"))?;
        self.reverse_if_whole(&subject, at)
    }

    /// So much more of a request was taken back.
    pub(super) fn credit(&mut self, place: i64, amount: u64) -> Result<(), ViewError> {
        let subject = self.subject(place)?.ok_or(ViewError::Stored("place"))?;
        let reversed = subject.reversed.saturating_add(amount);
        self.statements.credit.execute([place, i64::try_from(reversed).unwrap_or(i64::MAX)])?;
        Ok(())
    }

    pub(super) fn reverse_if_whole(&mut self, subject: &Subject, at: UnixMs) -> Result<(), ViewError> {
        if subject.reversed == 0 || subject.reversed < subject.amount {
            return Ok(());
        }
        match transition(subject.status, Status::Reversed) {
            Some(_) => self.reverse(subject, at),
            None => Ok(()),
        }
    }

    /// What is reversed keeps what it was paid with; only its state moves.
    pub(super) fn reverse(&mut self, subject: &Subject, at: UnixMs) -> Result<(), ViewError> {
        self.statements.reverse.execute([subject.place, Status::Reversed as i64, time(at)])?;
        self.tally(subject, Status::Reversed, None);
        Ok(())
    }
}
