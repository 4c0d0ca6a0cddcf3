//! The least that speaks to Redis: bytes out, replies in, over one TCP connection. It makes no values of what it
//! reads and keeps nothing, so that what it measures is Redis and not a client. It ends the run on any error.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Bytes that are read at once, at most; more than any one element.
const BUFFER_BYTES: usize = 1 << 20;

pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
}

impl Wire {
    pub fn connect(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect(address).expect("Redis listens");
        stream.set_nodelay(true).expect("a TCP socket");
        Wire { stream, buffer: vec![0; BUFFER_BYTES], begin: 0, end: 0 }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("Redis reads");
    }

    /// One command and its reply, thrown away.
    pub fn call(&mut self, words: &[&str]) {
        let mut bytes = Vec::new();
        command(&mut bytes, words);
        self.send(&bytes);
        self.skip();
    }

    fn fill(&mut self) {
        if self.begin > 0 {
            self.buffer.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
        }
        assert!(self.end < self.buffer.len(), "an element larger than the buffer");
        let count = self.stream.read(&mut self.buffer[self.end..]).expect("Redis answers");
        assert!(count > 0, "Redis closed the connection");
        self.end += count;
    }

    /// The head of a reply: its type, and its number (a value, a length, or -1 for nothing).
    pub fn head(&mut self) -> (u8, i64) {
        let mut looked = 0;
        loop {
            let unread = &self.buffer[self.begin..self.end];
            if let Some(at) = unread[looked..].iter().position(|byte| *byte == b'\n') {
                let line = &unread[..looked + at];
                let (kind, text) = (line[0], &line[1..line.len() - 1]);
                assert_ne!(kind, b'-', "Redis refused: {}", String::from_utf8_lossy(text));
                self.begin += line.len() + 1;
                return (kind, if kind == b'+' { 0 } else { number(text) });
            }
            looked = unread.len();
            self.fill();
        }
    }

    /// The content of a string whose head was read.
    pub fn content(&mut self, bytes: i64) -> &[u8] {
        let bytes = usize::try_from(bytes).expect("a length");
        while self.end - self.begin < bytes + 2 {
            self.fill();
        }
        let at = self.begin;
        self.begin += bytes + 2;
        &self.buffer[at..at + bytes]
    }

    /// One string; nothing counts as empty.
    pub fn string(&mut self) -> &[u8] {
        let (kind, bytes) = self.head();
        assert_eq!(kind, b'$', "a string");
        if bytes < 0 { &[] } else { self.content(bytes) }
    }

    /// How many elements follow; nothing counts as none.
    pub fn array(&mut self) -> u64 {
        let (kind, count) = self.head();
        assert_eq!(kind, b'*', "an array");
        u64::try_from(count).unwrap_or(0)
    }

    /// A whole reply of any shape.
    pub fn skip(&mut self) {
        let mut left = 1;
        while left > 0 {
            left -= 1;
            match self.head() {
                (b'$', bytes @ 0..) => {
                    self.content(bytes);
                }
                (b'*', count @ 1..) => left += count,
                _ => {}
            }
        }
    }
}

fn number(text: &[u8]) -> i64 {
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        digits => (1, digits),
    };
    sign * digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'))
}

/// Appends the head of a command of so many words.
pub fn open(bytes: &mut Vec<u8>, words: usize) {
    bytes.extend_from_slice(format!("*{words}\r\n").as_bytes());
}

/// Appends one word.
pub fn word(bytes: &mut Vec<u8>, word: &[u8]) {
    bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
    bytes.extend_from_slice(word);
    bytes.extend_from_slice(b"\r\n");
}

/// Appends a whole command.
pub fn command(bytes: &mut Vec<u8>, words: &[&str]) {
    open(bytes, words.len());
    words.iter().for_each(|text| word(bytes, text.as_bytes()));
}
