//! Random numbers and request ids of a run.
//!
//! Numbers come from SplitMix64 (Steele, Lea, Flood 2014): small, fast, and the same for the same seed, which is
//! what tests want. Ids are derived from the run's secret and a number, so that half a million of them need no
//! memory and a deliberate repeat finds its id again. Absent: anything that guards money.

/// Characters of an id.
pub const ID_CHARS: usize = 24;
/// Thirty-two characters that are hard to mistake for one another (Crockford's base 32).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

#[derive(Clone, Debug)]
pub struct Dice {
    state: u64,
}

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 1 to `max`, each as likely (Lemire 2019).
    pub fn roll(&mut self, max: u64) -> u64 {
        assert!(max > 0, "a die has at least one side");
        let reject_below = max.wrapping_neg() % max;
        loop {
            let wide = u128::from(self.next()) * u128::from(max);
            if wide as u64 >= reject_below {
                return (wide >> 64) as u64 + 1;
            }
        }
    }
}

/// What an id is for: two of different use are never the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Use {
    Packet = 1,
    Claim = 2,
    Invalid = 3,
    Batch = 4,
    Collection = 5,
    Reversal = 6,
    Funding = 7,
}

/// The ids of a run.
#[derive(Clone, Debug)]
pub struct Ids {
    secret: [u8; 32],
}

impl Ids {
    pub fn new(secret: [u8; 32]) -> Ids {
        Ids { secret }
    }

    /// The id of the `number`th request of this use.
    pub fn id(&self, used: Use, number: u32) -> String {
        let mut named = [used as u8; 5];
        named[1..].copy_from_slice(&number.to_le_bytes());
        let hash = blake3::keyed_hash(&self.secret, &named);
        let chars = hash.as_bytes().iter().take(ID_CHARS).map(|byte| ALPHABET[usize::from(byte % 32)]);
        chars.map(char::from).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_side_comes_up_and_none_beyond() {
        let mut dice = Dice::new(7);
        let mut seen = [0u32; 6];
        for _ in 0..6_000 {
            seen[dice.roll(6) as usize - 1] += 1;
        }
        assert!(seen.iter().all(|count| (800..1_200).contains(count)), "{seen:?}");
        assert_eq!(dice.roll(1), 1);
        assert!(dice.roll(u64::MAX) > 0);
    }

    #[test]
    fn ids_are_of_the_alphabet_and_never_the_same() {
        let ids = Ids::new([3; 32]);
        let mut seen = std::collections::HashSet::new();
        for number in 0..10_000 {
            for used in [Use::Packet, Use::Claim] {
                let id = ids.id(used, number);
                assert_eq!(id.len(), ID_CHARS);
                crate::domain::ids::check_id(&id).unwrap();
                assert!(seen.insert(id));
            }
        }
        assert_eq!(ids.id(Use::Packet, 9), ids.id(Use::Packet, 9), "a repeat finds its id again");
    }
}
