//! The claim it backs: reading a request, judging it and writing its record costs about a microsecond from JSON, and a
//! fraction of that from a frame that another door wrote, so that a core decodes more than it can settle.
//!
//! `parse` alone is the lower bound: the same JSON into borrowed fields, nothing judged. Payouts have 200 bytes, as on a
//! Redis list. Absent: HTTP, hashing of identities in an index, the disk.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hongbao::domain::Request;
use hongbao::intake::desk::campaigns::Registry;
use hongbao::intake::redis::element::ElementReader;
use hongbao::intake::redis::element::frame::encode_frame;
use hongbao::intake::redis::{Contents, Elements, ForeignList, Order, UnitId, Units};
use hongbao::request::fault::{Faults, Place};
use hongbao::request::judge::{Bench, Expect, Inherited, Judge};
use hongbao::request::wire;

const NOW: u64 = 1_767_225_600_000;
const BATCH: u64 = 500;
const ELEMENT_BYTES: usize = 200;
/// Of the two units: a shard of a door's, and a list that anyone pushes to.
const SHARD: UnitId = UnitId(0);
const LIST: UnitId = UnitId(1);

fn payout(number: u64) -> String {
    let mut text = format!(
        r#"{{"id":"{:016x}","campaign":"spring","payee":"payee-{:06}","amount":{},"currency":"CNY","remark":""#,
        number.wrapping_mul(0x9E37_79B9_7F4A_7C15),
        number % 100_000,
        100 + number % 900
    );
    let greeting = b"a red packet for the new year, with luck and health to all of the house; ";
    let room = ELEMENT_BYTES - text.len() - 2;
    text.extend(greeting.iter().cycle().take(room).map(|byte| char::from(*byte)));
    text + "\"}"
}

fn batch_body() -> String {
    let items: Vec<String> = (0..BATCH).map(payout).collect();
    let total: u64 = (0..BATCH).map(|number| 100 + number % 900).sum();
    format!(
        r#"{{"id":"b-1","campaign":"spring","currency":"CNY","total_count":{BATCH},"total_amount":{total},"items":[{}]}}"#,
        items.join(",")
    )
}

fn judged(judge: &mut Judge<'_>, payout: &wire::Payout<'_>) -> Vec<u8> {
    let mut faults = Faults::default();
    let bench = Bench { place: Place::Top, faults: &mut faults };
    let inherited = Inherited { batch: "", campaign: None, currency: None };
    judge.payout(payout, Expect::Disbursement, inherited, bench).expect("it is in order").into_record()
}

fn json(c: &mut Criterion) {
    let (one, all) = (payout(1), batch_body());
    let mut judge = Judge::new("bench");
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(1));
    group.bench_function("parse one", |b| {
        b.iter(|| wire::payout(black_box(&one)).expect("it is in order").amount);
    });
    group.bench_function("parse, judge, encode one", |b| {
        b.iter(|| judged(&mut judge, &wire::payout(black_box(&one)).expect("it is in order")));
    });
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("parse a batch of 500", |b| {
        b.iter(|| wire::batch(black_box(&all)).expect("it is in order").total_count);
    });
    group.bench_function("parse, judge, encode a batch of 500", |b| {
        b.iter(|| {
            let batch = wire::batch(black_box(&all)).expect("it is in order");
            let items = batch.items.expect("there are items").kept;
            items.iter().map(|item| judged(&mut judge, &item.0).len()).sum::<usize>()
        });
    });
    group.finish();
}

fn elements(c: &mut Criterion) {
    let list = ForeignList {
        name: "list".to_owned(),
        client: "bench".to_owned(),
        order: Order::Rpush,
        hmac_key: None,
    };
    let units = Units { shard_count: 1, fair_queue_count: 8, foreign: vec![list] };
    let reader = ElementReader::new(&units, &Registry::default());
    let mut contents = Contents::default();
    let mut decode = |unit, element: &Bytes, count: u64| {
        contents.clear();
        reader.decode(unit, element, NOW, &mut contents).expect("it is in order");
        assert_eq!((contents.requests.len() as u64, contents.dead.len()), (count, 0));
    };
    let object = Bytes::from(payout(1));
    let array = format!("[{}]", (0..BATCH).map(payout).collect::<Vec<_>>().join(","));
    let array = Bytes::from(array);
    let mut judge = Judge::new("bench");
    let records: Vec<Vec<u8>> = (0..BATCH)
        .map(|number| judged(&mut judge, &wire::payout(&payout(number)).expect("it is in order")))
        .collect();
    assert!(Request::decode(&records[0]).is_ok(), "what is framed are records");
    let frame = Bytes::from(encode_frame(&records));
    let mut group = c.benchmark_group("element");
    group.throughput(Throughput::Elements(1));
    group.bench_function("a JSON object", |b| b.iter(|| decode(LIST, &object, 1)));
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("a JSON array of 500", |b| b.iter(|| decode(LIST, &array, BATCH)));
    group.bench_function("a frame of 500", |b| b.iter(|| decode(SHARD, &frame, BATCH)));
    group.finish();
}

criterion_group!(benches, json, elements);
criterion_main!(benches);
