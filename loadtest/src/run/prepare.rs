//! What comes before the load: what is to be there is started, and the campaigns are given their money.
//!
//! What holds: whatever makes a run impossible is found here, and said before the first call of the load; told to stop,
//! everything here ends at once. Absent: what runs already ([`super::elsewhere`]); the folder, and what becomes of an
//! earlier result ([`super::folder`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use serde_json::Value;

use super::{Options, elsewhere, new_run};
use crate::environment;
use crate::http::Caller;
use crate::result::RunResult;
use crate::target::Target;
use crate::traffic::Traffic;
use crate::treasury;

/// All that a load needs, with nothing measured yet.
pub(super) struct Prepared {
    pub target: Arc<Target>,
    pub run: String,
    pub traffic: Arc<Traffic>,
    /// Of each campaign, in minor units.
    pub funded: u64,
    pub result: RunResult,
}

/// Starts what is not there already, and funds the campaigns.
pub(super) fn prepare(
    options: &Options,
    external: Option<Target>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<Prepared> {
    let prepared = try_to_prepare(options, external, stop);
    // That it was stopped says more than what could not be done because of it.
    go_on(stop)?;
    prepared
}

/// Whether there is to be a load: who stopped the run wants none.
pub(super) fn go_on(stop: &AtomicBool) -> anyhow::Result<()> {
    anyhow::ensure!(
        !stop.load(Ordering::Relaxed),
        "it was interrupted before the load began: nothing was measured"
    );
    Ok(())
}

fn try_to_prepare(
    options: &Options,
    external: Option<Target>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<Prepared> {
    let scenario = &options.scenario;
    let target = Arc::new(match external {
        Some(target) => target,
        None => Target::start(scenario, &options.out, stop)?,
    });
    let run = new_run();
    let mut result = RunResult::blank(scenario.clone(), &run);
    result.part = format!("{}/{}", options.part.0 + 1, options.part.1);
    let instance = *target.instances.first().context("there is no instance")?;
    let mut caller = target.caller(instance).heeding(stop);
    let ready = ready(&mut caller)?;
    let durability = ready["durability"].as_str().unwrap_or("not told");
    result.environment = environment::describe(&target, &options.out, durability, stop);
    let traffic = Arc::new(Traffic::new(&run, scenario.seed, &scenario.load));
    let requests = scenario.arrivals.arrivals().map_err(anyhow::Error::msg)?.total();
    let steps = scenario.search.as_ref().map_or(1.0, |search| f64::from(search.steps_max) * 20.0);
    let funded = treasury::open(&mut caller, &traffic, requests * steps, scenario.load.amount_max)
        .context("making and funding the campaigns")?;
    if let Some(wallet) = target.wallet.filter(|_| target.is_external()) {
        let wallet = target.caller(wallet).heeding(stop);
        elsewhere::is_its_wallet(options, &target, wallet, &ready, &traffic.campaign_name(0))?;
    }
    Ok(Prepared { target, run, traffic, funded, result })
}

/// What the instance says of itself.
fn ready(instance: &mut Caller) -> anyhow::Result<Value> {
    let ready = instance.call("GET", "/readyz", b"").context("asking the instance whether it is ready")?;
    Ok(serde_json::from_slice(&ready.body).unwrap_or_default())
}
