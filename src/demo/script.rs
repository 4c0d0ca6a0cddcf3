//! What will be sent, in which call, and when: written down whole before the first call goes out.
//!
//! Most packets travel in batches, some alone. Mixed in are requests that must not be paid: repeats and
//! conflicts of packets sent earlier, invalid ones, and claims on a campaign whose budget is too small for
//! them. The opening, the first eighth of the burst, has none of these; they name packets of the opening, and
//! are sent when all of it was answered. Pure.

use std::ops::Range;
use std::time::Duration;

use super::dice::{Dice, Ids};
use super::packets;
use super::schedule;
use crate::domain::Amount;

pub const CURRENCY: &str = "CNY";
/// Minor units of a packet on the average: 8.88 yuan.
const AVERAGE: u64 = 888;
/// Every claim asks for the same, so that exactly half of them find the budget exhausted.
const CLAIM: u64 = 88;
const BATCH_PACKETS_MAX: u32 = 500;
const SINGLES_MAX: u32 = 5_000;
/// One of so many requests is repeated, one conflicts, one is invalid, and one claim is refused.
const ODD_ONE_OF: u32 = 200;
const OPENING: f64 = 0.12;

/// One request within a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    Packet(u32),
    /// The packet again, word for word.
    Repeat(u32),
    /// The packet's id with another amount.
    Conflict(u32),
    /// No amount, or an unknown currency.
    Invalid(u32),
    /// On the campaign that is too small.
    Claim(u32),
}

/// One HTTP call of the burst.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub due: Duration,
    /// `None`: a single request.
    pub batch: Option<u32>,
    pub packets: Range<u32>,
    pub claims: Range<u32>,
    /// Repeats, conflicts and invalid ones.
    pub odd: Vec<Item>,
}

impl Call {
    pub fn items(&self) -> impl Iterator<Item = Item> + '_ {
        let packets = self.packets.clone().map(Item::Packet);
        packets.chain(self.claims.clone().map(Item::Claim)).chain(self.odd.iter().copied())
    }

    pub fn is_claims(&self) -> bool {
        !self.claims.is_empty()
    }

    fn names_the_opening(&self) -> bool {
        !self.odd.is_empty()
    }
}

/// How many of what there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mix {
    pub packets: u32,
    pub singles: u32,
    pub repeats: u32,
    pub conflicts: u32,
    pub invalid: u32,
    pub claims: u32,
    pub collections: u32,
    pub reversals: u32,
}

impl Mix {
    fn of(count: u32) -> Mix {
        let odd = (count / ODD_ONE_OF).max(2);
        Mix {
            packets: count,
            singles: (count / 100).clamp(10, SINGLES_MAX).min(count),
            repeats: odd,
            conflicts: odd,
            invalid: odd,
            claims: odd * 2,
            collections: (count / 1_000).clamp(4, 300),
            reversals: (count / 10_000).clamp(2, 50),
        }
    }
}

pub struct Script {
    /// Stands in the campaigns' names, so that a folder may see several runs.
    pub run: String,
    pub ids: Ids,
    pub mix: Mix,
    pub amounts: Vec<Amount>,
    pub claim: Amount,
    pub calls: Vec<Call>,
    /// The first so many calls are the opening.
    pub opening_calls: usize,
}

impl Script {
    pub fn write(count: u32, length: Duration, secret: [u8; 32], run: String) -> Script {
        let seed = u64::from_le_bytes(secret[..8].try_into().expect("eight of thirty-two bytes"));
        let mix = Mix::of(count);
        let budget = Amount::new(u64::from(count) * AVERAGE).expect("count is bounded");
        let amounts = packets::split(budget, count, &mut Dice::new(seed)).expect("the average is over one");
        let claim = Amount::new(CLAIM).expect("small");
        let mut calls = spread(&mix);
        let opening_calls = calls.iter().take_while(|(at, _)| *at < OPENING).count();
        let opening_packets = number_packets(&mut calls, opening_calls);
        add_odd(&mut calls, opening_calls, opening_packets, &mix);
        let calls: Vec<Call> =
            calls.into_iter().map(|(at, call)| Call { due: schedule::due(at, length), ..call }).collect();
        Script { run, ids: Ids::new(secret), mix, amounts, claim, calls, opening_calls }
    }

    /// Whether a call may only go out when the opening was answered.
    pub fn waits_for_opening(&self, call: &Call) -> bool {
        call.names_the_opening()
    }

    pub fn singles(&self) -> impl Iterator<Item = u32> + '_ {
        let alone = self.calls.iter().filter(|call| call.batch.is_none() && call.odd.is_empty());
        alone.flat_map(|call| call.packets.clone())
    }

    pub fn budget(&self) -> Amount {
        let sum = self.amounts.iter().try_fold(Amount::ZERO, |sum, amount| sum.checked_add(*amount));
        sum.expect("the packets add up to a budget")
    }

    /// Enough for every second claim.
    pub fn claims_budget(&self) -> Amount {
        Amount::new(CLAIM * u64::from(self.mix.claims / 2)).expect("small")
    }
}

fn call(batch: Option<u32>, packets: u32, claims: Range<u32>) -> Call {
    Call { due: Duration::ZERO, batch, packets: 0..packets, claims, odd: Vec::new() }
}

/// Where the `index`th of `count` stands when they are spread evenly over a part of the whole.
fn place(index: u32, count: u32, part: Range<f64>) -> f64 {
    part.start + (f64::from(index) + 0.5) / f64::from(count) * (part.end - part.start)
}

/// Singles, batches and claims, each spread evenly, in order; packets only counted yet.
fn spread(mix: &Mix) -> Vec<(f64, Call)> {
    let mut calls = Vec::new();
    for index in 0..mix.singles {
        calls.push((place(index, mix.singles, 0.0..1.0), call(None, 1, 0..0)));
    }
    let in_batches = mix.packets - mix.singles;
    let size = (in_batches / 20).clamp(1, BATCH_PACKETS_MAX);
    let batches = in_batches.div_ceil(size);
    for batch in 0..batches {
        let packets = size.min(in_batches - batch * size);
        calls.push((place(batch, batches, 0.0..1.0), call(Some(batch), packets, 0..0)));
    }
    let size = (mix.claims / 8).clamp(1, 100);
    let claim_batches = mix.claims.div_ceil(size);
    for index in 0..claim_batches {
        let claims = index * size..((index + 1) * size).min(mix.claims);
        calls.push((place(index, claim_batches, OPENING..1.0), call(Some(batches + index), 0, claims)));
    }
    calls.sort_by(|a, b| a.0.total_cmp(&b.0));
    calls
}

/// Numbers the packets in the order of the calls; answers how many the opening has.
fn number_packets(calls: &mut [(f64, Call)], opening_calls: usize) -> u32 {
    let (mut next, mut opening) = (0, 0);
    for (index, (_, call)) in calls.iter_mut().enumerate() {
        let count = call.packets.end;
        call.packets = next..next + count;
        next += count;
        if index < opening_calls {
            opening = next;
        }
    }
    opening
}

/// Adds what must not be paid: half of it inside batches that follow the opening, half alone.
fn add_odd(calls: &mut Vec<(f64, Call)>, opening_calls: usize, opening_packets: u32, mix: &Mix) {
    let target = |index: u32| index % opening_packets.max(1);
    // Different packets where there are enough: a packet may be repeated and be in conflict all the same.
    let repeats = (0..mix.repeats).map(|index| Item::Repeat(target(index)));
    let conflicts = (0..mix.conflicts).map(|index| Item::Conflict(target(mix.repeats + index)));
    let invalid = (0..mix.invalid).map(Item::Invalid);
    let odd: Vec<Item> = repeats.chain(conflicts).chain(invalid).collect();
    let (inside, alone): (Vec<_>, Vec<_>) =
        odd.into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
    let later = calls.iter_mut().skip(opening_calls).map(|(_, call)| call);
    let mut hosts: Vec<&mut Call> = later.filter(|call| call.batch.is_some() && !call.is_claims()).collect();
    let host_count = hosts.len();
    let mut alone: Vec<Item> = alone.into_iter().map(|(_, item)| item).collect();
    for (index, (_, item)) in inside.into_iter().enumerate() {
        match hosts.get_mut(index % host_count.max(1)) {
            Some(host) => host.odd.push(item),
            None => alone.push(item),
        }
    }
    let count = alone.len() as u32;
    for (index, item) in alone.into_iter().enumerate() {
        // Any order will do, but kinds should not come in blocks.
        let shuffled = (index as u32).wrapping_mul(7_919) % count;
        let single = Call { odd: vec![item], ..call(None, 0, 0..0) };
        calls.push((place(shuffled, count, OPENING..1.0), single));
    }
    calls.sort_by(|a, b| a.0.total_cmp(&b.0));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(count: u32) -> Script {
        Script::write(count, Duration::from_secs(4), [5; 32], "test".to_owned())
    }

    #[test]
    fn everything_is_sent_once_and_in_time() {
        for count in [10, 11, 137, 3_000, 50_000] {
            let script = script(count);
            let mut packets: Vec<u32> = Vec::new();
            let mut seen = Mix { packets: count, ..Mix::default() };
            for call in &script.calls {
                seen.singles += u32::from(call.batch.is_none() && call.odd.is_empty());
                for item in call.items() {
                    match item {
                        Item::Packet(number) => packets.push(number),
                        Item::Repeat(_) => seen.repeats += 1,
                        Item::Conflict(_) => seen.conflicts += 1,
                        Item::Invalid(_) => seen.invalid += 1,
                        Item::Claim(_) => seen.claims += 1,
                    }
                }
            }
            let expected = Mix { collections: 0, reversals: 0, ..script.mix };
            assert_eq!(seen, expected, "{count}");
            packets.sort_unstable();
            assert_eq!(packets, (0..count).collect::<Vec<_>>());
            assert!(script.calls.is_sorted_by_key(|call| call.due), "{count}");
            assert!(script.calls.iter().all(|call| call.due <= Duration::from_secs(4)));
        }
    }

    #[test]
    fn odd_ones_name_packets_of_the_opening() {
        for count in [10, 137, 3_000, 50_000] {
            let script = script(count);
            let opening = &script.calls[..script.opening_calls];
            assert!(opening.iter().all(|call| call.odd.is_empty() && call.claims.is_empty()), "{count}");
            let known: u32 = opening.iter().map(|call| call.packets.len() as u32).sum();
            assert!(known > 0, "{count}");
            for item in script.calls.iter().flat_map(|call| &call.odd) {
                if let Item::Repeat(number) | Item::Conflict(number) = item {
                    assert!(*number < known, "{item:?} of {known}");
                }
            }
        }
    }

    #[test]
    fn batches_number_themselves() {
        let script = script(50_000);
        let mut numbers: Vec<u32> = script.calls.iter().filter_map(|call| call.batch).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..numbers.len() as u32).collect::<Vec<_>>());
        assert_eq!(script.budget().minor_units(), 50_000 * AVERAGE);
    }
}
