//! Two runs against each other: what changed beyond noise.
//!
//! What holds: a change is counted only beyond the noise inside the two runs themselves ([`noise`]), and beyond a share
//! that is of interest at all. What a run has once (its longest wait, its highest rate) has no noise that could be known
//! from two runs: it is told and not judged. What a run does not have is told as not measured, never as nothing. Money
//! that went astray counts as it is. Absent: any claim about why, and about what differs from run to run.

mod measures;
mod noise;

use self::measures::Steps;
use self::noise::{BLOCKS_MIN, Noise, Pair};
use crate::result::RunResult;
use crate::words::{bytes, grouped, micros, seconds};

/// Below this a change is of no interest, however sure.
const CHANGE_MIN: f64 = 0.05;
/// Of memory, of which an allocator keeps now more, now less.
const MEMORY_CHANGE_MIN: f64 = 0.25;

/// What can be said of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    Worse,
    Better,
    WithinNoise,
    /// Too few seconds to know the noise.
    TooShort,
    /// A run has one such value: nothing tells its noise.
    NotJudged,
    NotMeasured,
}

impl Says {
    pub fn words(self) -> &'static str {
        match self {
            Says::Worse => "worse",
            Says::Better => "better",
            Says::WithinNoise => "within noise",
            Says::TooShort => "too short",
            Says::NotJudged => "not judged",
            Says::NotMeasured => "not measured",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub what: String,
    pub a: String,
    pub b: String,
    /// B less A, as a share of A; none where A is nothing, or one of them is not known.
    pub change: Option<f64>,
    /// What chance alone makes of it, as a share of A; none where that is not known.
    pub noise: Option<f64>,
    pub says: Says,
}

impl Change {
    /// The change, for people.
    pub fn change_words(&self) -> String {
        match (self.change, self.says) {
            (Some(change), _) => crate::words::change(change),
            (None, Says::NotMeasured) => "-".to_owned(),
            (None, _) => "new".to_owned(),
        }
    }

    /// What it was held against, for people.
    pub fn noise_words(&self) -> String {
        match (self.says, self.noise) {
            (_, Some(noise)) => format!("noise {}", crate::words::change(noise)),
            (Says::NotJudged, None) => "one value a run".to_owned(),
            (Says::TooShort, None) => format!("under {} s", BLOCKS_MIN * 3),
            (_, None) => "-".to_owned(),
        }
    }
}

const NOT_MEASURED: &str = "not measured";

/// What is compared: its name, how it is shown, whether more of it is worse, what change is of interest.
struct Measure<'a> {
    what: &'a str,
    show: &'a dyn Fn(f64) -> String,
    more_is_worse: bool,
    change_min: f64,
}

impl Measure<'_> {
    fn shown(&self, a: Option<f64>, b: Option<f64>, noise: Option<f64>, says: Says) -> Change {
        let shown = |value: Option<f64>| value.map_or_else(|| NOT_MEASURED.to_owned(), self.show);
        let share = || b.zip(a).filter(|(_, a)| *a > 0.0).map(|(b, a)| b / a - 1.0);
        let change = if a.is_some() && a == b { Some(0.0) } else { share() };
        Change { what: self.what.to_owned(), a: shown(a), b: shown(b), change, noise, says }
    }

    /// Held against the noise of the seconds.
    fn by_seconds(&self, a: &Steps, b: &Steps) -> Change {
        let alone = |steps: &Steps| noise::pair(&steps.parts, &steps.parts, steps.step_s).map(|pair| pair.a);
        let Some(Pair { a, b, noise }) = noise::pair(&a.parts, &b.parts, a.step_s) else {
            return self.shown(alone(a), alone(b), None, Says::NotMeasured);
        };
        let difference = (b - a).abs();
        let says = match noise {
            _ if a == b => Says::WithinNoise,
            None => Says::TooShort,
            Some(Noise { is_beyond, .. }) if !is_beyond || difference <= self.change_min * a => {
                Says::WithinNoise
            }
            Some(_) if (b > a) == self.more_is_worse => Says::Worse,
            Some(_) => Says::Better,
        };
        self.shown(Some(a), Some(b), noise.and_then(|noise| noise.share), says)
    }

    /// Told, not judged.
    fn once(&self, a: Option<f64>, b: Option<f64>) -> Change {
        let says = match (a, b) {
            (Some(a), Some(b)) if a == b => Says::WithinNoise,
            (Some(_), Some(_)) => Says::NotJudged,
            _ => Says::NotMeasured,
        };
        self.shown(a, b, None, says)
    }

    /// Of what there should be none, and of which one is one too many.
    fn fact(&self, a: Option<u64>, b: Option<u64>) -> Change {
        let says = match b.cmp(&a) {
            _ if a.is_none() || b.is_none() => Says::NotMeasured,
            std::cmp::Ordering::Equal => Says::WithinNoise,
            std::cmp::Ordering::Greater => Says::Worse,
            std::cmp::Ordering::Less => Says::Better,
        };
        self.shown(a.map(|a| a as f64), b.map(|b| b as f64), None, says)
    }
}

/// Everything that can be compared; what changed first.
pub fn compare(a: &RunResult, b: &RunResult) -> Vec<Change> {
    let us = |value: f64| micros(value as u64);
    let rate = |value: f64| format!("{}/s", grouped(value as u64));
    let count = |value: f64| grouped(value as u64);
    let memory = |value: f64| bytes(value as u64);
    let percent = |share: f64| format!("{:.3} %", share * 100.0);
    let measure = |what, show, more_is_worse| Measure { what, show, more_is_worse, change_min: CHANGE_MIN };
    let step_s = a.series.step_s.max(b.series.step_s).max(0.1);
    let each =
        |measure: Measure<'_>, steps: &dyn Fn(&RunResult) -> Steps| measure.by_seconds(&steps(a), &steps(b));
    let over = |of: fn(&RunResult) -> &[f64]| {
        move |run: &RunResult| measures::rates(run, of(run), Some(&run.series.offered), step_s)
    };
    let rates =
        |of: fn(&RunResult) -> &[f64]| move |run: &RunResult| measures::rates(run, of(run), None, step_s);
    let mut changes = vec![
        each(measure("accept latency, half (mean over the seconds)", &us, true), &|run| {
            measures::rows(run, &run.accept_rows, |row| row.p50_us)
        }),
        each(measure("accept latency, 99 % (mean over the seconds)", &us, true), &|run| {
            measures::rows(run, &run.accept_rows, |row| row.p99_us)
        }),
        each(measure("settle latency, half (mean over the seconds)", &us, true), &|run| {
            measures::rows(run, &run.settle_rows, |row| row.p50_us)
        }),
        each(measure("accepted a second", &rate, false), &rates(|run| &run.series.accepted)),
        each(
            measure("settled a second, while the load lasts", &rate, false),
            &rates(|run| &run.series.settled),
        ),
        each(measure("refused, of what was asked for", &percent, true), &over(|run| &run.series.refused)),
        each(
            measure("sent again, for each that was asked for", &percent, true),
            &over(|run| &run.series.retried),
        ),
        each(measure("processor time a request, all instances", &us, true), &measures::processor),
        each(
            Measure { change_min: MEMORY_CHANGE_MIN, ..measure("memory of an instance", &memory, true) },
            &measures::memory,
        ),
    ];
    // What nobody counted is no difference between two runs that lost as many.
    let astray = |run: &RunResult| run.check.lost.map(|lost| lost + run.check.double_paid.unwrap_or(0));
    changes.push(measure("lost or paid twice", &count, true).fact(astray(a), astray(b)));
    let slowest = |run: &RunResult, us: u64| (run.accept.count > 0).then_some(us as f64);
    let p99 = |run: &RunResult| slowest(run, run.accept.p99);
    let p999 = |run: &RunResult| slowest(run, run.accept.p999);
    let drained = |run: &RunResult| run.drained_s.map(|at| (at - run.load_end_s).max(0.0));
    let peak = |run: &RunResult| run.wallet_peak_per_s.map(|peak| peak as f64);
    let best = |run: &RunResult| run.summary.capacity_per_s.map(|best| best as f64);
    changes.extend([
        measure("accept latency over the run, 99 %", &us, true).once(p99(a), p99(b)),
        measure("accept latency over the run, 99.9 %", &us, true).once(p999(a), p999(b)),
        measure("time to settle the rest", &seconds, true).once(drained(a), drained(b)),
        measure("most sent to the wallet in a second", &rate, true).once(peak(a), peak(b)),
    ]);
    if !(a.search.is_empty() && b.search.is_empty()) {
        changes.push(measure("highest rate within the limit", &rate, false).once(best(a), best(b)));
    }
    changes.sort_by_key(|change| !matches!(change.says, Says::Worse | Says::Better));
    changes
}

/// In one line: what changed.
pub fn headline(changes: &[Change]) -> String {
    let count = |says: Says| changes.iter().filter(|change| change.says == says).count();
    match (count(Says::Worse), count(Says::Better), count(Says::TooShort)) {
        (0, 0, 0) => "Nothing changed beyond noise".to_owned(),
        (0, 0, _) => format!("Too short to tell: noise is known from {} seconds on", BLOCKS_MIN * 3),
        (worse, better, _) => {
            format!("B against A: {worse} worse, {better} better, the rest not beyond noise")
        }
    }
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
    let changes = compare(a, b);
    let mut text = format!("\n  {}\n\n", headline(&changes));
    for difference in differences(a, b) {
        text.push_str(&format!("  differs      {difference}\n"));
    }
    for change in changes {
        text.push_str(&format!(
            "  {:<12} {:<44} {:>12} \u{2192} {:>12}  {:>9}  ({})\n",
            change.says.words(),
            change.what,
            change.a,
            change.b,
            change.change_words(),
            change.noise_words()
        ));
    }
    text
}

#[cfg(test)]
mod tests;
