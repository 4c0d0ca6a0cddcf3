//! The desk's state in a snapshot: campaigns with their totals, what is parked, what was taken back, and the
//! queues. The ids are saved apart, as the changes since the last snapshot.

use serde::{Deserialize, Serialize};

use super::campaigns::SavedCampaign;
use super::decide::Clerk;
use super::memory::Memory;
use super::spans::Spans;
use crate::domain::{Kind, Lane, WaitReason};
use crate::intake::IntakeError;
use crate::intake::embedded::Restoring;
use crate::intake::embedded::parking::Parked;
use crate::journal::index::Changes;

/// The desk's state at one moment. It is consistent with the journal once that has synced to `written_end`.
pub struct DeskCheckpoint {
    pub state: Vec<u8>,
    pub queues: Vec<u8>,
    pub changes: Changes,
    pub written_end: u64,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    campaigns: Vec<SavedCampaign>,
    parked: Vec<SavedParked>,
    reversed: Vec<(u64, u64)>,
    spans: Spans,
}

#[derive(Serialize, Deserialize)]
struct SavedParked {
    request_place: u64,
    entry_place: u64,
    due: u64,
    since: u64,
    reason: u8,
    attempts: u32,
    campaign_number: u32,
    /// Since version 2.
    #[serde(default)]
    lane: Option<u8>,
}

/// Version 1 does not say the lane of what is parked.
const VERSION: u32 = 2;
const VERSION_OLDEST: u32 = 1;

impl Clerk {
    pub fn checkpoint(&mut self) -> Result<DeskCheckpoint, IntakeError> {
        if let Some(reason) = self.stopped() {
            return Err(IntakeError::Stopped(reason.to_owned()));
        }
        let parked = self
            .memory
            .parking()
            .iter()
            .map(|parked| SavedParked {
                request_place: parked.request_place,
                entry_place: parked.entry_place,
                due: parked.due,
                since: parked.since,
                reason: parked.reason as u8,
                attempts: parked.attempts,
                campaign_number: parked.campaign_number,
                lane: Some(parked.queue.lane as u8),
            })
            .collect();
        let saved = Saved {
            version: VERSION,
            campaigns: self.memory.campaigns.save(),
            parked,
            spans: self.memory.spans.clone(),
            reversed: self.memory.reversed.iter().map(|(place, amount)| (*place, *amount)).collect(),
        };
        let state = serde_json::to_vec(&saved).expect("plain fields");
        Ok(DeskCheckpoint {
            state,
            queues: self.intake.snapshot(),
            changes: self.memory.index.take_changes(),
            written_end: self.written_end,
        })
    }
}

/// Restores what [`Clerk::checkpoint`] saved, but for the ids.
pub fn restore(
    memory: &mut Memory,
    queues: &mut Restoring,
    state: &[u8],
    queue_state: &[u8],
) -> Result<(), IntakeError> {
    let damaged =
        |reason: String| IntakeError::Damaged { place: 0, reason: format!("snapshot of the desk: {reason}") };
    let saved: Saved = serde_json::from_slice(state).map_err(|error| damaged(error.to_string()))?;
    if !(VERSION_OLDEST..=VERSION).contains(&saved.version) {
        return Err(damaged(format!("version {} is unknown to this release", saved.version)));
    }
    memory.campaigns.restore(saved.campaigns).map_err(damaged)?;
    memory.spans = saved.spans;
    memory.reversed = saved.reversed.into_iter().collect();
    for parked in saved.parked {
        let reason = WaitReason::from_u8(parked.reason).ok_or_else(|| damaged("a wait reason".to_owned()))?;
        let lane = parked.lane.and_then(Lane::from_u8);
        let queue = memory.queue_of(parked.campaign_number, Kind::Disbursement, lane);
        memory.parking().park(Parked {
            request_place: parked.request_place,
            entry_place: parked.entry_place,
            due: parked.due,
            since: parked.since,
            reason,
            attempts: parked.attempts,
            campaign_number: parked.campaign_number,
            queue,
        });
    }
    queues.restore(queue_state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Amount, Campaign, Currency, UnixMs};
    use crate::intake::QueueId;

    #[test]
    fn what_is_parked_comes_back_from_this_version_and_the_one_before() {
        let mut memory = Memory { fair_queue_count: 8, ..Memory::default() };
        let currency = Currency::parse("CNY").unwrap();
        let campaign = Campaign::new("shop", "c", currency, Amount::new(9).unwrap());
        memory.campaigns.define(0, Campaign { lane: Lane::Bulk, ..campaign });
        let lane = Some(Lane::Realtime as u8);
        let (due, since): (UnixMs, UnixMs) = (70, 60);
        let (reason, attempts, campaign_number) = (WaitReason::LowBalance as u8, 5, 0);
        let (request_place, entry_place) = (8, 16);
        let parked =
            SavedParked { request_place, entry_place, due, since, reason, attempts, campaign_number, lane };
        let saved = Saved {
            version: VERSION,
            campaigns: memory.campaigns.save(),
            parked: vec![parked],
            reversed: Vec::new(),
            spans: Spans::default(),
        };
        let this = serde_json::to_value(&saved).unwrap();
        let mut before = this.clone();
        before["version"] = 1.into();
        before["parked"][0].as_object_mut().unwrap().remove("lane");
        let mut next = this.clone();
        next["version"] = (VERSION + 1).into();
        // Before the lane was kept, it was as a rule the campaign's own.
        for (state, expected) in [(this, Some(Lane::Realtime)), (before, Some(Lane::Bulk)), (next, None)] {
            let mut memory = Memory { fair_queue_count: 8, ..Memory::default() };
            let mut queues = Restoring::new(1);
            let mut queue_state = 3u64.to_le_bytes().to_vec();
            queue_state.resize(8 + 3 * 32, 0);
            let state = state.to_string();
            let restored = restore(&mut memory, &mut queues, state.as_bytes(), &queue_state);
            assert_eq!(restored.is_ok(), expected.is_some(), "{restored:?}");
            let parking = memory.parking();
            let queue = expected.map(|lane| QueueId::of(lane, "c", 8));
            assert_eq!(parking.get(8).map(|parked| parked.queue), queue);
            assert_eq!(parking.get(8).map(|p| (p.due, p.since, p.attempts)), expected.map(|_| (70, 60, 5)));
        }
    }
}
