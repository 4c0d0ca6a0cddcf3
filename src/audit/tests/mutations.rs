//! Every rule, broken once: on the frames before they are sealed, so that the chain is whole and only the
//! rule itself can tell; and on the bytes, where only the chain can.

use super::encoder::{Frame, Item, SEGMENT_BYTES};
use super::sample::{ACKS, NOBODY, account, disbursement, frame, outcome, sample, section};
use super::{BreachKind, Site};
use crate::domain::status::Status::{Canceled, Expired, Failed, Processing, Queued, Reversed, Succeeded};

/// What is broken, what must be found, and how it is broken.
type Case = (&'static str, BreachKind, fn(&mut Vec<Frame>));

/// Changes the sample's frames and says which breach must be found.
fn check(what: &str, expected: BreachKind, mutate: fn(&mut Vec<Frame>)) {
    let mut frames = sample();
    mutate(&mut frames);
    let report = Site::new(&frames).0.with_acks(ACKS).audit().unwrap();
    let found: Vec<_> = report.breaches.iter().map(|breach| breach.kind).collect();
    assert!(found.contains(&expected), "{what}: found {found:?}\n{report}");
    assert!(!found.contains(&BreachKind::Chain), "{what}: the chain was sealed anew\n{report}");
    assert!(report.to_string().ends_with("this folder is not to be trusted"), "{what}");
}

#[test]
fn all_is_well() {
    let report = Site::new(&sample()).0.with_acks(ACKS).audit().unwrap();
    assert!(report.is_clean(), "{report}");
    let acks = report.acks.unwrap();
    assert_eq!((acks.lines, acks.settled, acks.pending, acks.missing), (8, 5, 3, 0));
    assert_eq!((report.frames, report.requests, report.accounts, report.campaigns), (17, 10, 5, 1));
    assert_eq!((report.succeeded, report.failed, report.pending, report.paid_pending), (5, 3, 2, 1));
    assert_eq!((report.lost, report.double_paid, report.books_balanced), (0, 0, true));
    assert_eq!((report.outcomes.repeated, report.queued, report.waiting_visibly), (1, 1, 1));
    assert_eq!(report.totals[0].debits, 500 + 100 + 50 + 50 + 20 + 10 + 60);
    assert!(report.segments > 2 && report.torn_tail_bytes == 0);
    assert!(report.to_string().ends_with("the books balance"));
    assert!(report.to_string().lines().count() < 20);
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!((&json["requests"], &json["breaches_total"]), (&10.into(), &0.into()));
}

#[test]
fn transfers() {
    use BreachKind::*;
    let table: [Case; 16] = [
        ("a transfer twice", Double, |f| {
            let again = f[7].items[2].clone();
            f[7].items.push(again);
        }),
        ("refused after it was paid", Double, |f| {
            f[12].items.push(Item::Transfer(6, 3, 100, NOBODY, NOBODY, "s:r-1", ""));
        }),
        ("one side only", Unbalanced, |f| {
            f[7].items[2] = Item::Transfer(1, 0, 100, 1, NOBODY, "s:r-1", "");
        }),
        ("an account that is not open", AccountGap, |f| {
            f[7].items[2] = Item::Transfer(1, 0, 100, 1, 99, "s:r-1", "");
        }),
        ("a gap in the accounts", AccountGap, |f| f[7].items[1] = account(4, "person:bob")),
        ("an account twice", AccountGap, |f| f[7].items[1] = account(3, "person:ann")),
        ("below zero", Overdrawn, |f| f[2].items[2] = Item::Transfer(1, 0, 140, 0, 1, "s:f-1", "")),
        ("below zero by a hold", Overdrawn, |f| {
            f[15].items[0] = Item::Transfer(2, 0, 9_999, 1, 2, "w:h-1", "");
        }),
        ("another currency", CurrencyMixed, |f| {
            f[7].items[1] = Item::Account { number: 3, currency: "USD", name: "person:bob" };
        }),
        ("more taken back than moved", Reverse, |f| {
            f[12].items[1] = Item::Transfer(5, 0, 51, 3, 1, "s:v-1", "s:r-2");
        }),
        ("taken back twice", Reverse, |f| {
            f[12].items.insert(2, Item::Transfer(5, 0, 1, 3, 1, "w:v-2", "s:r-2"));
        }),
        ("taken back from somebody else", Reverse, |f| {
            f[12].items[1] = Item::Transfer(5, 0, 50, 2, 1, "s:v-1", "s:r-2");
        }),
        ("taken back what was refused", Reverse, |f| {
            f[12].items[1] = Item::Transfer(5, 0, 50, 3, 1, "s:v-1", "s:r-4");
        }),
        ("a post of no hold", Hold, |f| f[15].items[1] = Item::Transfer(3, 0, 10, 1, 2, "w:p-1", "w:h-9")),
        ("a void of a posted hold", Hold, |f| {
            f[15].items[3] = Item::Transfer(4, 0, 10, NOBODY, NOBODY, "w:o-2", "w:h-1");
        }),
        ("money for nobody's request", NotRequested, |f| {
            f[12].items.push(Item::Transfer(1, 0, 5, 1, 2, "s:r-77", ""));
        }),
    ];
    for (what, expected, mutate) in table {
        check(what, expected, mutate);
    }
}

#[test]
fn requests_and_outcomes() {
    use BreachKind::*;
    let table: [Case; 15] = [
        ("succeeded, no transfer", SucceededUnpaid, |f| {
            f[7].items.remove(2);
        }),
        ("failed, a transfer", RefusedPaid, |f| f[8].items[0] = outcome("r-1", Failed, 100)),
        ("canceled, a transfer", RefusedPaid, |f| {
            f[8].items[2] = outcome("r-3", Canceled, 70);
            f[7].items[4] = Item::Transfer(1, 0, 70, 1, 2, "s:r-3", "");
        }),
        ("another amount paid", TransferMismatch, |f| {
            f[7].items[2] = Item::Transfer(1, 0, 99, 1, 2, "s:r-1", "");
        }),
        ("another person paid", TransferMismatch, |f| {
            f[7].items[2] = Item::Transfer(1, 0, 100, 1, 3, "s:r-1", "");
        }),
        ("another amount while pending", TransferMismatch, |f| {
            f[15].items[4] = Item::Transfer(1, 0, 61, 1, 2, "s:r-9", "");
        }),
        ("reversed, and not in full", TransferMismatch, |f| {
            f[12].items[1] = Item::Transfer(5, 0, 49, 3, 1, "s:v-1", "s:r-2");
        }),
        ("two outcomes", TwoOutcomes, |f| f[8].items[5] = outcome("r-1", Expired, 100)),
        ("paid after it was refused", TwoOutcomes, |f| f[8].items[5] = outcome("r-3", Succeeded, 70)),
        ("reversed out of nothing", TwoOutcomes, |f| f[8].items[3] = outcome("r-4", Reversed, 40)),
        ("an outcome of nobody", OutcomeMismatch, |f| f[8].items[5] = outcome("r-77", Succeeded, 1)),
        ("an outcome of another amount", OutcomeMismatch, |f| f[8].items[0] = outcome("r-1", Succeeded, 1)),
        ("a lost outcome", Lost, |f| {
            f[8].items.remove(1);
            f[13].items.remove(1);
        }),
        ("off the queue in process", Lost, |f| f[8].items[4] = outcome("r-5", Processing, 30)),
        ("off the queue with no reason", Lost, |f| {
            f[8].items[4] = Item::Outcome { of: "r-5", status: Queued, code: 0, reason: 0, amount: 30 };
        }),
    ];
    for (what, expected, mutate) in table {
        check(what, expected, mutate);
    }
}

#[test]
fn queues() {
    use BreachKind::*;
    let table: [Case; 5] = [
        ("a dropped request", QueueGap, |f| {
            f[5].items.remove(2);
        }),
        ("a dropped section", QueueGap, |f| {
            f.remove(5);
        }),
        ("a request in no section", Malformed, |f| f[5].items.push(disbursement("r-8", 1, "ann"))),
        ("an ack beyond", Ack, |f| f[9].items[0] = Item::Ack { queue: (1, 3), below: 7 }),
        ("an ack backwards", Ack, |f| f[14].items.push(Item::Ack { queue: (1, 3), below: 4 })),
    ];
    for (what, expected, mutate) in table {
        check(what, expected, mutate);
    }
}

#[test]
fn campaigns_frames_and_draining() {
    use BreachKind::*;
    let table: [Case; 5] = [
        ("overspent", Overspent, |f| {
            let json = r#"{"client":"s","id":"c","budget":189}"#.into();
            f[0].items = vec![Item::Campaign { number: 1, json }];
        }),
        ("overpromised", Overspent, |f| {
            f[6].items.push(disbursement("r-8", 411, "ann"));
            f[6].items[0] = section((1, 3), 3, 4);
        }),
        ("paid under no campaign", Overspent, |f| f[0].items.clear()),
        ("a campaign in other words", Malformed, |f| {
            f[0].items = vec![Item::Campaign { number: 1, json: "{}".into() }];
        }),
        ("a frame of a kind to come", Malformed, |f| f.push(frame(21, vec![]))),
    ];
    for (what, expected, mutate) in table {
        check(what, expected, mutate);
    }
    let (mut site, _) = Site::new(&sample());
    site.options.expect_drained = true;
    assert_eq!(site.kinds(), [NotDrained]);
}

/// Facts that come twice or late change nothing, and are no breach.
#[test]
fn late_facts() {
    let mut frames = sample();
    frames.push(frame(
        18,
        vec![
            outcome("r-2", Succeeded, 50),
            outcome("r-3", Expired, 70),
            outcome("r-1", Queued, 100),
            outcome("r-4", Failed, 40),
        ],
    ));
    let report = Site::new(&frames).0.audit().unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.outcomes.late, report.outcomes.repeated), (3, 2));
    assert_eq!((report.succeeded, report.failed, report.pending), (5, 3, 2));
}

/// Spent 100 and reserved 90 of 190: the budget may be used up.
#[test]
fn a_budget_may_be_used_up() {
    let mut frames = sample();
    let json = r#"{"client":"s","id":"c","budget":190}"#.into();
    frames.push(frame(20, vec![Item::Campaign { number: 1, json }]));
    assert_eq!(Site::new(&frames).0.kinds(), []);
}

#[test]
fn bytes() {
    type Mutate = fn(&mut Vec<u8>, usize);
    let table: [(&str, Option<BreachKind>, Mutate); 7] = [
        ("nothing", None, |_, _| {}),
        ("a byte in a header", Some(BreachKind::Chain), |bytes, frame| bytes[frame + 40] ^= 1),
        ("a byte in a payload", Some(BreachKind::Chain), |bytes, frame| bytes[frame + 100] ^= 1),
        ("a frame zeroed", Some(BreachKind::Chain), |bytes, frame| bytes[frame..frame + 96].fill(0)),
        ("a segment zeroed", Some(BreachKind::Chain), |bytes, _| bytes[..SEGMENT_BYTES].fill(0)),
        ("the end torn", None, |bytes, _| {
            let end = bytes.len();
            bytes[end - 20..].fill(0);
        }),
        ("old frames behind the end", None, |bytes, _| {
            let old = bytes[..192].to_vec();
            bytes.extend_from_slice(&old);
        }),
    ];
    for (what, expected, mutate) in table {
        let (site, mut encoder) = Site::new(&sample());
        mutate(&mut encoder.bytes, encoder.written[6].offset);
        super::encoder::write(&site.options.data_dir, &encoder.bytes);
        let report = site.audit().unwrap();
        let found = report.breaches.first().map(|breach| breach.kind);
        assert_eq!(found, expected, "{what}\n{report}");
        assert_eq!(report.torn_tail_bytes > 0, what == "the end torn", "{what}\n{report}");
    }
}

/// Whatever single byte of a durable frame is changed, it is found, and nothing panics.
#[test]
fn every_byte_counts() {
    let (site, encoder) = Site::new(&sample());
    let last = encoder.written.last().unwrap().offset;
    for at in (0..last).step_by(13) {
        let mut bytes = encoder.bytes.clone();
        bytes[at] ^= 0x41;
        let is_padding = !encoder.written.iter().any(|frame| (frame.offset..frame.end).contains(&at));
        super::encoder::write(&site.options.data_dir, &bytes);
        assert!(is_padding || !site.audit().unwrap().is_clean(), "byte {at}");
    }
}
