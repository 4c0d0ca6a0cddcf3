//! HTTP rows: the generator as fast as it is answered (closed loop), at a bare server and at hongbao.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::Options;
use super::bare::Does;
use crate::generator::{self, Counts, Live, Outlets, Pace, Plan};
use crate::scenario::{Generator, Load, Scenario};
use crate::target::{Access, CALL_TIMEOUT, Server, ServerSpec, Target};
use crate::traffic::{HttpHead, Traffic};
use crate::treasury;

const BATCH: u32 = 500;
/// Connections that carry batches; each call is long.
const BATCH_CONNECTIONS: u32 = 8;
/// Settled as fast as it is accepted.
const UNPACED: u64 = 0;
/// What the wallet is given in a moment of many times its rate: nearly everything waits.
const PACE_PER_S: u64 = 5_000;

/// Tells the runs within one ceiling apart.
static RUNS: AtomicU64 = AtomicU64::new(0);

pub fn bare_singles(options: &Options) -> anyhow::Result<f64> {
    bare(options, Does::Nothing, 1)
}

pub fn parsed_singles(options: &Options) -> anyhow::Result<f64> {
    bare(options, Does::Parse, 1)
}

pub fn bare_batches(options: &Options) -> anyhow::Result<f64> {
    bare(options, Does::Nothing, BATCH)
}

pub fn parsed_batches(options: &Options) -> anyhow::Result<f64> {
    bare(options, Does::Parse, BATCH)
}

pub fn hongbao_singles(options: &Options) -> anyhow::Result<f64> {
    hongbao(options, 1, UNPACED)
}

pub fn hongbao_batches(options: &Options) -> anyhow::Result<f64> {
    hongbao(options, BATCH, UNPACED)
}

pub fn shaved_singles(options: &Options) -> anyhow::Result<f64> {
    hongbao(options, 1, PACE_PER_S)
}

pub fn shaved_batches(options: &Options) -> anyhow::Result<f64> {
    hongbao(options, BATCH, PACE_PER_S)
}

fn load(batch: u32) -> Load {
    let batch_share = if batch > 1 { 1.0 } else { 0.0 };
    Load { batch_share, batch_size: batch.max(2), payees: 100_000, campaigns: 1, ..Load::default() }
}

fn bare(options: &Options, does: Does, batch: u32) -> anyhow::Result<f64> {
    let does = if does == Does::Parse { "parse" } else { "nothing" };
    let spec = ServerSpec {
        name: "bare".to_owned(),
        program: std::env::current_exe().context("where this program is")?,
        args: vec!["bare".to_owned(), "--does".to_owned(), does.to_owned(), "--listen".to_owned()],
        listen: |args, address| args.push(address),
        log: options.folder.join("bare.log"),
        ready: "listening on http://",
        hint: "",
    };
    let server = Server::start(spec, &AtomicBool::new(false))?;
    flood(options, &traffic(batch), &load(batch), vec![server.address])
}

fn traffic(batch: u32) -> Arc<Traffic> {
    let number = RUNS.fetch_add(1, Ordering::Relaxed);
    let run = format!("{:04x}{number:04x}", std::process::id() & 0xFFFF);
    Arc::new(Traffic::new(&run, number, &load(batch)))
}

fn hongbao(options: &Options, batch: u32, pace_per_s: u64) -> anyhow::Result<f64> {
    let text = "about = \"ceiling\"\narrivals = { shape = \"constant\", per_s = 1, for_s = 1 }\n\
                [setup]\nwallet = \"embedded\"\n";
    let mut scenario = Scenario::parse("ceiling", text, &options.folder)?;
    scenario.setup.pace_per_s = pace_per_s;
    let folder = options.folder.join("hongbao");
    std::fs::create_dir_all(&folder)?;
    let target = Target::start(&scenario, &folder, &AtomicBool::new(false))?;
    let traffic = traffic(batch);
    let access = Access { authorization: None, client: "default".to_owned() };
    let mut caller = crate::http::Caller::new(target.instances[0], access.authorization, CALL_TIMEOUT);
    treasury::open(&mut caller, &traffic, 5e7, load(batch).amount_max)?;
    let rate = flood(options, &traffic, &load(batch), target.instances.clone());
    drop(target);
    // Every round begins in a young folder.
    std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    rate
}

/// Requests acknowledged a second.
fn flood(
    options: &Options,
    traffic: &Arc<Traffic>,
    load: &Load,
    addresses: Vec<std::net::SocketAddr>,
) -> anyhow::Result<f64> {
    let connections = if load.batch_share > 0.0 { BATCH_CONNECTIONS } else { options.connections };
    let epoch = Instant::now();
    let plan = Arc::new(Plan {
        pace: Pace::Flood { for_s: options.for_s },
        traffic: traffic.clone(),
        load: load.clone(),
        settings: Generator { connections, persist_s: 5.0, ..Generator::default() },
        head: HttpHead::new(&addresses[0].to_string(), None),
        addresses,
        epoch,
        begin: epoch + Duration::from_millis(200),
        part: 0,
        parts: 1,
        lane_first: 0,
        live: Arc::new(Live::default()),
        stop: Arc::new(AtomicBool::new(false)),
    });
    // Nobody follows: what is told is dropped with the receivers.
    let (acknowledged, _) = mpsc::channel();
    let (intervals, _) = mpsc::channel();
    let lanes = generator::generate(&plan, &Outlets { acknowledged, intervals })?;
    let mut counts = Counts::default();
    lanes.iter().for_each(|lane| counts.merge(&lane.counts));
    anyhow::ensure!(
        counts.refused_total() + counts.unanswered == 0,
        "not everything was accepted: {} refused, {} unanswered",
        counts.refused_total(),
        counts.unanswered
    );
    Ok(counts.accepted as f64 / options.for_s)
}
