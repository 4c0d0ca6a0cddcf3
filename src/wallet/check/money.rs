//! Promises about what is paid: once, to the amount, and never more than there is.

use super::run::{Broken, Run, Seen, broken, expect, shown};
use crate::stored_value::contract::Entry;

/// Calls about one id at the same time.
const CALLS_AT_ONCE: usize = 16;

pub async fn transfer(run: &Run) -> Seen {
    let account = run.funded(100).await?;
    let outcome = run.settle_one(&run.transfer(&run.id(), &account, &run.person(), 60)).await?;
    expect("a transfer that is covered", &outcome, "succeeded", None)?;
    run.expect_left(&account, 40).await?;
    Ok("a transfer succeeded and took its amount from the account".to_owned())
}

pub async fn repeat(run: &Run) -> Seen {
    let account = run.funded(100).await?;
    let entry = run.transfer(&run.id(), &account, &run.person(), 50);
    let first = run.settle_one(&entry).await?;
    expect("the first attempt", &first, "succeeded", None)?;
    for _ in 0..3 {
        let again = run.settle_one(&entry).await?;
        expect("a repeat", &again, "succeeded", None)?;
        if again.wallet_ref != first.wallet_ref {
            let (was, is) = (first.wallet_ref, again.wallet_ref);
            return broken(format!("a repeat has wallet_ref {is:?}, the first attempt had {was:?}"));
        }
    }
    run.expect_left(&account, 50).await?;
    Ok("four attempts of one id all answered succeeded; the money moved once".to_owned())
}

pub async fn conflict(run: &Run) -> Seen {
    let account = run.funded(100).await?;
    let (id, person) = (run.id(), run.person());
    let entry = run.transfer(&id, &account, &person, 50);
    expect("the first attempt", &run.settle_one(&entry).await?, "succeeded", None)?;
    let others = [
        ("another amount", run.transfer(&id, &account, &person, 49)),
        ("another payee", run.transfer(&id, &account, &run.person(), 50)),
        ("another payer", run.transfer(&id, &run.account(), &person, 50)),
    ];
    for (what, other) in others {
        let outcome = run.settle_one(&other).await?;
        expect(&format!("the id with {what}"), &outcome, "failed", Some("id_conflict"))?;
    }
    expect("the first body again", &run.settle_one(&entry).await?, "succeeded", None)?;
    run.expect_left(&account, 50).await?;
    Ok("other money fields under a used id: failed id_conflict; the record stayed".to_owned())
}

pub async fn item_failure(run: &Run) -> Seen {
    let (account, empty) = (run.funded(20).await?, run.account());
    let batch = [
        run.transfer(&run.id(), &account, &run.person(), 10),
        run.transfer(&run.id(), &empty, &run.person(), 10),
        run.transfer(&run.id(), &account, &run.person(), 10),
    ];
    let results = run.settle(&batch).await?;
    expect("the entry before", &results[0], "succeeded", None)?;
    expect("the entry that is not covered", &results[1], "failed", Some("low_balance"))?;
    expect("the entry behind", &results[2], "succeeded", None)?;
    Ok("one of three failed, the other two succeeded".to_owned())
}

pub async fn duplicate_in_batch(run: &Run) -> Seen {
    let account = run.funded(100).await?;
    let entry = run.transfer(&run.id(), &account, &run.person(), 30);
    let other = run.transfer(&entry.id, &account, &run.person(), 31);
    let results = run.settle(&[entry.clone(), entry.clone(), other]).await?;
    expect("the first of an id in a batch", &results[0], "succeeded", None)?;
    expect("the second of the same id and body", &results[1], "succeeded", None)?;
    expect("the third with another body", &results[2], "failed", Some("id_conflict"))?;
    run.expect_left(&account, 70).await?;
    Ok("an id twice in one batch was paid once".to_owned())
}

pub async fn concurrency(run: &Run) -> Seen {
    let account = run.funded(100).await?;
    let entry = run.transfer(&run.id(), &account, &run.person(), 5);
    let calls: Vec<_> = (0..CALLS_AT_ONCE).map(|_| run.settle_one(&entry)).collect();
    for outcome in join_all(calls).await {
        expect("one of many calls at once about one id", &outcome?, "succeeded", None)?;
    }
    run.expect_left(&account, 95).await?;
    Ok(format!("{CALLS_AT_ONCE} calls at once about one id; the money moved once"))
}

pub async fn low_balance(run: &Run) -> Seen {
    let account = run.funded(10).await?;
    let entry = run.transfer(&run.id(), &account, &run.person(), 50);
    for _ in 0..2 {
        expect(
            "an entry that is not covered",
            &run.settle_one(&entry).await?,
            "failed",
            Some("low_balance"),
        )?;
    }
    run.put(&account, 40).await?;
    expect("the same id after funding", &run.settle_one(&entry).await?, "succeeded", None)?;
    run.expect_left(&account, 0).await?;
    Ok("low_balance was not recorded: once there was money, the same id succeeded".to_owned())
}

pub async fn reverse(run: &Run) -> Seen {
    let (account, person) = (run.funded(100).await?, run.person());
    let paid = run.transfer(&run.id(), &account, &person, 60);
    expect("the payment", &run.settle_one(&paid).await?, "succeeded", None)?;
    // The payee has more than what was paid here: only the rule can stop the second reversal.
    run.put(&person, 1_000).await?;
    let back = |amount: u64, of: &Entry<'_>| Entry {
        kind: "reverse".into(),
        of: of.id.clone().into_owned().into(),
        ..run.transfer(&run.id(), &person, &account, amount)
    };
    let first = back(45, &paid);
    for what in ["a reversal of a part", "its repeat"] {
        expect(what, &run.settle_one(&first).await?, "succeeded", None)?;
    }
    let too_much = run.settle_one(&back(16, &paid)).await?;
    if too_much.status == "succeeded" {
        return broken("60 was paid, and 45 and 16 could be taken back");
    }
    expect("the rest", &run.settle_one(&back(15, &paid)).await?, "succeeded", None)?;
    let never_paid = run.transfer(&run.id(), &account, &person, 1);
    let outcome = run.settle_one(&back(1, &never_paid)).await?;
    if outcome.status == "succeeded" {
        return broken("what was never paid could be taken back");
    }
    run.expect_left(&account, 100).await?;
    Ok(format!("60 paid: 45 and 15 came back, 16 did not (`{}`)", shown(&too_much)))
}

/// Polls them together; the contract's promises are about calls that overlap.
pub async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut waiting {
            if output.is_none()
                && let std::task::Poll::Ready(done) = future.as_mut().poll(context)
            {
                *output = Some(done);
            }
        }
        if waiting.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    waiting.into_iter().filter_map(|(_, output)| output).collect()
}

/// Says that a kind is missing where the wallet refuses it, and that it is broken otherwise.
pub fn not_offered(kind: &str, failed: super::caller::CallFailed) -> Broken {
    match &failed {
        super::caller::CallFailed::Refused(raw) if (400..500).contains(&raw.status) => {
            Broken::NotOffered(format!("kind `{kind}`: {}", raw.shown()))
        }
        _ => Broken::Promise(failed.shown()),
    }
}
