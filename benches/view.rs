//! How fast the outcome view applies facts to a table that is already large, and answers from it.
//!
//! `HONGBAO_VIEW_ROWS` sets the size of the table before (default: one million). The facts come as a burst
//! does: a run of requests is accepted, then settled; 24-character random ids, 100,000 parties.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hongbao::digest::key_hash_of;
use hongbao::domain::{Amount, Currency, Kind, Lane, Request, Status};
use hongbao::outcome::entry::Outcome;
use hongbao::outcome::view::{ListRows, View};
use hongbao::outcome::{Fact, FactSource, SourceError};

/// Requests accepted before the first of them settles.
const RUN: u64 = 200_000;
/// Bytes of log a request and its outcome take.
const STRIDE: u64 = 280;
const CHUNK_FACTS: usize = 40_000;
const PARTIES: u64 = 100_000;

/// A log that makes its facts up as it is read: 2 × `RUN` facts a run, the cursor counts facts.
struct Burst {
    end: u64,
    hashes: Vec<u64>,
}

fn mixed(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn id(number: u64) -> String {
    format!("{:016x}{:08x}", mixed(number), number as u32)
}

impl Burst {
    fn new(requests: u64) -> Burst {
        let hashes = (0..requests).map(|number| key_hash_of("shop", &id(number))).collect();
        Burst { end: 2 * requests, hashes }
    }

    fn accepted(&self, number: u64, apply: &mut dyn FnMut(Fact<'_>)) {
        let (id, party) = (id(number), format!("user-{:08}", mixed(!number) % PARTIES));
        let batch = format!("batch-{}", number / 500);
        let request = Request {
            kind: Kind::Disbursement,
            lane: Lane::Realtime,
            digest: [0; 16],
            key_hash: self.hashes[number as usize],
            amount: Amount::new(1 + number % 20_000).expect("small"),
            currency: Currency::parse("CNY").expect("a currency"),
            accepted_at: 1_700_000_000_000 + number / 400,
            not_before: 0,
            not_after: 0,
            client: "shop",
            id: &id,
            campaign: "spring",
            party: &party,
            merchant: "",
            agreement: "",
            batch: if number.is_multiple_of(2) { &batch } else { "" },
            original: "",
            remark: "",
            metadata: "",
        };
        apply(Fact::Accepted { place: number * STRIDE, request });
    }

    fn settled(&self, number: u64, apply: &mut dyn FnMut(Fact<'_>)) {
        let failed = number.is_multiple_of(1_000);
        apply(Fact::Moved(Outcome {
            status: if failed { Status::Failed } else { Status::Succeeded },
            code: None,
            reason: None,
            kind: Kind::Disbursement,
            lane: None,
            request_place: number * STRIDE,
            follows_place: number * STRIDE,
            key_hash: self.hashes[number as usize],
            at: 1_700_000_001_000 + number / 400,
            next_attempt_at: 0,
            attempts: 1,
            campaign_number: 1,
            amount: 1 + number % 20_000,
            wallet_ref: "T-000000000001",
        }));
    }
}

impl FactSource for Burst {
    fn read(
        &self,
        cursor: u64,
        count_max: usize,
        apply: &mut dyn FnMut(Fact<'_>),
    ) -> Result<u64, SourceError> {
        let end = self.end.min(cursor + count_max as u64);
        for fact in cursor..end {
            let (run, within) = (fact / (2 * RUN), fact % (2 * RUN));
            match within.checked_sub(RUN) {
                None => self.accepted(run * RUN + within, apply),
                Some(within) => self.settled(run * RUN + within, apply),
            }
        }
        Ok(end)
    }

    fn end(&self) -> u64 {
        self.end
    }
}

fn rows_before() -> u64 {
    let rows = std::env::var("HONGBAO_VIEW_ROWS").ok().and_then(|text| text.parse().ok());
    rows.unwrap_or(1_000_000u64).div_ceil(RUN) * RUN
}

fn bench(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let view = View::open(&folder.path().join("view.sqlite")).expect("a new view");
    let before = rows_before();
    let source = Burst::new(before + 40 * RUN);
    while view.progress().cursor < 2 * before {
        view.apply(&source, CHUNK_FACTS).expect("applied");
    }

    let mut group = c.benchmark_group("view");
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_secs(5));
    group.throughput(Throughput::Elements(RUN));
    group.bench_function("accepted and settled pairs", |b| {
        b.iter_custom(|runs| {
            let started = Instant::now();
            for _ in 0..runs {
                let until = view.progress().cursor + 2 * RUN;
                while view.progress().cursor < until {
                    assert!(view.apply(&source, CHUNK_FACTS).expect("applied").advanced, "the log ran out");
                }
            }
            started.elapsed()
        });
    });

    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(1));
    let mut number = 0;
    group.bench_function("find one id", |b| {
        b.iter_batched(
            || {
                number += 1;
                vec![id(mixed(number) % before)]
            },
            |ids| black_box(view.find("shop", &ids).expect("found")),
            BatchSize::SmallInput,
        );
    });
    let listings = [
        ("page of 100 by campaign", ListRows { campaign: Some("spring".into()), ..listing() }),
        ("page of 100 by party", ListRows { party: Some("user-00000007".into()), ..listing() }),
        ("page of 100 failed", ListRows { status: Some(Status::Failed), ..listing() }),
        ("page of 100 settled late", ListRows { settled_from: settled_late(before), ..listing() }),
    ];
    for (name, asked) in listings {
        group.bench_function(name, |b| b.iter(|| black_box(view.list(&asked).expect("listed"))));
    }
    group.finish();
}

fn listing() -> ListRows {
    ListRows { client: "shop".into(), limit: 100, ..ListRows::default() }
}

fn settled_late(before: u64) -> u64 {
    1_700_000_001_000 + before / 400 - 1
}

criterion_group!(benches, bench);
criterion_main!(benches);
