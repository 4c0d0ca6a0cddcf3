//! The calls of the contract: what goes in, through the waiting line to the teller, and what comes out.
//!
//! Work on a call goes on when its deadline has passed or its caller is gone: what was sent may still be done,
//! as at any service. Only the answer is bound to the deadline.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::control;
use super::entry;
use super::line::{Fate, Ticket};
use super::openapi;
use super::received::Counts;
use super::teller::{Ask, NoAnswer, Told};
use super::{Cut, Desk};
use crate::digest::key_hash;
use crate::domain::{PayoutCode, Refusal, TransferKind, TransferStatus};
use crate::gateway::problem::Problem;
use crate::stored_value::contract::{Identity, Outcome, Results};
use crate::stored_value::ledger::state::OnRecord;

/// How long a lookup or a burn may take, which name no deadline.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(30);

pub(super) fn router(desk: Arc<Desk>) -> axum::Router {
    axum::Router::new()
        .route("/v1/identity", get(identity))
        .route("/v1/transfers", post(transfers))
        .route("/v1/transfers/lookup", post(lookup))
        .route("/v1/transfers/burn", post(burn))
        .route("/faults", get(control::faults).put(control::put_faults))
        .route("/received", get(control::received))
        .route("/balances", get(control::balances))
        .route("/openapi.json", get(openapi::serve))
        .route("/healthz", get(async || Json(serde_json::json!({"alive": true}))))
        .fallback(async || Problem::not_found("there is no such call; docs/wallet.md lists them"))
        .method_not_allowed_fallback(async || {
            Problem::new(Refusal::MethodNotAllowed, "the path exists, but not with this method")
        })
        .with_state(desk)
}

async fn identity(State(desk): State<Arc<Desk>>, request: Request) -> Result<Response, Problem> {
    stand_still(&desk).await;
    desk.authorize(request.headers())?;
    Ok(Json(Identity { identity: desk.identity.clone() }).into_response())
}

async fn transfers(State(desk): State<Arc<Desk>>, request: Request) -> Result<Response, Problem> {
    let text = desk.open(request).await?;
    let asked = entry::transfers(&text, (desk.clock)())?;
    let slow = {
        let line = desk.line();
        let slow = &line.faults().slow_accounts;
        let names = |name: &[u8]| slow.iter().any(|account| account.as_bytes() == name);
        !slow.is_empty() && asked.batch.iter().any(|t| names(t.debit) || names(t.credit))
    };
    let call = Call {
        arrived: Counts { calls: 1, transfers: asked.ids.len() as u64, ..Counts::default() },
        ask: Ask::Decide(asked.batch),
        names_slow_account: slow,
        deadline: Duration::from_millis(asked.deadline_ms),
    };
    answer(&desk, call, &asked.ids, false).await
}

async fn burn(State(desk): State<Arc<Desk>>, request: Request) -> Result<Response, Problem> {
    let ids = entry::ids(&desk.open(request).await?)?;
    let arrived = Counts { calls: 1, burns: ids.len() as u64, ..Counts::default() };
    answer(&desk, Call::of(Ask::Decide(entry::burns(&ids)), arrived), &ids, true).await
}

async fn lookup(State(desk): State<Arc<Desk>>, request: Request) -> Result<Response, Problem> {
    let ids = entry::ids(&desk.open(request).await?)?;
    let arrived = Counts { calls: 1, lookups: ids.len() as u64, ..Counts::default() };
    answer(&desk, Call::of(Ask::LookUp(ids.clone()), arrived), &ids, false).await
}

/// A call on its way to the books.
struct Call {
    ask: Ask,
    arrived: Counts,
    names_slow_account: bool,
    deadline: Duration,
}

impl Call {
    fn of(ask: Ask, arrived: Counts) -> Call {
        Call { ask, arrived, names_slow_account: false, deadline: DEADLINE_DEFAULT }
    }

    fn entries(&self) -> usize {
        (self.arrived.transfers + self.arrived.burns + self.arrived.lookups) as usize
    }
}

/// While the wallet is paused, nothing moves in it.
async fn stand_still(desk: &Desk) {
    loop {
        let pause = desk.line().pause(desk.now());
        let Some(left) = pause else { return };
        // Looked at again now and then: the settings may change.
        tokio::time::sleep(left.min(Duration::from_millis(50))).await;
    }
}

async fn answer(desk: &Arc<Desk>, call: Call, ids: &[String], is_burn: bool) -> Result<Response, Problem> {
    let answered = pass(desk, call, ids, is_burn).await;
    stand_still(desk).await;
    answered
}

fn cut_off() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.extensions_mut().insert(Cut);
    response
}

async fn pass(desk: &Arc<Desk>, call: Call, ids: &[String], is_burn: bool) -> Result<Response, Problem> {
    desk.count(call.arrived);
    stand_still(desk).await;
    let refused = Counts { refused: 1, ..Counts::default() };
    let dropped = Counts { dropped: 1, ..Counts::default() };
    let fate = desk.line().arrive(desk.now(), call.entries());
    let (ticket, reply_lost) = match fate {
        Fate::Served { ticket, reply_lost } => (ticket, reply_lost),
        Fate::Overloaded => {
            desk.count(refused);
            return Err(Problem::new(Refusal::NotAccepting, "too many entries wait; nothing was done"));
        }
        Fate::Error { is_500 } => {
            desk.count(refused);
            return if is_500 { Ok(internal_error()) } else { Err(failing()) };
        }
        Fate::Vanishes => {
            desk.count(dropped);
            return std::future::pending().await;
        }
        Fate::CutBefore => {
            desk.count(dropped);
            return Ok(cut_off());
        }
    };
    let (deadline, transfers) = (call.deadline, call.arrived.transfers);
    let work = tokio::spawn(carry_out(desk.clone(), call, ticket));
    let told = match tokio::time::timeout(deadline, work).await {
        Ok(Ok(told)) => Some(told),
        Ok(Err(_)) => Some(Err(NoAnswer::Gone)),
        Err(_) => None,
    };
    if reply_lost {
        desk.count(Counts { replies_lost: 1, ..Counts::default() });
        return Ok(cut_off());
    }
    match told {
        Some(Ok(told)) => Ok(written(ids, &told, is_burn)),
        Some(Err(NoAnswer::Full)) => {
            desk.count(refused);
            Err(Problem::new(Refusal::NotAccepting, "too many calls wait; nothing was done"))
        }
        Some(Err(NoAnswer::Gone)) => Err(Problem::no_answer()),
        None => {
            desk.count(Counts { unknown: transfers, ..Counts::default() });
            let unknown = |id: &String| outcome(id, "unknown", None);
            Ok(Json(Results { results: ids.iter().map(unknown).collect() }).into_response())
        }
    }
}

/// Waits for the call's turn, has it decided, and holds the answer back as long as the settings say.
async fn carry_out(desk: Arc<Desk>, call: Call, ticket: Ticket) -> Result<Told, NoAnswer> {
    loop {
        stand_still(&desk).await;
        let wait = desk.line().wait(desk.now(), ticket);
        let Some(left) = wait else { break };
        tokio::time::sleep(left).await;
    }
    let told = desk.teller.ask(call.ask).await?;
    if let Told::Decided { results, repeated } = &told {
        let is_new = |position: &usize| repeated.binary_search(&(*position as u32)).is_err();
        let paid = results.iter().enumerate().filter(|(_, result)| **result == TransferStatus::Succeeded);
        let executed = paid.filter(|(position, _)| is_new(position)).count() as u64;
        desk.count(Counts { executed, repeated: repeated.len() as u64, ..Counts::default() });
    }
    let leave_at = desk.line().leave_at(desk.now(), call.names_slow_account);
    tokio::time::sleep_until((desk.started + leave_at).into()).await;
    Ok(told)
}

fn failing() -> Problem {
    Problem::new(Refusal::NotAccepting, "set to fail; nothing was done")
}

/// The contract knows no 500 of its own; a service behind a proxy will give one all the same.
fn internal_error() -> Response {
    let body = serde_json::json!({
        "type": "urn:hongbao:problem:internal_error",
        "title": "Something went wrong",
        "status": 500,
        "detail": "set to fail; nothing was done",
        "code": "internal_error",
        "accepted": "unknown",
    });
    let headers = [(header::CONTENT_TYPE, "application/problem+json")];
    (StatusCode::INTERNAL_SERVER_ERROR, headers, body.to_string()).into_response()
}

fn written(ids: &[String], told: &Told, is_burn: bool) -> Response {
    let results: Vec<Outcome> = match told {
        Told::Decided { results, .. } => {
            ids.iter().zip(results).map(|(id, result)| decided(id, *result, is_burn)).collect()
        }
        Told::Found(found) => ids.iter().zip(found).map(|(id, found)| looked_up(id, *found)).collect(),
        Told::Balances(_) => unreachable!("no call of the contract asks for balances"),
    };
    Json(Results { results }).into_response()
}

fn outcome(id: &str, status: &str, code: Option<PayoutCode>) -> Outcome {
    Outcome {
        id: id.to_owned(),
        status: status.to_owned(),
        code: code.map(|code| code.as_str().to_owned()),
        // The same for every answer about a movement, without a number to keep.
        wallet_ref: (status == "succeeded").then(|| format!("w-{:016x}", key_hash(id.as_bytes()))),
        amount: None,
    }
}

fn decided(id: &str, status: TransferStatus, is_burn: bool) -> Outcome {
    match status {
        TransferStatus::Succeeded => outcome(id, "succeeded", None),
        TransferStatus::Failed(PayoutCode::Burned) if is_burn => outcome(id, "burned", None),
        TransferStatus::Failed(code) => outcome(id, "failed", Some(code)),
        TransferStatus::Unknown => outcome(id, "unknown", None),
    }
}

fn looked_up(id: &str, found: Option<OnRecord>) -> Outcome {
    let Some(found) = found else { return outcome(id, "not_found", None) };
    let amount = (found.kind != TransferKind::Burn).then_some(found.amount);
    Outcome { amount, ..decided(id, found.status, false) }
}
