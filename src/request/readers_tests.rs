//! The two readers never disagree: whatever the fast one takes, the diagnosing one finds no fault with, and
//! the reverse; and both read the same out of it.

use proptest::prelude::*;

use crate::request::fault::{Faults, Place};
use crate::request::judge::{Bench, Expect, Inherited, Judge};
use crate::request::wire::Payout;
use crate::request::{diagnose, plain, wire};

/// Judges what a reader made of a payout: the record, or nothing.
fn record(payout: &Payout<'_>, expect: Expect, faults: &mut Faults) -> Option<Vec<u8>> {
    let bench = Bench { place: Place::Top, faults };
    let submission = Judge::new("shop").payout(payout, expect, Inherited::default(), bench);
    submission.map(|submission| submission.record)
}

fn compare_payout(text: &str, expect: Expect) -> Result<bool, TestCaseError> {
    let mut slow_faults = Faults::default();
    let slow = diagnose::payout(text, expect.shape(), &mut slow_faults);
    let formed = slow.is_ok() && slow_faults.is_empty();
    let general = wire::general(text);
    if let Some(plain) = plain::payout(text) {
        prop_assert_eq!(format!("{:?}", Some(plain)), format!("{general:?}"));
    }
    let Some(fast) = wire::payout(text) else {
        prop_assert!(!formed, "the diagnosing reader finds no fault with {text}");
        return Ok(false);
    };
    prop_assert!(formed, "the fast reader takes {text}, the other says {slow_faults:?} {:?}", slow.err());
    let mut fast_faults = Faults::default();
    let by_fast = record(&fast, expect, &mut fast_faults);
    let by_slow = record(&slow.unwrap(), expect, &mut slow_faults);
    prop_assert_eq!(&by_fast, &by_slow);
    prop_assert_eq!(fast_faults, slow_faults);
    Ok(by_fast.is_some())
}

fn compare_batch(text: &str) -> Result<(), TestCaseError> {
    let mut faults = Faults::default();
    let slow = diagnose::batch(text, &mut faults);
    let formed = match &slow {
        Ok((_, items)) => faults.is_empty() && items.iter().all(Faults::is_empty),
        Err(_) => false,
    };
    let fast = wire::batch(text);
    prop_assert_eq!(fast.is_some(), formed, "{}", text);
    if let (Some(fast), Ok((slow, _))) = (fast, slow) {
        prop_assert_eq!(format!("{fast:?}"), format!("{slow:?}"));
    }
    Ok(())
}

/// A value that is right for some field, nearly right, or wrong for all.
fn value() -> impl Strategy<Value = String> {
    let fixed = [
        "null",
        "true",
        "0",
        "1",
        "88",
        "-0",
        "-1",
        "1.0",
        "1e2",
        "0.5",
        "9007199254740991",
        "9007199254740992",
        "18446744073709551615",
        "18446744073709551616",
        "1e999",
        "01",
        "\"88\"",
        "\"\"",
        "\"ann\"",
        "\"CNY\"",
        "\"cny\"",
        "\"XXX\"",
        "\"a b\"",
        "\"\\u0061nn\"",
        "\"\\ud800\"",
        "\"\\ud83d\\ude00\"",
        "\"a\\nb\"",
        "\"a\nb\"",
        "\"红包\"",
        "\"realtime\"",
        "\"bulk\"",
        "\"2027-01-01T00:00:00Z\"",
        "\"2026-06-01T00:00:00.5+08:00\"",
        "{}",
        "{\"a\":1e999}",
        "{\"a\":{\"b\":[1,2]}}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\"}",
        "[]",
        "[1]",
        "[[",
        "nul",
        " 7 ",
    ];
    prop::sample::select(fixed.map(str::to_owned).to_vec())
}

fn right(name: &str) -> &'static str {
    match name {
        "amount" => "88",
        "currency" => "\"CNY\"",
        "lane" => "\"bulk\"",
        "not_before" => "\"2027-01-01T00:00:00Z\"",
        "not_after" => "\"2028-01-01T00:00:00Z\"",
        "metadata" => "{\"a\": 1}",
        _ => "\"x-1\"",
    }
}

const NAMES: [&str; 15] = [
    "id",
    "campaign",
    "payee",
    "amount",
    "currency",
    "remark",
    "lane",
    "not_before",
    "not_after",
    "metadata",
    "payer",
    "merchant",
    "agreement",
    "amout",
    "\\u0069d",
];

/// A member: mostly right, sometimes anything.
fn member() -> impl Strategy<Value = String> {
    (prop::sample::select(NAMES.to_vec()), prop::option::weighted(0.3, value())).prop_map(|(name, wrong)| {
        let value = wrong.unwrap_or_else(|| right(name).to_owned());
        format!("\"{name}\":{value}")
    })
}

/// An object with the required members of a disbursement or collection in front, some replaced or repeated.
fn object() -> impl Strategy<Value = String> {
    let base = prop::sample::select(vec![
        "\"id\":\"r\",\"campaign\":\"c\",\"payee\":\"p\",\"amount\":1,\"currency\":\"CNY\"",
        "\"id\":\"r\",\"campaign\":\"c\",\"payer\":\"p\",\"merchant\":\"m\",\"agreement\":\"a\",\"amount\":1,\"currency\":\"CNY\"",
        "",
    ]);
    let space = prop::sample::select(vec!["", " ", "\n\t", "\u{a0}"]);
    (base, prop::collection::vec(member(), 0..5), space).prop_map(|(base, members, space)| {
        let mut all: Vec<String> = members;
        if !base.is_empty() {
            all.insert(0, base.to_owned());
        }
        format!("{space}{{{space}{}{space}}}{space}", all.join(&format!("{space},")))
    })
}

fn expect() -> impl Strategy<Value = Expect> {
    prop::sample::select(vec![Expect::Disbursement, Expect::Collection, Expect::Either])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn on_payouts(text in object(), expect in expect()) {
        compare_payout(&text, expect)?;
    }

    #[test]
    fn on_anything(text in "\\PC*", prefix in object()) {
        compare_payout(&text, Expect::Either)?;
        let cut = prefix.char_indices().nth(text.len() % prefix.chars().count()).unwrap().0;
        compare_payout(&prefix[..cut], Expect::Either)?;
        compare_payout(&format!("{prefix}{text}"), Expect::Either)?;
        compare_payout(&format!("[{prefix}]"), Expect::Either)?;
    }

    #[test]
    fn on_batches(
        items in prop::collection::vec(prop_oneof![6 => object(), 1 => value()], 0..4),
        extra in prop::option::weighted(0.3, (prop::sample::select(vec!["id", "total_count", "item", "items"]), value())),
    ) {
        let extra = extra.map(|(name, value)| format!(",\"{name}\":{value}")).unwrap_or_default();
        compare_batch(&format!(
            "{{\"id\":\"b\",\"campaign\":\"c\",\"total_count\":1,\"total_amount\":2,\"items\":[{}]{extra}}}",
            items.join(",")
        ))?;
    }
}

/// The test above would pass if nothing were ever accepted; this says that things are.
#[test]
fn good_ones_are_taken_by_both() {
    let table = [
        (r#"{"id":"r","campaign":"c","payee":"p","amount":1,"currency":"CNY"}"#, Expect::Disbursement, true),
        (
            r#"{"id":"r","campaign":"c","payee":"p","payer":null,"amount":1,"currency":"CNY"}"#,
            Expect::Disbursement,
            true,
        ),
        (
            r#"{"\u0069d":"r\u002d1","campaign":"c","payee":"p","amount":1,"currency":"CNY"}"#,
            Expect::Either,
            true,
        ),
        (
            r#"{"id":"r","campaign":"c","payee":"p","amount":1,"currency":"CNY","metadata":{"a":1e999}}"#,
            Expect::Either,
            true,
        ),
        (r#"{"id":"r","campaign":"c","payee":"p","amount":0,"currency":"CNY"}"#, Expect::Either, false),
    ];
    for (text, expect, taken) in table {
        assert_eq!(compare_payout(text, expect).unwrap(), taken, "{text}");
    }
}
