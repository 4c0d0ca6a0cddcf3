//! One run of the check: names of its own, and the few steps that every promise is tried with.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Options;
use super::caller::{CallFailed, Caller, CallerError};
use crate::domain::Currency;
use crate::stored_value::contract::{Entry, Outcome};

/// Generous: what is tried is the answer, not the speed.
pub const DEADLINE_MS: u64 = 10_000;
/// How often an `unknown` is asked about again.
const ATTEMPTS_MAX: u32 = 20;

/// Why a promise does not hold.
#[derive(Debug)]
pub enum Broken {
    Promise(String),
    NotOffered(String),
}

pub type Seen = Result<String, Broken>;

impl From<CallFailed> for Broken {
    fn from(failed: CallFailed) -> Broken {
        Broken::Promise(failed.shown())
    }
}

/// The promise is broken, and this was seen.
pub fn broken<T>(seen: impl Into<String>) -> Result<T, Broken> {
    Err(Broken::Promise(seen.into()))
}

/// A result in words.
pub fn shown(outcome: &Outcome) -> String {
    match &outcome.code {
        Some(code) => format!("{} {code}", outcome.status),
        None => outcome.status.clone(),
    }
}

/// Insists on a result.
pub fn expect(what: &str, outcome: &Outcome, status: &str, code: Option<&str>) -> Result<(), Broken> {
    if outcome.status == status && (code.is_none() || outcome.code.as_deref() == code) {
        return Ok(());
    }
    let wanted = code.map_or(status.to_owned(), |code| format!("{status} {code}"));
    broken(format!("{what} answered `{}`, not `{wanted}`", shown(outcome)))
}

pub struct Run {
    /// Stands in every id and account.
    pub name: String,
    pub caller: Caller,
    pub currency: String,
    funding: String,
    next: AtomicU64,
}

impl Run {
    pub fn new(options: &Options) -> Result<Run, CallerError> {
        if Currency::parse(&options.currency).is_none() {
            return Err(CallerError::Currency(options.currency.clone()));
        }
        let name = uuid::Uuid::new_v4().simple().to_string();
        Ok(Run {
            caller: Caller::new(&options.url, options.authorization.clone())?,
            currency: options.currency.clone(),
            funding: options.funding.clone().unwrap_or_else(|| format!("funding:check-{name}")),
            name,
            next: AtomicU64::new(1),
        })
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// An id that no wallet has seen.
    pub fn id(&self) -> String {
        format!("check:{}-{}", self.name, self.number())
    }

    /// An account that may not go below zero.
    pub fn account(&self) -> String {
        format!("campaign:check:{}-{}", self.name, self.number())
    }

    pub fn person(&self) -> String {
        format!("person:check-{}-{}", self.name, self.number())
    }

    pub fn transfer(&self, id: &str, debit: &str, credit: &str, amount: u64) -> Entry<'static> {
        Entry {
            id: id.to_owned().into(),
            kind: "transfer".into(),
            debit: debit.to_owned().into(),
            credit: credit.to_owned().into(),
            amount,
            currency: self.currency.clone().into(),
            of: "".into(),
            expires_in_s: None,
            memo: None,
        }
    }

    /// Sends a batch until every entry is decided, as hongbao does: the same ids and bodies again.
    pub async fn settle(&self, entries: &[Entry<'_>]) -> Result<Vec<Outcome>, CallFailed> {
        let mut results = self.caller.transfers(entries, DEADLINE_MS).await?;
        for _ in 0..ATTEMPTS_MAX {
            if results.iter().all(|outcome| outcome.status != "unknown") {
                return Ok(results);
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
            results = self.caller.transfers(entries, DEADLINE_MS).await?;
        }
        Err(CallFailed::Broken(format!("still unknown after {ATTEMPTS_MAX} attempts")))
    }

    pub async fn settle_one(&self, entry: &Entry<'_>) -> Result<Outcome, CallFailed> {
        let mut results = self.settle(std::slice::from_ref(entry)).await?;
        results.pop().ok_or_else(|| CallFailed::Broken("no result".to_owned()))
    }

    pub async fn burn_one(&self, id: &str) -> Result<Outcome, CallFailed> {
        let mut results = self.caller.burn(&[id.to_owned()]).await?;
        results.pop().ok_or_else(|| CallFailed::Broken("no result".to_owned()))
    }

    pub async fn look_up_one(&self, id: &str) -> Result<Outcome, CallFailed> {
        let mut results = self.caller.lookup(&[id.to_owned()]).await?;
        results.pop().ok_or_else(|| CallFailed::Broken("no result".to_owned()))
    }

    /// Puts money into an account.
    pub async fn put(&self, account: &str, amount: u64) -> Result<(), Broken> {
        let entry = self.transfer(&self.id(), &self.funding, account, amount);
        let outcome = self.settle_one(&entry).await?;
        if outcome.code.as_deref() == Some("low_balance") {
            let funding = &self.funding;
            return broken(format!("{funding} has no money; name an account that has with --funding"));
        }
        expect("putting money into an account", &outcome, "succeeded", None)
    }

    /// An account with so much money.
    pub async fn funded(&self, amount: u64) -> Result<String, Broken> {
        let account = self.account();
        self.put(&account, amount).await?;
        Ok(account)
    }

    /// Insists that an account can pay exactly so much: it pays all of it, and then not one more.
    pub async fn expect_left(&self, account: &str, amount: u64) -> Result<(), Broken> {
        if amount > 0 {
            let all = self.transfer(&self.id(), account, &self.person(), amount);
            let outcome = self.settle_one(&all).await?;
            if outcome.status != "succeeded" {
                let seen = shown(&outcome);
                return broken(format!("less than {amount} is left: paying it answered `{seen}`"));
            }
        }
        let more = self.transfer(&self.id(), account, &self.person(), 1);
        let outcome = self.settle_one(&more).await?;
        if outcome.status == "succeeded" {
            return broken(format!("more than {amount} was left: one more could be paid"));
        }
        expect("paying from an empty account", &outcome, "failed", Some("low_balance"))
    }
}
