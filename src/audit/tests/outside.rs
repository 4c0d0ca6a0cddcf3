//! What is kept outside the folder: the clients' list, and the anchor.

use std::fs;

use super::encoder::Item;
use super::sample::{ACKS, frame, sample};
use super::{AuditError, BreachKind, Site};

#[test]
fn the_clients_list() {
    // Lines added to the sample's; how many lines are missing.
    let table = [
        ("", 0),
        ("s r-1 100\n", 0),
        ("s r-77 100\n", 1),
        ("t r-1 100\n", 1),
        ("s r-1 101\n", 1),
        ("s k-1 100\n", 1),
        ("s r-77 1\ns r-78 1\n", 2),
        // Never finished by the client.
        ("s r-77", 0),
        ("s r-77 1", 0),
    ];
    for (lines, missing) in table {
        let report = Site::new(&sample()).0.with_acks(&format!("{ACKS}{lines}")).audit().unwrap();
        assert_eq!((report.lost, report.acks.unwrap().missing), (missing, missing), "{lines:?}\n{report}");
        assert_eq!(report.is_clean(), missing == 0);
    }
    let report = Site::new(&sample()).0.with_acks("s r-77 1\n").audit().unwrap();
    assert_eq!(
        (report.breaches[0].kind, &report.breaches[0].ids[..]),
        (BreachKind::Lost, &["s:r-77".into()][..])
    );
    for lines in ["nonsense\n", "s r-1 -1\n", "s r-1 1 1\n", "s  1\n"] {
        let error = Site::new(&sample()).0.with_acks(lines).audit().unwrap_err();
        assert!(matches!(error, AuditError::AcksLine { line: 1, .. }), "{lines:?}: {error}");
    }
}

#[test]
fn a_wallets_journal_vouches_for_what_it_has_on_record() {
    const FRAME_TRANSFERS: u8 = 17;
    let wallet: Vec<_> = sample().into_iter().filter(|frame| frame.kind == FRAME_TRANSFERS).collect();
    // r-2 was refused; the wallet never heard of r-77.
    let table = [("s r-1 100\ns r-2 50\n", 0), ("s r-1 101\n", 1), ("s r-77 1\n", 1), ("t r-1 100\n", 1)];
    for (lines, missing) in table {
        let report = Site::new(&wallet).0.with_acks(lines).audit().unwrap();
        assert_eq!((report.lost, report.acks.unwrap().missing), (missing, missing), "{lines:?}\n{report}");
        assert_eq!(report.is_clean(), missing == 0, "{report}");
    }
}

#[test]
fn many_losses_are_counted_and_some_are_named() {
    let lines: String = (0..1000).map(|n| format!("s x-{n} 1\n")).collect();
    let report = Site::new(&sample()).0.with_acks(&lines).audit().unwrap();
    assert_eq!((report.lost, report.breaches_total), (1000, 1000));
    assert_eq!(report.breaches[0].ids.len(), 20);
    assert!(report.to_string().contains("and 980 more"));
}

#[test]
fn requests_at_fault_are_named() {
    let mut frames = sample();
    frames[7].items.remove(2);
    let report = Site::new(&frames).0.audit().unwrap();
    let breach = report.breaches.iter().find(|breach| breach.kind == BreachKind::SucceededUnpaid).unwrap();
    assert_eq!(breach.ids, ["s:r-1"], "{report}");
}

/// Rewrites the journal of a site that has an anchor; says what is found.
fn check_anchor(what: &str, expected: &[BreachKind], mutate: fn(&mut Vec<super::Frame>)) {
    let (site, _) = Site::new(&sample());
    let site = site.with_anchor();
    let anchor = site.options.anchor.clone().unwrap();
    assert_eq!(site.kinds(), [], "{what}");
    let noted = fs::read_to_string(&anchor).unwrap();
    let mut frames = sample();
    mutate(&mut frames);
    let (rewritten, _) = Site::new(&frames);
    fs::remove_dir_all(&site.options.data_dir).unwrap();
    fs::rename(&rewritten.options.data_dir, &site.options.data_dir).unwrap();
    assert_eq!(site.kinds(), expected, "{what}");
    let is_advanced = fs::read_to_string(&anchor).unwrap() != noted;
    assert_eq!(is_advanced, expected.is_empty() && what != "nothing", "{what}");
}

#[test]
fn a_history_rewritten_with_all_its_hashes() {
    check_anchor("nothing", &[], |_| {});
    check_anchor("more frames", &[], |frames| frames.push(frame(0, vec![])));
    // Every rule holds in these, and every hash; only the anchor knows better.
    check_anchor("a smaller payout", &[BreachKind::HistoryRewritten], |frames| {
        frames[15].items[0] = Item::Transfer(2, 0, 9, 1, 2, "w:h-1", "");
        frames[15].items[1] = Item::Transfer(3, 0, 9, 1, 2, "w:p-1", "w:h-1");
    });
    check_anchor("a shorter history", &[BreachKind::HistoryRewritten], |frames| frames.truncate(15));
    check_anchor("frames of other sizes", &[BreachKind::HistoryRewritten], |frames| {
        frames.insert(16, frame(20, vec![]));
        frames[16].items.push(Item::Ack { queue: (1, 3), below: 5 });
    });
}

#[test]
fn an_anchor_is_kept_elsewhere_and_whole() {
    let (mut site, _) = Site::new(&sample());
    site.options.anchor = Some(site.options.data_dir.join("journal/anchor"));
    assert!(matches!(site.audit(), Err(AuditError::AnchorInside(_))));
    let site = site.with_anchor();
    let path = site.options.anchor.clone().unwrap();
    for text in ["", "{}", r#"{"version":2,"offset":0,"sequence":0,"hash":"","at":0}"#] {
        fs::write(&path, text).unwrap();
        assert!(matches!(site.audit(), Err(AuditError::Anchor { .. })), "{text}");
    }
}
