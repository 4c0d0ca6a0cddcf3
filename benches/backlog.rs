//! The claims it backs: memory, answers and accept rate at a backlog of five million with settling paused, and
//! the time to be ready again with that backlog and as many settled (README, "Figures"). A command: one long run.
//!
//! `cargo bench --bench backlog`, with `HONGBAO_BENCH_REQUESTS` (default 5,000,000).

mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hongbao::domain::Kind;
use hongbao::intake::desk::Decision;
use support::{Producer, Random, count_from_env, request, start, wait_settled};

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn main() {
    let count = count_from_env(5_000_000);
    let seed = 7;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut service = start(folder.path());
    let mut producer = Producer::new(seed);
    producer.open(&service);
    let before = resident_mib();

    service.pipeline.counts.paused.store(true, Ordering::Release);
    let in_young = tell_rates("in a young folder", &mut producer, &service, count);
    let resident = resident_mib();
    println!("backlog             {}", service.desk.counts().backlog);
    println!("resident            {} MiB above the start ({before} MiB)", resident.saturating_sub(before));
    answers(&service, &mut producer, seed, count);

    service.pipeline.counts.paused.store(false, Ordering::Release);
    service.pipeline.ring();
    wait_settled(&service, count + 1);
    service.pipeline.counts.paused.store(true, Ordering::Release);
    let in_running = tell_rates("with as many settled", &mut producer, &service, count);
    println!("accept rate         {in_running:.2} of that at empty, {in_young:.2} in a young folder");
    service.stop(Duration::from_secs(30)).expect("the service stops");
    let began = Instant::now();
    service = start(folder.path());
    println!(
        "restart             ready after {:.2} s with {} waiting and {count} settled; {}",
        began.elapsed().as_secs_f64(),
        service.desk.counts().backlog,
        service.recovery
    );
    service.stop(Duration::from_secs(30)).expect("the service stops");
}

/// Accepts `count` requests in tenths; answers how the rate of the last three stands to that of the first three.
fn tell_rates(when: &str, producer: &mut Producer, service: &hongbao::app::Service, count: u64) -> f64 {
    let tenth = (count / 10).max(1);
    let rates: Vec<f64> =
        (0..10).map(|_| tenth as f64 / producer.produce(service, tenth).as_secs_f64()).collect();
    println!("accept rates        {when}, thousands/s by tenth of the backlog: {}", {
        rates.iter().map(|rate| format!("{:.0}", rate / 1e3)).collect::<Vec<_>>().join(" ")
    });
    // The harmonic mean: as many requests over the time they took.
    let of = |rates: &[f64]| rates.len() as f64 / rates.iter().map(|rate| 1.0 / rate).sum::<f64>();
    of(&rates[7..]) / of(&rates[..3])
}

/// Any of the ids is answered exactly: found, recognised, and told apart from another body.
fn answers(service: &hongbao::app::Service, producer: &mut Producer, seed: u64, count: u64) {
    let mut random = Random(seed);
    let began = Instant::now();
    let mut asked = 0;
    for n in 0..count {
        let (id, payee, amount) = (random.id(), random.next() % support::ACCOUNTS, 1 + random.next() % 200);
        if n % (count / 1_000).max(1) != 0 {
            continue;
        }
        let payee = format!("payee-{payee:06}");
        let same = producer.stamper.encode(request(Kind::Disbursement, &id, &payee, amount));
        let other = producer.stamper.encode(request(Kind::Disbursement, &id, &payee, amount + 1));
        let (decisions, found) = producer.runtime.block_on(async {
            let decisions = service.desk.submit(None, vec![same, other]).await.expect("decided");
            let ids = [id.clone()];
            let desk = service.desk.clone();
            (decisions, tokio::spawn(async move { desk.find("bench", &ids).await }).await.expect("no panic"))
        });
        assert!(matches!(decisions[0], Decision::Repeated(_)), "{id}: {:?}", decisions[0]);
        assert!(matches!(decisions[1], Decision::Refused(_)), "{id}: {:?}", decisions[1]);
        assert!(found.expect("answered")[0].is_some(), "{id} is found");
        asked += 1;
    }
    println!("answers             {asked} ids exact in {:.2} s", began.elapsed().as_secs_f64());
}
