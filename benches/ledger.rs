//! The claim it backs: the embedded ledger decides a transfer in well under a microsecond, so that one core settles a
//! million a second and the disk, not the books, is the bound; a repeat is answered from the record, for about as much.
//!
//! `decide` is the pure state machine over 100,000 accounts, in batches of 1,000; `apply` is the same with its append to a
//! journal whose sync runs behind. What a repeat costs includes reading the record that it is compared with.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hongbao::digest::{key_hash, money_digest};
use hongbao::domain::{Amount, Currency, PayoutCode, Transfer, TransferKind, TransferStatus};
use hongbao::journal::{FolderStorage, Frame, Journal, Options, Position};
use hongbao::stored_value::ledger::state::{Records, State};
use hongbao::stored_value::ledger::{Ledger, Restoring};
use hongbao::stored_value::{StoredValueError, TransferBatch};

const BATCH: u64 = 1_000;
const ACCOUNTS: u64 = 100_000;
const CAMPAIGN: &[u8] = b"campaign:bench:spring";

fn spread(n: u64) -> u64 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn push(
    batch: &mut TransferBatch,
    id: &str,
    debit: &[u8],
    credit: &[u8],
    amount: u64,
    scratch: &mut Vec<u8>,
) {
    let mut transfer = Transfer {
        kind: TransferKind::Transfer,
        id: id.as_bytes(),
        key_hash: key_hash(id.as_bytes()),
        digest: [0; 16],
        debit,
        credit,
        amount: Amount::new(amount).expect("small"),
        currency: Currency::parse("CNY").expect("a currency"),
        of: b"",
        expires_in_s: 0,
    };
    transfer.digest = money_digest(&transfer, scratch);
    batch.push(&transfer);
}

/// The transfers with these numbers.
fn payouts(first: u64) -> TransferBatch {
    let (mut batch, mut scratch) = (TransferBatch::default(), Vec::new());
    for number in first..first + BATCH {
        let (id, payee) = (format!("bench:{:016x}", spread(number)), spread(!number) % ACCOUNTS);
        push(&mut batch, &id, CAMPAIGN, format!("person:payee-{payee:06}").as_bytes(), 100, &mut scratch);
    }
    batch
}

fn funds() -> TransferBatch {
    let (mut batch, mut scratch) = (TransferBatch::default(), Vec::new());
    push(&mut batch, "bench:fund", b"funding:bench", CAMPAIGN, 1 << 50, &mut scratch);
    batch
}

/// The transfers in memory, where the journal would be: a fingerprint that two ids share has one looked up.
#[derive(Default)]
struct Memory(Vec<u8>);

impl Records for Memory {
    fn transfer_at(&mut self, place: u64) -> Result<&[u8], StoredValueError> {
        Ok(&self.0[place as usize..])
    }

    fn begins_at(&self) -> u64 {
        0
    }
}

fn nobody(_: &Transfer<'_>) -> Option<PayoutCode> {
    None
}

fn all_succeeded(results: &[TransferStatus]) {
    assert!(results.iter().all(|status| *status == TransferStatus::Succeeded), "every transfer succeeds");
}

fn decide(c: &mut Criterion) {
    let mut group = c.benchmark_group("ledger");
    group.throughput(Throughput::Elements(BATCH));
    let (mut state, mut memory, mut results) = (State::default(), Memory::default(), Vec::new());
    let mut run = |state: &mut State, batch: &TransferBatch| {
        state.decide(batch, &nobody, &mut memory, &mut results).expect("it decides");
        all_succeeded(&results);
        let place = memory.0.len() as u64;
        memory.0.extend_from_slice(&state.written);
        state.placed(place);
    };
    run(&mut state, &funds());
    let mut first = 0;
    group.bench_function("decide 1000 new", |b| {
        b.iter_batched(
            || {
                first += BATCH;
                payouts(first)
            },
            |batch| run(&mut state, &batch),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn apply(c: &mut Criterion) {
    let parent = std::env::var_os("HONGBAO_BENCH_FOLDER").unwrap_or_else(|| std::env::temp_dir().into());
    let folder = tempfile::tempdir_in(parent).expect("a folder to write in");
    let storage = Arc::new(FolderStorage::new(folder.path()).expect("the folder opens"));
    let mut visit = |_: Frame<'_>| Ok::<(), Infallible>(());
    let opened = Journal::open(storage, Options::default(), Position::genesis(), &mut visit);
    let journal = opened.expect("the journal opens").0;
    let ledger = Ledger::new(Restoring::default(), "bench".to_owned(), journal.clone());
    let (mut results, mut repeated) = (Vec::new(), Vec::new());
    let mut run = |batch: &TransferBatch, repeats: u64| {
        let durable = ledger.transfer_judged(batch, &nobody, &mut results, &mut repeated);
        black_box(durable.expect("it is applied"));
        all_succeeded(&results);
        assert_eq!(repeated.len() as u64, repeats);
    };
    run(&funds(), 0);
    let mut group = c.benchmark_group("ledger");
    group.throughput(Throughput::Elements(BATCH));
    let mut first = 0;
    group.bench_function("apply 1000 new, journalled", |b| {
        b.iter_batched(
            || {
                first += BATCH;
                payouts(first)
            },
            |batch| run(&batch, 0),
            BatchSize::LargeInput,
        );
    });
    let known = payouts(first);
    group.bench_function("apply 1000 repeats", |b| b.iter(|| run(&known, BATCH)));
    group.finish();
}

criterion_group!(benches, decide, apply);
criterion_main!(benches);
