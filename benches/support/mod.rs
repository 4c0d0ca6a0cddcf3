//! What the long runs share: a service on a folder of its own, a funded campaign, and a producer of random
//! requests that keeps several batches in flight.

#![allow(dead_code, reason = "each bench uses its part")]

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hongbao::app::{Extras, Service};
use hongbao::config::{Sources, load};
use hongbao::digest::Stamper;
use hongbao::domain::{Amount, Campaign, Currency, Kind, Request, Status};
use hongbao::intake::desk::{CampaignChange, Decision};

pub const ACCOUNTS: u64 = 100_000;
const BATCH: usize = 1_000;
const IN_FLIGHT: usize = 8;

/// SplitMix64: ids must differ and look random; nothing more.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn id(&mut self) -> String {
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

pub fn request<'a>(kind: Kind, id: &'a str, party: &'a str, amount: u64) -> Request<'a> {
    let (amount, currency) =
        (Amount::new(amount).expect("small"), Currency::parse("CNY").expect("a currency"));
    Request { party, ..Request::new(kind, "bench", id, "spring", amount, currency) }
}

pub fn campaign(budget: u64) -> Campaign {
    let (currency, budget) = (Currency::parse("CNY"), Amount::new(budget));
    Campaign::new("bench", "spring", currency.expect("a currency"), budget.expect("within bounds"))
}

/// Requests that were paid so far, funding included.
pub fn settled(service: &Service) -> u64 {
    service.pipeline.settled.by_status[Status::Succeeded as usize - 1].load(Ordering::Relaxed)
}

/// Processor time of this process so far.
pub fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// Starts a service on the folder, with the defaults.
pub fn start(folder: &std::path::Path) -> Service {
    let sets = vec![format!("data.dir={}", folder.join("data").display())];
    let config = load(&Sources { sets, ..Sources::default() }).expect("the defaults are valid");
    Service::start(config, Extras::default()).expect("the service starts")
}

/// A client with one funded campaign.
pub struct Producer {
    pub runtime: tokio::runtime::Runtime,
    pub stamper: Stamper,
    random: Random,
}

impl Producer {
    pub fn new(seed: u64) -> Producer {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        Producer { runtime, stamper: Stamper::default(), random: Random(seed) }
    }

    pub fn open(&mut self, service: &Service) {
        let fund = self.stamper.encode(request(Kind::Fund, "fund-1", "", 1 << 50));
        self.runtime.block_on(async {
            let change = CampaignChange::Put(Box::new(campaign(1 << 50)));
            service.desk.campaign("bench", "spring", Some(change)).await.expect("the campaign is made");
            service.desk.submit(None, vec![fund]).await.expect("it is funded");
        });
        wait_settled(service, 1);
    }

    /// Has `count` random requests accepted, and answers how long that took.
    pub fn produce(&mut self, service: &Service, count: u64) -> Duration {
        self.submit(service, count, BATCH, IN_FLIGHT)
    }

    /// The same in batches of this size, so many under way at a time.
    pub fn submit(&mut self, service: &Service, count: u64, batch: usize, callers: usize) -> Duration {
        let began = Instant::now();
        let mut in_flight = VecDeque::new();
        let (mut sent, mut accepted) = (0, 0);
        let collect = |decisions: Vec<Decision>| {
            decisions.iter().filter(|decision| matches!(decision, Decision::Accepted { .. })).count() as u64
        };
        while sent < count {
            let size = batch.min((count - sent) as usize);
            let requests: Vec<Vec<u8>> = (0..size).map(|_| self.request()).collect();
            sent += size as u64;
            let desk = service.desk.clone();
            in_flight.push_back(self.runtime.spawn(async move { desk.submit(None, requests).await }));
            if in_flight.len() >= callers {
                let first = in_flight.pop_front().expect("just counted");
                accepted += collect(self.runtime.block_on(first).expect("no panic").expect("accepted"));
            }
        }
        for rest in in_flight {
            accepted += collect(self.runtime.block_on(rest).expect("no panic").expect("accepted"));
        }
        assert_eq!(accepted, count, "every request is accepted");
        began.elapsed()
    }

    fn request(&mut self) -> Vec<u8> {
        let (id, payee) = (self.random.id(), format!("payee-{:06}", self.random.next() % ACCOUNTS));
        self.stamper.encode(request(Kind::Disbursement, &id, &payee, 1 + self.random.next() % 200))
    }
}

pub fn wait_settled(service: &Service, count: u64) {
    while settled(service) < count {
        assert_eq!(service.poison.reason(), None);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A count from the environment.
pub fn count_from_env(default: u64) -> u64 {
    std::env::var("HONGBAO_BENCH_REQUESTS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
