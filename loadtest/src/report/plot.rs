//! Charts as SVG text: panels over one shared axis, drawn once for a wide screen and once for a narrow one.
//!
//! What holds: a chart is whole without any script; colours come from the page's classes, so that light and dark are
//! the page's business. Absent: knowledge of what is drawn.

use std::fmt::Write;

use super::scale::{Scale, Unit};

/// The two widths that every chart is drawn for, in the units of its view box, and what shows it.
const SIZES: [(f64, &str); 2] = [(1_120.0, "wide"), (358.0, "narrow")];
const RIGHT: f64 = 10.0;
const TOP: f64 = 20.0;
const GAP: f64 = 26.0;
const AXIS: f64 = 24.0;

#[derive(Clone, Debug)]
pub struct Line {
    pub name: String,
    /// Class of its colour.
    pub class: &'static str,
    /// Filled down to the axis.
    pub is_area: bool,
    pub is_dashed: bool,
    /// One for each of the chart's places; none: a gap.
    pub values: Vec<Option<f64>>,
}

impl Line {
    pub fn new(name: &str, class: &'static str, values: impl IntoIterator<Item = f64>) -> Line {
        let values = values.into_iter().map(Some).collect();
        Line { name: name.to_owned(), class, is_area: false, is_dashed: false, values }
    }

    pub fn area(self) -> Line {
        Line { is_area: true, ..self }
    }

    pub fn dashed(self) -> Line {
        Line { is_dashed: true, ..self }
    }
}

#[derive(Clone, Debug)]
pub struct Panel {
    pub title: String,
    pub unit: Unit,
    pub scale: Scale,
    pub height: f64,
    pub lines: Vec<Line>,
    /// A line across, with its words.
    pub limit: Option<(f64, String)>,
    pub notes: Vec<Note>,
}

/// Words at a point.
#[derive(Clone, Debug)]
pub struct Note {
    pub at: f64,
    pub value: f64,
    pub words: String,
}

/// A stretch of the axis to be set off, or, with no length, a line down.
#[derive(Clone, Debug)]
pub struct Mark {
    pub from: f64,
    pub to: f64,
    pub class: &'static str,
    pub words: String,
}

#[derive(Clone, Debug)]
pub struct Chart {
    pub id: String,
    /// Where the values stand on the shared axis.
    pub places: Vec<f64>,
    pub from: f64,
    pub to: f64,
    /// The axis' ticks; the tooltip names the place by `place_words`.
    pub ticks: Vec<(f64, String)>,
    pub place_words: Vec<String>,
    pub panels: Vec<Panel>,
    pub marks: Vec<Mark>,
}

pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl Chart {
    /// The chart in both widths, its legend, and its numbers for the tooltip.
    pub fn html(&self) -> String {
        let mut out = self.legend();
        for (width, class) in SIZES {
            self.svg(width, class, &mut out);
        }
        let series: Vec<serde_json::Value> = self
            .panels
            .iter()
            .flat_map(|panel| panel.lines.iter().map(move |line| (panel, line)))
            .map(|(panel, line)| {
                let values: Vec<Option<f64>> =
                    line.values.iter().map(|value| value.map(|v| (v * 100.0).round() / 100.0)).collect();
                serde_json::json!({
                    "name": line.name, "class": line.class, "unit": panel.unit.name(), "values": values,
                })
            })
            .collect();
        let data = serde_json::json!({
            "from": self.from, "to": self.to, "places": self.places, "words": self.place_words, "series": series,
        });
        let data = data.to_string().replace('<', "\\u003c");
        writeln!(out, r#"<script type="application/json" data-for="{}">{data}</script>"#, self.id)
            .expect(TO_TEXT);
        out
    }

    fn legend(&self) -> String {
        let mut out = String::from("<p class=\"legend\">");
        let mut shown: Vec<(&str, bool)> = Vec::new();
        for line in self.panels.iter().flat_map(|panel| &panel.lines) {
            // A colour means the same in every panel; it is named once, by what stands before a colon.
            if shown.contains(&(line.class, line.is_dashed)) {
                continue;
            }
            shown.push((line.class, line.is_dashed));
            let name = line.name.split(':').next().unwrap_or(&line.name);
            let kind = if line.is_area {
                "area"
            } else if line.is_dashed {
                "dash"
            } else {
                "line"
            };
            write!(out, "<span><i class=\"{kind} {}\"></i>{}</span>", line.class, escaped(name))
                .expect(TO_TEXT);
        }
        out.push_str("</p>\n");
        out
    }

    fn svg(&self, width: f64, class: &str, out: &mut String) {
        let is_narrow = class == "narrow";
        let left = if is_narrow { 54.0 } else { 62.0 };
        let plot = width - left - RIGHT;
        let squeeze = if is_narrow { 0.75 } else { 1.0 };
        let heights: Vec<f64> = self.panels.iter().map(|panel| panel.height * squeeze).collect();
        let height =
            heights.iter().map(|height| height + TOP).sum::<f64>() + GAP * (heights.len() - 1) as f64 + AXIS;
        write!(
            out,
            "<svg class=\"chart {class}\" data-chart=\"{}\" data-left=\"{left}\" data-plot=\"{plot}\" \
             viewBox=\"0 0 {width} {height:.0}\" role=\"img\" aria-label=\"{}\">",
            self.id,
            escaped(&self.panels.iter().map(|panel| panel.title.as_str()).collect::<Vec<_>>().join("; "))
        )
        .expect(TO_TEXT);
        let x = |place: f64| left + (place - self.from) / (self.to - self.from).max(1e-9) * plot;
        let mut top = TOP;
        for (panel, height) in self.panels.iter().zip(&heights) {
            self.marks(&x, top, *height, is_narrow, out);
            draw_panel(panel, &self.places, &x, (left, left + plot), (top, *height), out);
            top += height + TOP + GAP;
        }
        let bottom = top - TOP - GAP;
        let keep = if is_narrow { self.ticks.len().div_ceil(5).max(1) } else { 1 };
        for (place, words) in self.ticks.iter().step_by(keep) {
            let at = x(*place);
            let anchor = if at > left + plot - 24.0 { "end" } else { "middle" };
            write!(
                out,
                "<line class=\"tick\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{bottom:.1}\" y2=\"{:.1}\"/>\
                 <text class=\"axis\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{words}</text>",
                bottom + 4.0,
                bottom + 17.0
            )
            .expect(TO_TEXT);
        }
        writeln!(out, "<line class=\"cross\" y1=\"{TOP}\" y2=\"{bottom:.1}\" visibility=\"hidden\"/></svg>")
            .expect(TO_TEXT);
    }

    fn marks(&self, x: &dyn Fn(f64) -> f64, top: f64, height: f64, is_narrow: bool, out: &mut String) {
        for (index, mark) in self.marks.iter().filter(|mark| mark.from <= self.to).enumerate() {
            let (from, to) = (x(mark.from.max(self.from)), x(mark.to.min(self.to)));
            let words = escaped(&mark.words);
            if mark.to > mark.from {
                write!(
                    out,
                    "<rect class=\"mark {}\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{height:.1}\"><title>{words}</title></rect>",
                    mark.class,
                    (to - from).max(1.5)
                )
                .expect(TO_TEXT);
                if !is_narrow && top <= TOP && !words.is_empty() {
                    // Neighbours stand below each other.
                    let y = top + 11.0 + (index % 3) as f64 * 14.0;
                    write!(
                        out,
                        "<text class=\"note fault\" x=\"{:.1}\" y=\"{y:.1}\">{words}</text>",
                        from + 3.0
                    )
                    .expect(TO_TEXT);
                }
            } else {
                write!(
                    out,
                    "<line class=\"mark {}\" x1=\"{from:.1}\" x2=\"{from:.1}\" y1=\"{top:.1}\" y2=\"{:.1}\"/>",
                    mark.class,
                    top + height
                )
                .expect(TO_TEXT);
                // Words stand at the top panel alone, and where there is room.
                if !is_narrow && top <= TOP && !mark.words.is_empty() {
                    let is_late = mark.from > self.from + (self.to - self.from) * 0.85;
                    let (anchor, at) = if is_late { ("end", from - 5.0) } else { ("start", from + 5.0) };
                    write!(
                        out,
                        "<text class=\"note\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{words}</text>",
                        top + 11.0
                    )
                    .expect(TO_TEXT);
                }
            }
        }
    }
}

fn draw_panel(
    panel: &Panel,
    places: &[f64],
    x: &dyn Fn(f64) -> f64,
    (left, right): (f64, f64),
    (top, height): (f64, f64),
    out: &mut String,
) {
    let y = |value: f64| top + height * (1.0 - panel.scale.share(value));
    write!(out, "<text class=\"title\" x=\"{left}\" y=\"{:.1}\">{}</text>", top - 7.0, escaped(&panel.title))
        .expect(TO_TEXT);
    for tick in panel.scale.ticks() {
        let at = y(tick);
        write!(
            out,
            "<line class=\"grid\" x1=\"{left}\" x2=\"{right:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 6.0,
            at + 4.0,
            panel.unit.tick(tick)
        )
        .expect(TO_TEXT);
    }
    for line in &panel.lines {
        for run in runs(places, &line.values) {
            let points: Vec<String> =
                run.iter().map(|(place, value)| format!("{:.1},{:.1}", x(*place), y(*value))).collect();
            if line.is_area {
                let (first, last) = (x(run[0].0), x(run[run.len() - 1].0));
                let floor = top + height;
                write!(
                    out,
                    "<path class=\"fill {}\" d=\"M{first:.1},{floor:.1}L{}L{last:.1},{floor:.1}Z\"/>",
                    line.class,
                    points.join("L")
                )
                .expect(TO_TEXT);
            }
            let dash = if line.is_dashed { " dash" } else { "" };
            write!(out, "<path class=\"stroke {}{dash}\" d=\"M{}\"/>", line.class, points.join("L"))
                .expect(TO_TEXT);
        }
    }
    for Note { at, value, words } in &panel.notes {
        // Half of the words on each side, and all of them within the panel.
        let at = x(*at).clamp(left + 90.0, right - 90.0);
        write!(
            out,
            "<text class=\"note point\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            y(*value) + 4.0,
            escaped(words)
        )
        .expect(TO_TEXT);
    }
    if let Some((value, words)) = &panel.limit {
        let at = y(*value);
        write!(
            out,
            "<line class=\"limit\" x1=\"{left}\" x2=\"{right:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"note\" x=\"{right:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            (at - 5.0).max(top + 9.0),
            escaped(words)
        )
        .expect(TO_TEXT);
    }
}

/// Stretches without gaps.
fn runs(places: &[f64], values: &[Option<f64>]) -> Vec<Vec<(f64, f64)>> {
    let mut runs: Vec<Vec<(f64, f64)>> = vec![Vec::new()];
    for (place, value) in places.iter().zip(values) {
        match value {
            Some(value) => runs.last_mut().expect("never empty").push((*place, *value)),
            None => runs.push(Vec::new()),
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

const TO_TEXT: &str = "writing to a text does not fail";

#[cfg(test)]
mod tests {
    use super::super::scale::time_ticks;
    use super::*;

    #[test]
    fn a_chart_is_drawn_twice_with_its_gaps_and_its_numbers() {
        let mut line = Line::new("a <name>", "c1", [1.0, 2.0, 3.0, 4.0]);
        line.values[1] = None;
        let panel = Panel {
            title: "things".to_owned(),
            unit: Unit::Count,
            scale: Scale::Linear(4.0),
            height: 100.0,
            lines: vec![line],
            limit: None,
            notes: Vec::new(),
        };
        let chart = Chart {
            id: "x".to_owned(),
            places: vec![0.0, 1.0, 2.0, 3.0],
            from: 0.0,
            to: 3.0,
            ticks: time_ticks(0.0, 3.0),
            place_words: vec![String::new(); 4],
            panels: vec![panel],
            marks: Vec::new(),
        };
        let html = chart.html();
        assert_eq!(html.matches("<svg").count(), 2);
        assert_eq!(html.matches("class=\"stroke c1\"").count(), 4, "two stretches in each of two sizes");
        assert!(
            html.contains("a &lt;name&gt;") && html.contains("a \\u003cname>") && !html.contains("<name>")
        );
        assert!(html.contains("\"values\":[1.0,null,3.0,4.0]"));
    }
}
