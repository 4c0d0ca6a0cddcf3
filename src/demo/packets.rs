//! Splits a budget into random red packets by the "twice the remaining average" rule.
//!
//! Each packet is uniform between one minor unit and twice the average of what remains, less one; the last
//! takes the rest. So every packet has the same expectation whatever its turn, none is empty, and the packets
//! add up to the budget exactly. Pure.

use super::dice::Dice;
use crate::domain::Amount;

/// The packets, in the order in which they are drawn. `None` where there is less than one minor unit for each.
pub fn split(budget: Amount, count: u32, dice: &mut Dice) -> Option<Vec<Amount>> {
    let mut remaining = budget.minor_units();
    if count == 0 || remaining < u64::from(count) {
        return None;
    }
    let mut packets = Vec::with_capacity(count as usize);
    for left in (2..=u64::from(count)).rev() {
        // At least 1, and never so much that somebody after it would get nothing: while `remaining >= left`,
        // `2 * remaining / left - 1 <= remaining - (left - 1)`.
        let max = 2 * remaining / left - 1;
        let drawn = dice.roll(max);
        remaining -= drawn;
        packets.push(Amount::new(drawn)?);
    }
    packets.push(Amount::new(remaining)?);
    Some(packets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packets_are_never_empty_and_add_up(count in 1u32..400, spare in 0u64..2_000_000, seed: u64) {
            let budget = Amount::new(u64::from(count) + spare).unwrap();
            let packets = split(budget, count, &mut Dice::new(seed)).unwrap();
            prop_assert_eq!(packets.len(), count as usize);
            let mut remaining = budget.minor_units();
            for (drawn, packet) in packets.iter().enumerate() {
                let left = u64::from(count) - drawn as u64;
                let amount = packet.minor_units();
                prop_assert!(amount >= 1);
                if left > 1 {
                    prop_assert!(amount < 2 * remaining / left, "twice the average of what remains");
                }
                remaining -= amount;
                prop_assert!(remaining >= left - 1, "there is something for everybody after it");
            }
            prop_assert_eq!(remaining, 0);
        }

        #[test]
        fn too_little_is_not_split(count in 1u32..1_000, seed: u64) {
            let budget = Amount::new(u64::from(count) - 1).unwrap();
            prop_assert_eq!(split(budget, count, &mut Dice::new(seed)), None);
        }
    }

    #[test]
    fn the_first_and_the_last_expect_the_same() {
        let budget = Amount::new(100_000).unwrap();
        let (mut first, mut last) = (0, 0);
        for seed in 0..2_000 {
            let packets = split(budget, 100, &mut Dice::new(seed)).unwrap();
            first += packets[0].minor_units();
            last += packets[99].minor_units();
        }
        // 1,000 on the average of 2,000 runs; the spread of a mean is about 13 here, more for the last.
        assert!((900..1_100).contains(&(first / 2_000)), "{}", first / 2_000);
        assert!((850..1_150).contains(&(last / 2_000)), "{}", last / 2_000);
    }
}
