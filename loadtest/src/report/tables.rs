//! The tables under the charts: objectives, counts, the check, the environment, and what each number means.

use super::plot::escaped;
use super::section;
use crate::result::{Ids, RunResult};
use crate::words::{bytes, grouped, micros, seconds};

type Rows = Vec<(String, String)>;

fn table(rows: &Rows) -> String {
    let row = |(name, value): &(String, String)| {
        format!("<tr><th>{}</th><td>{}</td></tr>\n", escaped(name), escaped(value))
    };
    format!("<table class=\"pairs\">{}</table>\n", rows.iter().map(row).collect::<String>())
}

fn pair(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_owned(), value.into())
}

pub(super) fn all(result: &RunResult) -> String {
    let mut out = section("Objectives", "What the scenario asks for.", &objectives(result));
    out.push_str(&section(
        "The check of every payment",
        "Made by this program after the load, id by id.",
        &check(result),
    ));
    out.push_str(&section("Counts", "As the callers saw it.", &counts(result)));
    out.push_str(&section(
        "Where it ran",
        "A figure is worth as much as the machine it was taken on is known.",
        &environment(result),
    ));
    out.push_str(&section("What the words mean", "", MEANINGS));
    out
}

fn objectives(result: &RunResult) -> String {
    let mut rows = String::from("<table><tr><th>what</th><th>wanted</th><th>measured</th><th></th></tr>\n");
    for objective in &result.objectives {
        let (class, sign) = if objective.passed { ("pass", "held") } else { ("fail", "missed") };
        rows.push_str(&format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"{class}\">{sign}</td></tr>\n",
            escaped(&objective.what),
            escaped(&objective.limit),
            escaped(&objective.measured)
        ));
    }
    rows + "</table>\n"
}

pub(super) fn search(result: &RunResult) -> String {
    let mut rows = String::from(
        "<table><tr><th>asked for</th><th>accepted</th><th>half</th><th>99 %</th><th></th></tr>\n",
    );
    for step in &result.search {
        let (class, sign) = if step.passed { ("pass", "passed") } else { ("fail", step.why_not.as_str()) };
        rows.push_str(&format!(
            "<tr><td>{}/s</td><td>{}/s</td><td>{}</td><td>{}</td><td class=\"{class}\">{}</td></tr>\n",
            grouped(step.per_s as u64),
            grouped(step.accepted_per_s as u64),
            micros(step.accept.p50),
            micros(step.accept.p99),
            escaped(sign)
        ));
    }
    rows + "</table>\n"
}

const NOT_LOOKED_AT: &str = "not looked at";

fn check(result: &RunResult) -> String {
    let check = &result.check;
    let ids = check.ids.as_ref();
    let of = |words: fn(&Ids) -> String| ids.map_or_else(|| NOT_LOOKED_AT.to_owned(), words);
    let count = |count: Option<u64>| count.map_or_else(|| "not counted".to_owned(), grouped);
    let states = |ids: &Ids| {
        let states = ids.by_status.iter().map(|(status, count)| format!("{} {status}", grouped(*count)));
        states.collect::<Vec<_>>().join(", ")
    };
    let mut rows = vec![
        pair("acknowledged ids", grouped(check.acknowledged)),
        pair("where they stand", of(states)),
        pair("lost", count(check.lost)),
        pair("accounts paid too much", count(check.double_paid)),
        pair("accounts paid too little", count(check.short_paid)),
        pair("paid with another amount", of(|ids| grouped(ids.altered))),
        pair("paid though refused or failed", of(|ids| grouped(ids.paid_unasked))),
        pair("still open", of(|ids| grouped(ids.pending))),
        pair(
            "never answered definitely; of these paid",
            of(|ids| format!("{}; {}", grouped(ids.unanswered), grouped(ids.unanswered_paid))),
        ),
        pair(
            "money paid",
            of(|ids| format!("{}.{:02} CNY", grouped(ids.amount_paid / 100), ids.amount_paid % 100)),
        ),
        pair(
            "books",
            match check.books_balanced {
                Some(true) => "balance",
                Some(false) => "do not balance",
                None => NOT_LOOKED_AT,
            },
        ),
    ];
    rows.extend(check.evidence.iter().map(|words| pair("evidence", words)));
    rows.extend(check.not_checked.iter().map(|words| pair("not checked", words)));
    rows.extend(check.gaps.iter().map(|words| pair("could not be checked", words)));
    table(&rows)
}

fn counts(result: &RunResult) -> String {
    let counts = &result.counts;
    let by = |map: &std::collections::BTreeMap<String, u64>| {
        let items: Vec<String> =
            map.iter().map(|(name, count)| format!("{} {name}", grouped(*count))).collect();
        if items.is_empty() { "none".to_owned() } else { items.join(", ") }
    };
    let late = counts.late as f64 / counts.calls.max(1) as f64 * 100.0;
    let mut rows = vec![
        pair("requests due", grouped(counts.offered)),
        pair("calls", grouped(counts.calls)),
        pair(
            "new requests sent, accepted",
            format!("{}, {}", grouped(counts.submitted), grouped(counts.accepted)),
        ),
        pair("refused for good", by(&counts.refused)),
        pair(
            "repeats sent, recognised",
            format!("{}, {}", grouped(counts.duplicates_sent), grouped(counts.duplicates_recognised)),
        ),
        pair(
            "conflicts sent, refused",
            format!("{}, {}", grouped(counts.conflicts_sent), grouped(counts.conflicts_refused)),
        ),
        pair(
            "invalid sent, refused",
            format!("{}, {}", grouped(counts.invalid_sent), grouped(counts.invalid_refused)),
        ),
        pair("calls sent again, by cause", by(&counts.retried_by_cause)),
        pair("of these after Retry-After", grouped(counts.retry_after_honoured)),
        pair("calls that waited for a connection", grouped(counts.waited)),
        pair(
            "calls the generator itself sent late",
            format!("{} ({late:.2} %), worst lag {}", grouped(counts.late), micros(counts.lag_us_max)),
        ),
        pair("requests never sent", grouped(counts.unsent)),
        pair(
            "connections opened, lost in a call",
            format!("{}, {}", grouped(counts.connects), grouped(counts.connections_lost)),
        ),
        pair("processor of the generator", format!("{:.2} cores", result.generator_cores)),
        pair(
            "settle latency",
            format!(
                "{} ids followed; seen at most {} late (p99), {} at worst",
                grouped(result.settle_sampled),
                micros(result.settle_resolution.p99),
                micros(result.settle_resolution.max)
            ),
        ),
    ];
    if let Some(claims) = &result.claims {
        let of = |count: u64| grouped(count);
        let name = "users' claims at the backend, promised, paid";
        rows.push(pair(name, format!("{}, {}, {}", of(claims.claims), of(claims.promised), of(claims.paid))));
        let latency = format!("{}, {}", micros(claims.accept.p50), micros(claims.accept.p99));
        rows.push(pair("claim until promise: half within, 99 % within", latency));
        rows.push(pair("claims sent again for want of an answer", of(claims.retried)));
    }
    table(&rows)
}

fn environment(result: &RunResult) -> String {
    let environment = &result.environment;
    let sync = environment.fdatasync_us;
    table(&vec![
        pair("when", &environment.at),
        pair(
            "machine",
            format!("{} cores, {}, {}", environment.cores, bytes(environment.memory_bytes), environment.cpu),
        ),
        pair("system", &environment.kernel),
        pair(
            "disk",
            format!(
                "{}; one 4 KiB fdatasync: half within {}, 99 % within {}",
                environment.disk,
                micros(sync.p50),
                micros(sync.p99)
            ),
        ),
        pair("durability of a promise", &environment.durability),
        pair("programs", format!("{} ({}), {}", environment.hongbao, environment.build, environment.harness)),
        pair("target", &environment.target),
        pair("settings", environment.settings.join(" \u{b7} ")),
        pair("run, part", format!("{}, {}", result.run, result.part)),
        pair(
            "length",
            format!(
                "load {}, in all {}",
                seconds(result.load_end_s - result.load_begin_s),
                seconds(super::figures::end_s(result))
            ),
        ),
    ])
}

const MEANINGS: &str = "<dl>
<dt>promised, accepted</dt><dd>The service answered 202 (or 200 to a repeat): the payout is durable and will be made.</dd>
<dt>settled</dt><dd>The payout reached a final state: paid, or refused by the wallet with a reason.</dd>
<dt>latency until the promise</dt><dd>From the time the request was due by the schedule until its promise, waiting for a connection and sending again included.</dd>
<dt>latency until settled</dt><dd>From the promise until a look-up first said final, for a sample of the ids; never too short, and too long by at most the stated resolution.</dd>
<dt>late</dt><dd>The load generator itself was behind its schedule. More than the allowed share makes the run void: its latencies would be the generator's own.</dd>
<dt>sent again</dt><dd>On anything but a definite answer the caller sends the same id and body again; that is the rule for callers, and never pays twice.</dd>
<dt>void</dt><dd>The run proves nothing, neither good nor bad: run it again under better conditions.</dd>
</dl>
";
