//! The door: HTTP in, durable acceptance out.
//!
//! ```text
//! serve ─> routes ─> payouts · batches · campaigns · lists · parked · service ─> port
//!                        │ body ─> request: read, judged, stamped
//!                        └ answer, problem
//! ```
//!
//! What holds here: every refusal is a problem (RFC 9457); a 202 is written only after the port said that the request is
//! durable; every body, list and wait has a bound. Absent on purpose: state. The door knows no campaign, no
//! budget and no identity; whatever depends on them, or on order, is asked through the ports.

mod answer;
mod batches;
pub mod body;
mod campaigns;
mod client;
mod lists;
mod openapi;
mod parked;
mod payouts;
pub mod port;
pub mod problem;
mod routes;
mod serve;
mod service;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Path, Request};
use axum::http::HeaderMap;
use axum::http::request::Parts;

pub use client::{DEFAULT_CLIENT, check_listen};
pub use serve::serve;

use crate::domain::{Refusal, UnixMs};
use crate::request::fault::{Faults, Place};
use crate::request::judge::Bench;
use crate::request::shape::BATCH_ITEMS_MAX;
use crate::request::{diagnose, shape};
use body::BodyBounds;
use client::Clients;
use port::{Accepting, Looking, Vitals, Waiting};
use problem::Problem;

/// Why the door cannot be opened. None of these pass by themselves: the configuration must change.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error(
        "refusing to listen on {address}: it can be reached from other machines and no credentials are set; \
         listen on 127.0.0.1, or give every caller a key under [gateway.clients]"
    )]
    Exposed { address: SocketAddr },
    #[error("client {name:?} in [gateway.clients] cannot be used: {reason}")]
    Client { name: String, reason: String },
}

/// How the door is set up.
#[derive(Clone, Debug)]
pub struct Options {
    pub body_bytes_max: usize,
    /// How long a request's head may take to arrive; an idle connection is closed after it, too.
    pub header_timeout: Duration,
    /// How long a request's body may take to arrive.
    pub body_timeout: Duration,
    /// Connections served at a time; further ones wait in the listener's backlog.
    pub connections_max: usize,
    /// How long open connections may take to finish when the service stops.
    pub drain_timeout: Duration,
    /// At most [`BATCH_ITEMS_MAX`].
    pub batch_items_max: usize,
    /// Bearer key of each client by its name; none: every call acts for [`DEFAULT_CLIENT`].
    pub clients: Option<BTreeMap<String, String>>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            body_bytes_max: 8 << 20,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(10),
            connections_max: 10_000,
            drain_timeout: Duration::from_secs(10),
            batch_items_max: BATCH_ITEMS_MAX,
            clients: None,
        }
    }
}

/// Checks names and keys of clients without opening the door.
pub fn check_clients(clients: &BTreeMap<String, String>) -> Result<(), GatewayError> {
    Clients::new(Some(clients)).map(drop)
}

/// Tells the time, in Unix ms.
pub type Clock = Arc<dyn Fn() -> UnixMs + Send + Sync>;

/// What every call is answered from.
pub struct Gateway {
    body_bounds: BodyBounds,
    batch_items_max: usize,
    clients: Clients,
    accepting: Arc<dyn Accepting>,
    looking: Arc<dyn Looking>,
    waiting: Arc<dyn Waiting>,
    vitals: Arc<dyn Vitals>,
    clock: Clock,
}

/// A call that passed the credentials, with its body taken in.
struct Opened<'g> {
    client: &'g str,
    headers: HeaderMap,
    body: Bytes,
}

impl Gateway {
    pub fn new(
        options: &Options,
        accepting: Arc<dyn Accepting>,
        looking: Arc<dyn Looking>,
        waiting: Arc<dyn Waiting>,
        vitals: Arc<dyn Vitals>,
        clock: Clock,
    ) -> Result<Gateway, GatewayError> {
        Ok(Gateway {
            body_bounds: BodyBounds { bytes_max: options.body_bytes_max, timeout: options.body_timeout },
            batch_items_max: options.batch_items_max.min(BATCH_ITEMS_MAX),
            clients: Clients::new(options.clients.as_ref())?,
            accepting,
            looking,
            waiting,
            vitals,
            clock,
        })
    }

    pub fn into_router(self) -> Router {
        routes::router(self)
    }

    /// Takes in a call whose body is JSON.
    async fn open(&self, request: Request) -> Result<Opened<'_>, Problem> {
        let (parts, body) = request.into_parts();
        let client = self.clients.name(&parts.headers)?;
        body::check_type(&parts.headers)?;
        let body = self.take(&parts.headers, body).await?;
        Ok(Opened { client, headers: parts.headers, body })
    }

    /// Takes in a call that says everything in its path: no body, or an empty object.
    async fn open_bare(&self, request: Request) -> Result<&str, Problem> {
        let (parts, body) = request.into_parts();
        let client = self.clients.name(&parts.headers)?;
        let body = self.take(&parts.headers, body).await?;
        if body.trim_ascii().is_empty() {
            return Ok(client);
        }
        body::check_type(&parts.headers)?;
        let mut faults = Faults::default();
        diagnose::object(body::text(&body)?, &shape::NOTHING, &mut faults)?;
        if faults.is_empty() { Ok(client) } else { Err(Problem::faults(faults)) }
    }

    async fn take(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
        body::read(headers, body, self.body_bounds).await
    }
}

/// The id in the path of a call.
struct PathId(String);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<PathId, Problem> {
        let Ok(Path(id)) = Path::<String>::from_request_parts(parts, state).await else {
            return Err(Problem::new(Refusal::InvalidField, "the id in the path is not UTF-8"));
        };
        let mut faults = Faults::default();
        Bench { place: Place::Top, faults: &mut faults }.id("id", Some(&id));
        if faults.is_empty() {
            return Ok(PathId(id));
        }
        Err(Problem::faults(faults))
    }
}

#[cfg(test)]
mod tests;
