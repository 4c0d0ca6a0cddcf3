//! What the wallet's entries say: one recorded result an id, and the movements it made.
//!
//! A second recorded result is a double, whatever it says. A retryable refusal and a conflict record nothing.
//! A reverse mirrors what it takes back and never takes back more in all; a post or a void is about an open
//! hold. Absent: requests, which are compared with these results at the end.

use std::collections::HashMap;

use super::books::{Books, Move};
use super::breach::{Breach, BreachKind, Breaches, IDS_MAX, name};
use super::entry::{Movement, NO_ACCOUNT, Transfer};
use super::ids::{Fingerprints, Ids, Recorded, enter};
use super::table::{Key, NONE, key_of};
use crate::domain::code::PayoutCode;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct TransferCounts {
    pub entries: u64,
    pub done: u64,
    pub refused: u64,
    /// Of the refused: ids taken out of use.
    pub burned: u64,
    /// Of the done: reverses.
    pub reverses: u64,
    /// Told, not recorded: the same id may be paid later.
    pub retryable: u64,
    /// Another body under a known id; changes nothing.
    pub conflicts: u64,
}

#[derive(Clone, Copy)]
struct Hold {
    debit: u32,
    credit: u32,
    amount: u64,
    is_open: bool,
}

pub struct Ledger {
    pub books: Books,
    pub counts: TransferCounts,
    /// Ids with more than one transfer done.
    pub double_paid: u64,
    /// Transfers done for ids that no request asked for; whether that is a breach is known at the end.
    pub not_requested: Breach,
    holds: HashMap<Key, Hold>,
    reversed: HashMap<u32, u64>,
    scratch: Vec<u8>,
}

impl Ledger {
    pub fn new() -> Ledger {
        Ledger {
            books: Books::new(),
            counts: TransferCounts::default(),
            double_paid: 0,
            not_requested: Breach {
                kind: BreachKind::NotRequested,
                count: 0,
                detail: "money moved for an id that was never accepted here".into(),
                ids: Vec::new(),
            },
            holds: HashMap::new(),
            reversed: HashMap::new(),
            scratch: Vec::new(),
        }
    }

    /// Takes in one entry of the ledger.
    pub fn apply(
        &mut self,
        transfer: &Transfer<'_>,
        ids: &mut Ids,
        fingerprints: &Fingerprints,
        breaches: &mut Breaches,
    ) {
        self.counts.entries += 1;
        match transfer.code {
            Some(code) if is_retryable(code) => self.counts.retryable += 1,
            Some(PayoutCode::IdConflict) => self.counts.conflicts += 1,
            Some(_) => {
                self.record(transfer, Recorded::Refused, ids, breaches);
            }
            None if transfer.movement == Movement::Burn => {
                self.record(transfer, Recorded::Refused, ids, breaches);
            }
            None => {
                let of = match transfer.of {
                    b"" => [0, 0],
                    of => key_of(&mut self.scratch, &[of]),
                };
                let (debit, credit) = self.perform(transfer, of, ids, breaches);
                let id = self.record(transfer, Recorded::Done, ids, breaches);
                let (debit_key, credit_key) = (self.books.key(debit), self.books.key(credit));
                let row = ids.get_mut(id).expect("it was entered");
                row.fingerprint =
                    fingerprints.of(transfer.movement, debit_key, credit_key, of, transfer.amount);
                (row.amount, row.debit, row.credit) = (transfer.amount, debit, credit);
            }
        }
    }

    /// Puts the one result of an id on record; answers its row.
    fn record(
        &mut self,
        transfer: &Transfer<'_>,
        recorded: Recorded,
        ids: &mut Ids,
        breaches: &mut Breaches,
    ) -> u32 {
        let id = enter(ids, &mut self.scratch, &[transfer.id]);
        let row = ids.get_mut(id).expect("it was entered");
        if row.recorded != Recorded::Nothing {
            breaches.add(
                BreachKind::Double,
                || name(transfer.id),
                || format!("{} has a second recorded result", name(transfer.id)),
            );
        }
        let is_paid_again = row.recorded == Recorded::Done && recorded == Recorded::Done;
        self.double_paid += u64::from(is_paid_again);
        if row.recorded != Recorded::Done {
            row.recorded = recorded;
            row.movement = Some(transfer.movement);
        }
        if recorded == Recorded::Refused {
            self.counts.refused += 1;
            self.counts.burned += u64::from(transfer.movement == Movement::Burn);
            return id;
        }
        self.counts.done += 1;
        self.counts.reverses += u64::from(transfer.movement == Movement::Reverse);
        let is_wallet_only = matches!(transfer.movement, Movement::Hold | Movement::Post | Movement::Void);
        if row.request == NONE && !row.is_removed && !is_wallet_only {
            self.not_requested.count += 1;
            if self.not_requested.ids.len() < IDS_MAX {
                self.not_requested.ids.push(name(transfer.id));
            }
        }
        id
    }

    /// Makes a movement in the books; answers the accounts it was between.
    fn perform(
        &mut self,
        transfer: &Transfer<'_>,
        of: Key,
        ids: &Ids,
        breaches: &mut Breaches,
    ) -> (u32, u32) {
        let Transfer { movement, amount, currency, mut debit, mut credit, id, .. } = *transfer;
        let part = |account| Move { account, amount, currency, id };
        match movement {
            Movement::Transfer => {}
            Movement::Reverse => self.check_reverse(transfer, of, ids, breaches),
            Movement::Hold => {
                let key = key_of(&mut self.scratch, &[id]);
                self.holds.insert(key, Hold { debit, credit, amount, is_open: true });
            }
            Movement::Post | Movement::Void => {
                if let Some(hold) = self.close_hold(transfer, of, breaches) {
                    (debit, credit) = (hold.debit, hold.credit);
                    self.books.release(Move { amount: hold.amount, ..part(debit) }, breaches);
                }
            }
            Movement::Burn => {}
        }
        match movement {
            Movement::Transfer | Movement::Reverse | Movement::Post => {
                self.books.debit(part(debit), breaches);
                self.books.credit(part(credit), breaches);
            }
            Movement::Hold => self.books.hold(part(debit), breaches),
            Movement::Void | Movement::Burn => {}
        }
        (debit, credit)
    }

    fn check_reverse(&mut self, transfer: &Transfer<'_>, of: Key, ids: &Ids, breaches: &mut Breaches) {
        let original = ids.find(of).and_then(|id| Some((id, ids.get(id)?)));
        let fault = match original {
            Some((id, row)) if row.recorded == Recorded::Done => {
                let reversed = self.reversed.entry(id).or_default();
                *reversed = reversed.saturating_add(transfer.amount);
                let is_money = matches!(row.movement, Some(Movement::Transfer | Movement::Post));
                let is_mirror = (row.debit, row.credit) == (transfer.credit, transfer.debit);
                if !is_money || !is_mirror {
                    "a reverse is not the mirror of what it takes back"
                } else if *reversed > row.amount {
                    "more was taken back than was moved"
                } else {
                    return;
                }
            }
            _ => "a reverse names a transfer that was not done",
        };
        breaches.add(BreachKind::Reverse, || name(transfer.id), || format!("{}: {fault}", name(transfer.id)));
    }

    /// How much of what this id moved was taken back.
    pub fn reversed_of(&self, id: u32) -> u64 {
        self.reversed.get(&id).copied().unwrap_or(0)
    }

    /// For the checkpoint: what was taken back, before, of what this id moved.
    pub fn carry_reversed(&mut self, id: u32, amount: u64) {
        self.reversed.insert(id, amount);
    }

    /// Closes the hold that a post or a void is about.
    fn close_hold(&mut self, transfer: &Transfer<'_>, of: Key, breaches: &mut Breaches) -> Option<Hold> {
        let fits = |given: u32, own: u32| given == NO_ACCOUNT || given == own;
        let hold = self.holds.get_mut(&of).filter(|hold| hold.is_open);
        let is_right = hold.as_ref().is_some_and(|hold| {
            (transfer.movement == Movement::Void || transfer.amount <= hold.amount)
                && fits(transfer.debit, hold.debit)
                && fits(transfer.credit, hold.credit)
        });
        if !is_right {
            breaches.add(
                BreachKind::Hold,
                || name(transfer.id),
                || format!("{} is about {}, which is no such hold", name(transfer.id), name(transfer.of)),
            );
        }
        let hold = hold?;
        hold.is_open = false;
        Some(*hold)
    }
}

/// Whether a refusal leaves the id free to be paid later.
const fn is_retryable(code: PayoutCode) -> bool {
    match code {
        PayoutCode::LowBalance | PayoutCode::WalletOverloaded => true,
        PayoutCode::IdConflict
        | PayoutCode::CrashSuspect
        | PayoutCode::Burned
        | PayoutCode::Expired
        | PayoutCode::CampaignClosed
        | PayoutCode::BudgetExhausted
        | PayoutCode::AmountLimit
        | PayoutCode::PayeeLimit
        | PayoutCode::AgreementRevoked
        | PayoutCode::PayeeNotFound
        | PayoutCode::PayeeFrozen
        | PayoutCode::PayeeUnverified
        | PayoutCode::WalletRefused => false,
    }
}
