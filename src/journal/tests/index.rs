//! The index against a plain map, and what it refuses to load.

use std::collections::HashMap;

use proptest::prelude::*;

use super::super::index::{Changes, PLACE_MAX, PlaceIndex, decode_changes, encode_changes};
use super::cases;

/// Few distinct keys, so that they collide; those of one partition too.
fn key(n: u64) -> u64 {
    if n.is_multiple_of(3) { n << 52 } else { (7 << 52) | (n << 27) }
}

fn sorted(places: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut places: Vec<u64> = places.collect();
    places.sort_unstable();
    places
}

fn assert_same(index: &PlaceIndex, model: &HashMap<u64, Vec<u64>>) {
    assert_eq!(index.len(), model.values().map(Vec::len).sum::<usize>());
    for (hash, places) in model {
        assert_eq!(sorted(index.candidates(*hash)), sorted(places.iter().copied()));
    }
}

#[derive(Debug, Clone)]
enum Op {
    Insert(u64, u64),
    Replace(u64, u64, u64),
    Remove(u64, u64),
    Sweep(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = || (0..60_u64).prop_map(key);
    let place = || (0..30_u64).prop_map(|n| n * 8);
    let op = prop_oneof![
        8 => (key(), place()).prop_map(|(k, p)| Op::Insert(k, p)),
        2 => (key(), place(), place()).prop_map(|(k, p, q)| Op::Replace(k, p, q)),
        4 => (key(), place()).prop_map(|(k, p)| Op::Remove(k, p)),
        1 => (0..120_u64).prop_map(Op::Sweep),
    ];
    prop::collection::vec(op, 0..600)
}

fn apply(op: &Op, index: &mut PlaceIndex, model: &mut HashMap<u64, Vec<u64>>) {
    let drop_place = |places: &mut Vec<u64>, place| {
        let at = places.iter().position(|found| *found == place);
        at.map(|at| places.swap_remove(at)).is_some()
    };
    match *op {
        Op::Insert(key, place) => {
            let places = model.entry(key).or_default();
            let added = !places.contains(&place);
            if added {
                places.push(place);
            }
            assert_eq!(index.insert(key, place), added);
        }
        Op::Replace(key, old, new) => {
            let places = model.entry(key).or_default();
            let moved = drop_place(places, old);
            if moved && !places.contains(&new) {
                places.push(new);
            }
            assert_eq!(index.replace(key, old, new), moved);
        }
        Op::Remove(key, place) => {
            assert_eq!(index.remove(key, place), drop_place(model.entry(key).or_default(), place));
        }
        Op::Sweep(below) => {
            model.values_mut().for_each(|places| places.retain(|place| *place >= below));
            index.sweep_below(below);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_behaves_like_a_map(ops in ops(), dump_at in 0..600_usize) {
        let (mut index, mut model) = (PlaceIndex::new(), HashMap::new());
        let mut old = PlaceIndex::load(&index.dump()).unwrap();
        index.record_changes();
        for (at, op) in ops.iter().enumerate() {
            if at == dump_at {
                old = PlaceIndex::load(&index.dump()).unwrap();
                index.take_changes();
            }
            apply(op, &mut index, &mut model);
        }
        assert_same(&index, &model);
        old.apply_changes(&decode_changes(&encode_changes(&index.take_changes())).unwrap());
        assert_same(&old, &model);
        assert_same(&PlaceIndex::load(&index.dump()).unwrap(), &model);
    }
}

#[test]
fn places_at_the_edges() {
    let mut index = PlaceIndex::new();
    for (hash, place) in [(0, 0), (0, PLACE_MAX), (u64::MAX, 0), (u64::MAX, PLACE_MAX), (1 << 27, 8)] {
        assert!(index.insert(hash, place) && !index.insert(hash, place));
        assert!(index.candidates(hash).any(|found| found == place));
    }
    assert_eq!(index.candidates(1 << 26).count(), 2, "the low bits are not kept");
    assert_eq!(index.sweep_below(1), 2);
    assert_eq!(index.sweep_below(u64::MAX), 1, "the highest place alone is above every bound");
    assert_eq!(index.len(), 2);
}

#[test]
fn changes_keep_their_order_over_many_pieces() {
    let mut index = PlaceIndex::new();
    index.record_changes();
    let mut taken = Changes::default();
    // Three moves of each of so many that no piece holds them.
    for step in 0..3u64 {
        for n in 0..40_000u64 {
            let (place, next) = (n * 8 + step * 8_000_000, n * 8 + (step + 1) * 8_000_000);
            assert!(if step == 0 { index.insert(key(n), next) } else { index.replace(key(n), place, next) });
        }
        taken.append(index.take_changes());
        assert_eq!((index.changes_count(), taken.len()), (0, 40_000 * (step as usize + 1)));
    }
    let mut copy = PlaceIndex::new();
    copy.apply_changes(&decode_changes(&encode_changes(&taken)).unwrap());
    assert_eq!(copy.len(), 40_000);
    assert!((0..40_000).all(|n| copy.candidates(key(n)).any(|place| place == n * 8 + 24_000_000)));
}

#[test]
fn damaged_bytes_are_refused() {
    let mut index = PlaceIndex::new();
    index.record_changes();
    (0..100).for_each(|n| assert!(index.insert(key(n), n * 8)));
    let (dump, run) = (index.dump(), encode_changes(&index.take_changes()));
    for at in [0, 8, 16, 24, 60, dump.len() - 1] {
        let mut bad = dump.clone();
        bad[at] ^= 1;
        assert!(PlaceIndex::load(&bad).is_err(), "a dump with byte {at} flipped");
    }
    for at in [0, 8, 16, 24, 60, run.len() - 1] {
        let mut bad = run.clone();
        bad[at] ^= 1;
        assert!(decode_changes(&bad).is_err(), "a run with byte {at} flipped");
    }
    assert!(PlaceIndex::load(&dump[..dump.len() - 8]).is_err() && PlaceIndex::load(&[]).is_err());
    assert!(PlaceIndex::load(&run).is_err() && decode_changes(&dump).is_err());
}

#[test]
fn many_entries_stay_within_their_load() {
    let mut index = PlaceIndex::new();
    let spread = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (0..300_000).for_each(|n| assert!(index.insert(spread(n), n * 8)));
    assert!(index.heap_bytes() < 300_000 * 8 * 100 / 40, "{} bytes", index.heap_bytes());
    assert!((0..300_000).all(|n| index.candidates(spread(n)).any(|place| place == n * 8)));
}
