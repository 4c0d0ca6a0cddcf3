//! Replies out of bytes: what has arrived, taken as whole values (RESP2, <https://redis.io/docs/latest/develop/reference/protocol-spec/>).
//!
//! An element is made as soon as it is there, so that a long array costs one pass and no more memory than its
//! values and the bytes of one element. It is the hot path of reading a queue, which is why it is not the general
//! parser of the `redis` crate: *measured*, that one gives 1.5 million 200-byte elements a second here. Bounded:
//! the longest element and line, and the depth, are what Redis itself allows; more is not a reply.

use redis::Value;

/// Redis's own default, `proto-max-bulk-len`.
const ELEMENT_BYTES_MAX: usize = 512 << 20;
const LINE_BYTES_MAX: usize = 64 << 10;
const DEPTH_MAX: usize = 32;
const ROOM_MIN: usize = 16 << 10;
/// Beyond this a read brings no more at a time.
const ROOM_MAX: usize = 256 << 10;
/// An announced length is not believed beyond this before the elements come.
const RESERVE_MAX: usize = 1 << 16;

/// The bytes are not a reply: nothing that follows can be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what came is not a reply of Redis ({0})")]
pub(super) struct Broken(&'static str);

/// An array whose elements are still coming.
struct Open {
    values: Vec<Value>,
    missing: usize,
}

enum Token {
    Whole(Value),
    Array(usize),
}

#[derive(Default)]
pub(super) struct Inbox {
    /// `start..end` has arrived and is not taken yet.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    open: Vec<Open>,
}

impl Inbox {
    /// Where the next bytes are to be put; then tell [`Inbox::filled`] how many came.
    pub fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            // A giant has been here: its memory is not kept.
            if self.buffer.len() > 2 * ROOM_MAX {
                self.buffer = Vec::new();
            }
        }
        if self.buffer.len() - self.end < ROOM_MIN / 2 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.buffer.len() - self.end < ROOM_MIN / 2 {
                self.buffer.resize((self.buffer.len() * 2).max(ROOM_MIN), 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    pub fn filled(&mut self, count: usize) {
        self.end += count;
        assert!(self.end <= self.buffer.len(), "no more came than there was room for");
        if self.end == self.buffer.len() && self.buffer.len() < ROOM_MAX {
            self.buffer.resize((self.buffer.len() * 2).max(ROOM_MIN), 0);
        }
    }

    /// Whether nothing has arrived that is not taken.
    pub fn is_empty(&self) -> bool {
        self.start == self.end && self.open.is_empty()
    }

    /// The next reply, if it is there whole.
    pub fn take(&mut self) -> Result<Option<Value>, Broken> {
        loop {
            let Some((token, length)) = token(&self.buffer[self.start..self.end])? else { return Ok(None) };
            self.start += length;
            let mut value = match token {
                Token::Whole(value) => value,
                Token::Array(0) => Value::Array(Vec::new()),
                Token::Array(_) if self.open.len() == DEPTH_MAX => return Err(Broken("too deep an array")),
                Token::Array(missing) => {
                    self.open.push(Open { values: Vec::with_capacity(missing.min(RESERVE_MAX)), missing });
                    continue;
                }
            };
            loop {
                let Some(open) = self.open.last_mut() else { return Ok(Some(value)) };
                open.values.push(value);
                open.missing -= 1;
                if open.missing > 0 {
                    break;
                }
                value = Value::Array(self.open.pop().expect("the one above").values);
            }
        }
    }
}

/// The first token of the bytes and its length, if it is there whole.
fn token(bytes: &[u8]) -> Result<Option<(Token, usize)>, Broken> {
    let Some(first) = bytes.first() else { return Ok(None) };
    let Some(end) = bytes.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\r') else {
        return if bytes.len() < LINE_BYTES_MAX { Ok(None) } else { Err(Broken("too long a line")) };
    };
    let Some(feed) = bytes.get(end + 1) else { return Ok(None) };
    if *feed != b'\n' {
        return Err(Broken("a line with no end"));
    }
    let (line, length) = (&bytes[1..end], end + 2);
    let token = match first {
        b'$' => {
            let Some(count) = count(line, ELEMENT_BYTES_MAX)? else {
                return Ok(Some((Token::Whole(Value::Nil), length)));
            };
            let Some(content) = bytes.get(length..length + count + 2) else { return Ok(None) };
            if !content.ends_with(b"\r\n") {
                return Err(Broken("an element longer than it said"));
            }
            return Ok(Some((
                Token::Whole(Value::BulkString(content[..count].to_vec())),
                length + count + 2,
            )));
        }
        b'*' => count(line, u32::MAX as usize)?.map_or(Token::Whole(Value::Nil), Token::Array),
        b':' => Token::Whole(Value::Int(number(line)?)),
        b'+' if line == b"OK" => Token::Whole(Value::Okay),
        b'+' => Token::Whole(Value::SimpleString(String::from_utf8_lossy(line).into_owned())),
        b'-' => Token::Whole(refusal(line)?),
        _ => return Err(Broken("an unknown type")),
    };
    Ok(Some((token, length)))
}

fn number(line: &[u8]) -> Result<i64, Broken> {
    let text = std::str::from_utf8(line).map_err(|_| Broken("not a number"))?;
    text.parse().map_err(|_| Broken("not a number"))
}

/// A length up to `most`; -1 is none.
fn count(line: &[u8], most: usize) -> Result<Option<usize>, Broken> {
    let mut count = 0usize;
    for digit in line {
        if !digit.is_ascii_digit() || count > most {
            return if line == b"-1" { Ok(None) } else { Err(Broken("not a length")) };
        }
        count = count * 10 + usize::from(digit - b'0');
    }
    if line.is_empty() || count > most { Err(Broken("not a length")) } else { Ok(Some(count)) }
}

/// An error of the server. Only the crate's own parser can make one.
fn refusal(line: &[u8]) -> Result<Value, Broken> {
    let text = String::from_utf8_lossy(line);
    redis::parse_redis_value(format!("-{text}\r\n").as_bytes()).map_err(|_| Broken("not an error"))
}

#[cfg(test)]
#[path = "inbox_tests.rs"]
mod tests;
