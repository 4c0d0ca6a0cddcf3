//! A parked request in its stored form: a member of its unit's sorted set, whose score is when it is due (Unix ms).
//!
//! | bytes | field |
//! |---|---|
//! | 0, 1, 2, 3 | version (1), reason of waiting, 1 if its outcome was UNKNOWN, zero |
//! | 4..8 | attempts, little endian |
//! | 8..16 | since when it waits, Unix ms, big endian |
//! | 16..24 | when it was parked, Unix ms, little endian |
//! | 24.. | the encoded request (`domain::record`) |
//!
//! The scripts read reason, time, lane and names at their places: whoever changes them changes the version.

use bytes::Bytes;

use crate::domain::bytes::{EntryError, u32_at, u64_at};
use crate::domain::{Outcome, Request, Status, UnixMs, WaitReason};

pub const VERSION: u8 = 1;
pub const HEADER_BYTES: usize = 24;

/// Why a member cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberFault {
    #[error("version {0} of a parked request is unknown to this release, which reads {VERSION}")]
    Version(u8),
    #[error("a parked request's {0} is not valid")]
    Field(&'static str),
    #[error("a parked request: {0}")]
    Request(EntryError),
}

/// A parked request, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub reason: WaitReason,
    pub is_unknown: bool,
    pub attempts: u32,
    /// When it was parked first, whatever it waited for then.
    pub since: UnixMs,
    /// When it was parked as it is.
    pub at: UnixMs,
    /// Shares the member's memory.
    pub record: Bytes,
}

impl Member {
    /// What an outcome that is not final has its request wait as; `since` if it waited before.
    pub fn of(outcome: &Outcome<'_>, record: &Bytes, since: Option<UnixMs>) -> Member {
        Member {
            // An unknown outcome is settled by sending the same again.
            reason: outcome.reason.unwrap_or(WaitReason::NoAnswer),
            is_unknown: outcome.status == Status::Unknown,
            attempts: outcome.attempts,
            since: since.unwrap_or(outcome.at),
            at: outcome.at,
            record: record.clone(),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.record.len());
        bytes.extend_from_slice(&[VERSION, self.reason as u8, u8::from(self.is_unknown), 0]);
        bytes.extend_from_slice(&self.attempts.to_le_bytes());
        bytes.extend_from_slice(&self.since.to_be_bytes());
        bytes.extend_from_slice(&self.at.to_le_bytes());
        bytes.extend_from_slice(&self.record);
        bytes
    }

    pub fn decode(bytes: &Bytes) -> Result<Member, MemberFault> {
        if let Some(version) = bytes.first().filter(|version| **version != VERSION) {
            return Err(MemberFault::Version(*version));
        }
        if bytes.len() < HEADER_BYTES {
            return Err(MemberFault::Field("length"));
        }
        let record = bytes.slice(HEADER_BYTES..);
        let request = Request::decode(&record).map_err(MemberFault::Request)?;
        if request.encoded_len() != record.len() {
            return Err(MemberFault::Field("length"));
        }
        Ok(Member {
            reason: WaitReason::from_u8(bytes[1]).ok_or(MemberFault::Field("reason"))?,
            is_unknown: match bytes[2] {
                0 => false,
                1 => true,
                _ => return Err(MemberFault::Field("kind of outcome")),
            },
            attempts: u32_at(bytes, 4),
            since: u64::from_be_bytes(bytes[8..16].try_into().expect("eight bytes")),
            at: u64_at(bytes, 16),
            record,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Stamper;
    use crate::domain::{Amount, Currency, Kind};

    fn sample() -> Member {
        let (amount, currency) = (Amount::new(88).unwrap(), Currency::parse("CNY").unwrap());
        let request = Request::new(Kind::Disbursement, "shop", "r-1", "spring", amount, currency);
        Member {
            reason: WaitReason::LowBalance,
            is_unknown: true,
            attempts: 3,
            since: 1_767_225_600_000,
            at: 1_767_225_600_001,
            record: Bytes::from(Stamper::default().encode(request)),
        }
    }

    #[test]
    fn comes_back_as_it_went() {
        let bytes = Bytes::from(sample().encode());
        assert_eq!(Member::decode(&bytes), Ok(sample()));
    }

    #[test]
    fn damage_is_refused_and_never_panics() {
        let bytes = sample().encode();
        let table = [
            (0, 2, MemberFault::Version(2)),
            (1, 0, MemberFault::Field("reason")),
            (2, 2, MemberFault::Field("kind of outcome")),
            (HEADER_BYTES + 5, 9, MemberFault::Request(EntryError::Version { tag: 1, found: 9 })),
        ];
        for (at, value, expected) in table {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            assert_eq!(Member::decode(&Bytes::from(damaged)), Err(expected), "byte {at}");
        }
        let longer = Bytes::from([&bytes[..], &[0; 8]].concat());
        assert_eq!(Member::decode(&longer), Err(MemberFault::Field("length")));
        for cut in 0..bytes.len() {
            assert!(Member::decode(&Bytes::copy_from_slice(&bytes[..cut])).is_err(), "cut at {cut}");
        }
    }
}
