//! Calls to a running service over HTTP, one connection each, with errors for people.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::handshake;
use hyper::{Method, Request, Uri, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How long a call may take.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);

/// Where the service is, and as whom it is called.
pub struct Door {
    authority: String,
    base: String,
    key: Option<String>,
}

impl Door {
    pub fn new(url: Option<&str>, listen: SocketAddr, key: Option<&str>) -> anyhow::Result<Door> {
        let url = url.map_or_else(|| format!("http://{}", reachable(listen)), str::to_owned);
        let uri: Uri = url.parse().with_context(|| format!("--url {url} is no URL"))?;
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            bail!("--url {url} does not begin with http://host:port");
        };
        let port = authority.port_u16().unwrap_or(80);
        let host = authority.host();
        Ok(Door {
            authority: format!("{host}:{port}"),
            base: uri.path().trim_end_matches('/').to_owned(),
            key: key.map(str::to_owned),
        })
    }

    pub fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.call(Method::GET, path, None)
    }

    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> anyhow::Result<T> {
        self.call(Method::POST, path, Some(body))
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let called = runtime
            .block_on(async { tokio::time::timeout(ANSWER_WAIT_MAX, self.send(method, path, body)).await });
        let waited = || format!("{} did not answer within {} s", self.authority, ANSWER_WAIT_MAX.as_secs());
        let (status, bytes) = called.with_context(waited)??;
        if !(200..300).contains(&status) {
            bail!("{}", refusal(status, &bytes));
        }
        serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is not a hongbao that knows {path}", self.authority))
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<(u16, Bytes)> {
        let stream = tokio::net::TcpStream::connect(&self.authority).await.with_context(|| {
            format!(
                "no service answers at {}; is it running? Another address is given with --url",
                self.authority
            )
        })?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        let driven = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let body = body.map(ToString::to_string).unwrap_or_default();
        let response = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await?.to_bytes();
        driven.abort();
        Ok((status, bytes))
    }
}

/// An address to call for one that is listened on: all of them means this machine's own.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// What a problem says, in a sentence.
fn refusal(status: u16, body: &[u8]) -> String {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or("the answer is no problem of hongbao's");
    match status {
        401 => format!("{detail}; give the key with --key or HONGBAO_KEY"),
        _ => format!("the service refused ({status}): {detail}"),
    }
}

/// A query of the filters that are given.
pub fn query(filters: &[(&str, Option<&str>)]) -> String {
    let mut text = String::new();
    for (name, value) in filters {
        let Some(value) = value else { continue };
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(byte.into()),
                other => text.push_str(&format!("%{other:02X}")),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_queries() {
        let listen: SocketAddr = "0.0.0.0:8080".parse().unwrap();
        let table = [
            (None, Some(("127.0.0.1:8080", ""))),
            (Some("http://pay.example:90/base/"), Some(("pay.example:90", "/base"))),
            (Some("http://[::1]"), Some(("[::1]:80", ""))),
            (Some("https://pay.example"), None),
            (Some("127.0.0.1:8080"), None),
            (Some(""), None),
        ];
        for (url, expected) in table {
            let door = Door::new(url, listen, None).ok();
            let got = door.as_ref().map(|door| (door.authority.as_str(), door.base.as_str()));
            assert_eq!(got, expected, "{url:?}");
        }
        let filters = [("reason", None), ("campaign", Some("a+b/c")), ("limit", Some("5"))];
        assert_eq!(query(&filters), "?campaign=a%2Bb%2Fc&limit=5");
        assert_eq!(query(&[("reason", None)]), "");
    }

    #[test]
    fn refusals_are_told_plainly() {
        let table = [
            (422, r#"{"detail":"x is no reason"}"#, "x is no reason"),
            (401, "{}", "--key"),
            (502, "<", "502"),
        ];
        for (status, body, expected) in table {
            assert!(refusal(status, body.as_bytes()).contains(expected), "{status} {body}");
        }
    }
}
