//! `hongbao wallet check`: does a wallet keep the promises that hongbao rests on? Asked from outside, over
//! HTTP, of any implementation.
//!
//! A promise is tried with ids and accounts of its own, so that the check can be run again and again on the same
//! wallet, and whether money moved is told by what an account can still pay, for which the contract suffices.
//! Absent: load, and anything that would need the wallet to fail on request.

mod basics;
mod burns;
mod caller;
mod holds;
mod money;
mod run;

use std::fmt;
use std::pin::Pin;

use serde::Serialize;

use self::run::{Broken, Run, Seen};

pub use self::caller::CallerError;

pub struct Options {
    pub url: String,
    pub authorization: Option<String>,
    /// Has money, or may go below zero; a funding account of the check's own if not given.
    pub funding: Option<String>,
    pub currency: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Pass,
    Fail,
    NotOffered,
}

/// What came of trying a promise.
#[derive(Clone, Debug, Serialize)]
pub struct Promise {
    pub name: &'static str,
    /// What hongbao cannot do without.
    pub mandatory: bool,
    pub verdict: Verdict,
    pub seen: String,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Pass => "pass",
            Verdict::Fail => "FAIL",
            Verdict::NotOffered => "not offered",
        };
        write!(f, "{verdict:<11}  {:<20}  {}", self.name, self.seen)
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub url: String,
    /// Stands in every id and account of this run.
    pub run: String,
    pub kept: bool,
    pub promises: Vec<Promise>,
}

impl Report {
    /// Nothing failed, and nothing is missing that hongbao needs.
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    pub fn summary(&self) -> String {
        let count = |verdict| self.promises.iter().filter(|promise| promise.verdict == verdict).count();
        let (passed, failed, missing) =
            (count(Verdict::Pass), count(Verdict::Fail), count(Verdict::NotOffered));
        let verdict =
            if self.kept { "hongbao can pay through it" } else { "hongbao must not pay through it" };
        format!("{passed} kept, {failed} broken, {missing} not offered: {verdict} (run {})", self.run)
    }
}

type Trying<'r> = Pin<Box<dyn Future<Output = Seen> + 'r>>;

struct Trial {
    name: &'static str,
    mandatory: bool,
    run: for<'r> fn(&'r Run) -> Trying<'r>,
}

const fn must(name: &'static str, run: for<'r> fn(&'r Run) -> Trying<'r>) -> Trial {
    Trial { name, mandatory: true, run }
}

const fn may(name: &'static str, run: for<'r> fn(&'r Run) -> Trying<'r>) -> Trial {
    Trial { name, mandatory: false, run }
}

/// Every promise, the simple ones first: a later one that fails is often explained by an earlier one.
const TRIALS: [Trial; 23] = [
    must("identity", |run| Box::pin(basics::identity(run))),
    may("authorization", |run| Box::pin(basics::authorization(run))),
    must("transfer", |run| Box::pin(money::transfer(run))),
    must("repeat", |run| Box::pin(money::repeat(run))),
    must("conflict", |run| Box::pin(money::conflict(run))),
    must("order", |run| Box::pin(basics::order(run))),
    must("item_failure", |run| Box::pin(money::item_failure(run))),
    must("duplicate_in_batch", |run| Box::pin(money::duplicate_in_batch(run))),
    must("concurrency", |run| Box::pin(money::concurrency(run))),
    must("low_balance", |run| Box::pin(money::low_balance(run))),
    must("lookup", |run| Box::pin(basics::lookup(run))),
    must("burn_unseen", |run| Box::pin(burns::unseen(run))),
    must("burn_paid", |run| Box::pin(burns::paid(run))),
    must("burn_race", |run| Box::pin(burns::race(run))),
    must("reverse", |run| Box::pin(money::reverse(run))),
    must("deadline", |run| Box::pin(basics::deadline(run))),
    must("unknown_fields", |run| Box::pin(basics::unknown_fields(run))),
    must("malformed", |run| Box::pin(basics::malformed(run))),
    must("entries_1000", |run| Box::pin(basics::entries_1000(run))),
    must("entries_above", |run| Box::pin(basics::entries_above(run))),
    may("hold_post", |run| Box::pin(holds::post(run))),
    may("hold_void", |run| Box::pin(holds::void(run))),
    may("hold_expiry", |run| Box::pin(holds::expiry(run))),
];

/// Tries every promise, one after the other; `show` is told of each as it is known.
pub async fn run(options: &Options, show: &mut dyn FnMut(&Promise)) -> Result<Report, CallerError> {
    let run = Run::new(options)?;
    let mut promises = Vec::with_capacity(TRIALS.len());
    for trial in TRIALS {
        let (verdict, seen) = match (trial.run)(&run).await {
            Ok(seen) => (Verdict::Pass, seen),
            Err(Broken::Promise(seen)) => (Verdict::Fail, seen),
            Err(Broken::NotOffered(seen)) => (Verdict::NotOffered, seen),
        };
        let promise = Promise { name: trial.name, mandatory: trial.mandatory, verdict, seen };
        show(&promise);
        promises.push(promise);
    }
    let kept = promises.iter().all(|promise| match promise.verdict {
        Verdict::Pass => true,
        // What is offered must hold, needed or not.
        Verdict::Fail => false,
        Verdict::NotOffered => !promise.mandatory,
    });
    Ok(Report { url: options.url.clone(), run: run.name, kept, promises })
}
