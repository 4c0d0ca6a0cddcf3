//! Two runs against each other: what changed beyond noise.
//!
//! What holds: measures that exist for each second are compared second by second (of the same second since the
//! load's start, so that the shape of the load drops out), and a change counts only if the median of these
//! differences is more than three of its standard errors from nothing, and more than five per cent. The standard error
//! comes from the differences' own spread (median absolute deviation), with a third of the seconds taken as
//! independent. What exists once a run is told with both values, and counted if it changed by more than a tenth.
//! Absent: any claim about why.

use crate::record::SecondRow;
use crate::result::RunResult;
use crate::words::{grouped, micros, seconds};

/// Below this a change is of no interest, however sure.
const CHANGE_MIN: f64 = 0.05;
const SINGLE_CHANGE_MIN: f64 = 0.10;
const ERRORS_MIN: f64 = 3.0;
const SECONDS_MIN: usize = 6;
/// Neighbouring seconds resemble each other: so many stand for one.
const SECONDS_A_SAMPLE: f64 = 3.0;

#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub what: String,
    pub a: String,
    pub b: String,
    /// B less A, as a share of A; none where A is nothing.
    pub change: Option<f64>,
    /// What chance alone makes of it, as a share; none where it cannot be known from two runs.
    pub noise: Option<f64>,
    pub beyond_noise: bool,
    /// Whether more of it is worse.
    pub more_is_worse: bool,
}

impl Change {
    /// In a word.
    pub fn says(&self) -> &'static str {
        let rose = self.change.unwrap_or(0.0) > 0.0;
        match (self.beyond_noise, rose == self.more_is_worse) {
            (false, _) => "within noise",
            (true, true) => "worse",
            (true, false) => "better",
        }
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// The median of `ln(b / a)` over pairs, and its standard error.
fn paired(pairs: &[(f64, f64)]) -> Option<(f64, f64)> {
    let mut ratios: Vec<f64> =
        pairs.iter().filter(|(a, b)| *a > 0.0 && *b > 0.0).map(|(a, b)| (b / a).ln()).collect();
    if ratios.len() < SECONDS_MIN {
        return None;
    }
    let count = ratios.len() as f64;
    let middle = median(&mut ratios);
    let mut deviations: Vec<f64> = ratios.iter().map(|ratio| (ratio - middle).abs()).collect();
    // 1.4826 makes a standard deviation of it, 1.2533 is the price of a median.
    let deviation = 1.4826 * median(&mut deviations);
    Some((middle, 1.2533 * deviation / (count / SECONDS_A_SAMPLE).max(1.0).sqrt()))
}

fn by_second(
    what: &str,
    pairs: &[(f64, f64)],
    show: &dyn Fn(f64) -> String,
    more_is_worse: bool,
) -> Option<Change> {
    let (middle, error) = paired(pairs)?;
    let (mut a, mut b): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let change = middle.exp() - 1.0;
    Some(Change {
        what: what.to_owned(),
        a: show(median(&mut a)),
        b: show(median(&mut b)),
        change: Some(change),
        noise: Some((ERRORS_MIN * error).exp() - 1.0),
        beyond_noise: change.abs() > CHANGE_MIN && middle.abs() > ERRORS_MIN * error,
        more_is_worse,
    })
}

fn once(what: &str, a: f64, b: f64, show: &dyn Fn(f64) -> String, more_is_worse: bool) -> Change {
    let change = if a == b { Some(0.0) } else { (a > 0.0).then(|| b / a - 1.0) };
    Change {
        what: what.to_owned(),
        a: show(a),
        b: show(b),
        change,
        noise: None,
        beyond_noise: change.map_or(b > 0.0, |change| change.abs() > SINGLE_CHANGE_MIN),
        more_is_worse,
    }
}

/// Rows of the same second since each load's start.
fn rows_paired(
    a: &RunResult,
    b: &RunResult,
    of: fn(&RunResult) -> &[SecondRow],
    value: fn(&SecondRow) -> u64,
) -> Vec<(f64, f64)> {
    let start = |result: &RunResult| result.load_begin_s as u64;
    let of_b = of(b);
    let twin = |row: &SecondRow| {
        let wanted = row.at_s.checked_sub(start(a))? + start(b);
        of_b.iter().find(|other| other.at_s == wanted)
    };
    of(a).iter().filter_map(|row| Some((value(row) as f64, value(twin(row)?) as f64))).collect()
}

fn rates_paired(a: &RunResult, b: &RunResult, of: fn(&RunResult) -> &[f64]) -> Vec<(f64, f64)> {
    if (a.series.step_s - b.series.step_s).abs() > 1e-9 {
        return Vec::new();
    }
    let steps = (a.load_end_s.min(b.load_end_s) / a.series.step_s) as usize;
    of(a).iter().zip(of(b)).take(steps).map(|(a, b)| (*a, *b)).collect()
}

/// Everything that can be compared; what changed first.
pub fn compare(a: &RunResult, b: &RunResult) -> Vec<Change> {
    let us = |value: f64| micros(value as u64);
    let rate = |value: f64| format!("{}/s", grouped(value as u64));
    let count = |value: f64| grouped(value as u64);
    let accept: fn(&RunResult) -> &[SecondRow] = |result| &result.accept_rows;
    let settle: fn(&RunResult) -> &[SecondRow] = |result| &result.settle_rows;
    let mut changes: Vec<Change> = [
        by_second(
            "accept latency, half (by second)",
            &rows_paired(a, b, accept, |row| row.p50_us),
            &us,
            true,
        ),
        by_second(
            "accept latency, 99 % (by second)",
            &rows_paired(a, b, accept, |row| row.p99_us),
            &us,
            true,
        ),
        by_second(
            "settle latency, half (by second)",
            &rows_paired(a, b, settle, |row| row.p50_us),
            &us,
            true,
        ),
        by_second("accepted a second", &rates_paired(a, b, |result| &result.series.accepted), &rate, false),
        by_second("settled a second", &rates_paired(a, b, |result| &result.series.settled), &rate, false),
    ]
    .into_iter()
    .flatten()
    .collect();
    let drained = |result: &RunResult| result.drained_s.map_or(0.0, |at| (at - result.load_end_s).max(0.0));
    let most = |result: &RunResult| {
        let looks = result.processes.iter().filter(|process| process.name.starts_with("instance"));
        looks.flat_map(|process| &process.looks).map(|look| look.rss_bytes).max().unwrap_or(0) as f64
    };
    let processor = |result: &RunResult| {
        let looks = result.processes.iter().filter(|process| process.name.starts_with("instance"));
        let cores: f64 = looks.flat_map(|process| &process.looks).map(|look| look.cores * 0.25).sum();
        cores / (result.counts.accepted.max(1) as f64) * 1e6
    };
    changes.extend([
        once("accept latency over the run, 99 %", a.accept.p99 as f64, b.accept.p99 as f64, &us, true),
        once("accept latency over the run, 99.9 %", a.accept.p999 as f64, b.accept.p999 as f64, &us, true),
        once("refused", a.counts.refused_total() as f64, b.counts.refused_total() as f64, &count, true),
        once("calls sent again", a.counts.retried as f64, b.counts.retried as f64, &count, true),
        once(
            "lost or paid twice",
            (a.check.lost + a.check.double_paid) as f64,
            (b.check.lost + b.check.double_paid) as f64,
            &count,
            true,
        ),
        once("time to settle the rest", drained(a), drained(b), &seconds, true),
        once(
            "most memory of an instance",
            most(a),
            most(b),
            &|bytes| crate::words::bytes(bytes as u64),
            true,
        ),
        once("processor time a request, all instances", processor(a), processor(b), &us, true),
    ]);
    if let (Some(of_a), Some(of_b)) = (a.wallet_peak_per_s, b.wallet_peak_per_s) {
        changes.push(once("most sent to the wallet in a second", of_a as f64, of_b as f64, &rate, true));
    }
    if let (Some(of_a), Some(of_b)) = (a.summary.capacity_per_s, b.summary.capacity_per_s) {
        changes.push(once("highest rate within the limit", of_a as f64, of_b as f64, &rate, false));
    }
    changes.sort_by_key(|change| !change.beyond_noise);
    changes
}

/// What makes the two no fair comparison.
pub fn differences(a: &RunResult, b: &RunResult) -> Vec<String> {
    let environment = |result: &RunResult| {
        let e = &result.environment;
        [
            ("scenario", result.scenario.name.clone()),
            ("arrivals", serde_json::to_string(&result.scenario.arrivals).unwrap_or_default()),
            ("cores", e.cores.to_string()),
            ("disk", e.disk.clone()),
            ("durability", e.durability.clone()),
            ("build", e.build.clone()),
            ("hongbao", e.hongbao.clone()),
            ("verdict", format!("{:?}", result.verdict.outcome).to_lowercase()),
        ]
    };
    let pairs = environment(a).into_iter().zip(environment(b));
    pairs.filter(|(a, b)| a != b).map(|((name, a), (_, b))| format!("{name}: {a} \u{2192} {b}")).collect()
}

/// For a terminal.
pub fn words(a: &RunResult, b: &RunResult) -> String {
    let mut text = String::new();
    for difference in differences(a, b) {
        text.push_str(&format!("  differs    {difference}\n"));
    }
    for change in compare(a, b) {
        let percent = change.change.map_or_else(|| "new".to_owned(), crate::words::change);
        let noise = change.noise.map_or_else(
            || "one value a run".to_owned(),
            |share| format!("noise {}", crate::words::change(share)),
        );
        text.push_str(&format!(
            "  {:<12} {:<42} {:>12} \u{2192} {:>12}  {percent:>9}  ({noise})\n",
            change.says(),
            change.what,
            change.a,
            change.b
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(change: f64, spread: f64, seed: u64) -> Vec<(f64, f64)> {
        let mut dice = crate::dice::Dice::new(seed);
        let mut noise = move || 1.0 + spread * (crate::dice::unit(dice.roll()) - 0.5);
        // A spike: the shape of the load is in both.
        (0..60)
            .map(|n| {
                let base = if n < 20 { 10_000.0 } else { 500.0 };
                (base * noise(), base * change * noise())
            })
            .collect()
    }

    #[test]
    fn only_what_is_beyond_noise_counts() {
        let show = |value: f64| value.to_string();
        // Change, spread, whether it is seen.
        let table = [
            (1.0, 0.2, false),
            (1.3, 0.2, true),
            (0.7, 0.2, true),
            (1.03, 0.01, false),
            (1.3, 3.0, false),
            (1.0, 1.5, false),
        ];
        for (change, spread, seen) in table {
            for seed in 0..20 {
                let found = by_second("x", &pairs(change, spread, seed), &show, true).unwrap();
                assert_eq!(found.beyond_noise, seen, "{change} {spread} {seed}: {found:?}");
                if seen {
                    assert_eq!(found.says(), if change > 1.0 { "worse" } else { "better" });
                }
            }
        }
        assert_eq!(by_second("x", &[(1.0, 2.0); 3], &show, true), None, "three seconds prove nothing");
    }
}
