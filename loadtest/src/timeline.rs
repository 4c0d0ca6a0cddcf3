//! Faults, and changes of the wallet, each at its time.
//!
//! What holds: everything that was broken is mended at the end, whatever happened meanwhile, and at once when the run is
//! stopped. A fault that could not be made is told, never passed over. How many faults last is known to others, who
//! cannot tell from what they see of a process that is gone whether anything is left there.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::scenario::{FaultKind, Scenario};
use crate::target::{Target, TargetError, as_json};

/// Something that happened on purpose, as it is told in the report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    pub at_s: f64,
    /// None: from then on.
    pub until_s: Option<f64>,
    pub on: String,
    pub kind: String,
    pub words: String,
    /// Why it could not be made or mended.
    pub failure: Option<String>,
}

enum Deed {
    Break(usize),
    Mend(usize),
    Change(usize),
}

/// Carries out the scenario's faults, `lasting` of them at a time; returns when the last is mended, or when told to stop.
pub fn follow(
    scenario: &Scenario,
    target: &Target,
    begin: Instant,
    epoch: Instant,
    lasting: &AtomicUsize,
    is_stopped: &dyn Fn() -> bool,
) -> Vec<Event> {
    let mut deeds: Vec<(f64, Deed)> = Vec::new();
    for (index, fault) in scenario.faults.iter().enumerate() {
        deeds.push((fault.at_s, Deed::Break(index)));
        deeds.push((fault.at_s + fault.for_s, Deed::Mend(index)));
    }
    deeds.extend(
        scenario.wallet.change.iter().enumerate().map(|(index, change)| (change.at_s, Deed::Change(index))),
    );
    deeds.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut events: Vec<Event> = Vec::new();
    let mut broken: Vec<(usize, usize)> = Vec::new();
    for (at_s, deed) in deeds {
        while begin.elapsed().as_secs_f64() < at_s && !is_stopped() {
            let left = at_s - begin.elapsed().as_secs_f64();
            std::thread::sleep(Duration::from_secs_f64(left.clamp(0.0, 0.05)));
        }
        let stopped = is_stopped();
        let now_s = epoch.elapsed().as_secs_f64();
        match deed {
            Deed::Break(_) | Deed::Change(_) if stopped => {}
            Deed::Change(index) => events.push(change(scenario, target, index, now_s)),
            Deed::Break(index) => {
                broken.push((index, events.len()));
                lasting.store(broken.len(), Ordering::Relaxed);
                events.push(make(scenario, target, index, now_s));
            }
            Deed::Mend(index) => {
                let Some(place) = broken.iter().position(|(fault, _)| *fault == index) else { continue };
                let (_, event) = broken.swap_remove(place);
                let mended = mend(scenario, target, index, stopped);
                lasting.store(broken.len(), Ordering::Relaxed);
                events[event].until_s = Some(epoch.elapsed().as_secs_f64());
                if let Err(error) = mended {
                    events[event].failure = Some(format!("it could not be mended: {error}"));
                }
            }
        }
    }
    events
}

fn change(scenario: &Scenario, target: &Target, index: usize, now_s: f64) -> Event {
    let change = &scenario.wallet.change[index];
    let faults = as_json(&change.faults);
    let names: Vec<String> = faults.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let words = if change.about.is_empty() { names.join(", ") } else { change.about.clone() };
    let failure = target.change_wallet(&faults).err().map(|error| error.to_string());
    Event { at_s: now_s, until_s: None, on: "wallet".to_owned(), kind: "change".to_owned(), words, failure }
}

fn kind_words(kind: FaultKind) -> (&'static str, &'static str) {
    match kind {
        FaultKind::Kill => ("kill", "killed"),
        FaultKind::Freeze => ("freeze", "frozen"),
        FaultKind::Cut => ("cut", "cut off"),
        FaultKind::WalletDown => ("wallet_down", "answers nobody"),
    }
}

fn make(scenario: &Scenario, target: &Target, index: usize, now_s: f64) -> Event {
    let fault = &scenario.faults[index];
    let on = fault.on.clone().unwrap_or_else(|| "wallet".to_owned());
    let (kind, words) = kind_words(fault.kind);
    let done = match fault.kind {
        FaultKind::Kill => target.server(&on).map(|server| server.kill()),
        FaultKind::Freeze => target.server(&on).map(|server| server.freeze()),
        FaultKind::Cut => target.proxies.iter().find(|(name, _)| *name == on).map(|(_, proxy)| proxy.cut()),
        FaultKind::WalletDown => Some(()),
    };
    let mut failure = done.is_none().then(|| format!("there is no {on} here"));
    if fault.kind == FaultKind::WalletDown {
        let pause = Map::from_iter([("pause_s".to_owned(), Value::from(fault.for_s))]);
        failure = target.change_wallet(&pause).err().map(|error| error.to_string());
    }
    Event { at_s: now_s, until_s: None, on, kind: kind.to_owned(), words: words.to_owned(), failure }
}

/// `early`: before its time.
fn mend(scenario: &Scenario, target: &Target, index: usize, early: bool) -> Result<(), TargetError> {
    let fault = &scenario.faults[index];
    let on = fault.on.as_deref().unwrap_or("wallet");
    match fault.kind {
        FaultKind::Kill => {
            if let Some(server) = target.server(on) {
                // A run that is stopped has it started as well: what it knows is still to be checked.
                server.launch(&AtomicBool::new(false))?;
            }
            if on == "wallet" {
                target.remind_wallet()?;
            }
        }
        FaultKind::Freeze => {
            if let Some(server) = target.server(on) {
                server.unfreeze();
            }
        }
        FaultKind::Cut => {
            target.proxies.iter().filter(|(name, _)| name == on).for_each(|(_, proxy)| proxy.mend());
        }
        // It ends by itself, in its time.
        FaultKind::WalletDown if early => {
            target.change_wallet(&Map::from_iter([("pause_s".to_owned(), Value::from(0))]))?;
        }
        FaultKind::WalletDown => {}
    }
    Ok(())
}
