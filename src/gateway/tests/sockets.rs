//! The door on a real socket: slow and half-sent requests, oversize bodies, full house, drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::fake::Fake;
use super::{disbursement, door};
use crate::gateway::{Options, serve};

struct Open {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

async fn open(options: Options) -> Open {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = door(&Arc::new(Fake::default()), &options);
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        serve(listener, router, &options, async { drop(stopped.await) }).await;
    });
    Open { address, stop, serving }
}

fn quick() -> Options {
    Options {
        body_bytes_max: 1_000,
        header_timeout: Duration::from_millis(200),
        body_timeout: Duration::from_millis(200),
        drain_timeout: Duration::from_millis(300),
        ..Options::default()
    }
}

/// Sends `text` and reads until the other side closes, or a second and a half passed.
async fn exchange(address: SocketAddr, text: &str) -> (String, bool) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let closed = tokio::time::timeout(Duration::from_millis(1_500), read).await.is_ok();
    (String::from_utf8(answer).unwrap(), closed)
}

fn post(length: usize, body: &str) -> String {
    format!(
        "POST /v1/disbursements HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn slow_half_sent_and_oversize() {
    let open = open(quick()).await;
    let chunk = format!("3e8\r\n{}\r\n", "x".repeat(1_000));
    let chunked = "POST /v1/disbursements HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                   transfer-encoding: chunked\r\n\r\n";
    let table: [(&str, String, &str, &str); 8] = [
        ("nothing", String::new(), "", ""),
        ("half a head", "POST /v1/disb".to_owned(), "", ""),
        ("half a head, ended lines", "POST /v1/disbursements HTTP/1.1\r\nhost: x\r\n".to_owned(), "", ""),
        ("half a body", post(100, "{\"id\":"), "HTTP/1.1 408", "request_timeout"),
        ("declared too large", post(1_001, ""), "HTTP/1.1 413", "body_too_large"),
        ("grown too large", format!("{chunked}{chunk}{chunk}"), "HTTP/1.1 413", "body_too_large"),
        ("half a chunk", format!("{chunked}3e8\r\n{{\"id\""), "HTTP/1.1 408", "request_timeout"),
        ("not HTTP", "hello\r\n\r\n".to_owned(), "HTTP/1.1 400", ""),
    ];
    for (name, text, starts, holds) in table {
        let (answer, closed) = exchange(open.address, &text).await;
        assert!(closed, "{name}: the connection stays open");
        assert!(answer.starts_with(starts) && answer.contains(holds), "{name}: {answer}");
        assert_eq!(answer.is_empty(), starts.is_empty(), "{name}: {answer}");
    }
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let open = open(quick()).await;
    let body = disbursement("{}");
    let one = post(body.len(), &body);
    let (answer, _) = exchange(open.address, &format!("{one}{one}")).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 2, "{answer}");
    assert!(answer.starts_with("HTTP/1.1 202") && answer.contains("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn further_connections_wait_for_room() {
    let open = open(Options { connections_max: 1, ..quick() }).await;
    let first = TcpStream::connect(open.address).await.unwrap();
    let begun = Instant::now();
    // The first one says nothing, and makes room when its time for a head is up.
    let (answer, _) =
        exchange(open.address, "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(begun.elapsed() >= Duration::from_millis(150), "{:?}", begun.elapsed());
    drop(first);
}

#[tokio::test]
async fn draining_ends_idle_connections_at_once_and_slow_ones_in_time() {
    for (sent, at_least_ms, at_most_ms) in [("", 0, 250), ("POST /v1/disbursements HTTP/1.1\r\n", 0, 1_000)] {
        let slow = Options { header_timeout: Duration::from_secs(60), ..quick() };
        let Open { address, stop, serving } = open(slow).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let begun = Instant::now();
        stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(5), serving).await.unwrap().unwrap();
        let took = begun.elapsed();
        let bounds = Duration::from_millis(at_least_ms)..Duration::from_millis(at_most_ms);
        assert!(bounds.contains(&took), "{sent:?}: {took:?}");
    }
}
