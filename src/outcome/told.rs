//! A fact as logs outside of this process keep it: an outcome together with the request that it is about.
//!
//! It holds nothing of one process (places, campaign numbers): a request is known by `client:id` and its digest.
//! Two facts about one id with two digests are about two requests, of which the wallet takes one.

use crate::domain::{Kind, Outcome, PayoutCode, Request, Status, UnixMs, WaitReason};

/// `request` is now `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told<'a> {
    pub request: Request<'a>,
    pub status: Status,
    pub code: Option<PayoutCode>,
    pub reason: Option<WaitReason>,
    pub at: UnixMs,
    pub next_attempt_at: UnixMs,
    pub attempts: u32,
    pub wallet_ref: &'a str,
}

impl<'a> Told<'a> {
    pub fn new(outcome: &Outcome<'a>, request: Request<'a>) -> Told<'a> {
        Told {
            request,
            status: outcome.status,
            code: outcome.code,
            reason: outcome.reason,
            at: outcome.at,
            next_attempt_at: outcome.next_attempt_at,
            attempts: outcome.attempts,
            wallet_ref: outcome.wallet_ref,
        }
    }

    /// The same as an outcome of a request that stands at `place`.
    pub fn outcome(&self, place: u64) -> Outcome<'a> {
        Outcome {
            status: self.status,
            code: self.code,
            reason: self.reason,
            kind: self.request.kind,
            lane: Some(self.request.lane),
            request_place: place,
            follows_place: place,
            key_hash: self.request.key_hash,
            at: self.at,
            next_attempt_at: self.next_attempt_at,
            attempts: self.attempts,
            campaign_number: 0,
            amount: self.request.amount.minor_units(),
            wallet_ref: self.wallet_ref,
        }
    }

    /// The id that this fact says was burned by a cancel: whoever holds it is CANCELED.
    pub fn burned(&self) -> Option<&'a str> {
        let burns = self.request.kind == Kind::Cancel && self.status == Status::Succeeded;
        burns.then_some(self.request.original)
    }
}
