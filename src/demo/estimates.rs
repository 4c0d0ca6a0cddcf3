//! How honest the door's estimates were: what it told of when a request will be done, against when it was.
//!
//! The error of one is how far the time told lies from the time it was, as a part of how long it took; what took less than
//! [`TOOK_MS_LEAST`] is measured against that, as nobody plans by less. The estimate of a batch is that of its last
//! request. Pure.

use serde::Serialize;

use super::picture::grouped;
use crate::domain::UnixMs;

const TOOK_MS_LEAST: u64 = 250;

/// Errors of single estimates, in thousandths.
#[derive(Clone, Debug, Default)]
pub struct Errors(Vec<u64>);

/// As it stands in the last line of `--json`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Estimates that were held against what came of them.
    pub count: u64,
    pub error_percent_median: f64,
    pub error_percent_p90: f64,
}

impl Errors {
    pub fn note(&mut self, accepted_at: UnixMs, told_at: UnixMs, settled_at: UnixMs) {
        let took_ms = settled_at.saturating_sub(accepted_at).max(TOOK_MS_LEAST);
        self.0.push(told_at.abs_diff(settled_at) * 1_000 / took_ms);
    }

    /// None: there was nothing to hold them against.
    pub fn report(mut self) -> Option<Report> {
        self.0.sort_unstable();
        let at = |percent: usize| {
            let number = (self.0.len() * percent).div_ceil(100).checked_sub(1)?;
            self.0.get(number).map(|permille| *permille as f64 / 10.0)
        };
        let (error_percent_median, error_percent_p90) = (at(50)?, at(90)?);
        Some(Report { count: self.0.len() as u64, error_percent_median, error_percent_p90 })
    }
}

impl Report {
    /// A line of the summary.
    pub fn words(&self) -> String {
        let Report { count, error_percent_median, error_percent_p90 } = self;
        format!(
            "             when it would be, as told at the door, was off by {error_percent_median:.1} % (median), \
             {error_percent_p90:.1} % (p90) of {}",
            grouped(*count)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_parts_of_the_time_it_took() {
        // accepted, told, settled; the error in thousandths
        let table = [
            (0, 1_000, 1_000, 0),
            (0, 800, 1_000, 200),
            (0, 1_300, 1_000, 300),
            (500, 501, 510, 36),
            (0, 10_000, 1_000, 9_000),
        ];
        let mut all = Errors::default();
        for (accepted, told, settled, expected) in table {
            let mut errors = Errors::default();
            errors.note(accepted, told, settled);
            all.note(accepted, told, settled);
            assert_eq!(errors.0, [expected]);
        }
        let report = all.report().unwrap();
        assert_eq!((report.count, report.error_percent_median, report.error_percent_p90), (5, 20.0, 900.0));
        assert_eq!(Errors::default().report(), None);
    }
}
