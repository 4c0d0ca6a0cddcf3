//! The settings of the HTTP wallet, checked, become a client.
//!
//! Whatever can be wrong with a setting is found here and named, before the first transfer depends on it. No error
//! and no `Debug` shows the authorization, or what stands in a URL where a password or a token could be.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use super::exchange::Endpoint;

/// A wallet that is up takes a connection in far less; one that is not shall not eat the whole deadline.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// Idle connections are let go before the usual server (60 s and more) or balancer does it in mid-request.
const IDLE_DEADLINE: Duration = Duration::from_secs(30);
/// A shorter credential would blot out ordinary words where it is hidden from an error's text.
const SECRET_BYTES_MIN: usize = 8;

#[derive(Clone, Default)]
pub struct HttpOptions {
    /// Base URL of the wallet service, without `/v1`.
    pub url: String,
    /// Value of the `Authorization` header; empty: none is sent.
    pub authorization: String,
    /// PEM file of the only authority that is trusted; empty: the system's.
    pub ca_file: String,
    /// Idle connections that are kept for the next call.
    pub connections_max: usize,
}

impl fmt::Debug for HttpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpOptions")
            .field("url", &shown(&self.url))
            .field("authorization", &if self.authorization.is_empty() { "" } else { "…" })
            .field("ca_file", &self.ca_file)
            .field("connections_max", &self.connections_max)
            .finish()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum HttpSetupError {
    #[error(
        "stored_value.http.url = {url:?} is not a URL: {reason}; give one as in \"https://wallet.example\""
    )]
    Url { url: String, reason: String },
    #[error("stored_value.http.url = {url:?} has the scheme {scheme:?}; only http and https are spoken")]
    Scheme { url: String, scheme: String },
    #[error("stored_value.http.url = {url:?} has a query or a fragment; give the base URL alone")]
    Query { url: String },
    #[error(
        "stored_value.http.url = {url:?} holds a user or a password; put them into \
         stored_value.http.authorization"
    )]
    Credentials { url: String },
    #[error("stored_value.http.url = {url:?} ends in /v1, which is added to it; leave it out")]
    Version { url: String },
    #[error(
        "stored_value.http.authorization holds a character that no header can carry, such as a line break; \
         give the value on one line, as in \"Bearer …\""
    )]
    Authorization,
    #[error("stored_value.http.ca_file = {file:?} cannot be used: {reason}; give a PEM file of certificates")]
    CaFile { file: String, reason: String },
    #[error(
        "the system's certificate authorities cannot be used: {0}; install them (ca-certificates) or set \
         stored_value.http.ca_file"
    )]
    SystemRoots(String),
    #[error("the client for stored_value.http cannot be made: {0}")]
    Client(String),
}

/// The URL as it may be told: without user, password and query.
fn shown(url: &str) -> String {
    let before_query = url.split(['?', '#']).next().unwrap_or("");
    let (scheme, rest) = before_query.split_once("://").unwrap_or(("", before_query));
    let host_on = rest.rsplit_once('@').map_or(rest, |(_, after)| after);
    let cut = if host_on.len() < rest.len() { "…@" } else { "" };
    let colon = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{colon}{cut}{host_on}")
}

/// The client of these settings, or the setting that is wrong.
pub(super) fn endpoint(options: &HttpOptions) -> Result<Endpoint, HttpSetupError> {
    let url = base_url(&options.url)?;
    let mut headers = HeaderMap::new();
    let authorization = options.authorization.as_str();
    if !authorization.is_empty() {
        let mut value = HeaderValue::from_str(authorization).map_err(|_| HttpSetupError::Authorization)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let client = reqwest::Client::builder()
        .user_agent(concat!("hongbao/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .http1_only()
        .no_proxy()
        .referer(false)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_DEADLINE)
        .pool_idle_timeout(IDLE_DEADLINE)
        .pool_max_idle_per_host(options.connections_max)
        .tls_backend_preconfigured(tls(&url, &options.ca_file)?)
        .build()
        .map_err(|error| HttpSetupError::Client(super::exchange::causes(&error)))?;
    let token = authorization.split_once(' ').map_or("", |(_, token)| token);
    let secrets = [authorization, token]
        .into_iter()
        .filter(|secret| secret.len() >= SECRET_BYTES_MIN)
        .map(str::to_owned)
        .collect();
    Ok(Endpoint { base: url.as_str().trim_end_matches('/').to_owned(), client, secrets })
}

fn base_url(text: &str) -> Result<Url, HttpSetupError> {
    let url = || shown(text);
    let parsed =
        Url::parse(text).map_err(|error| HttpSetupError::Url { url: url(), reason: error.to_string() })?;
    if !["http", "https"].contains(&parsed.scheme()) {
        return Err(HttpSetupError::Scheme { url: url(), scheme: parsed.scheme().to_owned() });
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(HttpSetupError::Credentials { url: url() });
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(HttpSetupError::Query { url: url() });
    }
    if parsed.path().trim_end_matches('/').ends_with("/v1") {
        return Err(HttpSetupError::Version { url: url() });
    }
    Ok(parsed)
}

/// What is trusted: the authority in `ca_file` and no other, or else the system's.
fn tls(url: &Url, ca_file: &str) -> Result<ClientConfig, HttpSetupError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| HttpSetupError::Client(error.to_string()))?;
    if !ca_file.is_empty() {
        return Ok(builder.with_root_certificates(authorities(ca_file)?).with_no_client_auth());
    }
    if url.scheme() == "http" {
        // Nothing will be verified; a system without authorities can still speak plain HTTP.
        return Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    }
    let verifier = system_verifier(provider)?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn system_verifier(provider: Arc<CryptoProvider>) -> Result<Arc<Verifier>, HttpSetupError> {
    let verifier = Verifier::new(provider).map_err(|error| HttpSetupError::SystemRoots(error.to_string()))?;
    Ok(Arc::new(verifier))
}

fn authorities(file: &str) -> Result<RootCertStore, HttpSetupError> {
    let unusable = |reason: String| HttpSetupError::CaFile { file: file.to_owned(), reason };
    let text = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    Ok(roots)
}
