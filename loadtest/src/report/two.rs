//! Two runs drawn over each other, and the list of what changed.

use super::figures::{Distribution, curves, end_s};
use super::plot::{Chart, Line, Panel, escaped};
use super::scale::{Scale, Unit, time_ticks};
use super::{outcome_class, page, section};
use crate::compare::{Says, compare, differences, headline};
use crate::record::SecondRow;
use crate::result::RunResult;
use crate::words;

/// The page of a comparison.
pub fn of_two(a: &RunResult, b: &RunResult) -> String {
    let mut body = head(a, b);
    body.push_str(&section(
        "What changed",
        "A change counts if it is beyond the noise inside the two runs, learnt from their seconds, and more than five per cent (memory: 25). What a run has once is told and not judged.",
        &changes(a, b),
    ));
    body.push_str(&section("Rates and backlog", "A filled, B as a line.", &flow(a, b).html()));
    body.push_str(&section("Latency over time", "Until the promise; logarithmic.", &latency(a, b).html()));
    let accept: [Distribution<'_>; 2] =
        [("A, until the promise", "c1", &a.accept_curve), ("B, until the promise", "c3", &b.accept_curve)];
    body.push_str(&section("Latency by percentile", "", &curves("curve", &accept).html()));
    page(&format!("{} against {}", a.scenario.name, b.scenario.name), &body)
}

fn head(a: &RunResult, b: &RunResult) -> String {
    let run = |letter: &str, result: &RunResult| {
        let (_, sign) = outcome_class(result.verdict.outcome);
        format!(
            "<p><b>{letter}</b> {} \u{b7} {} \u{b7} {sign} {}</p>",
            escaped(&result.scenario.name),
            escaped(&result.environment.at),
            escaped(&result.verdict.headline)
        )
    };
    let title = headline(&compare(a, b));
    let differ: String =
        differences(a, b).iter().map(|words| format!("<li>{}</li>", escaped(words))).collect();
    let differ =
        if differ.is_empty() { String::new() } else { format!("<p>The two differ in:</p><ul>{differ}</ul>") };
    format!(
        "<header>\n<p class=\"what\">hongbao load test \u{b7} comparison</p><h1>{title}</h1>{}{}{differ}</header>\n",
        run("A", a),
        run("B", b)
    )
}

fn changes(a: &RunResult, b: &RunResult) -> String {
    let mut rows = String::from(
        "<table><tr><th>what</th><th>A</th><th>B</th><th>change</th><th>noise</th><th></th></tr>\n",
    );
    for change in compare(a, b) {
        let class = match change.says {
            Says::Worse => "fail more",
            Says::Better => "pass more",
            Says::WithinNoise | Says::TooShort | Says::NotJudged | Says::NotMeasured => "",
        };
        let (percent, noise) = (change.change_words(), change.noise_words());
        rows.push_str(&format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{percent}</td><td>{noise}</td><td class=\"{class}\">{}</td></tr>\n",
            escaped(&change.what),
            escaped(&change.a),
            escaped(&change.b),
            change.says.words()
        ));
    }
    rows + "</table>\n"
}

/// The value at a time since the load's start, in steps of its own.
fn at(values: &[f64], step_s: f64, begin_s: f64, since_s: f64) -> Option<f64> {
    values.get(((since_s + begin_s) / step_s) as usize).copied()
}

fn flow(a: &RunResult, b: &RunResult) -> Chart {
    let step_s = a.series.step_s.max(b.series.step_s);
    let to = (end_s(a) - a.load_begin_s).max(end_s(b) - b.load_begin_s);
    let places: Vec<f64> = (0..(to / step_s) as usize).map(|step| (step as f64 + 0.5) * step_s).collect();
    let line = |name: &str, class, result: &RunResult, values: &[f64]| Line {
        name: name.to_owned(),
        class,
        is_area: false,
        is_dashed: false,
        values: places
            .iter()
            .map(|place| at(values, result.series.step_s, result.load_begin_s, *place))
            .collect(),
    };
    let panel = |title: &str, unit, lines: Vec<Line>, height| Panel {
        title: title.to_owned(),
        unit,
        scale: Scale::linear(lines.iter().flat_map(|line| line.values.iter().flatten().copied())),
        height,
        lines,
        limit: None,
        notes: Vec::new(),
    };
    let accepted = vec![
        line("A: accepted", "c1", a, &a.series.accepted).area(),
        line("B: accepted", "c3", b, &b.series.accepted),
    ];
    let settled = vec![
        line("A: settled", "c1", a, &a.series.settled).area(),
        line("B: settled", "c3", b, &b.series.settled),
    ];
    let backlog = vec![
        line("A: backlog", "c1", a, &a.series.backlog).area(),
        line("B: backlog", "c3", b, &b.series.backlog),
    ];
    Chart {
        id: "flow".to_owned(),
        place_words: places.iter().map(|at| format!("at {}", words::seconds(*at))).collect(),
        from: 0.0,
        to,
        ticks: time_ticks(0.0, to),
        panels: vec![
            panel("accepted a second", Unit::PerSecond, accepted, 170.0),
            panel("settled a second", Unit::PerSecond, settled, 130.0),
            panel("promised and not yet settled", Unit::Count, backlog, 100.0),
        ],
        places,
        marks: Vec::new(),
    }
}

fn latency(a: &RunResult, b: &RunResult) -> Chart {
    let last = |result: &RunResult| result.accept_rows.last().map_or(1, |row| row.at_s + 1);
    let to = last(a).max(last(b));
    let line = |name: &str, class, result: &RunResult, of: fn(&SecondRow) -> u64| {
        let mut values = vec![None; to as usize];
        for row in &result.accept_rows {
            if let Some(value) =
                values.get_mut((row.at_s.saturating_sub(result.load_begin_s as u64)) as usize)
            {
                *value = Some(of(row) as f64);
            }
        }
        Line { name: name.to_owned(), class, is_area: false, is_dashed: false, values }
    };
    let lines = vec![
        line("A, half", "c1", a, |row| row.p50_us).dashed(),
        line("B, half", "c3", b, |row| row.p50_us).dashed(),
        line("A, 99 %", "c1", a, |row| row.p99_us),
        line("B, 99 %", "c3", b, |row| row.p99_us),
    ];
    let places: Vec<f64> = (0..to).map(|second| second as f64 + 0.5).collect();
    let values: Vec<f64> = lines.iter().flat_map(|line| line.values.iter().flatten().copied()).collect();
    Chart {
        id: "latency".to_owned(),
        place_words: places.iter().map(|at| format!("at {}", words::seconds(*at))).collect(),
        places,
        from: 0.0,
        to: to as f64,
        ticks: time_ticks(0.0, to as f64),
        panels: vec![Panel {
            title: "until the promise".to_owned(),
            unit: Unit::Micros,
            scale: Scale::log(values.into_iter()),
            height: 220.0,
            lines,
            limit: None,
            notes: Vec::new(),
        }],
        marks: Vec::new(),
    }
}
