//! What Redis itself bears, with clients that do nothing: the ceilings beside which hongbao's own figures on Redis
//! are read (README, "Figures").
//!
//! `cargo bench --bench redis`, with `HONGBAO_BENCH_S` (seconds a cell, default 10), `HONGBAO_BENCH_ROUNDS` (default
//! 3), `-- --json` for a line of JSON at the end and `-- WORD` for those cells whose name has the word. Each cell
//! has a Redis of its own, without rewrites of its append-only file, and elements of 200 bytes:
//!
//! - `list`: RPUSH of 1,000 and, beside it, LRANGE of up to 4,000 and LTRIM of as many; requests drained a second;
//! - `stream`: XADD in pipelines of 1,000 and, beside it, a consumer group of one: XREADGROUP, XACK, XTRIM;
//! - `hongbao`: the complete service in the place of the client that does nothing: list, embedded ledger, outcome
//!   recorded, trimmed; its view and its result stream run too. Its share of `list` is the figure;
//! - `push`: the producer alone, and `redis-benchmark` with the same command, connections and pipeline. Where the
//!   producer is a tenth slower than that, the client is what was measured, and the figures are void;
//! - `fdatasync`: how often the disk syncs, with 4 KiB appended each time.
//!
//! The producer keeps a bounded lead over whoever drains, so what is drained is what could be taken in for ever.

mod support;
#[path = "../tests/support/mod.rs"]
mod tests;

use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;
use support::payouts::{BATCH, CONNECTIONS, DEPTH, Flow, Form, Pace, element, produce};
use support::resp::{Wire, command, open, word};
use support::rounds::{Cell, Measured, print, take_turns};
use support::{Random, redis_service};
use tests::env_number;
use tests::redis::{Fsync, RedisServer, Setup};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const READ: &str = "4000";
const WARM_UP: Duration = Duration::from_millis(500);
/// What fills Redis and never drains it is bounded by the memory that it takes: so many batches for each of the
/// cell's seconds, of which no more than these count.
const ALONE_BATCHES_PER_S: u64 = 500;
const ALONE_MAX: Duration = Duration::from_secs(5);
/// What the producer must reach of `redis-benchmark`.
const VOID_BELOW: f64 = 0.9;
const LIST: Form<'static> = Form::List("hongbao:intake");
const STREAM: Form<'static> = Form::Stream("hongbao:stream");
const MODES: [(Fsync, &str); 2] = [(Fsync::EverySecond, "every second"), (Fsync::Always, "always")];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let json = args.iter().any(|arg| arg == "--json");
    let words: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let seconds = env_number("HONGBAO_BENCH_S", 10);
    let rounds = env_number("HONGBAO_BENCH_ROUNDS", 3);
    let mut cells = table(Duration::from_secs(seconds));
    let wanted = |cell: &Cell| words.is_empty() || words.iter().any(|word| cell.name.contains(word.as_str()));
    cells.retain(wanted);
    let measured = take_turns(cells, rounds);
    print(&measured);
    let verdicts: Vec<(&str, f64)> =
        MODES.iter().filter_map(|(_, mode)| Some((*mode, producer_share(&measured, mode)?))).collect();
    for (mode, share) in &verdicts {
        let verdict = if *share < VOID_BELOW { "void: the client is the bound" } else { "valid" };
        println!("fsync {mode}: producer ÷ redis-benchmark {share:.2}, {verdict}");
    }
    for (_, mode) in MODES {
        print_shares(&measured, mode);
    }
    if json {
        let cells: Vec<_> = measured.iter().map(Measured::json).collect();
        let checks = verdicts
            .iter()
            .map(|(mode, share)| json!({"fsync": mode, "share": share, "void": *share < VOID_BELOW}));
        let checks: Vec<_> = checks.collect();
        println!(
            "{}",
            json!({"bench": "redis", "seconds": seconds, "rounds": rounds, "cells": cells, "checks": checks})
        );
    }
}

/// Everything that is measured, in the order of a round.
fn table(length: Duration) -> Vec<Cell> {
    let alone = length.min(ALONE_MAX);
    // Of one count for both sides, not of one time: what fills the disk's cache longer is slower for that alone.
    let batches = alone.as_secs().max(1) * ALONE_BATCHES_PER_S;
    let cell = |name: String, unit, measure: Box<dyn FnMut() -> f64>| Cell { name, unit, measure };
    let mut cells = Vec::new();
    for (fsync, mode) in MODES {
        let push = move || push_alone(fsync, batches);
        cells.push(cell(producer_name(mode), "items/s", Box::new(push)));
        let other = move || redis_benchmark(fsync, batches);
        cells.push(cell(reference_name(mode), "items/s", Box::new(other)));
        let service = move || drained(fsync, LIST, length, &drain_by_hongbao);
        cells.push(cell(service_name(mode), "items/s", Box::new(service)));
        let list = move || drained(fsync, LIST, length, &drain_list);
        cells.push(cell(list_name(mode), "items/s", Box::new(list)));
        let stream = move || drained(fsync, STREAM, length, &drain_stream);
        cells.push(cell(stream_name(mode), "items/s", Box::new(stream)));
    }
    cells.push(cell("fdatasync of 4 KiB".to_owned(), "syncs/s", Box::new(move || fdatasync(alone))));
    cells
}

fn service_name(mode: &str) -> String {
    format!("hongbao, fsync {mode}")
}

fn list_name(mode: &str) -> String {
    format!("list, fsync {mode}")
}

fn stream_name(mode: &str) -> String {
    format!("stream group, fsync {mode}")
}

fn producer_name(mode: &str) -> String {
    format!("push, fsync {mode}")
}

fn reference_name(mode: &str) -> String {
    format!("push by redis-benchmark, {mode}")
}

/// What hongbao reaches of the clients that do nothing.
fn print_shares(measured: &[Measured], mode: &str) {
    let median = |name: String| measured.iter().find(|cell| cell.name == name).map(Measured::median);
    let Some(own) = median(service_name(mode)) else { return };
    for (what, name) in [("list", list_name(mode)), ("stream group", stream_name(mode))] {
        if let Some(other) = median(name) {
            println!("fsync {mode}: hongbao ÷ {what} {:.2}", own / other);
        }
    }
}

/// The producer's median beside that of `redis-benchmark`.
fn producer_share(measured: &[Measured], mode: &str) -> Option<f64> {
    let median = |name: String| measured.iter().find(|cell| cell.name == name).map(Measured::median);
    Some(median(producer_name(mode))? / median(reference_name(mode))?)
}

/// A Redis for one cell.
fn server(fsync: Fsync) -> RedisServer {
    RedisServer::start(Setup::new(fsync).set("auto-aof-rewrite-percentage", "0"))
}

/// Items a second that the producer gets in, with nobody to drain them.
fn push_alone(fsync: Fsync, batches: u64) -> f64 {
    let server = server(fsync);
    let took = produce(server.address(), LIST, 1, Pace::Batches(batches), &Flow::default());
    (batches * BATCH as u64) as f64 / took.as_secs_f64()
}

/// The same command by `redis-benchmark`, as often.
fn redis_benchmark(fsync: Fsync, batches: u64) -> f64 {
    let server = server(fsync);
    let mut benchmark = Command::new("redis-benchmark");
    benchmark.args(["-p", &server.port().to_string(), "-c", &CONNECTIONS.to_string()]);
    benchmark.args([
        "-P",
        &DEPTH.to_string(),
        "-n",
        &batches.to_string(),
        "--csv",
        "RPUSH",
        "hongbao:intake",
    ]);
    let mut dice = Random(1);
    benchmark.args((0..BATCH).map(|n| element(&n.to_string(), &mut dice)));
    let said =
        benchmark.output().expect("redis-benchmark runs (Debian, Ubuntu: apt-get install redis-tools)");
    let text = String::from_utf8_lossy(&said.stdout);
    // The command itself, which has commas, then rate and six latencies.
    let rate =
        text.trim_end().rsplit(',').nth(6).and_then(|field| field.trim_matches('"').parse::<f64>().ok());
    rate.expect("a rate") * BATCH as f64
}

/// Items a second that are drained while the producer runs beside.
fn drained(
    fsync: Fsync,
    form: Form<'static>,
    length: Duration,
    drain: &(dyn Fn(SocketAddr, &Flow) + Sync),
) -> f64 {
    let (server, flow) = (server(fsync), Flow::default());
    let address = server.address();
    std::thread::scope(|scope| {
        scope.spawn(|| produce(address, form, 1, Pace::Lead, &flow));
        scope.spawn(|| drain(address, &flow));
        std::thread::sleep(WARM_UP);
        let (before, began) = (flow.drained.load(Ordering::Relaxed), Instant::now());
        std::thread::sleep(length);
        let count = flow.drained.load(Ordering::Relaxed) - before;
        let s = began.elapsed().as_secs_f64();
        flow.stop.store(true, Ordering::Relaxed);
        count as f64 / s
    })
}

/// Reads from the head, and gives back what was read together with the next wish: one round trip for both.
fn drain_list(redis: SocketAddr, flow: &Flow) {
    let Form::List(key) = LIST else { unreachable!("a list") };
    let mut wire = Wire::connect(redis);
    let last = (READ.parse::<u64>().expect("a number") - 1).to_string();
    let (mut bytes, mut trims) = (Vec::new(), 0);
    while !flow.stopped() {
        command(&mut bytes, &["LRANGE", key, "0", &last]);
        wire.send(&bytes);
        (0..std::mem::take(&mut trims)).for_each(|_| wire.skip());
        let count = wire.array();
        (0..count).for_each(|_| {
            wire.string();
        });
        flow.drained.fetch_add(count, Ordering::Relaxed);
        bytes.clear();
        if count == 0 {
            flow.pause();
            continue;
        }
        command(&mut bytes, &["LTRIM", key, &count.to_string(), "-1"]);
        trims = 1;
    }
}

/// The service, with all that it has to do.
fn drain_by_hongbao(redis: SocketAddr, flow: &Flow) {
    let folder = tempfile::tempdir().expect("a folder");
    let sets = std::env::var("HB_SETS").unwrap_or_default();
    let sets: Vec<&str> = sets.split(';').filter(|set| !set.is_empty()).collect();
    let service = redis_service::start(redis, folder.path(), &sets);
    let before = redis_service::settled(&service);
    while !flow.stopped() {
        flow.drained.store(redis_service::settled(&service) - before, Ordering::Relaxed);
        flow.pause();
    }
    redis_service::stop(service);
}

/// A consumer group of one.
fn drain_stream(redis: SocketAddr, flow: &Flow) {
    let Form::Stream(key) = STREAM else { unreachable!("a stream") };
    let mut wire = Wire::connect(redis);
    wire.call(&["XGROUP", "CREATE", key, "group", "0", "MKSTREAM"]);
    let read = ["XREADGROUP", "GROUP", "group", "one", "COUNT", READ, "STREAMS", key, ">"];
    let (mut bytes, mut ids, mut acks) = (Vec::new(), Vec::new(), 0);
    while !flow.stopped() {
        command(&mut bytes, &read);
        wire.send(&bytes);
        (0..std::mem::take(&mut acks)).for_each(|_| wire.skip());
        let count = read_entries(&mut wire, &mut ids);
        flow.drained.fetch_add(count, Ordering::Relaxed);
        bytes.clear();
        if count == 0 {
            flow.pause();
            continue;
        }
        open(&mut bytes, 3 + ids.len());
        ["XACK", key, "group"].iter().for_each(|text| word(&mut bytes, text.as_bytes()));
        ids.iter().for_each(|id: &Vec<u8>| word(&mut bytes, id));
        let last = String::from_utf8_lossy(&ids[ids.len() - 1]).into_owned();
        command(&mut bytes, &["XTRIM", key, "MINID", "~", &last]);
        acks = 2;
    }
}

/// Reads the entries of one stream, each an id and one field; keeps the ids.
fn read_entries(wire: &mut Wire, ids: &mut Vec<Vec<u8>>) -> u64 {
    ids.clear();
    // Nothing, or one stream: its name and its entries.
    if wire.array() == 0 {
        return 0;
    }
    wire.array();
    wire.string();
    let count = wire.array();
    for _ in 0..count {
        wire.array();
        ids.push(wire.string().to_vec());
        wire.skip();
    }
    count
}

/// Syncs a second, each of 4 KiB at the end of a file.
fn fdatasync(length: Duration) -> f64 {
    let file = tempfile::tempfile().expect("a temporary file");
    let block = [1u8; 4 << 10];
    let (began, mut count) = (Instant::now(), 0u64);
    while began.elapsed() < length {
        file.write_all_at(&block, count * block.len() as u64).expect("written");
        file.sync_data().expect("synced");
        count += 1;
    }
    count as f64 / began.elapsed().as_secs_f64()
}
