//! The HTTP wallet against a server that does exactly what a test's script says, byte by byte.
//!
//! `replies` is the table of everything a wallet can answer; `wire` is about connections, headers and bodies;
//! `setup` about settings and TLS.

mod replies;
mod setup;
mod wire;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{HttpOptions, HttpWallet};
use crate::domain::{Amount, Currency, Transfer, TransferKind};
use crate::stored_value::TransferBatch;

/// Longer than anything here takes on a slow machine, and far shorter than a test that hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What the server does next on a connection.
#[derive(Clone)]
pub(super) enum Act {
    ReadHead,
    /// The rest of the request, as its content-length says.
    ReadBody,
    Send(Vec<u8>),
    /// One byte, a pause, the next byte.
    Drip(Vec<u8>, Duration),
    /// These bytes for ever.
    Endless(Vec<u8>),
    /// Says nothing more and keeps the connection.
    Hang,
    /// From the beginning, on the same connection.
    Again,
}

/// A request as it came over the wire.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub head: String,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// Plays one script on every connection; a connection closes where its script ends.
pub(super) struct Scripted {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    /// Connections that neither side has closed.
    pub open: Arc<AtomicUsize>,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Scripted {
    pub async fn start(script: Vec<Act>) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, open): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (count, still_open, log) = (connections.clone(), open.clone(), seen.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                still_open.fetch_add(1, Ordering::SeqCst);
                let (script, still_open, log) = (script.clone(), still_open.clone(), log.clone());
                tokio::spawn(async move {
                    play(stream, &script, &log).await;
                    still_open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Scripted { address, connections, open, seen, accepting }
    }

    pub fn wallet(&self) -> HttpWallet {
        HttpWallet::new(&self.options()).unwrap()
    }

    pub fn options(&self) -> HttpOptions {
        HttpOptions {
            url: format!("http://{}", self.address),
            authorization: SECRET.to_owned(),
            ca_file: String::new(),
            connections_max: 4,
        }
    }

    pub fn requests(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

pub(super) const SECRET: &str = "Bearer s3cr3t-of-the-wallet";

pub(super) async fn play<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    script: &[Act],
    log: &Mutex<Vec<Seen>>,
) {
    let mut seen = Seen::default();
    let mut at = 0;
    while let Some(act) = script.get(at) {
        at += 1;
        let done = match act {
            Act::ReadHead => read_head(&mut stream, &mut seen).await,
            Act::ReadBody => {
                let read = read_body(&mut stream, &mut seen).await;
                log.lock().unwrap().push(seen.clone());
                read
            }
            Act::Send(bytes) => stream.write_all(bytes).await.is_ok(),
            Act::Drip(bytes, pause) => drip(&mut stream, bytes, *pause).await,
            Act::Endless(bytes) => loop {
                if stream.write_all(bytes).await.is_err() {
                    break false;
                }
            },
            Act::Hang => std::future::pending().await,
            Act::Again => {
                at = 0;
                true
            }
        };
        if !done {
            return;
        }
    }
    let _ = stream.shutdown().await;
}

async fn read_head<S: AsyncRead + Unpin>(stream: &mut S, seen: &mut Seen) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    *seen = Seen { head: String::from_utf8(head).unwrap(), body: Vec::new() };
    true
}

async fn read_body<S: AsyncRead + Unpin>(stream: &mut S, seen: &mut Seen) -> bool {
    let length = seen.header("content-length").map_or(0, |length| length.parse().unwrap());
    seen.body = vec![0; length];
    stream.read_exact(&mut seen.body).await.is_ok()
}

async fn drip<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8], pause: Duration) -> bool {
    for byte in bytes {
        if stream.write_u8(*byte).await.is_err() || stream.flush().await.is_err() {
            return false;
        }
        tokio::time::sleep(pause).await;
    }
    true
}

/// A whole reply with its length.
pub(super) fn reply(status: &str, headers: &[&str], body: &str) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status}\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    text.into_bytes()
}

pub(super) fn json(body: &str) -> Vec<u8> {
    reply("200 OK", &["content-type: application/json"], body)
}

/// Reads the request, sends these bytes, and closes.
pub(super) fn says(bytes: Vec<u8>) -> Vec<Act> {
    vec![Act::ReadHead, Act::ReadBody, Act::Send(bytes)]
}

/// Answers every request on a connection with these bytes.
pub(super) fn keeps_saying(bytes: Vec<u8>) -> Vec<Act> {
    vec![Act::ReadHead, Act::ReadBody, Act::Send(bytes), Act::Again]
}

/// A batch of payments from one account, under these ids.
pub(super) fn batch(ids: &[&str]) -> Arc<TransferBatch> {
    let mut batch = TransferBatch::default();
    for id in ids {
        batch.push(&Transfer {
            kind: TransferKind::Transfer,
            id: id.as_bytes(),
            key_hash: 0,
            digest: [0; 16],
            debit: b"campaign:shop:spring",
            credit: b"person:li",
            amount: Amount::new(188).unwrap(),
            currency: Currency::parse("CNY").unwrap(),
            of: b"",
        });
    }
    Arc::new(batch)
}
