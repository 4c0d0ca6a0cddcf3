//! Promises about holds, which a wallet need not offer: hongbao pays without them.

use std::time::{Duration, Instant};

use super::money::not_offered;
use super::run::{Broken, Run, Seen, broken, expect, shown};
use crate::stored_value::contract::Entry;

/// How long a hold that should have expired is given.
const EXPIRY_PATIENCE: Duration = Duration::from_secs(10);

async fn hold(run: &Run, account: &str, amount: u64, expires: Option<u64>) -> Result<Entry<'static>, Broken> {
    let hold = Entry {
        kind: "hold".into(),
        expires_in_s: expires,
        ..run.transfer(&run.id(), account, &run.person(), amount)
    };
    let outcome = run.settle_one(&hold).await.map_err(|failed| not_offered("hold", failed))?;
    expect("a hold that is covered", &outcome, "succeeded", None)?;
    Ok(hold)
}

fn end(run: &Run, kind: &'static str, hold: &Entry<'_>) -> Entry<'static> {
    Entry {
        kind: kind.into(),
        of: hold.id.clone().into_owned().into(),
        ..run.transfer(&run.id(), "", "", hold.amount)
    }
}

pub async fn post(run: &Run) -> Seen {
    let account = run.funded(100).await?;
    let hold = hold(run, &account, 70, None).await?;
    let other = run.transfer(&run.id(), &account, &run.person(), 31);
    expect("paying what is held", &run.settle_one(&other).await?, "failed", Some("low_balance"))?;
    let post = end(run, "post", &hold);
    for what in ["a post", "its repeat"] {
        expect(what, &run.settle_one(&post).await?, "succeeded", None)?;
    }
    let second = run.settle_one(&end(run, "post", &hold)).await?;
    if second.status == "succeeded" {
        return broken("a hold could be posted twice");
    }
    run.expect_left(&account, 30).await?;
    Ok(format!("a hold set its amount aside and was posted once (again: `{}`)", shown(&second)))
}

pub async fn void(run: &Run) -> Seen {
    let account = run.funded(100).await?;
    let hold = hold(run, &account, 70, None).await?;
    let void = end(run, "void", &hold);
    for what in ["a void", "its repeat"] {
        expect(what, &run.settle_one(&void).await?, "succeeded", None)?;
    }
    let late = run.settle_one(&end(run, "post", &hold)).await?;
    if late.status == "succeeded" {
        return broken("a voided hold could be posted");
    }
    run.expect_left(&account, 100).await?;
    Ok("a voided hold gave its amount back and could not be posted".to_owned())
}

pub async fn expiry(run: &Run) -> Seen {
    let account = run.funded(100).await?;
    let began = Instant::now();
    let hold = hold(run, &account, 100, Some(1)).await?;
    let probe = run.transfer(&run.id(), &account, &run.person(), 100);
    // The same id again and again: low_balance leaves it free.
    loop {
        let outcome = run.settle_one(&probe).await?;
        if outcome.status == "succeeded" {
            break;
        }
        expect("paying what is held", &outcome, "failed", Some("low_balance"))?;
        if began.elapsed() > EXPIRY_PATIENCE {
            return Err(Broken::NotOffered(format!(
                "a hold of one second was still held after {} s",
                EXPIRY_PATIENCE.as_secs()
            )));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let after = began.elapsed();
    if after < Duration::from_millis(900) {
        return broken(format!("a hold of one second was released after {} ms", after.as_millis()));
    }
    let late = run.settle_one(&end(run, "post", &hold)).await?;
    if late.status == "succeeded" {
        return broken("an expired hold could be posted");
    }
    run.expect_left(&account, 0).await?;
    Ok(format!("a hold of one second was released after {} ms", after.as_millis()))
}
