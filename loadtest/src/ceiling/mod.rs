//! What this machine could do at the most, part by part, and how near hongbao comes to it.
//!
//! ```text
//! rows: disk · memory · queues · a bare HTTP server · Redis · hongbao itself  each measured once in every round
//! ratios: hongbao's HTTP and list paths ÷ the rows above them                 told as median and spread over the rounds
//! ```
//!
//! What holds: rows are taken in interleaved rounds, so that a machine that others share slows all of them alike; the
//! bare server and hongbao are processes of their own, under the same generator. Another row is another entry in
//! `rows`: a name, a unit and a function that measures it once.

pub mod bare;
mod disk;
mod doors;
mod memory;
mod queues;
mod redis;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use crate::words::short;

#[derive(Clone, Debug)]
pub struct Options {
    pub rounds: u32,
    /// Of each measurement.
    pub for_s: f64,
    /// Where files are written; on the disk that is to be measured.
    pub folder: PathBuf,
    pub connections: u32,
    /// Only rows whose name has one of these words; none: all.
    pub only: Vec<String>,
}

impl Options {
    fn length(&self) -> Duration {
        Duration::from_secs_f64(self.for_s)
    }
}

type Measure = Box<dyn Fn(&Options) -> anyhow::Result<f64>>;

/// One thing that is measured.
struct Row {
    name: &'static str,
    unit: &'static str,
    measure: Measure,
}

/// All of them, in the order in which a round takes them.
fn rows() -> Vec<Row> {
    let row = |name, unit, measure: fn(&Options) -> anyhow::Result<f64>| Row {
        name,
        unit,
        measure: Box::new(measure),
    };
    let mut rows = vec![
        row("one fdatasync of 4 KiB, one after the other", "syncs/s", disk::syncs_per_s),
        row("write in sequence, fdatasync at the end", "MB/s", disk::sequential_mb_per_s),
        row("copy in memory", "GB/s", memory::copy_gb_per_s),
        row("crossbeam channel, one to one, 8 bytes", "items/s", queues::channel_per_s),
        row("disruptor ring, one to one, 8 bytes", "items/s", queues::ring_per_s),
        row("bare HTTP, singles", "requests/s", doors::bare_singles),
        row("bare HTTP, singles, JSON parsed", "requests/s", doors::parsed_singles),
        row(HONGBAO_SINGLES, "requests/s", doors::hongbao_singles),
        row(SHAVED_SINGLES, "requests/s", doors::shaved_singles),
        row("bare HTTP, batches of 500", "items/s", doors::bare_batches),
        row("bare HTTP, batches of 500, JSON parsed", "items/s", doors::parsed_batches),
        row(HONGBAO_BATCHES, "items/s", doors::hongbao_batches),
        row(SHAVED_BATCHES, "items/s", doors::shaved_batches),
    ];
    rows.extend(redis::rows());
    rows
}

const HONGBAO_SINGLES: &str = "hongbao HTTP, singles, durable, settling beside";
const HONGBAO_BATCHES: &str = "hongbao HTTP, batches of 500, durable, settling beside";
const SHAVED_SINGLES: &str = "hongbao HTTP, singles, durable, settling at 5,000/s";
const SHAVED_BATCHES: &str = "hongbao HTTP, batches of 500, durable, settling at 5,000/s";

/// What is divided by what.
fn ratios() -> Vec<(&'static str, &'static str)> {
    HTTP_RATIOS.into_iter().chain(redis::ratios()).collect()
}

const HTTP_RATIOS: [(&str, &str); 6] = [
    (HONGBAO_SINGLES, "bare HTTP, singles"),
    (HONGBAO_SINGLES, "bare HTTP, singles, JSON parsed"),
    (HONGBAO_BATCHES, "bare HTTP, batches of 500"),
    (HONGBAO_BATCHES, "bare HTTP, batches of 500, JSON parsed"),
    (SHAVED_SINGLES, "bare HTTP, singles"),
    (SHAVED_BATCHES, "bare HTTP, batches of 500, JSON parsed"),
];

/// Median, least and most over the rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Spread {
    pub name: String,
    pub unit: String,
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    fn of(name: &str, unit: &str, values: &[f64]) -> Spread {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let median = match sorted.len() {
            0 => 0.0,
            n if n % 2 == 1 => sorted[n / 2],
            n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
        };
        Spread {
            name: name.to_owned(),
            unit: unit.to_owned(),
            median,
            least: sorted.first().copied().unwrap_or(0.0),
            most: sorted.last().copied().unwrap_or(0.0),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Ceiling {
    pub rounds: u32,
    pub rows: Vec<Spread>,
    /// Taken round by round, so that what slows a round slows both.
    pub ratios: Vec<Spread>,
    /// Why some of it proves nothing.
    pub void: Vec<String>,
}

/// Measures all rows in so many rounds; `tell` hears of each measurement.
pub fn measure(options: &Options, tell: &mut dyn FnMut(&str)) -> anyhow::Result<Ceiling> {
    std::fs::create_dir_all(&options.folder)
        .with_context(|| format!("making {}", options.folder.display()))?;
    let mut rows = rows();
    let is_wanted = |row: &Row| options.only.iter().any(|word| row.name.contains(word.as_str()));
    rows.retain(|row| options.only.is_empty() || is_wanted(row));
    anyhow::ensure!(!rows.is_empty(), "no row's name has any of {:?}", options.only);
    let mut values: Vec<Vec<f64>> = vec![Vec::new(); rows.len()];
    for round in 1..=options.rounds {
        for (row, values) in rows.iter().zip(&mut values) {
            let value = (row.measure)(options).with_context(|| format!("measuring: {}", row.name))?;
            tell(&format!("round {round}  {:<56} {:>10} {}", row.name, short(value), row.unit));
            values.push(value);
        }
    }
    Ok(summed_up(options.rounds, &rows, &values))
}

fn summed_up(rounds: u32, rows: &[Row], values: &[Vec<f64>]) -> Ceiling {
    let of = |name: &str| rows.iter().position(|row| row.name == name).map(|at| &values[at]);
    let mut found = Ceiling { rounds, rows: Vec::new(), ratios: Vec::new(), void: Vec::new() };
    for (above, below) in ratios() {
        let (Some(above_values), Some(below_values)) = (of(above), of(below)) else { continue };
        let each: Vec<f64> = above_values.iter().zip(below_values).map(|(a, b)| a / b).collect();
        let spread = Spread::of(&format!("{above} \u{f7} {below}"), "", &each);
        found.void.extend(redis::void(above, spread.median));
        found.ratios.push(spread);
    }
    let spreads = rows.iter().zip(values).map(|(row, values)| Spread::of(row.name, row.unit, values));
    found.rows = spreads.collect();
    found
}

impl Ceiling {
    pub fn words(&self) -> String {
        let mut text = format!("\n  {} rounds, interleaved: median (least to most)\n\n", self.rounds);
        for row in &self.rows {
            let spread = format!("({} to {})", short(row.least), short(row.most));
            text.push_str(&format!(
                "  {:<56} {:>10} {:<10} {spread}\n",
                row.name,
                short(row.median),
                row.unit
            ));
        }
        text.push('\n');
        for ratio in &self.ratios {
            text.push_str(&format!(
                "  {:.2} ({:.2} to {:.2})  {}\n",
                ratio.median, ratio.least, ratio.most, ratio.name
            ));
        }
        self.void.iter().for_each(|why| text.push_str(&format!("\n  {why}\n")));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(folder: PathBuf) -> Options {
        Options { rounds: 1, for_s: 0.05, folder, connections: 4, only: Vec::new() }
    }

    #[test]
    fn what_needs_no_server_is_measured() {
        let folder = tempfile::tempdir().unwrap();
        let options = options(folder.path().to_owned());
        for row in rows().iter().filter(|row| !row.name.contains("HTTP") && !row.name.contains("Redis")) {
            let value = (row.measure)(&options).unwrap();
            assert!(value > 1.0, "{}: {value}", row.name);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let rows = rows();
        // A slow second round slows both alike.
        let values: Vec<Vec<f64>> =
            rows.iter()
                .map(|row| {
                    if row.name == HONGBAO_SINGLES { vec![50.0, 5.0, 40.0] } else { vec![100.0, 10.0, 100.0] }
                })
                .collect();
        let ceiling = summed_up(3, &rows, &values);
        let ratio = &ceiling.ratios[0];
        assert_eq!((ratio.median, ratio.least, ratio.most), (0.5, 0.4, 0.5));
        let is_row = |name: &str| rows.iter().any(|row| row.name == name);
        assert!(super::ratios().iter().all(|(above, below)| is_row(above) && is_row(below)));
        assert!(ceiling.void.is_empty(), "{:?}", ceiling.void);
        assert!(ceiling.words().contains("0.50 (0.40 to 0.50)"));
    }

    #[test]
    fn a_client_slower_than_redis_benchmark_voids_what_it_measured() {
        let rows = rows();
        let measured = |share: f64| -> Vec<Vec<f64>> {
            let is_client = |row: &Row| row.name.starts_with("Redis always, RPUSH");
            rows.iter().map(|row| vec![if is_client(row) { share } else { 1.0 }; 3]).collect()
        };
        assert!(summed_up(3, &rows, &measured(0.91)).void.is_empty());
        let void = summed_up(3, &rows, &measured(0.89));
        assert_eq!(void.void.len(), 1, "{:?}", void.void);
        assert!(
            void.words().contains("void: the client reached 0.89 of redis-benchmark with appendfsync always")
        );
    }
}
