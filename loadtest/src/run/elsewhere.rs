//! What runs already, and is to be loaded: whether it answers, whether the scenario is possible there, and whether the
//! wallet that is named is the one that it pays from.
//!
//! What holds: all of it is found before the first call of the load. Absent: what the harness starts ([`crate::target`]).

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

use super::Options;
use crate::http::Caller;
use crate::scenario::{FaultKind, Scenario};
use crate::target::{CALL_TIMEOUT, Target};
use crate::treasury::funding_id;

/// A wallet may be made to fail now and then.
const TOLD_WITHIN: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);

/// What is there already, if that is to be loaded, and answers.
pub(super) fn external(options: &Options) -> anyhow::Result<Option<Target>> {
    if options.targets.is_empty() {
        return Ok(None);
    }
    possible(&options.scenario, options.wallet.is_some()).map_err(anyhow::Error::msg)?;
    let target = Target::external(&options.targets, options.wallet.as_deref(), options.access.clone())?
        .with_redis(options.redis.as_deref())?;
    for (address, url) in target.instances.iter().zip(&options.targets) {
        target.caller(*address).call("GET", "/readyz", b"").with_context(|| format!("--target {url}"))?;
    }
    if let (Some(address), Some(url)) = (target.wallet, &options.wallet) {
        let mut wallet = target.caller(address);
        wallet.call("GET", "/received", b"").with_context(|| format!("--wallet {url}"))?;
        if changes_wallet(&options.scenario) {
            let faults = wallet.json("GET", "/faults", "");
            faults.with_context(|| {
                format!("--wallet {url}: the scenario sets faults of the reference wallet")
            })?;
        }
    }
    if let (Some(address), Some(url)) = (target.redis, &options.redis) {
        let connected = std::net::TcpStream::connect_timeout(&address, CALL_TIMEOUT);
        connected.with_context(|| format!("--redis {url}: connecting"))?;
    }
    Ok(Some(target))
}

fn changes_wallet(scenario: &Scenario) -> bool {
    let is_on_wallet = scenario.faults.iter().any(|fault| fault.kind == FaultKind::WalletDown);
    is_on_wallet || !scenario.wallet.change.is_empty()
}

/// Whether all that the scenario breaks can be broken where nothing was started here.
fn possible(scenario: &Scenario, has_wallet: bool) -> Result<(), String> {
    let of_processes = scenario.faults.iter().filter_map(|fault| {
        let kind = match fault.kind {
            FaultKind::Kill => "kill",
            FaultKind::Freeze => "freeze",
            FaultKind::Cut => "cut",
            FaultKind::WalletDown => return None,
        };
        Some(format!("{kind} on {}", fault.on.as_deref().unwrap_or("wallet")))
    });
    let of_processes: Vec<String> = of_processes.collect();
    if !of_processes.is_empty() {
        return Err(format!(
            "[[fault]] {}: only what the harness starts can it kill, freeze or cut off, and with --target it starts \
             nothing; run the scenario without --target, or take these out of it",
            of_processes.join(", ")
        ));
    }
    if changes_wallet(scenario) && !has_wallet {
        return Err(
            "the scenario sets faults of the wallet ([[wallet.change]] or [[fault]] wallet_down): say with \
                    --wallet URL where the reference wallet behind --target is, or take them out of it"
                .to_owned(),
        );
    }
    Ok(())
}

/// Whether the wallet knows of the money that hongbao says it moved there. `campaign` is one that was just funded.
pub(super) fn is_its_wallet(
    options: &Options,
    target: &Target,
    mut wallet: Caller,
    ready: &Value,
    campaign: &str,
) -> anyhow::Result<()> {
    let (Some(target_url), Some(url)) = (options.targets.first(), &options.wallet) else { return Ok(()) };
    let client = &target.access.client;
    let body = json!({ "ids": [format!("{client}:{}", funding_id(campaign))] }).to_string();
    let deadline = Instant::now() + TOLD_WITHIN;
    let told = loop {
        match wallet.json("POST", "/v1/transfers/lookup", &body) {
            Ok(told) => break told,
            Err(error) if error.is_stop() || Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("--wallet {url}: looking up a transfer"));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    };
    if told["results"][0]["status"] == "succeeded" {
        return Ok(());
    }
    let kind = ready["wallet"].as_str().unwrap_or("not told");
    let look_at = if kind == "embedded" {
        "stored_value.kind there is embedded, which pays from its own ledger: leave --wallet out".to_owned()
    } else {
        format!(
            "look at stored_value (kind {kind}) among the settings of --target, and at --client, which is {client:?} \
             here: --target may know this caller by another name"
        )
    };
    anyhow::bail!(
        "--wallet {url} has seen nothing of the money that --target {target_url} has moved into campaign {campaign} for \
         this run: it is not the wallet that --target pays from. {look_at}"
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_cannot_be_broken_where_nothing_was_started_is_refused() {
        let fault = |kind: &str| format!("[[fault]]\nat_s = 0\nfor_s = 1\n{kind}\n");
        let change = "[[wallet.change]]\nat_s = 0\nfaults = { latency_ms = 3 }\n";
        let down = fault("kind = \"wallet_down\"");
        // Further tables of a scenario, whether the wallet is named: what is said.
        let table = [
            (String::new(), false, None),
            (fault("kind = \"kill\"\non = \"instance-0\""), true, Some("kill on instance-0: only")),
            (fault("kind = \"freeze\"\non = \"wallet\""), true, Some("freeze on wallet: only")),
            (fault("kind = \"cut\"\non = \"wallet\"") + &down, true, Some("cut on wallet: only")),
            (down.clone(), false, Some("--wallet")),
            (down, true, None),
            (change.to_owned(), false, Some("--wallet")),
            (change.to_owned(), true, None),
            ("[wallet.faults]\nlatency_ms = 3\n".to_owned(), false, None),
        ];
        for (tables, has_wallet, says) in table {
            let text = "about = \"x\"\narrivals = { shape = \"constant\", per_s = 1, for_s = 5 }\n"
                .to_owned()
                + &tables;
            let scenario = Scenario::parse("x", &text, Path::new(".")).unwrap();
            let found = possible(&scenario, has_wallet).err();
            assert_eq!(found.is_some(), says.is_some(), "{tables} {has_wallet}: {found:?}");
            assert!(says.is_none_or(|says| found.as_ref().unwrap().contains(says)), "{tables}: {found:?}");
        }
    }
}
