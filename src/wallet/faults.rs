//! What can be made wrong with the wallet, as settings: by `--fault NAME=VALUE` at the start, by `PUT /faults`
//! while it runs. All of it is off by default. What follows from a setting is in `line`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::domain::PayoutCode;
use crate::request::fault::nearest;

/// Shares of what is asked for are from 0 to 1; times are counted from the start, or from the `PUT` that last
/// named a time (`pause_s`, `brownouts`, `capacity_schedule`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Transfers (and looked up or burned ids) a second; `null`: as many as the machine can do.
    pub capacity_per_s: Option<f64>,
    /// Capacity that changes where nobody sees it: from `at_s` on, in order of time.
    pub capacity_schedule: Vec<CapacityStep>,
    /// Entries that may wait before work begins to cost more.
    pub collapse_queue: u32,
    /// How much more an entry costs for every further `collapse_queue` entries that wait.
    pub collapse_factor: f64,
    /// Entries that may wait before calls are refused with 503.
    pub queue_max: u32,
    /// Calls in their latency at once; the others queue. `null`: any number.
    pub concurrency: Option<u32>,
    /// Fixed part of the latency of a call.
    pub latency_ms: f64,
    /// On top of it, evenly spread up to this.
    pub jitter_ms: f64,
    /// On top of it, lognormal with this median; 0: none.
    pub latency_p50_ms: f64,
    pub latency_p99_ms: f64,
    /// Calls answered with 500 or 503, nothing done.
    pub error_rate: f64,
    /// Calls that are never answered, nothing done.
    pub timeout_rate: f64,
    /// Calls whose connection is closed, nothing done.
    pub drop_before_rate: f64,
    /// Calls that are carried out, and the connection then closed without a reply.
    pub drop_after_rate: f64,
    /// A batch that names one of these accounts is answered `slow_ms` later, all of it.
    pub slow_accounts: Vec<String>,
    pub slow_ms: u64,
    /// Accounts that may not be paid: `payee_frozen`, recorded.
    pub frozen: Vec<String>,
    /// Account to the code with which paying it is refused.
    pub refusals: BTreeMap<String, String>,
    pub brownouts: Vec<Brownout>,
    /// From now on, nothing is answered for so long; then it goes on.
    pub pause_s: f64,
    /// After a pause or a brownout without any capacity, it comes back over so long.
    pub ramp_s: f64,
    /// Of the random numbers; at run time, setting it begins them anew.
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapacityStep {
    pub at_s: f64,
    pub transfers_per_s: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Brownout {
    pub after_s: f64,
    pub for_s: f64,
    /// What is left of the capacity; 0 is an outage.
    #[serde(default = "whole")]
    pub capacity_factor: f64,
    #[serde(default)]
    pub error_rate: f64,
}

const fn whole() -> f64 {
    1.0
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            capacity_per_s: None,
            capacity_schedule: Vec::new(),
            collapse_queue: 10_000,
            collapse_factor: 1.0,
            queue_max: 200_000,
            concurrency: None,
            latency_ms: 0.0,
            jitter_ms: 0.0,
            latency_p50_ms: 0.0,
            latency_p99_ms: 0.0,
            error_rate: 0.0,
            timeout_rate: 0.0,
            drop_before_rate: 0.0,
            drop_after_rate: 0.0,
            slow_accounts: Vec::new(),
            slow_ms: 0,
            frozen: Vec::new(),
            refusals: BTreeMap::new(),
            brownouts: Vec::new(),
            pause_s: 0.0,
            ramp_s: 0.0,
            seed: 1,
        }
    }
}

/// Fields whose times count from the change that names them.
const TIMED: [&str; 3] = ["pause_s", "brownouts", "capacity_schedule"];

/// Why settings were refused; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fault {field:?}: {detail}")]
pub struct FaultsError {
    pub field: String,
    pub is_unknown: bool,
    pub detail: String,
}

impl Faults {
    /// These settings with the given ones in place of their own, and whether times begin anew.
    pub fn merged(&self, changes: Map<String, Value>) -> Result<(Faults, bool), FaultsError> {
        let Ok(Value::Object(mut all)) = serde_json::to_value(self) else {
            unreachable!("settings are an object with finite numbers")
        };
        let begins_anew = TIMED.iter().any(|name| changes.contains_key(*name));
        if begins_anew && !changes.contains_key("pause_s") {
            // A pause is over once it is over; only a change that names it begins another.
            all.insert("pause_s".to_owned(), Value::from(0));
        }
        for (field, value) in changes {
            if !all.contains_key(&field) {
                let near = nearest(&field, all.keys().map(String::as_str));
                let detail = near
                    .map_or("it does not exist; GET /faults lists what does".to_owned(), |near| {
                        format!("it does not exist; did you mean {near:?}?")
                    });
                return Err(FaultsError { field, is_unknown: true, detail });
            }
            all.insert(field.clone(), value);
            // Read one by one, so that the refusal can name the field.
            let read = Faults::deserialize(Value::Object(all.clone()));
            let checked = read.map_err(|error| error.to_string()).and_then(|faults| faults.check());
            checked.map_err(|detail| FaultsError { field, is_unknown: false, detail })?;
        }
        let faults = Faults::deserialize(Value::Object(all)).expect("read a moment ago");
        faults.check_together()?;
        Ok((faults, begins_anew))
    }

    /// From `NAME=VALUE` arguments; a value is JSON, or else text.
    pub fn from_args(args: &[String]) -> Result<Faults, FaultsError> {
        let mut changes = Map::new();
        for arg in args {
            let Some((name, value)) = arg.split_once('=') else {
                let detail = "write it as NAME=VALUE".to_owned();
                return Err(FaultsError { field: arg.clone(), is_unknown: false, detail });
            };
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
            changes.insert(name.to_owned(), value);
        }
        Ok(Faults::default().merged(changes)?.0)
    }

    fn check(&self) -> Result<(), String> {
        let rates = [self.error_rate, self.timeout_rate, self.drop_before_rate, self.drop_after_rate];
        let of_brownouts = self.brownouts.iter().flat_map(|b| [b.error_rate, b.capacity_factor]);
        if !rates.into_iter().chain(of_brownouts).all(|rate| (0.0..=1.0).contains(&rate)) {
            return Err("a share is from 0 to 1".to_owned());
        }
        let latencies = [self.latency_ms, self.jitter_ms, self.latency_p50_ms, self.latency_p99_ms];
        let times = [self.pause_s, self.ramp_s, self.collapse_factor];
        let of_lists = self.brownouts.iter().flat_map(|b| [b.after_s, b.for_s]);
        let of_lists =
            of_lists.chain(self.capacity_schedule.iter().flat_map(|s| [s.at_s, s.transfers_per_s]));
        if !latencies.into_iter().chain(times).chain(of_lists).all(|n| (0.0..=1e9).contains(&n)) {
            return Err("a time, a rate or a factor is from 0 to 1,000,000,000".to_owned());
        }
        if self.capacity_per_s.is_some_and(|capacity| !(0.001..=1e9).contains(&capacity)) {
            return Err("a capacity is from 0.001 to 1,000,000,000; null for none".to_owned());
        }
        if self.concurrency == Some(0) || self.collapse_queue == 0 {
            return Err("it must be at least 1".to_owned());
        }
        if !self.capacity_schedule.is_sorted_by(|a, b| a.at_s <= b.at_s) {
            return Err("steps stand in order of time".to_owned());
        }
        match self.refusals.iter().find(|(_, code)| PayoutCode::parse(code).is_none()) {
            Some((account, code)) => Err(format!("{code:?} (for {account}) is not a code of the contract")),
            None => Ok(()),
        }
    }

    fn check_together(&self) -> Result<(), FaultsError> {
        let refuse = |field: &str, detail: &str| {
            Err(FaultsError { field: field.to_owned(), is_unknown: false, detail: detail.to_owned() })
        };
        let has_capacity = self.capacity_per_s.is_some() || !self.capacity_schedule.is_empty();
        if !has_capacity && self.brownouts.iter().any(|b| b.capacity_factor < 1.0) {
            return refuse("brownouts", "a share of the capacity needs capacity_per_s as well");
        }
        if self.latency_p99_ms < self.latency_p50_ms {
            return refuse("latency_p99_ms", "it must not be below latency_p50_ms");
        }
        Ok(())
    }

    /// The code with which paying each of these accounts is refused.
    pub fn refused_accounts(&self) -> impl Iterator<Item = (&str, PayoutCode)> {
        let frozen = self.frozen.iter().map(|account| (account.as_str(), PayoutCode::PayeeFrozen));
        let coded = self.refusals.iter();
        frozen.chain(coded.filter_map(|(account, code)| Some((account.as_str(), PayoutCode::parse(code)?))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_replace_what_they_name() {
        let args = |list: &[&str]| {
            Faults::from_args(&list.iter().map(|arg| (*arg).to_owned()).collect::<Vec<String>>())
        };
        let faults = args(&["capacity_per_s=500", "frozen=[\"person:bob\"]", "pause_s=2"]).unwrap();
        assert_eq!(faults.refused_accounts().collect::<Vec<_>>(), [("person:bob", PayoutCode::PayeeFrozen)]);
        let Value::Object(change) = serde_json::json!({"error_rate": 0.5}) else { unreachable!() };
        let (changed, begins_anew) = faults.merged(change).unwrap();
        assert_eq!((changed.capacity_per_s, changed.error_rate, begins_anew), (Some(500.0), 0.5, false));
        assert!(faults.merged(Map::from_iter([("brownouts".to_owned(), Value::Array(vec![]))])).unwrap().1);

        // Argument, what the refusal must say.
        let table = [
            ("capacity=1", "capacity_per_s"),
            ("eror_rate=1", "error_rate"),
            ("error_rate=2", "0 to 1"),
            ("error_rate=x", "error_rate"),
            ("capacity_per_s=0", "0.001"),
            ("concurrency=0", "at least 1"),
            ("refusals={\"a\":\"nope\"}", "nope"),
            ("brownouts=[{\"after_s\":1,\"for_s\":1,\"capacity_factor\":0}]", "capacity_per_s"),
            ("brownouts=[{\"after\":1}]", "after"),
            ("latency_p50_ms=5", "latency_p50_ms"),
            ("pause_s", "NAME=VALUE"),
        ];
        for (arg, says) in table {
            let error = args(&[arg]).unwrap_err().to_string();
            assert!(error.contains(says), "{arg}: {error}");
        }
    }
}
