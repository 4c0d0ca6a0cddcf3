//! What a synced append costs on the disk under `HONGBAO_BENCH_FOLDER` (default: the temporary folder).
//!
//! Measured: groups of 1,000 frames of 150 bytes, each group synced before the next; the same with the next
//! group appended while the last one syncs; and the index. Absent: anything but the journal's room.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hongbao::journal::index::PlaceIndex;
use hongbao::journal::{FolderStorage, Frame, Journal, Options, Position};

const GROUP: u64 = 1_000;
const PAYLOAD: [u8; 150] = [7; 150];

fn folder() -> tempfile::TempDir {
    let parent = std::env::var_os("HONGBAO_BENCH_FOLDER").unwrap_or_else(|| std::env::temp_dir().into());
    tempfile::tempdir_in(parent).expect("a folder to write in")
}

fn open(folder: &tempfile::TempDir) -> Journal {
    let storage = Arc::new(FolderStorage::new(folder.path()).expect("the folder opens"));
    let mut visit = |_: Frame<'_>| Ok::<(), Infallible>(());
    let opened = Journal::open(storage, Options::default(), Position::genesis(), &mut visit);
    opened.expect("the journal opens").0
}

fn append_group(journal: &Journal, frames: u64) -> u64 {
    (0..frames).fold(0, |_, _| journal.append(16, &[&PAYLOAD]).expect("the append is taken").end)
}

fn groups(c: &mut Criterion) {
    let mut group = c.benchmark_group("journal");
    group.throughput(Throughput::Elements(GROUP)).measurement_time(Duration::from_secs(4)).sample_size(20);
    let folder = folder();
    let journal = open(&folder);
    group.bench_function("append 1000 x 150 B, then sync", |b| {
        b.iter(|| {
            let end = append_group(&journal, GROUP);
            journal.wait_synced(end).expect("the sync is good");
            journal.reclaim_before(end).expect("segments are given up");
        });
    });
    group.bench_function("append 1000 x 150 B, synced behind", |b| {
        b.iter_custom(|rounds| {
            let begun = Instant::now();
            let mut end = 0;
            for _ in 0..rounds {
                end = append_group(&journal, GROUP);
                journal.reclaim_before(end).expect("segments are given up");
            }
            journal.wait_synced(end).expect("the sync is good");
            begun.elapsed()
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("append one, then sync", |b| {
        b.iter(|| journal.wait_synced(append_group(&journal, 1)).expect("the sync is good"));
    });
    group.finish();
    let stats = journal.stats();
    println!(
        "{} syncs, mean {} us, max {} us",
        stats.syncs,
        stats.sync_ns / stats.syncs / 1000,
        stats.sync_ns_max / 1000
    );
}

/// Once: a million frames, then how long a restart takes to replay them.
fn replay(_: &mut Criterion) {
    let folder = folder();
    let journal = open(&folder);
    let begun = Instant::now();
    journal.wait_synced(append_group(&journal, 1_000_000)).expect("the sync is good");
    println!("1000000 frames of 150 B appended and synced in {:?}: {:?}", begun.elapsed(), journal.stats());
    journal.shutdown().expect("everything is synced");
    drop(journal);
    let begun = Instant::now();
    let journal = open(&folder);
    println!("replayed in {:?}", begun.elapsed());
    drop(journal);
}

fn spread(n: u64) -> u64 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn index(c: &mut Criterion) {
    const ENTRIES: u64 = 10_000_000;
    let mut index = PlaceIndex::new();
    let (begun, mut worst) = (Instant::now(), Duration::ZERO);
    for n in 0..ENTRIES {
        let one = Instant::now();
        index.insert(spread(n), n * 8);
        worst = worst.max(one.elapsed());
    }
    println!("{ENTRIES} inserts in {:?}, worst {worst:?}, {} MB", begun.elapsed(), index.heap_bytes() >> 20);
    let dump = index.dump();
    let mut group = c.benchmark_group("index");
    group.sample_size(10);
    group.bench_function("dump 10 M", |b| b.iter(|| index.dump().len()));
    group.bench_function("load 10 M", |b| {
        b.iter_batched(
            || (),
            |()| PlaceIndex::load(&dump).expect("the dump is good"),
            BatchSize::PerIteration,
        );
    });
    let mut n = 0;
    group.bench_function("look up one of 10 M", |b| {
        b.iter(|| {
            n = (n + 7_919) % ENTRIES;
            black_box(index.candidates(spread(n)).count())
        });
    });
    group.finish();
}

criterion_group!(benches, groups, replay, index);
criterion_main!(benches);
