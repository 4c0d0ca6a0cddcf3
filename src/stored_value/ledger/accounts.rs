//! The accounts of the ledger and the only place where a balance changes.
//!
//! What holds: a movement debits one account and credits another by the same amount or does nothing; no
//! account but a funding account goes below zero, amounts on hold included; sums are checked. Numbers are
//! given out in order of opening and never change.

use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

use crate::domain::Currency;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    pub debits: u64,
    pub credits: u64,
    /// Set aside by holds; part of the balance, not available.
    pub held: u64,
    name_at: u32,
    name_len: u8,
    currency: Currency,
    /// Funding accounts stand for the world outside and may owe.
    may_owe: bool,
}

impl Account {
    /// What may be debited now.
    fn available(&self) -> u64 {
        if self.may_owe {
            u64::MAX
        } else {
            self.credits.saturating_sub(self.debits).saturating_sub(self.held)
        }
    }
}

/// Why a movement was not made. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveError {
    /// The debit account does not hold enough.
    LowBalance,
    /// A running total would pass 2^64.
    Overflow,
}

#[derive(Debug, Default)]
pub struct Accounts {
    rows: Vec<Account>,
    names: Vec<u8>,
    by_name: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Accounts {
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn name_of(rows: &[Account], names: &[u8], number: u32) -> (Currency, std::ops::Range<usize>) {
        let row = &rows[number as usize];
        let start = row.name_at as usize;
        debug_assert!(start + usize::from(row.name_len) <= names.len());
        (row.currency, start..start + usize::from(row.name_len))
    }

    /// Whether this is the account of that name.
    pub fn is(&self, number: u32, name: &[u8], currency: Currency) -> bool {
        self.rows.get(number as usize).is_some_and(|row| {
            let start = row.name_at as usize;
            row.currency == currency && &self.names[start..start + usize::from(row.name_len)] == name
        })
    }

    pub fn find(&self, name: &[u8], currency: Currency) -> Option<u32> {
        let hash = hash_of(&self.hasher, name, currency);
        self.by_name
            .find(hash, |number| {
                let (held_currency, range) = Self::name_of(&self.rows, &self.names, *number);
                held_currency == currency && &self.names[range] == name
            })
            .copied()
    }

    /// Opens an account with the next number. The caller has seen that it does not exist.
    ///
    /// # Panics
    /// Past 2^32 - 1 accounts or 4 GiB of names; the process must not go on with numbers that repeat.
    pub fn open(&mut self, name: &[u8], currency: Currency) -> u32 {
        let number = u32::try_from(self.rows.len()).ok().filter(|n| *n < u32::MAX).expect("account numbers");
        let name_at = u32::try_from(self.names.len()).expect("the names of accounts fit into 4 GiB");
        self.names.extend_from_slice(name);
        self.rows.push(Account {
            debits: 0,
            credits: 0,
            held: 0,
            name_at,
            name_len: u8::try_from(name.len()).expect("names are bounded where they enter"),
            currency,
            may_owe: name.starts_with(b"funding:"),
        });
        let hash = hash_of(&self.hasher, name, currency);
        let (rows, names, hasher) = (&self.rows, &self.names, &self.hasher);
        self.by_name.insert_unique(hash, number, |number| {
            let (currency, range) = Self::name_of(rows, names, *number);
            hash_of(hasher, &names[range], currency)
        });
        number
    }

    pub fn get(&self, number: u32) -> &Account {
        &self.rows[number as usize]
    }

    pub fn name(&self, number: u32) -> &[u8] {
        let (_, range) = Self::name_of(&self.rows, &self.names, number);
        &self.names[range]
    }

    pub fn currency(&self, number: u32) -> Currency {
        self.rows[number as usize].currency
    }

    /// Debits one, credits the other.
    pub fn post(&mut self, debit: u32, credit: u32, amount: u64) -> Result<(), MoveError> {
        let from = &self.rows[debit as usize];
        if from.available() < amount {
            return Err(MoveError::LowBalance);
        }
        let debits = from.debits.checked_add(amount).ok_or(MoveError::Overflow)?;
        let credits = self.rows[credit as usize].credits.checked_add(amount).ok_or(MoveError::Overflow)?;
        self.rows[debit as usize].debits = debits;
        self.rows[credit as usize].credits = credits;
        Ok(())
    }

    /// Sets an amount aside.
    pub fn hold(&mut self, debit: u32, amount: u64) -> Result<(), MoveError> {
        let row = &mut self.rows[debit as usize];
        if row.available() < amount {
            return Err(MoveError::LowBalance);
        }
        row.held = row.held.checked_add(amount).ok_or(MoveError::Overflow)?;
        Ok(())
    }

    /// Gives back what a hold set aside.
    ///
    /// # Panics
    /// If more is released than was held: the books would be wrong from here on.
    pub fn release(&mut self, debit: u32, amount: u64) {
        let row = &mut self.rows[debit as usize];
        row.held = row.held.checked_sub(amount).expect("a hold is released once, by its own amount");
    }

    /// For a restored snapshot only: sets the totals of an account just opened.
    pub fn restore(&mut self, number: u32, debits: u64, credits: u64, held: u64) {
        let row = &mut self.rows[number as usize];
        (row.debits, row.credits, row.held) = (debits, credits, held);
    }

    /// All debits and all credits; equal, or the books are broken.
    pub fn totals(&self) -> (u128, u128) {
        self.rows.iter().fold((0, 0), |(debits, credits), row| {
            (debits + u128::from(row.debits), credits + u128::from(row.credits))
        })
    }
}

/// The hasher's work is the name; the currency is mixed in, for one name may have accounts in many.
fn hash_of(hasher: &DefaultHashBuilder, name: &[u8], currency: Currency) -> u64 {
    let [a, b, c] = currency.bytes();
    hasher.hash_one(name) ^ u64::from(u32::from_le_bytes([a, b, c, 0])).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn movements() {
        let cny = Currency::parse("CNY").unwrap();
        let mut accounts = Accounts::default();
        let funding = accounts.open(b"funding:s", cny);
        let campaign = accounts.open(b"campaign:s:c", cny);
        assert_eq!(accounts.find(b"campaign:s:c", cny), Some(campaign));
        assert_eq!(accounts.find(b"campaign:s:c", Currency::parse("USD").unwrap()), None);

        assert_eq!(accounts.post(campaign, funding, 1), Err(MoveError::LowBalance));
        assert_eq!(accounts.post(funding, campaign, 10), Ok(()));
        assert_eq!(accounts.hold(campaign, 4), Ok(()));
        assert_eq!(accounts.post(campaign, funding, 7), Err(MoveError::LowBalance));
        assert_eq!(accounts.hold(campaign, 7), Err(MoveError::LowBalance));
        accounts.release(campaign, 4);
        assert_eq!(accounts.post(campaign, funding, 10), Ok(()));
        assert_eq!(accounts.post(funding, campaign, u64::MAX), Err(MoveError::Overflow));
        assert_eq!(accounts.totals(), (20, 20));
    }
}
