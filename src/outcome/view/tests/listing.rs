//! Listings by example: what filters take, how pages join, which cursors are refused.

use super::super::apply::{Chunk, Memory};
use super::super::list;
use super::super::{CursorError, LIMIT_MAX, ListRows, View, ViewError, schema};
use super::log::{Log, outcome, request};
use super::{catch_up, every_page};
use crate::domain::{Amount, Kind, Status};
use crate::outcome::FactSource;

/// Ten requests, `r-0` to `r-9`, at places 1,000 to 10,000 and times 100 to 109: even ones are of campaign
/// `autumn`, each third one for `bob`, `r-5` failed, `r-6` waits, `r-7` is a fund, the rest succeeded in
/// reverse order at 299 down to 290.
fn sample(log: &Log) {
    let ids: Vec<String> = (0..10).map(|n| format!("r-{n}")).collect();
    let mut outcomes = Vec::new();
    for (number, id) in ids.iter().enumerate() {
        let n = number as u64;
        let mut request = request(id, 100 + n);
        request.campaign = if n.is_multiple_of(2) { "autumn" } else { "spring" };
        request.party = if n.is_multiple_of(3) { "bob" } else { "ann" };
        request.batch = if n < 4 { "b-1" } else { "" };
        request.kind = if n == 7 { Kind::Fund } else { Kind::Disbursement };
        let place = (n + 1) * 1_000;
        log.accept(place, &request);
        let status = match n {
            5 => Status::Failed,
            6 => Status::Queued,
            _ => Status::Succeeded,
        };
        outcomes.push(outcome(place, &request, status, 299 - n));
    }
    outcomes.iter().rev().for_each(|fact| log.moved(fact));
}

fn opened() -> (tempfile::TempDir, View, Log) {
    let folder = tempfile::tempdir().unwrap();
    let (view, log) = (View::open(&folder.path().join("view.sqlite")).unwrap(), Log::default());
    sample(&log);
    catch_up(&view, &log, 7);
    (folder, view, log)
}

fn all() -> ListRows {
    ListRows { client: "shop".into(), limit: 2, ..ListRows::default() }
}

#[test]
fn filters() {
    let (_folder, view, _) = opened();
    let text = |text: &str| Some(text.to_owned());
    let table: [(ListRows, &[u32]); 14] = [
        (all(), &[0, 1, 2, 3, 4, 5, 6, 8, 9]),
        (ListRows { client: "bank".into(), ..all() }, &[]),
        (ListRows { campaign: text("autumn"), ..all() }, &[0, 2, 4, 6, 8]),
        (ListRows { campaign: text("winter"), ..all() }, &[]),
        (ListRows { party: text("bob"), ..all() }, &[0, 3, 6, 9]),
        (ListRows { batch: text("b-1"), ..all() }, &[0, 1, 2, 3]),
        (ListRows { batch: text("b-1"), party: text("bob"), ..all() }, &[0, 3]),
        (ListRows { kind: Some(Kind::Fund), ..all() }, &[7]),
        (ListRows { status: Some(Status::Failed), ..all() }, &[5]),
        (ListRows { status: Some(Status::Queued), campaign: text("spring"), ..all() }, &[]),
        (ListRows { status: Some(Status::Succeeded), party: text("ann"), ..all() }, &[1, 2, 4, 8]),
        (ListRows { accepted_from: 104, ..all() }, &[4, 5, 6, 8, 9]),
        (ListRows { settled_from: 296, ..all() }, &[0, 1, 2, 3]),
        (ListRows { settled_from: 300, ..all() }, &[]),
    ];
    for (asked, expected) in table {
        let found: Vec<String> = every_page(&view, &asked).into_iter().map(|row| row.id).collect();
        let expected: Vec<String> = expected.iter().map(|n| format!("r-{n}")).collect();
        assert_eq!(found, expected, "{asked:?}");
    }
}

#[test]
fn pages_join_whatever_is_accepted_in_between() {
    let (_folder, view, log) = opened();
    let first = view.list(&all()).unwrap();
    assert_eq!(first.data.len(), 2);
    log.accept(11_000, &request("late", 500));
    catch_up(&view, &log, 100);
    let rest = every_page(&view, &ListRows { cursor: first.next_cursor, ..all() });
    let ids: Vec<&str> = rest.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, ["r-2", "r-3", "r-4", "r-5", "r-6", "r-8", "r-9", "late"]);
}

#[test]
fn a_page_is_bounded_in_rows_and_in_work() {
    let (folder, view, log) = opened();
    for number in 0..1_100u64 {
        let id = format!("many-{number}");
        log.accept(20_000 + number, &request(&id, 600));
    }
    catch_up(&view, &log, 500);
    for (limit, expected) in [(0, 1), (1, 1), (1_000, LIMIT_MAX as usize), (u32::MAX, LIMIT_MAX as usize)] {
        assert_eq!(view.list(&ListRows { limit, ..all() }).unwrap().data.len(), expected, "limit {limit}");
    }
    let conn = schema::open_reader(&folder.path().join("view.sqlite")).unwrap();
    let mut asked = ListRows { party: Some("bob".into()), accepted_from: 105, limit: 10, ..all() };
    let mut sizes = Vec::new();
    loop {
        let page = list::page(&conn, &view.secret, &asked, 1).unwrap();
        sizes.push(page.data.len());
        match page.next_cursor {
            Some(cursor) => asked.cursor = Some(cursor),
            None => break,
        }
    }
    assert_eq!(sizes, [0, 0, 1, 1], "one row looked at a page: short pages, and nothing missed");
}

#[test]
fn cursors_of_others_are_refused() {
    let (_folder, view, _) = opened();
    let given = view.list(&all()).unwrap().next_cursor.unwrap();
    let (_other_folder, other, _) = opened();
    let foreign = other.list(&all()).unwrap().next_cursor.unwrap();
    let table: [(&str, ListRows, CursorError); 4] = [
        ("other filters", ListRows { accepted_from: 1, ..all() }, CursorError::Foreign),
        ("other client", ListRows { client: "bank".into(), ..all() }, CursorError::Foreign),
        ("another view's", ListRows { cursor: Some(foreign), ..all() }, CursorError::Forged),
        ("made up", ListRows { cursor: Some("0100".into()), ..all() }, CursorError::Forged),
    ];
    for (name, asked, expected) in table {
        let asked = ListRows { cursor: asked.cursor.clone().or(Some(given.clone())), ..asked };
        match view.list(&asked) {
            Err(ViewError::Cursor(error)) => assert_eq!(error, expected, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn readers_see_the_last_commit_while_a_chunk_is_under_way() {
    let (_folder, view, log) = opened();
    let before = every_page(&view, &all()).len();
    let cursor = view.progress().cursor;
    log.accept(50_000, &request("next", 700));
    let writer = view.writer.lock().unwrap();
    let mut memory = Memory::new();
    let mut chunk = Chunk::begin(&writer.conn, &mut memory).unwrap();
    let cursor = log
        .read(cursor, 10, &mut |fact| {
            chunk.apply(fact).unwrap();
            assert_eq!(every_page(&view, &all()).len(), before);
        })
        .unwrap();
    chunk.commit(cursor).unwrap();
    assert_eq!(every_page(&view, &all()).len(), before + 1);
}

#[test]
fn huge_totals_stay_exact_or_stop_at_the_top() {
    let folder = tempfile::tempdir().unwrap();
    let (view, log) = (View::open(&folder.path().join("view.sqlite")).unwrap(), Log::default());
    let most = crate::domain::money::AMOUNT_MAX;
    let ids: Vec<String> = (0..3_000).map(|n| format!("r-{n}")).collect();
    for (n, id) in ids.iter().enumerate() {
        let mut request = request(id, 1);
        request.amount = Amount::new(most).unwrap();
        log.accept(n as u64, &request);
    }
    catch_up(&view, &log, 512);
    let amount_of =
        |status: Status| view.campaign("shop", "spring", None).unwrap().unwrap().amount[status as usize - 1];
    assert_eq!(amount_of(Status::Accepted), u64::MAX);
    for (n, id) in ids.iter().enumerate().skip(1) {
        let mut request = request(id, 1);
        request.amount = Amount::new(most).unwrap();
        log.moved(&outcome(n as u64, &request, Status::Failed, 2));
    }
    catch_up(&view, &log, 512);
    assert_eq!(amount_of(Status::Accepted), most);
}
