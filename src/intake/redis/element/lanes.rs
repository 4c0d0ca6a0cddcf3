//! The lane of a request that chose none: its campaign's, or realtime where the campaign is not known.

use std::collections::HashMap;
use std::sync::PoisonError;

use crate::domain::Lane;
use crate::intake::desk::campaigns::Registry;

/// The campaigns of one client, by id.
pub struct Lanes {
    client: String,
    registry: Registry,
    /// Campaigns of the registry that were looked at; their numbers never change.
    seen_count: usize,
    numbers: HashMap<String, usize>,
    /// Neighbours share a campaign.
    last: Option<(String, usize)>,
}

impl Lanes {
    pub fn new(client: String, registry: Registry) -> Lanes {
        Lanes { client, registry, seen_count: 0, numbers: HashMap::new(), last: None }
    }

    pub fn of(&mut self, campaign: &str) -> Lane {
        let campaigns = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        for (number, known) in campaigns.iter().enumerate().skip(self.seen_count) {
            if known.client == self.client {
                self.numbers.insert(known.id.clone(), number);
            }
        }
        self.seen_count = campaigns.len();
        let number = match &self.last {
            Some((id, number)) if id == campaign => Some(*number),
            _ => self.numbers.get(campaign).copied(),
        };
        let Some(number) = number else { return Lane::Realtime };
        if self.last.as_ref().is_none_or(|(_, last)| *last != number) {
            self.last = Some((campaign.to_owned(), number));
        }
        campaigns[number].lane
    }
}
