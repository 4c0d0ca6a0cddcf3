//! The figures of a run: what stands on which panel. All times are seconds since the run's epoch.

use super::plot::{Chart, Line, Mark, Note, Panel};
use super::scale::{Scale, Unit, time_ticks};
use crate::observe::ProcessLook;
use crate::record::SecondRow;
use crate::result::RunResult;
use crate::words;

const RATES_HEIGHT: f64 = 270.0;
const BACKLOG_HEIGHT: f64 = 120.0;
const PANEL_HEIGHT: f64 = 170.0;
/// Colours of processes, in order.
const PROCESS_CLASSES: [&str; 6] = ["c1", "c2", "c3", "c5", "c4", "c6"];

/// Where the steps of a series end; the last may be cut short by the run's end.
fn step_places(step_s: f64, count: usize) -> Vec<f64> {
    (0..count).map(|step| (step as f64 + 0.5) * step_s).collect()
}

pub(super) fn end_s(result: &RunResult) -> f64 {
    result.series.offered.len() as f64 * result.series.step_s
}

fn at_words(places: &[f64]) -> Vec<String> {
    places.iter().map(|at| format!("at {}", words::seconds(*at))).collect()
}

pub(super) fn marks(result: &RunResult) -> Vec<Mark> {
    let mut marks: Vec<Mark> = result
        .events
        .iter()
        .map(|event| Mark {
            from: event.at_s,
            to: event.until_s.unwrap_or(event.at_s),
            class: if event.until_s.is_some() { "fault" } else { "change" },
            words: format!("{}: {}", event.on, event.words),
        })
        .collect();
    // A note for each change would hide the curves; the timeline below tells them.
    marks.iter_mut().filter(|mark| mark.class == "change").for_each(|mark| mark.words.clear());
    marks.push(Mark {
        from: result.load_end_s,
        to: result.load_end_s,
        class: "end",
        words: "last request due".to_owned(),
    });
    marks
}

/// Until when the rush is shown close up, where the whole is so much longer that nothing can be seen of it.
pub(super) fn close_up_s(result: &RunResult) -> Option<f64> {
    let rush_s = result.load_end_s * 1.1;
    (end_s(result) > 4.0 * rush_s && rush_s > 0.0).then_some(rush_s)
}

/// The rush and what became of it: rates above, what waits below; up to a time.
pub(super) fn flow(result: &RunResult, id: &str, to: f64) -> Chart {
    let series = &result.series;
    let count = series.offered.len().min((to / series.step_s).ceil() as usize);
    // Whole steps: nothing is drawn past the axis' end.
    let to = count.max(1) as f64 * series.step_s.max(1e-3);
    let places = step_places(series.step_s, count);
    let of = |name: &str, class, values: &[f64]| Line::new(name, class, values.iter().take(count).copied());
    let mut lines = vec![
        of("accepted", "c1", &series.accepted).area(),
        of("settled", "c2", &series.settled).area(),
        of("asked for", "c0", &series.offered).dashed(),
    ];
    if !series.wallet.is_empty() {
        lines.push(of("sent to the wallet", "c3", &series.wallet));
    }
    if series.refused.iter().any(|rate| *rate > 0.0) {
        lines.push(of("refused", "c4", &series.refused));
    }
    let pace = result.scenario.setup.pace_per_s;
    let is_ours = !result.environment.settings.is_empty() && pace > 0;
    let rates = lines.iter().flat_map(|line| line.values.iter().flatten().copied());
    let rates = Panel {
        title: "requests a second".to_owned(),
        unit: Unit::PerSecond,
        // Some air above the pace, for its words.
        scale: Scale::linear(rates.chain(is_ours.then_some(pace as f64 * 1.1))),
        height: RATES_HEIGHT,
        lines,
        limit: is_ours
            .then(|| (pace as f64, format!("pace towards the wallet {}/s", words::short(pace as f64)))),
        notes: peak_and_valley(&places, &series.accepted, &series.settled),
    };
    let waiting = Panel {
        title: "promised and not yet settled".to_owned(),
        unit: Unit::Count,
        scale: Scale::linear(series.backlog.iter().take(count).copied()),
        height: BACKLOG_HEIGHT,
        lines: vec![of("backlog", "c5", &series.backlog).area()],
        limit: None,
        notes: Vec::new(),
    };
    Chart {
        id: id.to_owned(),
        place_words: at_words(&places),
        places,
        from: 0.0,
        to,
        ticks: time_ticks(0.0, to),
        panels: vec![rates, waiting],
        marks: marks(result),
    }
}

/// Least height of what is pointed out, as a share of the highest rate of its own.
const POINTED_OUT_MIN: f64 = 0.15;
/// Steps on either side that count, as a part of all.
const POINTED_OUT_REACH: usize = 40;

/// Where most was taken in above what was settled, and where most was settled above what came in.
fn peak_and_valley(places: &[f64], accepted: &[f64], settled: &[f64]) -> Vec<Note> {
    let count = places.len().min(accepted.len()).min(settled.len());
    // What lasts is pointed out, not what is highest for a moment.
    let reach = count / POINTED_OUT_REACH;
    let most = |gap: &dyn Fn(f64, f64) -> f64, above: &[f64], words: &str| {
        let highest = above.iter().copied().fold(0.0, f64::max);
        let around = |at: usize| {
            let near = at.saturating_sub(reach)..(at + reach + 1).min(count);
            let size = near.len() as f64;
            near.map(|at| gap(accepted[at], settled[at])).sum::<f64>() / size
        };
        let at = (0..count).max_by(|x, y| around(*x).total_cmp(&around(*y)))?;
        let is_seen = gap(accepted[at], settled[at]) > highest * POINTED_OUT_MIN;
        is_seen.then(|| Note {
            at: places[at],
            value: (accepted[at] + settled[at]) / 2.0,
            words: words.to_owned(),
        })
    };
    [
        most(&|a, s| a - s, accepted, "taken in, to be settled later"),
        most(&|a, s| s - a, settled, "the valley, filled"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Places of latencies on the axis at the most; longer runs show the worst second of several.
const LATENCY_PLACES_MAX: usize = 600;
const LATENCY_NAMES: [&str; 4] = ["half", "90 %", "99 %", "slowest"];

/// Latencies over places of so many seconds each, with gaps where nothing was answered.
fn latency_panel(title: &str, rows: &[SecondRow], places: usize, stride: usize) -> Panel {
    let line = |name: &str, class, of: fn(&SecondRow) -> u64| {
        let mut values: Vec<Option<f64>> = vec![None; places];
        for row in rows {
            if let Some(value) = values.get_mut(row.at_s as usize / stride) {
                *value = Some(value.unwrap_or(0.0).max(of(row) as f64));
            }
        }
        Line { name: name.to_owned(), class, is_area: false, is_dashed: false, values }
    };
    let title =
        if stride > 1 { format!("{title}, the worst second of each {stride}") } else { title.to_owned() };
    let [half, ninety, ninety_nine, most] = LATENCY_NAMES;
    let lines = vec![
        line(half, "c2", |row| row.p50_us),
        line(ninety, "c1", |row| row.p90_us),
        line(ninety_nine, "c5", |row| row.p99_us),
        line(most, "c0", |row| row.max_us).dashed(),
    ];
    let values = lines.iter().flat_map(|line| line.values.iter().flatten().copied());
    Panel {
        title,
        unit: Unit::Micros,
        scale: Scale::log(values),
        height: PANEL_HEIGHT,
        lines: lines.clone(),
        limit: None,
        notes: Vec::new(),
    }
}

pub(super) fn accept_latency(result: &RunResult) -> Chart {
    let to = close_up_s(result).unwrap_or_else(|| end_s(result));
    latency(result, "accept", "until the promise", &result.accept_rows, to)
}

pub(super) fn settle_latency(result: &RunResult) -> Chart {
    let title = "from the promise until settled (a sample)";
    latency(result, "settle", title, &result.settle_rows, end_s(result))
}

fn latency(result: &RunResult, id: &str, title: &str, rows: &[SecondRow], to: f64) -> Chart {
    // What was answered later than the close-up shows is answered all the same.
    let last = rows.last().map_or(0.0, |row| row.at_s as f64 + 1.0);
    let to = to.max(last).max(1.0);
    let seconds = to.ceil() as usize + 1;
    let stride = seconds.div_ceil(LATENCY_PLACES_MAX);
    let count = seconds.div_ceil(stride);
    let places: Vec<f64> = (0..count).map(|place| (place as f64 + 0.5) * stride as f64).collect();
    Chart {
        id: id.to_owned(),
        place_words: at_words(&places),
        panels: vec![latency_panel(title, rows, count, stride)],
        places,
        from: 0.0,
        to,
        ticks: time_ticks(0.0, to),
        marks: marks(result),
    }
}

/// A percentile's place on the axis: one step for each further nine.
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).max(1e-7).log10()
}

/// Name, colour, and points of a curve.
pub(super) type Distribution<'a> = (&'a str, &'static str, &'a [(f64, u64)]);

/// Several distributions over one percentile axis.
pub(super) fn curves(id: &str, of: &[Distribution<'_>]) -> Chart {
    let mut places: Vec<f64> =
        of.iter().flat_map(|(_, _, points)| points.iter().map(|(p, _)| nines(*p))).collect();
    places.sort_by(f64::total_cmp);
    places.dedup_by(|a, b| (*a - *b).abs() < 1e-9);
    let lines: Vec<Line> = of
        .iter()
        .map(|(name, class, points)| {
            let value = |place: &f64| {
                let last = points.last()?;
                if *place > nines(last.0) + 1e-9 {
                    return None;
                }
                let at = points.partition_point(|(p, _)| nines(*p) < place - 1e-9);
                points.get(at).map(|(_, us)| *us as f64)
            };
            let values = places.iter().map(value).collect();
            Line { name: (*name).to_owned(), class, is_area: false, is_dashed: false, values }
        })
        .collect();
    let to = places.last().copied().unwrap_or(1.0).max(1.0);
    let named = [
        (50.0, "50 %"),
        (90.0, "90 %"),
        (99.0, "99 %"),
        (99.9, "99.9 %"),
        (99.99, "99.99 %"),
        (99.999, "99.999 %"),
    ];
    let ticks =
        named.iter().map(|(p, words)| (nines(*p), (*words).to_owned())).filter(|(at, _)| *at <= to).collect();
    let place_words = places.iter().map(|at| {
        let percentile = 100.0 - 100.0 * 10f64.powf(-at);
        format!("{} % were faster", format!("{percentile:.4}").trim_end_matches('0').trim_end_matches('.'))
    });
    let values = lines.iter().flat_map(|line| line.values.iter().flatten().copied());
    let panel = Panel {
        title: "latency at each percentile".to_owned(),
        unit: Unit::Micros,
        scale: Scale::log(values),
        height: 230.0,
        lines: lines.clone(),
        limit: None,
        notes: Vec::new(),
    };
    Chart {
        id: id.to_owned(),
        place_words: place_words.collect(),
        places,
        from: 0.0,
        to,
        ticks,
        panels: vec![panel],
        marks: Vec::new(),
    }
}

/// CPU and memory of each process, on steps of the chart's own.
pub(super) fn processes(result: &RunResult) -> Option<Chart> {
    if result.processes.iter().all(|process| process.looks.is_empty()) {
        return None;
    }
    let step_s = result.series.step_s;
    let count = result.series.offered.len();
    let places = step_places(step_s, count);
    let mean = |looks: &[ProcessLook], of: fn(&ProcessLook) -> f64| -> Vec<Option<f64>> {
        let mut sums = vec![(0.0, 0u32); count];
        for look in looks {
            if let Some(sum) = sums.get_mut((look.at_s / step_s) as usize) {
                *sum = (sum.0 + of(look), sum.1 + 1);
            }
        }
        sums.into_iter().map(|(sum, count)| (count > 0).then(|| sum / f64::from(count))).collect()
    };
    let lines = |of: fn(&ProcessLook) -> f64, suffix: &str| -> Vec<Line> {
        let named = result.processes.iter().zip(PROCESS_CLASSES.iter().cycle());
        named
            .map(|(process, class)| Line {
                name: format!("{}{suffix}", process.name),
                class,
                is_area: false,
                is_dashed: false,
                values: mean(&process.looks, of),
            })
            .collect()
    };
    let panel = |title: &str, unit, lines: Vec<Line>| Panel {
        title: title.to_owned(),
        unit,
        scale: Scale::linear(lines.iter().flat_map(|line| line.values.iter().flatten().copied())),
        height: 140.0,
        lines,
        limit: None,
        notes: Vec::new(),
    };
    let cpu = panel("processor cores in use", Unit::Cores, lines(|look| look.cores, ""));
    let memory = panel(
        "memory resident",
        Unit::Mebibytes,
        lines(|look| look.rss_bytes as f64 / f64::from(1 << 20), ", memory"),
    );
    Some(Chart {
        id: "processes".to_owned(),
        place_words: at_words(&places),
        places,
        from: 0.0,
        to: end_s(result),
        ticks: time_ticks(0.0, end_s(result)),
        panels: vec![cpu, memory],
        marks: marks(result),
    })
}

/// The steps of a search: p99 over the rate asked for.
pub(super) fn search(result: &RunResult) -> Option<Chart> {
    let mut steps = result.search.clone();
    if steps.is_empty() {
        return None;
    }
    steps.sort_by(|a, b| a.per_s.total_cmp(&b.per_s));
    let places: Vec<f64> = steps.iter().map(|step| step.per_s).collect();
    let place_words = steps.iter().map(|step| {
        let outcome = if step.passed { "passed".to_owned() } else { step.why_not.clone() };
        format!("{}/s: {outcome}", words::grouped(step.per_s as u64))
    });
    let of = |name: &str, class, value: fn(&crate::result::SearchStep) -> u64| {
        Line::new(name, class, steps.iter().map(|step| value(step) as f64))
    };
    let lines = vec![of("half", "c2", |step| step.accept.p50), of("99 %", "c5", |step| step.accept.p99)];
    let limit_us = result.scenario.search.as_ref().map(|search| search.accept_p99_ms * 1e3);
    let values = lines.iter().flat_map(|line| line.values.iter().flatten().copied()).chain(limit_us);
    let scale = Scale::log(values.collect::<Vec<_>>().into_iter());
    let to = places.last().copied().unwrap_or(1.0) * 1.05;
    let tick_step = Scale::linear([to].into_iter());
    let ticks = match tick_step {
        Scale::Linear(top) => {
            (0..=4).map(|n| f64::from(n) * top / 4.0).filter(|at| *at <= to).collect::<Vec<_>>()
        }
        Scale::Log(..) => Vec::new(),
    };
    Some(Chart {
        id: "search".to_owned(),
        place_words: place_words.collect(),
        from: 0.0,
        to,
        ticks: ticks.into_iter().map(|at| (at, format!("{}/s", words::short(at)))).collect(),
        panels: vec![Panel {
            title: "time until the promise, over the rate asked for".to_owned(),
            unit: Unit::Micros,
            scale,
            height: 220.0,
            lines,
            notes: Vec::new(),
            limit: limit_us.map(|us| (us, format!("limit for 99 %: {}", words::micros(us as u64)))),
        }],
        places,
        marks: Vec::new(),
    })
}
