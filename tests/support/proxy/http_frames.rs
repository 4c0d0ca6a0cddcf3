//! Where HTTP/1.1 messages with a content-length begin and end in one direction of a connection. Whatever is not
//! that is opaque from there on, and the proxy goes by turns. Replies to HEAD are not understood.

use super::Way;

/// Bytes of a head beyond which this is no HTTP that we know.
const HEAD_BYTES_MAX: usize = 64 << 10;

enum Frame {
    Between,
    Head(Vec<u8>),
    Body {
        bytes_left: usize,
    },
    /// Not HTTP/1.1 with a content-length, from here on.
    Opaque,
}

/// Finds where HTTP messages begin and end in one direction of a connection.
pub(super) struct Framer {
    way: Way,
    frame: Frame,
}

/// Bytes that belong to one message.
pub(super) struct Piece {
    pub taken: usize,
    pub begins: bool,
    pub ends: bool,
    /// Whether beginning and end are known at all.
    pub framed: bool,
}

impl Framer {
    pub fn new(way: Way) -> Framer {
        Framer { way, frame: Frame::Between }
    }

    pub fn take(&mut self, bytes: &[u8]) -> Piece {
        let begins = matches!(self.frame, Frame::Between);
        let taken = match &mut self.frame {
            Frame::Opaque => bytes.len(),
            Frame::Body { bytes_left } => {
                let taken = bytes.len().min(*bytes_left);
                *bytes_left -= taken;
                taken
            }
            Frame::Between => {
                self.frame = Frame::Head(Vec::new());
                self.take_head(bytes)
            }
            Frame::Head(_) => self.take_head(bytes),
        };
        if matches!(self.frame, Frame::Body { bytes_left: 0 }) {
            self.frame = Frame::Between;
        }
        let ends = matches!(self.frame, Frame::Between);
        Piece { taken, begins, ends, framed: !matches!(self.frame, Frame::Opaque) }
    }

    fn take_head(&mut self, bytes: &[u8]) -> usize {
        let Frame::Head(head) = &mut self.frame else { unreachable!("only called inside a head") };
        for (index, byte) in bytes.iter().enumerate() {
            head.push(*byte);
            if head.ends_with(b"\r\n\r\n") {
                let head = std::mem::take(head);
                self.frame = after_head(self.way, &String::from_utf8_lossy(&head));
                return index + 1;
            }
        }
        if !looks_like_http(self.way, head) || head.len() > HEAD_BYTES_MAX {
            self.frame = Frame::Opaque;
        }
        bytes.len()
    }
}

fn looks_like_http(way: Way, head: &[u8]) -> bool {
    match way {
        Way::Up => {
            let word = head.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
            (1..=7).contains(&word) && head.get(word).is_none_or(|byte| *byte == b' ')
        }
        Way::Down => head.iter().zip(b"HTTP/1.").all(|(byte, expected)| byte == expected),
    }
}

/// What follows a head.
fn after_head(way: Way, head: &str) -> Frame {
    if !looks_like_http(way, head.as_bytes()) {
        return Frame::Opaque;
    }
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let length = header("content-length").map(str::parse);
    let code = head.split(' ').nth(1).unwrap_or("");
    match (way, length) {
        // A message of its own, but not yet the reply.
        (Way::Down, _) if code.starts_with('1') => Frame::Head(Vec::new()),
        (Way::Down, _) if code == "204" || code == "304" => Frame::Between,
        (_, Some(Ok(bytes_left))) => Frame::Body { bytes_left },
        (Way::Up, None) if header("transfer-encoding").is_none() => Frame::Between,
        _ => Frame::Opaque,
    }
}
