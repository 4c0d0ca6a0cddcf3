//! One request and its reply: sent once, within a deadline, and never more bytes than such a reply can have.
//!
//! The deadline covers everything from the connection to the last byte, so a wallet that drips is as late as one
//! that is silent. It ends a little after the one that the wallet is told, so that a wallet that keeps to its word
//! is always heard.

use std::error::Error;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Response, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::refusal;
use super::setup::CONNECT_DEADLINE;
use super::trace::Trace;
use crate::stored_value::remote::CallError;

/// What a reply may have at most: ids and references are far shorter, even with every character escaped.
const REPLY_BYTES_PER_ENTRY: usize = 2 << 10;
const REPLY_BYTES_BASE: usize = 16 << 10;
/// What is read of a refusal, for its title and detail.
const PROBLEM_BYTES_MAX: usize = 16 << 10;
/// What a reason may hold of texts that the wallet chose.
const REASON_BYTES_MAX: usize = 512;
/// The time on the wire that the wallet's answer is allowed: a tenth of the deadline, at most this.
const MARGIN_MAX: Duration = Duration::from_millis(200);
/// Beyond this a deadline is none, and sums of times stay far from overflow.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The deadline that the wallet is told when the caller waits for this long.
pub(super) fn deadline_told(deadline: Duration) -> Duration {
    deadline.saturating_sub((deadline / 10).min(MARGIN_MAX))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Identity,
    Transfer,
    Burn,
    Lookup,
}

impl Call {
    const fn path(self) -> &'static str {
        match self {
            Call::Identity => "/v1/identity",
            Call::Transfer => "/v1/transfers",
            Call::Burn => "/v1/transfers/burn",
            Call::Lookup => "/v1/transfers/lookup",
        }
    }

    const fn method(self) -> &'static str {
        match self {
            Call::Identity => "GET",
            Call::Transfer | Call::Burn | Call::Lookup => "POST",
        }
    }
}

pub(super) struct Endpoint {
    /// Base URL without a slash at its end.
    pub base: String,
    pub client: reqwest::Client,
    /// What no error may tell, even where the wallet says it back to us.
    pub secrets: Vec<String>,
}

/// Where a reply comes from, for the text of errors.
pub(super) struct Origin<'a> {
    endpoint: &'a Endpoint,
    call: Call,
    trace: Trace,
}

impl Origin<'_> {
    /// A reason in one bounded line: what was called, what is wrong, and the trace to find it by.
    pub fn says(&self, what: &str) -> String {
        let secrets = self.endpoint.secrets.iter();
        let what = secrets.fold(what.to_owned(), |what, secret| what.replace(secret, "…"));
        let what = printable(&what, REASON_BYTES_MAX);
        let (method, base, path) = (self.call.method(), &self.endpoint.base, self.call.path());
        format!("{method} {base}{path}: {what} (trace {})", self.trace.id)
    }

    pub fn unknown(&self, what: &str) -> CallError {
        CallError::Unknown(self.says(what))
    }
}

/// The body of a 200 that says it is JSON.
pub(super) struct Reply<'a> {
    pub body: Vec<u8>,
    pub origin: Origin<'a>,
}

impl Endpoint {
    /// Sends one request about `entries` entries and reads what comes back.
    pub async fn call(
        &self,
        call: Call,
        body: Vec<u8>,
        entries: usize,
        deadline: Duration,
    ) -> Result<Reply<'_>, CallError> {
        let started = Instant::now();
        let deadline = deadline.min(DEADLINE_MAX);
        let until = started + deadline;
        let origin = Origin { endpoint: self, call, trace: Trace::new() };
        let late = |_| CallError::TimedOut { after_ms: deadline.as_millis() as u64 };

        let sent = timeout_at(until, self.request(&origin, body).send()).await.map_err(late)?;
        let response = sent.map_err(|error| origin.unknown(&broken(&error)))?;
        if response.status() != StatusCode::OK {
            let (status, headers) = (response.status(), response.headers().clone());
            // The status code stands, whatever becomes of the explanation.
            let problem = timeout_at(until, read(response, PROBLEM_BYTES_MAX)).await;
            let problem = problem.ok().and_then(Result::ok).unwrap_or_default();
            return Err(refusal::refusal(&origin, status, &headers, &problem, started.elapsed()));
        }
        if !says_json(&response) {
            let told = response.headers().get(CONTENT_TYPE).map(|value| value.as_bytes().escape_ascii());
            let told = told.map_or_else(|| "none".to_owned(), |told| told.to_string());
            return Err(
                origin.unknown(&format!("answered 200 with the content type {told}, not application/json"))
            );
        }
        let bytes_max = REPLY_BYTES_BASE + entries * REPLY_BYTES_PER_ENTRY;
        let body = timeout_at(until, read(response, bytes_max)).await.map_err(late)?;
        match body {
            Ok(body) => Ok(Reply { body, origin }),
            Err(unread) => Err(origin.unknown(&unread)),
        }
    }

    fn request(&self, origin: &Origin<'_>, body: Vec<u8>) -> reqwest::RequestBuilder {
        let url = format!("{}{}", self.base, origin.call.path());
        let request = match origin.call {
            Call::Identity => self.client.get(url),
            Call::Transfer | Call::Burn | Call::Lookup => {
                self.client.post(url).header(CONTENT_TYPE, "application/json").body(body)
            }
        };
        request.header(ACCEPT, "application/json").header("traceparent", origin.trace.traceparent())
    }
}

fn says_json(response: &Response) -> bool {
    let value = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let kind = value.split(';').next().unwrap_or("").trim();
    kind.eq_ignore_ascii_case("application/json")
}

/// The body to its end, or why there is none.
async fn read(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, String> {
    let too_long = || format!("the reply is longer than the {bytes_max} bytes that such a reply can have");
    let announced = response.content_length().unwrap_or(0);
    if announced > bytes_max as u64 {
        return Err(too_long());
    }
    let mut body = Vec::with_capacity(announced as usize);
    while let Some(piece) = response.chunk().await.map_err(|error| broken(&error))? {
        if body.len() + piece.len() > bytes_max {
            return Err(too_long());
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// What broke, and in which phase.
fn broken(error: &reqwest::Error) -> String {
    let causes = causes(error);
    if rejects_certificate(error) {
        return format!(
            "the wallet's certificate is not trusted: {causes}; check it and stored_value.http.ca_file"
        );
    }
    match (error.is_connect(), error.is_timeout()) {
        (true, true) => format!("no connection within {} ms", CONNECT_DEADLINE.as_millis()),
        (true, false) => format!("cannot connect: {causes}"),
        (false, _) if error.is_body() || error.is_decode() => format!("the reply broke off: {causes}"),
        (false, _) => format!("the connection broke before a reply: {causes}"),
    }
}

/// The chain of causes below an error. Its own text is left out: it repeats the URL.
pub(super) fn causes(error: &reqwest::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        next = cause.source();
    }
    texts.join(": ")
}

fn rejects_certificate(error: &reqwest::Error) -> bool {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = cause.downcast_ref::<rustls::Error>() {
            return true;
        }
        // An I/O error hides what it wraps from the chain.
        let wrapped = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = wrapped.map_or_else(|| cause.source(), |inner| Some(inner as &(dyn Error + 'static)));
    }
    false
}

/// Text that somebody else chose, fit for a log: no control characters, and cut at a character.
pub(super) fn printable(text: &str, bytes_max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(bytes_max));
    for c in text.chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > bytes_max {
            break;
        }
        out.push(c);
    }
    out
}
