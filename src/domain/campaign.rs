//! A campaign: whose money it is, how much of it, to whom and when. Its currency never changes; its id is
//! never used again.
//!
//! The books of a campaign (funded, reserved, spent, counts) move only with transitions of its requests.

use super::record::Lane;
use super::{Amount, Currency, Status, UnixMs};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CampaignState {
    Active,
    /// Takes no new requests; what was accepted waits.
    Paused,
    /// Refuses everything, at the door and at settlement, for good.
    Closed,
}

impl CampaignState {
    pub const fn as_str(self) -> &'static str {
        match self {
            CampaignState::Active => "active",
            CampaignState::Paused => "paused",
            CampaignState::Closed => "closed",
        }
    }

    pub fn parse(text: &str) -> Option<CampaignState> {
        match text {
            "active" => Some(CampaignState::Active),
            "paused" => Some(CampaignState::Paused),
            "closed" => Some(CampaignState::Closed),
            _ => None,
        }
    }
}

/// The definition of a campaign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Campaign {
    pub client: String,
    pub id: String,
    pub currency: Currency,
    /// The most that may be moved under it.
    pub budget: Amount,
    /// The most one request may move.
    pub amount_max: Option<Amount>,
    /// The most payouts one payee may get.
    pub per_payee_count: Option<u32>,
    /// The most one payee may get in all.
    pub per_payee_amount: Option<Amount>,
    pub starts_at: UnixMs,
    pub ends_at: UnixMs,
    /// Where its requests go unless they say otherwise.
    pub lane: Lane,
    pub state: CampaignState,
    /// Funded up to its budget: what its account lacks then, no funding will bring. Known where the budget is not
    /// decided at the door; otherwise always false.
    pub is_funded_whole: bool,
    pub created_at: UnixMs,
    pub updated_at: UnixMs,
    pub closed_at: UnixMs,
}

impl Campaign {
    /// An active campaign without limits, paying from the realtime lane at any time.
    pub fn new(client: &str, id: &str, currency: Currency, budget: Amount) -> Campaign {
        Campaign {
            client: client.to_owned(),
            id: id.to_owned(),
            currency,
            budget,
            amount_max: None,
            per_payee_count: None,
            per_payee_amount: None,
            starts_at: 0,
            ends_at: 0,
            lane: Lane::Realtime,
            state: CampaignState::Active,
            is_funded_whole: false,
            created_at: 0,
            updated_at: 0,
            closed_at: 0,
        }
    }
}

/// The running totals of a campaign, in minor units and counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub funded: u64,
    /// Funding accepted and not final.
    pub funding_pending: u64,
    /// Accepted and not final.
    pub reserved: u64,
    /// Paid less what was reversed.
    pub spent: u64,
    /// What left the campaign's account: disbursements paid, less what was reversed of them.
    pub paid_out: u64,
    /// Requests and amounts by state, indexed by `Status as usize - 1`.
    pub count: [u64; Status::ALL.len()],
    pub amount: [u64; Status::ALL.len()],
}

impl Books {
    /// What may still be accepted under `budget`.
    pub fn left(&self, budget: Amount) -> u64 {
        budget.minor_units().saturating_sub(self.spent).saturating_sub(self.reserved)
    }
}
