//! One keep-alive connection to the door, and the golden rule for callers.
//!
//! What holds: whatever went wrong, the same body with the same id is sent again until there is an answer that
//! says what became of it (anything but 408, 429 and 5xx). Absent: understanding the answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// No answer by then: its fate is unknown, and it is sent again.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(20);
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(2);
/// After so long without an answer the client gives up, and says so.
const PERSIST_MAX: Duration = Duration::from_secs(120);

/// Set once when everybody should come to an end.
#[derive(Clone, Debug, Default)]
pub struct Halt(Arc<AtomicBool>);

impl Halt {
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
    retry_after: Option<Duration>,
}

/// An answer, and what it took.
pub struct Settled {
    pub answer: Answer,
    /// How often it was sent; more than once, and a repeat may be recognised that nobody planned.
    pub attempts: u32,
}

pub struct Connection {
    address: SocketAddr,
    halt: Halt,
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// Whether the answer leaves open what became of the request.
fn is_passing(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
        || status.is_server_error()
}

impl Connection {
    pub fn new(address: SocketAddr, halt: Halt) -> Connection {
        Connection { address, halt, sender: None }
    }

    pub async fn post(&mut self, path: &str, body: String) -> anyhow::Result<Settled> {
        self.persist(Method::POST, path, body).await
    }

    pub async fn get(&mut self, path: &str) -> anyhow::Result<Settled> {
        self.persist(Method::GET, path, String::new()).await
    }

    pub async fn put(&mut self, path: &str, body: String) -> anyhow::Result<Settled> {
        self.persist(Method::PUT, path, body).await
    }

    /// Sends until answered.
    async fn persist(&mut self, method: Method, path: &str, body: String) -> anyhow::Result<Settled> {
        let body = Bytes::from(body);
        let began = Instant::now();
        let mut wait = RETRY_FIRST;
        for attempts in 1.. {
            let sent = tokio::time::timeout(ANSWER_WAIT_MAX, self.send(&method, path, &body)).await;
            let failure = match sent {
                Ok(Ok(answer)) if !is_passing(answer.status) => return Ok(Settled { answer, attempts }),
                Ok(Ok(answer)) => {
                    wait = answer.retry_after.unwrap_or(wait);
                    let text = String::from_utf8_lossy(&answer.body).into_owned();
                    anyhow::anyhow!("{}: {text}", answer.status)
                }
                // A connection that failed may still carry a late answer: it is not used again.
                Ok(Err(error)) => {
                    self.sender = None;
                    error
                }
                Err(_) => {
                    self.sender = None;
                    anyhow::anyhow!("no answer within {} s", ANSWER_WAIT_MAX.as_secs())
                }
            };
            if self.halt.is_set() || began.elapsed() > PERSIST_MAX {
                return Err(
                    failure.context(format!("{method} {path} was given up after {attempts} attempts"))
                );
            }
            tokio::time::sleep(wait.min(RETRY_WAIT_MAX)).await;
            wait = (wait * 2).min(RETRY_WAIT_MAX);
        }
        bail!("attempts ran out")
    }

    async fn send(&mut self, method: &Method, path: &str, body: &Bytes) -> anyhow::Result<Answer> {
        if self.sender.as_ref().is_none_or(SendRequest::is_closed) {
            self.sender = Some(connect(self.address).await?);
        }
        let sender = self.sender.as_mut().context("connected above")?;
        sender.ready().await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body.clone()))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let retry_after = response.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Answer { status, body, retry_after: retry_after.map(Duration::from_secs) })
    }
}

async fn connect(address: SocketAddr) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // How it ended is told to whoever waits for an answer.
        let _ = connection.await;
    });
    Ok(sender)
}
