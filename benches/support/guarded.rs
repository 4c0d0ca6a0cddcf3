//! What shaper and breaker cost the settle path: two services that differ in nothing else, in turns.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hongbao::app::{Extras, Service};
use hongbao::config::{Sources, load};
use hongbao::domain::TransferStatus;
use hongbao::stored_value::TransferBatch;
use hongbao::stored_value::remote::{Answer, OnRecord, RemoteWallet, Reply};

use super::support::{Producer, count_from_env, cpu_seconds, settled, wait_settled};

const WALLET: &str = "7a2c3c7e-0000-4000-8000-000000000001";
const BATCH: usize = 1_000;

/// Carries everything out at once and remembers nothing.
struct Instantly;

impl Instantly {
    fn all(count: usize) -> Reply<Vec<Answer>> {
        let answer = Answer { status: TransferStatus::Succeeded, wallet_ref: String::new() };
        Box::pin(async move { Ok(vec![answer; count]) })
    }
}

impl RemoteWallet for Instantly {
    fn identity(&self) -> Reply<String> {
        Box::pin(async { Ok(WALLET.to_owned()) })
    }

    fn transfer(&self, batch: Arc<TransferBatch>, _deadline: Duration) -> Reply<Vec<Answer>> {
        Instantly::all(batch.len())
    }

    fn burn(&self, ids: Vec<String>, _deadline: Duration) -> Reply<Vec<Answer>> {
        Instantly::all(ids.len())
    }

    fn lookup(&self, ids: Vec<String>, _deadline: Duration) -> Reply<Vec<Option<OnRecord>>> {
        Box::pin(async move { Ok(vec![None; ids.len()]) })
    }
}

struct Side {
    service: Service,
    producer: Producer,
    settled: u64,
    rates: Vec<f64>,
    cpu_s: f64,
}

impl Side {
    fn start(folder: &Path, with_breaker: bool, seed: u64) -> Side {
        let sets = vec![
            format!("data.dir={}", folder.join(if with_breaker { "with" } else { "without" }).display()),
            "stored_value.kind=http".to_owned(),
            "stored_value.http.url=http://127.0.0.1:1".to_owned(),
            format!("stored_value.batch_count_max={BATCH}"),
            // Snapshots come when they come, and would fall into some rounds only.
            "data.checkpoint_bytes=1099511627776".to_owned(),
            "stored_value.deadline_ms=100".to_owned(),
            // More than the machine does, so that it never holds.
            "shaping.transfers_per_s=2000000".to_owned(),
        ];
        let config = load(&Sources { sets, ..Sources::default() }).expect("valid settings");
        let wallet: Arc<dyn RemoteWallet> = Arc::new(Instantly);
        let extras = Extras { with_view: false, with_breaker, wallet: Some(wallet), ..Extras::default() };
        let service = Service::start(config, extras).expect("the service starts");
        let mut producer = Producer::new(seed);
        producer.open(&service);
        Side { service, producer, settled: 1, rates: Vec::new(), cpu_s: 0.0 }
    }

    /// Settles a backlog of `count`.
    fn round(&mut self, count: u64) {
        let pause = &self.service.pipeline.counts.paused;
        pause.store(true, Ordering::Release);
        self.producer.produce(&self.service, count);
        let (began, cpu) = (Instant::now(), cpu_seconds());
        pause.store(false, Ordering::Release);
        self.service.pipeline.ring();
        self.settled += count;
        wait_settled(&self.service, self.settled);
        self.rates.push(count as f64 / began.elapsed().as_secs_f64());
        self.cpu_s += cpu_seconds() - cpu;
        assert_eq!(settled(&self.service), self.settled, "every one once");
    }
}

/// The value below which this part of them lies.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

pub fn measure() {
    let count = count_from_env(200_000);
    let pairs: u64 =
        std::env::var("HONGBAO_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    let at =
        std::env::var("HONGBAO_BENCH_FOLDER").unwrap_or_else(|_| std::env::temp_dir().display().to_string());
    let folder = tempfile::tempdir_in(at).expect("a temporary folder");
    let mut with = Side::start(folder.path(), true, 7);
    let mut without = Side::start(folder.path(), false, 8);
    for side in [&mut with, &mut without] {
        side.round(count);
        side.rates.clear();
        side.cpu_s = 0.0;
    }
    for pair in 0..pairs {
        // Whoever comes second finds what the first left to the disk: each does so as often.
        let turns = if pair % 2 == 0 { [&mut with, &mut without] } else { [&mut without, &mut with] };
        turns.into_iter().for_each(|side| side.round(count));
    }
    let sight = with.service.breaker().expect("it has a breaker");
    let held: Vec<_> = sight.held().into_iter().filter(|(_, count)| *count > 0).collect();
    let ratios: Vec<f64> =
        with.rates.iter().zip(&without.rates).map(|(with, without)| with / without).collect();
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    let variance = ratios.iter().map(|ratio| (ratio - mean).powi(2)).sum::<f64>() / (ratios.len() - 1) as f64;
    let error = (variance / ratios.len() as f64).sqrt();
    println!(
        "settle path         {pairs} pairs of rounds of {count}, calls of {BATCH}; calls held: {held:?}"
    );
    for (name, side) in [("with", &with), ("without", &without)] {
        println!(
            "{name:<20}{:.0}/s (median; quartiles {:.0} to {:.0}), {:.3} us of processor time a transfer",
            quantile(&side.rates, 0.5),
            quantile(&side.rates, 0.25),
            quantile(&side.rates, 0.75),
            side.cpu_s * 1e6 / (pairs * count) as f64
        );
    }
    println!(
        "with ÷ without      {:.3} (median of the pairs; quartiles {:.3} to {:.3}), mean {mean:.3} ± {error:.3} (standard error)",
        quantile(&ratios, 0.5),
        quantile(&ratios, 0.25),
        quantile(&ratios, 0.75),
    );
    for side in [with, without] {
        side.service.stop(Duration::from_secs(30)).expect("the service stops");
    }
}
