//! The two hashes by which a request is known: of its name, and of its money.
//!
//! *Key hash*: where `client:id` stands in the indexes; a hit is always verified against stored bytes.
//! *Digest*: "same body" means same digest, at the door and at the wallet. Both are BLAKE3, cut short.

use crate::domain::transfer::{Names, Transfer, write_money_fields};
use crate::domain::{Request, ids};

/// Hash of a wallet id (`client:id`).
pub fn key_hash(key: &[u8]) -> u64 {
    let hash = blake3::hash(key);
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight of thirty-two bytes"))
}

/// Hash of `client:id` from its parts.
pub fn key_hash_of(client: &str, id: &str) -> u64 {
    let mut key = Vec::with_capacity(client.len() + id.len() + 1);
    ids::write_key(&mut key, client.as_bytes(), id.as_bytes());
    key_hash(&key)
}

/// Digest of the canonical money fields: kind, both accounts, amount, currency, and what it refers to.
pub fn money_digest(transfer: &Transfer<'_>, scratch: &mut Vec<u8>) -> [u8; 16] {
    scratch.clear();
    write_money_fields(scratch, transfer);
    blake3::hash(scratch).as_bytes()[..16].try_into().expect("sixteen of thirty-two bytes")
}

/// Writes both hashes into a request whose other fields are complete. Buffers are kept between calls.
#[derive(Debug, Default)]
pub struct Stamper {
    names: Names,
    scratch: Vec<u8>,
}

impl Stamper {
    pub fn stamp(&mut self, request: &mut Request<'_>) {
        self.names.fill(request);
        request.key_hash = key_hash(self.names.id());
        request.digest = money_digest(&self.names.transfer(request), &mut self.scratch);
    }

    /// Stamps a request and gives its stored form.
    pub fn encode(&mut self, mut request: Request<'_>) -> Vec<u8> {
        self.stamp(&mut request);
        let mut bytes = Vec::with_capacity(request.encoded_len());
        request.encode(&mut bytes);
        bytes
    }
}
