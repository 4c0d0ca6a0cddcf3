//! A server that does nothing but answer, on the HTTP stack that hongbao is built on: the ceiling of its door.
//!
//! Started as a process of its own (`hongbao-loadtest bare`), as hongbao is. What holds: the same routes, and answers
//! of the same size as hongbao's. Absent: durability, memory, sense.

use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;

/// What it does with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Does {
    /// Receives it.
    Nothing,
    /// Reads it as JSON into what a request consists of.
    Parse,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    id: &'a str,
    #[serde(borrow, default)]
    payee: &'a str,
    amount: u64,
}

#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow)]
    items: Vec<Request<'a>>,
}

const SINGLE: &str = r#"{"id":"0a1b2c3d-0-1234567","status":"ACCEPTED","durability":"fsync","accepted_at":"2026-11-22T18:00:00.000Z","estimated_completion_at":"2026-11-22T18:00:00.000Z"}"#;
const BATCH: &str = r#"{"id":"0a1b2c3d-b-0-1234","status":"ACCEPTED","total_count":500,"accepted_count":500,"duplicate_count":0,"refused_count":0,"durability":"fsync","refused":[]}"#;

fn answer(is_good: bool, body: &'static str) -> Response {
    let status = if is_good { StatusCode::ACCEPTED } else { StatusCode::BAD_REQUEST };
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn is_request(request: &Request<'_>) -> bool {
    !request.id.is_empty() && !request.payee.is_empty() && request.amount > 0
}

fn router(does: Does) -> Router {
    let single = move |body: Bytes| async move {
        let is_good = does == Does::Nothing
            || serde_json::from_slice::<Request<'_>>(&body).is_ok_and(|request| is_request(&request));
        answer(is_good, SINGLE)
    };
    let batch = move |body: Bytes| async move {
        let is_good = does == Does::Nothing
            || serde_json::from_slice::<Batch<'_>>(&body)
                .is_ok_and(|batch| batch.items.iter().all(is_request));
        answer(is_good, BATCH)
    };
    Router::new().route("/v1/disbursements", post(single)).route("/v1/batches", post(batch))
}

/// Serves until it is killed.
pub fn serve(does: Does, listen: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(listen).await?;
        println!("listening on http://{}", listener.local_addr()?);
        std::io::Write::flush(&mut std::io::stdout())?;
        use axum::serve::ListenerExt;
        let listener = listener.tap_io(|stream| {
            // One that is closed already is found out when it is read.
            let _ = stream.set_nodelay(true);
        });
        axum::serve(listener, router(does)).await?;
        anyhow::Ok(())
    })
}
