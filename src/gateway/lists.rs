//! Calls that read many requests: pages of a list, and lookups by id.

use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde_json::value::RawValue;

use super::Gateway;
use super::answer::{FoundBody, PageBody, StatusBody, json};
use super::body::text;
use super::port::ListQuery;
use super::problem::Problem;
use crate::domain::{Kind, Status};
use crate::request::fault::{FaultCode, Faults, Place, nearest, shown};
use crate::request::judge::Bench;
use crate::request::shape::LOOKUP_IDS_MAX;
use crate::request::{diagnose, shape};

pub const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 1_000;
const CURSOR_BYTES_MAX: usize = 1_024;

/// The filters of a list, and what they are.
pub const FILTERS: [(&str, &str); 9] = [
    ("campaign", "of this campaign"),
    ("payee", "of this payee, or payer of a collection"),
    ("status", "in this state"),
    ("batch", "of this batch"),
    ("kind", "disbursement, collection, reversal, fund or defund"),
    ("accepted_from", "accepted at or after this time"),
    ("settled_from", "settled at or after this time"),
    ("limit", "how many at most: 1 to 1,000, 100 where unset"),
    ("cursor", "as an earlier page gave it"),
];

pub async fn list(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, Problem> {
    let client = gateway.clients.name(request.headers())?;
    let query = read_query(client, request.uri())?;
    let page = gateway.looking.list(query).await?;
    let body = PageBody {
        data: page.data.iter().map(StatusBody::from).collect(),
        has_more: page.next_cursor.is_some(),
        next_cursor: page.next_cursor.as_deref(),
    };
    Ok(json(StatusCode::OK, &body))
}

fn read_query(client: &str, uri: &Uri) -> Result<ListQuery, Problem> {
    let mut faults = Faults::default();
    let mut query = ListQuery { client: client.to_owned(), limit: LIMIT_DEFAULT, ..ListQuery::default() };
    for (name, value) in &pairs(uri, &mut faults)? {
        read_filter(&mut query, name, value, &mut faults);
    }
    if faults.is_empty() { Ok(query) } else { Err(Problem::faults(faults)) }
}

/// The names and values of a query, each name once.
pub fn pairs(uri: &Uri, faults: &mut Faults) -> Result<Vec<(String, String)>, Problem> {
    let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
        let mut faults = Faults::default();
        faults.add(Place::Query, "", FaultCode::InvalidValue, "the query is not form-encoded UTF-8");
        return Err(Problem::faults(faults));
    };
    let mut kept: Vec<(String, String)> = Vec::new();
    for (name, value) in pairs {
        if faults.is_full() {
            break;
        }
        if kept.iter().any(|(seen, _)| *seen == name) {
            faults.add(Place::Query, &name, FaultCode::RepeatedField, "stands here more than once");
        } else {
            kept.push((name, value));
        }
    }
    Ok(kept)
}

pub fn limit(value: &str, faults: &mut Faults) -> u32 {
    let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.unwrap_or_else(|| {
        let detail = format!("must be a whole number from 1 to {LIMIT_MAX}");
        faults.add(Place::Query, "limit", FaultCode::OutOfRange, detail);
        LIMIT_DEFAULT
    })
}

pub fn cursor(value: &str, faults: &mut Faults) -> Option<String> {
    if value.len() <= CURSOR_BYTES_MAX {
        return Some(value.to_owned());
    }
    faults.add(Place::Query, "cursor", FaultCode::InvalidValue, "is not a cursor that a page gave");
    None
}

/// Complains of a filter that the list does not have.
pub fn unknown_filter(unknown: &str, filters: &[(&str, &str)], faults: &mut Faults) {
    let known: Vec<&str> = filters.iter().map(|(name, _)| *name).collect();
    let detail = match nearest(unknown, known.iter().copied()) {
        Some(near) => format!("{:?} is no filter; did you mean {near:?}?", shown(unknown)),
        None => format!("{:?} is no filter; known are {}", shown(unknown), known.join(", ")),
    };
    faults.add(Place::Query, unknown, FaultCode::UnknownField, detail);
}

fn read_filter(query: &mut ListQuery, name: &str, value: &str, faults: &mut Faults) {
    let mut bench = Bench { place: Place::Query, faults };
    let mut id = |name| bench.id(name, Some(value)).map(str::to_owned);
    match name {
        "campaign" => query.campaign = id("campaign"),
        "payee" => query.party = id("payee"),
        "batch" => query.batch = id("batch"),
        "accepted_from" => query.accepted_from = bench.time("accepted_from", Some(value)).unwrap_or(0),
        "settled_from" => query.settled_from = bench.time("settled_from", Some(value)).unwrap_or(0),
        "status" => {
            query.status = Status::parse(value);
            if query.status.is_none() {
                let known = Status::ALL.map(|status| status.as_str()).join(", ");
                faults.add(Place::Query, name, FaultCode::InvalidValue, format!("must be one of {known}"));
            }
        }
        "kind" => {
            let kinds = [Kind::Disbursement, Kind::Collection, Kind::Reversal, Kind::Fund, Kind::Defund];
            query.kind = kinds.into_iter().find(|kind| kind.as_str() == value);
            if query.kind.is_none() {
                let known = kinds.map(|kind| kind.as_str()).join(", ");
                faults.add(Place::Query, name, FaultCode::InvalidValue, format!("must be one of {known}"));
            }
        }
        "limit" => query.limit = limit(value, faults),
        "cursor" => query.cursor = cursor(value, faults),
        unknown => unknown_filter(unknown, &FILTERS, faults),
    }
}

pub async fn lookup(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, Problem> {
    let call = gateway.open(request).await?;
    let mut faults = Faults::default();
    let mut reading = diagnose::object(text(&call.body)?, &shape::LOOKUP, &mut faults)?;
    let raw = Bench { place: Place::Top, faults: &mut faults }.need("ids", reading.raw("ids"));
    let asked = ids(raw, &mut faults);
    if !faults.is_empty() {
        return Err(Problem::faults(faults));
    }
    let found = gateway.looking.find(call.client.to_owned(), asked.clone()).await?;
    let missing = asked.iter().zip(&found).filter(|(_, standing)| standing.is_none());
    let body = FoundBody {
        not_found: missing.map(|(id, _)| id.as_str()).collect(),
        data: found.iter().flatten().map(StatusBody::from).collect(),
    };
    Ok(json(StatusCode::OK, &body))
}

/// A list of ids in a body.
pub fn ids(raw: Option<&RawValue>, faults: &mut Faults) -> Vec<String> {
    let ids = raw.map(|raw| diagnose::ids(raw, faults)).unwrap_or_default();
    if ids.count > LOOKUP_IDS_MAX {
        let detail = format!("may hold at most {LOOKUP_IDS_MAX} ids, not {}", ids.count);
        faults.add(Place::Top, "ids", FaultCode::OutOfRange, detail);
        return Vec::new();
    }
    for (index, id) in ids.kept.iter().enumerate() {
        Bench { place: Place::Id(index), faults }.id("", Some(id));
    }
    ids.kept.into_iter().map(|id| id.into_owned()).collect()
}
