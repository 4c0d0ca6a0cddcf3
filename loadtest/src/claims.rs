//! Users who claim red packets at the campaign's own backend (the example `campaign_backend` of hongbao), beside the load.
//!
//! ```text
//! packets made ─> claims when they are due ─> 202: payout and amount ─> all settled at the backend
//!                                                       └─> each looked up at hongbao and the wallet; the campaign's account
//! ```
//!
//! What holds: a claim is made when it is due, whatever the answers do, and its latency counts from then; no definite
//! answer: the same claim again. Now and then a user claims twice, and must be told of the same payout. What the backend
//! promised its users is checked like any other promise: paid once, with that amount, and nothing else from that account.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::arrivals::{Schedule, Stream};
use crate::check::{self, Claim, Sources};
use crate::dice::Dice;
use crate::generator::{self, Fate};
use crate::http::Caller;
use crate::record::Percentiles;
use crate::result::{Check, add};
use crate::scenario::{Claims, Scenario, Spacing};
use crate::traffic::CURRENCY;

/// The campaign that pays the packets, and its budget: all that is in its account, less what it paid.
pub const CAMPAIGN: &str = "red-packets";
pub const BUDGET: u64 = 1_000_000_000_000;
/// Minor units of a packet for each of its shares.
const FAIR_SHARE: u64 = 200;
/// Every so many claims, the user claims again.
const AGAIN_EVERY: usize = 20;
const PAUSE: Duration = Duration::from_millis(50);
const TOLD_MAX: usize = 5;

/// What became of the claims.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Claimed {
    pub claims: u64,
    pub promised: u64,
    pub refused: u64,
    /// No definite answer, to the end.
    pub unanswered: u64,
    /// Claims sent again for want of a definite answer.
    pub retried: u64,
    /// Users who claimed twice, and were told of the same payout.
    pub asked_again: u64,
    pub told_another: u64,
    pub paid: u64,
    /// From the time that a claim was due to its promise.
    pub accept: Percentiles,
    pub told: Vec<String>,
}

#[derive(Deserialize)]
struct Share {
    payout: String,
    amount: u64,
}

/// The claims of a run, due when they are.
pub struct Crowd<'a> {
    backend: SocketAddr,
    run: &'a str,
    settings: &'a Claims,
    due_s: Vec<f64>,
    timeout: Duration,
    persist: Duration,
}

/// How long a claim without a definite answer is made again.
#[derive(Clone, Copy)]
struct Patience<'a> {
    deadline: Instant,
    stop: &'a AtomicBool,
}

impl Patience<'_> {
    fn is_stopped(self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn is_over(self) -> bool {
        Instant::now() >= self.deadline || self.is_stopped()
    }
}

/// One thread's part of the answers.
struct Told {
    counts: Claimed,
    shares: Vec<Share>,
    latencies: Histogram<u64>,
}

impl<'a> Crowd<'a> {
    /// Of a scenario that has claims.
    pub fn new(
        backend: SocketAddr,
        run: &'a str,
        scenario: &'a Scenario,
        settings: &'a Claims,
    ) -> Result<Crowd<'a>, String> {
        let arrivals = scenario.arrivals.clone().scaled(settings.share).arrivals()?;
        let chance = match scenario.arrivals.spacing() {
            Spacing::Poisson => Some(Dice::new(scenario.seed)),
            Spacing::Even => None,
        };
        let whole = Stream { requests_per_call: 1.0, part: 0, parts: 1 };
        let due_s = Schedule::new(&arrivals, whole, chance).collect();
        let timeout = Duration::from_secs_f64(scenario.generator.answer_timeout_s);
        let persist = Duration::from_secs_f64(scenario.generator.persist_s);
        Ok(Crowd { backend, run, settings, due_s, timeout, persist })
    }

    fn caller(&self) -> Caller {
        Caller::new(self.backend, None, self.timeout)
    }

    fn packet(&self, number: usize) -> String {
        format!("{}-{}", self.run, number / self.settings.packet_shares as usize)
    }

    fn user(&self, number: usize) -> String {
        format!("u-{}-{number}", self.run)
    }

    /// Makes the packets that all of them can have a share of.
    pub fn prepare(&self, stop: &Arc<AtomicBool>) -> anyhow::Result<()> {
        let (mut caller, shares) = (self.caller().heeding(stop), self.settings.packet_shares);
        let body = format!(r#"{{"total":{},"count":{shares}}}"#, u64::from(shares) * FAIR_SHARE);
        for first in (0..self.due_s.len()).step_by(shares as usize) {
            caller
                .json("PUT", &format!("/packets/{}", self.packet(first)), &body)
                .context("making a packet")?;
        }
        Ok(())
    }

    /// Claims until all have claimed, and what their users were promised.
    pub fn drive(&self, begin: Instant, stop: &AtomicBool) -> anyhow::Result<(Claimed, Vec<Claim>)> {
        let next = AtomicUsize::new(0);
        let deadline =
            begin + Duration::from_secs_f64(self.due_s.last().copied().unwrap_or(0.0)) + self.persist;
        let patience = Patience { deadline, stop };
        let told = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.settings.connections)
                .map(|_| scope.spawn(|| self.claim_all(&next, begin, patience)))
                .collect();
            threads.into_iter().map(|thread| thread.join()).collect::<Result<Vec<Told>, _>>()
        });
        let told = told.map_err(|_| anyhow::anyhow!("a thread that claims panicked"))?;
        let (mut counts, mut claims, mut latencies) =
            (Claimed::default(), Vec::new(), generator::latencies());
        for mut part in told {
            counts.add(&mut part.counts);
            latencies.add(&part.latencies).context("adding up latencies")?;
            claims.extend(part.shares.into_iter().map(|Share { payout, amount }| Claim {
                id: payout,
                amount,
                fate: Fate::Acknowledged,
                parties: None,
            }));
        }
        counts.accept = Percentiles::of(&latencies);
        Ok((counts, claims))
    }

    fn claim_all(&self, next: &AtomicUsize, begin: Instant, patience: Patience<'_>) -> Told {
        let mut told =
            Told { counts: Claimed::default(), shares: Vec::new(), latencies: generator::latencies() };
        let mut caller = self.caller();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(due_s) = self.due_s.get(number) else {
                return told;
            };
            let due = begin + Duration::from_secs_f64(*due_s);
            while Instant::now() < due && !patience.is_stopped() {
                std::thread::sleep(due.saturating_duration_since(Instant::now()).min(PAUSE));
            }
            if patience.is_stopped() {
                return told;
            }
            told.counts.claims += 1;
            let Some(share) = self.claim(&mut caller, number, patience, &mut told.counts) else { continue };
            // A value past the bounds counts as the largest.
            told.latencies.saturating_record(due.elapsed().as_micros().max(1) as u64);
            told.counts.promised += 1;
            if number.is_multiple_of(AGAIN_EVERY) {
                self.claim_again(&mut caller, number, patience, &share, &mut told.counts);
            }
            told.shares.push(share);
        }
    }

    /// Until the answer is definite, or there is no time left.
    fn claim(
        &self,
        caller: &mut Caller,
        number: usize,
        patience: Patience<'_>,
        counts: &mut Claimed,
    ) -> Option<Share> {
        let path = format!("/packets/{}/claims", self.packet(number));
        let body = format!(r#"{{"user":"{}"}}"#, self.user(number));
        loop {
            match caller.call("POST", &path, body.as_bytes()) {
                Ok(answer) if matches!(answer.status, 200 | 202) => {
                    if let Ok(share) = serde_json::from_slice(&answer.body) {
                        return Some(share);
                    }
                }
                Ok(answer) if (400..500).contains(&answer.status) && !matches!(answer.status, 408 | 429) => {
                    counts.refused += 1;
                    counts.tell(|| format!("{} was refused a share: {}", self.user(number), answer.status));
                    return None;
                }
                // Nothing definite.
                Ok(_) | Err(_) => {}
            }
            if patience.is_over() {
                counts.unanswered += 1;
                return None;
            }
            counts.retried += 1;
            std::thread::sleep(PAUSE);
        }
    }

    fn claim_again(
        &self,
        caller: &mut Caller,
        number: usize,
        patience: Patience<'_>,
        first: &Share,
        counts: &mut Claimed,
    ) {
        let Some(again) = self.claim(caller, number, patience, counts) else { return };
        if (&again.payout, again.amount) == (&first.payout, first.amount) {
            counts.asked_again += 1;
        } else {
            counts.told_another += 1;
            let (user, payout) = (self.user(number), &first.payout);
            counts.tell(|| format!("{user} was promised {payout}, then {}", again.payout));
        }
    }

    /// Waits until the backend knows the end of all it promised; how many are paid by its word.
    pub fn settled(&self, deadline: Instant) -> anyhow::Result<u64> {
        let mut caller = self.caller();
        loop {
            let standing =
                caller.json("GET", "/standing", "").context("asking the backend how claims stand")?;
            let count = |name: &str| standing[name].as_u64().unwrap_or(0);
            if count("CLAIMED") + count("ACCEPTED") == 0 || Instant::now() >= deadline {
                return Ok(count("SUCCEEDED"));
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl Claimed {
    fn tell(&mut self, words: impl FnOnce() -> String) {
        if self.told.len() < TOLD_MAX {
            self.told.push(words());
        }
    }

    fn add(&mut self, part: &mut Claimed) {
        self.claims += part.claims;
        self.promised += part.promised;
        self.refused += part.refused;
        self.unanswered += part.unanswered;
        self.retried += part.retried;
        self.asked_again += part.asked_again;
        self.told_another += part.told_another;
        part.told.drain(..).for_each(|words| self.tell(|| words));
    }
}

/// Looks up what was promised, and adds what is wrong to the check of the run.
pub fn check(
    claimed: &mut Claimed,
    claims: &[Claim],
    mut wallet: Option<Caller>,
    hongbao: Caller,
    client: &str,
    sum: &mut Check,
) -> anyhow::Result<()> {
    let wallet_caller =
        wallet.as_ref().map(|wallet| Caller::new(wallet.address, None, crate::target::CALL_TIMEOUT));
    let sources = Sources { hongbao, wallet: wallet_caller, client, books: None };
    let found = check::check(claims.iter().cloned(), sources, &mut |_| {})?;
    let ids = found.ids.unwrap_or_default();
    let failed = ids.failed + claimed.told_another;
    if failed > 0 {
        sum.told.push(format!("{failed} claims were promised and not paid as promised"));
    }
    add(&mut sum.lost, found.lost.unwrap_or(0) + failed);
    if let Some(sum) = &mut sum.ids {
        sum.pending += ids.pending;
        sum.altered += ids.altered;
        sum.paid_unasked += ids.paid_unasked;
    }
    sum.told.extend(found.told.into_iter().chain(claimed.told.iter().cloned()));
    sum.gaps.extend(found.gaps);
    if claimed.refused + claimed.unanswered > 0 {
        let (refused, unanswered) = (claimed.refused, claimed.unanswered);
        sum.gaps.push(format!("{refused} claims were refused, {unanswered} never had a definite answer"));
    } else if let Some(wallet) = &mut wallet {
        account(wallet, client, (ids.amount_paid, ids.amount_open), sum)?;
    }
    let paid_by_its_word =
        if claimed.paid == claimed.promised { "all".to_owned() } else { claimed.paid.to_string() };
    if claimed.paid != claimed.promised {
        sum.gaps.push(format!(
            "the backend knows of {} paid claims; it promised {}",
            claimed.paid, claimed.promised
        ));
    }
    sum.evidence.push(format!(
        "{} claims at the campaign's backend, each looked up; by its own word {paid_by_its_word} are paid; {} users who \
         claimed twice were told of the same payout",
        claimed.promised, claimed.asked_again
    ));
    Ok(())
}

/// The campaign paid what was promised, and nothing else.
/// `open`: what may be paid while it is looked at.
fn account(
    wallet: &mut Caller,
    client: &str,
    (paid, open): (u64, u64),
    sum: &mut Check,
) -> anyhow::Result<()> {
    let account = format!("campaign:{client}:{CAMPAIGN}");
    let told = wallet.json("GET", &format!("/balances?account={account}"), "")?;
    let accounts = told["accounts"].as_array().cloned().unwrap_or_default();
    let balance = accounts.iter().find(|balance| balance["currency"] == CURRENCY);
    let (left, expected) = (balance.and_then(|balance| balance["balance"].as_u64()), BUDGET - paid);
    if left.is_none_or(|left| left > expected || left + open < expected) {
        sum.books_balanced = Some(false);
        sum.told.push(format!("{account} has {left:?}; what it promised makes it {expected}"));
    }
    sum.evidence.push(format!("the balance of {account}, against what its users were promised"));
    Ok(())
}
