//! An entry of the stream of decisions: a campaign as it is from there on, or a step of a move of funds.

use serde::{Deserialize, Serialize};

use crate::domain::{Campaign, Kind, Request, UnixMs};
use crate::intake::desk::campaigns::Definition;

const VERSION: u32 = 1;

/// Why an entry of the stream cannot be applied. Whoever meets one must decide nothing any more: its numbers would
/// not be those of the others.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    #[error("it has version {0}, and this release knows version {VERSION} only: run the newer release")]
    Version(u32),
    #[error("it is not valid: {0}")]
    Damaged(String),
}

/// What became of a promise to fund or defund.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Reserved,
    Done,
    Failed,
}

/// One move between a client's funding account and a campaign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Funding {
    pub client: String,
    pub campaign: String,
    pub id: String,
    /// Whether it takes money out of the campaign.
    pub is_defund: bool,
    /// Minor units.
    pub amount: u64,
    pub step: Step,
    pub at: UnixMs,
}

impl Funding {
    /// `None` for a request that moves no funds.
    pub fn of(request: &Request<'_>, now: UnixMs) -> Option<Funding> {
        let is_defund = match request.kind {
            Kind::Fund => false,
            Kind::Defund => true,
            Kind::Disbursement | Kind::Collection | Kind::Reversal | Kind::Cancel => return None,
        };
        Some(Funding {
            client: request.client.to_owned(),
            campaign: request.campaign.to_owned(),
            id: request.id.to_owned(),
            is_defund,
            amount: request.amount.minor_units(),
            step: Step::Reserved,
            at: now,
        })
    }

    pub(super) fn key(&self) -> String {
        key(&self.client, &self.id)
    }
}

pub(super) fn key(client: &str, id: &str) -> String {
    format!("{client}:{id}")
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// An entry of the stream: JSON.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    campaign: Option<Definition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    funding: Option<Funding>,
}

/// A decision on its way into the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Campaign(Box<Campaign>),
    Funding(Funding),
}

impl Entry {
    pub fn encode(&self) -> Vec<u8> {
        let stored = match self {
            Entry::Campaign(campaign) => {
                Stored { version: VERSION, campaign: Some(Definition::of(campaign)), funding: None }
            }
            Entry::Funding(funding) => {
                Stored { version: VERSION, campaign: None, funding: Some(funding.clone()) }
            }
        };
        serde_json::to_vec(&stored).expect("plain fields")
    }

    pub fn decode(bytes: &[u8]) -> Result<Entry, EntryError> {
        let damaged = |error: serde_json::Error| EntryError::Damaged(error.to_string());
        let Versioned { version } = serde_json::from_slice(bytes).map_err(damaged)?;
        if version != VERSION {
            return Err(EntryError::Version(version));
        }
        let stored: Stored = serde_json::from_slice(bytes).map_err(damaged)?;
        match (stored.campaign, stored.funding) {
            (Some(campaign), None) => {
                Ok(Entry::Campaign(Box::new(campaign.campaign().map_err(EntryError::Damaged)?)))
            }
            (None, Some(funding)) => Ok(Entry::Funding(funding)),
            _ => Err(EntryError::Damaged("neither a campaign nor funding".to_owned())),
        }
    }
}
