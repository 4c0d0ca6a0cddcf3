//! Chance that can be repeated: pseudo-random numbers from a seed, a hash of a number, and picks that favour a few.
//!
//! What holds: the same seed gives the same numbers on every machine. Absent: anything fit for secrets.

/// Spreads the bits of a number over all of it (the finaliser of splitmix64, Steele et al. 2014).
pub fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// From 0 (inclusive) to 1 (exclusive), out of a hash.
pub fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

/// A stream of such numbers.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(mix(seed))
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }

    /// An exponentially distributed number with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - unit(self.roll())).ln()
    }
}

/// Picks one of `count`, by a hash.
#[derive(Clone, Debug)]
pub enum Pick {
    Uniform(u32),
    /// Zipf's law: the `k`th has a weight of `1 / k^exponent`; the running sums of the weights, ending with 1.
    Zipf(Vec<f64>),
}

impl Pick {
    pub fn zipf(count: u32, exponent: f64) -> Pick {
        let mut sums: Vec<f64> = Vec::with_capacity(count as usize);
        let mut sum = 0.0;
        for k in 1..=count {
            sum += f64::from(k).powf(-exponent);
            sums.push(sum);
        }
        sums.iter_mut().for_each(|up_to| *up_to /= sum);
        Pick::Zipf(sums)
    }

    pub fn of(&self, hash: u64) -> u32 {
        match self {
            Pick::Uniform(count) => (unit(hash) * f64::from(*count)) as u32,
            Pick::Zipf(sums) => {
                let at = sums.partition_point(|sum| *sum <= unit(hash));
                at.min(sums.len() - 1) as u32
            }
        }
    }

    pub fn count(&self) -> u32 {
        match self {
            Pick::Uniform(count) => *count,
            Pick::Zipf(sums) => sums.len() as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_follow_their_law() {
        let shares = |pick: &Pick| {
            let mut counts = vec![0u32; pick.count() as usize];
            let mut dice = Dice::new(7);
            (0..100_000).for_each(|_| counts[pick.of(dice.roll()) as usize] += 1);
            counts.into_iter().map(|count| f64::from(count) / 100_000.0).collect::<Vec<f64>>()
        };
        let even = shares(&Pick::Uniform(4));
        assert!(even.iter().all(|share| (share - 0.25).abs() < 0.01), "{even:?}");
        // 1 + 1/2 + 1/3 + 1/4 = 25/12.
        let skewed = shares(&Pick::zipf(4, 1.0));
        for (share, weight) in skewed.iter().zip([12.0, 6.0, 4.0, 3.0]) {
            assert!((share - weight / 25.0).abs() < 0.01, "{skewed:?}");
        }
    }

    #[test]
    fn gaps_have_the_mean_and_spread_of_an_exponential() {
        let mut dice = Dice::new(3);
        let gaps: Vec<f64> = (0..100_000).map(|_| dice.exponential()).collect();
        let mean = gaps.iter().sum::<f64>() / 1e5;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / 1e5;
        assert!((mean - 1.0).abs() < 0.02 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
