//! An entry of the stream of decisions: a campaign as it is from there on, a step of a move of funds, or all of what the
//! entries before it came to.
//!
//! The last, a fold, has a version of its own, so that a release that does not know it stops there, and does not take what
//! is behind it for everything.

use serde::{Deserialize, Serialize};

use crate::domain::{Campaign, Kind, Request, UnixMs};
use crate::intake::desk::campaigns::Definition;

const VERSION: u32 = 1;
const VERSION_FOLD: u32 = 2;

/// Why an entry of the stream cannot be applied. Whoever meets one must decide nothing any more: its numbers would
/// not be those of the others.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    #[error(
        "it has version {0}, and this release knows versions up to {VERSION_FOLD}: run the newer release"
    )]
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

#[derive(Serialize, Deserialize)]
struct StoredFold {
    version: u32,
    through: String,
    campaigns: Vec<Definition>,
    fundings: Vec<Funding>,
}

/// What the entries before it came to, for whoever begins here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fold {
    /// The last entry that is in it.
    pub through: String,
    /// By number.
    pub campaigns: Vec<Campaign>,
    /// Each as it stands last.
    pub fundings: Vec<Funding>,
}

/// A decision on its way into the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Campaign(Box<Campaign>),
    Funding(Funding),
    Fold(Box<Fold>),
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
            Entry::Fold(fold) => {
                let Fold { through, campaigns, fundings } = &**fold;
                let stored = StoredFold {
                    version: VERSION_FOLD,
                    through: through.clone(),
                    campaigns: campaigns.iter().map(Definition::of).collect(),
                    fundings: fundings.clone(),
                };
                return serde_json::to_vec(&stored).expect("plain fields");
            }
        };
        serde_json::to_vec(&stored).expect("plain fields")
    }

    pub fn decode(bytes: &[u8]) -> Result<Entry, EntryError> {
        let damaged = |error: serde_json::Error| EntryError::Damaged(error.to_string());
        let Versioned { version } = serde_json::from_slice(bytes).map_err(damaged)?;
        match version {
            VERSION => {}
            VERSION_FOLD => {
                let stored: StoredFold = serde_json::from_slice(bytes).map_err(damaged)?;
                let campaigns = stored.campaigns.into_iter().map(Definition::campaign);
                let campaigns = campaigns.collect::<Result<_, _>>().map_err(EntryError::Damaged)?;
                let StoredFold { through, fundings, .. } = stored;
                return Ok(Entry::Fold(Box::new(Fold { through, campaigns, fundings })));
            }
            other => return Err(EntryError::Version(other)),
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
