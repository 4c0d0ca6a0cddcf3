//! A journal whose front was reclaimed: the checkpoint stands for it, or the audit says what is missing.

use std::fs;

use super::encoder::{Encoder, Item, SEGMENT_BYTES};
use super::sample::sample;
use super::{AuditError, BreachKind, Site};

/// How the checkpoint that was written differs from the right one.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Flaw {
    None,
    Missing,
    Damaged,
    OtherHash,
    OtherBalance,
    NoIds,
}

/// The first frame that is kept: the accept of r-1 and those after it.
const KEPT: usize = 5;

fn body(encoder: &Encoder, flaw: Flaw) -> Vec<u8> {
    let before = &encoder.written[KEPT - 1];
    let mut hash = before.hash;
    hash[0] ^= u8::from(flaw == Flaw::OtherHash);
    let credits = if flaw == Flaw::OtherBalance { 501 } else { 500 };
    let knows_ids = flaw != Flaw::NoIds;
    let json = serde_json::json!({
        "offset": encoder.written[KEPT].offset, "sequence": KEPT, "prev": blake3::Hash::from(hash).to_hex().as_str(),
        "accounts": [
            {"number": 0, "name": "funding:s", "currency": "CNY", "debits": 500, "credits": 0, "held": 0},
            {"number": 1, "name": "campaign:s:c", "currency": "CNY", "debits": 0, "credits": credits, "held": 0},
        ],
        "campaigns": [{"number": 1, "client": "s", "id": "c", "budget": 600}],
        "queues": [{"lane": 0, "fair": 0, "accepted": 1, "acked": 1}],
        "removed": {"requests": 1, "final": 1, "amount_succeeded": 500},
        "ids": u64::from(knows_ids),
    });
    let mut body = json.to_string().into_bytes();
    body.push(0);
    if knows_ids {
        body.extend_from_slice(&blake3::hash(b"s:f-1").as_bytes()[..16]);
        body.extend_from_slice(&500u64.to_le_bytes());
        body.extend_from_slice(&0u64.to_le_bytes());
        body.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0]);
    }
    body
}

fn blob(body: &[u8], is_old_magic: bool) -> Vec<u8> {
    let mut bytes = if is_old_magic { b"HBSNAP1\0".to_vec() } else { b"HBSNAP\r\n".to_vec() };
    bytes.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    let hashed = if is_old_magic { body.to_vec() } else { [&bytes, body].concat() };
    bytes.extend_from_slice(blake3::hash(&hashed).as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// The sample with its front cut off at [`KEPT`], after `mutate`.
fn site(flaw: Flaw, is_old_magic: bool, mutate: fn(&mut Vec<super::Frame>)) -> Site {
    let mut frames = sample();
    frames[KEPT].begins_segment = true;
    mutate(&mut frames);
    let (site, encoder) = Site::new(&frames);
    let first = encoder.written[KEPT].offset / SEGMENT_BYTES;
    assert!(first > 0);
    for index in 0..first {
        fs::remove_file(site.segment(index)).unwrap();
    }
    let mut bytes = blob(&body(&encoder, flaw), is_old_magic);
    bytes[60] ^= u8::from(flaw == Flaw::Damaged);
    if flaw != Flaw::Missing {
        let name = format!("journal/snap-audit-{first:016x}");
        fs::write(site.options.data_dir.join(name), bytes).unwrap();
    }
    site
}

#[test]
fn a_checkpoint_stands_for_what_was_removed() {
    let table: [(Flaw, &[BreachKind]); 5] = [
        (Flaw::None, &[]),
        (Flaw::NoIds, &[]),
        (Flaw::OtherHash, &[BreachKind::Chain]),
        (Flaw::OtherBalance, &[BreachKind::Unbalanced]),
        (Flaw::Missing, &[BreachKind::NoCheckpoint]),
    ];
    for (flaw, expected) in table {
        for is_old_magic in [false, true] {
            let site = site(flaw, is_old_magic, |_| {});
            let report = site.audit().unwrap();
            let found: Vec<_> = report.breaches.iter().map(|breach| breach.kind).collect();
            if flaw == Flaw::Missing {
                assert!(found.contains(&expected[0]), "{flaw:?}\n{report}");
            } else {
                assert_eq!(found, expected, "{flaw:?}\n{report}");
                assert!(report.from_checkpoint && report.removed.requests == 1);
            }
        }
    }
    let damaged = site(Flaw::Damaged, false, |_| {}).audit();
    assert!(matches!(damaged, Err(AuditError::Checkpoint { .. })));
}

#[test]
fn ids_are_remembered_across_it() {
    let double = |frames: &mut Vec<super::Frame>| {
        frames[12].items.push(Item::Transfer(1, 0, 500, 0, 1, "s:f-1", ""));
    };
    assert_eq!(site(Flaw::None, false, double).kinds(), [BreachKind::Double]);
    // Acknowledged lines: found in the checkpoint's ids; without them, as many as it says were removed.
    let table = [
        (Flaw::None, "s f-1 500\n", 0),
        (Flaw::None, "s f-1 501\n", 1),
        (Flaw::None, "s f-2 500\n", 1),
        (Flaw::NoIds, "s f-1 500\n", 0),
        (Flaw::NoIds, "s f-1 500\ns f-2 1\n", 1),
    ];
    for (flaw, lines, lost) in table {
        let report = site(flaw, false, |_| {}).with_acks(lines).audit().unwrap();
        assert_eq!(report.lost, lost, "{flaw:?} {lines:?}\n{report}");
    }
}

#[test]
fn an_anchor_from_before_it_still_counts() {
    let cut = site(Flaw::None, false, |_| {}).with_anchor();
    let path = cut.options.anchor.clone().unwrap();
    let mut frames = sample();
    frames[KEPT].begins_segment = true;
    let (_, encoder) = Site::new(&frames);
    let noted = |frame: usize, hash: [u8; 32]| {
        let hash = blake3::Hash::from(hash).to_hex();
        let end = encoder.written[frame].end;
        fs::write(
            &path,
            format!(r#"{{"version":1,"offset":{end},"sequence":{frame},"hash":"{hash}","at":0}}"#),
        )
        .unwrap();
    };
    noted(KEPT - 2, encoder.written[KEPT - 2].hash);
    assert_eq!(cut.kinds(), []);
    noted(KEPT, encoder.written[KEPT].hash);
    assert_eq!(cut.kinds(), []);
    noted(KEPT, [1; 32]);
    assert_eq!(cut.kinds(), [BreachKind::HistoryRewritten]);
}
