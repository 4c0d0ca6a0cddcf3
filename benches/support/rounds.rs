//! Rounds that take turns: every cell once, then every cell again, so that whatever changes on the machine changes
//! for all of them; and the table of what came out.

use std::time::Instant;

use serde_json::{Value, json};

/// One thing that is measured.
pub struct Cell {
    pub name: String,
    pub unit: &'static str,
    pub measure: Box<dyn FnMut() -> f64>,
}

/// What came out of it, a number a round.
pub struct Measured {
    pub name: String,
    pub unit: &'static str,
    pub rounds: Vec<f64>,
}

impl Measured {
    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
    }

    /// The least and the most.
    pub fn spread(&self) -> (f64, f64) {
        let sorted = self.sorted();
        (sorted[0], sorted[sorted.len() - 1])
    }

    pub fn json(&self) -> Value {
        let (min, max) = self.spread();
        json!({"name": self.name, "unit": self.unit, "median": self.median().round(), "min": min.round(),
            "max": max.round(), "rounds": self.rounds.iter().map(|rate| rate.round()).collect::<Vec<_>>()})
    }
}

/// Measures all cells `rounds` times, and says on the error stream where it is.
pub fn take_turns(mut cells: Vec<Cell>, rounds: u64) -> Vec<Measured> {
    let empty = |cell: &Cell| Measured { name: cell.name.clone(), unit: cell.unit, rounds: Vec::new() };
    let mut measured: Vec<Measured> = cells.iter().map(empty).collect();
    let began = Instant::now();
    for round in 1..=rounds {
        for (cell, measured) in cells.iter_mut().zip(&mut measured) {
            let rate = (cell.measure)();
            measured.rounds.push(rate);
            let s = began.elapsed().as_secs();
            eprintln!("{s:>5} s  round {round}/{rounds}  {:<34} {rate:>12.0} {}", cell.name, cell.unit);
        }
    }
    measured
}

pub fn print(measured: &[Measured]) {
    println!("{:<34} {:>12} {:>12} {:>12}  unit", "", "median", "least", "most");
    for cell in measured {
        let (min, max) = cell.spread();
        println!("{:<34} {:>12.0} {min:>12.0} {max:>12.0}  {}", cell.name, cell.median(), cell.unit);
    }
}
