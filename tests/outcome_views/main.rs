//! Views of outcome streams: one contract, whatever they are kept in.

mod contract;
mod model;
mod postgres;
mod sqlite;
mod streams;
#[path = "../support/mod.rs"]
mod support;

use hongbao::digest::Stamper;
use hongbao::domain::{Amount, Currency, Kind, Request, Status};
use hongbao::outcome::Told;

pub fn request(id: &str) -> Request<'_> {
    let (amount, currency) = (Amount::new(7).unwrap(), Currency::parse("CNY").unwrap());
    let mut request = Request::new(Kind::Disbursement, "shop", id, "spring", amount, currency);
    request.party = "ann";
    request.accepted_at = 1_000;
    Stamper::default().stamp(&mut request);
    request
}

/// The request of this id was paid.
pub fn paid(id: &str) -> Told<'_> {
    Told {
        request: request(id),
        status: Status::Succeeded,
        code: None,
        reason: None,
        at: 2_000,
        next_attempt_at: 0,
        attempts: 1,
        wallet_ref: "",
    }
}
