//! The stored form of an outcome: one fact about one request, as it stands in the outcome log.
//!
//! | bytes | field |
//! |---|---|
//! | 0..4, 4, 5 | length, tag, version (1) |
//! | 6, 7 | status, payout code (0: none) |
//! | 8..16 | place of the request in the journal |
//! | 16..24 | place of the entry this one follows: the request, or an earlier outcome |
//! | 24..32 | hash of `client:id` |
//! | 32..40, 40..48 | at, next attempt at: Unix ms (0: none) |
//! | 48..52, 52..56 | attempts, number of the campaign |
//! | 56..64 | amount, minor units |
//! | 64, 65, 66 | reason of waiting (0: none), length of the wallet's reference, kind of the request |
//! | 67 | lane of the request, from 1 (0: written before it was kept) |
//! | 68..72 | zero |
//! | 72.. | the wallet's reference |

use super::bytes::{EntryError, TAG_OUTCOME, entry, padded, u32_at, u64_at};
use super::{Kind, Lane, PayoutCode, Status, UnixMs, WaitReason};

const HEADER_BYTES: usize = 72;
/// An upper bound of a stored outcome.
pub const OUTCOME_BYTES_MAX: usize = padded(HEADER_BYTES + 255);

/// A fact: the request at `request_place` is now `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome<'a> {
    pub status: Status,
    pub code: Option<PayoutCode>,
    pub reason: Option<WaitReason>,
    pub kind: Kind,
    /// Absent in what was written before it was kept.
    pub lane: Option<Lane>,
    pub request_place: u64,
    pub follows_place: u64,
    pub key_hash: u64,
    pub at: UnixMs,
    pub next_attempt_at: UnixMs,
    pub attempts: u32,
    pub campaign_number: u32,
    pub amount: u64,
    pub wallet_ref: &'a str,
}

impl<'a> Outcome<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let length = padded(HEADER_BYTES + self.wallet_ref.len());
        let start = out.len();
        let mut header = [0u8; HEADER_BYTES];
        header[0..4].copy_from_slice(&(length as u32).to_le_bytes());
        header[4] = TAG_OUTCOME;
        header[5] = 1;
        header[6] = self.status as u8;
        header[7] = self.code.map_or(0, |code| code as u8);
        header[8..16].copy_from_slice(&self.request_place.to_le_bytes());
        header[16..24].copy_from_slice(&self.follows_place.to_le_bytes());
        header[24..32].copy_from_slice(&self.key_hash.to_le_bytes());
        header[32..40].copy_from_slice(&self.at.to_le_bytes());
        header[40..48].copy_from_slice(&self.next_attempt_at.to_le_bytes());
        header[48..52].copy_from_slice(&self.attempts.to_le_bytes());
        header[52..56].copy_from_slice(&self.campaign_number.to_le_bytes());
        header[56..64].copy_from_slice(&self.amount.to_le_bytes());
        header[64] = self.reason.map_or(0, |reason| reason as u8);
        header[65] = u8::try_from(self.wallet_ref.len()).expect("references are cut to 64 bytes on arrival");
        header[66] = self.kind as u8;
        header[67] = self.lane.map_or(0, |lane| lane as u8 + 1);
        out.extend_from_slice(&header);
        out.extend_from_slice(self.wallet_ref.as_bytes());
        out.resize(start + length, 0);
    }

    pub fn decode(bytes: &'a [u8]) -> Result<Outcome<'a>, EntryError> {
        let bytes = entry(bytes, TAG_OUTCOME, HEADER_BYTES)?;
        let reference = bytes.get(HEADER_BYTES..HEADER_BYTES + usize::from(bytes[65]));
        Ok(Outcome {
            status: Status::from_u8(bytes[6]).ok_or(EntryError::Field("status"))?,
            code: match bytes[7] {
                0 => None,
                byte => Some(PayoutCode::from_u8(byte).ok_or(EntryError::Field("code"))?),
            },
            reason: match bytes[64] {
                0 => None,
                byte => Some(WaitReason::from_u8(byte).ok_or(EntryError::Field("reason"))?),
            },
            kind: Kind::from_u8(bytes[66]).ok_or(EntryError::Field("kind"))?,
            lane: match bytes[67] {
                0 => None,
                byte => Some(Lane::from_u8(byte - 1).ok_or(EntryError::Field("lane"))?),
            },
            request_place: u64_at(bytes, 8),
            follows_place: u64_at(bytes, 16),
            key_hash: u64_at(bytes, 24),
            at: u64_at(bytes, 32),
            next_attempt_at: u64_at(bytes, 40),
            attempts: u32_at(bytes, 48),
            campaign_number: u32_at(bytes, 52),
            amount: u64_at(bytes, 56),
            wallet_ref: reference
                .and_then(|bytes| std::str::from_utf8(bytes).ok())
                .ok_or(EntryError::Field("wallet reference"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_went() {
        let outcome = Outcome {
            status: Status::Failed,
            code: Some(PayoutCode::PayeeFrozen),
            reason: Some(WaitReason::LowBalance),
            kind: Kind::Collection,
            lane: Some(Lane::Bulk),
            request_place: 8,
            follows_place: 16,
            key_hash: u64::MAX,
            at: 5,
            next_attempt_at: 6,
            attempts: 7,
            campaign_number: 3,
            amount: 88,
            wallet_ref: "T-1",
        };
        let mut bytes = Vec::new();
        outcome.encode(&mut bytes);
        assert_eq!(bytes.len() % 8, 0);
        assert_eq!(Outcome::decode(&bytes), Ok(outcome));
        let mut older = bytes.clone();
        older[67] = 0;
        assert_eq!(Outcome::decode(&older), Ok(Outcome { lane: None, ..outcome }));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] = 0xff;
            let _ = Outcome::decode(&damaged);
        }
    }
}
