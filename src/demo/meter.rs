//! What was seen over time: counts sampled from the running service, and the rates that follow.
//!
//! Samples are taken about every 100 ms and carry the time at which they were really taken; every rate is
//! counted over that, so a sampler that wakes late makes a curve coarser but not higher. Pure.

use std::time::Duration;

use crate::breaker::Phase;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    pub at: Duration,
    /// Counts since the start.
    pub accepted: u64,
    pub settled: u64,
    /// Asked of the doors, and sent to the wallet with all repeats, where that is looked at.
    pub offered: u64,
    pub sent: u64,
    pub backlog: u64,
    /// The rate at which the backlog drains, as the service measures it.
    pub drain_per_s: u64,
    /// How the breaker stands, where there is one.
    pub breaker: Option<Phase>,
    /// Whether the wallet is browned out, where it will be.
    pub is_brown: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    Offered,
    Accepted,
    Sent,
    Settled,
}

impl Sample {
    fn count(&self, curve: Curve) -> u64 {
        match curve {
            Curve::Offered => self.offered,
            Curve::Accepted => self.accepted,
            Curve::Sent => self.sent,
            Curve::Settled => self.settled,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Meter {
    samples: Vec<Sample>,
}

fn per_s(count: u64, over: Duration) -> u64 {
    let us = over.as_micros().max(1);
    (u128::from(count) * 1_000_000 / us) as u64
}

impl Meter {
    pub fn add(&mut self, sample: Sample) {
        if self.samples.last().is_none_or(|last| sample.at > last.at) {
            self.samples.push(sample);
        }
    }

    pub fn last(&self) -> Sample {
        self.samples.last().copied().unwrap_or_default()
    }

    /// How long the backlog takes at the rate at which it drains.
    pub fn wait(&self) -> Duration {
        let last = self.last();
        Duration::from_millis(last.backlog * 1_000 / last.drain_per_s.max(1))
    }

    /// The count at a time, drawn straight between the samples around it.
    fn count_at(&self, curve: Curve, at: Duration) -> u64 {
        let after = self.samples.partition_point(|sample| sample.at < at);
        let Some(right) = self.samples.get(after) else { return self.last().count(curve) };
        let Some(left) = after.checked_sub(1).map(|index| &self.samples[index]) else {
            return right.count(curve);
        };
        let (span, into) = ((right.at - left.at).as_micros().max(1), (at - left.at).as_micros());
        let rise = right.count(curve).saturating_sub(left.count(curve));
        left.count(curve) + (u128::from(rise) * into / span) as u64
    }

    /// Mean rates of `columns` stretches of `width` each, from the start on; `None` where nothing was seen yet.
    pub fn rates(&self, curve: Curve, columns: usize, width: Duration) -> Vec<Option<u64>> {
        let last = self.last().at;
        let rate = |column: u32| {
            let from = width * column;
            let to = (from + width).min(last);
            // A sliver of a column would show noise.
            (to >= from + width / 3).then(|| {
                per_s(self.count_at(curve, to).saturating_sub(self.count_at(curve, from)), to - from)
            })
        };
        (0..columns as u32).map(rate).collect()
    }

    /// The highest backlog of each column; what is not seen is as it was before.
    pub fn backlogs(&self, columns: usize, width: Duration) -> Vec<Option<u64>> {
        self.by_column(columns, width, |samples| samples.iter().map(|sample| sample.backlog).max())
    }

    /// How the breaker stood in each column: what is rarer stands for all of it.
    pub fn breaker(&self, columns: usize, width: Duration) -> Vec<Option<Phase>> {
        let rarity = |phase: &Phase| match phase {
            Phase::Closed => 0,
            Phase::Ramp { .. } => 1,
            Phase::Open { .. } => 2,
            Phase::HalfOpen => 3,
        };
        self.by_column(columns, width, |samples| {
            samples.iter().filter_map(|sample| sample.breaker).max_by_key(rarity)
        })
    }

    /// Whether the wallet was browned out in each column, at any time of it.
    pub fn brownout(&self, columns: usize, width: Duration) -> Vec<Option<bool>> {
        self.by_column(columns, width, |samples| samples.iter().filter_map(|sample| sample.is_brown).max())
    }

    fn by_column<T: Copy>(
        &self,
        columns: usize,
        width: Duration,
        of: impl Fn(&[Sample]) -> Option<T>,
    ) -> Vec<Option<T>> {
        let index = |at: Duration| self.samples.partition_point(|sample| sample.at < at);
        let mut held = None;
        let column = |column: u32| {
            let from = width * column;
            held = of(&self.samples[index(from)..index(from + width)]).or(held);
            held.filter(|_| from <= self.last().at)
        };
        (0..columns as u32).map(column).collect()
    }

    pub fn backlog_at(&self, at: Duration) -> u64 {
        let after = self.samples.partition_point(|sample| sample.at <= at);
        after.checked_sub(1).map_or(0, |index| self.samples[index].backlog)
    }

    pub fn backlog_max(&self, from: Duration) -> u64 {
        let later = self.samples.iter().filter(|sample| sample.at >= from);
        later.map(|sample| sample.backlog).max().unwrap_or(0)
    }

    /// When the first stretch of `window` begins, not before `from`, whose mean rate is at least `rate`.
    pub fn reaches(&self, curve: Curve, rate: u64, window: Duration, from: Duration) -> Option<Duration> {
        let later = self.samples.iter().map(|sample| sample.at).filter(|at| *at >= from);
        let mut whole = later.take_while(|at| *at + window <= self.last().at);
        whole.find(|at| {
            let risen = self.count_at(curve, *at + window).saturating_sub(self.count_at(curve, *at));
            per_s(risen, window) >= rate
        })
    }

    /// The highest mean rate over any stretch of `window`, at the grain of the samples (100 ms).
    pub fn peak_per_s(&self, curve: Curve, window: Duration) -> u64 {
        let mut peak = 0;
        for from in &self.samples {
            let to = from.at + window;
            if to > self.last().at {
                break;
            }
            peak = peak.max(per_s(self.count_at(curve, to).saturating_sub(from.count(curve)), window));
        }
        // Shorter than a window in all: the mean of it all.
        if peak == 0 { per_s(self.last().count(curve), self.last().at.max(window)) } else { peak }
    }

    /// The mean rate from one time to another.
    pub fn mean_between(&self, curve: Curve, from: Duration, to: Duration) -> u64 {
        per_s(self.count_at(curve, to).saturating_sub(self.count_at(curve, from)), to.saturating_sub(from))
    }

    /// The mean rate from the first to the last change.
    pub fn mean_per_s(&self, curve: Curve) -> u64 {
        let total = self.last().count(curve);
        let first = self.samples.iter().rfind(|sample| sample.count(curve) == 0);
        let last = self.samples.iter().find(|sample| sample.count(curve) == total);
        match (first, last) {
            (Some(first), Some(last)) if last.at > first.at => per_s(total, last.at - first.at),
            _ => per_s(total, self.last().at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Accepts 1,000/s for two seconds, settles 400/s for five; sampled at uneven times.
    fn meter() -> Meter {
        let mut meter = Meter::default();
        let mut at = 0u64;
        while at <= 6_000 {
            meter.add(Sample {
                at: MS * at as u32,
                accepted: at.min(2_000),
                settled: (at * 2 / 5).min(2_000),
                ..Sample::default()
            });
            at += if at.is_multiple_of(300) { 130 } else { 70 };
        }
        meter
    }

    #[test]
    fn rates_do_not_depend_on_when_samples_were_taken() {
        let meter = meter();
        let rates = meter.rates(Curve::Accepted, 8, MS * 500);
        assert_eq!(rates[..3], [Some(1_000); 3]);
        assert_eq!(rates[5..7], [Some(0); 2]);
        let settled = meter.rates(Curve::Settled, 14, MS * 500);
        assert!(settled[..10].iter().flatten().all(|rate| (380..=400).contains(rate)), "{settled:?}");
        assert_eq!(settled[13], None, "nothing was seen there yet");
    }

    #[test]
    fn columns_keep_what_is_rare() {
        let mut meter = Meter::default();
        let open = Phase::Open { until_ms: 1 };
        let seen =
            [(0, Phase::Closed), (90, open), (110, open), (150, Phase::HalfOpen), (410, Phase::Closed)];
        for (backlog, (at, phase)) in (1..).zip(seen) {
            let (at, breaker) = (MS * at, Some(phase));
            meter.add(Sample { at, backlog, breaker, ..Sample::default() });
        }
        let (half, closed) = (Some(Phase::HalfOpen), Some(Phase::Closed));
        assert_eq!(meter.breaker(6, MS * 100), [Some(open), half, half, half, closed, None]);
        assert_eq!(meter.backlogs(6, MS * 100), [Some(2), Some(4), Some(4), Some(4), Some(5), None]);
    }

    #[test]
    fn peaks_and_means() {
        let meter = meter();
        assert_eq!(meter.peak_per_s(Curve::Accepted, MS * 1_000), 1_000);
        let peak = meter.peak_per_s(Curve::Settled, MS * 1_000);
        assert!((395..=402).contains(&peak), "{peak}");
        assert!((950..=1_000).contains(&meter.mean_per_s(Curve::Accepted)));
        assert!((390..=402).contains(&meter.mean_per_s(Curve::Settled)));
        assert_eq!(Meter::default().peak_per_s(Curve::Settled, MS * 1_000), 0);
    }
}
