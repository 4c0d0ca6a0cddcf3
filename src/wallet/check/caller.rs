//! Calls to the wallet under check.

use std::time::Duration;

use crate::stored_value::contract::{Entry, Identity, Ids, Outcome, Results, Transfers};

/// How long anything may take at all.
const TIMEOUT: Duration = Duration::from_secs(30);
/// What is told back of an answer that was not understood.
const SHOWN_CHARS: usize = 200;

/// Why the check cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    #[error("{url:?} is not the URL of a wallet; write it like http://127.0.0.1:8090")]
    Url { url: String },
    #[error("no HTTP client can be made: {0}")]
    Client(#[from] reqwest::Error),
    #[error("currency {0:?} is not three capital letters")]
    Currency(String),
}

/// An answer as it came.
#[derive(Debug)]
pub struct Raw {
    pub status: u16,
    pub text: String,
}

impl Raw {
    pub fn shown(&self) -> String {
        let text: String = self.text.chars().take(SHOWN_CHARS).collect();
        format!("HTTP {} {text}", self.status)
    }
}

/// Why a call gave no results.
#[derive(Debug)]
pub enum CallFailed {
    /// No answer, or one that is not the contract's.
    Broken(String),
    /// The wallet refused it.
    Refused(Raw),
}

impl CallFailed {
    pub fn shown(&self) -> String {
        match self {
            CallFailed::Broken(reason) => reason.clone(),
            CallFailed::Refused(raw) => raw.shown(),
        }
    }
}

pub struct Caller {
    client: reqwest::Client,
    base: String,
    authorization: Option<String>,
}

impl Caller {
    pub fn new(url: &str, authorization: Option<String>) -> Result<Caller, CallerError> {
        // Fails where a provider is installed already, which is as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = url.trim_end_matches('/').to_owned();
        if reqwest::Url::parse(&base).ok().is_none_or(|url| !url.has_host()) {
            return Err(CallerError::Url { url: url.to_owned() });
        }
        let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
        Ok(Caller { client, base, authorization })
    }

    pub fn is_authorized(&self) -> bool {
        self.authorization.is_some()
    }

    /// Without a body it is a GET, otherwise a POST of JSON.
    pub async fn raw(&self, path: &str, body: Option<String>) -> Result<Raw, String> {
        self.raw_as(self.authorization.as_deref(), path, body).await
    }

    pub async fn raw_as(
        &self,
        authorization: Option<&str>,
        path: &str,
        body: Option<String>,
    ) -> Result<Raw, String> {
        let url = format!("{}{path}", self.base);
        let mut request = match body {
            None => self.client.get(url),
            Some(body) => self.client.post(url).header("content-type", "application/json").body(body),
        };
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let failed = |error: reqwest::Error| format!("no answer: {}", with_cause(&error));
        let response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        Ok(Raw { status, text: response.text().await.map_err(failed)? })
    }

    pub async fn identity(&self) -> Result<String, CallFailed> {
        let raw = self.raw("/v1/identity", None).await.map_err(CallFailed::Broken)?;
        read(raw).map(|body: Identity| body.identity)
    }

    pub async fn transfers(
        &self,
        transfers: &[Entry<'_>],
        deadline_ms: u64,
    ) -> Result<Vec<Outcome>, CallFailed> {
        let body = Transfers { deadline_ms, transfers: transfers.to_vec() };
        let ids: Vec<String> = transfers.iter().map(|entry| entry.id.clone().into_owned()).collect();
        self.results("/v1/transfers", serde_json::to_string(&body), &ids).await
    }

    pub async fn lookup(&self, ids: &[String]) -> Result<Vec<Outcome>, CallFailed> {
        let body = Ids { ids: ids.to_vec() };
        self.results("/v1/transfers/lookup", serde_json::to_string(&body), ids).await
    }

    pub async fn burn(&self, ids: &[String]) -> Result<Vec<Outcome>, CallFailed> {
        let body = Ids { ids: ids.to_vec() };
        self.results("/v1/transfers/burn", serde_json::to_string(&body), ids).await
    }

    /// One result an entry, in their order: insisted on of every call.
    async fn results(
        &self,
        path: &str,
        body: serde_json::Result<String>,
        ids: &[String],
    ) -> Result<Vec<Outcome>, CallFailed> {
        let body = body.map_err(|error| CallFailed::Broken(error.to_string()))?;
        let raw = self.raw(path, Some(body)).await.map_err(CallFailed::Broken)?;
        let Results { results } = read(raw)?;
        if results.len() != ids.len() {
            let (got, sent) = (results.len(), ids.len());
            return Err(CallFailed::Broken(format!("{path} answered {got} results for {sent} entries")));
        }
        let swapped = results.iter().zip(ids).position(|(result, id)| result.id != *id);
        if let Some(at) = swapped {
            let (got, sent) = (&results[at].id, &ids[at]);
            let reason = format!("{path}: result {at} is about {got:?}, entry {at} was {sent:?}");
            return Err(CallFailed::Broken(reason));
        }
        Ok(results)
    }
}

fn read<T: serde::de::DeserializeOwned>(raw: Raw) -> Result<T, CallFailed> {
    match raw.status {
        200 => serde_json::from_str(&raw.text).map_err(|error| {
            CallFailed::Broken(format!("not as the contract says ({error}): {}", raw.shown()))
        }),
        _ => Err(CallFailed::Refused(raw)),
    }
}

/// reqwest says what it was doing; why it failed is in the cause.
fn with_cause(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
