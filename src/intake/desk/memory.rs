//! What the desk remembers, as a function of the journal's frames: ids, campaigns with their totals, what is
//! parked, what was taken back.
//!
//! The desk's thread applies a frame right after it was written; a restart applies the same frames to the
//! last snapshot. Both go through here, and applying a frame twice changes nothing the second time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::campaigns::{Campaigns, Definition};
use super::spans::Spans;
use crate::domain::bytes::{EntryError, TAG_BATCH, TAG_CAMPAIGN, entries};
use crate::domain::{CampaignState, Kind, Lane, Outcome, Request, Status, UnixMs, WaitReason, record};
use crate::intake::QueueId;
use crate::intake::embedded::entry::{Batch, campaign_json};
use crate::intake::embedded::parking::{Parked, Parking};
use crate::journal::index::PlaceIndex;

/// An outcome that is durable, as the desk takes it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettledRow {
    pub key_hash: u64,
    pub request_place: u64,
    pub follows_place: u64,
    pub outcome_place: u64,
    pub status: Status,
    pub kind: Kind,
    pub lane: Option<Lane>,
    pub campaign_number: u32,
    pub amount: u64,
    pub reason: Option<WaitReason>,
    pub at: UnixMs,
    pub next_attempt_at: UnixMs,
    pub attempts: u32,
}

impl SettledRow {
    pub fn new(outcome: &Outcome<'_>, outcome_place: u64) -> SettledRow {
        SettledRow {
            key_hash: outcome.key_hash,
            request_place: outcome.request_place,
            follows_place: outcome.follows_place,
            outcome_place,
            status: outcome.status,
            kind: outcome.kind,
            lane: outcome.lane,
            campaign_number: outcome.campaign_number,
            amount: outcome.amount,
            reason: outcome.reason,
            at: outcome.at,
            next_attempt_at: outcome.next_attempt_at,
            attempts: outcome.attempts,
        }
    }
}

#[derive(Default)]
pub struct Memory {
    pub fair_queue_count: u8,
    pub campaigns: Campaigns,
    pub index: PlaceIndex,
    pub parking: Arc<Mutex<Parking>>,
    /// How much of a request was taken back, by its place.
    pub reversed: HashMap<u64, u64>,
    pub spans: Spans,
    /// Rows that call for more than a count: the desk looks up their request and acts.
    pub deferred: VecDeque<SettledRow>,
}

impl Memory {
    /// An encoded request now stands at `place`.
    pub fn accepted(&mut self, place: u64, bytes: &[u8]) -> Result<(), EntryError> {
        let request = Request::decode(bytes)?;
        if record::holds_id(bytes) {
            self.index.insert(request.key_hash, place);
        }
        let number = self.campaigns.number(request.client, request.campaign);
        if let Some(number) = number {
            self.campaigns.accepted(number, &request);
        }
        self.spans.accepted(place, number, request.accepted_at);
        Ok(())
    }

    /// A control frame's payload now stands at `payload_at`.
    pub fn control(&mut self, payload_at: u64, payload: &[u8]) -> Result<(), String> {
        for item in entries(payload) {
            let (at, tag, bytes) = item.map_err(|error| error.to_string())?;
            match tag {
                TAG_CAMPAIGN => {
                    let (number, json) = campaign_json(bytes).map_err(|error| error.to_string())?;
                    if number as usize > self.campaigns.len() {
                        return Err(format!("campaign number {number} comes out of turn"));
                    }
                    let definition: Definition =
                        serde_json::from_slice(json).map_err(|error| error.to_string())?;
                    self.campaigns.define(number, definition.campaign()?);
                    self.campaigns.publish(number);
                    self.release_waiting(number);
                }
                TAG_BATCH => {
                    let batch = Batch::decode(bytes).map_err(|error| error.to_string())?;
                    self.index.insert(batch.key_hash, payload_at + at as u64);
                }
                other => return Err(format!("entry tag {other} has no place in a control frame")),
            }
        }
        Ok(())
    }

    /// What waits for a campaign is looked at again when it is resumed or closed.
    fn release_waiting(&self, number: u32) {
        let reasons: &[WaitReason] = match self.campaigns.get(number).campaign.state {
            CampaignState::Active => &[WaitReason::CampaignPaused],
            CampaignState::Closed => &WaitReason::ALL,
            CampaignState::Paused => &[],
        };
        for reason in reasons {
            self.parking().release(*reason, number);
        }
    }

    /// An outcome became durable; true if it is news.
    pub fn settled(&mut self, row: &SettledRow) -> bool {
        let news = self.index.replace(row.key_hash, row.follows_place, row.outcome_place);
        if row.kind == Kind::Cancel && row.status == Status::Succeeded {
            // A cancel of an id that another request holds is not in the index itself.
            self.deferred.push_back(*row);
        }
        if row.kind == Kind::Cancel {
            // For the same reason: it waits, or is done waiting, whatever the index says.
            if row.status.is_final() {
                self.parking().remove(row.request_place);
            } else {
                self.park(row);
            }
        }
        if !news {
            return false;
        }
        let was_parked = row.follows_place != row.request_place;
        if row.status.is_final() {
            self.campaigns.settled(row.campaign_number, row.kind, row.status, row.amount);
            if was_parked {
                self.parking().remove(row.request_place);
            }
            let pays = matches!(row.kind, Kind::Disbursement | Kind::Collection);
            let failed = pays && !matches!(row.status, Status::Succeeded | Status::Reversed);
            let reversal = row.kind == Kind::Reversal && row.status == Status::Succeeded;
            if reversal || (failed && self.campaigns.limits_payees(row.campaign_number)) {
                self.deferred.push_back(*row);
            }
            if row.kind == Kind::Fund && row.status == Status::Succeeded {
                self.parking().release(WaitReason::LowBalance, row.campaign_number);
            }
        } else if matches!(row.status, Status::Queued | Status::Unknown) {
            self.park(row);
        }
        true
    }

    /// An unknown outcome is settled by sending the same again.
    fn park(&self, row: &SettledRow) {
        let reason = row.reason.unwrap_or(WaitReason::NoAnswer);
        self.parking().park(Parked {
            request_place: row.request_place,
            entry_place: row.outcome_place,
            due: row.next_attempt_at,
            since: row.at,
            reason,
            attempts: row.attempts,
            campaign_number: row.campaign_number,
            queue: self.queue_of(row.campaign_number, row.kind, row.lane),
        });
    }

    /// The queue that a request came from. Outcomes of older releases do not say the lane: as a rule it is the
    /// campaign's own.
    pub fn queue_of(&self, campaign_number: u32, kind: Kind, lane: Option<Lane>) -> QueueId {
        let campaign = self.campaigns.find(campaign_number);
        let lane = lane.unwrap_or(match (kind, campaign) {
            (Kind::Cancel | Kind::Fund | Kind::Defund, _) | (_, None) => Lane::Control,
            (Kind::Disbursement | Kind::Collection | Kind::Reversal, Some(campaign)) => campaign.lane,
        });
        QueueId::of(lane, campaign.map_or("", |campaign| &campaign.id), self.fair_queue_count)
    }

    pub fn parking(&self) -> std::sync::MutexGuard<'_, Parking> {
        self.parking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
