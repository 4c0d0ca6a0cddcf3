//! Which campaigns have requests in which stretch of the journal: what decides when a stretch, and the ids in
//! it, may be forgotten.
//!
//! An id is remembered until its campaign is closed and the retention has passed since; a closed campaign
//! refuses everything, so forgetting is safe. Stretches are given up from the front only: a campaign that stays
//! open keeps everything behind its first request.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::campaigns::Campaigns;
use crate::domain::{CampaignState, UnixMs};

/// Bytes of journal in one stretch: finer than a segment, so that no segment size is built in.
const SPAN_BYTES: u64 = 8 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Span {
    campaigns: Vec<u32>,
    last_accepted_at: UnixMs,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spans {
    spans: BTreeMap<u64, Span>,
}

impl Spans {
    pub fn accepted(&mut self, place: u64, campaign: Option<u32>, at: UnixMs) {
        let span = self.spans.entry(place / SPAN_BYTES).or_default();
        span.last_accepted_at = span.last_accepted_at.max(at);
        if let Some(number) = campaign
            && span.campaigns.last() != Some(&number)
            && !span.campaigns.contains(&number)
        {
            span.campaigns.push(number);
        }
    }

    /// The same for a frame of requests, which may be longer than what is left of its first stretch: what it
    /// says of the first holds the rest back as well.
    pub fn accepted_all(&mut self, place: u64, campaigns: &[u32], at: UnixMs) {
        self.accepted(place, None, at);
        campaigns.iter().for_each(|number| self.accepted(place, Some(*number), at));
    }

    /// Everything below this offset may be forgotten at `now`.
    pub fn retained_from(&self, campaigns: &Campaigns, now: UnixMs, retention_ms: u64) -> u64 {
        let is_over = |at: UnixMs| at.saturating_add(retention_ms) <= now;
        let is_closed = |number: &u32| {
            let campaign = &campaigns.get(*number).campaign;
            campaign.state == CampaignState::Closed && is_over(campaign.closed_at)
        };
        let first_kept = self
            .spans
            .iter()
            .find(|(_, span)| !is_over(span.last_accepted_at) || !span.campaigns.iter().all(is_closed));
        first_kept.map_or(u64::MAX, |(number, _)| number * SPAN_BYTES)
    }

    pub fn forget_below(&mut self, offset: u64) {
        self.spans.retain(|number, _| (number + 1) * SPAN_BYTES > offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Amount, Campaign, Currency};

    fn campaign(closed_at: UnixMs) -> Campaign {
        let (currency, budget) = (Currency::parse("CNY").unwrap(), Amount::new(1).unwrap());
        let state = if closed_at == 0 { CampaignState::Active } else { CampaignState::Closed };
        Campaign { state, closed_at, ..Campaign::new("s", &format!("c-{closed_at}"), currency, budget) }
    }

    #[test]
    fn a_stretch_is_kept_until_all_its_campaigns_are_closed_and_the_retention_has_passed() {
        let mut campaigns = Campaigns::default();
        campaigns.define(0, campaign(100));
        campaigns.define(1, campaign(200));
        campaigns.define(2, campaign(0));
        let mut spans = Spans::default();
        spans.accepted(0, Some(0), 50);
        spans.accepted_all(SPAN_BYTES, &[0, 1], 60);
        spans.accepted(2 * SPAN_BYTES, Some(2), 70);
        // now, retention, expected
        let table = [
            (100, 10, 0),
            (110, 10, 1),
            (209, 10, 1),
            (210, 10, 2),
            (9_999, 10, 2),
            (55, 0, 0),
            (9_999, 9_950, 0),
        ];
        for (now, retention_ms, stretches) in table {
            let from = spans.retained_from(&campaigns, now, retention_ms);
            assert_eq!(from, stretches * SPAN_BYTES, "at {now} with {retention_ms}");
        }
        spans.forget_below(2 * SPAN_BYTES);
        assert_eq!(spans.spans.len(), 1);
        spans.forget_below(3 * SPAN_BYTES);
        assert_eq!(spans.retained_from(&campaigns, 0, 0), u64::MAX);
    }
}
