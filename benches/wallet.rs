//! The claims it backs: settled transfers a second through the HTTP wallet adapter and the reference wallet in a
//! second process, batches of 1,000, with the wallet's own rate in the same run as its ceiling; and item touches with
//! a tenth of the replies lost (README, "Figures"). A command: one long run.
//!
//! `cargo bench --bench wallet`, with `HONGBAO_BENCH_REQUESTS` (default 1,000,000).

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hongbao::app::{Extras, Service};
use hongbao::config::{Sources, load};
use hongbao::digest::Stamper;
use hongbao::domain::transfer::Names;
use hongbao::domain::{Kind, Request};
use hongbao::stored_value::TransferBatch;
use hongbao::stored_value::http::{HttpOptions, HttpWallet};
use hongbao::stored_value::remote::RemoteWallet;
use support::{Producer, Random, count_from_env, request, settled, wait_settled};

const BATCH: usize = 1_000;
const CALLS: usize = 8;

struct Wallet {
    child: Child,
    url: String,
}

impl Wallet {
    fn start(folder: &std::path::Path, faults: &[&str]) -> Wallet {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hongbao"));
        command.args(["wallet", "--listen", "127.0.0.1:0", "--data"]).arg(folder.join("wallet"));
        for fault in faults {
            command.args(["--fault", fault]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the wallet starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("its address");
        let url = line.trim().strip_prefix("listening on ").expect("it listens").to_owned();
        Wallet { child, url }
    }
}

impl Drop for Wallet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same transfers, sent by nothing but the adapter.
fn ceiling(url: &str, count: u64) -> f64 {
    let options = HttpOptions {
        url: url.to_owned(),
        authorization: String::new(),
        ca_file: String::new(),
        connections_max: CALLS,
    };
    let wallet = Arc::new(HttpWallet::new(&options).expect("the adapter"));
    let (mut stamper, mut random, mut names) = (Stamper::default(), Random(99), Names::default());
    let fund = stamper.encode(request(Kind::Fund, "ceiling-fund", "", 1 << 50));
    let mut batches: Vec<TransferBatch> = Vec::new();
    let mut push = |record: &[u8], batch: &mut TransferBatch| {
        let request = Request::decode(record).expect("just encoded");
        names.fill(&request);
        batch.push(&names.transfer(&request));
    };
    let mut first = TransferBatch::default();
    push(&fund, &mut first);
    for _ in 0..count / BATCH as u64 {
        let mut batch = TransferBatch::default();
        for _ in 0..BATCH {
            let (id, payee) = (random.id(), format!("payee-{:06}", random.next() % support::ACCOUNTS));
            push(&stamper.encode(request(Kind::Disbursement, &id, &payee, 1)), &mut batch);
        }
        batches.push(batch);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let deadline = Duration::from_secs(10);
    runtime.block_on(wallet.transfer(Arc::new(first), deadline)).expect("funded");
    let began = Instant::now();
    runtime.block_on(async {
        let queue = Arc::new(std::sync::Mutex::new(batches));
        let callers: Vec<_> = (0..CALLS)
            .map(|_| {
                let (queue, wallet) = (queue.clone(), wallet.clone());
                tokio::spawn(async move {
                    loop {
                        let Some(batch) = queue.lock().expect("no panic").pop() else { return };
                        wallet.transfer(Arc::new(batch), deadline).await.expect("an answer");
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.expect("no panic");
        }
    });
    count as f64 / began.elapsed().as_secs_f64()
}

fn start(folder: &std::path::Path, url: &str) -> Service {
    let sets = vec![
        format!("data.dir={}", folder.join("data").display()),
        "stored_value.kind=http".to_owned(),
        format!("stored_value.http.url={url}"),
        format!("stored_value.batch_count_max={BATCH}"),
        format!("stored_value.calls_max={CALLS}"),
        "stored_value.deadline_ms=500".to_owned(),
        // Above what it can do: the wallet is the bound.
        "shaping.transfers_per_s=400000".to_owned(),
    ];
    let config = load(&Sources { sets, ..Sources::default() }).expect("valid settings");
    Service::start(config, Extras::default()).expect("the service starts")
}

/// Settles a backlog of `count`; answers its rate and how often each item was sent.
fn run(count: u64, faults: &[&str]) -> (f64, f64, f64) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let wallet = Wallet::start(folder.path(), faults);
    let ceiling = if faults.is_empty() { ceiling(&wallet.url, count) } else { 0.0 };
    let service = start(folder.path(), &wallet.url);
    let mut producer = Producer::new(7);
    producer.open(&service);
    service.pipeline.counts.paused.store(true, Ordering::Release);
    producer.produce(&service, count);
    let sent = service.pipeline.remote.entries.load(Ordering::Relaxed);
    let began = Instant::now();
    service.pipeline.counts.paused.store(false, Ordering::Release);
    service.pipeline.ring();
    wait_settled(&service, count + 1);
    let rate = count as f64 / began.elapsed().as_secs_f64();
    assert_eq!(settled(&service), count + 1, "every one succeeded, once");
    let touches = (service.pipeline.remote.entries.load(Ordering::Relaxed) - sent) as f64 / count as f64;
    service.stop(Duration::from_secs(30)).expect("the service stops");
    (rate, touches, ceiling)
}

fn main() {
    let count = count_from_env(1_000_000);
    let (rate, touches, ceiling) = run(count, &[]);
    println!(
        "http wallet         {rate:.0} settled/s = {:.2} of the adapter alone ({ceiling:.0}/s); {touches:.3} touches",
        rate / ceiling
    );
    let (rate, touches, _) = run(count, &["drop_after_rate=0.1"]);
    println!("a tenth of replies lost   {rate:.0} settled/s, {touches:.3} touches an item");
}
