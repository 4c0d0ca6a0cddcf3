//! The least that speaks to Redis: bytes out, replies in, over one TCP connection. It makes no values of what it
//! reads and keeps nothing, so that what it measures is Redis and not a client.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Bytes that are read at once, at most; more than any one element.
const BUFFER_BYTES: usize = 1 << 20;
/// A Redis that stands still longer ends the measurement.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
}

fn garbled(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("Redis answered {what}"))
}

impl Wire {
    pub fn connect(address: SocketAddr) -> Result<Wire> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Wire { stream, buffer: vec![0; BUFFER_BYTES], begin: 0, end: 0 })
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)
    }

    fn fill(&mut self) -> Result<()> {
        if self.begin > 0 {
            self.buffer.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
        }
        if self.end == self.buffer.len() {
            return Err(garbled("an element larger than the buffer"));
        }
        let count = self.stream.read(&mut self.buffer[self.end..])?;
        if count == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "Redis closed the connection"));
        }
        self.end += count;
        Ok(())
    }

    /// The head of a reply: its type, and its number (a value, a length, or -1 for nothing).
    pub fn head(&mut self) -> Result<(u8, i64)> {
        let mut looked = 0;
        loop {
            let unread = &self.buffer[self.begin..self.end];
            if let Some(at) = unread[looked..].iter().position(|byte| *byte == b'\n') {
                let line = &unread[..looked + at];
                let [kind, text @ .., b'\r'] = line else { return Err(garbled("a line without an end")) };
                if *kind == b'-' {
                    return Err(garbled(&String::from_utf8_lossy(text)));
                }
                let head = (*kind, if *kind == b'+' { 0 } else { number(text) });
                self.begin += looked + at + 1;
                return Ok(head);
            }
            looked = unread.len();
            self.fill()?;
        }
    }

    /// The content of a string whose head was read.
    fn content(&mut self, bytes: i64) -> Result<&[u8]> {
        let bytes = usize::try_from(bytes).map_err(|_| garbled("a length below nothing"))?;
        while self.end - self.begin < bytes + 2 {
            self.fill()?;
        }
        let at = self.begin;
        self.begin += bytes + 2;
        Ok(&self.buffer[at..at + bytes])
    }

    /// One string; nothing counts as empty.
    pub fn string(&mut self) -> Result<&[u8]> {
        match self.head()? {
            (b'$', bytes @ 0..) => self.content(bytes),
            (b'$', _) => Ok(&[]),
            _ => Err(garbled("what is not a string")),
        }
    }

    /// How many elements follow; nothing counts as none.
    pub fn array(&mut self) -> Result<u64> {
        match self.head()? {
            (b'*', count) => Ok(u64::try_from(count).unwrap_or(0)),
            _ => Err(garbled("what is not an array")),
        }
    }

    pub fn number(&mut self) -> Result<i64> {
        match self.head()? {
            (b':', number) => Ok(number),
            _ => Err(garbled("what is not a number")),
        }
    }

    /// A whole reply of any shape.
    pub fn skip(&mut self) -> Result<()> {
        let mut left = 1;
        while left > 0 {
            left -= 1;
            match self.head()? {
                (b'$', bytes @ 0..) => {
                    self.content(bytes)?;
                }
                (b'*', count @ 1..) => left += count,
                _ => {}
            }
        }
        Ok(())
    }
}

fn number(text: &[u8]) -> i64 {
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        digits => (1, digits),
    };
    let digit = |byte: &u8| i64::from(byte.wrapping_sub(b'0'));
    sign * digits.iter().fold(0i64, |sum, byte| sum.wrapping_mul(10).wrapping_add(digit(byte)))
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
