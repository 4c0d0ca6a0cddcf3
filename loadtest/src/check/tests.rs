//! The comparison as a table: what hongbao says, what the wallet says, what is found.

use super::*;

fn claim(fate: Fate) -> Claim {
    Claim { id: "r-0-1".to_owned(), amount: 50, fate, parties: Some((0, 0)) }
}

fn standing(status: &str) -> Standing {
    let is_final = ["SUCCEEDED", "FAILED", "CANCELED", "EXPIRED"].contains(&status);
    Standing { id: "r-0-1".to_owned(), status: status.to_owned(), r#final: is_final, amount: Some(50) }
}

fn record(status: &str, amount: u64) -> Record {
    Record { id: "default:r-0-1".to_owned(), status: status.to_owned(), amount: Some(amount) }
}

#[test]
fn what_is_found() {
    use Fate::{Acknowledged, Open, Refused};
    // Fate, hongbao's status, the wallet's status and amount: lost, pending, altered, paid unasked.
    type Row = (Fate, Option<&'static str>, Option<(&'static str, u64)>, [u64; 4]);
    let table: [Row; 12] = [
        (Acknowledged, Some("SUCCEEDED"), Some(("succeeded", 50)), [0, 0, 0, 0]),
        (Acknowledged, Some("FAILED"), Some(("failed", 50)), [0, 0, 0, 0]),
        (Acknowledged, None, Some(("not_found", 0)), [1, 0, 0, 0]),
        (Acknowledged, None, Some(("succeeded", 50)), [1, 0, 0, 0]),
        (Acknowledged, Some("SUCCEEDED"), Some(("not_found", 0)), [1, 0, 0, 0]),
        (Acknowledged, Some("SUCCEEDED"), None, [1, 0, 0, 0]),
        (Acknowledged, Some("SUCCEEDED"), Some(("succeeded", 51)), [0, 0, 1, 0]),
        (Acknowledged, Some("QUEUED"), Some(("not_found", 0)), [0, 1, 0, 0]),
        (Acknowledged, Some("FAILED"), Some(("succeeded", 50)), [0, 0, 0, 1]),
        (Refused, None, Some(("succeeded", 50)), [0, 0, 0, 1]),
        (Refused, None, Some(("not_found", 0)), [0, 0, 0, 0]),
        (Open, None, Some(("not_found", 0)), [0, 0, 0, 0]),
    ];
    for (fate, status, told, expected) in table {
        let (mut check, mut sums) = (Check::default(), Sums::default());
        let standing = status.map(standing);
        let record = told.map(|(status, amount)| record(status, amount));
        compare(&claim(fate), standing.as_ref(), Some(record.as_ref()), &mut check, &mut sums);
        let ids = check.ids.unwrap_or_default();
        let found = [check.lost.unwrap_or(0), ids.pending, ids.altered, ids.paid_unasked];
        assert_eq!(found, expected, "{fate:?} {status:?} {told:?}");
    }
}

#[test]
fn without_a_wallet_the_word_of_hongbao_is_taken() {
    let (mut check, mut sums) = (Check::default(), Sums::default());
    compare(&claim(Fate::Acknowledged), Some(&standing("SUCCEEDED")), None, &mut check, &mut sums);
    assert_eq!(
        (check.ids_mut().succeeded, check.lost, sums.by_payee[&0]),
        (1, None, Sum { paid: 50, open: 0 })
    );
}

#[test]
fn what_is_open_may_be_paid_before_the_accounts_are_looked_at() {
    use Fate::{Acknowledged, Open, Refused};
    // Fate, hongbao's status, the wallet's; paid, open.
    let table = [
        (Acknowledged, Some("SUCCEEDED"), "succeeded", (50, 0)),
        (Acknowledged, Some("QUEUED"), "not_found", (0, 50)),
        (Acknowledged, Some("UNKNOWN"), "succeeded", (50, 0)),
        (Acknowledged, Some("FAILED"), "failed", (0, 0)),
        (Open, None, "not_found", (0, 50)),
        (Refused, None, "not_found", (0, 0)),
    ];
    for (fate, status, told, (paid, open)) in table {
        let (mut check, mut sums) = (Check::default(), Sums::default());
        let (standing, record) = (status.map(standing), record(told, 50));
        compare(&claim(fate), standing.as_ref(), Some(Some(&record)), &mut check, &mut sums);
        let sum = Sum { paid, open };
        let found = sums.by_campaign.get(&0).copied().unwrap_or_default();
        let ids = check.ids.unwrap_or_default();
        assert_eq!((found, ids.amount_paid, ids.amount_open), (sum, paid, open), "{fate:?} {status:?}");
    }
}
