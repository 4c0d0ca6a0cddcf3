//! One connection of a lane: it is down, connecting, idle, or busy with one call.
//!
//! What holds: nothing blocks; a connection that failed in the middle of a call is never used again, because a late
//! answer might still come over it. Absent: deciding what an answer means.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustix::event::epoll;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::http::{Answer, Reading, read_answer};
use crate::traffic::Call;

/// Reading buffer kept between answers; a larger one is given back.
const KEPT_BYTES: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Down,
    Connecting,
    Idle,
    Busy,
}

#[derive(Debug)]
pub struct Connection {
    pub state: State,
    /// Which of the addresses it goes to.
    pub address: usize,
    pub call: Option<Call>,
    /// When its state has lasted too long: a connect or a call times out, a pause after a failure ends.
    pub until_us: u64,
    stream: Option<TcpStream>,
    out: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
}

/// What an event on a connection came to.
#[derive(Debug)]
pub enum Progress {
    Nothing,
    Connected,
    Answered(Answer),
    /// It is down; why.
    Lost(&'static str),
}

impl Connection {
    pub fn new(address: usize) -> Connection {
        Connection {
            state: State::Down,
            address,
            call: None,
            until_us: 0,
            stream: None,
            out: Vec::new(),
            sent: 0,
            received: Vec::new(),
        }
    }

    /// Begins to connect, and registers with the poller under its index.
    pub fn connect(
        &mut self,
        address: SocketAddr,
        poller: &impl std::os::fd::AsFd,
        index: u64,
    ) -> std::io::Result<()> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        let events =
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(poller, &stream, epoll::EventData::new_u64(index), events)?;
        self.stream = Some(stream);
        self.state = State::Connecting;
        self.received.clear();
        Ok(())
    }

    /// Sends a call over an idle connection, as far as the socket takes it now.
    pub fn send(&mut self, call: Call, write: impl FnOnce(&mut Vec<u8>, &Call)) -> Progress {
        self.out.clear();
        self.sent = 0;
        write(&mut self.out, &call);
        self.call = Some(call);
        self.state = State::Busy;
        self.write_more()
    }

    /// Drops it; the call it was busy with, if any.
    pub fn close(&mut self) -> Option<Call> {
        self.stream = None;
        self.state = State::Down;
        self.received.clear();
        self.call.take()
    }

    /// Moves on as far as it goes.
    pub fn advance(&mut self, is_list: bool) -> Progress {
        match self.state {
            State::Down => Progress::Nothing,
            State::Connecting => match self.stream.as_ref().map(sockopt::socket_error) {
                Some(Ok(Ok(()))) if self.stream.as_ref().is_some_and(|stream| stream.peer_addr().is_ok()) => {
                    self.state = State::Idle;
                    Progress::Connected
                }
                Some(Ok(Ok(()))) => Progress::Nothing,
                _ => Progress::Lost("refused"),
            },
            State::Idle | State::Busy => {
                if let lost @ Progress::Lost(_) = self.write_more() {
                    return lost;
                }
                self.read_more(is_list)
            }
        }
    }

    fn write_more(&mut self) -> Progress {
        let Some(stream) = &mut self.stream else { return Progress::Lost("closed") };
        while self.sent < self.out.len() {
            match stream.write(&self.out[self.sent..]) {
                Ok(0) => return Progress::Lost("closed"),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Nothing,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Progress::Lost("closed"),
            }
        }
        Progress::Nothing
    }

    fn read_more(&mut self, is_list: bool) -> Progress {
        let Some(stream) = &mut self.stream else { return Progress::Lost("closed") };
        let mut piece = [0u8; 16 << 10];
        loop {
            match stream.read(&mut piece) {
                Ok(0) => return Progress::Lost("closed"),
                Ok(count) => {
                    self.received.extend_from_slice(&piece[..count]);
                    // A read that did not fill the buffer emptied the socket; another edge announces more.
                    if count < piece.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Progress::Lost("reset"),
            }
        }
        if self.received.is_empty() {
            return Progress::Nothing;
        }
        if self.state == State::Idle {
            return Progress::Lost("spoke unasked");
        }
        let read = if is_list { read_list_reply(&self.received) } else { read_answer(&self.received) };
        match read {
            Reading::Partial => Progress::Nothing,
            Reading::Garbled(_) => Progress::Lost("garbled"),
            Reading::Whole(answer, size) if size < self.received.len() => {
                drop(answer);
                Progress::Lost("spoke unasked")
            }
            Reading::Whole(answer, _) => {
                self.received.clear();
                self.received.shrink_to(KEPT_BYTES);
                self.state = State::Idle;
                Progress::Answered(answer)
            }
        }
    }
}

/// The reply to a push, as if it were an answer: 202 for a length, 503 for an error.
fn read_list_reply(bytes: &[u8]) -> Reading {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return Reading::Partial };
    let status = match bytes[0] {
        b':' => 202,
        b'-' => 503,
        _ => return Reading::Garbled("not a reply to a push".to_owned()),
    };
    let body = bytes[1..end].to_vec();
    Reading::Whole(Answer { status, retry_after_s: None, closes: false, body }, end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_to_pushes() {
        let status = |bytes: &[u8]| match read_list_reply(bytes) {
            Reading::Whole(answer, size) => (answer.status, size),
            Reading::Partial => (0, 0),
            Reading::Garbled(_) => (1, 0),
        };
        let table: [(&[u8], (u16, usize)); 4] =
            [(b":12\r\n", (202, 5)), (b":1", (0, 0)), (b"-OOM no\r\n", (503, 9)), (b"$3\r\nabc\r\n", (1, 0))];
        for (bytes, expected) in table {
            assert_eq!(status(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
