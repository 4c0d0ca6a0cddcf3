//! Random numbers for faults: the same for the same seed, so that a failed run can be repeated.
//!
//! SplitMix64 (Steele, Lea, Flood 2014); normal deviates by Box and Muller (1958).

#[derive(Clone, Debug)]
pub struct Dice {
    state: u64,
}

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to, not including, 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Whether something of this rate happens now.
    pub fn happens(&mut self, rate: f64) -> bool {
        // No number is drawn for what is switched off: a fault turned on leaves the others' luck as it was.
        rate > 0.0 && self.unit() < rate
    }

    /// A standard normal deviate.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fair_enough_and_repeatable() {
        let mut dice = Dice::new(7);
        let again = (0..3).map(|_| dice.unit()).collect::<Vec<_>>();
        let mut dice = Dice::new(7);
        assert_eq!((0..3).map(|_| dice.unit()).collect::<Vec<_>>(), again);
        let hits = (0..10_000).filter(|_| dice.happens(0.25)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
        let mean = (0..10_000).map(|_| dice.normal()).sum::<f64>() / 10_000.0;
        assert!(mean.abs() < 0.05, "{mean}");
    }
}
