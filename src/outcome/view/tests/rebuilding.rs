//! Rebuilding, and views that do not fit their log.

use super::super::{ListRows, View, ViewError, rebuild};
use super::log::{Fault, Log, outcome, request};
use super::{catch_up, every_page};
use crate::domain::{Kind, Status};

fn filled(log: &Log, count: u64) {
    for number in 0..count {
        let id = format!("r-{number}");
        let request = request(&id, number);
        log.accept(number * 500, &request);
        if !number.is_multiple_of(3) {
            log.moved(&outcome(number * 500, &request, Status::Succeeded, number + 5));
        }
    }
}

fn all() -> ListRows {
    ListRows { client: "shop".into(), limit: 50, ..ListRows::default() }
}

#[test]
fn a_rebuilt_view_says_the_same_and_takes_the_cursors_given_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("view.sqlite");
    let log = Log::default();
    filled(&log, 200);
    let view = View::open(&path).unwrap();
    catch_up(&view, &log, 33);
    let (rows, progress) = (every_page(&view, &all()), view.progress());
    let tally = view.campaign("shop", "spring", None).unwrap();
    let cursor = view.list(&all()).unwrap().next_cursor;
    drop(view);
    // What a rebuild that was killed leaves behind does not disturb the next.
    std::fs::write(folder.path().join("view.sqlite.rebuild"), "half").unwrap();

    let mut told = Vec::new();
    let done = rebuild(&path, &log, &mut |progress| told.push(progress)).unwrap();
    assert_eq!((done, told.last()), (progress, Some(&progress)));
    let view = View::open(&path).unwrap();
    assert_eq!(view.progress(), progress);
    assert_eq!(every_page(&view, &all()), rows);
    assert_eq!(view.campaign("shop", "spring", None).unwrap(), tally);
    assert_eq!(every_page(&view, &ListRows { cursor, ..all() }), rows[50..]);
    assert_eq!(view.apply(&log, 10).unwrap().facts, 0);
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().contains("rebuild")), "{names:?}");
}

#[test]
fn a_rebuild_that_fails_leaves_the_old_view() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("view.sqlite");
    let log = Log::default();
    filled(&log, 20);
    let view = View::open(&path).unwrap();
    catch_up(&view, &log, 100);
    drop(view);
    log.break_after(Some((3, Fault::Error)));
    let error = rebuild(&path, &log, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    assert_eq!(every_page(&View::open(&path).unwrap(), &all()).len(), 20);
}

#[test]
fn a_file_that_cannot_be_read_is_rebuilt_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("view.sqlite");
    std::fs::write(&path, vec![1u8; 10_000]).unwrap();
    let log = Log::default();
    filled(&log, 5);
    rebuild(&path, &log, &mut |_| {}).unwrap();
    assert_eq!(every_page(&View::open(&path).unwrap(), &all()).len(), 5);
}

#[test]
fn a_view_ahead_of_its_log_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let view = View::open(&folder.path().join("view.sqlite")).unwrap();
    let log = Log::default();
    filled(&log, 5);
    catch_up(&view, &log, 100);
    log.show_end(3);
    assert!(matches!(view.apply(&log, 10), Err(ViewError::Ahead { end: 3, .. })));
}

#[test]
fn facts_about_strangers_are_counted_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let view = View::open(&folder.path().join("view.sqlite")).unwrap();
    let log = Log::default();
    let known = request("r-1", 1);
    let stranger = request("r-2", 1);
    log.moved(&outcome(10, &stranger, Status::Succeeded, 2));
    log.accept(20, &known);
    // Another log's request stood at the same place.
    log.moved(&outcome(20, &stranger, Status::Failed, 3));
    let mut cancel = outcome(30, &stranger, Status::Succeeded, 4);
    cancel.kind = Kind::Cancel;
    log.moved(&cancel);
    catch_up(&view, &log, 100);
    assert_eq!(view.progress().skipped, 2);
    let found = view.find("shop", &["r-1".into(), "r-2".into()]).unwrap();
    assert_eq!(found[0].as_ref().unwrap().status, Status::Accepted);
    assert_eq!(found[1], None);
}
