//! The timeline of what was broken, and of what held back: a row each, a bar for each span. Drawn by the page's own
//! boxes, so that it fits any width.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::figures::end_s;
use super::plot::escaped;
use super::scale::time_ticks;
use crate::result::RunResult;
use crate::words::seconds;

struct Span {
    from_s: f64,
    to_s: f64,
    class: &'static str,
    words: String,
}

/// The rows as HTML; empty if nothing happened.
pub(super) fn html(result: &RunResult) -> String {
    let mut rows: BTreeMap<String, Vec<Span>> = BTreeMap::new();
    for event in &result.events {
        let is_change = event.until_s.is_none();
        let failure = event.failure.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        let span = Span {
            from_s: event.at_s,
            to_s: event.until_s.unwrap_or(event.at_s),
            class: if is_change { "change" } else { "fault" },
            words: format!("{}{failure}", event.words),
        };
        rows.entry(format!("{}: made", event.on)).or_default().push(span);
    }
    for state in &result.states {
        let class = if state.on.starts_with("breaker") { "held" } else { "down" };
        let span = Span { from_s: state.from_s, to_s: state.to_s, class, words: state.state.clone() };
        rows.entry(format!("{}: seen", state.on)).or_default().push(span);
    }
    if rows.is_empty() {
        return "<p class=\"none\">Nothing was broken on purpose, and nothing was seen to falter.</p>\n"
            .to_owned();
    }
    let end = end_s(result).max(1e-9);
    let mut out = String::from("<div class=\"bands\">\n");
    for (name, spans) in rows {
        write!(out, "<div class=\"band\"><b>{}</b><div>", escaped(&name)).expect("to a text");
        for span in &spans {
            let (left, width) = (span.from_s / end * 100.0, (span.to_s - span.from_s) / end * 100.0);
            let when = if span.to_s > span.from_s {
                format!("{} to {}", seconds(span.from_s), seconds(span.to_s))
            } else {
                format!("from {} on", seconds(span.from_s))
            };
            let words = escaped(&format!("{when}: {}", span.words));
            write!(
                out,
                "<i class=\"{}\" style=\"left:{left:.2}%;width:{width:.2}%\" title=\"{words}\" data-tip=\"{words}\"></i>",
                span.class
            )
            .expect("to a text");
        }
        out.push_str("</div><ul>");
        for span in spans.iter().take(4) {
            write!(out, "<li>{}: {}</li>", seconds(span.from_s), escaped(&span.words)).expect("to a text");
        }
        if spans.len() > 4 {
            write!(out, "<li>and {} more</li>", spans.len() - 4).expect("to a text");
        }
        out.push_str("</ul></div>\n");
    }
    out.push_str("<div class=\"ruler\">");
    let ticks = time_ticks(0.0, end);
    for (at, words) in ticks.iter().filter(|(at, _)| *at < end * 0.96) {
        write!(out, "<span style=\"left:{:.2}%\">{words}</span>", at / end * 100.0).expect("to a text");
    }
    out.push_str("</div></div>\n");
    out
}
