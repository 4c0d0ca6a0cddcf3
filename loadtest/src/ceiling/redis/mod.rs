//! Redis rows: what it bears with clients that do nothing, and hongbao in such a client's place.
//!
//! ```text
//! producer ── RPUSH of 1,000 ──> list   ── LRANGE of 4,000, LTRIM ──> nobody (the ceiling) │ hongbao, ledger inside
//!          ── XADD, 1,000 a pipeline ──> stream ── XREADGROUP of 4,000, XACK, XTRIM ──> nobody
//! ```
//!
//! What holds: every measurement has a Redis of its own, of one setting for all, without rewrites of its append-only
//! file. The producer is held against `redis-benchmark` with the same command, connections and pipeline: where it is
//! more than a tenth slower the client is what was measured, and the rows are void. What hongbao drained is told by
//! the lengths of the lists, and each of its rounds ends with as many payments as were pushed, none refused or set aside.
//! Behind a deep queue the producer keeps the queue as deep as it was, and memory is compared after as many payments.

mod drain;
mod flow;
mod payouts;
mod wire;

use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;

use self::flow::{CONNECTIONS, DEPTH, Ends, Flow, LEAD, Pace, produce};
use self::payouts::{BATCH, CAMPAIGN, Form};
use self::wire::Wire;
use super::{Options, Row};
use crate::dice::Dice;
use crate::generator::LIST;
use crate::http::Caller;
use crate::observe::{metric, resident_mib};
use crate::scenario::Scenario;
use crate::target::{CALL_TIMEOUT, Server, Target, start_redis, tether};

const STREAM: &str = "hongbao:stream";
const WARM_UP: Duration = Duration::from_millis(500);
/// What fills Redis and never drains it is bounded by the memory that it takes.
const ALONE_BATCHES_PER_S: f64 = 500.0;
const ALONE_S_MAX: f64 = 5.0;
/// The lists that hongbao makes of the one that is pushed to: what it reads from, and gives back by trimming.
const SEALED: [&str; 2] = ["{hongbao:intake}:a", "{hongbao:intake}:b"];
const LOOK_EVERY: Duration = Duration::from_millis(2);
const DRAINED_WITHIN: Duration = Duration::from_secs(60);
const FUNDS: u64 = 1 << 50;
/// Requests that wait before hongbao begins, where a queue is to be deep.
const DEEP: u64 = 5_000_000;
/// Payments after which memory is looked at, for each second that a measurement takes.
const PAID_PER_S: f64 = 400_000.0;
/// What the producer must reach of `redis-benchmark`.
const VOID_BELOW: f64 = 0.9;

/// How Redis syncs its append-only file.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    appendfsync: &'static str,
    push: &'static str,
    reference: &'static str,
    list: &'static str,
    group: &'static str,
    hongbao: &'static str,
}

const MODES: [Mode; 2] = [
    Mode {
        appendfsync: "everysec",
        push: "Redis everysec, RPUSH of 1,000, nobody drains",
        reference: "Redis everysec, the same by redis-benchmark",
        list: "Redis everysec, list, do-nothing",
        group: "Redis everysec, stream group, do-nothing",
        hongbao: "hongbao over Redis everysec, list to settled",
    },
    Mode {
        appendfsync: "always",
        push: "Redis always, RPUSH of 1,000, nobody drains",
        reference: "Redis always, the same by redis-benchmark",
        list: "Redis always, list, do-nothing",
        group: "Redis always, stream group, do-nothing",
        hongbao: "hongbao over Redis always, list to settled",
    },
];

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for mode in MODES {
        let mut row = |name, measure: fn(&Options, Mode) -> anyhow::Result<f64>| {
            rows.push(Row {
                name,
                unit: "items/s",
                measure: Box::new(move |options| measure(options, mode)),
            });
        };
        row(mode.push, push_alone);
        row(mode.reference, by_redis_benchmark);
        row(mode.list, list);
        row(mode.group, group);
        row(mode.hongbao, hongbao);
    }
    let mut row = |name, unit, measure: fn(&Options) -> anyhow::Result<f64>| {
        rows.push(Row { name, unit, measure: Box::new(measure) });
    };
    row(DEEP_RATE, "items/s", |options| rate(options, MODES[0], DEEP));
    row(MEMORY, "MiB", |options| memory(options, MODES[0], 0));
    row(DEEP_MEMORY, "MiB", |options| memory(options, MODES[0], DEEP));
    rows
}

const DEEP_RATE: &str = "hongbao over Redis everysec, 5 million queued";
const MEMORY: &str = "hongbao over Redis, resident, short queue";
const DEEP_MEMORY: &str = "hongbao over Redis, resident, 5 million queued";

/// What is divided by what.
pub fn ratios() -> Vec<(&'static str, &'static str)> {
    MODES
        .iter()
        .flat_map(|mode| [(mode.push, mode.reference), (mode.hongbao, mode.list), (mode.hongbao, mode.group)])
        .chain([(DEEP_RATE, MODES[0].hongbao), (DEEP_MEMORY, MEMORY)])
        .collect()
}

/// Why the rows of a mode are void, if this ratio says so.
pub fn void(above: &str, ratio: f64) -> Option<String> {
    let mode = MODES.iter().find(|mode| mode.push == above)?;
    (ratio < VOID_BELOW).then(|| {
        format!(
            "void: the client reached {ratio:.2} of redis-benchmark with appendfsync {}; it was measured, not Redis",
            mode.appendfsync
        )
    })
}

/// A Redis for one measurement, in a folder that goes with it.
struct Own {
    server: Server,
    folder: std::path::PathBuf,
}

impl Own {
    fn start(options: &Options, mode: Mode) -> anyhow::Result<Own> {
        let folder = options.folder.join("redis");
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let more = ["--auto-aof-rewrite-percentage", "0"];
        let server = start_redis(mode.appendfsync, &folder, &more, &AtomicBool::new(false))?;
        Ok(Own { server, folder })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.server.kill();
        // What cannot be removed is seen by whoever looks into the folder.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Of one count for both sides, not of one time: what fills the disk's cache longer is slower for that alone.
fn batches(options: &Options) -> u64 {
    let turn = (CONNECTIONS * DEPTH) as u64;
    ((options.for_s.min(ALONE_S_MAX) * ALONE_BATCHES_PER_S) as u64).next_multiple_of(turn)
}

fn push_alone(options: &Options, mode: Mode) -> anyhow::Result<f64> {
    let redis = Own::start(options, mode)?;
    let batches = batches(options);
    let took = produce(redis.server.address, Form::List(LIST), Pace::Batches(batches), &Flow::default());
    Ok((batches * BATCH as u64) as f64 / took.context("pushing to Redis")?.as_secs_f64())
}

fn by_redis_benchmark(options: &Options, mode: Mode) -> anyhow::Result<f64> {
    let redis = Own::start(options, mode)?;
    let mut benchmark = tether::command("redis-benchmark");
    let (port, clients, depth) =
        (redis.server.address.port().to_string(), CONNECTIONS.to_string(), DEPTH.to_string());
    benchmark.args(["-p", &port, "-c", &clients, "-P", &depth, "-n", &batches(options).to_string()]);
    benchmark.args(["--csv", "RPUSH", LIST]);
    let mut dice = Dice::new(1);
    benchmark.args((0..BATCH).map(|number| payouts::element(number, &mut dice)));
    benchmark.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let said =
        tether::spawn(benchmark).and_then(Child::wait_with_output).context("running redis-benchmark")?;
    anyhow::ensure!(
        said.status.success(),
        "redis-benchmark failed (Debian, Ubuntu: apt-get install redis-tools): {}",
        String::from_utf8_lossy(&said.stderr).trim()
    );
    let text = String::from_utf8_lossy(&said.stdout);
    // The command itself, which has commas, then rate and six latencies.
    let rate = text.trim_end().rsplit(',').nth(6);
    let rate = rate.and_then(|field| field.trim_matches('"').parse::<f64>().ok());
    Ok(rate.with_context(|| format!("redis-benchmark told no rate: {text:.200}"))? * BATCH as f64)
}

fn list(options: &Options, mode: Mode) -> anyhow::Result<f64> {
    let redis = Own::start(options, mode)?;
    let drain = |redis, flow: &Flow| Ok(drain::list(redis, LIST, flow)?);
    drained(redis.server.address, Form::List(LIST), &Flow::default(), &drain, per_s(options))
}

fn group(options: &Options, mode: Mode) -> anyhow::Result<f64> {
    let redis = Own::start(options, mode)?;
    let drain = |redis, flow: &Flow| Ok(drain::group(redis, STREAM, flow)?);
    drained(redis.server.address, Form::Stream(STREAM), &Flow::default(), &drain, per_s(options))
}

/// Items a second that are drained, once that has begun.
fn per_s(options: &Options) -> impl Fn(&Flow) -> anyhow::Result<f64> {
    let length = options.length();
    move |flow| {
        std::thread::sleep(WARM_UP);
        let (before, began) = (flow.drained.load(Ordering::Relaxed), Instant::now());
        std::thread::sleep(length);
        let count = flow.drained.load(Ordering::Relaxed) - before;
        Ok(count as f64 / began.elapsed().as_secs_f64())
    }
}

/// What is measured of a flow that is drained while the producer runs beside.
fn drained(
    redis: SocketAddr,
    form: Form,
    flow: &Flow,
    drain: &(dyn Fn(SocketAddr, &Flow) -> anyhow::Result<()> + Sync),
    measure: impl FnOnce(&Flow) -> anyhow::Result<f64>,
) -> anyhow::Result<f64> {
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let _ends = Ends(flow);
            produce(redis, form, Pace::Lead, flow).context("pushing to Redis")
        });
        let drainer = scope.spawn(|| {
            let _ends = Ends(flow);
            drain(redis, flow)
        });
        let measured = measure(flow);
        let ended_early = flow.is_stopped();
        flow.stop();
        let panicked = |_| anyhow::anyhow!("a thread that drives Redis panicked");
        producer.join().map_err(panicked)??;
        drainer.join().map_err(panicked)??;
        anyhow::ensure!(!ended_early, "Redis was left before the time was over");
        measured
    })
}

fn hongbao(options: &Options, mode: Mode) -> anyhow::Result<f64> {
    rate(options, mode, 0)
}

fn rate(options: &Options, mode: Mode, queued: u64) -> anyhow::Result<f64> {
    payouts(options, mode, queued, |_, flow| per_s(options)(flow))
}

/// MiB that are resident after as many payments, whatever the queue.
fn memory(options: &Options, mode: Mode, queued: u64) -> anyhow::Result<f64> {
    let paid_min = (options.for_s * PAID_PER_S) as u64;
    payouts(options, mode, queued, |server, flow| {
        await_that("so much to be drained", || {
            Ok(flow.is_stopped() || flow.drained.load(Ordering::Relaxed) >= paid_min)
        })?;
        server.pid().and_then(resident_mib).context("hongbao has ended")
    })
}

/// The complete service in the place of the client that does nothing: embedded ledger, outcomes recorded, view. So
/// many requests wait before it begins.
fn payouts(
    options: &Options,
    mode: Mode,
    queued: u64,
    measure: impl FnOnce(&Server, &Flow) -> anyhow::Result<f64>,
) -> anyhow::Result<f64> {
    let redis = Own::start(options, mode)?;
    let folder = options.folder.join("hongbao");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let text = format!(
        "about = \"ceiling\"\narrivals = {{ shape = \"constant\", per_s = 1, for_s = 1 }}\n[setup]\n\
         wallet = \"embedded\"\npace_per_s = 0\n\
         set = [\"intake.kind=redis\", \"intake.redis.url=redis://{}\"]\n",
        redis.server.address
    );
    let scenario = Scenario::parse("ceiling", &text, &folder)?;
    let target = Target::start(&scenario, &folder, &AtomicBool::new(false))?;
    let server = &target.servers[0];
    let mut caller = Caller::new(target.instances[0], None, CALL_TIMEOUT);
    open_campaign(&mut caller).context("making the campaign that the list's requests are paid from")?;
    // Asleep, it leaves the list alone; awake, it finds its units again.
    server.freeze();
    let flow = Flow::with_lead(queued.max(LEAD));
    let drain = |redis, flow: &Flow| {
        await_that("the list to be filled", || Ok(flow.is_stopped() || flow.is_filled()))?;
        server.unfreeze();
        follow(redis, flow)
    };
    let measured = drained(redis.server.address, Form::List(LIST), &flow, &drain, |flow| {
        await_that("the list to be read", || {
            Ok(flow.is_stopped() || flow.drained.load(Ordering::Relaxed) > 0)
        })?;
        measure(server, flow)
    })?;
    let pushed = flow.pushed.load(Ordering::Relaxed);
    let paid = await_that("what was pushed to be paid", || Ok(paid(&mut caller)? == pushed));
    paid.with_context(|| format!("{pushed} requests were pushed; paid: {:?}", self::paid(&mut caller)))?;
    server.stop();
    std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    Ok(measured)
}

/// Tells the flow what was drained, from the lists' own lengths, until all of it is.
fn follow(redis: SocketAddr, flow: &Flow) -> anyhow::Result<()> {
    let mut wire = Wire::connect(redis)?;
    let lists = [LIST, SEALED[0], SEALED[1]];
    while !flow.is_stopped() {
        // Before the lengths: what is pushed in between counts as waiting.
        let pushed = flow.pushed.load(Ordering::Relaxed);
        let waits = drain::length(&mut wire, &lists).context("asking Redis how long the lists are")?;
        flow.drained.fetch_max(pushed.saturating_sub(waits), Ordering::Relaxed);
        std::thread::sleep(LOOK_EVERY);
    }
    await_that("the lists to be drained", || Ok(drain::length(&mut wire, &lists)? == 0))
}

fn await_that(what: &str, mut is_so: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + DRAINED_WITHIN;
    while !is_so()? {
        anyhow::ensure!(
            Instant::now() < deadline,
            "waited {} s in vain for {what}",
            DRAINED_WITHIN.as_secs()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Requests that succeeded. What the campaign says it spent is the outcome view's, which comes later.
fn paid(caller: &mut Caller) -> anyhow::Result<u64> {
    let told = caller.call("GET", "/metrics", b"")?;
    let metrics = String::from_utf8_lossy(&told.body);
    let all = metric(&metrics, "hongbao_outcomes_total", |labels| labels.contains("SUCCEEDED"));
    // The campaign's funds.
    Ok(all.saturating_sub(1))
}

fn open_campaign(caller: &mut Caller) -> anyhow::Result<()> {
    let path = format!("/v1/campaigns/{CAMPAIGN}");
    caller.json("PUT", &path, &format!(r#"{{"budget":{FUNDS},"currency":"CNY"}}"#))?;
    caller.json("POST", &format!("{path}/fund"), &format!(r#"{{"id":"fund-1","amount":{FUNDS}}}"#))?;
    await_that("its funds", || Ok(caller.json("GET", &path, "")?["funded"] == FUNDS))
}
