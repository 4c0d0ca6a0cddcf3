//! The stored form of what the embedded intake knows besides the requests themselves.
//!
//! Frames: [`FRAME_ACCEPT`] holds one section head (tag 6) and the requests of that section (tag 1), all of
//! one queue; [`FRAME_ACK`] holds acks (tag 5); [`FRAME_CONTROL`] holds campaigns (tag 8) and batches (tag 7).
//!
//! | entry | fields after length, tag, version |
//! |---|---|
//! | section (tag 6), 24 bytes | 6 lane · 7 fair queue · 8..16 index of its first request in the queue · 16..20 number of requests · 20..24 zero |
//! | ack (tag 5), 16 bytes | 6 lane · 7 fair queue · 8..16 index below which all is done |
//! | batch (tag 7) | 8..24 digest · 24..32 key hash · 32..36 count · 36..40 zero · 40..48 amount · 48..56 accepted at · 56..59 currency · 59, 60, 61 lengths of client, id, campaign · 64.. those strings |
//! | campaign (tag 8) | 8..12 number · 12..16 length of the JSON · 16.. the definition as JSON |

use crate::domain::bytes::{
    EntryError, TAG_ACK, TAG_BATCH, TAG_CAMPAIGN, TAG_SECTION, entry, padded, u32_at, u64_at,
};
use crate::domain::{Currency, Lane, UnixMs};
use crate::intake::QueueId;

pub const FRAME_ACCEPT: u8 = 16;
pub const FRAME_ACK: u8 = 19;
pub const FRAME_CONTROL: u8 = 20;

pub const SECTION_BYTES: usize = 24;
const BATCH_HEADER_BYTES: usize = 64;
const CAMPAIGN_HEADER_BYTES: usize = 16;

fn queue_at(bytes: &[u8]) -> Result<QueueId, EntryError> {
    Ok(QueueId { lane: Lane::from_u8(bytes[6]).ok_or(EntryError::Field("lane"))?, fair: bytes[7] })
}

fn head(out: &mut Vec<u8>, length: usize, tag: u8, lane: u8, fair: u8) {
    out.extend_from_slice(&(length as u32).to_le_bytes());
    out.extend_from_slice(&[tag, 1, lane, fair]);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    pub queue: QueueId,
    pub first_index: u64,
    pub count: u32,
}

impl Section {
    pub fn encode(&self, out: &mut Vec<u8>) {
        head(out, SECTION_BYTES, TAG_SECTION, self.queue.lane as u8, self.queue.fair);
        out.extend_from_slice(&self.first_index.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
    }

    pub fn decode(bytes: &[u8]) -> Result<Section, EntryError> {
        let bytes = entry(bytes, TAG_SECTION, SECTION_BYTES)?;
        Ok(Section { queue: queue_at(bytes)?, first_index: u64_at(bytes, 8), count: u32_at(bytes, 16) })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    pub queue: QueueId,
    pub below_index: u64,
}

impl Ack {
    pub fn encode(&self, out: &mut Vec<u8>) {
        head(out, 16, TAG_ACK, self.queue.lane as u8, self.queue.fair);
        out.extend_from_slice(&self.below_index.to_le_bytes());
    }

    pub fn decode(bytes: &[u8]) -> Result<Ack, EntryError> {
        let bytes = entry(bytes, TAG_ACK, 16)?;
        Ok(Ack { queue: queue_at(bytes)?, below_index: u64_at(bytes, 8) })
    }
}

/// A batch as it was accepted: what its repeat is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    pub digest: [u8; 16],
    pub key_hash: u64,
    pub count: u32,
    pub amount: u64,
    pub accepted_at: UnixMs,
    pub currency: Currency,
    pub client: &'a str,
    pub id: &'a str,
    pub campaign: &'a str,
}

impl<'a> Batch<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let strings = [self.client, self.id, self.campaign];
        let length = padded(BATCH_HEADER_BYTES + strings.iter().map(|s| s.len()).sum::<usize>());
        let start = out.len();
        head(out, length, TAG_BATCH, 0, 0);
        out.extend_from_slice(&self.digest);
        out.extend_from_slice(&self.key_hash.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.amount.to_le_bytes());
        out.extend_from_slice(&self.accepted_at.to_le_bytes());
        out.extend_from_slice(&self.currency.bytes());
        for text in strings {
            out.push(u8::try_from(text.len()).expect("ids are bounded at the door"));
        }
        out.extend_from_slice(&[0; 2]);
        for text in strings {
            out.extend_from_slice(text.as_bytes());
        }
        out.resize(start + length, 0);
    }

    pub fn decode(bytes: &'a [u8]) -> Result<Batch<'a>, EntryError> {
        let bytes = entry(bytes, TAG_BATCH, BATCH_HEADER_BYTES)?;
        let text =
            std::str::from_utf8(&bytes[BATCH_HEADER_BYTES..]).map_err(|_| EntryError::Field("text"))?;
        let mut strings = [""; 3];
        let mut at = 0;
        for (position, string) in strings.iter_mut().enumerate() {
            let length = usize::from(bytes[59 + position]);
            *string = text.get(at..at + length).ok_or(EntryError::Truncated)?;
            at += length;
        }
        Ok(Batch {
            digest: bytes[8..24].try_into().expect("sixteen bytes"),
            key_hash: u64_at(bytes, 24),
            count: u32_at(bytes, 32),
            amount: u64_at(bytes, 40),
            accepted_at: u64_at(bytes, 48),
            currency: Currency::from_bytes([bytes[56], bytes[57], bytes[58]])
                .ok_or(EntryError::Field("currency"))?,
            client: strings[0],
            id: strings[1],
            campaign: strings[2],
        })
    }
}

/// Appends a campaign's definition; `json` is what [`campaign_json`] gives back.
pub fn encode_campaign(out: &mut Vec<u8>, number: u32, json: &[u8]) {
    let length = padded(CAMPAIGN_HEADER_BYTES + json.len());
    let start = out.len();
    head(out, length, TAG_CAMPAIGN, 0, 0);
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&(json.len() as u32).to_le_bytes());
    out.extend_from_slice(json);
    out.resize(start + length, 0);
}

/// Number and JSON of a stored campaign.
pub fn campaign_json(bytes: &[u8]) -> Result<(u32, &[u8]), EntryError> {
    let bytes = entry(bytes, TAG_CAMPAIGN, CAMPAIGN_HEADER_BYTES)?;
    let end = CAMPAIGN_HEADER_BYTES + u32_at(bytes, 12) as usize;
    Ok((u32_at(bytes, 8), bytes.get(CAMPAIGN_HEADER_BYTES..end).ok_or(EntryError::Truncated)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn come_back_as_they_went() {
        let queue = QueueId { lane: Lane::Bulk, fair: 3 };
        let section = Section { queue, first_index: 10, count: 2 };
        let ack = Ack { queue, below_index: 12 };
        let batch = Batch {
            digest: [1; 16],
            key_hash: 2,
            count: 3,
            amount: 4,
            accepted_at: 5,
            currency: Currency::parse("CNY").unwrap(),
            client: "s",
            id: "b",
            campaign: "c",
        };
        let mut bytes = Vec::new();
        section.encode(&mut bytes);
        assert_eq!(Section::decode(&bytes), Ok(section));
        bytes.clear();
        ack.encode(&mut bytes);
        assert_eq!(Ack::decode(&bytes), Ok(ack));
        bytes.clear();
        batch.encode(&mut bytes);
        assert_eq!(Batch::decode(&bytes), Ok(batch));
        bytes.clear();
        encode_campaign(&mut bytes, 7, b"{}");
        assert_eq!(campaign_json(&bytes), Ok((7, &b"{}"[..])));
        assert_eq!(campaign_json(&bytes[..8]), Err(EntryError::Truncated));
    }
}
