//! Calls about what waits in the parking: a list, and a release.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;

use super::Gateway;
use super::answer::{ParkedPageBody, ReleasedBody, json};
use super::body::text;
use super::lists::{LIMIT_DEFAULT, cursor, ids, limit, pairs, unknown_filter};
use super::port::{ParkedFilter, ParkedQuery};
use super::problem::Problem;
use crate::request::fault::{FaultCode, Faults, Place};
use crate::request::judge::Bench;
use crate::request::{diagnose, shape};

/// The filters of the list, and what they are.
pub const FILTERS: [(&str, &str); 4] = [
    ("reason", "not_due, low_balance, campaign_paused, wallet_overloaded or no_answer"),
    ("campaign", "of this campaign"),
    ("limit", "how many at most: 1 to 1,000, 100 where unset"),
    ("cursor", "as an earlier page gave it"),
];

pub async fn list(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, Problem> {
    let client = gateway.clients.name(request.headers())?;
    let query = read_query(client, request.uri())?;
    let page = gateway.waiting.parked(query).await?;
    Ok(json(StatusCode::OK, &ParkedPageBody::from(&page)))
}

fn read_query(client: &str, uri: &Uri) -> Result<ParkedQuery, Problem> {
    let mut faults = Faults::default();
    let pairs = pairs(uri, &mut faults)?;
    let filter = ParkedFilter { client: client.to_owned(), ..ParkedFilter::default() };
    let mut query = ParkedQuery { filter, limit: LIMIT_DEFAULT, cursor: None };
    for (name, value) in &pairs {
        let mut bench = Bench { place: Place::Query, faults: &mut faults };
        match name.as_str() {
            "reason" => query.filter.reason = bench.reason("reason", Some(value)),
            "campaign" => query.filter.campaign = bench.id("campaign", Some(value)).map(str::to_owned),
            "limit" => query.limit = limit(value, &mut faults),
            "cursor" => query.cursor = cursor(value, &mut faults),
            unknown => unknown_filter(unknown, &FILTERS, &mut faults),
        }
    }
    if faults.is_empty() { Ok(query) } else { Err(Problem::faults(faults)) }
}

/// Makes what waits due now. It changes nothing else: what is not due for another reason waits on.
pub async fn release(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, Problem> {
    let call = gateway.open(request).await?;
    let mut faults = Faults::default();
    let mut reading = diagnose::object(text(&call.body)?, &shape::PARKED_RELEASE, &mut faults)?;
    let raw_ids = reading.raw("ids");
    let has_ids = raw_ids.is_some();
    let asked = ids(raw_ids, &mut faults);
    let (reason, campaign) = (reading.text("reason"), reading.text("campaign"));
    let mut bench = Bench { place: Place::Top, faults: &mut faults };
    let filter = ParkedFilter {
        client: call.client.to_owned(),
        reason: bench.reason("reason", reason.as_ref().map(|reason| &*reason.0)),
        campaign: bench.id("campaign", campaign.as_ref().map(|id| &*id.0)).map(str::to_owned),
    };
    if faults.is_empty() && !has_ids && filter.reason.is_none() && filter.campaign.is_none() {
        let detail = "name what to release: ids, reason or campaign";
        faults.add(Place::Top, "", FaultCode::MissingField, detail);
    }
    if !faults.is_empty() {
        return Err(Problem::faults(faults));
    }
    let released = gateway.waiting.release(filter, has_ids.then_some(asked)).await?;
    Ok(json(StatusCode::OK, &ReleasedBody { released }))
}
