//! How honest the door's estimates were: what it told of when a request will be done, against when it was.
//!
//! The error of one is how far the time told lies from the time it was, as a part of how long it took; what took less than
//! [`TOOK_MS_LEAST`] is measured against that, as nobody plans by less. The estimate of a batch is that of its last
//! request. Pure.

use serde::Serialize;

use super::picture::grouped;
use crate::domain::UnixMs;

const TOOK_MS_LEAST: u64 = 250;

/// One estimate, once it is known what came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Error {
    accepted_at: UnixMs,
    settled_at: UnixMs,
    /// In thousandths of the time it took.
    permille: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Errors(Vec<Error>);

/// Of how many estimates, and how far off they were.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Part {
    pub count: u64,
    pub error_percent_median: f64,
    pub error_percent_p90: f64,
}

/// As it stands in the last line of `--json`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Report {
    /// All that were held against what came of them.
    #[serde(flatten)]
    pub all: Part,
    /// Where something went wrong with the wallet: what was in line when it began, of which nobody could know; and the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_line_when_it_began: Option<Part>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub others: Option<Part>,
}

impl Errors {
    pub fn note(&mut self, accepted_at: UnixMs, told_at: UnixMs, settled_at: UnixMs) {
        let took_ms = settled_at.saturating_sub(accepted_at).max(TOOK_MS_LEAST);
        let permille = told_at.abs_diff(settled_at) * 1_000 / took_ms;
        self.0.push(Error { accepted_at, settled_at, permille });
    }

    /// None: there was nothing to hold them against. `began_at`: when something went wrong, if it did.
    pub fn report(&self, began_at: Option<UnixMs>) -> Option<Report> {
        let was_in_line = |error: &Error| {
            began_at.is_some_and(|began_at| error.accepted_at < began_at && began_at < error.settled_at)
        };
        let part = |is_of_it: &dyn Fn(&Error) -> bool| {
            part(self.0.iter().filter(|error| is_of_it(error)).map(|error| error.permille).collect())
        };
        Some(Report {
            all: part(&|_| true)?,
            in_line_when_it_began: part(&was_in_line),
            others: began_at.and_then(|_| part(&|error| !was_in_line(error))),
        })
    }
}

fn part(mut permille: Vec<u64>) -> Option<Part> {
    permille.sort_unstable();
    let at = |percent: usize| {
        let number = (permille.len() * percent).div_ceil(100).checked_sub(1)?;
        permille.get(number).map(|permille| *permille as f64 / 10.0)
    };
    let (error_percent_median, error_percent_p90) = (at(50)?, at(90)?);
    Some(Part { count: permille.len() as u64, error_percent_median, error_percent_p90 })
}

impl Report {
    /// Lines of the summary.
    pub fn words(&self) -> Vec<String> {
        let Part { count, error_percent_median, error_percent_p90 } = self.all;
        let mut lines = vec![format!(
            "             when it would be, as told at the door, was off by {error_percent_median:.1} % (median), \
             {error_percent_p90:.1} % (p90) of {}",
            grouped(count)
        )];
        let told =
            |part: &Part| format!("{:.1} %, {:.1} % of", part.error_percent_median, part.error_percent_p90);
        if let (Some(in_line), Some(others)) = (&self.in_line_when_it_began, &self.others) {
            lines.push(format!(
                "             by {} the {} in line when the wallet's trouble began, by {} the others",
                told(in_line),
                grouped(in_line.count),
                told(others)
            ));
        }
        lines
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
            assert_eq!(errors.0[0].permille, expected);
        }
        let report = all.report(None).unwrap();
        assert_eq!(report.all, Part { count: 5, error_percent_median: 20.0, error_percent_p90: 900.0 });
        assert_eq!((report.in_line_when_it_began, report.others), (None, None));
        assert_eq!(report.words().len(), 1);
        assert_eq!(Errors::default().report(Some(7)), None);

        // Two were in line at 505; of the one that had been settled and the two that came later it says nothing.
        all.note(506, 600, 1_506);
        all.note(100, 400, 500);
        let report = all.report(Some(505)).unwrap();
        let (in_line, others) = (report.in_line_when_it_began.unwrap(), report.others.unwrap());
        assert_eq!((report.all.count, in_line.count, others.count), (7, 5, 2));
        assert_eq!((in_line.error_percent_median, others.error_percent_p90), (20.0, 90.6));
        assert!(report.words()[1].contains("900.0 % of the 5 in line"), "{:?}", report.words());
    }
}
