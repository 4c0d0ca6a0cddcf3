//! Entries of the board as stored, who is live, and whose outcome view goes first.

use super::*;

/// `member_since`, `joined_at`, view, anomaly
fn peer(incarnation: &str, since: u64, joined_at: u64, view: Option<&str>, anomaly: Option<&str>) -> Peer {
    let entry = Entry {
        format: FORMAT,
        name: incarnation.to_uppercase(),
        member_since: since,
        joined_at,
        view: view.map(str::to_owned),
        anomaly: anomaly.map(|code| (code.to_owned(), "a sentence".to_owned())),
        ..Entry::default()
    };
    Peer { incarnation: incarnation.to_owned(), seen_at: 1_000, entry: Ok(entry) }
}

#[test]
fn of_views_that_cannot_go_together_the_first_goes_on() {
    let private = |name, since, joined| peer(name, since, joined, None, None);
    let shared = |name, since, joined| peer(name, since, joined, Some("v"), None);
    let other = |name, since, joined| peer(name, since, joined, Some("w"), None);
    let newer = Peer { incarnation: "n".to_owned(), seen_at: 1, entry: Err(UnknownFormat(9)) };
    // The board; who is kept off by whom.
    type Row<'a> = (&'a [Peer], &'a [(&'a str, &'a str)]);
    let table: [Row; 10] = [
        (&[private("a", 5, 1)], &[]),
        (&[shared("a", 5, 1), shared("b", 0, 2)], &[]),
        (&[private("a", 5, 1), private("b", 0, 2)], &[("b", "a")]),
        (&[private("b", 0, 2), private("a", 0, 3)], &[("a", "b")]),
        // Both joined in the same millisecond: by incarnation.
        (&[private("a", 0, 2), private("b", 0, 2)], &[("b", "a")]),
        (&[shared("a", 5, 9), other("b", 6, 1)], &[("b", "a")]),
        (&[private("a", 5, 1), shared("b", 0, 2), shared("c", 0, 3)], &[("b", "a"), ("c", "a")]),
        // Who is kept off keeps nobody off.
        (&[shared("a", 5, 3), private("b", 0, 1), shared("c", 0, 4)], &[("b", "a")]),
        (&[peer("a", 0, 1, None, Some("wallet_differs")), private("b", 0, 2)], &[]),
        (&[newer, private("b", 0, 2)], &[]),
    ];
    for (row, (live, expected)) in table.into_iter().enumerate() {
        for own in live {
            let against = view_conflict(live, &own.incarnation).map(|peer| peer.incarnation.as_str());
            let expected = expected.iter().find(|(name, _)| *name == own.incarnation).map(|(_, by)| *by);
            assert_eq!(against, expected, "row {row}, {}", own.incarnation);
        }
    }
}

#[test]
fn who_is_live_dead_or_no_entry() {
    let full = Entry { format: FORMAT, units: vec!["hongbao:0".to_owned()], ..Entry::default() };
    let json = serde_json::to_string(&full).unwrap();
    let seen = |at: u64| Value::BulkString(format!("{{\"seen_at\":{at},{}", &json[1..]).into_bytes());
    let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
    let fields = vec![
        (text("z-live"), seen(100_000)),
        (text("a-late"), seen(96_999)),
        (text("dead"), seen(69_999)),
        (text("ahead"), seen(100_500)),
        (text("newer"), text("{\"seen_at\":99000,\"format\":7,\"name\":[]}")),
        (text("odd"), text("hello")),
    ];
    for value in
        [Value::Map(fields.clone()), Value::Array(fields.into_iter().flat_map(|(f, v)| [f, v]).collect())]
    {
        let found = peers(value, 100_000, 3_000).unwrap();
        let live: Vec<&str> = found.live.iter().map(|peer| peer.incarnation.as_str()).collect();
        assert_eq!(live, ["ahead", "newer", "z-live"]);
        assert_eq!((found.dead, found.unreadable), (vec!["dead".to_owned()], vec!["odd".to_owned()]));
        assert_eq!(found.live[1].entry, Err(UnknownFormat(7)));
        assert!(found.live[1].is_member() && !found.live[2].is_member());
        assert_eq!(found.live[2].entry.as_ref().unwrap().units, full.units);
    }
    assert!(peers(Value::Int(1), 0, 1).is_err());
}

#[test]
fn shards_as_stored() {
    let units = Units { shard_count: 16, fair_queue_count: 8, foreign: Vec::new() };
    assert_eq!((shards_text(&units).as_str(), parse_shards("16/8")), ("16/8", Some((16, 8))));
    assert_eq!((parse_shards("16"), parse_shards("x/8")), (None, None));
}
