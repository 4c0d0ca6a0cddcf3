//! Which eras may hold a key: so that a key which was never met is not looked for in any of them.
//!
//! A Bloom filter (Bloom 1970) an era, of eight bits a request and three probes: about one era in thirty is looked at
//! in vain. The key's hash is itself uniform, so that its bits serve as the probes. It knows too much after a
//! transaction that did not commit, and never too little.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::ViewError;

const WORD_COUNT: usize = 1 << 15;
const BIT_MASK: u64 = (WORD_COUNT as u64 * 64) - 1;
/// Where the probes begin in the hash; each takes 21 bits.
const SHIFTS: [u32; 3] = [0, 21, 42];

#[derive(Debug, Default)]
pub struct Seen {
    eras: BTreeMap<i64, Box<[u64]>>,
    is_loaded: bool,
}

fn probes(key_hash: i64) -> impl Iterator<Item = (usize, u64)> {
    SHIFTS.into_iter().map(move |shift| {
        let bit = (key_hash as u64 >> shift) & BIT_MASK;
        ((bit / 64) as usize, 1 << (bit % 64))
    })
}

impl Seen {
    /// Reads all keys once: about a second for five millions.
    pub fn load(&mut self, conn: &Connection) -> Result<(), ViewError> {
        if self.is_loaded {
            return Ok(());
        }
        let mut select = conn.prepare("SELECT era, key_hash FROM keys")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            self.add(row.get(0)?, row.get(1)?);
        }
        self.is_loaded = true;
        Ok(())
    }

    pub fn add(&mut self, era: i64, key_hash: i64) {
        let words = self.eras.entry(era).or_insert_with(|| vec![0; WORD_COUNT].into());
        probes(key_hash).for_each(|(word, bit)| words[word] |= bit);
    }

    /// The eras that may hold a key, the latest first.
    pub fn eras_of(&self, key_hash: i64) -> impl Iterator<Item = i64> {
        let may_hold = move |words: &[u64]| probes(key_hash).all(|(word, bit)| words[word] & bit != 0);
        self.eras.iter().rev().filter(move |(_, words)| may_hold(words)).map(|(era, _)| *era)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::key_hash_of;

    #[test]
    fn what_was_added_is_found_and_little_else() {
        let mut seen = Seen::default();
        let hash = |number: u64| key_hash_of("shop", &number.to_string()) as i64;
        (0..200_000).for_each(|number| seen.add((number % 2) as i64, hash(number)));
        for number in 0..200_000 {
            assert!(seen.eras_of(hash(number)).any(|era| era == (number % 2) as i64), "{number}");
        }
        let wrong: usize =
            (1 << 40..(1 << 40) + 10_000).map(|number| seen.eras_of(hash(number)).count()).sum();
        assert!(wrong < 1_000, "{wrong} of 20,000 looked at in vain");
    }
}
