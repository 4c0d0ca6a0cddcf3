//! Bytes to one server and back: TCP, TLS over it, or a socket file. Every wait has an end.
//!
//! Keepalive finds a peer that is gone while nothing is sent; `TCP_NODELAY` because a round is one write. An idle
//! connection is looked at before it is used: one that the server closed meanwhile is then replaced, instead of
//! costing a round whose fate nobody knows.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, sockopt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::url::Address;

const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
/// The operating system takes no wait of zero, and what has arrived is still to be read at the deadline.
pub(super) const WAIT_MIN: Duration = Duration::from_millis(1);

pub(super) enum Socket {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Unix(UnixStream),
}

/// What is left until the deadline, or that it has passed.
pub(super) fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.checked_duration_since(Instant::now()) {
        Some(left) if left >= WAIT_MIN => Ok(left),
        _ => Err(io::Error::new(ErrorKind::TimedOut, "no time is left")),
    }
}

impl Socket {
    pub fn connect(
        address: &Address,
        tls: Option<&Arc<ClientConfig>>,
        deadline: Instant,
    ) -> io::Result<Socket> {
        let (host, port) = match address {
            // A socket file answers at once or not at all, unless its queue is full; then it waits without end,
            // which the standard library gives no way to shorten.
            Address::Unix(path) => return Ok(Socket::Unix(UnixStream::connect(path)?)),
            Address::Tcp { host, port } => (host.as_str(), *port),
        };
        let stream = connect_any(host, port, deadline)?;
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, KEEPALIVE_IDLE)?;
        sockopt::set_tcp_keepintvl(&stream, KEEPALIVE_INTERVAL)?;
        sockopt::set_tcp_keepcnt(&stream, KEEPALIVE_PROBES)?;
        match tls {
            None => Ok(Socket::Tcp(stream)),
            Some(settings) => shake_hands(stream, settings, host, deadline),
        }
    }

    pub fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        let timeout = Some(timeout.max(WAIT_MIN));
        match self {
            Socket::Tcp(stream) => stream.set_read_timeout(timeout),
            Socket::Tls(stream) => stream.sock.set_read_timeout(timeout),
            Socket::Unix(stream) => stream.set_read_timeout(timeout),
        }
    }

    pub fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        let timeout = Some(timeout.max(WAIT_MIN));
        match self {
            Socket::Tcp(stream) => stream.set_write_timeout(timeout),
            Socket::Tls(stream) => stream.sock.set_write_timeout(timeout),
            Socket::Unix(stream) => stream.set_write_timeout(timeout),
        }
    }

    /// Whether nothing has come unasked and the server has not closed.
    pub fn is_fit(&mut self) -> bool {
        match self {
            Socket::Tcp(stream) => is_silent(stream),
            Socket::Unix(stream) => is_silent(stream),
            Socket::Tls(stream) if is_silent(&stream.sock) => true,
            // TLS sends tickets and the like on its own.
            Socket::Tls(stream) => takes_in_silence(stream).unwrap_or(false),
        }
    }
}

/// By any of the addresses that the name has; each gets its share of the time.
fn connect_any(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let addresses: Vec<_> = (host, port).to_socket_addrs()?.collect();
    let mut failed = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for (at, address) in addresses.iter().enumerate() {
        let share = left(deadline)? / u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        match TcpStream::connect_timeout(address, share.max(WAIT_MIN)) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// The TLS handshake, step by step, so that the deadline holds for all of it.
fn shake_hands(
    mut stream: TcpStream,
    settings: &Arc<ClientConfig>,
    host: &str,
    deadline: Instant,
) -> io::Result<Socket> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut tls = ClientConnection::new(settings.clone(), name).map_err(io::Error::other)?;
    while tls.is_handshaking() || tls.wants_write() {
        let left = left(deadline)?;
        if tls.wants_write() {
            stream.set_write_timeout(Some(left))?;
            tls.write_tls(&mut stream)?;
            continue;
        }
        stream.set_read_timeout(Some(left))?;
        if tls.read_tls(&mut stream)? == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "closed in the TLS handshake"));
        }
        if let Err(error) = tls.process_new_packets() {
            // The server is told why; whether it hears it does not matter.
            let _ = tls.write_tls(&mut stream);
            return Err(io::Error::other(format!("TLS: {error}")));
        }
    }
    Ok(Socket::Tls(Box::new(StreamOwned::new(tls, stream))))
}

fn is_silent(stream: impl AsFd) -> bool {
    let found = rustix::net::recv(stream, &mut [0u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    found.is_err_and(|error| error == rustix::io::Errno::AGAIN)
}

/// Takes in what TLS says of its own, and tells whether that was all.
fn takes_in_silence(stream: &mut StreamOwned<ClientConnection, TcpStream>) -> io::Result<bool> {
    while !is_silent(&stream.sock) {
        if stream.conn.read_tls(&mut stream.sock)? == 0 {
            return Ok(false);
        }
        let state = stream.conn.process_new_packets().map_err(io::Error::other)?;
        if state.peer_has_closed() || state.plaintext_bytes_to_read() > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(into),
            Socket::Tls(stream) => stream.read(into),
            Socket::Unix(stream) => stream.read(into),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Tls(stream) => stream.write(bytes),
            Socket::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.flush(),
            Socket::Tls(stream) => stream.flush(),
            Socket::Unix(stream) => stream.flush(),
        }
    }
}
