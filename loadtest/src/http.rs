//! HTTP/1.1 from the caller's side: reading an answer out of bytes, and a plain blocking caller for control calls.
//!
//! What holds: an answer is either whole or not there yet; nothing is made of half an answer. Absent: TLS, redirects,
//! pipelining, retries (what to do about a failed call is the caller's decision).

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Head and body of an answer at the most; ours are far smaller.
const ANSWER_BYTES_MAX: usize = 256 << 20;
const HEADERS_MAX: usize = 64;
/// A caller that can be stopped looks so often whether it is.
const STOP_LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{url:?} is not an address: write it as http://HOST:PORT")]
    Url { url: String },
    #[error("{url:?}: no address is known for its host{detail}")]
    Host { url: String, detail: String },
    #[error("{what} at {address}: {error}")]
    Io { what: &'static str, address: SocketAddr, error: std::io::Error },
    #[error("{what} at {address} was given up: the run was stopped")]
    Stopped { what: &'static str, address: SocketAddr },
    #[error("{address} answered what is not HTTP: {detail}")]
    Garbled { address: SocketAddr, detail: String },
    #[error("{what} was answered {status}: {body}")]
    Refused { what: String, status: u16, body: String },
    #[error("{what} was answered with what is not the expected JSON: {error}")]
    Unexpected { what: String, error: serde_json::Error },
}

impl HttpError {
    /// Who called was stopped; nothing is said of whom was called.
    pub fn is_stop(&self) -> bool {
        matches!(self, HttpError::Stopped { .. })
    }
}

/// An answer that is whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub retry_after_s: Option<u64>,
    /// The connection ends with it.
    pub closes: bool,
    pub body: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Reading {
    /// More must come.
    Partial,
    /// The answer, and how many bytes it took.
    Whole(Answer, usize),
    Garbled(String),
}

/// Reads the answer at the beginning of the bytes.
pub fn read_answer(bytes: &[u8]) -> Reading {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let head_size = match head.parse(bytes) {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) if bytes.len() > 64 << 10 => {
            return Reading::Garbled("a head without end".to_owned());
        }
        Ok(httparse::Status::Partial) => return Reading::Partial,
        Err(error) => return Reading::Garbled(error.to_string()),
    };
    let mut answer =
        Answer { status: head.code.unwrap_or(0), retry_after_s: None, closes: false, body: Vec::new() };
    let (mut length, mut chunked) = (None, false);
    for header in head.headers.iter() {
        let value = || std::str::from_utf8(header.value).unwrap_or("").trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            length = value().parse::<usize>().ok();
        } else if header.name.eq_ignore_ascii_case("retry-after") {
            answer.retry_after_s = value().parse().ok();
        } else if header.name.eq_ignore_ascii_case("connection") {
            answer.closes = value().eq_ignore_ascii_case("close");
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value().eq_ignore_ascii_case("chunked");
        }
    }
    let rest = &bytes[head_size..];
    if chunked {
        return read_chunks(answer, rest, head_size);
    }
    match length {
        None if answer.status == 204 || answer.status == 304 => Reading::Whole(answer, head_size),
        None => Reading::Garbled("an answer without a length".to_owned()),
        Some(length) if length > ANSWER_BYTES_MAX => Reading::Garbled(format!("an answer of {length} bytes")),
        Some(length) if rest.len() < length => Reading::Partial,
        Some(length) => {
            answer.body = rest[..length].to_vec();
            Reading::Whole(answer, head_size + length)
        }
    }
}

fn read_chunks(mut answer: Answer, mut rest: &[u8], head_size: usize) -> Reading {
    let mut size = head_size;
    loop {
        match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete((line, length))) => {
                let (length, end) = (length as usize, line + length as usize + 2);
                if length > ANSWER_BYTES_MAX {
                    return Reading::Garbled(format!("a chunk of {length} bytes"));
                }
                if rest.len() < end {
                    return Reading::Partial;
                }
                answer.body.extend_from_slice(&rest[line..line + length]);
                (rest, size) = (&rest[end..], size + end);
                if length == 0 {
                    return Reading::Whole(answer, size);
                }
            }
            Ok(httparse::Status::Partial) => return Reading::Partial,
            Err(_) => return Reading::Garbled("a chunk without a size".to_owned()),
        }
    }
}

/// `http://host:port` to an address.
pub fn resolve(url: &str) -> Result<SocketAddr, HttpError> {
    let bad = || HttpError::Url { url: url.to_owned() };
    let host = url.strip_prefix("http://").ok_or_else(bad)?.trim_end_matches('/');
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    match host.to_socket_addrs() {
        Ok(mut found) => {
            found.next().ok_or_else(|| HttpError::Host { url: url.to_owned(), detail: String::new() })
        }
        // A port that is no number, or the like.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Err(bad()),
        Err(error) => Err(HttpError::Host { url: url.to_owned(), detail: format!(": {error}") }),
    }
}

/// One keep-alive connection for control calls, one after the other.
#[derive(Debug)]
pub struct Caller {
    pub address: SocketAddr,
    authorization: Option<String>,
    timeout: Duration,
    stop: Option<Arc<AtomicBool>>,
    stream: Option<TcpStream>,
}

impl Caller {
    pub fn new(address: SocketAddr, authorization: Option<String>, timeout: Duration) -> Caller {
        Caller { address, authorization, timeout, stop: None, stream: None }
    }

    /// Gives a call up as soon as this is set.
    pub fn heeding(self, stop: &Arc<AtomicBool>) -> Caller {
        Caller { stop: Some(stop.clone()), ..self }
    }

    /// Calls once; a connection that had been idle and is closed is opened again.
    pub fn call(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Answer, HttpError> {
        let was_open = self.stream.is_some();
        match self.attempt(method, path, body) {
            Err(HttpError::Io { .. }) if was_open && method != "POST" => self.attempt(method, path, body),
            other => other,
        }
    }

    /// Calls, insists on 2xx, and reads the JSON.
    pub fn json(&mut self, method: &str, path: &str, body: &str) -> Result<serde_json::Value, HttpError> {
        self.read(method, path, body)
    }

    pub fn read<T: serde::de::DeserializeOwned>(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<T, HttpError> {
        let answer = self.call(method, path, body.as_bytes())?;
        let what = format!("{method} {path}");
        if !(200..300).contains(&answer.status) {
            let body = String::from_utf8_lossy(&answer.body).chars().take(500).collect();
            return Err(HttpError::Refused { what, status: answer.status, body });
        }
        serde_json::from_slice(&answer.body).map_err(|error| HttpError::Unexpected { what, error })
    }

    fn attempt(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Answer, HttpError> {
        let result = self.exchange(method, path, body);
        if !matches!(&result, Ok(answer) if !answer.closes) {
            self.stream = None;
        }
        result
    }

    fn exchange(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Answer, HttpError> {
        let address = self.address;
        let io = |what| move |error| HttpError::Io { what, address, error };
        let deadline = Instant::now() + self.timeout;
        let is_stopped = || self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed));
        if is_stopped() {
            return Err(HttpError::Stopped { what: "connecting", address });
        }
        if self.stream.is_none() {
            let stream = TcpStream::connect_timeout(&address, self.timeout).map_err(io("connecting"))?;
            stream.set_nodelay(true).map_err(io("connecting"))?;
            self.stream = Some(stream);
        }
        let stream = self.stream.as_mut().expect("opened above");
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n").into_bytes();
        if let Some(value) = &self.authorization {
            text.extend_from_slice(format!("authorization: {value}\r\n").as_bytes());
        }
        if method != "GET" {
            text.extend_from_slice(b"content-type: application/json\r\n");
        }
        text.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        text.extend_from_slice(body);
        stream.write_all(&text).map_err(io("sending"))?;
        let (mut bytes, mut piece) = (Vec::new(), [0u8; 64 << 10]);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let error =
                    std::io::Error::new(ErrorKind::TimedOut, format!("no answer in {:?}", self.timeout));
                return Err(io("waiting for the answer")(error));
            }
            if is_stopped() {
                return Err(HttpError::Stopped { what: "waiting for the answer", address });
            }
            let look = if self.stop.is_some() { left.min(STOP_LOOK) } else { left };
            stream.set_read_timeout(Some(look)).map_err(io("receiving"))?;
            match stream.read(&mut piece) {
                Ok(0) => {
                    let error =
                        std::io::Error::new(ErrorKind::UnexpectedEof, "closed before the answer was whole");
                    return Err(io("receiving")(error));
                }
                Ok(count) => bytes.extend_from_slice(&piece[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    continue;
                }
                Err(error) => return Err(io("receiving")(error)),
            }
            match read_answer(&bytes) {
                Reading::Partial => {}
                Reading::Whole(answer, _) => return Ok(answer),
                Reading::Garbled(detail) => return Err(HttpError::Garbled { address, detail }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let plain: &[u8] = b"HTTP/1.1 429 Too Many\r\nContent-Length: 4\r\nRetry-After: 7\r\n\r\n{  }";
        let chunked: &[u8] =
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let expected = [(plain, 429, Some(7), false, "{  }"), (chunked, 200, None, true, "abcde")];
        for (bytes, status, retry_after_s, closes, body) in expected {
            let answer = Answer { status, retry_after_s, closes, body: body.into() };
            assert_eq!(read_answer(bytes), Reading::Whole(answer, bytes.len()));
            for cut in 0..bytes.len() {
                assert_eq!(read_answer(&bytes[..cut]), Reading::Partial, "cut at {cut}");
            }
        }
        for garbled in ["SSH-2.0-OpenSSH\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
            assert!(matches!(read_answer(garbled.as_bytes()), Reading::Garbled(_)), "{garbled}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(resolve("http://127.0.0.1:8080/").unwrap().to_string(), "127.0.0.1:8080");
        for (bad, says) in [
            ("127.0.0.1:8080", "write it as"),
            ("https://127.0.0.1:1", "write it as"),
            ("http://127.0.0.1:port", "write it as"),
            ("http://no-such-host.invalid:1", "no address is known"),
        ] {
            let error = resolve(bad).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
