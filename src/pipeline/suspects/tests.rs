//! Who is condemned, and how a blamed batch is halved and cleared, over any store.

use super::*;
use crate::journal::{FolderStorage, Storage};

const NOW: UnixMs = 1_700_000_000_000;

fn blob(storage: &Arc<dyn Storage>) -> Arc<dyn SuspectStore> {
    Arc::new(BlobSuspects::new(storage.clone()))
}

#[test]
fn twice_named_is_condemned_and_an_unnamed_batch_is_halved() {
    let folder = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(FolderStorage::new(folder.path()).unwrap());
    for crashes in 0..CRASHES_MAX {
        let suspects = Suspects::load(blob(&storage), NOW).unwrap();
        assert!(!suspects.is_condemned(8), "after {crashes}");
        suspects.blame(8, &[], "test");
    }
    assert!(Suspects::load(blob(&storage), NOW).unwrap().is_condemned(8));

    // A batch of eight in which only 48 crashes, and never says so.
    let mut batch: Vec<u64> = (0..8).map(|n| n * 16).collect();
    for _ in 0..8 {
        let suspects = Suspects::load(blob(&storage), NOW).unwrap();
        if suspects.is_condemned(48) {
            return;
        }
        if suspects.is_isolating() {
            let half = suspects.batch_count_max() as usize;
            batch = batch.chunks(half).find(|chunk| chunk.contains(&48)).unwrap().to_vec();
        }
        suspects.blame(NOBODY, &batch, "test");
    }
    panic!("48 was not found out");
}

#[test]
fn the_blame_is_lifted_once_all_went_through() {
    let folder = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(FolderStorage::new(folder.path()).unwrap());
    Suspects::load(blob(&storage), NOW).unwrap().blame(NOBODY, &[8, 16, 24], "test");
    let suspects = Suspects::load(blob(&storage), NOW).unwrap();
    assert_eq!((suspects.is_isolating(), suspects.batch_count_max()), (true, 2));
    suspects.passed(2);
    assert!(suspects.is_isolating());
    suspects.passed(1);
    assert_eq!((suspects.is_isolating(), suspects.batch_count_max()), (false, u64::MAX));
    assert!(!Suspects::load(blob(&storage), NOW).unwrap().is_isolating(), "and is not remembered");
}

/// A store that several processes share, and that can be away.
#[derive(Default)]
struct Shared {
    saved: Mutex<Saved>,
    is_away: std::sync::atomic::AtomicBool,
}

impl Shared {
    fn check(&self) -> Result<(), SuspectError> {
        let away = || crate::redis::Failure::NotSent("away".to_owned()).into();
        if self.is_away.load(Ordering::SeqCst) { Err(away()) } else { Ok(()) }
    }
}

impl SuspectStore for Shared {
    fn load(&self) -> Result<Saved, SuspectError> {
        self.check().map(|()| self.saved.lock().unwrap().clone())
    }

    fn save(&self, saved: &Saved) -> Result<(), SuspectError> {
        self.check().map(|()| saved.clone_into(&mut self.saved.lock().unwrap()))
    }

    fn tidy(&self, dated: &[u64], now: UnixMs, forgotten: &[u64]) -> Result<(), SuspectError> {
        self.check()?;
        let mut saved = self.saved.lock().unwrap();
        saved.since.extend(dated.iter().map(|mark| (*mark, now)));
        saved.crashes.retain(|mark, _| !forgotten.contains(mark));
        saved.since.retain(|mark, _| !forgotten.contains(mark));
        Ok(())
    }
}

#[test]
fn what_crashed_elsewhere_counts_here() {
    let store = Arc::new(Shared::default());
    let one = Suspects::load(store.clone(), NOW).unwrap();
    let two = Suspects::none(store.clone());
    one.blame(8, &[], "test");
    // It never reloaded, and adds to what the other wrote all the same.
    two.blame(8, &[], "test");
    assert!(!one.is_condemned(8) && !two.is_condemned(8), "known at the next loading");
    one.reload(NOW).unwrap();
    assert!(one.is_condemned(8) && !one.is_condemned(9));
    store.is_away.store(true, Ordering::SeqCst);
    assert!(one.reload(NOW).is_err() && one.is_condemned(8), "what is known stays known");
}

#[test]
fn a_blame_is_lifted_only_by_who_stood_under_it() {
    let store = Arc::new(Shared::default());
    let one = Suspects::load(store.clone(), NOW).unwrap();
    let two = Suspects::load(store.clone(), NOW).unwrap();
    Suspects::none(store.clone()).blame(NOBODY, &[1, 2, 3, 4], "test");
    one.reload(NOW).unwrap();
    two.reload(NOW).unwrap();
    one.passed(3);
    one.reload(NOW).unwrap();
    assert!(one.is_isolating(), "as before");
    // The other one crashes with its half; the first one's word does not concern that.
    two.blame(NOBODY, &[3, 4], "test");
    one.passed(1);
    assert!(!one.is_isolating());
    assert_eq!(store.load().unwrap().group, [3, 4]);
    one.reload(NOW).unwrap();
    assert_eq!((one.is_isolating(), one.batch_count_max()), (true, 1));
    one.passed(2);
    assert!(store.load().unwrap().group.is_empty());
    // The same batch again is a blame of its own.
    two.blame(NOBODY, &[3, 4], "test");
    one.reload(NOW).unwrap();
    assert!(one.is_isolating());
}

#[test]
fn crashes_are_forgotten_after_a_time_and_the_oldest_of_too_many() {
    let folder = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(FolderStorage::new(folder.path()).unwrap());
    let first = Suspects::load(blob(&storage), NOW).unwrap();
    (0..CRASHES_MAX).for_each(|_| first.blame(8, &[], "test"));
    // Its time begins at the first loading that meets it.
    let at = |now| Suspects::load(blob(&storage), now).unwrap();
    assert!(at(NOW + 5).is_condemned(8));
    at(NOW + 5).blame(16, &[], "test");
    assert!(at(NOW + 5 + REMEMBERED_MS - 1).is_condemned(8));
    assert!(!at(NOW + 5 + REMEMBERED_MS).is_condemned(8));
    let saved = blob(&storage).load().unwrap();
    assert_eq!((saved.crashes.len(), saved.since.len()), (1, 1), "the later one is remembered: {saved:?}");

    let crashes: HashMap<u64, u32> = (0..REMEMBERED_COUNT_MAX as u64 + 3).map(|mark| (mark, 1)).collect();
    let since = crashes.keys().map(|mark| (*mark, NOW + mark)).collect();
    let mut gone = forgotten(&crashes, &since, NOW);
    gone.sort_unstable();
    assert_eq!(gone, [0, 1, 2]);
    let left_over = HashMap::from([(1, NOW)]);
    assert_eq!(forgotten(&HashMap::new(), &left_over, NOW + REMEMBERED_MS), [1], "a time of nobody");
}
