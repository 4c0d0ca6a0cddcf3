//! The shapes of arrival that a scenario may ask for, as pieces of a rate.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::arrivals::{Arrivals, Piece};

/// How calls are spaced within the rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spacing {
    #[default]
    Even,
    /// As independent people arrive.
    Poisson,
}

/// Rates in requests a second.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "shape", rename_all = "lowercase", deny_unknown_fields)]
pub enum Shape {
    Constant {
        per_s: f64,
        for_s: f64,
        #[serde(default)]
        spacing: Spacing,
    },
    /// Constant, spaced as independent people arrive.
    Poisson { per_s: f64, for_s: f64 },
    Ramp {
        from_per_s: f64,
        to_per_s: f64,
        for_s: f64,
        #[serde(default)]
        spacing: Spacing,
    },
    Step {
        from_per_s: f64,
        step_per_s: f64,
        steps: u32,
        step_s: f64,
        #[serde(default)]
        spacing: Spacing,
    },
    /// A calm, a sharp rise to the peak, the peak, and a decay back to the calm (time constant `decay_s`).
    Spike {
        base_per_s: f64,
        peak_per_s: f64,
        at_s: f64,
        rise_s: f64,
        hold_s: f64,
        decay_s: f64,
        for_s: f64,
        #[serde(default)]
        spacing: Spacing,
    },
    /// One time a line, in seconds since the first request, in order; lines that begin with # are passed over.
    Replay {
        file: PathBuf,
        #[serde(default = "normal_speed")]
        speed: f64,
    },
}

fn normal_speed() -> f64 {
    1.0
}

impl Shape {
    pub fn spacing(&self) -> Spacing {
        match self {
            Shape::Poisson { .. } => Spacing::Poisson,
            Shape::Replay { .. } => Spacing::Even,
            Shape::Constant { spacing, .. }
            | Shape::Ramp { spacing, .. }
            | Shape::Step { spacing, .. }
            | Shape::Spike { spacing, .. } => *spacing,
        }
    }

    pub fn arrivals(&self) -> Result<Arrivals, String> {
        let flat = |per_s, for_s| Piece::Linear { from: per_s, to: per_s, for_s };
        Ok(match *self {
            Shape::Constant { per_s, for_s, .. } | Shape::Poisson { per_s, for_s } => {
                Arrivals::of_pieces([flat(per_s, for_s)])
            }
            Shape::Ramp { from_per_s, to_per_s, for_s, .. } => {
                Arrivals::of_pieces([Piece::Linear { from: from_per_s, to: to_per_s, for_s }])
            }
            Shape::Step { from_per_s, step_per_s, steps, step_s, .. } => Arrivals::of_pieces(
                (0..steps).map(|step| flat(from_per_s + step_per_s * f64::from(step), step_s)),
            ),
            Shape::Spike { base_per_s, peak_per_s, at_s, rise_s, hold_s, decay_s, for_s, .. } => {
                Arrivals::of_pieces([
                    flat(base_per_s, at_s),
                    Piece::Linear { from: base_per_s, to: peak_per_s, for_s: rise_s },
                    flat(peak_per_s, hold_s),
                    Piece::Decay {
                        from: peak_per_s,
                        floor: base_per_s,
                        tau_s: decay_s,
                        for_s: for_s - at_s - rise_s - hold_s,
                    },
                ])
            }
            Shape::Replay { ref file, speed } => Arrivals::Times(replayed(file, speed)?),
        })
    }

    pub fn scaled(self, factor: f64) -> Shape {
        match self {
            Shape::Constant { per_s, for_s, spacing } => {
                Shape::Constant { per_s: per_s * factor, for_s, spacing }
            }
            Shape::Poisson { per_s, for_s } => Shape::Poisson { per_s: per_s * factor, for_s },
            Shape::Ramp { from_per_s, to_per_s, for_s, spacing } => {
                Shape::Ramp { from_per_s: from_per_s * factor, to_per_s: to_per_s * factor, for_s, spacing }
            }
            Shape::Step { from_per_s, step_per_s, steps, step_s, spacing } => Shape::Step {
                from_per_s: from_per_s * factor,
                step_per_s: step_per_s * factor,
                steps,
                step_s,
                spacing,
            },
            Shape::Spike { base_per_s, peak_per_s, at_s, rise_s, hold_s, decay_s, for_s, spacing } => {
                let (base_per_s, peak_per_s) = (base_per_s * factor, peak_per_s * factor);
                Shape::Spike { base_per_s, peak_per_s, at_s, rise_s, hold_s, decay_s, for_s, spacing }
            }
            // The times are what they are; they can be run through faster.
            Shape::Replay { file, speed } => Shape::Replay { file, speed: speed * factor },
        }
    }

    /// Every number of it, by name.
    pub fn numbers(&self) -> Vec<(&'static str, f64)> {
        match *self {
            Shape::Constant { per_s, for_s, .. } | Shape::Poisson { per_s, for_s } => {
                vec![("per_s", per_s), ("for_s", for_s)]
            }
            Shape::Ramp { from_per_s, to_per_s, for_s, .. } => {
                vec![("from_per_s", from_per_s), ("to_per_s", to_per_s), ("for_s", for_s)]
            }
            Shape::Step { from_per_s, step_per_s, steps, step_s, .. } => {
                vec![
                    ("from_per_s", from_per_s),
                    ("from_per_s and steps", from_per_s + step_per_s * f64::from(steps.saturating_sub(1))),
                    ("steps", f64::from(steps)),
                    ("step_s", step_s),
                ]
            }
            Shape::Spike { base_per_s, peak_per_s, at_s, rise_s, hold_s, decay_s, for_s, .. } => vec![
                ("base_per_s", base_per_s),
                ("peak_per_s", peak_per_s),
                ("at_s", at_s),
                ("rise_s", rise_s),
                ("hold_s", hold_s),
                ("decay_s", decay_s),
                ("for_s", for_s),
                ("for_s less at_s, rise_s and hold_s", for_s - at_s - rise_s - hold_s),
            ],
            Shape::Replay { speed, .. } => vec![("speed", speed)],
        }
    }
}

fn replayed(file: &Path, speed: f64) -> Result<Vec<f64>, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("arrivals.file {} cannot be read: {error}", file.display()))?;
    let mut times: Vec<f64> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = |what: &str| format!("{}:{}: {line:?} {what}", file.display(), index + 1);
        let time: f64 = line.parse().map_err(|_| bad("is not a number of seconds"))?;
        if !(0.0..=1e7).contains(&time) || times.last().is_some_and(|last| time / speed < *last) {
            return Err(bad("is out of order or out of range; times are seconds from 0 on, in order"));
        }
        times.push(time / speed);
    }
    if times.is_empty() { Err(format!("{} lists no times", file.display())) } else { Ok(times) }
}
