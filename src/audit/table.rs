//! Ten million names in memory without the names: 128-bit keys, and a table of rows found by key.
//!
//! A key is the first half of the BLAKE3 hash of a name, so two names share one only if BLAKE3 was broken.
//! Rows stand in the order in which they came and are known by their number; an open-addressed array of
//! `tag << 32 | number` leads to them, at eight to twenty bytes a row. Rows are never removed.

/// First sixteen bytes of the hash of a name. The first eight are also the key hash in stored entries.
pub type Key = [u64; 2];

/// Stands for "no row".
pub const NONE: u32 = u32::MAX;

/// The key of the name that these parts make together.
pub fn key_of(scratch: &mut Vec<u8>, parts: &[&[u8]]) -> Key {
    scratch.clear();
    for part in parts {
        scratch.extend_from_slice(part);
    }
    let hash = blake3::hash(scratch);
    let half = |at: usize| u64::from_le_bytes(hash.as_bytes()[at..at + 8].try_into().expect("eight bytes"));
    [half(0), half(8)]
}

pub trait Keyed {
    fn key(&self) -> Key;
}

pub struct Table<R> {
    rows: Vec<R>,
    slots: Vec<u64>,
}

const EMPTY: u64 = u64::MAX;

impl<R: Keyed> Table<R> {
    pub fn new() -> Table<R> {
        Table { rows: Vec::new(), slots: vec![EMPTY; 1024] }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn rows(&self) -> &[R] {
        &self.rows
    }

    pub fn get(&self, number: u32) -> Option<&R> {
        self.rows.get(number as usize)
    }

    pub fn get_mut(&mut self, number: u32) -> Option<&mut R> {
        self.rows.get_mut(number as usize)
    }

    pub fn find(&self, key: Key) -> Option<u32> {
        self.probe(key).ok()
    }

    /// The row with this key, made by `make` if there was none; says whether there was one.
    pub fn find_or_insert(&mut self, key: Key, make: impl FnOnce() -> R) -> (u32, bool) {
        if self.rows.len() * 4 >= self.slots.len() * 3 {
            self.grow();
        }
        match self.probe(key) {
            Ok(number) => (number, true),
            Err(slot) => {
                let number = u32::try_from(self.rows.len()).expect("fewer than four billion names");
                self.slots[slot] = slot_of(key, number);
                self.rows.push(make());
                (number, false)
            }
        }
    }

    /// The row with this key, or the slot where it would go.
    fn probe(&self, key: Key) -> Result<u32, usize> {
        let mask = self.slots.len() - 1;
        let mut slot = key[0] as usize & mask;
        while self.slots[slot] != EMPTY {
            let number = self.slots[slot] as u32;
            if self.slots[slot] == slot_of(key, number) && self.rows[number as usize].key() == key {
                return Ok(number);
            }
            slot = (slot + 1) & mask;
        }
        Err(slot)
    }

    fn grow(&mut self) {
        let mask = self.slots.len() * 2 - 1;
        let mut slots = vec![EMPTY; mask + 1];
        for (number, row) in self.rows.iter().enumerate() {
            let key = row.key();
            let mut slot = key[0] as usize & mask;
            while slots[slot] != EMPTY {
                slot = (slot + 1) & mask;
            }
            slots[slot] = slot_of(key, number as u32);
        }
        self.slots = slots;
    }
}

/// The tag is of the half that does not choose the slot, and never all ones together with [`NONE`].
fn slot_of(key: Key, number: u32) -> u64 {
    (key[1] >> 33) << 32 | u64::from(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Keyed for Key {
        fn key(&self) -> Key {
            *self
        }
    }

    #[test]
    fn rows_are_found_by_key_through_growth() {
        let mut table = Table::new();
        let mut scratch = Vec::new();
        let keys: Vec<Key> = (0..5_000u32).map(|n| key_of(&mut scratch, &[&n.to_le_bytes()])).collect();
        for (number, key) in keys.iter().enumerate() {
            assert_eq!(table.find(*key), None);
            assert_eq!(table.find_or_insert(*key, || *key), (number as u32, false));
            assert_eq!(table.find_or_insert(*key, || unreachable!()), (number as u32, true));
        }
        assert!(keys.iter().enumerate().all(|(number, key)| table.find(*key) == Some(number as u32)));
    }
}
