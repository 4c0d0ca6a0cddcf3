//! Payout requests of 200 bytes as JSON, ready to be sent to Redis.
//!
//! What holds: the bytes are made before the clock runs. While it does, eight bytes of each request are written over,
//! so that no id comes twice in a run and the program that sends costs next to nothing beside one that always sends
//! the same.

use crate::dice::Dice;

pub const ELEMENT_BYTES: usize = 200;
/// Values of a push.
pub const BATCH: usize = 1_000;
pub const CAMPAIGN: &str = "spring";
const PAYEES: u64 = 100_000;
/// Made ahead, and used again with other ids.
const POOL: usize = 8;
/// Of an id, those that tell batches apart; the rest tell requests of one batch apart.
const DIGITS: usize = 8;

/// How a batch goes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One RPUSH with all.
    List(&'static str),
    /// An XADD each, with one field.
    Stream(&'static str),
}

impl Form {
    /// Replies that a batch gets.
    pub fn replies(self) -> usize {
        match self {
            Form::List(_) => 1,
            Form::Stream(_) => BATCH,
        }
    }
}

/// One request; payee and amount vary, its length does not.
pub fn element(number: usize, dice: &mut Dice) -> String {
    let (payee, amount) = (dice.roll() % PAYEES, 100 + dice.roll() % 900);
    let mut text = format!(
        r#"{{"id":"{:0>DIGITS$}{number:0DIGITS$x}","campaign":"{CAMPAIGN}","payee":"payee-{payee:06}","amount":{amount},"currency":"CNY","remark":""#,
        ""
    );
    let greeting = b"a red packet for the new year, with luck and health to all of the house; ";
    let room = ELEMENT_BYTES - text.len() - 2;
    text.extend(greeting.iter().cycle().take(room).map(|byte| char::from(*byte)));
    text.push_str("\"}");
    text
}

struct Batch {
    bytes: Vec<u8>,
    ids_at: Vec<usize>,
}

impl Batch {
    fn new(form: Form, dice: &mut Dice) -> Batch {
        let mut batch = Batch { bytes: Vec::new(), ids_at: Vec::new() };
        let bytes = &mut batch.bytes;
        if let Form::List(key) = form {
            super::wire::open(bytes, 2 + BATCH);
            super::wire::word(bytes, b"RPUSH");
            super::wire::word(bytes, key.as_bytes());
        }
        for number in 0..BATCH {
            if let Form::Stream(key) = form {
                super::wire::open(bytes, 5);
                ["XADD", key, "*", "d"].iter().for_each(|text| super::wire::word(bytes, text.as_bytes()));
            }
            let element = element(number, dice);
            super::wire::word(bytes, element.as_bytes());
            // Before it and its line's end: what the element has before its id.
            batch.ids_at.push(bytes.len() - 2 - element.len() + r#"{"id":""#.len());
        }
        batch
    }
}

/// Batches without end.
pub struct Payouts {
    pool: Vec<Batch>,
    made: u32,
}

impl Payouts {
    pub fn new(form: Form, seed: u64) -> Payouts {
        let mut dice = Dice::new(seed);
        Payouts { pool: (0..POOL).map(|_| Batch::new(form, &mut dice)).collect(), made: 0 }
    }

    pub fn next(&mut self) -> &[u8] {
        // A bijection: no batch has the digits of another, and neighbours do not look alike.
        let digits = format!("{:0DIGITS$x}", self.made.wrapping_mul(0x9E37_79B1));
        let batch = &mut self.pool[self.made as usize % POOL];
        self.made = self.made.wrapping_add(1);
        for at in &batch.ids_at {
            batch.bytes[*at..*at + DIGITS].copy_from_slice(digits.as_bytes());
        }
        &batch.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_id_comes_twice_and_all_are_of_one_length() {
        for (form, head) in [
            (Form::List("k"), "*1002\r\n$5\r\nRPUSH\r\n$1\r\nk\r\n"),
            (Form::Stream("k"), "*5\r\n$4\r\nXADD\r\n"),
        ] {
            let mut payouts = Payouts::new(form, 1);
            let mut ids = HashSet::new();
            for _ in 0..3 * POOL {
                let text = std::str::from_utf8(payouts.next()).unwrap();
                assert!(text.starts_with(head), "{text:.40}");
                for element in text.split("\r\n").filter(|line| line.starts_with('{')) {
                    assert_eq!(element.len(), ELEMENT_BYTES);
                    let request: serde_json::Value = serde_json::from_str(element).unwrap();
                    assert!(ids.insert(request["id"].as_str().unwrap().to_owned()), "{element}");
                    assert!(request["amount"].as_u64() > Some(0));
                }
            }
            assert_eq!(ids.len(), 3 * POOL * BATCH);
        }
    }
}
