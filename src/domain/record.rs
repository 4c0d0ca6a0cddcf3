//! A request in its stored form: what the door writes, what the ring carries, what the wallet's transfer is
//! computed from.
//!
//! Layout, little endian, padded with zeros to a multiple of eight bytes:
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | length of the whole, padding included |
//! | 4, 5 | tag (`TAG_REQUEST`), version (1) |
//! | 6, 7 | kind, lane |
//! | 8..24 | digest of the canonical money fields |
//! | 24..32 | hash of `client:id` |
//! | 32..40 | amount, minor units |
//! | 40..48, 48..56, 56..64 | accepted at, not before, not after: Unix ms, 0 where unset |
//! | 64..67, 67 | currency, length of client |
//! | 68..75 | lengths of id, campaign, party, merchant, agreement, batch, original |
//! | 75 | 1 if the id is known by this record (see [`holds_id`]) |
//! | 76..78, 78..80 | lengths of remark, metadata |
//! | 80.. | the strings, in the order of their lengths |
//!
//! Nothing here decides anything: checks of meaning live at the door and in the pipeline.

use super::bytes::{EntryError, TAG_REQUEST, entry, padded, u64_at};
use super::{Amount, Currency, UnixMs};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 80;

/// The longest remark and the longest metadata text, in bytes.
pub const REMARK_BYTES_MAX: usize = 256;
pub const METADATA_BYTES_MAX: usize = 4096;

/// An upper bound of [`Request::encoded_len`].
pub const REQUEST_BYTES_MAX: usize =
    HEADER_BYTES + 8 * super::ids::ID_BYTES_MAX + REMARK_BYTES_MAX + METADATA_BYTES_MAX + 8;

/// What a request asks for. The number is the stored form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// From a campaign to a person.
    Disbursement = 1,
    /// From a person to a merchant, under an agreement.
    Collection = 2,
    /// Takes back what an earlier request moved; `original` names it.
    Reversal = 3,
    /// From the client's funding account to a campaign.
    Fund = 4,
    /// From a campaign back to the client's funding account.
    Defund = 5,
    /// Burns the id in `original`, so that it can never be paid.
    Cancel = 6,
}

impl Kind {
    pub const fn from_u8(byte: u8) -> Option<Kind> {
        match byte {
            1 => Some(Kind::Disbursement),
            2 => Some(Kind::Collection),
            3 => Some(Kind::Reversal),
            4 => Some(Kind::Fund),
            5 => Some(Kind::Defund),
            6 => Some(Kind::Cancel),
            _ => None,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Disbursement => "disbursement",
            Kind::Collection => "collection",
            Kind::Reversal => "reversal",
            Kind::Fund => "fund",
            Kind::Defund => "defund",
            Kind::Cancel => "cancel",
        }
    }
}

/// A lane of the settle side, most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// hongbao's own: funding, cancels. Never paced.
    Control = 0,
    Realtime = 1,
    /// Takes only what realtime leaves.
    Bulk = 2,
}

impl Lane {
    pub const ALL: [Lane; 3] = [Lane::Control, Lane::Realtime, Lane::Bulk];

    pub const fn from_u8(byte: u8) -> Option<Lane> {
        match byte {
            0 => Some(Lane::Control),
            1 => Some(Lane::Realtime),
            2 => Some(Lane::Bulk),
            _ => None,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Lane::Control => "control",
            Lane::Realtime => "realtime",
            Lane::Bulk => "bulk",
        }
    }

    pub fn parse(text: &str) -> Option<Lane> {
        match text {
            "realtime" => Some(Lane::Realtime),
            "bulk" => Some(Lane::Bulk),
            _ => None,
        }
    }
}

/// A request. Borrowed: either from the caller's strings on the way in, or from stored bytes on the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    pub kind: Kind,
    pub lane: Lane,
    /// Hash of the canonical money fields; see `crate::digest`.
    pub digest: [u8; 16],
    /// Hash of `client:id`; for a cancel, of the id it burns.
    pub key_hash: u64,
    pub amount: Amount,
    pub currency: Currency,
    pub accepted_at: UnixMs,
    pub not_before: UnixMs,
    pub not_after: UnixMs,
    pub client: &'a str,
    pub id: &'a str,
    pub campaign: &'a str,
    /// The payee of a disbursement, the payer of a collection.
    pub party: &'a str,
    pub merchant: &'a str,
    pub agreement: &'a str,
    /// The batch it came in, or empty.
    pub batch: &'a str,
    /// The id that a reversal or a cancel is about, or empty.
    pub original: &'a str,
    pub remark: &'a str,
    /// A JSON object as sent, or empty.
    pub metadata: &'a str,
}

/// The fields of an encoded request that are not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub kind: Kind,
    pub lane: Lane,
    pub digest: [u8; 16],
    pub key_hash: u64,
    pub amount: Amount,
    pub currency: Currency,
    pub accepted_at: UnixMs,
    pub not_before: UnixMs,
    pub not_after: UnixMs,
}

impl Head {
    /// Reads them from the request at the head of `bytes`; its text is not looked at.
    pub fn decode(bytes: &[u8]) -> Result<Head, EntryError> {
        Head::of(entry(bytes, TAG_REQUEST, HEADER_BYTES)?)
    }

    fn of(bytes: &[u8]) -> Result<Head, EntryError> {
        Ok(Head {
            kind: Kind::from_u8(bytes[6]).ok_or(EntryError::Field("kind"))?,
            lane: Lane::from_u8(bytes[7]).ok_or(EntryError::Field("lane"))?,
            digest: bytes[8..24].try_into().expect("sixteen bytes"),
            key_hash: u64_at(bytes, 24),
            amount: Amount::new(u64_at(bytes, 32)).ok_or(EntryError::Field("amount"))?,
            currency: Currency::from_bytes([bytes[64], bytes[65], bytes[66]])
                .ok_or(EntryError::Field("currency"))?,
            accepted_at: u64_at(bytes, 40),
            not_before: u64_at(bytes, 48),
            not_after: u64_at(bytes, 56),
        })
    }
}

impl<'a> Request<'a> {
    /// A request with its money fields set, unstamped, and everything optional left out.
    pub fn new(
        kind: Kind,
        client: &'a str,
        id: &'a str,
        campaign: &'a str,
        amount: Amount,
        currency: Currency,
    ) -> Self {
        Request {
            kind,
            lane: Lane::Realtime,
            digest: [0; 16],
            key_hash: 0,
            amount,
            currency,
            accepted_at: 0,
            not_before: 0,
            not_after: 0,
            client,
            id,
            campaign,
            party: "",
            merchant: "",
            agreement: "",
            batch: "",
            original: "",
            remark: "",
            metadata: "",
        }
    }

    fn strings(&self) -> [&'a str; 10] {
        [
            self.client,
            self.id,
            self.campaign,
            self.party,
            self.merchant,
            self.agreement,
            self.batch,
            self.original,
            self.remark,
            self.metadata,
        ]
    }

    pub fn encoded_len(&self) -> usize {
        padded(HEADER_BYTES + self.strings().iter().map(|s| s.len()).sum::<usize>())
    }

    /// Appends the stored form.
    ///
    /// # Panics
    /// If a string is longer than its bound: the door checks them before.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let length = self.encoded_len();
        let start = out.len();
        out.reserve(length);
        let mut header = [0u8; HEADER_BYTES];
        header[0..4].copy_from_slice(&(length as u32).to_le_bytes());
        header[4] = TAG_REQUEST;
        header[5] = VERSION;
        header[6] = self.kind as u8;
        header[7] = self.lane as u8;
        header[8..24].copy_from_slice(&self.digest);
        header[24..32].copy_from_slice(&self.key_hash.to_le_bytes());
        header[32..40].copy_from_slice(&self.amount.minor_units().to_le_bytes());
        header[40..48].copy_from_slice(&self.accepted_at.to_le_bytes());
        header[48..56].copy_from_slice(&self.not_before.to_le_bytes());
        header[56..64].copy_from_slice(&self.not_after.to_le_bytes());
        header[64..67].copy_from_slice(&self.currency.bytes());
        let strings = self.strings();
        for (position, text) in strings[..8].iter().enumerate() {
            header[67 + position] = u8::try_from(text.len()).expect("ids are bounded at the door");
        }
        for (position, text) in strings[8..].iter().enumerate() {
            let at = 76 + 2 * position;
            let length = u16::try_from(text.len()).expect("remark and metadata are bounded at the door");
            header[at..at + 2].copy_from_slice(&length.to_le_bytes());
        }
        out.extend_from_slice(&header);
        for text in strings {
            out.extend_from_slice(text.as_bytes());
        }
        out.resize(start + length, 0);
    }

    /// Reads the request at the head of `bytes`; what follows it is ignored.
    pub fn decode(bytes: &'a [u8]) -> Result<Request<'a>, EntryError> {
        let bytes = entry(bytes, TAG_REQUEST, HEADER_BYTES)?;
        let mut lengths = [0usize; 10];
        for (position, length) in lengths[..8].iter_mut().enumerate() {
            *length = usize::from(bytes[67 + position]);
        }
        for (position, length) in lengths[8..].iter_mut().enumerate() {
            let at = 76 + 2 * position;
            *length = usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        }
        let text = std::str::from_utf8(&bytes[HEADER_BYTES..]).map_err(|_| EntryError::Field("text"))?;
        let mut strings = [""; 10];
        let mut at = 0;
        for (string, length) in strings.iter_mut().zip(lengths) {
            *string = text.get(at..at + length).ok_or(EntryError::Truncated)?;
            at += length;
        }
        let [client, id, campaign, party, merchant, agreement, batch, original, remark, metadata] = strings;
        let Head { kind, lane, digest, key_hash, amount, currency, accepted_at, not_before, not_after } =
            Head::of(bytes)?;
        Ok(Request {
            kind,
            lane,
            digest,
            key_hash,
            amount,
            currency,
            accepted_at,
            not_before,
            not_after,
            client,
            id,
            campaign,
            party,
            merchant,
            agreement,
            batch,
            original,
            remark,
            metadata,
        })
    }
}

/// Writes what the door knows last into an encoded request: the moment of acceptance, the lane, and whether
/// its id is known by this record from now on.
///
/// # Panics
/// If `bytes` is not an encoded request.
pub fn set_acceptance(bytes: &mut [u8], accepted_at: UnixMs, lane: Lane, holds_id: bool) {
    assert_eq!(bytes[4], TAG_REQUEST, "only a request is accepted");
    bytes[7] = lane as u8;
    bytes[40..48].copy_from_slice(&accepted_at.to_le_bytes());
    bytes[75] = u8::from(holds_id);
}

/// Marks an encoded request as one whose caller chose no lane: it gets its campaign's. No caller can choose the
/// control lane, so it stands for that until the lane is known.
pub fn leave_lane_open(bytes: &mut [u8]) {
    bytes[7] = Lane::Control as u8;
}

/// The lane of an encoded request.
///
/// # Panics
/// If `bytes` is not an encoded request.
pub fn lane(bytes: &[u8]) -> Lane {
    Lane::from_u8(bytes[7]).expect("an encoded request names a lane")
}

/// Hash of the id of an encoded request.
pub fn key_hash(bytes: &[u8]) -> u64 {
    u64_at(bytes, 24)
}

/// What an encoded request is known by: the digest of its money fields and the hash of its id, side by side.
pub fn identity(bytes: &[u8]) -> &[u8] {
    &bytes[8..32]
}

/// Whether the id is known by this record. False only for a cancel of an id that another record holds.
pub fn holds_id(bytes: &[u8]) -> bool {
    bytes[75] == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Request<'static> {
        Request {
            kind: Kind::Disbursement,
            lane: Lane::Realtime,
            digest: [7; 16],
            key_hash: 0x0123_4567_89ab_cdef,
            amount: Amount::new(88).unwrap(),
            currency: Currency::parse("CNY").unwrap(),
            accepted_at: 1_700_000_000_000,
            not_before: 0,
            not_after: 5,
            client: "shop",
            id: "r-1",
            campaign: "spring",
            party: "ann",
            merchant: "",
            agreement: "",
            batch: "b",
            original: "",
            remark: "恭喜发财",
            metadata: "{\"a\":1}",
        }
    }

    #[test]
    fn comes_back_as_it_went() {
        let mut bytes = vec![9; 8];
        sample().encode(&mut bytes);
        assert_eq!(bytes.len() - 8, sample().encoded_len());
        assert_eq!(Request::decode(&bytes[8..]), Ok(sample()));
        let head = Head::decode(&bytes[8..]).unwrap();
        let Request { kind, lane, digest, key_hash, amount, currency, .. } = sample();
        let Request { accepted_at, not_before, not_after, .. } = sample();
        let expected =
            Head { kind, lane, digest, key_hash, amount, currency, accepted_at, not_before, not_after };
        assert_eq!(head, expected);
    }

    #[test]
    fn damage_is_refused_and_never_panics() {
        let mut bytes = Vec::new();
        sample().encode(&mut bytes);
        for cut in 0..bytes.len() {
            assert_eq!(Request::decode(&bytes[..cut]), Err(EntryError::Truncated), "cut at {cut}");
        }
        for (at, value, expected) in [
            (4, 2, EntryError::Tag { found: 2, expected: TAG_REQUEST }),
            (5, 9, EntryError::Version { tag: TAG_REQUEST, found: 9 }),
            (6, 0, EntryError::Field("kind")),
            (7, 3, EntryError::Field("lane")),
            (39, 0xff, EntryError::Field("amount")),
            (64, b'c', EntryError::Field("currency")),
            (77, 0xff, EntryError::Truncated),
        ] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            assert_eq!(Request::decode(&damaged), Err(expected), "byte {at}");
            // The lengths of the texts are no business of the head.
            let head = if at == 77 { None } else { Some(expected) };
            assert_eq!(Head::decode(&damaged).err(), head, "byte {at}");
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                let _ = Request::decode(&damaged);
            }
        }
    }
}
