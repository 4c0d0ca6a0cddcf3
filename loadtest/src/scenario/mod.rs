//! A scenario: what is set up, what is sent at it when, what goes wrong meanwhile, and what must hold. One TOML file.
//!
//! ```text
//! file ─> raw (this mirror of the file, unknown keys refused) ─> check (does it make sense?) ─> Scenario
//! ```
//!
//! What holds: a scenario that was read can be run; nothing is started for one that cannot. Every field has its
//! unit in its name. Absent: starting anything, settings of hongbao itself (they are passed through by `set`).

mod check;
mod shape;
mod unknown;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use shape::{Shape, Spacing};

#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    #[error("scenario {path} cannot be read: {error}")]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("there is no scenario {name:?}; {hint}")]
    NotFound { name: String, hint: String },
    #[error("scenario {name}: {detail}")]
    Invalid { name: String, detail: String },
}

/// Those that come with the program.
pub const SHIPPED: [(&str, &str); 7] = [
    ("smoke", include_str!("../../scenarios/smoke.toml")),
    ("steady", include_str!("../../scenarios/steady.toml")),
    ("spring-gala", include_str!("../../scenarios/spring-gala.toml")),
    ("brownout", include_str!("../../scenarios/brownout.toml")),
    ("fleet-failover", include_str!("../../scenarios/fleet-failover.toml")),
    ("soak", include_str!("../../scenarios/soak.toml")),
    ("capacity", include_str!("../../scenarios/capacity.toml")),
];

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The file's name without its ending, if it gives none.
    #[serde(default)]
    pub name: String,
    /// In words, for the report.
    pub about: String,
    #[serde(default = "one")]
    pub seed: u64,
    #[serde(default)]
    pub setup: Setup,
    /// How requests come in over time.
    pub arrivals: Shape,
    /// What they are.
    #[serde(default)]
    pub load: Load,
    /// Users at the campaign's own backend, beside the load; only where the set-up is started here.
    pub claims: Option<Claims>,
    #[serde(default)]
    pub wallet: Wallet,
    #[serde(default, rename = "fault")]
    pub faults: Vec<Fault>,
    #[serde(default)]
    pub objectives: Objectives,
    #[serde(default)]
    pub generator: Generator,
    #[serde(default)]
    pub follow: Follow,
    /// Search for the highest rate instead of one run: `arrivals` gives the first step.
    pub search: Option<Search>,
}

fn one() -> u64 {
    1
}

/// What a self-started set-up consists of.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Setup {
    pub instances: u32,
    pub intake: IntakeKind,
    pub wallet: WalletKind,
    /// Settings of hongbao, `section.key=value`.
    pub set: Vec<String>,
    /// The pace that hongbao keeps towards the wallet (`shaping.transfers_per_s`).
    pub pace_per_s: u64,
    /// How long everything may take to become final once the last request is in.
    pub settle_within_s: f64,
    /// Of the Redis server that is started for `intake = "redis"`.
    pub redis_appendfsync: String,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            instances: 1,
            intake: IntakeKind::Embedded,
            wallet: WalletKind::Reference,
            set: Vec::new(),
            pace_per_s: 20_000,
            settle_within_s: 60.0,
            redis_appendfsync: "always".to_owned(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntakeKind {
    #[default]
    Embedded,
    /// Lists in a Redis server that is started; instances share them.
    Redis,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WalletKind {
    /// `hongbao wallet` in a process of its own.
    #[default]
    Reference,
    /// The ledger inside hongbao.
    Embedded,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Load {
    /// HTTP calls, or elements pushed to the list `hongbao:intake`.
    pub door: Door,
    /// Share of the requests that come in batches.
    pub batch_share: f64,
    pub batch_size: u32,
    /// Bytes of free text (`remark`) in each request.
    pub remark_bytes: u32,
    pub campaigns: u32,
    pub campaign_pick: Law,
    pub payees: u32,
    pub payee_pick: Law,
    pub zipf_exponent: f64,
    /// Amounts are from 1 to this, in minor units.
    pub amount_max: u32,
    /// Share of requests that repeat one that was acknowledged, word for word.
    pub duplicates: f64,
    /// Share of requests under the id of one that was acknowledged, with another amount: must be refused.
    pub conflicts: f64,
    /// Share of requests that are not valid: must be refused.
    pub invalid: f64,
}

impl Default for Load {
    fn default() -> Load {
        Load {
            door: Door::Http,
            batch_share: 0.0,
            batch_size: 100,
            remark_bytes: 0,
            campaigns: 4,
            campaign_pick: Law::Uniform,
            payees: 10_000,
            payee_pick: Law::Uniform,
            zipf_exponent: 1.0,
            amount_max: 2_000,
            duplicates: 0.0,
            conflicts: 0.0,
            invalid: 0.0,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Door {
    #[default]
    Http,
    List,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Law {
    #[default]
    Uniform,
    Zipf,
}

/// Claims of red packets over HTTP, by one user each.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Claims {
    /// Of the arrivals, at each moment; these come on top.
    pub share: f64,
    /// Shares of each red packet.
    pub packet_shares: u32,
    pub connections: u32,
}

impl Default for Claims {
    fn default() -> Claims {
        Claims { share: 0.01, packet_shares: 100, connections: 32 }
    }
}

/// The reference wallet's faults, by the names that its `GET /faults` lists.
pub type WalletFaults = BTreeMap<String, toml::Value>;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wallet {
    /// From the start.
    pub faults: WalletFaults,
    /// Later on.
    pub change: Vec<WalletChange>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WalletChange {
    pub at_s: f64,
    pub faults: WalletFaults,
    /// For the report.
    #[serde(default)]
    pub about: String,
}

/// Something that goes wrong at a time.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    pub at_s: f64,
    /// Until it is undone: started again, continued, connected, up.
    pub for_s: f64,
    pub kind: FaultKind,
    /// `instance-0`, `instance-1`, …, `wallet` or `redis`; not for `wallet_down`.
    pub on: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// SIGKILL, then started again on the same data and port.
    Kill,
    /// SIGSTOP, then SIGCONT.
    Freeze,
    /// All connections to it from the other processes are closed, new ones as well.
    Cut,
    /// The wallet takes calls and answers none.
    WalletDown,
}

/// What must hold for the run to pass. Loss, double payment and broken books always fail it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Objectives {
    /// From the intended time until the acknowledgement.
    pub accept_p50_ms: Option<f64>,
    pub accept_p99_ms: Option<f64>,
    pub accept_p999_ms: Option<f64>,
    /// From the acknowledgement until seen final.
    pub settle_p99_s: Option<f64>,
    /// Of the requests that should be accepted.
    pub refused_share_max: Option<f64>,
    /// The most that the wallet was sent in any second.
    pub wallet_peak_per_s: Option<f64>,
    /// From the end of the load until nothing was open.
    pub drained_within_s: Option<f64>,
    /// Requests acknowledged a second, over the load's length.
    pub accept_per_s_min: Option<f64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Generator {
    pub threads: u32,
    /// Over all instances.
    pub connections: u32,
    /// A call that the generator itself released later than this is late …
    pub lag_ms: f64,
    /// … and a run in which a larger share of the calls was late is void.
    pub lag_share_max: f64,
    /// No answer by then: its fate is unknown, and it is sent again.
    pub answer_timeout_s: f64,
    /// How long calls are still retried after the load's end.
    pub persist_s: f64,
    /// Calls that may wait for a connection; past it they are not sent at all, and the run is void.
    pub waiting_max: u32,
}

impl Default for Generator {
    fn default() -> Generator {
        Generator {
            threads: 1,
            connections: 64,
            lag_ms: 50.0,
            lag_share_max: 0.01,
            answer_timeout_s: 10.0,
            persist_s: 30.0,
            waiting_max: 1_000_000,
        }
    }
}

/// How finality is learnt.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Follow {
    /// Time between two rounds of lookups; the resolution of settle latency.
    pub poll_ms: u64,
    /// Of the acknowledged ids, so many a second are followed.
    pub ids_per_s: u32,
    /// So many are followed at a time.
    pub ids_max: u32,
}

impl Default for Follow {
    fn default() -> Follow {
        Follow { poll_ms: 100, ids_per_s: 1_000, ids_max: 20_000 }
    }
}

/// Steps of constant rate, each `step_s` long: up by `factor` until one misses, then halving the gap.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    pub step_s: f64,
    #[serde(default = "factor")]
    pub factor: f64,
    /// A step passes if its p99 from the intended time is at most this, nothing is refused, and the generator keeps up.
    pub accept_p99_ms: f64,
    /// It ends when the gap between the best and the first that missed is below this share.
    #[serde(default = "precision")]
    pub precision: f64,
    pub steps_max: u32,
}

fn factor() -> f64 {
    1.5
}

fn precision() -> f64 {
    0.05
}

impl Scenario {
    /// By the name of a shipped one, or the path of a file.
    pub fn load(name_or_path: &str) -> Result<Scenario, ScenarioError> {
        if let Some((name, text)) = SHIPPED.iter().find(|(name, _)| *name == name_or_path) {
            return Scenario::parse(name, text, Path::new("."));
        }
        let path = Path::new(name_or_path);
        if !path.exists() && path.extension().is_none() && path.components().count() == 1 {
            let names = SHIPPED.iter().map(|(name, _)| *name);
            let hint = match unknown::nearest(name_or_path, names.clone()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("there are {}, or give a file", names.collect::<Vec<_>>().join(", ")),
            };
            return Err(ScenarioError::NotFound { name: name_or_path.to_owned(), hint });
        }
        let unreadable = |error| ScenarioError::Unreadable { path: path.to_owned(), error };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let name = path.file_stem().map_or("scenario".into(), |stem| stem.to_string_lossy().into_owned());
        Scenario::parse(&name, &text, path.parent().unwrap_or(Path::new(".")))
    }

    /// `beside`: where files that it names are looked for.
    pub fn parse(name: &str, text: &str, beside: &Path) -> Result<Scenario, ScenarioError> {
        let invalid = |detail| ScenarioError::Invalid { name: name.to_owned(), detail };
        let mut scenario: Scenario =
            toml::from_str(text).map_err(|error| invalid(unknown::explained(&error.to_string())))?;
        if scenario.name.is_empty() {
            name.clone_into(&mut scenario.name);
        }
        if let Shape::Replay { file, .. } = &mut scenario.arrivals {
            *file = beside.join(&*file);
        }
        check::check(&scenario).map_err(invalid)?;
        Ok(scenario)
    }

    /// All rates of requests and of the wallet by this factor: the same picture on a smaller or larger machine.
    pub fn scaled(mut self, factor: f64) -> Scenario {
        self.arrivals = self.arrivals.scaled(factor);
        if self.setup.pace_per_s > 0 {
            self.setup.pace_per_s = ((self.setup.pace_per_s as f64 * factor) as u64).max(1);
        }
        for faults in std::iter::once(&mut self.wallet.faults)
            .chain(self.wallet.change.iter_mut().map(|c| &mut c.faults))
        {
            if let Some(capacity) = faults.get_mut("capacity_per_s").and_then(scalable) {
                *capacity *= factor;
            }
            let steps = faults.get_mut("capacity_schedule").and_then(toml::Value::as_array_mut);
            for step in steps.into_iter().flatten() {
                if let Some(rate) = step.get_mut("transfers_per_s").and_then(scalable) {
                    *rate *= factor;
                }
            }
        }
        let objectives = &mut self.objectives;
        for rate in
            [&mut objectives.wallet_peak_per_s, &mut objectives.accept_per_s_min].into_iter().flatten()
        {
            *rate *= factor;
        }
        self
    }

    /// What it takes that may not be there, in a word.
    pub fn needs(&self) -> Option<&'static str> {
        (self.setup.intake == IntakeKind::Redis || self.load.door == Door::List).then_some("redis")
    }
}

/// A number of the file as one that can be multiplied.
fn scalable(value: &mut toml::Value) -> Option<&mut f64> {
    if let toml::Value::Integer(number) = value {
        *value = toml::Value::Float(*number as f64);
    }
    match value {
        toml::Value::Float(number) => Some(number),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
