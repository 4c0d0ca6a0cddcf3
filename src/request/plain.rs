//! The plain reader: a payout as any JSON library writes one, in a single pass.
//!
//! Only the plainest form is read: an object of known fields, each at most once, whose values are strings without escapes
//! and whole numbers. Whatever else there is (an escape, `null`, `metadata`, a fault), it answers nothing, and the reader
//! behind it, which knows all of JSON, decides. So it may leave alone whatever it likes, and must never take what that one
//! refuses, or read it otherwise: a property test holds it to that. It is there because reading is the largest single cost of
//! an element of a list.

use std::borrow::Cow;

use super::wire::{Payout, Text};

/// A payout, or `None` if it is not of the plainest form.
pub fn payout(text: &str) -> Option<Payout<'_>> {
    let mut cursor = Cursor { text, at: 0 };
    cursor.expect(b'{')?;
    let mut payout = Payout::default();
    loop {
        let field = cursor.string()?;
        cursor.expect(b':')?;
        if field == "amount" {
            let amount = cursor.number()?;
            if payout.amount.replace(amount).is_some() {
                return None;
            }
        } else {
            let place = place_of(&mut payout, field)?;
            if place.replace(Text(Cow::Borrowed(cursor.string()?))).is_some() {
                return None;
            }
        }
        match cursor.next()? {
            b',' => {}
            b'}' => break,
            _ => return None,
        }
    }
    cursor.is_at_end().then_some(payout)
}

fn place_of<'p, 't>(payout: &'p mut Payout<'t>, field: &str) -> Option<&'p mut Option<Text<'t>>> {
    Some(match field {
        "id" => &mut payout.id,
        "campaign" => &mut payout.campaign,
        "payee" => &mut payout.payee,
        "payer" => &mut payout.payer,
        "merchant" => &mut payout.merchant,
        "agreement" => &mut payout.agreement,
        "currency" => &mut payout.currency,
        "remark" => &mut payout.remark,
        "lane" => &mut payout.lane,
        "not_before" => &mut payout.not_before,
        "not_after" => &mut payout.not_after,
        _ => return None,
    })
}

struct Cursor<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Cursor<'t> {
    fn skip_space(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.at += rest.iter().take_while(|byte| space(byte)).count();
    }

    /// The next byte that is no space.
    fn next(&mut self) -> Option<u8> {
        self.skip_space();
        let byte = *self.text.as_bytes().get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    fn string(&mut self) -> Option<&'t str> {
        self.expect(b'"')?;
        let bytes = &self.text.as_bytes()[self.at..];
        let length = plain_length(bytes);
        if *bytes.get(length)? != b'"' {
            return None;
        }
        let content = self.text.get(self.at..self.at + length)?;
        self.at += length + 1;
        Some(content)
    }

    /// A whole number without sign, fraction or exponent.
    fn number(&mut self) -> Option<u64> {
        self.skip_space();
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let digits = &rest[..length];
        if digits.is_empty() || (digits[0] == b'0' && length > 1) {
            return None;
        }
        // What follows must end it: a fraction or an exponent would be another number.
        if !matches!(rest.get(length)?, b',' | b'}' | b' ' | b'\t' | b'\n' | b'\r') {
            return None;
        }
        self.at += length;
        digits.iter().try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
    }

    fn is_at_end(&mut self) -> bool {
        self.skip_space();
        self.at == self.text.len()
    }
}

const ONES: u64 = u64::from_le_bytes([1; 8]);
const HIGHS: u64 = ONES << 7;

/// How many bytes come before the first quote, backslash or control character; eight are looked at at once.
fn plain_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(eight) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(eight.try_into().expect("eight bytes"));
        let found = ends(word);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_plain = |byte: &&u8| **byte >= b' ' && **byte != b'"' && **byte != b'\\';
    at + bytes[at..].iter().take_while(is_plain).count()
}

/// The high bit of each byte of a word that ends a plain string. Bits above the lowest may be set in vain: a borrow goes
/// upwards. ("Determine if a word has a byte equal to n", Sean Eron Anderson, Bit Twiddling Hacks.)
fn ends(word: u64) -> u64 {
    let below = |word: u64, least: u64| word.wrapping_sub(ONES * least) & !word;
    let quote = below(word ^ (ONES * b'"' as u64), 1);
    let backslash = below(word ^ (ONES * b'\\' as u64), 1);
    (quote | backslash | below(word, b' ' as u64)) & HIGHS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_ends_where_it_ends() {
        for end in (0u8..0x20).chain([b'"', b'\\']) {
            for length in 0..20 {
                for filler in [b' ', b'!', b'#', b'[', b']', b'a', 0x7f, 0x80, 0xc3, 0xff] {
                    let mut bytes = vec![filler; length];
                    bytes.push(end);
                    bytes.extend([b'"'; 9]);
                    assert_eq!(plain_length(&bytes), length, "{end:#x} behind {length} of {filler:#x}");
                    assert_eq!(plain_length(&bytes[..length]), length);
                }
            }
        }
    }

    #[test]
    fn the_plainest_form_is_read() {
        let text =
            r#" { "id":"r-1","campaign":"c", "payee":"安","amount":88 , "currency":"CNY","remark":"a b"} "#;
        let general = super::super::wire::general(text).unwrap();
        assert_eq!(format!("{:?}", payout(text).unwrap()), format!("{general:?}"));
        for text in [
            r#"{}"#,
            r#"{"id":"a\n"}"#,
            r#"{"id":null}"#,
            r#"{"amount":01}"#,
            r#"{"amount":1.0}"#,
            r#"{"amount":-1}"#,
            r#"{"amount":18446744073709551616}"#,
            r#"{"amount":"1"}"#,
            r#"{"id":"a","id":"b"}"#,
            r#"{"amount":1,"amount":1}"#,
            r#"{"id":"a",}"#,
            r#"{"id":"a"}x"#,
            r#"{"id":"a""#,
            r#"{"id":"a"#,
            r#"{"nobody":"a"}"#,
            r#"{"metadata":{}}"#,
            "{\"id\":\"a\tb\"}",
            r#"["id"]"#,
            "",
        ] {
            assert!(payout(text).is_none(), "{text}");
        }
    }
}
