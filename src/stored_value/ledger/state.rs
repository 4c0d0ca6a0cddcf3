//! The ledger as a state machine: decides transfers in order and writes down what it decided.
//!
//! What holds: an id is decided once (verified against the stored bytes, never against a hash alone); a
//! refusal that may pass later is not written down and leaves the id free; replaying what was written gives
//! the same state. Deciding and replaying move money through the same function. Absent: time, threads, files
//! other than through [`Records`].

use hashbrown::HashMap;

use super::accounts::{Accounts, MoveError};
use super::entry::{AccountEntry, NO_ACCOUNT, TransferEntry};
use crate::domain::bytes::{TAG_ACCOUNT, TAG_TRANSFER, entries};
use crate::domain::code::Class;
use crate::domain::{PayoutCode, Transfer, TransferKind, TransferStatus};
use crate::journal::index::{PlaceIndex, TOGETHER};
use crate::stored_value::{StoredValueError, TransferBatch};

/// Reads what stands at a place of the journal, into a buffer that is kept.
pub trait Records {
    fn transfer_at(&mut self, place: u64) -> Result<&[u8], StoredValueError>;
    /// Where the journal begins: what stood below was given up, its ids with it.
    fn begins_at(&self) -> u64;
}

/// Asked about a new `transfer` or `hold` before the books are: a refusal for reasons of the wallet's own. What
/// it refuses with a recorded code is final.
pub type Judge<'a> = &'a dyn Fn(&Transfer<'_>) -> Option<PayoutCode>;

/// What is on record for an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnRecord {
    pub kind: TransferKind,
    pub status: TransferStatus,
    /// Minor units.
    pub amount: u64,
}

/// An amount set aside, and where it will go if it is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    pub debit: u32,
    pub credit: u32,
    pub amount: u64,
}

/// The result on record for an id.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    kind: TransferKind,
    code: Option<PayoutCode>,
    digest: [u8; 16],
    debit: u32,
    credit: u32,
    amount: u64,
}

impl Found {
    fn of(entry: &TransferEntry<'_>) -> Found {
        Found {
            kind: entry.kind,
            code: entry.code,
            digest: entry.digest,
            debit: entry.debit,
            credit: entry.credit,
            amount: entry.amount.minor_units(),
        }
    }

    fn status(&self) -> TransferStatus {
        match (self.kind, self.code) {
            (TransferKind::Burn, _) => TransferStatus::Failed(PayoutCode::Burned),
            (_, Some(code)) => TransferStatus::Failed(code),
            (_, None) => TransferStatus::Succeeded,
        }
    }
}

#[derive(Default)]
pub struct State {
    pub accounts: Accounts,
    pub ids: PlaceIndex,
    /// Open holds by wallet id.
    pub holds: HashMap<Box<[u8]>, Hold>,
    /// How much of a transfer was taken back, by wallet id.
    pub reversed: HashMap<Box<[u8]>, u64>,
    /// The entries of the batch being decided, and where each id stands in them.
    pub written: Vec<u8>,
    /// Positions in the batch decided last whose ids were on record already.
    pub repeated: Vec<u32>,
    fresh: HashMap<u64, u32>,
    /// The accounts that the batch credits, looked up a window ahead. A number never changes; who has none is looked up
    /// again in its turn, for the window may have opened it.
    credits: Vec<Option<u32>>,
    /// The account that was debited last: neighbours share theirs.
    last_debit: u32,
    /// `(key hash, position in written)` of the batch, for the index once the place is known.
    pub fresh_places: Vec<(u64, u32)>,
}

impl State {
    /// Decides a batch. What is to be made durable stands in `written` afterwards; call
    /// [`State::placed`] once its place is known, before the next batch.
    pub fn decide(
        &mut self,
        batch: &TransferBatch,
        judge: Judge<'_>,
        records: &mut dyn Records,
        results: &mut Vec<TransferStatus>,
    ) -> Result<(), StoredValueError> {
        self.written.clear();
        self.fresh.clear();
        self.fresh_places.clear();
        self.repeated.clear();
        results.clear();
        self.credits.clear();
        let mut ahead = batch.iter();
        for (position, transfer) in batch.iter().enumerate() {
            if position.is_multiple_of(TOGETHER) {
                self.ids.touch(ahead.clone().take(TOGETHER).map(|soon| soon.key_hash));
                let soon = ahead.by_ref().take(TOGETHER);
                self.credits.extend(soon.map(|to| self.accounts.find(to.credit, to.currency)));
            }
            let found = self.find(transfer.key_hash, transfer.id, records)?;
            if found.is_some() {
                self.repeated.push(position as u32);
            }
            results.push(match found {
                Some(found) if transfer.kind == TransferKind::Burn => found.status(),
                Some(found) if found.kind == TransferKind::Burn => found.status(),
                Some(found) if found.digest == transfer.digest => found.status(),
                Some(_) => TransferStatus::Failed(PayoutCode::IdConflict),
                None => self.decide_new(&transfer, self.credits[position], judge, records)?,
            });
        }
        Ok(())
    }

    /// The written batch stands at `place` now: its ids can be found there.
    pub fn placed(&mut self, place: u64) {
        self.ids
            .insert_all(self.fresh_places.iter().map(|(key_hash, at)| (*key_hash, place + u64::from(*at))));
        self.fresh_places.clear();
        self.fresh.clear();
    }

    /// What is on record for an id.
    pub fn lookup(
        &self,
        key_hash: u64,
        id: &[u8],
        records: &mut dyn Records,
    ) -> Result<Option<OnRecord>, StoredValueError> {
        let found = self.find(key_hash, id, records)?;
        Ok(found.map(|found| OnRecord { kind: found.kind, status: found.status(), amount: found.amount }))
    }

    fn find(
        &self,
        key_hash: u64,
        id: &[u8],
        records: &mut dyn Records,
    ) -> Result<Option<Found>, StoredValueError> {
        if let Some(at) = self.fresh.get(&key_hash) {
            let entry = TransferEntry::decode(&self.written[*at as usize..]).expect("written a moment ago");
            if entry.id == id {
                return Ok(Some(Found::of(&entry)));
            }
            // Two ids of one batch share a 64-bit hash: the earlier one may hide behind the later.
            let same = entries(&self.written).flatten().filter(|(_, tag, _)| *tag == TAG_TRANSFER);
            for (_, _, bytes) in same {
                let entry = TransferEntry::decode(bytes).expect("written a moment ago");
                if entry.id == id {
                    return Ok(Some(Found::of(&entry)));
                }
            }
        }
        let begins_at = records.begins_at();
        for place in self.ids.candidates(key_hash).filter(|place| *place >= begins_at) {
            let bytes = records.transfer_at(place)?;
            let entry = TransferEntry::decode(bytes)
                .map_err(|error| StoredValueError::Record { place, reason: error.to_string() })?;
            if entry.id == id {
                return Ok(Some(Found::of(&entry)));
            }
        }
        Ok(None)
    }

    fn decide_new(
        &mut self,
        transfer: &Transfer<'_>,
        credited: Option<u32>,
        judge: Judge<'_>,
        records: &mut dyn Records,
    ) -> Result<TransferStatus, StoredValueError> {
        let (debit, credit, outcome) = match transfer.kind {
            TransferKind::Transfer | TransferKind::Hold => {
                let debit = match self.accounts.is(self.last_debit, transfer.debit, transfer.currency) {
                    true => self.last_debit,
                    false => self.account(transfer.debit, transfer),
                };
                self.last_debit = debit;
                let credit = credited.unwrap_or_else(|| self.account(transfer.credit, transfer));
                let outcome = match judge(transfer) {
                    Some(code) => Err(code),
                    None => self.apply_new(transfer, debit, credit),
                };
                (debit, credit, outcome)
            }
            TransferKind::Post | TransferKind::Void => self.decide_hold_end(transfer),
            TransferKind::Reverse => self.decide_reverse(transfer, records)?,
            TransferKind::Burn => (NO_ACCOUNT, NO_ACCOUNT, Ok(())),
        };
        let code = match outcome {
            Ok(()) => None,
            Err(code) if code.class() == Class::Retryable => return Ok(TransferStatus::Failed(code)),
            Err(code) => Some(code),
        };
        let entry = TransferEntry {
            kind: transfer.kind,
            code,
            digest: transfer.digest,
            amount: transfer.amount,
            debit,
            credit,
            key_hash: transfer.key_hash,
            currency: transfer.currency,
            id: transfer.id,
            of: transfer.of,
        };
        let at = u32::try_from(self.written.len()).expect("a batch is far below 4 GiB");
        entry.encode(&mut self.written);
        self.fresh.insert(transfer.key_hash, at);
        self.fresh_places.push((transfer.key_hash, at));
        Ok(Found::of(&entry).status())
    }

    fn apply_new(&mut self, transfer: &Transfer<'_>, debit: u32, credit: u32) -> Result<(), PayoutCode> {
        self.apply(transfer.kind, transfer.id, transfer.of, debit, credit, transfer.amount.minor_units())
            .map_err(|error| match error {
                MoveError::LowBalance => PayoutCode::LowBalance,
                MoveError::Overflow => PayoutCode::WalletRefused,
            })
    }

    fn decide_hold_end(&mut self, transfer: &Transfer<'_>) -> (u32, u32, Result<(), PayoutCode>) {
        let Some(hold) = self.holds.get(transfer.of).copied() else {
            return (NO_ACCOUNT, NO_ACCOUNT, Err(PayoutCode::WalletRefused));
        };
        if self.accounts.currency(hold.debit) != transfer.currency {
            return (hold.debit, hold.credit, Err(PayoutCode::WalletRefused));
        }
        if transfer.amount.minor_units() != hold.amount {
            return (hold.debit, hold.credit, Err(PayoutCode::AmountLimit));
        }
        (hold.debit, hold.credit, self.apply_new(transfer, hold.debit, hold.credit))
    }

    fn decide_reverse(
        &mut self,
        transfer: &Transfer<'_>,
        records: &mut dyn Records,
    ) -> Result<(u32, u32, Result<(), PayoutCode>), StoredValueError> {
        let of_hash = crate::digest::key_hash(transfer.of);
        let Some(original) = self.find(of_hash, transfer.of, records)? else {
            return Ok((NO_ACCOUNT, NO_ACCOUNT, Err(PayoutCode::WalletRefused)));
        };
        // The money goes back the way it came: sides swapped.
        let (debit, credit) = (original.credit, original.debit);
        let moved = matches!(original.kind, TransferKind::Transfer | TransferKind::Post);
        let names_match = debit != NO_ACCOUNT
            && self.accounts.name(debit) == transfer.debit
            && self.accounts.name(credit) == transfer.credit
            && self.accounts.currency(debit) == transfer.currency;
        if original.code.is_some() || !moved || !names_match {
            return Ok((debit, credit, Err(PayoutCode::WalletRefused)));
        }
        let before = self.reversed.get(transfer.of).copied().unwrap_or(0);
        let after = before.checked_add(transfer.amount.minor_units());
        if after.is_none_or(|after| after > original.amount) {
            return Ok((debit, credit, Err(PayoutCode::AmountLimit)));
        }
        Ok((debit, credit, self.apply_new(transfer, debit, credit)))
    }

    /// The account of this name in the transfer's currency, opened (and written down) if it is new.
    fn account(&mut self, name: &[u8], transfer: &Transfer<'_>) -> u32 {
        if let Some(number) = self.accounts.find(name, transfer.currency) {
            return number;
        }
        let number = self.accounts.open(name, transfer.currency);
        AccountEntry { number, currency: transfer.currency, name }.encode(&mut self.written);
        number
    }

    /// Moves what an entry without a code moves. The only place that does.
    fn apply(
        &mut self,
        kind: TransferKind,
        id: &[u8],
        of: &[u8],
        debit: u32,
        credit: u32,
        amount: u64,
    ) -> Result<(), MoveError> {
        match kind {
            TransferKind::Transfer => self.accounts.post(debit, credit, amount)?,
            TransferKind::Reverse => {
                self.accounts.post(debit, credit, amount)?;
                *self.reversed.entry_ref(of).or_insert(0) += amount;
            }
            TransferKind::Hold => {
                self.accounts.hold(debit, amount)?;
                self.holds.insert(id.into(), Hold { debit, credit, amount });
            }
            TransferKind::Post | TransferKind::Void => {
                let hold = self.holds.remove(of).expect("the caller found it open");
                self.accounts.release(hold.debit, hold.amount);
                if kind == TransferKind::Post {
                    self.accounts.post(hold.debit, hold.credit, hold.amount)?;
                }
            }
            TransferKind::Burn => {}
        }
        Ok(())
    }

    /// Takes in a frame that was written earlier. `payload_at` is its place.
    ///
    /// # Errors
    /// What in the frame contradicts the books; the caller stops.
    pub fn replay(&mut self, payload_at: u64, payload: &[u8]) -> Result<(), StoredValueError> {
        for item in entries(payload) {
            let wrong = |at: usize, reason: String| StoredValueError::Record {
                place: payload_at + at as u64,
                reason,
            };
            let (at, tag, bytes) = item.map_err(|error| wrong(0, error.to_string()))?;
            match tag {
                TAG_ACCOUNT => {
                    let entry = AccountEntry::decode(bytes).map_err(|error| wrong(at, error.to_string()))?;
                    let known = self.accounts.find(entry.name, entry.currency);
                    let number = known.unwrap_or_else(|| self.accounts.open(entry.name, entry.currency));
                    if number != entry.number {
                        return Err(wrong(at, format!("account {} stands for {number}", entry.number)));
                    }
                }
                TAG_TRANSFER => {
                    let entry = TransferEntry::decode(bytes).map_err(|error| wrong(at, error.to_string()))?;
                    self.replay_transfer(&entry).map_err(|reason| wrong(at, reason))?;
                    self.ids.insert(entry.key_hash, payload_at + at as u64);
                }
                other => return Err(wrong(at, format!("entry tag {other} has no place among transfers"))),
            }
        }
        Ok(())
    }

    fn replay_transfer(&mut self, entry: &TransferEntry<'_>) -> Result<(), String> {
        if entry.code.is_some() {
            return Ok(());
        }
        let known = |number: u32| number == NO_ACCOUNT || (number as usize) < self.accounts.len();
        let ends_hold = matches!(entry.kind, TransferKind::Post | TransferKind::Void);
        if !known(entry.debit) || !known(entry.credit) || (ends_hold && !self.holds.contains_key(entry.of)) {
            return Err("it refers to an account or hold that does not exist".to_owned());
        }
        let amount = entry.amount.minor_units();
        self.apply(entry.kind, entry.id, entry.of, entry.debit, entry.credit, amount)
            .map_err(|error| format!("the books do not bear it: {error:?}"))
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
