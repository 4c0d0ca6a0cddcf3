//! What a run leaves behind, as data: `result.json`. The report, `compare` and `merge` read nothing else but the logs.
//!
//! What holds: the format has a version; times are seconds since the run's epoch unless they say otherwise, and the
//! epoch is given as time of day, so that results of several generators can be laid over each other.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::claims::Claimed;
use crate::generator::Counts;
use crate::observe::Process;
use crate::record::{Percentiles, SecondRow};
use crate::scenario::Scenario;
use crate::timeline::Event;

pub const VERSION: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    #[error(
        "{path}, which should hold the result of a run, cannot be read: {error}; give the folder of a run"
    )]
    Read { path: String, error: std::io::Error },
    #[error("the result of the run cannot be written to {path}: {error}")]
    Write { path: String, error: std::io::Error },
    #[error("{path} is not a result of a run: {error}")]
    Json { path: String, error: serde_json::Error },
    #[error("{path} has version {found}; this program reads {VERSION}")]
    Version { path: String, found: u64 },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunResult {
    pub version: u32,
    pub scenario: Scenario,
    /// In every id of the run.
    pub run: String,
    /// Milliseconds since 1970 of the epoch.
    pub epoch_unix_ms: u64,
    /// When the load began and ended, and when nothing was open any more.
    pub load_begin_s: f64,
    pub load_end_s: f64,
    pub drained_s: Option<f64>,
    /// This process made this part of the load.
    pub part: String,
    pub environment: Environment,
    pub counts: Counts,
    pub series: Series,
    pub accept: Percentiles,
    pub accept_curve: Vec<(f64, u64)>,
    pub accept_rows: Vec<SecondRow>,
    pub settle: Percentiles,
    pub settle_curve: Vec<(f64, u64)>,
    pub settle_rows: Vec<SecondRow>,
    pub settle_sampled: u64,
    /// Time between the look that saw a request final and the one before.
    pub settle_resolution: Percentiles,
    pub wallet_peak_per_s: Option<u64>,
    /// Processor time of the generator, as a share of one core over the load.
    pub generator_cores: f64,
    pub events: Vec<Event>,
    pub states: Vec<StateSpan>,
    pub processes: Vec<Process>,
    pub search: Vec<SearchStep>,
    /// Users at the campaign's own backend, where the scenario has any.
    #[serde(default)]
    pub claims: Option<Claimed>,
    pub check: Check,
    pub objectives: Vec<Objective>,
    pub verdict: Verdict,
    pub summary: Summary,
}

/// Rates over time, requests a second; each series has a value per step, or none where nothing was seen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Series {
    pub step_s: f64,
    pub offered: Vec<f64>,
    pub accepted: Vec<f64>,
    pub refused: Vec<f64>,
    pub retried: Vec<f64>,
    pub settled: Vec<f64>,
    /// Transfers that the reference wallet was sent.
    pub wallet: Vec<f64>,
    /// Accepted and not final, at the end of the step.
    pub backlog: Vec<f64>,
}

/// A state that lasted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StateSpan {
    pub on: String,
    pub from_s: f64,
    pub to_s: f64,
    pub state: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SearchStep {
    pub per_s: f64,
    pub accepted_per_s: f64,
    pub accept: Percentiles,
    pub passed: bool,
    pub why_not: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Environment {
    pub at: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub kernel: String,
    pub cpu: String,
    /// Of the folder that the data is in: device and file system, and p50 and p99 of one 4 KiB write with fdatasync.
    pub disk: String,
    pub fdatasync_us: Percentiles,
    pub durability: String,
    pub hongbao: String,
    pub harness: String,
    /// Whether hongbao was built for speed, as far as can be told.
    pub build: String,
    pub settings: Vec<String>,
    pub target: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Objective {
    pub what: String,
    pub limit: String,
    pub measured: String,
    pub passed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Pass,
    Fail,
    Void,
    /// Money was lost or paid twice, or the books do not balance.
    Loss,
}

impl Outcome {
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Pass => 0,
            Outcome::Fail => 1,
            Outcome::Void => 3,
            Outcome::Loss => 4,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    pub outcome: Outcome,
    /// One line.
    pub headline: String,
    /// What a manager should know, sentence by sentence.
    pub words: Vec<String>,
    /// Everything that speaks against it.
    pub complaints: Vec<String>,
}

/// Who says that each payment was made once; the strongest last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Witness {
    /// Hongbao alone, asked over HTTP.
    #[default]
    Hongbao,
    /// The ledger inside hongbao, read by `hongbao audit`.
    Audit,
    /// The wallet, which shares nothing with hongbao, and was counted by this program.
    Wallet,
}

/// What the check after the load found. What was not looked at is none, never a zero.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Check {
    /// Acknowledged ids, each to be looked up at hongbao.
    pub acknowledged: u64,
    #[serde(flatten)]
    pub ids: Option<Ids>,
    /// Acknowledged, and hongbao does not know them; or paid by its word, and not at the wallet.
    pub lost: Option<u64>,
    /// Accounts that got more than their requests add up to.
    pub double_paid: Option<u64>,
    /// Accounts that got less.
    pub short_paid: Option<u64>,
    pub books_balanced: Option<bool>,
    /// Where payments were counted.
    #[serde(default)]
    pub counted_at: Witness,
    /// What the check rests on.
    pub evidence: Vec<String>,
    /// What nobody asked to be looked at, and so is not proven.
    #[serde(default)]
    pub not_checked: Vec<String>,
    /// The first of what was found wrong.
    pub told: Vec<String>,
    /// Why a part could not be checked; then nothing is proven.
    pub gaps: Vec<String>,
}

/// What became of every id, by looking it up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    pub by_status: BTreeMap<String, u64>,
    /// Acknowledged, and not final in time.
    pub pending: u64,
    /// With another amount than was sent.
    pub altered: u64,
    /// Refused for good, and paid all the same; or not paid by its word, and paid at the wallet.
    pub paid_unasked: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub unknown: u64,
    /// Never answered definitely, and what became of them.
    pub unanswered: u64,
    pub unanswered_paid: u64,
    /// Minor units.
    pub amount_paid: u64,
    /// Of requests that were open when they were looked up.
    #[serde(default)]
    pub amount_open: u64,
}

impl Check {
    /// To count in, once the looking up has begun.
    pub(crate) fn ids_mut(&mut self) -> &mut Ids {
        self.ids.get_or_insert_default()
    }
}

/// Counts more where something was looked at, or found.
pub(crate) fn add(sum: &mut Option<u64>, more: u64) {
    if more > 0 || sum.is_some() {
        *sum = Some(sum.unwrap_or(0) + more);
    }
}

/// Microseconds, as the other summaries of this project tell them.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Micros {
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

impl Micros {
    /// None of none.
    pub fn of(Percentiles { p50, p99, p999, max, count, .. }: Percentiles) -> Option<Micros> {
        (count > 0).then_some(Micros { p50, p99, p999, max })
    }
}

impl Summary {
    /// What the check found.
    pub fn take(&mut self, check: &Check) {
        let of = |count: fn(&Ids) -> u64| check.ids.as_ref().map(count);
        self.succeeded = of(|ids| ids.succeeded);
        self.failed = of(|ids| ids.failed);
        self.unknown = of(|ids| ids.unknown);
        self.pending = of(|ids| ids.pending);
        self.lost = check.lost;
        self.double_paid = check.double_paid;
        self.books_balanced = check.books_balanced;
        self.counted_at = check.counted_at;
        self.not_checked.clone_from(&check.not_checked);
    }
}

/// The last line of `run --json`. What was not measured is null.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    pub submitted: u64,
    pub accepted: u64,
    pub duplicates: u64,
    pub refused: u64,
    pub succeeded: Option<u64>,
    pub failed: Option<u64>,
    pub unknown: Option<u64>,
    pub pending: Option<u64>,
    pub lost: Option<u64>,
    pub double_paid: Option<u64>,
    pub books_balanced: Option<bool>,
    /// Where payments were counted, and what was not checked.
    #[serde(default)]
    pub counted_at: Witness,
    #[serde(default)]
    pub not_checked: Vec<String>,
    pub accept_per_s: u64,
    pub settle_per_s: Option<u64>,
    pub accept_us: Option<Micros>,
    pub settle_us: Option<Micros>,
    pub wallet_peak_per_s: Option<u64>,
    pub durability: String,
    pub verdict: String,
    pub headline: String,
    pub complaints: Vec<String>,
    /// The folder with the report.
    pub out: String,
    /// Of a search: the highest rate that passed.
    pub capacity_per_s: Option<u64>,
}

impl RunResult {
    /// One in which nothing happened yet.
    pub fn blank(scenario: Scenario, run: &str) -> RunResult {
        RunResult {
            version: VERSION,
            scenario,
            run: run.to_owned(),
            epoch_unix_ms: 0,
            load_begin_s: 0.0,
            load_end_s: 0.0,
            drained_s: None,
            part: "1/1".to_owned(),
            environment: Environment::default(),
            counts: Counts::default(),
            series: Series::default(),
            accept: Percentiles::default(),
            accept_curve: Vec::new(),
            accept_rows: Vec::new(),
            settle: Percentiles::default(),
            settle_curve: Vec::new(),
            settle_rows: Vec::new(),
            settle_sampled: 0,
            settle_resolution: Percentiles::default(),
            wallet_peak_per_s: None,
            generator_cores: 0.0,
            events: Vec::new(),
            states: Vec::new(),
            processes: Vec::new(),
            search: Vec::new(),
            claims: None,
            check: Check::default(),
            objectives: Vec::new(),
            verdict: Verdict {
                outcome: Outcome::Void,
                headline: String::new(),
                words: Vec::new(),
                complaints: Vec::new(),
            },
            summary: Summary::default(),
        }
    }

    /// From the folder of a run, or its `result.json`.
    pub fn load(path: &Path) -> Result<RunResult, ResultError> {
        let file = if path.is_dir() { path.join("result.json") } else { path.to_owned() };
        let path = file.display().to_string();
        let text = std::fs::read_to_string(&file)
            .map_err(|error| ResultError::Read { path: path.clone(), error })?;
        let json = |error| ResultError::Json { path: path.clone(), error };
        let value: serde_json::Value = serde_json::from_str(&text).map_err(json)?;
        match value["version"].as_u64() {
            Some(found) if found != u64::from(VERSION) => return Err(ResultError::Version { path, found }),
            _ => {}
        }
        serde_json::from_value(value).map_err(json)
    }

    pub fn save(&self, folder: &Path) -> Result<(), ResultError> {
        let file = folder.join("result.json");
        let text = serde_json::to_string(self).expect("counts, numbers and texts");
        std::fs::write(&file, text)
            .map_err(|error| ResultError::Write { path: file.display().to_string(), error })
    }
}
