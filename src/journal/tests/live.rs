//! The journal in motion: threads, wake-ups, waiting, reading what is not written yet, failing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::super::segments::segment_name;
use super::super::sim::SimStorage;
use super::super::{FolderStorage, Journal, JournalError, Options, Position, Storage};
use super::{SEGMENT_BYTES, open, options, payload};

fn open_sim(options: Options) -> (SimStorage, Journal) {
    let sim = SimStorage::new();
    let (journal, ..) = open(Arc::new(sim.clone()), options, Position::genesis()).unwrap();
    (sim, journal)
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(5);
    while !is_so() {
        assert!(Instant::now() < until, "{what} did not happen");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn handles_may_cross_threads() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Journal>();
    check::<super::super::Reader>();
    check::<JournalError>();
}

#[test]
fn four_appenders_share_syncs() {
    let folder = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(FolderStorage::new(folder.path()).unwrap());
    let (journal, ..) = open(storage, options(), Position::genesis()).unwrap();
    let wakes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&wakes);
    journal.on_sync(Box::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    }));
    thread::scope(|scope| {
        for appender in 0..4_u8 {
            let journal = journal.clone();
            scope.spawn(move || {
                for n in 0..100_usize {
                    let at = journal.append(16 + appender, &[&payload(n, n * 13)]).unwrap();
                    if n % 10 == 9 {
                        journal.wait_synced(at.end).unwrap();
                        assert_eq!(journal.synced().max(at.end), journal.synced());
                    }
                }
            });
        }
    });
    let mut reader = journal.reader(0);
    let mut counts = [0_usize; 4];
    while let Some(frame) = reader.next().unwrap() {
        let count = &mut counts[usize::from(frame.kind - 16)];
        assert_eq!(frame.payload, payload(*count, *count * 13), "each appender's frames stay in order");
        *count += 1;
    }
    assert_eq!(counts, [100; 4]);
    let stats = journal.stats();
    assert!(
        stats.frames >= 400 && stats.syncs <= 400 && stats.syncs == stats.sync_us_log2.iter().sum::<u64>()
    );
    assert!(wakes.load(Ordering::Relaxed) as u64 >= stats.syncs - 1);
    assert_eq!(stats.segments, journal.synced() / SEGMENT_BYTES + 1);
}

#[test]
fn what_waits_can_be_read() {
    let (_, journal) = open_sim(Options { threads: false, ..options() });
    let bytes = payload(1, 5_000);
    let first = journal.append(20, &[&bytes]).unwrap();
    let second = journal.append(21, &[b"second"]).unwrap();
    let mut buf = vec![0; 5_000];
    assert_eq!(journal.read_at(first.payload_at, &mut buf).unwrap(), 5_000);
    assert_eq!(buf, bytes);
    assert_eq!(journal.read_at(second.payload_at, &mut buf).unwrap(), 8, "fewer at the end: padded to 8");
    assert_eq!(&buf[..6], b"second");
    assert_eq!(journal.read_at(second.end, &mut buf).unwrap(), 0);
    assert!(journal.frame_at(0).unwrap().is_none() && journal.reader(0).next().unwrap().is_none());
    assert!(journal.step() && !journal.step());
    let third = journal.append(22, &[b"third"]).unwrap();
    assert_eq!(journal.frame_at(0).unwrap().unwrap().payload, bytes);
    assert!(journal.frame_at(second.end).unwrap().is_none(), "it is not synced");
    let mut across = vec![0; 400];
    let got = journal.read_at(second.payload_at, &mut across).unwrap();
    assert_eq!(got as u64, third.end - second.payload_at, "one read over the file and what waits");
    assert_eq!(&across[(third.payload_at - second.payload_at) as usize..][..5], b"third");
}

#[test]
fn an_idle_journal_writes_one_mark_and_rests() {
    let (_, journal) = open_sim(options());
    journal.append(20, &[b"x"]).unwrap();
    wait_until("the mark", || journal.position().sequence == 2);
    thread::sleep(Duration::from_millis(80));
    assert_eq!((journal.position().sequence, journal.stats().syncs), (2, 2), "one mark, not more");
    journal.shutdown().unwrap();
    assert_eq!(journal.position().sequence, 2, "nothing came after the mark");
}

#[test]
fn a_full_buffer_makes_appenders_wait() {
    let (_, journal) = open_sim(Options { threads: false, pending_bytes_max: 1_000, ..options() });
    journal.append(20, &[&[0; 5_000]]).unwrap();
    let (sender, receiver) = mpsc::channel();
    let other = journal.clone();
    let appender = thread::spawn(move || {
        sender.send("before").unwrap();
        other.append(20, &[&[0; 100]]).unwrap();
        sender.send("after").unwrap();
    });
    assert_eq!(receiver.recv(), Ok("before"));
    assert!(receiver.recv_timeout(Duration::from_millis(30)).is_err(), "the append waits");
    assert!(journal.step());
    assert_eq!(receiver.recv(), Ok("after"));
    appender.join().unwrap();
}

#[test]
fn a_failure_poisons_for_good() {
    type Inject = fn(&SimStorage);
    // One frame needs no new segment, so the preparer cannot meet the fault first; three need two.
    let cases: [(Inject, usize, &str); 4] = [
        (|sim| sim.knobs(|knobs| knobs.write_error = true), 1, "cannot write"),
        (|sim| sim.knobs(|knobs| knobs.sync_error = true), 1, "cannot sync"),
        (|sim| sim.fail_after(1), 1, "cannot sync"),
        (|sim| sim.knobs(|knobs| knobs.space_left_bytes = Some(100)), 3, "no space left in `simulated`"),
    ];
    for (inject, frames, expected) in cases {
        let (sim, journal) = open_sim(options());
        let good = journal.append(20, &[b"good"]).unwrap();
        journal.wait_synced(good.end).unwrap();
        wait_until("the mark and the spare", || {
            journal.position().sequence == 2 && sim.list().unwrap().contains(&"spare-1".to_owned())
        });
        let (synced, woken) = (journal.synced(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&woken);
        journal.on_sync(Box::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        inject(&sim);
        let mut end = 0;
        for _ in 0..frames {
            end = journal.append(20, &[&[1; 60_000]]).map_or(end, |at| at.end);
        }
        let error = journal.wait_synced(end.max(synced + 1)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(journal.failure().unwrap().to_string(), error.to_string());
        assert!(journal.append(20, &[b"more"]).is_err() && journal.shutdown().is_err());
        assert!(journal.synced() == synced || frames > 1, "nothing above the last good sync");
        assert!(woken.load(Ordering::Relaxed) > 0);
        assert!(journal.frame_at(0).is_ok_and(|frame| frame.is_some()) || sim.is_dead());
    }
}

#[test]
fn a_panic_poisons() {
    let (_, journal) = open_sim(options());
    journal.on_sync(Box::new(|| panic!("a waker's panic, wanted by this test")));
    let at = journal.append(20, &[b"x"]).unwrap();
    wait_until("the poisoning", || journal.failure().is_some());
    assert!(journal.synced() >= at.end, "the sync itself was good");
    assert!(matches!(journal.append(20, &[]), Err(JournalError::Panicked { thread: "journal" })));
    assert!(journal.wait_synced(at.end + 1).is_err() && journal.shutdown().is_err());
}

#[test]
fn what_an_append_refuses() {
    let (_, journal) = open_sim(options());
    let bytes_max = SEGMENT_BYTES as usize - 96;
    assert!(matches!(journal.append(15, &[]), Err(JournalError::ReservedKind { kind: 15 })));
    let too_large = journal.append(16, &[&vec![0; bytes_max], &[0]]);
    assert!(matches!(too_large, Err(JournalError::FrameTooLarge { .. })));
    let largest = journal.append(16, &[&vec![3; bytes_max]]).unwrap();
    assert_eq!(largest.end, SEGMENT_BYTES);
    let next = journal.append(16, &[]).unwrap();
    assert_eq!(next.payload_at, SEGMENT_BYTES + 96);
    journal.shutdown().unwrap();
    assert_eq!(journal.frame_at(0).unwrap().unwrap().payload.len(), bytes_max);
    assert!(matches!(journal.append(16, &[]), Err(JournalError::Closed)));
    assert!(journal.wait_synced(next.end).is_ok());
    assert!(matches!(journal.wait_synced(u64::MAX), Err(JournalError::Closed)));
}

#[test]
fn reclaimed_segments_come_again_as_spares() {
    let (sim, journal) = open_sim(Options { threads: false, ..options() });
    let mut ends = Vec::new();
    for n in 0..12 {
        ends.push(journal.append(20, &[&payload(n, 40_000)]).unwrap().end);
        while journal.step() {}
    }
    let mut late = journal.reader(0);
    assert!(late.next().unwrap().is_some());
    assert_eq!(journal.reclaim_before(ends[4]).unwrap(), 4);
    assert_eq!(journal.reclaim_before(ends[4]).unwrap(), 0);
    let mut names = sim.list().unwrap();
    names.retain(|name| name.starts_with("spare-"));
    assert_eq!(names.len(), 2, "at most two are kept");
    let buf = &mut [0; 8];
    assert!(matches!(journal.read_at(0, buf), Err(JournalError::Reclaimed { offset: 0 })));
    assert!(journal.reclaim_before(u64::MAX).unwrap() == 7, "never the one being written");
    let start = journal.position();
    // The ends of these come to stand amid old bytes.
    let sizes = [20_000, 60_000, 20_000, 60_000, 10];
    for (n, size) in sizes.into_iter().enumerate() {
        journal.append(21, &[&payload(n, size)]).unwrap();
        while journal.step() {}
    }
    let mut reader = journal.reader(start.offset);
    for (n, size) in sizes.into_iter().enumerate() {
        assert_eq!(reader.next().unwrap().unwrap().payload, payload(n, size));
    }
    drop(reader);
    drop(journal);
    assert!(sim.contents(&segment_name(0)).is_none());
    let (journal, recovery, contents) = open(Arc::new(sim), options(), start).unwrap();
    assert_eq!((contents.len(), recovery.marks), (5, 1));
    let wanted = sizes.into_iter().enumerate().map(|(n, size)| (21, payload(n, size)));
    assert!(contents.into_iter().eq(wanted));
    assert!(late.next().is_err(), "a reader of what is gone is told so");
    drop(journal);
}

#[test]
fn a_folder_has_one_user() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er");
    let first = FolderStorage::new(&path).unwrap();
    assert!(first.list().unwrap().is_empty(), "the lock is not listed");
    let second = FolderStorage::new(&path).unwrap_err();
    assert_eq!(second.kind(), std::io::ErrorKind::ResourceBusy);
    drop(first);
    assert!(FolderStorage::new(&path).is_ok());
}
