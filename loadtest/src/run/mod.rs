//! One run, from a scenario to a verdict.
//!
//! ```text
//! start ─> fund ─> [watch, follow, record, timeline] + generate ─> drain ─> check ─> verdict ─> result, report
//! ```
//!
//! What holds: whatever happens on the way, what was started is ended, what was broken is mended, and there is either
//! a verdict or an error that says why there can be none.

mod elsewhere;
mod folder;
mod interrupt;
mod load;
mod prepare;
mod search;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;

pub use folder::{clear, is_used};

use self::folder::{Folder, remove_data};
use self::load::{Loaded, Rig};
use self::prepare::{Prepared, go_on, prepare};
use crate::check::{self, Books, Sources};
use crate::claims::{self, Crowd};
use crate::environment;
use crate::generator::{Counts, Live};
use crate::observe::{Observed, Watch};
use crate::record::{Percentiles, curve};
use crate::report;
use crate::result::{Check, Micros, RunResult, Summary, Witness};
use crate::scenario::{Door, Scenario, WalletKind};
use crate::screen::{Scene, Screen};
use crate::series;
use crate::target::{Access, Target, TargetError};
use crate::traffic::Traffic;
use crate::verdict;

/// Between the first look at the processes and the first call.
const LEAD_IN: Duration = Duration::from_millis(500);
/// Nothing is open at hongbao; the backend has only to look it up.
const CLAIMS_SETTLED_WITHIN: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct Options {
    pub scenario: Scenario,
    /// External instances; none: start everything.
    pub targets: Vec<String>,
    /// The reference wallet behind external instances.
    pub wallet: Option<String>,
    /// The Redis server whose lists external instances drain.
    pub redis: Option<String>,
    pub access: Access,
    pub out: PathBuf,
    /// Part and parts, from 0.
    pub part: (u32, u32),
    /// Leave the data of the servers in the folder.
    pub keep: bool,
    pub quiet: bool,
}

/// Eight hexadecimal digits that no other run has, as far as clock and process number tell.
fn new_run() -> String {
    let seed = environment::unix_ms() << 20 ^ u64::from(std::process::id());
    format!("{:08x}", crate::dice::mix(seed) as u32)
}

/// Runs the scenario and writes the result's files; the verdict is in the result. A run that is refused leaves what was
/// there before as it was. SIGINT and SIGTERM end it: at once as long as nothing is made, then in order.
pub fn run(options: &Options) -> anyhow::Result<RunResult> {
    let external = elsewhere::external(options)?;
    if external.is_none() {
        Target::programs(&options.scenario)?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    interrupt::on_interrupt(stop.clone())?;
    let folder = Folder::make(&options.out)?;
    let (result, mended) = match run_in(options, external, &stop) {
        Ok(done) => done,
        Err(error) => {
            return Err(match folder.give_up() {
                Some(words) => anyhow::anyhow!("{error:#}; {words}"),
                None => error,
            });
        }
    };
    folder.keep()?;
    let report = options.out.join("report.html");
    std::fs::write(&report, report::of_run(&result))
        .with_context(|| format!("writing {}", report.display()))?;
    if !options.keep && result.check.told.is_empty() {
        remove_data(&options.out);
    }
    mended.context("putting the faults of the wallet back as they were")?;
    Ok(result)
}

/// From nothing to a result that is saved, and whether a wallet that is somebody else's is as it was.
fn run_in(
    options: &Options,
    external: Option<Target>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<(RunResult, Result<(), TargetError>)> {
    let prepared = prepare(options, external, stop)?;
    let target = prepared.target.clone();
    let result = run_at(options, stop, prepared);
    // Where there was a check, nothing is left of the faults already.
    let mended = if target.is_external() { target.mend_wallet() } else { Ok(()) };
    target.servers.iter().rev().for_each(|server| server.stop());
    let result = result?;
    result.save(&options.out)?;
    Ok((result, mended))
}

fn run_at(options: &Options, stop: &Arc<AtomicBool>, prepared: Prepared) -> anyhow::Result<RunResult> {
    let Prepared { target, run, traffic, funded, mut result } = prepared;
    let (scenario, target) = (&options.scenario, &target);
    let is_stopped = || stop.load(Ordering::Relaxed);

    let epoch = Instant::now();
    result.epoch_unix_ms = environment::unix_ms();
    let live = Arc::new(Live::default());
    let scene = Arc::new(Scene { live: live.clone(), ..Scene::default() });
    let screen = (!options.quiet).then(|| Screen::open(scenario.name.clone(), scene.clone()));
    let crowd = match (&scenario.claims, target.backend) {
        (Some(settings), Some(backend)) => {
            let crowd = Crowd::new(backend, &run, scenario, settings).map_err(anyhow::Error::msg)?;
            let is_ready = crowd.prepare(stop);
            go_on(stop).and(is_ready)?;
            Some(crowd)
        }
        // That it is left out is told with what was not checked.
        (Some(_), None) | (None, _) => None,
    };
    let rig = Rig {
        scenario,
        target: target.clone(),
        traffic: traffic.clone(),
        folder: &options.out,
        part: options.part,
        epoch,
        begin: epoch + LEAD_IN,
        started: SystemTime::now(),
        watch: Watch::start(target, epoch),
        live,
        scene: scene.clone(),
        stop: stop.clone(),
        crowd,
    };
    let mut loaded = load::carry_out(&rig)?;
    let (crowd, observed) = (rig.crowd, rig.watch.finish());
    describe_load(&mut result, &loaded, &observed);

    scene.enter("checking");
    let acks = options.out.join("acks.txt");
    let books = Books {
        campaign: &|index| traffic.campaign_name(index),
        payee: &|index| traffic.payee_name(index),
        campaigns: traffic.campaign_count(),
        payees: traffic.payee_count(),
        funded,
    };
    // Other generators pay from campaigns of their own, so the accounts are ours alone in any case.
    let mut check = checked(target, &traffic, &loaded, books, &scene).unwrap_or_else(|error| {
        // What was measured is told all the same; that nothing was looked at is said by the gaps.
        let gaps = target.ended().into_iter().chain([format!("{error:#}")]).collect();
        Check { acknowledged: result.counts.accepted, gaps, ..Check::default() }
    });
    if let (Some(crowd), Some((mut claimed, claims))) = (crowd, loaded.claimed.take()) {
        let patience = if is_stopped() { Duration::ZERO } else { CLAIMS_SETTLED_WITHIN };
        claimed.paid = crowd.settled(Instant::now() + patience)?;
        let wallet = target.wallet.map(|address| target.caller(address));
        let hongbao = target.caller(target.instances[0]);
        claims::check(&mut claimed, &claims, wallet, hongbao, &target.access.client, &mut check)
            .context("the check of every claim at the campaign's backend")?;
        result.claims = Some(claimed);
    }
    if !target.is_external() && scenario.needs().is_none() {
        if scenario.setup.wallet == WalletKind::Embedded {
            target.servers.iter().for_each(|server| server.stop());
        }
        check::run_audit(target, &acks, &mut check);
    }
    check.not_checked = not_checked(scenario, target, check.counted_at);
    result.check = check;
    drop(screen);
    conclude(&mut result, &loaded, is_stopped(), &options.out);
    Ok(result)
}

/// What nobody can say after this run, because it was not there to be looked at.
fn not_checked(scenario: &Scenario, target: &Target, counted_at: Witness) -> Vec<String> {
    let mut list: Vec<&str> = Vec::new();
    match counted_at {
        Witness::Hongbao => list.push(
            "nothing was counted at the wallet: that each payment was made, and once, is hongbao's own word (--wallet \
             URL has the reference wallet counted)",
        ),
        Witness::Audit => list.push(
            "nothing was counted outside of hongbao: the money is in its own ledger, and the audit is its own",
        ),
        Witness::Wallet => {}
    }
    if target.is_external() {
        list.push("hongbao audit was not run: the data is elsewhere");
        if scenario.claims.is_some() {
            list.push("[claims] was left out: no backend of the campaign is started for what runs elsewhere");
        }
        if !scenario.wallet.faults.is_empty() {
            list.push("[wallet.faults] was left out: a wallet that runs elsewhere is as it is");
        }
    }
    list.into_iter().map(str::to_owned).collect()
}

fn checked(
    target: &Target,
    traffic: &Arc<Traffic>,
    loaded: &Loaded,
    books: Books<'_>,
    scene: &Scene,
) -> anyhow::Result<Check> {
    target.mend_wallet().context("ending the wallet's faults before the check")?;
    let total: u64 = loaded.lanes.iter().map(|lane| lane.fates.len() as u64).sum();
    let claims = loaded.lanes.iter().flat_map(|lane| load::claims(traffic, lane));
    let sources = Sources {
        hongbao: target.caller(target.instances[0]),
        wallet: target.wallet.map(|address| target.caller(address)),
        client: &target.access.client,
        books: Some(books),
    };
    let mut progress = |done: u64| scene.progress.store(done * 1_000 / total.max(1), Ordering::Relaxed);
    check::check(claims, sources, &mut progress).context("the check of every id after the load")
}

/// Everything that was measured.
fn describe_load(result: &mut RunResult, loaded: &Loaded, observed: &Observed) {
    let mut counts = Counts::default();
    let mut bins = Vec::new();
    for lane in &loaded.lanes {
        counts.merge(&lane.counts);
        for (index, bin) in lane.bins.iter().enumerate() {
            if index >= bins.len() {
                bins.resize(index + 1, crate::generator::Bin::default());
            }
            let sum: &mut crate::generator::Bin = &mut bins[index];
            sum.offered += bin.offered;
            sum.accepted += bin.accepted;
            sum.refused += bin.refused;
            sum.retried += bin.retried;
        }
    }
    result.counts = counts;
    result.load_begin_s = loaded.begin_s;
    result.load_end_s = loaded.end_s;
    result.drained_s = loaded.drained_s;
    result.series = series::of(&bins, observed, loaded.watched_s);
    result.accept = Percentiles::of(&loaded.accept.total);
    result.accept_curve = curve(&loaded.accept.total);
    result.accept_rows.clone_from(&loaded.accept.rows);
    result.settle = Percentiles::of(&loaded.settle.total);
    result.settle_curve = curve(&loaded.settle.total);
    result.settle_rows.clone_from(&loaded.settle.rows);
    result.settle_sampled = loaded.followings.followed;
    result.settle_resolution = Percentiles::of(&loaded.followings.resolution);
    let is_reference = !observed.wallet.is_empty();
    result.wallet_peak_per_s = is_reference.then(|| observed.wallet_peak_per_s());
    result.generator_cores = loaded.generator_cores;
    result.events.clone_from(&loaded.events);
    result.states = series::states(observed);
    result.processes.clone_from(&observed.processes);
    result.search.clone_from(&loaded.search);
}

fn conclude(result: &mut RunResult, loaded: &Loaded, interrupted: bool, out: &Path) {
    let length_s = (result.load_end_s - result.load_begin_s).max(1e-3);
    let settled = &result.series.settled;
    let first = settled.iter().position(|rate| *rate > 0.0);
    let last = settled.iter().rposition(|rate| *rate > 0.0);
    let settle_per_s = first
        .zip(last)
        .map(|(first, last)| (settled[first..=last].iter().sum::<f64>() / (last - first + 1) as f64) as u64);
    let counts = &result.counts;
    result.summary = Summary {
        submitted: counts.submitted,
        accepted: counts.accepted,
        duplicates: counts.duplicates_recognised,
        refused: counts.refused_total() + counts.conflicts_refused + counts.invalid_refused,
        accept_per_s: (counts.accepted as f64 / length_s) as u64,
        settle_per_s,
        accept_us: Micros::of(result.accept),
        settle_us: Micros::of(result.settle),
        wallet_peak_per_s: result.wallet_peak_per_s,
        durability: result.environment.durability.clone(),
        out: out.display().to_string(),
        capacity_per_s: search::best(&result.search),
        ..Summary::default()
    };
    result.summary.take(&result.check);
    result.objectives = verdict::objectives(result);
    let mut failures: Vec<String> = loaded.followings.failure.iter().cloned().collect();
    let not_made = result.events.iter().filter_map(|event| {
        event.failure.as_ref().map(|why| format!("the fault {} on {} failed: {why}", event.kind, event.on))
    });
    failures.extend(not_made);
    if result.scenario.search.is_some() {
        // Steps beyond the limit are meant to be late and refused.
        result.objectives.retain(|objective| objective.what.starts_with("every promise"));
    }
    result.verdict = verdict::judge(result, interrupted, &failures);
    result.summary.verdict = format!("{:?}", result.verdict.outcome).to_lowercase();
    result.summary.headline.clone_from(&result.verdict.headline);
    result.summary.complaints.clone_from(&result.verdict.complaints);
}

/// Whether the requests go to a list instead of the door.
fn is_list(scenario: &Scenario) -> bool {
    scenario.load.door == Door::List
}
