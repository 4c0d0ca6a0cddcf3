//! When each call of the burst is due: a sharp rise, then a decay, as when a campaign opens at midnight.
//!
//! With `x` from 0 to 1 over the burst, the density rises from nothing to its peak in the first tenth and then
//! falls as `exp(-x / 0.8)`, to a third at the end. Calls are placed by the inverse of its integral, so the
//! schedule is fixed before the first is sent and no answer can slow it down (open loop). Pure.

use std::time::Duration;

const RISE: f64 = 0.1;
const FADE: f64 = 0.8;
/// The shortest and longest burst.
const BURST_MS_MIN: u64 = 200;
const BURST_MS: u64 = 5_000;
/// What the door of a small machine takes; longer bursts for more.
const REQUESTS_PER_MS_MAX: u64 = 100;

/// How long the burst of `count` requests lasts: well below the time that settling takes at `wallet_per_s`; with an
/// outage in its middle half of it, so that requests come before, in and after it.
pub fn burst_length(count: u64, wallet_per_s: u64, has_outage: bool) -> Duration {
    let settle_ms = count * 1_000 / wallet_per_s.max(1);
    let (ms, most) = if has_outage { (settle_ms / 2, 2 * BURST_MS) } else { (settle_ms / 4, BURST_MS) };
    let ms = ms.clamp(BURST_MS_MIN, most).max(count / REQUESTS_PER_MS_MAX);
    Duration::from_millis(ms)
}

/// When the request at `share` (0 to 1) of all is due.
pub fn due(share: f64, over: Duration) -> Duration {
    let rise = RISE / 2.0;
    let decay = FADE * (1.0 - (-(1.0 - RISE) / FADE).exp());
    let area = share.clamp(0.0, 1.0) * (rise + decay);
    let x = if area <= rise {
        (2.0 * RISE * area).sqrt()
    } else {
        RISE - FADE * (1.0 - (area - rise) / FADE).ln()
    };
    over.mul_f64(x.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_peaks_and_decays() {
        let over = Duration::from_secs(4);
        assert_eq!(due(0.0, over), Duration::ZERO);
        assert!((over - due(1.0, over)) < Duration::from_millis(1));
        let mut in_tenth = [0u32; 10];
        let mut before = Duration::ZERO;
        for call in 0..10_000 {
            let at = due((f64::from(call) + 0.5) / 10_000.0, over);
            assert!(at >= before, "the schedule never goes back");
            before = at;
            in_tenth[((at.as_millis() / 400) as usize).min(9)] += 1;
        }
        assert_eq!(in_tenth.iter().sum::<u32>(), 10_000);
        assert!(in_tenth[1] > in_tenth[0], "it rises: {in_tenth:?}");
        assert!(in_tenth[1..].windows(2).all(|pair| pair[0] > pair[1]), "it decays: {in_tenth:?}");
        assert!((1_500..1_800).contains(&in_tenth[1]), "1.7 times the average at the peak: {in_tenth:?}");
    }

    #[test]
    fn the_burst_is_shorter_than_settling() {
        let table =
            [(500_000, 27_777, 5_000), (3_000, 2_000, 375), (100, 1_000, 200), (5_000_000, 277_777, 50_000)];
        for (count, wallet_per_s, ms) in table {
            assert_eq!(burst_length(count, wallet_per_s, false), Duration::from_millis(ms), "{count}");
        }
        assert_eq!(burst_length(500_000, 27_777, true), Duration::from_millis(9_000));
    }
}
