//! What an instance tells of itself in `GET /metrics`, as far as the demo needs it. Pure.

use std::ops::Add;

use serde::Serialize;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Gauges {
    /// At its door.
    pub accepted: u64,
    /// Final outcomes that it recorded.
    pub succeeded: u64,
    pub failed: u64,
    /// Entries sent to the wallet, repeats included.
    pub sent: u64,
    /// Calls made with a permit while the breaker was half open.
    pub tries: u64,
    #[serde(skip)]
    pub drain_per_s: u64,
    /// What waits in the lists that it owns, and apart from them.
    #[serde(skip)]
    pub waiting: u64,
}

impl Add for Gauges {
    type Output = Gauges;

    fn add(self, other: Gauges) -> Gauges {
        Gauges {
            accepted: self.accepted + other.accepted,
            succeeded: self.succeeded + other.succeeded,
            failed: self.failed + other.failed,
            sent: self.sent + other.sent,
            tries: self.tries + other.tries,
            drain_per_s: self.drain_per_s + other.drain_per_s,
            waiting: self.waiting + other.waiting,
        }
    }
}

impl Gauges {
    pub fn settled(&self) -> u64 {
        self.succeeded + self.failed
    }

    /// Reads the text of an answer.
    pub fn read(text: &str) -> Gauges {
        let sum = |name: &str, label: &str| sum(text, name, label);
        let status = |status: &str| sum("hongbao_outcomes_total", &format!("status=\"{status}\""));
        Gauges {
            accepted: sum("hongbao_accepted_total", ""),
            succeeded: status("SUCCEEDED"),
            failed: status("FAILED") + status("CANCELED") + status("EXPIRED"),
            sent: sum("hongbao_wallet_entries_total", ""),
            tries: sum("hongbao_breaker_probes_total", ""),
            drain_per_s: sum("hongbao_drain_per_second", ""),
            waiting: sum("hongbao_backlog", "") + sum("hongbao_parked", ""),
        }
    }
}

/// Of all lines of a metric that have the label.
fn sum(text: &str, name: &str, label: &str) -> u64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        let is_it = labels.is_empty() || labels.starts_with('{');
        (is_it && labels.contains(label)).then(|| value.parse::<u64>().unwrap_or(0))
    });
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_labels_and_tells_names_apart() {
        let text = "# HELP hongbao_backlog Requests that wait.\n\
                    hongbao_backlog 7\n\
                    hongbao_backlog_elements 900\n\
                    hongbao_parked 3\n\
                    hongbao_accepted_total 11\n\
                    hongbao_outcomes_total{status=\"SUCCEEDED\"} 5\n\
                    hongbao_outcomes_total{status=\"FAILED\"} 2\n\
                    hongbao_outcomes_total{status=\"QUEUED\"} 70\n\
                    hongbao_outcomes_total{status=\"EXPIRED\"} 1\n\
                    hongbao_breaker_probes_total{kind=\"succeeded\"} 6\n\
                    hongbao_breaker_probes_total{kind=\"failed\"} 3\n";
        let read = Gauges::read(text);
        let expected =
            Gauges { accepted: 11, succeeded: 5, failed: 3, tries: 9, waiting: 10, ..Gauges::default() };
        assert_eq!(read, expected);
        assert_eq!((read + read).settled(), 16);
    }
}
