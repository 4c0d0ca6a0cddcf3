//! Calls about the service itself: alive, ready, metrics, the spec. No credentials are asked for, and nothing
//! in them is a client's.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::answer::{json, with_body};
use super::port::Readiness;
use super::problem::Problem;
use super::{Gateway, openapi};
use crate::domain::Refusal;

pub async fn healthz() -> Response {
    with_body(StatusCode::OK, "application/json", br#"{"alive":true}"#.to_vec())
}

/// `ready`, the reason if not, and each further fact under its own name.
struct ReadyBody(Readiness);

impl Serialize for ReadyBody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("ready", &self.0.ready)?;
        if let Some(reason) = &self.0.reason {
            map.serialize_entry("reason", reason)?;
        }
        for (name, value) in &self.0.facts {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

pub async fn readyz(State(gateway): State<Arc<Gateway>>) -> Response {
    let readiness = gateway.vitals.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &ReadyBody(readiness))
}

pub async fn metrics(State(gateway): State<Arc<Gateway>>) -> Response {
    let text = gateway.vitals.metrics();
    // OpenMetrics is told from the older text format by its last line.
    let content_type = if text.ends_with("# EOF\n") {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; version=0.0.4; charset=utf-8"
    };
    with_body(StatusCode::OK, content_type, text.into_bytes())
}

pub async fn spec() -> Response {
    with_body(StatusCode::OK, "application/json", openapi::document().to_vec())
}

pub async fn unknown_route(uri: Uri) -> Problem {
    Problem::not_found(format!(
        "there is nothing at {}; see /openapi.json",
        crate::request::fault::shown(uri.path())
    ))
}

/// The router adds the Allow header to either answer.
pub async fn wrong_method(method: Method, uri: Uri) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    let detail = format!(
        "{method} is not allowed on {}; see the Allow header",
        crate::request::fault::shown(uri.path())
    );
    Problem::new(Refusal::MethodNotAllowed, detail).into_response()
}
