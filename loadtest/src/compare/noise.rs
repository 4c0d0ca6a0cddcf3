//! How much of a difference between two runs chance alone makes: a paired block bootstrap over their seconds.
//!
//! ```text
//! both runs, second by second ─> blocks of neighbouring seconds ─> drawn anew, the same blocks of both, many times
//!      └─> the difference                                             └─> the spread of the difference ─> its noise
//! ```
//!
//! What holds: blocks stand for neighbouring seconds because those resemble each other (Carlstein, "The use of subseries
//! values for estimating the variance of a general statistic from a stationary sequence", Ann. Statist. 14, 1986); the
//! same blocks are drawn of both runs, so that the shape of the load, which is in both, drops out. The noise is the
//! spread of the difference (of the ratio, where there is one) over the draws (Efron, "Bootstrap methods: another look at the jackknife", Ann. Statist. 7,
//! 1979), by the quantile of Student's t that chance alone exceeds once in a thousand, for as few blocks as carry
//! the measure. Pure, and the
//! same for the same runs. Absent: what differs from run to run and not within one (another tenant of the machine, a
//! colder cache): for that, the same is run several times.

use crate::dice::Dice;

/// What is drawn as one.
const BLOCK_S: f64 = 3.0;
const BLOCKS_MAX: f64 = 60.0;
/// With fewer even a difference that all of them share may be chance.
pub const BLOCKS_MIN: usize = 10;
const DRAWS: usize = 1_000;

/// A sum and what it is shared out over; a measure is the ratio of both over any stretch of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Part {
    pub sum: f64,
    pub over: f64,
}

impl Part {
    fn add(self, other: Part) -> Part {
        Part { sum: self.sum + other.sum, over: self.over + other.over }
    }

    fn ratio(self) -> Option<f64> {
        (self.over > 0.0).then(|| self.sum / self.over)
    }
}

/// One measure of both runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    pub a: f64,
    pub b: f64,
    /// None: too few seconds to know.
    pub noise: Option<Noise>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    pub is_beyond: bool,
    /// A difference up to this share of A is chance; none where A is nothing.
    pub share: Option<f64>,
}

/// Both runs' parts at the same times since their loads' starts, `step_s` apart; none if one of them has nothing.
pub fn pair(a: &[Part], b: &[Part], step_s: f64) -> Option<Pair> {
    let of = |parts: &[Part]| parts.iter().fold(Part::default(), |sum, part| sum.add(*part)).ratio();
    let (whole_a, whole_b) = (of(a)?, of(b)?);
    let steps = a.len().max(b.len());
    let block_s = BLOCK_S.max(steps as f64 * step_s / BLOCKS_MAX);
    let block = ((block_s / step_s).ceil() as usize).max(1);
    let count = steps / block;
    let noise = (count >= BLOCKS_MIN).then(|| {
        let (a, b) = (blocks(a, block, count), blocks(b, block, count));
        let drawn = draws(&a, &b);
        let freedom = (effective(&a, &b) - 1.0).max(1.0);
        // The draws are spread by what is there, which is less than what it was drawn from.
        let wider = student_once_in_a_thousand(freedom) * ((freedom + 1.0) / freedom).sqrt();
        let within = |values: Vec<f64>| wider * deviation(&values);
        if drawn.iter().all(|(a, b)| *a > 0.0 && *b > 0.0) {
            // What is so many times as much is so at the peak and in the valley.
            let noise = within(drawn.iter().map(|(a, b)| (b / a).ln()).collect());
            let is_beyond = (whole_b / whole_a).ln().abs() > noise;
            return Noise { is_beyond, share: Some(noise.exp() - 1.0) };
        }
        let noise = within(drawn.iter().map(|(a, b)| b - a).collect());
        let share = (whole_a > 0.0).then(|| noise / whole_a);
        Noise { is_beyond: (whole_b - whole_a).abs() > noise, share }
    });
    Some(Pair { a: whole_a, b: whole_b, noise })
}

/// So many blocks; what does not fill another one belongs to the last.
fn blocks(parts: &[Part], block: usize, count: usize) -> Vec<Part> {
    let mut blocks = vec![Part::default(); count];
    for (index, part) in parts.iter().enumerate() {
        let at = (index / block).min(count - 1);
        blocks[at] = blocks[at].add(*part);
    }
    blocks
}

/// Both measures of the same blocks, drawn anew each time.
fn draws(a: &[Part], b: &[Part]) -> Vec<(f64, f64)> {
    let count = a.len();
    let mut dice = Dice::new(count as u64);
    let mut draw = |_| {
        let (mut of_a, mut of_b) = (Part::default(), Part::default());
        for _ in 0..count {
            let at = (dice.roll() % count as u64) as usize;
            (of_a, of_b) = (of_a.add(a[at]), of_b.add(b[at]));
        }
        // A draw in which one of them has nothing says nothing.
        of_a.ratio().zip(of_b.ratio())
    };
    (0..DRAWS).filter_map(&mut draw).collect()
}

/// How many blocks of one weight would tell as much: most of a spike is in a few (Kish, "Survey Sampling", 1965).
fn effective(a: &[Part], b: &[Part]) -> f64 {
    let share = |parts: &[Part]| {
        let whole = parts.iter().map(|part| part.sum).sum::<f64>();
        parts.iter().map(|part| if whole > 0.0 { part.sum / whole } else { 0.0 }).collect::<Vec<f64>>()
    };
    let weights = share(a).into_iter().zip(share(b)).map(|(a, b)| a + b).collect::<Vec<f64>>();
    let squares = weights.iter().map(|weight| weight * weight).sum::<f64>();
    if squares > 0.0 { weights.iter().sum::<f64>().powi(2) / squares } else { 1.0 }
}

fn deviation(values: &[f64]) -> f64 {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt()
}

/// Two-sided quantile of Student's t, from the normal one (Abramowitz and Stegun, 26.7.5).
fn student_once_in_a_thousand(freedom: f64) -> f64 {
    const Z: f64 = 3.290_526_731;
    let power = |n| Z.powi(n);
    let terms = [
        (power(3) + Z) / 4.0,
        (5.0 * power(5) + 16.0 * power(3) + 3.0 * Z) / 96.0,
        (3.0 * power(7) + 19.0 * power(5) + 17.0 * power(3) - 15.0 * Z) / 384.0,
        (79.0 * power(9) + 776.0 * power(7) + 1_482.0 * power(5) - 1_920.0 * power(3) - 945.0 * Z) / 92_160.0,
    ];
    terms.iter().rev().fold(0.0, |sum, term| (sum + term) / freedom) + Z
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn student_is_as_in_the_tables() {
        for (freedom, quantile) in [(7.0, 5.408), (10.0, 4.587), (19.0, 3.883), (60.0, 3.460)] {
            let found = student_once_in_a_thousand(freedom);
            assert!((found - quantile).abs() < 0.02, "{freedom}: {found}, not {quantile}");
        }
    }

    /// A spike, whose shape is in both runs, with noise of which a half stays for the next second.
    fn run(seconds: usize, times: f64, spread: f64, seed: u64) -> Vec<Part> {
        let mut dice = Dice::new(seed);
        let mut drift = 0.0;
        let mut second = |n: usize| {
            drift = 0.5 * drift + (dice.exponential() - 1.0) * spread;
            let base = if n < seconds / 3 { 10_000.0 } else { 500.0 };
            Part { sum: base * times * (1.0 + drift).max(0.01), over: 1.0 }
        };
        (0..seconds).map(&mut second).collect()
    }

    #[test]
    fn chance_is_noise_and_a_change_is_none() {
        for seconds in [30, 60, 600] {
            let beyond = |times: f64, spread: f64| {
                let is_beyond = |seed: &u64| {
                    let (a, b) =
                        (run(seconds, 1.0, spread, *seed), run(seconds, times, spread, seed + 1_000));
                    pair(&a, &b, 1.0).unwrap().noise.unwrap().is_beyond
                };
                (0..100).filter(is_beyond).count()
            };
            for spread in [0.05, 0.3] {
                let found = beyond(1.0, spread);
                assert!(found <= 1, "{found} of 100 of {seconds} s differ by chance of {spread}");
            }
            let is_told = |times: f64| seconds < 60 || beyond(times, 0.05) >= 95;
            assert!(is_told(1.5) && is_told(0.5), "half as much again, or half, {seconds} s");
        }
    }

    #[test]
    fn what_cannot_be_known_is_not_guessed() {
        let short = run(29, 1.0, 0.05, 1);
        assert_eq!(pair(&short, &run(29, 9.0, 0.05, 2), 1.0).unwrap().noise, None, "too few seconds");
        assert_eq!(pair(&short, &[], 1.0), None, "nothing there");
        assert_eq!(pair(&short, &[Part::default(); 30], 1.0), None, "nothing measured");
        // Refusals within one second of a minute are one event.
        let none = vec![Part { sum: 0.0, over: 100.0 }; 60];
        let mut burst = none.clone();
        burst[20].sum = 90.0;
        let found = pair(&none, &burst, 1.0).unwrap();
        assert!(!found.noise.unwrap().is_beyond, "{found:?}");
        let steady = vec![Part { sum: 2.0, over: 100.0 }; 60];
        let found = pair(&none, &steady, 1.0).unwrap();
        assert!(found.noise.unwrap().is_beyond, "{found:?}");
    }
}
