//! The claim it backs: durable accept to durable settled, in process, with the duplicate check on, the outcome
//! log written and the view running (README, "Figures"). A command rather than a criterion bench: one long run.
//!
//! `cargo bench --bench settle`, with `HONGBAO_BENCH_REQUESTS` (default 5,000,000). The ceiling printed beside it
//! is the same number of bytes written to the same disk and synced as often, by a loop that does nothing else.

use std::time::{Duration, Instant};

use hongbao::app::{Extras, Service, now_ms};
use hongbao::config::{Sources, load};
use hongbao::digest::Stamper;
use hongbao::domain::{Amount, Campaign, CampaignState, Currency, Kind, Lane, Request, Status};
use hongbao::intake::desk::{CampaignChange, Decision};

const ACCOUNTS: u64 = 100_000;
const BATCH: usize = 1_000;
const IN_FLIGHT: usize = 8;

/// SplitMix64: ids must differ and look random; nothing more.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn id(&mut self) -> String {
        const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
        let mut id = String::with_capacity(24);
        for _ in 0..2 {
            let mut bits = self.next();
            for _ in 0..12 {
                id.push(char::from(ALPHABET[(bits & 31) as usize]));
                bits >>= 5;
            }
        }
        id
    }
}

fn request<'a>(kind: Kind, id: &'a str, party: &'a str, amount: u64) -> Request<'a> {
    let (amount, currency) =
        (Amount::new(amount).expect("small"), Currency::parse("CNY").expect("a currency"));
    Request { party, ..Request::new(kind, "bench", id, "spring", amount, currency) }
}

fn campaign(budget: u64) -> Campaign {
    Campaign {
        client: "bench".to_owned(),
        id: "spring".to_owned(),
        currency: Currency::parse("CNY").expect("a currency"),
        budget: Amount::new(budget).expect("within bounds"),
        amount_max: None,
        per_payee_count: None,
        per_payee_amount: None,
        starts_at: 0,
        ends_at: 0,
        lane: Lane::Realtime,
        state: CampaignState::Active,
        created_at: 0,
        updated_at: 0,
        closed_at: 0,
    }
}

fn settled(service: &Service) -> u64 {
    service.pipeline.settled.by_status[Status::Succeeded as usize - 1]
        .load(std::sync::atomic::Ordering::Relaxed)
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn main() {
    let count: u64 =
        std::env::var("HONGBAO_BENCH_REQUESTS").ok().and_then(|text| text.parse().ok()).unwrap_or(5_000_000);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sets = vec![format!("data.dir={}", folder.path().join("data").display())];
    let config = load(&Sources { sets, ..Sources::default() }).expect("the defaults are valid");
    let service = Service::start(config, Extras::default()).expect("the service starts");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");

    let mut stamper = Stamper::default();
    runtime.block_on(async {
        let change = CampaignChange::Put(Box::new(campaign(1 << 50)));
        service.desk.campaign("bench", "spring", Some(change)).await.expect("the campaign is made");
        let fund = stamper.encode(request(Kind::Fund, "fund-1", "", 1 << 50));
        service.desk.submit(None, vec![fund]).await.expect("it is funded");
    });
    while settled(&service) < 1 {
        std::thread::sleep(Duration::from_millis(1));
    }

    let cpu_before = cpu_seconds();
    let stats_before = service.journal.stats();
    let began = Instant::now();
    let mut random = Random(now_ms());
    let mut in_flight = std::collections::VecDeque::new();
    let mut accepted = 0u64;
    let collect = |decisions: Vec<Decision>| {
        decisions.iter().filter(|decision| matches!(decision, Decision::Accepted { .. })).count() as u64
    };
    let mut sent = 0;
    while sent < count {
        let size = BATCH.min((count - sent) as usize);
        let batch: Vec<Vec<u8>> = (0..size)
            .map(|_| {
                let (id, payee) = (random.id(), format!("payee-{:06}", random.next() % ACCOUNTS));
                stamper.encode(request(Kind::Disbursement, &id, &payee, 1 + random.next() % 200))
            })
            .collect();
        sent += size as u64;
        let desk = service.desk.clone();
        in_flight.push_back(runtime.spawn(async move { desk.submit(None, batch).await }));
        if in_flight.len() >= IN_FLIGHT {
            let first = in_flight.pop_front().expect("just counted");
            accepted += collect(runtime.block_on(first).expect("no panic").expect("accepted"));
        }
    }
    for rest in in_flight {
        accepted += collect(runtime.block_on(rest).expect("no panic").expect("accepted"));
    }
    let accept_s = began.elapsed().as_secs_f64();
    assert_eq!(accepted, count, "every request is accepted");
    while settled(&service) < count + 1 {
        assert_eq!(service.poison.reason(), None);
        std::thread::sleep(Duration::from_millis(1));
    }
    let settle_s = began.elapsed().as_secs_f64();
    let cpu = cpu_seconds() - cpu_before;
    let stats = service.journal.stats();
    let (syncs, bytes) = (stats.syncs - stats_before.syncs, stats.bytes_written - stats_before.bytes_written);

    println!("requests            {count}");
    println!("accepted            {:.0}/s, all durable after {accept_s:.2} s", count as f64 / accept_s);
    println!("settled             {:.0}/s, all durable after {settle_s:.2} s", count as f64 / settle_s);
    println!("bytes per sync      {} ({syncs} syncs, {} bytes per request)", bytes / syncs, bytes / count);
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
