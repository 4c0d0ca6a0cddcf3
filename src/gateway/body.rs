//! Taking in a body: its type, its size, and how long it may take to arrive.
//!
//! The bounds hold while the body arrives: an oversize one is refused at its declared length or at the first
//! byte too many, a slow one when its time is up. In both cases the connection ends, because what is left of
//! the request is not read.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use bytes::BytesMut;
use http_body_util::BodyExt;

use super::problem::Problem;
use crate::domain::Refusal;
use crate::request::fault::{FaultCode, Faults, Place};

#[derive(Clone, Copy, Debug)]
pub struct BodyBounds {
    pub bytes_max: usize,
    pub timeout: Duration,
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(Refusal::BodyTooLarge, format!("the body may hold at most {bytes_max} bytes")).closing()
}

/// Reads the whole body within its bounds.
pub async fn read(headers: &HeaderMap, mut body: Body, bounds: BodyBounds) -> Result<Bytes, Problem> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length: u64| length > bounds.bytes_max as u64) {
        return Err(too_large(bounds.bytes_max));
    }
    // The timer is armed only if the body is not there yet, which for small ones it mostly is.
    let Ok(read) = tokio::time::timeout(bounds.timeout, collect(&mut body, bounds.bytes_max)).await else {
        let detail = format!("the body did not arrive within {} ms", bounds.timeout.as_millis());
        return Err(Problem::new(Refusal::RequestTimeout, detail).closing());
    };
    read
}

async fn collect(body: &mut Body, bytes_max: usize) -> Result<Bytes, Problem> {
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Problem::new(Refusal::MalformedJson, format!("the body ended too early: {error}")).closing()
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + whole.len() + data.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        // A body in one piece, as most are, is passed on without a copy.
        if first.is_empty() && whole.is_empty() {
            first = data;
            continue;
        }
        if whole.is_empty() {
            whole.extend_from_slice(&first);
            first = Bytes::new();
        }
        whole.extend_from_slice(&data);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

/// Asks for `application/json`, with or without parameters.
pub fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Err(Problem::new(Refusal::UnsupportedMediaType, "send `Content-Type: application/json`"));
    };
    let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if essence.eq_ignore_ascii_case(b"application/json") {
        return Ok(());
    }
    let detail = "the body must be sent as `Content-Type: application/json`";
    Err(Problem::new(Refusal::UnsupportedMediaType, detail))
}

/// The body as text. JSON is UTF-8; checked once here, it need not be checked string by string.
pub fn text(bytes: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        Problem::new(Refusal::MalformedJson, format!("not UTF-8 at line {line} column {column}"))
    })
}

/// The `Idempotency-Key` header may be sent, bare or in quotes, if it says the same as the id.
pub fn check_idempotency_key(headers: &HeaderMap, id: &str) -> Result<(), Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(()) };
    let bare = value.as_bytes().trim_ascii();
    let bare = bare.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(bare);
    if bare == id.as_bytes() {
        return Ok(());
    }
    let mut faults = Faults::default();
    let detail = "the Idempotency-Key header says another id; leave it out, or send the id";
    faults.add(Place::Top, "id", FaultCode::Mismatch, detail);
    Err(Problem::faults(faults))
}
