//! Decides transfers in order over rows that were read under locks, by the rules of the embedded ledger
//! (`ledger::state`), and keeps what is to be written back. Absent: the database.
//!
//! A hold that has expired is voided by [`Books::expire`], under the same locks, before what comes is decided.
//!
//! One rule is narrower than the ledger's, because the constraints of the tables say so: a movement of nothing,
//! or from an account to itself, is refused for good (`wallet_refused`). The door makes neither.

use std::collections::{BTreeMap, HashMap};

use super::record::{Decided, Entry, may_go_below_zero};
use crate::domain::{Currency, PayoutCode, TransferKind, TransferStatus};

/// The state of a hold; the number is the stored form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum Hold {
    Open = 1,
    Posted = 2,
    Voided = 3,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub balance: i64,
    pub held: i64,
    /// Whether the row exists.
    pub stored: bool,
    pub balance_change: i64,
    pub held_change: i64,
}

/// What is on record for an id, with what later transfers did to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub decided: Decided,
    /// Debit, credit and currency, where money moved or is set aside.
    pub sides: Option<(String, String, Currency)>,
    pub amount: i64,
    pub of: String,
    pub hold: Option<Hold>,
    /// Of a hold that is new: seconds until it ends by itself; 0: never.
    pub expires_in_s: u32,
    pub reversed: i64,
    pub stored: bool,
    pub changed: bool,
}

#[derive(Debug, Default)]
pub struct Books {
    pub accounts: BTreeMap<(String, Currency), Account>,
    pub records: HashMap<String, Record>,
}

/// Why an entry did not succeed. `LowBalance` leaves no record.
type Outcome = Result<(), PayoutCode>;

impl Books {
    pub fn decide(&mut self, entry: &Entry<'_>) -> TransferStatus {
        if let Some(record) = self.records.get(entry.id) {
            return record.decided.answer_to(&entry.digest);
        }
        let (sides, outcome) = match entry.kind {
            TransferKind::Transfer | TransferKind::Hold => self.decide_movement(entry),
            TransferKind::Post | TransferKind::Void => self.decide_hold_end(entry),
            TransferKind::Reverse => self.decide_reverse(entry),
            TransferKind::Burn => (None, Ok(())),
        };
        if outcome == Err(PayoutCode::LowBalance) {
            return TransferStatus::Failed(PayoutCode::LowBalance);
        }
        let decided = Decided { kind: entry.kind, code: outcome.err(), digest: entry.digest };
        let record = Record {
            decided,
            sides,
            amount: entry.amount,
            of: entry.of.to_owned(),
            hold: (entry.kind == TransferKind::Hold && outcome.is_ok()).then_some(Hold::Open),
            expires_in_s: entry.expires_in_s,
            reversed: 0,
            stored: false,
            changed: false,
        };
        self.records.insert(entry.id.to_owned(), record);
        decided.status()
    }

    fn decide_movement(&mut self, entry: &Entry<'_>) -> (Option<(String, String, Currency)>, Outcome) {
        if entry.amount == 0 || entry.debit == entry.credit {
            return (None, Err(PayoutCode::WalletRefused));
        }
        let sides = (entry.debit.to_owned(), entry.credit.to_owned(), entry.currency);
        let outcome = if entry.kind == TransferKind::Hold {
            self.set_aside(&sides, entry.amount)
        } else {
            self.post(&sides, entry.amount)
        };
        (Some(sides), outcome)
    }

    fn decide_hold_end(&mut self, entry: &Entry<'_>) -> (Option<(String, String, Currency)>, Outcome) {
        let hold = self.records.get(entry.of).filter(|record| record.hold == Some(Hold::Open));
        let Some((sides, amount)) = hold.and_then(|hold| Some((hold.sides.clone()?, hold.amount))) else {
            return (None, Err(PayoutCode::WalletRefused));
        };
        if sides.2 != entry.currency {
            return (Some(sides), Err(PayoutCode::WalletRefused));
        }
        if entry.amount != amount {
            return (Some(sides), Err(PayoutCode::AmountLimit));
        }
        // Released first: what was set aside is what pays.
        self.release(&sides, amount);
        let mut outcome = Ok(());
        let mut state = Hold::Voided;
        if entry.kind == TransferKind::Post {
            outcome = self.post(&sides, amount);
            state = Hold::Posted;
        }
        if outcome.is_err() {
            let account = self.account(&sides.0, sides.2);
            account.held += amount;
            account.held_change += amount;
            return (Some(sides), outcome);
        }
        let hold = self.records.get_mut(entry.of).expect("found above");
        hold.hold = Some(state);
        hold.changed = true;
        (Some(sides), outcome)
    }

    /// Voids a hold whose time has passed; one that has ended otherwise stays as it is. No entry records it.
    pub fn expire(&mut self, id: &str) {
        let Some(hold) = self.records.get_mut(id).filter(|record| record.hold == Some(Hold::Open)) else {
            return;
        };
        hold.hold = Some(Hold::Voided);
        hold.changed = true;
        let (sides, amount) = (hold.sides.clone(), hold.amount);
        self.release(&sides.expect("a hold has sides"), amount);
    }

    fn release(&mut self, sides: &(String, String, Currency), amount: i64) {
        let account = self.account(&sides.0, sides.2);
        account.held -= amount;
        account.held_change -= amount;
        assert!(account.held >= 0, "a hold is released once, by its own amount");
    }

    fn decide_reverse(&mut self, entry: &Entry<'_>) -> (Option<(String, String, Currency)>, Outcome) {
        let refused = (None, Err(PayoutCode::WalletRefused));
        let Some(original) = self.records.get(entry.of) else { return refused };
        let moved = matches!(original.decided.kind, TransferKind::Transfer | TransferKind::Post);
        let Some((debit, credit, currency)) = &original.sides else { return refused };
        // The money goes back the way it came: sides swapped.
        let names_match = credit == entry.debit && debit == entry.credit && *currency == entry.currency;
        if original.decided.code.is_some() || !moved || !names_match || entry.amount == 0 {
            return refused;
        }
        let sides = (credit.clone(), debit.clone(), *currency);
        let after = original.reversed.checked_add(entry.amount).filter(|after| *after <= original.amount);
        let Some(after) = after else { return (Some(sides), Err(PayoutCode::AmountLimit)) };
        let outcome = self.post(&sides, entry.amount);
        if outcome.is_ok() {
            let original = self.records.get_mut(entry.of).expect("found above");
            original.reversed = after;
            original.changed = true;
        }
        (Some(sides), outcome)
    }

    fn account(&mut self, name: &str, currency: Currency) -> &mut Account {
        self.accounts.entry((name.to_owned(), currency)).or_default()
    }

    /// What may be debited, the lowest number where there is no bound.
    fn bears(&mut self, name: &str, currency: Currency, amount: i64) -> bool {
        let account = self.account(name, currency);
        may_go_below_zero(name)
            || account.balance.checked_sub(account.held).is_some_and(|free| free >= amount)
    }

    fn post(&mut self, sides: &(String, String, Currency), amount: i64) -> Outcome {
        let (debit, credit, currency) = sides;
        if !self.bears(debit, *currency, amount) {
            return Err(PayoutCode::LowBalance);
        }
        let payer = self.account(debit, *currency);
        let lower = payer.balance.checked_sub(amount).filter(|lower| lower.checked_sub(payer.held).is_some());
        let higher = self.account(credit, *currency).balance.checked_add(amount);
        let (Some(lower), Some(higher)) = (lower, higher) else { return Err(PayoutCode::WalletRefused) };
        let payer = self.account(debit, *currency);
        payer.balance = lower;
        payer.balance_change -= amount;
        let payee = self.account(credit, *currency);
        payee.balance = higher;
        payee.balance_change += amount;
        Ok(())
    }

    fn set_aside(&mut self, sides: &(String, String, Currency), amount: i64) -> Outcome {
        if !self.bears(&sides.0, sides.2, amount) {
            return Err(PayoutCode::LowBalance);
        }
        let account = self.account(&sides.0, sides.2);
        let held = account.held.checked_add(amount);
        let held = held.filter(|held| account.balance.checked_sub(*held).is_some());
        account.held = held.ok_or(PayoutCode::WalletRefused)?;
        account.held_change += amount;
        Ok(())
    }
}
