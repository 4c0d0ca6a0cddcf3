//! An outcome log in memory. Its cursor counts facts; on demand it breaks off, or panics, in the middle of a
//! read.

use std::sync::Mutex;

use crate::digest::key_hash_of;
use crate::domain::{Amount, Currency, Kind, Lane, Request, Status, UnixMs};
use crate::outcome::entry::Outcome;
use crate::outcome::{Fact, FactSource, SourceError};

enum Stored {
    Accepted { place: u64, request: Vec<u8> },
    Moved(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Error,
    Panic,
}

#[derive(Default)]
struct State {
    facts: Vec<Stored>,
    /// What happens once a read has handed over so many facts.
    fault: Option<(usize, Fault)>,
    end_shown: Option<u64>,
}

#[derive(Default)]
pub struct Log {
    state: Mutex<State>,
}

impl Log {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn accept(&self, place: u64, request: &Request<'_>) {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        self.state().facts.push(Stored::Accepted { place, request: bytes });
    }

    pub fn moved(&self, outcome: &Outcome<'_>) {
        let mut bytes = Vec::new();
        outcome.encode(&mut bytes);
        self.state().facts.push(Stored::Moved(bytes));
    }

    pub fn len(&self) -> usize {
        self.state().facts.len()
    }

    /// From now on every read breaks after `facts`, until told otherwise.
    pub fn break_after(&self, fault: Option<(usize, Fault)>) {
        self.state().fault = fault;
    }

    /// Claims to end at `end`, as a log would that lost its tail.
    pub fn show_end(&self, end: u64) {
        self.state().end_shown = Some(end);
    }
}

impl FactSource for Log {
    fn read(
        &self,
        cursor: u64,
        count_max: usize,
        apply: &mut dyn FnMut(Fact<'_>),
    ) -> Result<u64, SourceError> {
        let state = self.state();
        let from = cursor as usize;
        let to = state.facts.len().min(from + count_max);
        for (count, fact) in state.facts[from..to].iter().enumerate() {
            match state.fault {
                Some((after, Fault::Error)) if after == count => {
                    return Err(SourceError { cursor, reason: "the disk is gone".into() });
                }
                Some((after, Fault::Panic)) if after == count => panic!("the disk is on fire"),
                _ => {}
            }
            match fact {
                Stored::Accepted { place, request } => {
                    apply(Fact::Accepted { place: *place, request: Request::decode(request).unwrap() });
                }
                Stored::Moved(outcome) => apply(Fact::Moved(Outcome::decode(outcome).unwrap())),
            }
        }
        Ok(to as u64)
    }

    fn end(&self) -> u64 {
        let state = self.state();
        state.end_shown.unwrap_or(state.facts.len() as u64)
    }
}

/// A disbursement of client `shop`, to be changed where a test cares.
pub fn request(id: &str, accepted_at: UnixMs) -> Request<'_> {
    Request {
        kind: Kind::Disbursement,
        lane: Lane::Realtime,
        digest: [0; 16],
        key_hash: key_hash_of("shop", id),
        amount: Amount::new(100).unwrap(),
        currency: Currency::parse("CNY").unwrap(),
        accepted_at,
        not_before: 0,
        not_after: 0,
        client: "shop",
        id,
        campaign: "spring",
        party: "ann",
        merchant: "",
        agreement: "",
        batch: "",
        original: "",
        remark: "",
        metadata: "",
    }
}

/// `request`, accepted at `place`, is now `status`.
pub fn outcome<'a>(place: u64, request: &Request<'_>, status: Status, at: UnixMs) -> Outcome<'a> {
    Outcome {
        status,
        code: None,
        reason: None,
        kind: request.kind,
        lane: Some(request.lane),
        request_place: place,
        follows_place: place,
        key_hash: request.key_hash,
        at,
        next_attempt_at: 0,
        attempts: 1,
        campaign_number: 1,
        amount: request.amount.minor_units(),
        wallet_ref: "",
    }
}
