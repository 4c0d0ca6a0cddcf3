//! Promises about burning an id: what makes a cancel and an expiry final.

use super::run::{Run, Seen, broken, expect, shown};
use crate::stored_value::contract::Outcome;

/// Rounds of a first attempt against a burn.
const RACES: u64 = 40;

/// A burn may be told as `burned`, or as the refusal that it leads to.
fn is_burned(outcome: &Outcome) -> bool {
    outcome.status == "burned" || (outcome.status == "failed" && outcome.code.as_deref() == Some("burned"))
}

pub async fn unseen(run: &Run) -> Seen {
    let account = run.funded(50).await?;
    let id = run.id();
    for what in ["a burn of an id never seen", "its repeat"] {
        let outcome = run.burn_one(&id).await?;
        if !is_burned(&outcome) {
            return broken(format!("{what} answered `{}`, not `burned`", shown(&outcome)));
        }
    }
    let late = run.transfer(&id, &account, &run.person(), 50);
    for what in ["a late first attempt", "its repeat"] {
        let outcome = run.settle_one(&late).await?;
        expect(&format!("{what} of a burned id"), &outcome, "failed", Some("burned"))?;
    }
    let on_record = run.look_up_one(&id).await?;
    if !is_burned(&on_record) {
        return broken(format!("a lookup of a burned id answered `{}`", shown(&on_record)));
    }
    run.expect_left(&account, 50).await?;
    Ok("a burned id could not be paid afterwards".to_owned())
}

pub async fn paid(run: &Run) -> Seen {
    let account = run.funded(50).await?;
    let entry = run.transfer(&run.id(), &account, &run.person(), 20);
    expect("the payment", &run.settle_one(&entry).await?, "succeeded", None)?;
    let outcome = run.burn_one(&entry.id).await?;
    expect("a burn of a paid id", &outcome, "succeeded", None)?;
    expect("the payment again", &run.settle_one(&entry).await?, "succeeded", None)?;
    run.expect_left(&account, 30).await?;
    Ok("a burn of a paid id answered succeeded and took nothing back".to_owned())
}

pub async fn race(run: &Run) -> Seen {
    let account = run.funded(RACES).await?;
    let mut paid = 0;
    for round in 0..RACES {
        let entry = run.transfer(&run.id(), &account, &run.person(), 1);
        // Which comes first changes from round to round.
        let (attempt, burn) = if round.is_multiple_of(2) {
            tokio::join!(run.settle_one(&entry), run.burn_one(&entry.id))
        } else {
            let (burn, attempt) = tokio::join!(run.burn_one(&entry.id), run.settle_one(&entry));
            (attempt, burn)
        };
        let (attempt, burn) = (attempt?, burn?);
        let is_paid = attempt.status == "succeeded";
        if !is_paid {
            expect("an attempt that met a burn", &attempt, "failed", Some("burned"))?;
        }
        if is_paid == is_burned(&burn) || (is_paid && burn.status != "succeeded") {
            let (attempt, burn) = (shown(&attempt), shown(&burn));
            return broken(format!("round {round}: the attempt answered `{attempt}`, the burn `{burn}`"));
        }
        let again = run.settle_one(&entry).await?;
        if (again.status == "succeeded") != is_paid {
            let (first, again) = (shown(&attempt), shown(&again));
            return broken(format!("round {round}: the attempt answered `{first}`, its repeat `{again}`"));
        }
        paid += u64::from(is_paid);
    }
    run.expect_left(&account, RACES - paid).await?;
    Ok(format!("{RACES} races: {paid} paid, {} burned, none both or neither", RACES - paid))
}
