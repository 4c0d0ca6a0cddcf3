//! Calls for tests and audits, outside the contract: the faults, what was received, balances.

use std::sync::{Arc, PoisonError};

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::teller::{Ask, Told};
use super::{Desk, FaultsError};
use crate::domain::Refusal;
use crate::gateway::problem::Problem;
use crate::request::fault::{FaultCode, Faults as FieldFaults, Place};

pub(super) async fn faults(State(desk): State<Arc<Desk>>, request: Request) -> Result<Response, Problem> {
    desk.authorize(request.headers())?;
    Ok(Json(desk.line().faults().clone()).into_response())
}

/// Replaces the settings that the body names, and answers with all of them.
pub(super) async fn put_faults(State(desk): State<Arc<Desk>>, request: Request) -> Result<Response, Problem> {
    let text = desk.open(request).await?;
    let malformed = |error: serde_json::Error| Problem::new(Refusal::MalformedJson, error.to_string());
    let Value::Object(changes) = serde_json::from_str(&text).map_err(malformed)? else {
        return Err(at(String::new(), FaultCode::WrongType, "must be an object"));
    };
    let mut line = desk.line();
    let (faults, begins_anew) = line.faults().merged(changes).map_err(|error| {
        let FaultsError { field, is_unknown, detail } = error;
        at(field, if is_unknown { FaultCode::UnknownField } else { FaultCode::InvalidValue }, &detail)
    })?;
    desk.refuse_accounts(&faults);
    line.change(desk.now(), faults.clone(), begins_anew);
    Ok(Json(faults).into_response())
}

fn at(field: String, code: FaultCode, detail: &str) -> Problem {
    let mut faults = FieldFaults::default();
    faults.add(Place::Top, &field, code, detail);
    Problem::faults(faults)
}

pub(super) async fn received(State(desk): State<Arc<Desk>>, request: Request) -> Result<Response, Problem> {
    desk.authorize(request.headers())?;
    let received = desk.received.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Json(received.body(desk.now())).into_response())
}

/// `?account=a&account=b`: their balances, and the sum over all accounts.
pub(super) async fn balances(State(desk): State<Arc<Desk>>, request: Request) -> Result<Response, Problem> {
    desk.authorize(request.headers())?;
    let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(request.uri()) else {
        return Err(Problem::new(Refusal::InvalidField, "the query is not UTF-8"));
    };
    let mut faults = FieldFaults::default();
    for (name, _) in pairs.iter().filter(|(name, _)| name != "account") {
        faults.add(Place::Query, name, FaultCode::UnknownField, "the only parameter is `account`");
    }
    if !faults.is_empty() {
        return Err(Problem::faults(faults));
    }
    let names = pairs.into_iter().map(|(_, account)| account).collect();
    match desk.teller.ask(Ask::Balances(names)).await {
        Ok(Told::Balances(body)) => Ok(Json(body).into_response()),
        _ => Err(Problem::no_answer()),
    }
}
