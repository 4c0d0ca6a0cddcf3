//! Calls about a campaign: define, fund, pause, resume, close, and how it stands.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::answer::{self, CampaignBody, json};
use super::body::{check_idempotency_key, text};
use super::port::{CampaignChange, CampaignStanding};
use super::problem::Problem;
use super::{Gateway, PathId};
use crate::domain::{self, Campaign, CampaignState, Kind, Lane};
use crate::request::fault::{Faults, Place};
use crate::request::judge::{Bench, Judge, blank};
use crate::request::{diagnose, shape};

pub async fn put(
    State(gateway): State<Arc<Gateway>>,
    PathId(id): PathId,
    request: Request,
) -> Result<Response, Problem> {
    let call = gateway.open(request).await?;
    let mut faults = Faults::default();
    let mut read = diagnose::object(text(&call.body)?, &shape::CAMPAIGN_PUT, &mut faults)?;
    let texts = ["currency", "starts_at", "ends_at", "lane"].map(|name| read.text(name));
    let [currency, starts_at, ends_at, lane] =
        texts.each_ref().map(|text| text.as_ref().map(|text| &*text.0));
    let mut bench = Bench { place: Place::Top, faults: &mut faults };
    let budget = bench.need("budget", read.whole("budget"));
    let budget = bench.amount("budget", budget);
    let currency = bench.need("currency", currency);
    let currency = bench.currency(currency, &mut None);
    let amount_max = bench.amount("amount_max", read.whole("amount_max"));
    let per_payee_count = bench.count("per_payee_count", read.whole("per_payee_count"));
    let per_payee_amount = bench.amount("per_payee_amount", read.whole("per_payee_amount"));
    let starts_at = bench.time("starts_at", starts_at);
    let ends_at = bench.time("ends_at", ends_at);
    bench.order(("starts_at", starts_at), ("ends_at", ends_at));
    let lane = bench.lane(lane).unwrap_or(Lane::Realtime);
    let (Some(budget), Some(currency), true) = (budget, currency, faults.is_empty()) else {
        return Err(Problem::faults(faults));
    };
    let now = (gateway.clock)();
    let campaign = Campaign {
        client: call.client.to_owned(),
        id: id.clone(),
        currency,
        budget,
        amount_max,
        per_payee_count,
        per_payee_amount,
        starts_at: starts_at.unwrap_or(0),
        ends_at: ends_at.unwrap_or(0),
        lane,
        state: CampaignState::Active,
        is_funded_whole: false,
        created_at: now,
        updated_at: now,
        closed_at: 0,
    };
    change(&gateway, call.client, id, CampaignChange::Put(Box::new(campaign))).await
}

async fn change(
    gateway: &Gateway,
    client: &str,
    id: String,
    change: CampaignChange,
) -> Result<Response, Problem> {
    let standing = gateway.accepting.change_campaign(client.to_owned(), id, change).await?;
    Ok(json(StatusCode::OK, &CampaignBody::from(&standing)))
}

pub async fn pause(
    State(gateway): State<Arc<Gateway>>,
    PathId(id): PathId,
    request: Request,
) -> Result<Response, Problem> {
    let client = gateway.open_bare(request).await?;
    change(&gateway, client, id, CampaignChange::Pause).await
}

pub async fn resume(
    State(gateway): State<Arc<Gateway>>,
    PathId(id): PathId,
    request: Request,
) -> Result<Response, Problem> {
    let client = gateway.open_bare(request).await?;
    change(&gateway, client, id, CampaignChange::Resume).await
}

pub async fn close(
    State(gateway): State<Arc<Gateway>>,
    PathId(id): PathId,
    request: Request,
) -> Result<Response, Problem> {
    let client = gateway.open_bare(request).await?;
    change(&gateway, client, id, CampaignChange::Close).await
}

pub async fn status(
    State(gateway): State<Arc<Gateway>>,
    PathId(id): PathId,
    request: Request,
) -> Result<Response, Problem> {
    let client = gateway.clients.name(request.headers())?;
    let standing = find(&gateway, client, &id).await?;
    Ok(json(StatusCode::OK, &CampaignBody::from(&standing)))
}

async fn find(gateway: &Gateway, client: &str, id: &str) -> Result<CampaignStanding, Problem> {
    let standing = gateway.looking.campaign(client.to_owned(), id.to_owned()).await?;
    standing.ok_or_else(|| Problem::not_found(format!("no campaign with the id {id} is known here")))
}

pub async fn fund(
    State(gateway): State<Arc<Gateway>>,
    PathId(id): PathId,
    request: Request,
) -> Result<Response, Problem> {
    move_funds(&gateway, id, request, Kind::Fund).await
}

pub async fn defund(
    State(gateway): State<Arc<Gateway>>,
    PathId(id): PathId,
    request: Request,
) -> Result<Response, Problem> {
    move_funds(&gateway, id, request, Kind::Defund).await
}

/// Moves money between the client's funding account and the campaign, under an id of its own: 200 once that
/// is final, 202 while it is not.
async fn move_funds(
    gateway: &Gateway,
    campaign: String,
    request: Request,
    kind: Kind,
) -> Result<Response, Problem> {
    let call = gateway.open(request).await?;
    let mut faults = Faults::default();
    let mut read = diagnose::object(text(&call.body)?, &shape::FUNDING, &mut faults)?;
    let (id, amount) = (read.text("id"), read.whole("amount"));
    let mut bench = Bench { place: Place::Top, faults: &mut faults };
    let id = bench.need("id", id.as_ref().map(|id| &*id.0));
    let id = bench.id("id", id);
    let amount = bench.need("amount", amount);
    let amount = bench.amount("amount", amount);
    let (Some(id), Some(amount), true) = (id, amount, faults.is_empty()) else {
        return Err(Problem::faults(faults));
    };
    check_idempotency_key(&call.headers, id)?;
    let currency = find(gateway, call.client, &campaign).await?.campaign.currency;
    let transfer =
        domain::Request { id, amount, currency, campaign: &campaign, lane: Lane::Control, ..blank(kind) };
    let submission = Judge::new(call.client).record(transfer, true);
    let standing = gateway.accepting.submit_and_wait(submission).await?;
    let status = if standing.status.is_final() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(answer::status(status, &standing))
}
