//! Balances against what the paid ids add up to.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

use serde::Deserialize;

use super::{Books, Sum, Sums, tell};
use crate::http::Caller;
use crate::result::{Check, add};
use crate::traffic::CURRENCY;

/// Accounts in one call; their names go into its path.
const ACCOUNTS_AT_ONCE: usize = 400;

#[derive(Deserialize)]
struct Balances {
    accounts: Vec<Balance>,
    sums: BTreeMap<String, i64>,
}

#[derive(Deserialize)]
struct Balance {
    account: String,
    currency: String,
    balance: i64,
}

/// Every account that the run could touch, at the reference wallet.
pub(super) fn at_wallet(
    wallet: &mut Caller,
    client: &str,
    books: &Books<'_>,
    sums: &Sums,
    check: &mut Check,
) {
    let sum = |sums: &HashMap<u32, Sum>, index| sums.get(&index).copied().unwrap_or_default();
    let payees = (0..books.payees).map(|index| {
        let Sum { paid, open } = sum(&sums.by_payee, index);
        (format!("person:{}", (books.payee)(index)), paid as i64..=(paid + open) as i64)
    });
    let campaigns = (0..books.campaigns).map(|index| {
        let account = format!("campaign:{client}:{}", (books.campaign)(index));
        let (Sum { paid, open }, funded) = (sum(&sums.by_campaign, index), books.funded as i64);
        (account, funded - (paid + open) as i64..=funded - paid as i64)
    });
    let expected: Vec<(String, RangeInclusive<i64>)> = payees.chain(campaigns).collect();
    for chunk in expected.chunks(ACCOUNTS_AT_ONCE) {
        let query: Vec<String> = chunk.iter().map(|(account, _)| format!("account={account}")).collect();
        let told: Result<Balances, _> = wallet.read("GET", &format!("/balances?{}", query.join("&")), "");
        let balances = match told {
            Ok(balances) => balances,
            Err(error) => {
                check.gaps.push(format!("balances could not be read: {error}"));
                return;
            }
        };
        let actual: HashMap<&str, i64> = balances
            .accounts
            .iter()
            .filter(|balance| balance.currency == CURRENCY)
            .map(|balance| (balance.account.as_str(), balance.balance))
            .collect();
        for (account, expected) in chunk {
            compare(account, expected, actual.get(account.as_str()).copied().unwrap_or(0), check);
        }
        if let Some((currency, sum)) = balances.sums.iter().find(|(_, sum)| **sum != 0) {
            check.books_balanced = Some(false);
            tell(check, || format!("all {currency} accounts add up to {sum}, not to 0"));
            return;
        }
    }
    check.double_paid.get_or_insert(0);
    check.short_paid.get_or_insert(0);
    check.books_balanced.get_or_insert(true);
    check.evidence.push(format!(
        "balances of {} payees and {} campaigns, each against its paid ids; all accounts together",
        books.payees, books.campaigns
    ));
}

/// `expected`: one balance, or from what is paid to what else may be paid meanwhile.
fn compare(account: &str, expected: &RangeInclusive<i64>, actual: i64, check: &mut Check) {
    if expected.contains(&actual) {
        return;
    }
    check.books_balanced = Some(false);
    // A campaign with too little has paid too much.
    let is_campaign = account.starts_with("campaign:");
    if (actual > *expected.end()) != is_campaign {
        add(&mut check.double_paid, u64::from(!is_campaign));
    } else {
        add(&mut check.short_paid, u64::from(!is_campaign));
    }
    let (least, most) = (expected.start(), expected.end());
    let expected = if least == most { least.to_string() } else { format!("{least} to {most}") };
    tell(check, || format!("{account} has {actual}; its paid requests make it {expected}"));
}

/// What the campaigns say of themselves, where the money is inside hongbao.
pub(super) fn at_hongbao(hongbao: &mut Caller, books: &Books<'_>, sums: &Sums, check: &mut Check) {
    for index in 0..books.campaigns {
        let name = (books.campaign)(index);
        let standing = match hongbao.json("GET", &format!("/v1/campaigns/{name}"), "") {
            Ok(standing) => standing,
            Err(error) => {
                check.gaps.push(format!("campaign {name} could not be read: {error}"));
                return;
            }
        };
        let (spent, funded) = (standing["spent"].as_u64(), standing["funded"].as_u64());
        let Sum { paid, open } = sums.by_campaign.get(&index).copied().unwrap_or_default();
        let is_right = spent.is_some_and(|spent| (paid..=paid + open).contains(&spent));
        if !is_right || funded != Some(books.funded) {
            check.books_balanced = Some(false);
            tell(check, || {
                format!(
                    "campaign {name} spent {spent:?} of {funded:?}; its paid requests add up to {paid}, its open ones to {open}"
                )
            });
        }
    }
    check.books_balanced.get_or_insert(true);
    check.evidence.push(format!("what {} campaigns spent, each against its paid ids", books.campaigns));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balances_that_differ_are_told_by_who_has_too_much() {
        // Account, expected from and to, actual: paid too much, too little, whether the books balance.
        let table = [
            ("person:a", 100..=100, 100, (0, 0, true)),
            ("person:a", 100..=100, 150, (1, 0, false)),
            ("person:a", 0..=0, 150, (1, 0, false)),
            ("person:a", 100..=100, 0, (0, 1, false)),
            ("campaign:default:x", 900..=900, 900, (0, 0, true)),
            ("campaign:default:x", 900..=900, 800, (0, 0, false)),
            ("campaign:default:x", 900..=900, 950, (0, 0, false)),
            // One of 50 is still open.
            ("person:a", 100..=150, 150, (0, 0, true)),
            ("person:a", 100..=150, 151, (1, 0, false)),
            ("campaign:default:x", 850..=900, 850, (0, 0, true)),
            ("campaign:default:x", 850..=900, 849, (0, 0, false)),
        ];
        for (account, expected, actual, found) in table {
            let (count, books_balanced) = (Some(0), Some(true));
            let mut check =
                Check { double_paid: count, short_paid: count, books_balanced, ..Check::default() };
            compare(account, &expected, actual, &mut check);
            assert_eq!(
                (check.double_paid, check.short_paid, check.books_balanced),
                (Some(found.0), Some(found.1), Some(found.2)),
                "{account} {actual}"
            );
        }
    }
}
