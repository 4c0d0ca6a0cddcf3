//! What the wallet says at the end: what it carried out, how fast it was asked, and where the money is.
//!
//! What holds: what must have been paid follows from the script and from nothing that an instance said. Absent: the audit, which
//! reads the wallet's folder.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, ensure};
use hyper::StatusCode;
use serde::Deserialize;

use super::super::body::MERCHANT;
use super::super::client::Connection;
use super::super::outage::{Received, received};
use super::super::script::Script;
use crate::gateway::DEFAULT_CLIENT;

const SECOND_MS: u64 = 1_000;

pub struct Proof {
    pub received: Received,
    /// What the wallet's clock is ahead of the run's.
    pub ahead_ms: i64,
    /// Transfers that must have been carried out, once each.
    pub executed_due: u64,
    /// Balances that are not what they must be.
    pub wrong: Vec<String>,
}

#[derive(Deserialize)]
struct Balances {
    accounts: Vec<Account>,
    /// By currency, over every account.
    sums: BTreeMap<String, i64>,
}

#[derive(Deserialize)]
struct Account {
    account: String,
    balance: i64,
}

/// What must be there when all is paid, and how many transfers that takes.
fn due(script: &Script) -> (u64, Vec<(String, i64)>) {
    let mix = script.mix;
    let singles: Vec<u32> = script.singles().take((mix.collections + mix.reversals) as usize).collect();
    let collected = singles.len().saturating_sub(mix.reversals as usize);
    let (taken, reversed) = singles.split_at(collected);
    let taken: u64 = taken.iter().map(|packet| script.amounts[*packet as usize].minor_units()).sum();
    let returned = (0..).zip(reversed).map(|(number, packet)| script.write_reversal(number, *packet).2);
    let campaign = |name: String| format!("campaign:{DEFAULT_CLIENT}:{name}");
    let fundings = 2;
    let executed = u64::from(mix.packets + mix.claims / 2 + fundings) + singles.len() as u64;
    let balances = vec![
        (campaign(script.campaign()), returned.sum::<u64>() as i64),
        (campaign(script.claims_campaign()), 0),
        (format!("merchant:{MERCHANT}"), taken as i64),
    ];
    (executed, balances)
}

impl Proof {
    pub async fn ask(wallet: &mut Connection, since: Instant, script: &Script) -> anyhow::Result<Proof> {
        let (received, ahead_ms) = received(wallet, since).await?;
        let (executed_due, due) = due(script);
        let query: Vec<String> = due.iter().map(|(account, _)| format!("account={account}")).collect();
        let answer = wallet.get(&format!("/balances?{}", query.join("&"))).await?.answer;
        let text = || format!("the wallet's balances: {}", String::from_utf8_lossy(&answer.body));
        ensure!(answer.status == StatusCode::OK, text());
        let Balances { accounts, sums } = serde_json::from_slice(&answer.body).with_context(text)?;
        let found =
            |name: &str| accounts.iter().filter(|at| at.account == name).map(|at| at.balance).sum::<i64>();
        let wrong = due.iter().filter(|(name, balance)| found(name) != *balance);
        let wrong = wrong.map(|(name, balance)| format!("{name} has {}, not {balance}", found(name)));
        let unequal = sums.iter().filter(|(_, sum)| **sum != 0);
        let unequal =
            unequal.map(|(currency, sum)| format!("all accounts in {currency} add up to {sum}, not 0"));
        let wrong = wrong.chain(unequal).collect();
        Ok(Proof { received, ahead_ms, executed_due, wrong })
    }

    /// The most entries in any second, in steps of a tenth.
    pub fn peak_per_s(&self) -> u64 {
        peak_per_s(&self.received)
    }
}

fn peak_per_s(received: &Received) -> u64 {
    let buckets = &received.buckets;
    let second = |first: usize| {
        let end_ms = buckets[first].at_ms + SECOND_MS;
        let within = buckets[first..].iter().take_while(|bucket| bucket.at_ms < end_ms);
        within.map(|bucket| bucket.counts.transfers + bucket.counts.burns).sum()
    };
    (0..buckets.len()).map(second).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::outage::{Bucket, Counts};
    use super::*;

    #[test]
    fn the_peak_is_of_a_second_wherever_it_begins() {
        let bucket = |(at_ms, transfers)| {
            let counts = Counts { transfers, burns: 1, ..Counts::default() };
            Bucket { at_ms, counts }
        };
        let check = |tenths: &[(u64, u64)], expected| {
            let buckets = tenths.iter().copied().map(bucket).collect();
            let received = Received { now_ms: 9_000, bucket_ms: 100, totals: Counts::default(), buckets };
            assert_eq!(peak_per_s(&received), expected, "{tenths:?}");
        };
        check(&[], 0);
        check(&[(300, 10), (1_200, 20)], 32);
        check(&[(300, 10), (1_300, 20)], 21);
        check(&[(0, 5), (700, 10), (1_600, 20), (5_000, 30)], 32);
    }

    #[test]
    fn what_is_due_follows_from_the_script() {
        let script = Script::write(3_000, Duration::from_secs(1), [3; 32], "r".to_owned());
        let (executed, balances) = due(&script);
        // As the demo of one instance counts it.
        assert_eq!(executed, 3_023);
        assert_eq!(balances[1], ("campaign:default:flash-r".to_owned(), 0));
        assert!(balances[0].1 > 0 && balances[2].1 > 0, "{balances:?}");
    }
}
