//! Promises about the calls themselves: who answers, in which order, by when, and what is refused.

use std::time::Instant;

use super::run::{DEADLINE_MS, Run, Seen, broken, expect, shown};
use crate::stored_value::contract::{ENTRIES_MAX, Entry};

/// Past its deadline, an answer may take this much longer: the way there and back.
const LATE_MS_MAX: u128 = 1_000;

pub async fn identity(run: &Run) -> Seen {
    let first = run.caller.identity().await?;
    if uuid::Uuid::parse_str(&first).is_err() {
        return broken(format!("{first:?} is not a UUID"));
    }
    let second = run.caller.identity().await?;
    if first != second {
        return broken(format!("it was {first}, then {second}"));
    }
    Ok(first)
}

pub async fn authorization(run: &Run) -> Seen {
    if !run.caller.is_authorized() {
        return Err(super::run::Broken::NotOffered("tried with --authorization only".to_owned()));
    }
    let entry = run.transfer(&run.id(), &run.account(), &run.person(), 1);
    let body = serde_json::json!({"deadline_ms": DEADLINE_MS, "transfers": [entry]}).to_string();
    for value in [None, Some("Bearer not-the-right-one")] {
        match run.caller.raw_as(value, "/v1/transfers", Some(body.clone())).await {
            Ok(raw) if matches!(raw.status, 401 | 403) => {}
            Ok(raw) => return broken(format!("with {value:?} it answered {}", raw.shown())),
            Err(reason) => return broken(reason),
        }
    }
    Ok("wrong or no credentials are refused".to_owned())
}

pub async fn order(run: &Run) -> Seen {
    let account = run.funded(50).await?;
    let empty = run.account();
    // Every other entry cannot be paid: results in another order would be seen even without their ids.
    let entry = |n: u64| {
        run.transfer(&run.id(), if n.is_multiple_of(2) { &account } else { &empty }, &run.person(), 1)
    };
    let entries: Vec<Entry<'_>> = (0..100).map(entry).collect();
    let results = run.settle(&entries).await?;
    for (n, outcome) in results.iter().enumerate() {
        let status = if n.is_multiple_of(2) { "succeeded" } else { "failed" };
        expect(&format!("entry {n}"), outcome, status, None)?;
    }
    Ok("100 results in the order of their entries".to_owned())
}

pub async fn lookup(run: &Run) -> Seen {
    let account = run.funded(50).await?;
    let entry = run.transfer(&run.id(), &account, &run.person(), 20);
    for _ in 0..2 {
        expect("a lookup of an id never seen", &run.look_up_one(&entry.id).await?, "not_found", None)?;
    }
    expect("a payment after a lookup", &run.settle_one(&entry).await?, "succeeded", None)?;
    let found = run.look_up_one(&entry.id).await?;
    expect("a lookup of a paid id", &found, "succeeded", None)?;
    run.expect_left(&account, 30).await?;
    match found.amount {
        Some(20) => Ok("no side effect; tells the amount".to_owned()),
        Some(amount) => broken(format!("20 was paid, the lookup says {amount}")),
        None => Ok("no side effect; does not tell the amount, so amounts cannot be reconciled".to_owned()),
    }
}

pub async fn deadline(run: &Run) -> Seen {
    const SHORT_MS: u64 = 50;
    let account = run.funded(1_000).await?;
    let pay = |_| run.transfer(&run.id(), &account, &run.person(), 1);
    let entries: Vec<Entry<'_>> = (0..500).map(pay).collect();
    let began = Instant::now();
    let results = run.caller.transfers(&entries, SHORT_MS).await?;
    let took = began.elapsed().as_millis();
    if took > u128::from(SHORT_MS) + LATE_MS_MAX {
        return broken(format!("asked for within {SHORT_MS} ms, answered after {took} ms"));
    }
    if let Some(odd) = results.iter().find(|r| !matches!(r.status.as_str(), "succeeded" | "unknown")) {
        return broken(format!("at a short deadline an entry answered `{}`", shown(odd)));
    }
    let unknown = results.iter().filter(|outcome| outcome.status == "unknown").count();
    for outcome in run.settle(&entries).await? {
        expect("the same id again", &outcome, "succeeded", None)?;
    }
    run.expect_left(&account, 500).await?;
    Ok(format!("500 entries answered after {took} ms of {SHORT_MS}, {unknown} unknown; all paid once"))
}

pub async fn unknown_fields(run: &Run) -> Seen {
    let account = run.funded(10).await?;
    let (id, person, currency) = (run.id(), run.person(), &run.currency);
    let body = serde_json::json!({
        "deadline_ms": DEADLINE_MS,
        "trace": "of a later version",
        "transfers": [{
            "id": id, "kind": "transfer", "debit": account, "credit": person, "amount": 10,
            "currency": currency, "colour": {"red": true},
        }],
    });
    let raw = run.caller.raw("/v1/transfers", Some(body.to_string())).await;
    match raw {
        Ok(raw) if raw.status == 200 => {}
        Ok(raw) => return broken(format!("fields it does not know: {}", raw.shown())),
        Err(reason) => return broken(reason),
    }
    run.expect_left(&account, 0).await?;
    Ok("fields it does not know are ignored".to_owned())
}

pub async fn malformed(run: &Run) -> Seen {
    let account = run.funded(10).await?;
    let good =
        serde_json::to_string(&run.transfer(&run.id(), &account, &run.person(), 5)).unwrap_or_default();
    let of = |entry: &str| format!(r#"{{"deadline_ms":{DEADLINE_MS},"transfers":[{good},{entry}]}}"#);
    let bad = |from: &str, to: &str| {
        let id = run.id();
        let entry = serde_json::to_string(&run.transfer(&id, &account, &run.person(), 5));
        of(&entry.unwrap_or_default().replace(from, to))
    };
    // Body, what is wrong with it, whether a refusal of the entry alone would do.
    let table = [
        (of("{\"id\":"), "cut short", false),
        (format!("{}]}}", &of("{}")[1..]), "no JSON", false),
        (r#"{"deadline_ms":1000}"#.to_owned(), "no transfers", false),
        (bad("\"amount\":5", "\"amount\":-5"), "a negative amount", true),
        (bad("\"amount\":5", "\"amount\":0"), "an amount of 0", true),
        (bad("\"amount\":5", "\"amount\":\"5\""), "an amount that is text", true),
        (bad("\"transfer\"", "\"gift\""), "an unknown kind", true),
        (bad(&run.currency, "money"), "no currency", true),
    ];
    for (body, what, may_be_refused_alone) in &table {
        let raw = match run.caller.raw("/v1/transfers", Some(body.clone())).await {
            Ok(raw) => raw,
            Err(reason) => return broken(format!("{what}: {reason}")),
        };
        let refused_alone = *may_be_refused_alone && raw.status == 200 && raw.text.contains("\"failed\"");
        if !(400..500).contains(&raw.status) && !refused_alone {
            return broken(format!("{what}: {}", raw.shown()));
        }
    }
    // Where bad entries are refused alone, the good one beside them may have been paid.
    let entry: Entry<'_> = match serde_json::from_str(&good) {
        Ok(entry) => entry,
        Err(error) => return broken(error.to_string()),
    };
    expect("the good entry", &run.settle_one(&entry).await?, "succeeded", None)?;
    run.expect_left(&account, 5).await?;
    Ok(format!("{} bad bodies were refused and moved nothing", table.len()))
}

/// A batch of this many entries: a result each, or a refusal.
async fn many(run: &Run, count: usize) -> Result<u16, super::run::Broken> {
    let account = run.funded(count as u64).await?;
    let person = run.person();
    let entries: Vec<Entry<'_>> = (0..count).map(|_| run.transfer(&run.id(), &account, &person, 1)).collect();
    match run.settle(&entries).await {
        Ok(results) => {
            for outcome in &results {
                expect("an entry of a large batch", outcome, "succeeded", None)?;
            }
            run.expect_left(&account, 0).await?;
            Ok(200)
        }
        Err(super::caller::CallFailed::Refused(raw)) => {
            run.expect_left(&account, count as u64).await?;
            Ok(raw.status)
        }
        Err(failed) => Err(failed.into()),
    }
}

pub async fn entries_1000(run: &Run) -> Seen {
    match many(run, ENTRIES_MAX).await? {
        200 => Ok(format!("{ENTRIES_MAX} entries in one call")),
        status => broken(format!("{ENTRIES_MAX} entries in one call: HTTP {status}")),
    }
}

pub async fn entries_above(run: &Run) -> Seen {
    let count = 3 * ENTRIES_MAX;
    match many(run, count).await? {
        200 => Ok(format!("{count} entries in one call were taken")),
        413 => Ok(format!("{count} entries in one call: 413, nothing moved")),
        status => broken(format!("{count} entries in one call: HTTP {status}, neither taken nor 413")),
    }
}
