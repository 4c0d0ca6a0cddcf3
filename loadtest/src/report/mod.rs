//! The report: one page that opens without a network, and the verdict in words for a terminal.
//!
//! What holds: everything on the page comes from the result; charts are whole without script, which only adds the
//! numbers under the pointer. Absent: measuring, judging.

mod bands;
mod figures;
mod plot;
mod scale;
mod tables;
mod two;

use crate::result::{Outcome, RunResult};
use crate::words::{grouped, micros, seconds};

pub use two::of_two;

use plot::escaped;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n\
         <div id=\"tip\" hidden></div>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        escaped(title)
    )
}

fn outcome_class(outcome: Outcome) -> (&'static str, &'static str) {
    match outcome {
        Outcome::Pass => ("pass", "\u{2713}"),
        Outcome::Fail => ("fail", "!"),
        Outcome::Void => ("void", "?"),
        Outcome::Loss => ("loss", "\u{2717}"),
    }
}

fn section(title: &str, explained: &str, body: &str) -> String {
    format!(
        "<section>\n<h2>{}</h2>\n<p class=\"why\">{}</p>\n{body}</section>\n",
        escaped(title),
        escaped(explained)
    )
}

/// The page of one run.
pub fn of_run(result: &RunResult) -> String {
    let mut body = head(result);
    body.push_str(&section(
        "The rush and the valley",
        "What was asked for, what was promised, and what was settled: the peak is taken in at once, and settled at the pace the wallet bears.",
        &flow(result),
    ));
    if let Some(chart) = figures::search(result) {
        body.push_str(&section(
            "Search for the limit",
            "Each point is a step of constant rate.",
            &(chart.html() + &tables::search(result)),
        ));
    }
    body.push_str(&section(
        "Latency over time",
        "Logarithmic. Counted from the time a request was due, so that waiting to be sent counts as well.",
        &latencies(result),
    ));
    let mut distributions: Vec<figures::Distribution<'_>> =
        vec![("until the promise", "c1", &result.accept_curve)];
    if !result.settle_curve.is_empty() {
        distributions.push(("from the promise until settled", "c2", &result.settle_curve));
    }
    body.push_str(&section(
        "Latency by percentile",
        "How slow the slowest are: each step to the right is ten times rarer.",
        &figures::curves("curve", &distributions).html(),
    ));
    body.push_str(&section(
        "Faults and what held back",
        "What was broken on purpose, when instances did not answer, and when hongbao held calls to the wallet back.",
        &bands::html(result),
    ));
    if let Some(chart) = figures::processes(result) {
        body.push_str(&section(
            "Processor and memory",
            "Of each process, and of the load generator.",
            &chart.html(),
        ));
    }
    body.push_str(&tables::all(result));
    let title = format!("{}: {}", result.scenario.name, result.verdict.headline);
    page(&title, &body)
}

fn flow(result: &RunResult) -> String {
    let mut charts = figures::flow(result, "flow", figures::end_s(result)).html();
    if let Some(to) = figures::close_up_s(result) {
        charts.push_str("<h3>The rush, close up</h3>\n");
        charts.push_str(&figures::flow(result, "rush", to).html());
    }
    charts
}

fn latencies(result: &RunResult) -> String {
    let mut charts = figures::accept_latency(result).html();
    if !result.settle_rows.is_empty() {
        charts.push_str(&figures::settle_latency(result).html());
    }
    charts
}

fn head(result: &RunResult) -> String {
    let verdict = &result.verdict;
    let (class, sign) = outcome_class(verdict.outcome);
    let mut out = format!(
        "<header class=\"{class}\">\n<p class=\"what\">hongbao load test \u{b7} {} \u{b7} {}</p>\n<h1><span class=\"sign\">{sign}</span>{}</h1>\n",
        escaped(&result.scenario.name),
        escaped(&result.environment.at),
        escaped(&verdict.headline)
    );
    out.push_str(&format!("<p class=\"about\">{}</p>\n<p class=\"words\">", escaped(&result.scenario.about)));
    out.push_str(&verdict.words.iter().map(|sentence| escaped(sentence)).collect::<Vec<_>>().join(" "));
    out.push_str("</p>\n");
    if !verdict.complaints.is_empty() {
        out.push_str("<ul class=\"complaints\">");
        verdict.complaints.iter().for_each(|words| out.push_str(&format!("<li>{}</li>", escaped(words))));
        out.push_str("</ul>\n");
    }
    let not_checked = result.check.not_checked.iter();
    not_checked.for_each(|words| {
        out.push_str(&format!("<p class=\"caution\">Not checked: {}.</p>\n", escaped(words)))
    });
    if result.environment.build.starts_with("debug") {
        out.push_str(
            "<p class=\"caution\">hongbao was a debug build: the rates say nothing of production.</p>\n",
        );
    }
    out.push_str(&tiles(result));
    out.push_str("</header>\n");
    out
}

/// In the place of a figure that there is not.
const UNCOUNTED: &str = "-";

fn counted(count: Option<u64>) -> String {
    count.map_or_else(|| UNCOUNTED.to_owned(), grouped)
}

fn tiles(result: &RunResult) -> String {
    let check = &result.check;
    let peak = result.series.accepted.iter().copied().fold(0.0, f64::max);
    let mut tiles = vec![
        (grouped(result.counts.accepted), "promised".to_owned()),
        (counted(check.ids.as_ref().map(|ids| ids.succeeded)), "paid".to_owned()),
        match check.double_paid {
            None => (counted(check.lost), "lost; paid twice: not counted".to_owned()),
            Some(twice) => (counted(check.lost.map(|lost| lost + twice)), "lost or paid twice".to_owned()),
        },
        (micros(result.accept.p99), "99 of 100 promises within".to_owned()),
        (format!("{}/s", grouped(peak as u64)), "accepted at the peak".to_owned()),
    ];
    match result.wallet_peak_per_s {
        Some(peak) => tiles.push((format!("{}/s", grouped(peak)), "most sent to the wallet".to_owned())),
        None => {
            let rate = result.summary.settle_per_s.map(|rate| format!("{}/s", grouped(rate)));
            tiles.push((rate.unwrap_or_else(|| UNCOUNTED.to_owned()), "settled".to_owned()));
        }
    }
    if let Some(best) = result.summary.capacity_per_s {
        tiles.push((format!("{}/s", grouped(best)), "highest rate within the limit".to_owned()));
    }
    if let Some(drained) = result.drained_s {
        tiles.push((seconds((drained - result.load_end_s).max(0.0)), "to settle the rest".to_owned()));
    }
    let tiles = tiles.iter().map(|(value, words)| format!("<div><b>{value}</b>{}</div>", escaped(words)));
    format!("<div class=\"tiles\">{}</div>\n", tiles.collect::<String>())
}

/// The verdict for a terminal.
pub fn words(result: &RunResult) -> String {
    let mut text = format!("\n  {}\n\n", result.verdict.headline);
    for sentence in &result.verdict.words {
        text.push_str(&format!("  {sentence}\n"));
    }
    for complaint in &result.verdict.complaints {
        text.push_str(&format!("  ! {complaint}\n"));
    }
    for words in &result.check.not_checked {
        text.push_str(&format!("  - not checked: {words}\n"));
    }
    text
}

#[cfg(test)]
mod tests;
