//! The lane of a request that chose none: its campaign's, or realtime where the campaign is not known.

use std::collections::HashMap;
use std::sync::PoisonError;

use crate::domain::{Lane, UnixMs};
use crate::intake::desk::campaigns::Registry;

struct Known {
    campaign: String,
    lane: Lane,
    at: UnixMs,
}

/// The campaigns of one client, by id.
pub struct Lanes {
    client: String,
    registry: Registry,
    /// Campaigns of the registry that were looked at; their numbers never change.
    seen_count: usize,
    numbers: HashMap<String, usize>,
    /// Neighbours share a campaign: the last one's lane, as it was then.
    last: Option<Known>,
}

impl Lanes {
    pub fn new(client: String, registry: Registry) -> Lanes {
        Lanes { client, registry, seen_count: 0, numbers: HashMap::new(), last: None }
    }

    /// As the registry has it now; asked once for neighbours that were read in the same millisecond.
    pub fn of(&mut self, campaign: &str, now: UnixMs) -> Lane {
        if let Some(known) = &self.last
            && known.at == now
            && known.campaign == campaign
        {
            return known.lane;
        }
        let campaigns = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        for (number, known) in campaigns.iter().enumerate().skip(self.seen_count) {
            if known.client == self.client {
                self.numbers.insert(known.id.clone(), number);
            }
        }
        self.seen_count = campaigns.len();
        let Some(number) = self.numbers.get(campaign).copied() else { return Lane::Realtime };
        let lane = campaigns[number].lane;
        match &mut self.last {
            Some(known) if known.campaign == campaign => (known.lane, known.at) = (lane, now),
            last => *last = Some(Known { campaign: campaign.to_owned(), lane, at: now }),
        }
        lane
    }
}
