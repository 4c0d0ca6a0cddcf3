//! Whether a scenario makes sense, before anything is started for it.

use super::unknown::nearest;
use super::{Door, FaultKind, IntakeKind, Objectives, Scenario, Shape, WalletFaults, WalletKind};

/// Requests that one run may send: each is remembered until it is checked.
const REQUESTS_MAX: f64 = 2e8;
/// What the reference wallet's `GET /faults` lists.
const WALLET_FAULTS: [&str; 22] = [
    "capacity_per_s",
    "capacity_schedule",
    "collapse_queue",
    "collapse_factor",
    "queue_max",
    "concurrency",
    "latency_ms",
    "jitter_ms",
    "latency_p50_ms",
    "latency_p99_ms",
    "error_rate",
    "timeout_rate",
    "drop_before_rate",
    "drop_after_rate",
    "slow_accounts",
    "slow_ms",
    "frozen",
    "refusals",
    "brownouts",
    "pause_s",
    "ramp_s",
    "seed",
];

pub fn check(scenario: &Scenario) -> Result<(), String> {
    arrivals(scenario)?;
    load(scenario)?;
    setup(scenario)?;
    wallet(scenario)?;
    faults(scenario)?;
    rest(scenario)?;
    times(scenario)
}

fn within(name: &str, value: f64, range: std::ops::RangeInclusive<f64>) -> Result<(), String> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(format!("{name} is {value}; it must be from {} to {}", range.start(), range.end()))
}

fn arrivals(scenario: &Scenario) -> Result<(), String> {
    for (name, value) in scenario.arrivals.numbers() {
        within(&format!("arrivals.{name}"), value, 0.0..=1e7)?;
    }
    let positive = match scenario.arrivals {
        Shape::Spike { decay_s, .. } => ("arrivals.decay_s", decay_s),
        Shape::Replay { speed, .. } => ("arrivals.speed", speed),
        _ => ("arrivals", 1.0),
    };
    if positive.1 <= 0.0 {
        return Err(format!("{} must be above 0", positive.0));
    }
    let arrivals = scenario.arrivals.arrivals()?;
    if arrivals.total() < 1.0 {
        return Err("arrivals: less than one request would be sent".to_owned());
    }
    if arrivals.total() > REQUESTS_MAX {
        return Err(format!("arrivals: {:.0} requests are more than {REQUESTS_MAX:.0}", arrivals.total()));
    }
    Ok(())
}

fn load(scenario: &Scenario) -> Result<(), String> {
    let load = &scenario.load;
    for (name, share) in [
        ("batch_share", load.batch_share),
        ("duplicates", load.duplicates),
        ("conflicts", load.conflicts),
        ("invalid", load.invalid),
        ("duplicates, conflicts and invalid", load.duplicates + load.conflicts + load.invalid),
    ] {
        within(&format!("load.{name}"), share, 0.0..=1.0)?;
    }
    within("load.batch_size", f64::from(load.batch_size), 2.0..=10_000.0)?;
    within("load.remark_bytes", f64::from(load.remark_bytes), 0.0..=256.0)?;
    within("load.campaigns", f64::from(load.campaigns), 1.0..=1_000.0)?;
    within("load.payees", f64::from(load.payees), 1.0..=1_000_000.0)?;
    within("load.zipf_exponent", load.zipf_exponent, 0.0..=10.0)?;
    within("load.amount_max", f64::from(load.amount_max), 1.0..=1e9)?;
    if load.door == Door::List {
        if scenario.setup.intake != IntakeKind::Redis {
            return Err("load.door = \"list\" needs setup.intake = \"redis\"".to_owned());
        }
        if load.conflicts + load.invalid > 0.0 {
            return Err(
                "load.door = \"list\" cannot refuse: set load.conflicts and load.invalid to 0".to_owned()
            );
        }
    }
    Ok(())
}

fn setup(scenario: &Scenario) -> Result<(), String> {
    let setup = &scenario.setup;
    within("setup.instances", f64::from(setup.instances), 1.0..=16.0)?;
    within("setup.settle_within_s", setup.settle_within_s, 0.0..=1e6)?;
    if setup.instances > 1 && setup.intake == IntakeKind::Embedded {
        return Err("setup.instances above 1 needs setup.intake = \"redis\": with the embedded intake every instance has its own requests".to_owned());
    }
    if setup.instances > 1 && setup.wallet == WalletKind::Embedded {
        return Err(
            "setup.instances above 1 needs setup.wallet = \"reference\": they must share one".to_owned()
        );
    }
    if setup.wallet == WalletKind::Reference && setup.pace_per_s == 0 {
        return Err("setup.pace_per_s must be above 0: hongbao paces a wallet elsewhere".to_owned());
    }
    if let Some(bad) = setup.set.iter().find(|set| !set.contains('=')) {
        return Err(format!("setup.set: {bad:?} is not written as section.key=value"));
    }
    // Where it listens and what it writes must be where the harness looks.
    let own = ["data.dir", "gateway.listen", "instance.name"];
    let key = |set: &String| set.split('=').next().map_or_else(String::new, |key| key.trim().to_owned());
    if let Some(bad) = setup.set.iter().map(key).find(|key| own.contains(&key.as_str())) {
        return Err(format!("setup.set: {bad} is the harness's own to set"));
    }
    if !["always", "everysec", "no"].contains(&setup.redis_appendfsync.as_str()) {
        return Err("setup.redis_appendfsync must be always, everysec or no".to_owned());
    }
    Ok(())
}

fn known_wallet_faults(place: &str, faults: &WalletFaults) -> Result<(), String> {
    let Some(bad) = faults.keys().find(|name| !WALLET_FAULTS.contains(&name.as_str())) else { return Ok(()) };
    let near = nearest(bad, WALLET_FAULTS.into_iter());
    let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    Err(format!("{place}: the wallet has no fault `{bad}`{hint}"))
}

fn wallet(scenario: &Scenario) -> Result<(), String> {
    known_wallet_faults("wallet.faults", &scenario.wallet.faults)?;
    for change in &scenario.wallet.change {
        known_wallet_faults("wallet.change.faults", &change.faults)?;
        within("wallet.change.at_s", change.at_s, 0.0..=1e6)?;
    }
    let is_set = !scenario.wallet.faults.is_empty() || !scenario.wallet.change.is_empty();
    if is_set && scenario.setup.wallet == WalletKind::Embedded {
        return Err(
            "[wallet] needs setup.wallet = \"reference\": the embedded ledger has no faults".to_owned()
        );
    }
    Ok(())
}

fn faults(scenario: &Scenario) -> Result<(), String> {
    let reference = scenario.setup.wallet == WalletKind::Reference;
    let mut processes: Vec<String> = (0..scenario.setup.instances).map(|n| format!("instance-{n}")).collect();
    if reference {
        processes.push("wallet".to_owned());
    }
    if scenario.setup.intake == IntakeKind::Redis {
        processes.push("redis".to_owned());
    }
    if scenario.claims.is_some() {
        processes.push("backend".to_owned());
    }
    for fault in &scenario.faults {
        within("fault.at_s", fault.at_s, 0.0..=1e6)?;
        within("fault.for_s", fault.for_s, 0.0..=1e6)?;
        match (&fault.on, fault.kind) {
            (None, FaultKind::WalletDown) if reference => {}
            (None, FaultKind::WalletDown) => {
                return Err("fault wallet_down needs setup.wallet = \"reference\"".to_owned());
            }
            (Some(_), FaultKind::WalletDown) => return Err("fault wallet_down takes no `on`".to_owned()),
            (Some(on), FaultKind::Cut) if on.starts_with("instance-") || on == "backend" => {
                return Err(
                    "fault cut is on `wallet` or `redis`; for an instance use freeze or kill".to_owned()
                );
            }
            (Some(on), _) if processes.contains(on) => {}
            (on, _) => {
                let on = on.as_deref().unwrap_or("");
                let processes = processes.join(", ");
                return Err(format!("fault.on is {on:?}; this set-up has {processes}"));
            }
        }
    }
    Ok(())
}

/// Whatever goes wrong must be over while there is still time for everything to become final.
fn times(scenario: &Scenario) -> Result<(), String> {
    let load_s = match &scenario.search {
        Some(search) => search.step_s * f64::from(search.steps_max),
        None => scenario.arrivals.arrivals()?.length_s(),
    };
    let last_s = load_s + scenario.setup.settle_within_s;
    let late = |what: String, at_s: f64| {
        if at_s <= last_s {
            return Ok(());
        }
        Err(format!(
            "{what}, {at_s} s after the start; the load ends at {load_s} s, and by {last_s} s \
             (setup.settle_within_s) everything should be final"
        ))
    };
    for fault in &scenario.faults {
        let on = fault.on.as_deref().map_or_else(String::new, |on| format!(" on {on}"));
        let kind = toml::Value::try_from(fault.kind).map_err(|error| error.to_string())?;
        late(
            format!("fault {}{on} would be mended too late", kind.as_str().unwrap_or("")),
            fault.at_s + fault.for_s,
        )?;
    }
    for change in &scenario.wallet.change {
        late("wallet.change.at_s is too late".to_owned(), change.at_s)?;
    }
    Ok(())
}

fn objectives(objectives: &Objectives) -> Result<(), String> {
    let Objectives { accept_p50_ms, accept_p99_ms, accept_p999_ms, .. } = *objectives;
    let Objectives { settle_p99_s, wallet_peak_per_s, drained_within_s, accept_per_s_min, .. } = *objectives;
    let all = [
        ("accept_p50_ms", accept_p50_ms),
        ("accept_p99_ms", accept_p99_ms),
        ("accept_p999_ms", accept_p999_ms),
        ("settle_p99_s", settle_p99_s),
        ("wallet_peak_per_s", wallet_peak_per_s),
        ("drained_within_s", drained_within_s),
        ("accept_per_s_min", accept_per_s_min),
    ];
    for (name, value) in all {
        within(&format!("objectives.{name}"), value.unwrap_or(0.0), 0.0..=1e9)?;
    }
    within("objectives.refused_share_max", objectives.refused_share_max.unwrap_or(0.0), 0.0..=1.0)
}

fn rest(scenario: &Scenario) -> Result<(), String> {
    objectives(&scenario.objectives)?;
    let generator = &scenario.generator;
    within("generator.threads", f64::from(generator.threads), 1.0..=64.0)?;
    within(
        "generator.connections",
        f64::from(generator.connections),
        f64::from(generator.threads)..=10_000.0,
    )?;
    within("generator.lag_ms", generator.lag_ms, 0.1..=60_000.0)?;
    within("generator.lag_share_max", generator.lag_share_max, 0.0..=1.0)?;
    within("generator.answer_timeout_s", generator.answer_timeout_s, 0.1..=600.0)?;
    within("generator.persist_s", generator.persist_s, 0.0..=3_600.0)?;
    within("generator.waiting_max", f64::from(generator.waiting_max), 1.0..=1e8)?;
    within("follow.poll_ms", scenario.follow.poll_ms as f64, 10.0..=60_000.0)?;
    within("follow.ids_max", f64::from(scenario.follow.ids_max), 1.0..=1_000_000.0)?;
    if let Some(claims) = &scenario.claims {
        within("claims.share", claims.share, 1e-6..=1.0)?;
        within("claims.packet_shares", f64::from(claims.packet_shares), 1.0..=100_000.0)?;
        within("claims.connections", f64::from(claims.connections), 1.0..=1_000.0)?;
        if scenario.search.is_some() {
            return Err(
                "[claims] and [search] do not go together: a search has no arrivals to follow".to_owned()
            );
        }
    }
    if let Some(search) = &scenario.search {
        within("search.step_s", search.step_s, 1.0..=3_600.0)?;
        within("search.factor", search.factor, 1.05..=10.0)?;
        within("search.precision", search.precision, 0.01..=0.5)?;
        within("search.steps_max", f64::from(search.steps_max), 1.0..=100.0)?;
        if !matches!(scenario.arrivals, Shape::Constant { .. } | Shape::Poisson { .. }) {
            return Err("[search] begins from arrivals.shape = \"constant\" or \"poisson\"".to_owned());
        }
    }
    Ok(())
}
