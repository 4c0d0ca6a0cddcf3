//! What two runs are compared by, as parts in steps of time since the load's start.
//!
//! What holds: a step in which nothing was seen has nothing, not a zero. Absent: judging.

use super::noise::Part;
use crate::record::SecondRow;
use crate::result::RunResult;

/// Steps of time since the load's start.
pub struct Steps {
    pub step_s: f64,
    pub parts: Vec<Part>,
}

/// Of each second's value, the mean over the seconds that have one.
pub fn rows(result: &RunResult, rows: &[SecondRow], value: fn(&SecondRow) -> u64) -> Steps {
    let begin_s = result.load_begin_s as u64;
    let mut parts = Vec::new();
    for row in rows {
        let Some(at) = row.at_s.checked_sub(begin_s) else { continue };
        put(&mut parts, at as usize, Part { sum: value(row) as f64, over: 1.0 });
    }
    Steps { step_s: 1.0, parts }
}

/// A rate over time for each unit of another, up to the load's end; per second where there is no other.
pub fn rates(result: &RunResult, rates: &[f64], over: Option<&[f64]>, step_s: f64) -> Steps {
    let own_s = result.series.step_s;
    let mut parts: Vec<Part> = Vec::new();
    for (index, rate) in rates.iter().enumerate() {
        let over = over.map_or(1.0, |over| over.get(index).copied().unwrap_or(0.0));
        let from_s = (index as f64 * own_s).max(result.load_begin_s) - result.load_begin_s;
        let to_s = ((index + 1) as f64 * own_s).min(result.load_end_s) - result.load_begin_s;
        // A step may reach over several of the steps wanted.
        let mut at_s = from_s;
        while at_s < to_s - 1e-9 {
            let step = (at_s / step_s + 1e-9) as usize;
            let end_s = ((step + 1) as f64 * step_s).min(to_s);
            put(&mut parts, step, Part { sum: rate * (end_s - at_s), over: over * (end_s - at_s) });
            at_s = end_s;
        }
    }
    Steps { step_s, parts }
}

fn instances(result: &RunResult) -> impl Iterator<Item = &crate::observe::ProcessLook> {
    let instances = result.processes.iter().filter(|process| process.name.starts_with("instance"));
    instances.flat_map(|process| &process.looks)
}

fn since_begin(result: &RunResult, at_s: f64) -> Option<usize> {
    (at_s >= result.load_begin_s).then_some((at_s - result.load_begin_s) as usize)
}

/// Microseconds of all instances' processors for each request that was accepted, to the end of the run.
pub fn processor(result: &RunResult) -> Steps {
    let mut parts = Vec::new();
    let every_s = crate::observe::LOOK_EVERY.as_secs_f64();
    for look in instances(result) {
        let Some(at) = since_begin(result, look.at_s) else { continue };
        put(&mut parts, at, Part { sum: look.cores * every_s * 1e6, over: 0.0 });
    }
    if parts.is_empty() {
        return Steps { step_s: 1.0, parts };
    }
    for (index, rate) in result.series.accepted.iter().enumerate() {
        let at_s = (index as f64 + 0.5) * result.series.step_s;
        let Some(at) = since_begin(result, at_s) else { continue };
        put(&mut parts, at, Part { sum: 0.0, over: rate * result.series.step_s });
    }
    Steps { step_s: 1.0, parts }
}

/// Bytes resident of an instance, the mean over the load.
pub fn memory(result: &RunResult) -> Steps {
    let mut parts = Vec::new();
    for look in instances(result).filter(|look| look.at_s <= result.load_end_s) {
        let Some(at) = since_begin(result, look.at_s) else { continue };
        put(&mut parts, at, Part { sum: look.rss_bytes as f64, over: 1.0 });
    }
    Steps { step_s: 1.0, parts }
}

fn put(parts: &mut Vec<Part>, at: usize, part: Part) {
    if at >= parts.len() {
        parts.resize(at + 1, Part::default());
    }
    parts[at].sum += part.sum;
    parts[at].over += part.over;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn rates_are_spread_over_the_steps_wanted() {
        let mut result = RunResult::blank(Scenario::load("smoke").unwrap(), "x");
        (result.load_begin_s, result.load_end_s) = (0.5, 6.0);
        result.series.step_s = 2.0;
        let sums = |step_s: f64| {
            let steps = rates(&result, &[10.0, 20.0, 30.0, 99.0], None, step_s);
            steps.parts.iter().map(|part| (part.sum, part.over)).collect::<Vec<_>>()
        };
        // 1.5 s of 10, 2 s of 20, 2 s of 30, and nothing of what is after the load.
        assert_eq!(sums(5.5), [(115.0, 5.5)]);
        assert_eq!(sums(3.0), [(45.0, 3.0), (70.0, 2.5)]);
    }
}
