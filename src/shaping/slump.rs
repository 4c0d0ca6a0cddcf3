//! A fall of the rate at which work is done below what is usual, and how long it is taken to last.
//!
//! What holds: a rate within [`BAND`] of the usual one is the usual one, of which there is then a better mean. What is above it
//! becomes the usual at once: a process that has just begun, or a wallet that is back, is known by what it does. Below it there
//! is a slump, which is taken to last as long again as it has (Gott 1993, "Implications of the Copernican principle for our future
//! prospects": what is met at a random moment of its life is as likely to last longer than that as not). So a fall of a moment
//! counts for a moment, one that goes on comes to be all that is told, and what waits for longer than that is told at the rate
//! after it as well. Past [`USUAL_MS`] it is the usual. Pure: time is passed in. Absent: the measuring ([`super::drain`]).

/// How far below the usual rate a slump begins, and above it another usual one.
const BAND: f64 = 0.15;
/// Time over which what was usual fades to 1/e: half of the time for which it was measured, within these.
const FADE_MS_MIN: f64 = 300.0;
const FADE_MS_MAX: f64 = 6_000.0;
/// What has been for so long is usual.
const USUAL_MS: u64 = 60_000;

#[derive(Clone, Debug, Default)]
pub struct Slump {
    usual_per_s: Option<f64>,
    /// For so long the usual was measured.
    known_ms: u64,
    noted_at_ms: u64,
    since_ms: Option<u64>,
}

/// How fast work is taken to be done from now on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// So fast for so long, and then as usual.
    pub per_s: f64,
    pub lasts_ms: f64,
    pub usual_per_s: f64,
}

impl Outlook {
    pub fn steady(per_s: f64) -> Outlook {
        Outlook { per_s, lasts_ms: 0.0, usual_per_s: per_s }
    }
}

impl Slump {
    /// So fast work is done now.
    pub fn note(&mut self, now_ms: u64, per_s: f64) {
        let elapsed_ms = now_ms.saturating_sub(self.noted_at_ms);
        let usual = match self.usual_per_s {
            Some(usual) if per_s <= usual * (1.0 + BAND) => usual,
            Some(_) | None => return self.begin(now_ms, per_s),
        };
        self.noted_at_ms = now_ms;
        if per_s < usual * (1.0 - BAND) {
            let since_ms = *self.since_ms.get_or_insert(now_ms);
            if now_ms.saturating_sub(since_ms) >= USUAL_MS {
                self.begin(now_ms, per_s);
            }
            return;
        }
        self.since_ms = None;
        self.known_ms += elapsed_ms;
        let fade_ms = (self.known_ms as f64 / 2.0).clamp(FADE_MS_MIN, FADE_MS_MAX);
        let keep = (-(elapsed_ms as f64) / fade_ms).exp();
        self.usual_per_s = Some(usual * keep + per_s * (1.0 - keep));
    }

    fn begin(&mut self, now_ms: u64, per_s: f64) {
        *self = Slump { usual_per_s: Some(per_s), noted_at_ms: now_ms, ..Slump::default() };
    }

    /// It is over, or nothing is measured that would tell.
    pub fn end(&mut self) {
        self.since_ms = None;
    }

    /// What is usual, and since when it is not so, if it is not.
    pub fn outlook(&self, per_s: f64) -> Outlook {
        let usual_per_s = self.usual_per_s.unwrap_or(per_s);
        match self.since_ms {
            Some(since_ms) => {
                let lasts_ms = self.noted_at_ms.saturating_sub(since_ms) as f64;
                Outlook { per_s, lasts_ms, usual_per_s }
            }
            None => Outlook::steady(usual_per_s),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fall_is_taken_to_last_as_long_again_and_a_rise_is_believed() {
        let mut slump = Slump::default();
        assert_eq!(slump.outlook(7.0), Outlook::steady(7.0), "nothing is usual yet");
        // until when, at which rate; from then on: so fast, for how long, and then
        let table = [
            (1_000, 500.0, (500.0, 0, 500.0)),
            (20_000, 1_000.0, (1_000.0, 0, 1_000.0)),
            // Within the band it is one rate.
            (40_000, 900.0, (904.0, 0, 904.0)),
            (42_000, 450.0, (450.0, 2_000, 904.0)),
            // Slower still is the same slump.
            (46_000, 300.0, (300.0, 6_000, 904.0)),
            (48_000, 900.0, (903.0, 0, 903.0)),
            (107_000, 300.0, (300.0, 59_000, 903.0)),
            (108_100, 300.0, (300.0, 0, 300.0)),
            (109_000, 900.0, (900.0, 0, 900.0)),
        ];
        let mut now = 0;
        for (row, (until, per_s, expected)) in table.into_iter().enumerate() {
            while now < until {
                now += 50;
                slump.note(now, per_s);
            }
            let told = slump.outlook(per_s);
            assert!((told.per_s - expected.0).abs() <= 1.0, "row {row}: {told:?}");
            assert!((told.usual_per_s - expected.2).abs() <= 1.0, "row {row}: {told:?}");
            assert!((told.lasts_ms as u64).abs_diff(expected.1) <= 50, "row {row}: {told:?}");
        }
        slump.note(now + 2_000, 100.0);
        slump.note(now + 3_000, 100.0);
        slump.end();
        assert_eq!(slump.outlook(100.0).lasts_ms, 0.0, "the breaker has opened");
    }
}
