//! The claim it backs: durable accept to durable settled, in process, with the duplicate check on, the outcome
//! log written and the view running, at a cost that does not grow with the folder (README, "Figures"). A command rather than a criterion bench: one long run.
//!
//! `cargo bench --bench settle`, with `HONGBAO_BENCH_REQUESTS` (default 5,000,000). The ceiling printed beside it
//! is the same number of bytes written to the same disk and synced as often, by a loop that does nothing else.

mod support;

use std::time::{Duration, Instant};

use hongbao::app::{Service, now_ms};
use support::{Producer, count_from_env, cpu_seconds, settled, start, wait_settled};

fn main() {
    let count = count_from_env(5_000_000);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let service = start(folder.path());
    let mut producer = Producer::new(now_ms());
    producer.open(&service);

    let cpu_before = cpu_seconds();
    let stats_before = service.journal.stats();
    let began = Instant::now();
    let (accept_s, tenths) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| tenths(&service, count));
        let accept_s = producer.produce(&service, count).as_secs_f64();
        wait_settled(&service, count + 1);
        (accept_s, watcher.join().expect("no panic"))
    });
    let settle_s = began.elapsed().as_secs_f64();
    let cpu = cpu_seconds() - cpu_before;
    let stats = service.journal.stats();
    let (syncs, bytes) = (stats.syncs - stats_before.syncs, stats.bytes_written - stats_before.bytes_written);

    println!("requests            {count}");
    println!("accepted            {:.0}/s, all durable after {accept_s:.2} s", count as f64 / accept_s);
    println!("settled             {:.0}/s, all durable after {settle_s:.2} s", count as f64 / settle_s);
    println!("bytes per sync      {} ({syncs} syncs, {} bytes per request)", bytes / syncs, bytes / count);
    let texts: Vec<String> = tenths.iter().map(|us| format!("{us:.2}")).collect();
    println!("us per payout       {} in each tenth of the run", texts.join(" "));
    println!("cpu                 {:.2} s per million", cpu * 1e6 / count as f64);
    let view = service.view.clone().expect("the view runs");
    let behind = view.lag();
    let catch_up = Instant::now();
    while view.lag().distance > 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    println!(
        "view catch-up       {:.2} s for about {} facts it was behind",
        catch_up.elapsed().as_secs_f64(),
        behind.facts_estimated
    );
    drop(view);
    service.stop(Duration::from_secs(10)).expect("the service stops");
    ceiling(folder.path(), syncs, bytes);
}

/// Microseconds a payout, tenth by tenth of the run: whether what is in the folder already makes the next one dearer.
fn tenths(service: &Service, count: u64) -> Vec<f64> {
    let mut last = Instant::now();
    let tenth = |number: u64| {
        while settled(service) < 1 + count * number / 10 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let us = last.elapsed().as_secs_f64() * 1e6 / (count as f64 / 10.0);
        last = Instant::now();
        us
    };
    (1..=10).map(tenth).collect()
}

/// The same bytes, the same number of syncs, no work.
fn ceiling(folder: &std::path::Path, syncs: u64, bytes: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(folder.join("ceiling")).expect("a file");
    let chunk = vec![1u8; (bytes / syncs) as usize];
    let began = Instant::now();
    for n in 0..syncs {
        file.write_all_at(&chunk, n * chunk.len() as u64 % (1 << 30)).expect("written");
        file.sync_data().expect("synced");
    }
    let s = began.elapsed().as_secs_f64();
    println!("disk ceiling        {s:.2} s for the same bytes and syncs with nothing else to do");
}
