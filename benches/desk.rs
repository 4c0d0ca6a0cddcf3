//! The claims it backs: the desk makes many callers share one sync, so that a durable acceptance of one request among 64
//! concurrent ones costs a small part of a sync each, and of one in a batch close to nothing; and the whole path behind it
//! keeps up (`pipeline`; `settle` has the same as one long run, with the view).
//!
//! `desk` accepts with settling paused, `pipeline` waits until everything is settled and its outcome recorded. Both on a
//! service of their own in the folder of the benches, with the defaults. Absent: HTTP and JSON.

mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hongbao::app::Service;
use support::{Producer, settled, start, wait_settled};

/// Submissions under way at a time.
const CALLERS: usize = 64;
/// Of each round, so that a round outlasts several syncs.
const REQUESTS: u64 = 20_000;

fn folder() -> tempfile::TempDir {
    let parent = std::env::var_os("HONGBAO_BENCH_FOLDER").unwrap_or_else(|| std::env::temp_dir().into());
    tempfile::tempdir_in(parent).expect("a folder to write in")
}

fn service(folder: &tempfile::TempDir, is_paused: bool) -> (Service, Producer) {
    let service = start(folder.path());
    let mut producer = Producer::new(1);
    producer.open(&service);
    service.pipeline.counts.paused.store(is_paused, Ordering::Release);
    (service, producer)
}

fn accept(c: &mut Criterion) {
    let folder = folder();
    let (service, mut producer) = service(&folder, true);
    let mut group = c.benchmark_group("desk");
    group.throughput(Throughput::Elements(REQUESTS)).sample_size(10).measurement_time(Duration::from_secs(4));
    for batch in [1, 50, 500] {
        group.bench_function(BenchmarkId::new("accept durably, 64 callers, batches of", batch), |b| {
            b.iter_custom(|rounds| {
                (0..rounds).map(|_| producer.submit(&service, REQUESTS, batch, CALLERS)).sum()
            });
        });
    }
    group.finish();
    service.stop(Duration::from_secs(10)).expect("the service stops");
}

fn pipeline(c: &mut Criterion) {
    let folder = folder();
    let (service, mut producer) = service(&folder, false);
    let mut group = c.benchmark_group("pipeline");
    let requests = 10 * REQUESTS;
    group.throughput(Throughput::Elements(requests)).sample_size(10).measurement_time(Duration::from_secs(5));
    group.bench_function("accept to settled, batches of 1000", |b| {
        b.iter_custom(|rounds| {
            let (began, before) = (Instant::now(), settled(&service));
            producer.produce(&service, rounds * requests);
            wait_settled(&service, before + rounds * requests);
            began.elapsed()
        });
    });
    group.finish();
    service.stop(Duration::from_secs(10)).expect("the service stops");
}

criterion_group!(benches, accept, pipeline);
criterion_main!(benches);
