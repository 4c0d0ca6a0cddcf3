//! The accounts, kept a second time, from nothing or from a checkpoint.
//!
//! A balance is credits less debits less what is held; only `funding:*` may go below zero. Debits and credits
//! are added up apart, per frame and in all, so that a movement with one side shows. A movement that breaks a
//! rule is reported and still applied: the books say what the journal says. Absent: ids, and what moves.

use super::breach::{BreachKind, Breaches, name};
use super::entry::Currency;
use super::ids::account_key;
use super::table::{Key, Keyed, Table};

/// Accounts that a gap in the numbers may leave out before the numbers are taken for nonsense.
const GAP_ACCOUNTS_MAX: usize = 1 << 16;

pub struct Account {
    pub key: Key,
    pub debits: u64,
    pub credits: u64,
    pub held: u64,
    name_at: usize,
    name_len: u8,
    pub currency: Currency,
    /// May go below zero: it stands for money outside.
    is_funding: bool,
}

impl Keyed for Account {
    fn key(&self) -> Key {
        self.key
    }
}

/// All accounts of one currency together, in minor units.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    pub currency: String,
    pub accounts: u64,
    pub debits: u128,
    pub credits: u128,
    pub held: u128,
}

/// For a movement: who moves how much, for which id.
#[derive(Clone, Copy)]
pub struct Move<'a> {
    pub account: u32,
    pub amount: u64,
    pub currency: Currency,
    pub id: &'a [u8],
}

pub struct Books {
    accounts: Table<Account>,
    names: Vec<u8>,
    frame_debits: u128,
    frame_credits: u128,
    scratch: Vec<u8>,
}

impl Books {
    pub fn new() -> Books {
        Books {
            accounts: Table::new(),
            names: Vec::new(),
            frame_debits: 0,
            frame_credits: 0,
            scratch: Vec::new(),
        }
    }

    pub fn count(&self) -> usize {
        self.accounts.len()
    }

    /// Name and currency of an account as a key; zeros where there is no such account.
    pub fn key(&self, number: u32) -> Key {
        self.accounts.get(number).map_or([0, 0], Keyed::key)
    }

    fn name(&self, number: u32) -> String {
        let Some(account) = self.accounts.get(number) else { return format!("account {number}") };
        name(&self.names[account.name_at..account.name_at + usize::from(account.name_len)])
    }

    /// Opens an account; numbers come without gaps, and no name twice in one currency.
    pub fn open(&mut self, number: u32, currency: Currency, label: &[u8], breaches: &mut Breaches) {
        let expected = self.accounts.len();
        if number as usize != expected {
            breaches.add(
                BreachKind::AccountGap,
                || name(label),
                || format!("account {number} was opened where {expected} is next"),
            );
            let missing = (number as usize).saturating_sub(expected);
            if missing == 0 || missing > GAP_ACCOUNTS_MAX {
                return;
            }
            for lost in expected..number as usize {
                self.push(format!("lost account {lost}").as_bytes(), currency);
            }
        }
        if !self.push(label, currency) {
            breaches.add(BreachKind::AccountGap, || name(label), || "an account was opened twice".into());
            // Numbers go on all the same, so this one needs a row of its own.
            self.push(format!("second account {number}").as_bytes(), currency);
        }
    }

    fn push(&mut self, label: &[u8], currency: Currency) -> bool {
        let label = &label[..label.len().min(255)];
        let key = account_key(&mut self.scratch, &[label], currency);
        let account = Account {
            key,
            debits: 0,
            credits: 0,
            held: 0,
            name_at: self.names.len(),
            name_len: label.len() as u8,
            currency,
            is_funding: label.starts_with(b"funding:"),
        };
        let (_, is_known) = self.accounts.find_or_insert(key, || account);
        if !is_known {
            self.names.extend_from_slice(label);
        }
        !is_known
    }

    /// Sets what an account had moved when the checkpoint was taken.
    pub fn carry(&mut self, number: u32, debits: u64, credits: u64, held: u64) {
        if let Some(account) = self.accounts.get_mut(number) {
            (account.debits, account.credits, account.held) = (debits, credits, held);
        }
    }

    /// The account of a movement, if it was opened; says so if it was not, or holds another currency.
    fn account(&mut self, part: Move<'_>, breaches: &mut Breaches) -> Option<&mut Account> {
        let Some(account) = self.accounts.get_mut(part.account) else {
            breaches.add(
                BreachKind::AccountGap,
                || name(part.id),
                || format!("{} moves money of account {}, which is not open", name(part.id), part.account),
            );
            return None;
        };
        if account.currency != part.currency {
            breaches.add(
                BreachKind::CurrencyMixed,
                || name(part.id),
                || format!("{} is in another currency than its account", name(part.id)),
            );
        }
        Some(account)
    }

    pub fn debit(&mut self, part: Move<'_>, breaches: &mut Breaches) {
        if let Some(account) = self.account(part, breaches) {
            account.debits = account.debits.saturating_add(part.amount);
            self.frame_debits += u128::from(part.amount);
            self.check_above_zero(part, breaches);
        }
    }

    pub fn credit(&mut self, part: Move<'_>, breaches: &mut Breaches) {
        if let Some(account) = self.account(part, breaches) {
            account.credits = account.credits.saturating_add(part.amount);
            self.frame_credits += u128::from(part.amount);
        }
    }

    pub fn hold(&mut self, part: Move<'_>, breaches: &mut Breaches) {
        if let Some(account) = self.account(part, breaches) {
            account.held = account.held.saturating_add(part.amount);
            self.check_above_zero(part, breaches);
        }
    }

    pub fn release(&mut self, part: Move<'_>, breaches: &mut Breaches) {
        if let Some(account) = self.account(part, breaches) {
            account.held = account.held.saturating_sub(part.amount);
        }
    }

    fn check_above_zero(&self, part: Move<'_>, breaches: &mut Breaches) {
        let Some(account) = self.accounts.get(part.account) else { return };
        let out = u128::from(account.debits) + u128::from(account.held);
        if !account.is_funding && u128::from(account.credits) < out {
            breaches.add(
                BreachKind::Overdrawn,
                || self.name(part.account),
                || format!("{} went below zero with {}", self.name(part.account), name(part.id)),
            );
        }
    }

    /// Ends a frame: what was debited in it was credited in it.
    pub fn end_frame(&mut self, offset: u64, breaches: &mut Breaches) {
        let (debits, credits) = (self.frame_debits, self.frame_credits);
        (self.frame_debits, self.frame_credits) = (0, 0);
        if debits != credits {
            breaches.add(
                BreachKind::Unbalanced,
                || format!("frame at {offset}"),
                || format!("the frame at {offset} debits {debits} and credits {credits}"),
            );
        }
    }

    /// Adds up all accounts by currency; debits and credits of each must be equal.
    pub fn totals(&self, breaches: &mut Breaches) -> Vec<Totals> {
        let mut list: Vec<Totals> = Vec::new();
        for account in self.accounts.rows() {
            let known = list.iter().position(|t| t.currency.as_bytes() == account.currency);
            let position = known.unwrap_or_else(|| {
                let currency = name(&account.currency);
                list.push(Totals { currency, accounts: 0, debits: 0, credits: 0, held: 0 });
                list.len() - 1
            });
            let totals = &mut list[position];
            totals.accounts += 1;
            totals.debits += u128::from(account.debits);
            totals.credits += u128::from(account.credits);
            totals.held += u128::from(account.held);
        }
        for totals in list.iter().filter(|totals| totals.debits != totals.credits) {
            let Totals { currency, debits, credits, .. } = totals;
            let detail = || format!("all accounts in {currency}: debits {debits}, credits {credits}");
            breaches.add(BreachKind::Unbalanced, || currency.clone(), detail);
        }
        list.sort_by(|a, b| a.currency.cmp(&b.currency));
        list
    }
}
