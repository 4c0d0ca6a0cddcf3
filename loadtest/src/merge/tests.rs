//! Parts that add up, or do not, and where the whole may be written.

use std::time::{Duration, SystemTime};

use super::*;
use crate::generator::Interval;
use crate::record::{ACCEPT, SETTLE, record};
use crate::scenario::Scenario;

/// A part with one latency a second, beginning so late.
fn part(folder: &Path, number: u32, late_ms: u64, latency_us: u64) -> PathBuf {
    let path = folder.join(format!("part-{number}"));
    std::fs::create_dir(&path).unwrap();
    let mut result = RunResult::blank(Scenario::load("smoke").unwrap(), &format!("run{number}"));
    result.part = format!("{number}/2");
    result.epoch_unix_ms = 1_000_000 + late_ms;
    result.counts.accepted = 10;
    result.check.ids = Some(Ids { succeeded: 10, ..Ids::default() });
    result.check.books_balanced = Some(true);
    result.series.step_s = 0.5;
    result.series.offered = vec![100.0; 20];
    for (file, kind) in [("accept.hlog", ACCEPT), ("settle.hlog", SETTLE)] {
        let (tell, told) = std::sync::mpsc::channel();
        for second in 0..10 {
            let mut single = latencies();
            single.record(latency_us).unwrap();
            tell.send(Interval { second, single, batch: latencies() }).unwrap();
        }
        drop(tell);
        let started = SystemTime::UNIX_EPOCH + Duration::from_millis(result.epoch_unix_ms);
        record(&path.join(file), kind, started, &told).unwrap();
    }
    result.save(&path).unwrap();
    path
}

#[test]
fn what_one_part_did_not_look_at_is_not_known_of_the_whole() {
    let check = |lost, books_balanced| Check { lost, books_balanced, ..Check::default() };
    let table = [
        ((Some(0), Some(true)), (Some(0), Some(true)), (Some(0), Some(true))),
        ((Some(1), Some(true)), (Some(2), Some(false)), (Some(3), Some(false))),
        ((Some(0), Some(true)), (None, None), (None, None)),
        ((None, None), (Some(2), Some(false)), (Some(2), Some(false))),
    ];
    for ((lost, balanced), (lost_too, balanced_too), expected) in table {
        let sum = add_checks(check(lost, balanced), &check(lost_too, balanced_too));
        assert_eq!((sum.lost, sum.books_balanced), expected, "{lost:?} {lost_too:?}");
    }
}

#[test]
fn parts_add_up_at_their_times() {
    let folder = tempfile::tempdir().unwrap();
    let parts = [part(folder.path(), 1, 0, 1_000), part(folder.path(), 2, 2_000, 9_000)];
    let whole = merge(&parts).unwrap();
    assert_eq!(
        (whole.accept.count, whole.counts.accepted, whole.check.ids.as_ref().unwrap().succeeded),
        (20, 20, 20)
    );
    assert!(whole.accept.p50 <= 1_001 && whole.accept.p99 >= 8_990, "{:?}", whole.accept);
    let rows: Vec<u64> = whole.accept_rows.iter().map(|row| row.count).collect();
    assert_eq!(rows, [1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1]);
    assert_eq!(whole.series.offered.len(), 24);
    assert_eq!(
        (whole.series.offered[1], whole.series.offered[6], whole.series.offered[22]),
        (100.0, 200.0, 100.0)
    );
    let error = merge(&[parts[0].clone(), parts[0].clone()]).unwrap_err().to_string();
    assert!(error.contains("twice"), "{error}");
    assert!(matches!(merge(&parts[..1]), Err(MergeError::TooFew)));
    // Where it may be written: what stands there, whether it is forced, whether it may.
    let place = folder.path().join("out");
    let may = |force| make_room(&place, &whole, &parts, force).is_ok();
    assert!(may(false), "there is nothing");
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("notes.txt"), "mine").unwrap();
    assert!(may(false), "nothing of a run");
    whole.save(&place).unwrap();
    assert!(may(false), "the same once more");
    let other = RunResult { run: "another".to_owned(), ..whole.clone() };
    other.save(&place).unwrap();
    assert!(!may(false) && RunResult::load(&place).unwrap().run == "another", "it is as it was");
    std::fs::write(place.join("result.json"), "{}").unwrap();
    assert!(!may(false), "nobody knows what it is");
    assert!(may(true) && !place.join("result.json").exists() && place.join("notes.txt").exists());
    let onto = make_room(&parts[1], &whole, &parts, true);
    assert!(matches!(onto, Err(MergeError::Part { .. })) && parts[1].join("result.json").exists());
    let mut whole_run = RunResult::load(&parts[1]).unwrap();
    whole_run.part = "1/1".to_owned();
    whole_run.save(&parts[1]).unwrap();
    assert!(matches!(merge(&parts), Err(MergeError::Incomplete { .. })), "part 2 of 2 is missing");
}
