//! Signed elements: `hmac-sha256:<64 hex>:<payload>`, HMAC-SHA-256 (RFC 2104) over the payload's bytes.
//!
//! For lists that more than their producer can write to. What holds: on a list with a key nothing passes unsigned; on
//! one without, a signature is refused rather than ignored, because whoever signs counts on its being checked. A
//! signature says who wrote an element, not how often: pushed again it is the same id again.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::super::contents::DeadReason;
use super::{code, dead};

const PREFIX: &[u8] = b"hmac-sha256:";
const SUM_BYTES: usize = 32;
const HEAD_BYTES: usize = PREFIX.len() + 2 * SUM_BYTES + 1;

/// The key of a list, worked in.
pub struct Signer(Hmac<Sha256>);

impl Signer {
    pub fn new(key: &[u8]) -> Signer {
        Signer(Hmac::new_from_slice(key).expect("HMAC takes a key of any length"))
    }

    /// The payload, if its signature is right.
    pub fn verify<'e>(&self, element: &'e [u8]) -> Result<&'e [u8], DeadReason> {
        if !element.starts_with(PREFIX) {
            let detail = "the list has a key: write hmac-sha256:<64 hex digits>:<payload>";
            return Err(dead(code::UNSIGNED, detail));
        }
        let bad = |detail: &str| dead(code::BAD_SIGNATURE, detail);
        let mut sum = [0; SUM_BYTES];
        let digits = element.get(PREFIX.len()..HEAD_BYTES - 1);
        let is_read = digits.is_some_and(|digits| hex::decode_to_slice(digits, &mut sum).is_ok());
        if !is_read || element.get(HEAD_BYTES - 1) != Some(&b':') {
            return Err(bad("the signature is not 64 hexadecimal digits and a colon"));
        }
        let payload = &element[HEAD_BYTES..];
        let mut mac = self.0.clone();
        mac.update(payload);
        // Takes as long whatever the sum is.
        mac.verify_slice(&sum)
            .map_err(|_| bad("the signature is not that of this payload under the list's key"))?;
        Ok(payload)
    }

    /// The signed element of a payload.
    pub fn sign(&self, payload: &[u8]) -> Vec<u8> {
        let mut mac = self.0.clone();
        mac.update(payload);
        let mut element = Vec::with_capacity(HEAD_BYTES + payload.len());
        element.extend_from_slice(PREFIX);
        for byte in mac.finalize().into_bytes() {
            element.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
        }
        element.push(b':');
        element.extend_from_slice(payload);
        element
    }
}

/// The element of a list without a key.
pub fn none_wanted(element: &[u8]) -> Result<&[u8], DeadReason> {
    if element.starts_with(PREFIX) {
        let detail = "the element is signed, but the list has no key configured to check it by";
        return Err(dead(code::NO_KEY, detail));
    }
    Ok(element)
}
