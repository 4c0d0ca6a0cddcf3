//! Axes: values to places, and the round numbers beside them. Pure.

use crate::words;

/// What a number is, and so how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    PerSecond,
    Count,
    Micros,
    Cores,
    Mebibytes,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Unit::PerSecond => "rate",
            Unit::Count => "count",
            Unit::Micros => "us",
            Unit::Cores => "cores",
            Unit::Mebibytes => "mib",
        }
    }

    pub fn tick(self, value: f64) -> String {
        match self {
            Unit::PerSecond | Unit::Count => words::short(value),
            Unit::Micros if value < 1e3 => format!("{value:.0} \u{b5}s"),
            Unit::Micros if value < 1e6 => format!("{:.0} ms", value / 1e3),
            Unit::Micros => format!("{:.0} s", value / 1e6),
            Unit::Cores => format!("{value:.1}").trim_end_matches(".0").to_owned(),
            Unit::Mebibytes => words::bytes((value * f64::from(1 << 20)) as u64),
        }
    }
}

/// Values to a share of the height.
#[derive(Clone, Copy, Debug)]
pub enum Scale {
    /// From zero.
    Linear(f64),
    /// From and to, as powers of ten.
    Log(f64, f64),
}

impl Scale {
    /// One that holds everything, up to a round number.
    pub fn linear(values: impl Iterator<Item = f64>) -> Scale {
        let top = values.fold(0.0, f64::max);
        let step = round_step(top / 4.0);
        Scale::Linear((top / step).ceil().max(1.0) * step)
    }

    pub fn log(values: impl Iterator<Item = f64>) -> Scale {
        let (low, high) = values
            .filter(|value| *value > 0.0)
            .fold((f64::MAX, 0.0f64), |(low, high), value| (low.min(value), high.max(value)));
        if high == 0.0 {
            return Scale::Log(0.0, 1.0);
        }
        let (from, to) = (low.log10().floor(), high.log10().ceil());
        Scale::Log(from, to.max(from + 1.0))
    }

    pub fn share(self, value: f64) -> f64 {
        match self {
            Scale::Linear(top) => value / top,
            Scale::Log(from, to) => (value.max(1e-9).log10() - from) / (to - from),
        }
        .clamp(0.0, 1.0)
    }

    pub fn ticks(self) -> Vec<f64> {
        match self {
            Scale::Linear(top) => {
                let step = round_step(top / 4.0);
                (0..=(top / step + 1e-9) as u32).map(|n| f64::from(n) * step).collect()
            }
            Scale::Log(from, to) => (from as i32..=to as i32).map(|power| 10f64.powi(power)).collect(),
        }
    }
}

/// 1, 2 or 5 times a power of ten, at least this.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.max(1e-3).log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    factors.into_iter().map(|factor| factor * power).find(|step| *step >= least * 0.999).unwrap_or(power)
}

/// Ticks of a time axis.
pub fn time_ticks(from: f64, to: f64) -> Vec<(f64, String)> {
    const STEPS: [f64; 16] = [
        1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0, 7_200.0,
        14_400.0, 86_400.0,
    ];
    let step = STEPS.into_iter().find(|step| (to - from) / step <= 8.0).unwrap_or(86_400.0);
    let label = |t: f64| {
        if step < 60.0 {
            format!("{t:.0} s")
        } else if step < 3_600.0 {
            format!("{:.0} min", t / 60.0)
        } else {
            format!("{:.0} h", t / 3_600.0)
        }
    };
    let first = (from / step).ceil() as i64;
    let last = (to / step).floor() as i64;
    (first..=last).map(|n| (n as f64 * step, label(n as f64 * step))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers() {
        let linear = |top: f64| match Scale::linear([top].into_iter()) {
            Scale::Linear(top) => top,
            Scale::Log(..) => 0.0,
        };
        for (top, expected) in
            [(0.0, 0.001), (9.0, 10.0), (60_000.0, 60_000.0), (61_000.0, 80_000.0), (1.3, 1.5)]
        {
            assert!((linear(top) - expected).abs() < 1e-9, "{top}: {}", linear(top));
        }
        let ticks = Scale::log([300.0, 45_000.0].into_iter()).ticks();
        assert_eq!(ticks, [100.0, 1_000.0, 10_000.0, 100_000.0]);
        assert!((Scale::Log(2.0, 4.0).share(1_000.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn time_axes() {
        let words = |to| time_ticks(0.0, to).into_iter().map(|(_, words)| words).collect::<Vec<_>>();
        assert_eq!(words(10.0), ["0 s", "2 s", "4 s", "6 s", "8 s", "10 s"]);
        assert_eq!(words(660.0)[1], "2 min");
        assert_eq!(words(36_000.0)[1], "2 h");
    }
}
