//! The search for the highest rate that a set-up bears at a stated latency: steps up until one misses, then halving. A step
//! that misses is tried once more before it is believed: a machine stands still now and then.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::load::Rig;
use crate::arrivals::{Arrivals, Piece};
use crate::generator::{self, Counts, Interval, LaneReport, Outlets, Pace, latencies};
use crate::record::Percentiles;
use crate::result::SearchStep;
use crate::scenario::{Search, Shape};

/// Between steps: what the last one left behind in queues should not spoil the next.
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// Where the search stands. Pure.
#[derive(Clone, Debug)]
struct Ladder {
    next: f64,
    best: Option<f64>,
    missed: Option<f64>,
    factor: f64,
    precision: f64,
    /// The rate to be tried next missed once.
    is_doubted: bool,
}

impl Ladder {
    fn new(first: f64, factor: f64, precision: f64) -> Ladder {
        Ladder { next: first, best: None, missed: None, factor, precision, is_doubted: false }
    }

    fn told(&mut self, passed: bool) {
        if !passed && !self.is_doubted {
            self.is_doubted = true;
            return;
        }
        self.is_doubted = false;
        if passed {
            self.best = Some(self.next);
        } else {
            self.missed = Some(self.next);
        }
        self.next = match (self.best, self.missed) {
            (Some(best), None) => best * self.factor,
            (Some(best), Some(missed)) => (best + missed) / 2.0,
            (None, _) => self.next / self.factor,
        };
    }

    fn is_done(&self) -> bool {
        match (self.best, self.missed) {
            (Some(best), Some(missed)) => missed - best <= best * self.precision,
            _ => self.next < 1.0,
        }
    }
}

/// The highest rate that passed.
pub fn best(steps: &[SearchStep]) -> Option<u64> {
    steps.iter().filter(|step| step.passed).map(|step| step.per_s as u64).max()
}

pub(super) fn search(
    rig: &Rig<'_>,
    wanted: &Search,
    outlets: &Outlets,
) -> anyhow::Result<(Vec<LaneReport>, Vec<SearchStep>)> {
    let first = match rig.scenario.arrivals {
        Shape::Constant { per_s, .. } | Shape::Poisson { per_s, .. } => per_s,
        _ => anyhow::bail!("a search begins from a constant rate"),
    };
    let mut ladder = Ladder::new(first, wanted.factor, wanted.precision);
    let (mut lanes, mut steps) = (Vec::new(), Vec::new());
    let mut begin = rig.begin;
    while steps.len() < wanted.steps_max as usize && !ladder.is_done() && !rig.is_stopped() {
        rig.scene.enter(&format!("{:.0}/s", ladder.next));
        let (mut made, step) = step(rig, wanted, ladder.next, begin, lanes.len() as u32, outlets)?;
        ladder.told(step.passed);
        lanes.append(&mut made);
        steps.push(step);
        rig.scene.progress.store(
            steps.len() as u64 * 1_000 / u64::from(wanted.steps_max),
            std::sync::atomic::Ordering::Relaxed,
        );
        settle_down(rig);
        begin = Instant::now() + Duration::from_millis(200);
    }
    Ok((lanes, steps))
}

fn settle_down(rig: &Rig<'_>) {
    let deadline = Instant::now() + PAUSE_MAX;
    while Instant::now() < deadline
        && !rig.is_stopped()
        && rig.watch.latest(|observed| observed.latest()).1 > 0
    {
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn step(
    rig: &Rig<'_>,
    wanted: &Search,
    per_s: f64,
    begin: Instant,
    lane_first: u32,
    outlets: &Outlets,
) -> anyhow::Result<(Vec<LaneReport>, SearchStep)> {
    let arrivals = Arrivals::of_pieces([Piece::Linear { from: per_s, to: per_s, for_s: wanted.step_s }]);
    let seed = rig.scenario.seed.wrapping_add(u64::from(lane_first));
    let pace = Pace::Arrivals { arrivals, spacing: rig.scenario.arrivals.spacing(), seed };
    let plan = rig.plan(pace, begin, lane_first);
    // The step's own latencies are told apart on their way to the log of all.
    let (tell, told) = mpsc::channel::<Interval>();
    let forward = outlets.intervals.clone();
    let own = Outlets { acknowledged: outlets.acknowledged.clone(), intervals: tell };
    let (lanes, total) = std::thread::scope(|scope| {
        let summing = scope.spawn(move || {
            let mut total = latencies();
            for interval in told {
                total
                    .add(&interval.single)
                    .and_then(|()| total.add(&interval.batch))
                    .expect("the same bounds");
                // Whoever records may be gone; the run then fails there.
                let _ = forward.send(interval);
            }
            total
        });
        let lanes = generator::generate(&plan, &own).context("the load");
        drop(own);
        summing.join().map(|total| lanes.map(|lanes| (lanes, total)))
    })
    .map_err(|_| anyhow::anyhow!("a step's sums panicked"))??;
    let mut counts = Counts::default();
    lanes.iter().for_each(|lane| counts.merge(&lane.counts));
    let accept = Percentiles::of(&total);
    let why_not = why_not(rig, wanted, &counts, accept);
    let step = SearchStep {
        per_s,
        accepted_per_s: counts.accepted as f64 / wanted.step_s,
        accept,
        passed: why_not.is_empty(),
        why_not,
    };
    Ok((lanes, step))
}

fn why_not(rig: &Rig<'_>, wanted: &Search, counts: &Counts, accept: Percentiles) -> String {
    let late = counts.late as f64 / counts.calls.max(1) as f64;
    if late > rig.scenario.generator.lag_share_max {
        return format!("the generator was late with {:.1} % of its calls", late * 100.0);
    }
    if counts.unsent + counts.unanswered + counts.refused_total() > 0 {
        return "not everything was accepted".to_owned();
    }
    if accept.p99 as f64 / 1e3 > wanted.accept_p99_ms {
        return format!("p99 {}", crate::words::micros(accept.p99));
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_closes_in() {
        // What the set-up bears, the first step.
        for (capacity, first) in [(1_000.0, 100.0), (100.0, 900.0), (500.0, 500.0)] {
            let mut ladder = Ladder::new(first, 1.5, 0.05);
            let mut steps = 0;
            while !ladder.is_done() {
                // Each third step misses for a reason of its own.
                ladder.told(ladder.next <= capacity && steps % 3 != 1);
                steps += 1;
                assert!(steps < 50, "{ladder:?}");
            }
            let best = ladder.best.unwrap();
            assert!(best <= capacity && best >= capacity * 0.94, "{capacity}: {best}");
        }
        let mut hopeless = Ladder::new(10.0, 2.0, 0.1);
        while !hopeless.is_done() {
            hopeless.told(false);
        }
        assert_eq!(hopeless.best, None);
    }
}
