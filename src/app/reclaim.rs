//! Gives up the front of the journal once nobody needs it: all campaigns with requests there are closed and
//! past their retention, everything there is settled, the view has read it, and a snapshot stands behind it.
//!
//! Before a segment goes, what an audit needs of it is written down: the totals of all accounts at the new
//! front, the campaigns, the queues' positions, and how much was removed. They are computed from the frames
//! that go, not from the running ledger. Order: that base, then forgetting, then the segments.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::checkpoint::CheckpointError;
use crate::domain::bytes::{TAG_OUTCOME, TAG_REQUEST, entries};
use crate::domain::{Kind, Outcome, Status};
use crate::intake::desk::Desk;
use crate::intake::embedded::entry::{Ack, FRAME_ACCEPT, FRAME_ACK, FRAME_CONTROL, Section, campaign_json};
use crate::journal::snapshot::{list_blobs, read_blob, remove_blob, write_blob};
use crate::journal::{Journal, OwnedFrame, Storage};
use crate::outcome::entry::FRAME_OUTCOMES;
use crate::outcome::view::ViewHandle;
use crate::stored_value::ledger::Ledger;
use crate::stored_value::ledger::entry::FRAME_TRANSFERS;
use crate::stored_value::ledger::state::State;

const BLOB: &str = "audit-";

/// The stand-in for the front that is gone, as the audit reads it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Base {
    offset: u64,
    sequence: u64,
    prev: String,
    accounts: Vec<AccountBase>,
    campaigns: Vec<serde_json::Value>,
    queues: Vec<QueueBase>,
    removed: Removed,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct AccountBase {
    number: u32,
    name: String,
    currency: String,
    debits: u64,
    credits: u64,
    held: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct QueueBase {
    lane: u8,
    fair: u8,
    accepted: u64,
    acked: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Removed {
    requests: u64,
    #[serde(rename = "final")]
    finished: u64,
    amount_succeeded: u64,
}

pub struct Reclaimer {
    pub storage: Arc<dyn Storage>,
    pub journal: Journal,
    pub desk: Desk,
    pub ledger: Arc<Ledger>,
    pub view: Option<Arc<ViewHandle>>,
    pub segment_bytes: u64,
    pub retention_ms: u64,
}

impl Reclaimer {
    /// Gives up what may go, below a snapshot at `snapshot_offset`; answers the segments given up.
    pub fn run(&self, snapshot_offset: u64) -> Result<u64, CheckpointError> {
        self.finish_earlier()?;
        let Some(retained) = self.desk.retained_from(self.retention_ms) else { return Ok(0) };
        let read_to = self.view.as_ref().map_or(u64::MAX, |view| view.health().progress.cursor);
        let limit = retained.min(snapshot_offset).min(read_to);
        let segment = limit / self.segment_bytes;
        let front = segment * self.segment_bytes;
        if front <= self.journal.begins_at() {
            return Ok(0);
        }
        let base = self.advance(front)?;
        let name = format!("{BLOB}{segment:016x}");
        let body = serde_json::to_vec(&base).expect("plain fields");
        write_blob(&*self.storage, &name, &body)?;
        self.ledger.forget_below(front)?;
        if !self.desk.forget_below(front) {
            return Ok(0);
        }
        let count = self.journal.reclaim_before(front)?;
        for old in list_blobs(&*self.storage)? {
            if old.starts_with(BLOB) && old != name {
                remove_blob(&*self.storage, &old)?;
            }
        }
        tracing::info!(segments = count, front, "gave up journal that nobody needs any more");
        Ok(count)
    }

    /// A crash may have left segments in front of a base that was written for their end.
    fn finish_earlier(&self) -> Result<(), CheckpointError> {
        let names = list_blobs(&*self.storage)?;
        let segments = names.iter().filter_map(|name| u64::from_str_radix(name.strip_prefix(BLOB)?, 16).ok());
        if let Some(segment) = segments.max() {
            let front = segment * self.segment_bytes;
            if front > self.journal.begins_at() {
                self.ledger.forget_below(front)?;
                if self.desk.forget_below(front) {
                    self.journal.reclaim_before(front)?;
                }
            }
        }
        Ok(())
    }

    /// The base at `front`: the one before, and what the frames up to there add.
    fn advance(&self, front: u64) -> Result<Base, CheckpointError> {
        let begins_at = self.journal.begins_at();
        let name = format!("{BLOB}{:016x}", begins_at / self.segment_bytes);
        let before = read_blob(&*self.storage, &name)?;
        let damaged = |reason: String| CheckpointError::Damaged { name: name.clone(), reason };
        let base: Base = match before {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?,
            None if begins_at == 0 => Base::default(),
            None => return Err(damaged("it is missing, so nothing more is given up".to_owned())),
        };
        let mut sums = Sums::of(&base).map_err(damaged)?;
        let mut reader = self.journal.reader(begins_at);
        while let Some(frame) = reader.next()? {
            if frame.offset >= front {
                break;
            }
            sums.add(&frame).map_err(|reason| CheckpointError::Damaged {
                name: format!("frame at {}", frame.offset),
                reason,
            })?;
        }
        let first = self.first_link(front)?;
        Ok(sums.into_base(front, first))
    }

    /// Sequence of the first frame kept, and the hash of the one before it.
    fn first_link(&self, front: u64) -> Result<(u64, [u8; 32]), CheckpointError> {
        let missing = || CheckpointError::Damaged {
            name: format!("frame at {front}"),
            reason: "no frame begins at the new front".to_owned(),
        };
        let kept = self.journal.frame_at(front)?.ok_or_else(missing)?;
        let mut header = [0u8; 96];
        let got = self.journal.read_at(front, &mut header)?;
        if got < header.len() {
            return Err(missing());
        }
        let prev: [u8; 32] = header[48..80].try_into().expect("thirty-two bytes");
        Ok((kept.sequence, prev))
    }
}

/// The base while it grows.
struct Sums {
    ledger: State,
    campaigns: BTreeMap<u32, serde_json::Value>,
    queues: BTreeMap<(u8, u8), (u64, u64)>,
    removed: Removed,
    /// Requests whose final outcome was counted: a redelivered one comes twice.
    finished: HashSet<u64>,
}

impl Sums {
    fn of(base: &Base) -> Result<Sums, String> {
        let mut ledger = State::default();
        for account in &base.accounts {
            let currency =
                crate::domain::Currency::parse(&account.currency).ok_or("a currency is not valid")?;
            let number = ledger.accounts.open(account.name.as_bytes(), currency);
            ledger.accounts.restore(number, account.debits, account.credits, account.held);
        }
        let number_of = |value: &serde_json::Value| value.get("number").and_then(serde_json::Value::as_u64);
        let numbered =
            base.campaigns.iter().filter_map(|value| Some((number_of(value)? as u32, value.clone())));
        Ok(Sums {
            ledger,
            campaigns: numbered.collect(),
            queues: base.queues.iter().map(|q| ((q.lane, q.fair), (q.accepted, q.acked))).collect(),
            removed: base.removed.clone(),
            finished: HashSet::new(),
        })
    }

    fn add(&mut self, frame: &OwnedFrame) -> Result<(), String> {
        match frame.kind {
            FRAME_TRANSFERS => {
                self.ledger.replay(frame.payload_at, &frame.payload).map_err(|error| error.to_string())?;
            }
            FRAME_ACCEPT => {
                let section = Section::decode(&frame.payload).map_err(|error| error.to_string())?;
                let queue = self.queues.entry((section.queue.lane as u8, section.queue.fair)).or_default();
                queue.0 = section.first_index + u64::from(section.count);
                self.removed.requests += u64::from(section.count);
            }
            FRAME_ACK | FRAME_CONTROL | FRAME_OUTCOMES => self.add_entries(frame)?,
            _ => {}
        }
        Ok(())
    }

    fn add_entries(&mut self, frame: &OwnedFrame) -> Result<(), String> {
        for item in entries(&frame.payload) {
            let (_, tag, bytes) = item.map_err(|error| error.to_string())?;
            match (frame.kind, tag) {
                (FRAME_ACK, _) => {
                    let ack = Ack::decode(bytes).map_err(|error| error.to_string())?;
                    let queue = self.queues.entry((ack.queue.lane as u8, ack.queue.fair)).or_default();
                    queue.1 = queue.1.max(ack.below_index);
                }
                (FRAME_CONTROL, crate::domain::bytes::TAG_CAMPAIGN) => {
                    let (number, json) = campaign_json(bytes).map_err(|error| error.to_string())?;
                    let mut value: serde_json::Value =
                        serde_json::from_slice(json).map_err(|error| error.to_string())?;
                    value["number"] = number.into();
                    let spent = self.campaigns.get(&number).and_then(|before| before.get("spent")).cloned();
                    value["spent"] = spent.unwrap_or_else(|| 0.into());
                    self.campaigns.insert(number, value);
                }
                (FRAME_OUTCOMES, TAG_OUTCOME) => {
                    self.add_outcome(&Outcome::decode(bytes).map_err(|e| e.to_string())?)
                }
                (_, TAG_REQUEST) => return Err("a request outside an accept frame".to_owned()),
                _ => {}
            }
        }
        Ok(())
    }

    fn add_outcome(&mut self, outcome: &Outcome<'_>) {
        if !outcome.status.is_final() || outcome.status == Status::Reversed {
            return;
        }
        if !self.finished.insert(outcome.request_place) {
            return;
        }
        self.removed.finished += 1;
        if outcome.status != Status::Succeeded {
            return;
        }
        self.removed.amount_succeeded += outcome.amount;
        let change = match outcome.kind {
            Kind::Disbursement => i128::from(outcome.amount),
            Kind::Reversal => -i128::from(outcome.amount),
            Kind::Collection | Kind::Fund | Kind::Defund | Kind::Cancel => return,
        };
        if let Some(campaign) = self.campaigns.get_mut(&outcome.campaign_number) {
            let before = campaign.get("spent").and_then(serde_json::Value::as_u64).unwrap_or(0);
            let after = (i128::from(before) + change).clamp(0, i128::from(u64::MAX)) as u64;
            campaign["spent"] = after.into();
        }
    }

    fn into_base(self, offset: u64, (sequence, prev): (u64, [u8; 32])) -> Base {
        let accounts = &self.ledger.accounts;
        let account = |number: u32| {
            let row = accounts.get(number);
            AccountBase {
                number,
                name: String::from_utf8_lossy(accounts.name(number)).into_owned(),
                currency: accounts.currency(number).to_string(),
                debits: row.debits,
                credits: row.credits,
                held: row.held,
            }
        };
        let queue = |((lane, fair), (accepted, acked))| QueueBase { lane, fair, accepted, acked };
        Base {
            offset,
            sequence,
            prev: hex::encode(prev),
            accounts: (0..accounts.len() as u32).map(account).collect(),
            campaigns: self.campaigns.into_values().collect(),
            queues: self.queues.into_iter().map(queue).collect(),
            removed: self.removed,
        }
    }
}
