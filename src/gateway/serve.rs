//! The listener: connections in, each served HTTP/1.1 with bounds on how long and how many.
//!
//! When full, a new connection waits in the kernel's backlog until another ends. A head that does not arrive
//! in time closes its connection. When `shutdown` completes, nothing new is taken, every connection finishes
//! the request it is in, and what has not finished within the drain bound is cut off.

use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::Options;

/// What can be served: a router, or one with something around it.
pub trait Service:
    tower::Service<
        Request<Incoming>,
        Response = Response<Body>,
        Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        Future: Send + 'static,
    > + Clone
    + Send
    + 'static
{
}

impl<S> Service for S where
    S: tower::Service<
            Request<Incoming>,
            Response = Response<Body>,
            Error: Into<Box<dyn std::error::Error + Send + Sync>>,
            Future: Send + 'static,
        > + Clone
        + Send
        + 'static
{
}

/// How long accepting rests when the process is out of descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Serves `service` on `listener` until `shutdown`, and then until the last connection ended or the drain
/// bound is over. Where the service answers with an error, the connection is closed without a word.
pub async fn serve<S>(
    listener: TcpListener,
    service: S,
    options: &Options,
    shutdown: impl Future<Output = ()>,
) where
    S: Service,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(options.header_timeout).keep_alive(true);
    let slots = Arc::new(Semaphore::new(options.connections_max));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let (stream, permit) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            taken = take(&listener, &slots) => taken,
        };
        let (http, service) = (http.clone(), service.clone());
        connections.spawn(connection(stream, permit, http, service, graceful.watcher()));
    }
    drop(listener);
    if tokio::time::timeout(options.drain_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!(connections = connections.len(), "cut off connections that did not finish in time");
    }
    connections.shutdown().await;
}

/// The next connection, once there is room for it.
async fn take(listener: &TcpListener, slots: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let permit = Arc::clone(slots).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            // The other side gave up before it was taken.
            Err(error) if is_theirs(error.kind()) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection; trying again");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

fn is_theirs(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused)
}

async fn connection<S: Service>(
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
    http: http1::Builder,
    service: S,
    watcher: Watcher,
) {
    let peer = stream.peer_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot switch off Nagle's algorithm");
    }
    let serving = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    if let Err(error) = watcher.watch(serving).await {
        // Timeouts and broken connections: the caller's affair, and of interest only when looking for them.
        tracing::debug!(%peer, %error, "a connection ended early");
    }
    drop(permit);
}
