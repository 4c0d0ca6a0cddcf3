//! The smallest pieces of a frame: numbers in as few bytes as they need, and a reader that cannot run past the end.
//!
//! Numbers are LEB128 (seven bits a byte, least significant first); differences are zigzag-encoded first, over
//! wrapping arithmetic, so that every pair of values has one.

use super::frame::FrameError;

pub fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// `number` as its distance from `base`.
pub fn put_from(out: &mut Vec<u8>, base: u64, number: u64) {
    let difference = number.wrapping_sub(base) as i64;
    put(out, ((difference << 1) ^ (difference >> 63)) as u64);
}

pub fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Reads what the functions above wrote.
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: bytes }
    }

    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8], FrameError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(FrameError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    pub fn byte(&mut self) -> Result<u8, FrameError> {
        Ok(self.take(1)?[0])
    }

    pub fn number(&mut self) -> Result<u64, FrameError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                return Err(FrameError::Field("number"));
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(FrameError::Field("number"))
    }

    pub fn number_from(&mut self, base: u64) -> Result<u64, FrameError> {
        let zigzag = self.number()?;
        let difference = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        Ok(base.wrapping_add(difference as u64))
    }

    /// A text of at most `bytes_max`: what was read can be stored again.
    pub fn text(&mut self, bytes_max: usize) -> Result<&'a str, FrameError> {
        let length = usize::try_from(self.number()?).map_err(|_| FrameError::Truncated)?;
        if length > bytes_max {
            return Err(FrameError::Field("text"));
        }
        std::str::from_utf8(self.take(length)?).map_err(|_| FrameError::Field("text"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_in_few_bytes() {
        for (number, bytes) in [(0, 1), (0x7f, 1), (0x80, 2), (1 << 14, 3), (u64::MAX, 10)] {
            let mut out = Vec::new();
            put(&mut out, number);
            assert_eq!(out.len(), bytes, "{number}");
            assert_eq!(Cursor::new(&out).number(), Ok(number));
        }
        for (base, number, bytes) in
            [(5, 5, 1), (5, 4, 1), (0, 63, 1), (0, 64, 2), (u64::MAX, 0, 1), (0, u64::MAX >> 1, 10)]
        {
            let mut out = Vec::new();
            put_from(&mut out, base, number);
            assert_eq!(out.len(), bytes, "{number} from {base}");
            assert_eq!(Cursor::new(&out).number_from(base), Ok(number));
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        assert_eq!(Cursor::new(&[0xff; 11]).number(), Err(FrameError::Field("number")));
        assert_eq!(Cursor::new(&[0xff; 4]).number(), Err(FrameError::Truncated));
        assert_eq!(Cursor::new(&[5, b'a']).text(9), Err(FrameError::Truncated));
        assert_eq!(Cursor::new(&[1, 0xff]).text(9), Err(FrameError::Field("text")));
        assert_eq!(Cursor::new(&[2, b'a', b'b']).text(1), Err(FrameError::Field("text")));
    }
}
