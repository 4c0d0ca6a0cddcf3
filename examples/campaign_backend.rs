//! A campaign's backend: red packets that are split among those who claim them, paid through hongbao. A text to copy
//! habits from.
//!
//! ```text
//! PUT /packets/{id}           split once, shares stored
//! POST /packets/{id}/claims ─> one commit: the share is the user's, and its payout has an id ──> 202 to the user
//!                                                │
//!                payer: a batch is named and stored, then sent until the answer is definite
//!                                                │
//!                follower: looks up what was accepted until it is final ──> GET /packets/{id}/claims/{user}
//! ```
//!
//! What holds:
//!
//! 1. A payout's id is minted and on disk before anybody sends it. Whatever happens to this process or the network, the
//!    same claim is paid under the same id, and hongbao and the wallet pay one id once.
//! 2. The golden rule: on anything but a definite answer (no answer, 408, 429, 5xx, nonsense) the same id and the same
//!    body again, later. An id is never given up, and never replaced.
//! 3. Accepted is not paid: a user is told SUCCEEDED only after hongbao said that it is final.
//! 4. A user claims a packet once, and a packet pays out its total: the database says so, not the code.
//!
//! Absent: who the user is, and more than one process (SQLite is one file; the habits are the same over any database).
//!
//! `cargo run --release --example campaign_backend -- --hongbao http://127.0.0.1:8080`

#[path = "campaign_backend/books.rs"]
mod books;
#[path = "campaign_backend/payer.rs"]
mod payer;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use axum::extract::{Path as At, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use clap::Parser;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Notify;

use books::{Books, Claimed, Made, Share};
use payer::Payer;

/// Red packets, paid through hongbao.
#[derive(Clone, Parser)]
struct Options {
    /// Where hongbao listens.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    hongbao: String,
    /// Where this listens.
    #[arg(long, default_value = "127.0.0.1:8070")]
    listen: String,
    /// The file that holds packets, claims and payouts.
    #[arg(long, default_value = "campaign.db")]
    data: PathBuf,
    /// The campaign that pays; made and funded at the start.
    #[arg(long, default_value = "red-packets")]
    campaign: String,
    /// All packets together, in minor units.
    #[arg(long, default_value_t = 1_000_000_000_000)]
    budget: i64,
}

const SHARES_MAX: i64 = 100_000;

struct Backend {
    books: Books,
    claimed: Arc<Notify>,
    budget: i64,
}

#[derive(Deserialize)]
struct Packet {
    /// Minor units.
    total: i64,
    count: i64,
}

#[derive(Deserialize)]
struct Claimant {
    user: String,
}

fn said(status: StatusCode, code: &str) -> Response {
    (status, Json(json!({ "code": code }))).into_response()
}

/// The disk failed: nobody knows better than to ask again.
fn unavailable(error: &anyhow::Error) -> Response {
    eprintln!("campaign_backend: {error:#}");
    said(StatusCode::SERVICE_UNAVAILABLE, "try_again")
}

async fn make_packet(
    State(backend): State<Arc<Backend>>,
    At(id): At<String>,
    Json(packet): Json<Packet>,
) -> Response {
    let (total, count) = (packet.total, packet.count);
    let budget = backend.budget;
    if !(1..=SHARES_MAX).contains(&count) || !(count..=budget).contains(&total) {
        return said(StatusCode::UNPROCESSABLE_ENTITY, "total_or_count");
    }
    match backend.books.write(move |db| books::make(db, &id, total, count, budget)).await {
        Ok(Made::Now) => said(StatusCode::CREATED, "made"),
        Ok(Made::Before) => said(StatusCode::OK, "made"),
        Ok(Made::Differs) => said(StatusCode::CONFLICT, "packet_differs"),
        Ok(Made::BudgetExhausted) => said(StatusCode::CONFLICT, "budget_exhausted"),
        Err(error) => unavailable(&error),
    }
}

fn told(status: StatusCode, (payout, amount, standing, code): Share) -> Response {
    (status, Json(json!({ "payout": payout, "amount": amount, "status": standing, "code": code })))
        .into_response()
}

async fn take_share(
    State(backend): State<Arc<Backend>>,
    At(packet): At<String>,
    Json(claimant): Json<Claimant>,
) -> Response {
    let user = claimant.user;
    if user.is_empty() || user.len() > 64 {
        return said(StatusCode::UNPROCESSABLE_ENTITY, "user");
    }
    match backend.books.write(move |db| books::claim(db, &packet, &user)).await {
        Ok(Claimed::Now(share)) => {
            backend.claimed.notify_one();
            told(StatusCode::ACCEPTED, share)
        }
        Ok(Claimed::Before(share)) => told(StatusCode::OK, share),
        Ok(Claimed::Empty) => said(StatusCode::GONE, "packet_empty"),
        Ok(Claimed::NoPacket) => said(StatusCode::NOT_FOUND, "no_packet"),
        Err(error) => unavailable(&error),
    }
}

async fn show(State(backend): State<Arc<Backend>>, At((packet, user)): At<(String, String)>) -> Response {
    match backend.books.write(move |db| books::share_of(db, &packet, &user)).await {
        Ok(Some(share)) => told(StatusCode::OK, share),
        Ok(None) => said(StatusCode::NOT_FOUND, "no_claim"),
        Err(error) => unavailable(&error),
    }
}

async fn standing(State(backend): State<Arc<Backend>>) -> Response {
    match backend.books.write(books::standing).await {
        Ok(counts) => Json(counts.into_iter().collect::<BTreeMap<String, i64>>()).into_response(),
        Err(error) => unavailable(&error),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    // The client speaks plain HTTP here; it is made with TLS all the same. Fails only if there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (books, claimed) = (Books::open(&options.data)?, Arc::new(Notify::new()));
    let payer = Payer::new(&options.hongbao, &options.campaign, books.clone(), claimed.clone())?;
    payer.open_campaign(options.budget).await;
    let router = Router::new()
        .route("/packets/{id}", put(make_packet))
        .route("/packets/{id}/claims", post(take_share))
        .route("/packets/{id}/claims/{user}", get(show))
        .route("/standing", get(standing))
        .with_state(Arc::new(Backend { books, claimed, budget: options.budget }));
    let listen = &options.listen;
    let listener =
        tokio::net::TcpListener::bind(listen).await.with_context(|| format!("listening on {listen}"))?;
    println!("listening on http://{}", listener.local_addr()?);
    tokio::select! {
        served = axum::serve(listener, router).into_future() => served.context("serving"),
        paid = payer.pay() => paid,
        followed = payer.follow() => followed,
    }
}
