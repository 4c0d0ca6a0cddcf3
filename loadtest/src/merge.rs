//! Several generators' outputs as one: each made a part of the load at the same target at the same time.
//!
//! What holds: latencies add up from the logs, not from percentiles; times are laid over each other by the clocks of
//! the machines, so they are as good as those. What was seen of the target itself is taken from the first part alone,
//! for every part saw the same. Absent: parts of different scenarios.

use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;

use crate::generator::latencies;
use crate::record::{Percentiles, RecordError, SecondRow, curve, read_log, row};
use crate::result::{Check, Ids, Micros, ResultError, RunResult};
use crate::run;
use crate::verdict;

#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    #[error(transparent)]
    Result(#[from] ResultError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("nothing to merge: give the folders of at least two parts")]
    TooFew,
    #[error("{path} is a run of {found}, the first of {wanted}: only parts of one scenario can be merged")]
    Different { path: PathBuf, found: String, wanted: String },
    #[error("the part {part} is given twice: {path}")]
    Twice { part: String, path: PathBuf },
    #[error(
        "{path} is part {part}, and {given} are given: all parts of one load are needed, and nothing else"
    )]
    Incomplete { part: String, path: PathBuf, given: usize },
    #[error(
        "--out {out} is the folder of a part: the merged result would take the place of its own; name another"
    )]
    Part { out: PathBuf },
    #[error(
        "--out {out} holds the files of another run, which would be lost: name another folder, or say --force to replace \
         them"
    )]
    Taken { out: PathBuf },
    #[error("removing an earlier run's files from {out}: {error}")]
    Clear { out: PathBuf, error: std::io::Error },
}

/// All parts as one result, with the verdict taken anew.
pub fn merge(folders: &[PathBuf]) -> Result<RunResult, MergeError> {
    let parts = folders.iter().map(|path| RunResult::load(path)).collect::<Result<Vec<_>, _>>()?;
    if parts.len() < 2 {
        return Err(MergeError::TooFew);
    }
    for (index, (part, path)) in parts.iter().zip(folders).enumerate() {
        let arrivals =
            |result: &RunResult| serde_json::to_string(&result.scenario.arrivals).unwrap_or_default();
        if part.scenario.name != parts[0].scenario.name || arrivals(part) != arrivals(&parts[0]) {
            let (found, wanted) = (part.scenario.name.clone(), parts[0].scenario.name.clone());
            return Err(MergeError::Different { path: path.clone(), found, wanted });
        }
        if parts[..index].iter().any(|other| other.part == part.part) {
            return Err(MergeError::Twice { part: part.part.clone(), path: path.clone() });
        }
        // Each of as many as were given, none twice: all of them.
        let of = part.part.split_once('/').and_then(|(_, of)| of.parse().ok());
        if of != Some(parts.len()) {
            let (part, given) = (part.part.clone(), parts.len());
            return Err(MergeError::Incomplete { part, path: path.clone(), given });
        }
    }
    let earliest = parts.iter().map(|part| part.epoch_unix_ms).min().unwrap_or(0);
    let shift_s = |part: &RunResult| (part.epoch_unix_ms - earliest) as f64 / 1e3;
    let mut whole = parts[0].clone();
    whole.epoch_unix_ms = earliest;
    whole.part = parts.iter().map(|part| part.part.as_str()).collect::<Vec<_>>().join(" + ");
    whole.load_begin_s = parts.iter().map(|part| part.load_begin_s + shift_s(part)).fold(f64::MAX, f64::min);
    whole.load_end_s = parts.iter().map(|part| part.load_end_s + shift_s(part)).fold(0.0, f64::max);
    whole.drained_s = parts
        .iter()
        .map(|part| part.drained_s.map(|at| at + shift_s(part)))
        .try_fold(0.0, |last, at| at.map(|at| f64::max(last, at)));
    whole.counts = Default::default();
    parts.iter().for_each(|part| whole.counts.merge(&part.counts));
    add_series(&mut whole, &parts, &shift_s);
    let accept = summed(folders, "accept.hlog", &parts, &shift_s)?;
    (whole.accept, whole.accept_curve, whole.accept_rows) = accept;
    let settle = summed(folders, "settle.hlog", &parts, &shift_s)?;
    (whole.settle, whole.settle_curve, whole.settle_rows) = settle;
    whole.settle_sampled = parts.iter().map(|part| part.settle_sampled).sum();
    whole.generator_cores = parts.iter().map(|part| part.generator_cores).sum();
    whole.wallet_peak_per_s = parts.iter().filter_map(|part| part.wallet_peak_per_s).max();
    whole.check = parts[1..].iter().fold(parts[0].check.clone(), |sum, part| add_checks(sum, &part.check));
    conclude(&mut whole, &parts);
    Ok(whole)
}

/// Makes sure that a merged result that is written to `out` takes nobody's place but that of one of the same parts, or,
/// by `force`, of whatever a run left there.
pub fn make_room(out: &Path, whole: &RunResult, parts: &[PathBuf], force: bool) -> Result<(), MergeError> {
    let place =
        |path: &Path| if path.is_file() { path.parent().map(Path::to_owned) } else { Some(path.to_owned()) };
    let own = |path: &Path| place(path).and_then(|path| path.canonicalize().ok());
    if own(out).is_some_and(|out| parts.iter().any(|part| own(part).as_ref() == Some(&out))) {
        return Err(MergeError::Part { out: out.to_owned() });
    }
    if !run::is_used(out) {
        return Ok(());
    }
    let is_same = |there: &RunResult| there.run == whole.run && there.part == whole.part;
    if !force && !RunResult::load(out).as_ref().is_ok_and(is_same) {
        return Err(MergeError::Taken { out: out.to_owned() });
    }
    run::clear(out).map_err(|error| MergeError::Clear { out: out.to_owned(), error })
}

type Measured = (Percentiles, Vec<(f64, u64)>, Vec<SecondRow>);

fn summed(
    folders: &[PathBuf],
    file: &str,
    parts: &[RunResult],
    shift_s: &dyn Fn(&RunResult) -> f64,
) -> Result<Measured, MergeError> {
    let mut total = latencies();
    let mut seconds: std::collections::BTreeMap<u64, Histogram<u64>> = Default::default();
    for (folder, part) in folders.iter().zip(parts) {
        let folder: &Path = if folder.is_dir() { folder } else { folder.parent().unwrap_or(Path::new(".")) };
        for (second, histogram) in read_log(&folder.join(file))?.1 {
            total.add(&histogram).expect("the bounds of all logs are one");
            let second = (second as f64 + shift_s(part)).round() as u64;
            let sum = seconds.entry(second).or_insert_with(latencies);
            sum.add(&histogram).expect("the bounds of all logs are one");
        }
    }
    let rows = seconds.iter().map(|(second, histogram)| row(*second, histogram)).collect();
    Ok((Percentiles::of(&total), curve(&total), rows))
}

/// Adds up what the generators did; what the target did, every part saw whole.
fn add_series(whole: &mut RunResult, parts: &[RunResult], shift_s: &dyn Fn(&RunResult) -> f64) {
    let step_s = whole.series.step_s;
    let end_s =
        parts.iter().map(|part| part.series.offered.len() as f64 * part.series.step_s + shift_s(part));
    let count = (end_s.fold(0.0, f64::max) / step_s).ceil() as usize;
    let sum = |of: fn(&RunResult) -> &Vec<f64>| {
        let mut sums = vec![0.0; count];
        for part in parts {
            for (step, rate) in of(part).iter().enumerate() {
                let at = ((step as f64 + 0.5) * part.series.step_s + shift_s(part)) / step_s;
                // A part with another step spreads over as many of these, or gathers into one.
                sums[(at as usize).min(count - 1)] += rate * part.series.step_s / step_s;
            }
        }
        sums
    };
    whole.series.offered = sum(|part| &part.series.offered);
    whole.series.accepted = sum(|part| &part.series.accepted);
    whole.series.refused = sum(|part| &part.series.refused);
    whole.series.retried = sum(|part| &part.series.retried);
    let shift = (shift_s(&parts[0]) / step_s).round() as usize;
    for of_target in [&mut whole.series.settled, &mut whole.series.wallet, &mut whole.series.backlog] {
        if !of_target.is_empty() {
            of_target.splice(0..0, std::iter::repeat_n(0.0, shift));
            of_target.resize(count, 0.0);
        }
    }
}

fn add_checks(mut sum: Check, part: &Check) -> Check {
    sum.acknowledged += part.acknowledged;
    sum.ids = sum.ids.zip(part.ids.as_ref()).map(|(sum, part)| add_ids(sum, part));
    for (mine, theirs) in [
        (&mut sum.lost, part.lost),
        (&mut sum.double_paid, part.double_paid),
        (&mut sum.short_paid, part.short_paid),
    ] {
        *mine = match (*mine, theirs) {
            (Some(mine), Some(theirs)) => Some(mine + theirs),
            // What one part found is found; that it found none says nothing of the other.
            (one, other) => one.or(other).filter(|count| *count > 0),
        };
    }
    sum.books_balanced = match (sum.books_balanced, part.books_balanced) {
        (Some(mine), Some(theirs)) => Some(mine && theirs),
        (one, other) => one.or(other).filter(|balanced| !balanced),
    };
    sum.counted_at = sum.counted_at.min(part.counted_at);
    for words in &part.not_checked {
        if !sum.not_checked.contains(words) {
            sum.not_checked.push(words.clone());
        }
    }
    sum.evidence.extend(part.evidence.iter().cloned());
    sum.told.extend(part.told.iter().cloned());
    sum.gaps.extend(part.gaps.iter().cloned());
    sum
}

fn add_ids(mut sum: Ids, part: &Ids) -> Ids {
    for (mine, theirs) in [
        (&mut sum.pending, part.pending),
        (&mut sum.altered, part.altered),
        (&mut sum.paid_unasked, part.paid_unasked),
        (&mut sum.succeeded, part.succeeded),
        (&mut sum.failed, part.failed),
        (&mut sum.unknown, part.unknown),
        (&mut sum.unanswered, part.unanswered),
        (&mut sum.unanswered_paid, part.unanswered_paid),
        (&mut sum.amount_paid, part.amount_paid),
        (&mut sum.amount_open, part.amount_open),
    ] {
        *mine += theirs;
    }
    part.by_status
        .iter()
        .for_each(|(status, count)| *sum.by_status.entry(status.clone()).or_default() += count);
    sum
}

fn conclude(whole: &mut RunResult, parts: &[RunResult]) {
    let length_s = (whole.load_end_s - whole.load_begin_s).max(1e-3);
    let counts = &whole.counts;
    whole.summary.submitted = counts.submitted;
    whole.summary.accepted = counts.accepted;
    whole.summary.duplicates = counts.duplicates_recognised;
    whole.summary.refused = counts.refused_total() + counts.conflicts_refused + counts.invalid_refused;
    whole.summary.take(&whole.check);
    whole.summary.accept_per_s = (counts.accepted as f64 / length_s) as u64;
    whole.summary.accept_us = Micros::of(whole.accept);
    whole.summary.settle_us = Micros::of(whole.settle);
    whole.objectives = verdict::objectives(whole);
    let interrupted =
        |part: &RunResult| part.verdict.complaints.iter().any(|words| words == verdict::INTERRUPTED);
    whole.verdict = verdict::judge(whole, parts.iter().any(interrupted), &[]);
    whole.summary.verdict = format!("{:?}", whole.verdict.outcome).to_lowercase();
    whole.summary.headline.clone_from(&whole.verdict.headline);
    whole.summary.complaints.clone_from(&whole.verdict.complaints);
}

#[cfg(test)]
mod tests;
