//! Every id the journal speaks of, request and wallet side in one row, and the fingerprint by which the
//! two sides are compared.
//!
//! A *fingerprint* hashes the movement, both accounts (name and currency), the amount and the id it refers
//! to, under a key drawn anew for each audit, so that no journal can be written to collide. The request's is
//! computed here from its parties; the transfer's from the accounts that the ledger says it used.

use std::hash::{BuildHasher, RandomState};

use super::entry::{Currency, Kind, Movement, Request};
use super::table::{Key, Keyed, NONE, Table, key_of};

/// What the wallet has on record against an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    Nothing,
    /// Money moved (or was held, posted, released).
    Done,
    /// Refused for good, or burned.
    Refused,
}

#[derive(Clone, Debug)]
pub struct Id {
    pub key: Key,
    /// Fingerprint of the transfer that was done; 0: none, or one from before the checkpoint.
    pub fingerprint: u64,
    /// Of the transfer that was done; of the request where it was removed.
    pub amount: u64,
    pub debit: u32,
    pub credit: u32,
    /// Row of the request accepted under this id, cancels aside.
    pub request: u32,
    pub recorded: Recorded,
    pub movement: Option<Movement>,
    /// The request was final and is removed from the journal; the checkpoint vouches for it.
    pub is_removed: bool,
}

impl Keyed for Id {
    fn key(&self) -> Key {
        self.key
    }
}

impl Id {
    pub fn new(key: Key) -> Id {
        Id {
            key,
            fingerprint: 0,
            amount: 0,
            debit: NONE,
            credit: NONE,
            request: NONE,
            recorded: Recorded::Nothing,
            movement: None,
            is_removed: false,
        }
    }
}

pub type Ids = Table<Id>;

/// The row of the id whose whole name is in `parts`.
pub fn enter(ids: &mut Ids, scratch: &mut Vec<u8>, parts: &[&[u8]]) -> u32 {
    let key = key_of(scratch, parts);
    ids.find_or_insert(key, || Id::new(key)).0
}

/// The key of an account: a name may hold money in several currencies, each in an account of its own.
pub fn account_key(scratch: &mut Vec<u8>, name: &[&[u8]], currency: Currency) -> Key {
    let mut parts: [&[u8]; 6] = [b"", b"", b"", b"", b"\0", &currency];
    parts[..name.len()].copy_from_slice(name);
    key_of(scratch, &parts)
}

#[derive(Default)]
pub struct Fingerprints {
    secret: RandomState,
}

impl Fingerprints {
    pub fn of(&self, movement: Movement, debit: Key, credit: Key, of: Key, amount: u64) -> u64 {
        self.secret.hash_one((movement, debit, credit, of, amount)).max(1)
    }

    /// The fingerprint of the transfer that `request` asks for; 0 for a cancel, which moves nothing.
    pub fn asked_by(&self, request: &Request<'_>, scratch: &mut Vec<u8>) -> u64 {
        let campaign: &[&[u8]] = &[b"campaign:", request.client, b":", request.campaign];
        let person: &[&[u8]] = &[b"person:", request.party];
        let merchant: &[&[u8]] = &[b"merchant:", request.merchant];
        let funding: &[&[u8]] = &[b"funding:", request.client];
        let (movement, debit, credit) = match request.kind {
            Kind::Disbursement => (Movement::Transfer, campaign, person),
            Kind::Collection => (Movement::Transfer, person, merchant),
            Kind::Reversal if request.merchant.is_empty() => (Movement::Reverse, person, campaign),
            Kind::Reversal => (Movement::Reverse, merchant, person),
            Kind::Fund => (Movement::Transfer, funding, campaign),
            Kind::Defund => (Movement::Transfer, campaign, funding),
            Kind::Cancel => return 0,
        };
        let of = match request.kind {
            Kind::Reversal => key_of(scratch, &[request.client, b":", request.original]),
            _ => [0, 0],
        };
        let debit = account_key(scratch, debit, request.currency);
        let credit = account_key(scratch, credit, request.currency);
        self.of(movement, debit, credit, of, request.amount)
    }
}
