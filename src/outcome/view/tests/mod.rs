//! The view against a log made by hand: a model, crashes, listings, the worker.

mod listing;
mod log;
mod model;
mod property;
mod rebuilding;
mod working;

use super::{ListRows, StandingRow, View};

/// All pages of a listing, one after the other.
fn every_page(view: &View, asked: &ListRows) -> Vec<StandingRow> {
    let mut asked = asked.clone();
    let mut rows = Vec::new();
    for _ in 0..10_000 {
        let page = view.list(&asked).unwrap();
        rows.extend(page.data);
        match page.next_cursor {
            Some(cursor) => asked.cursor = Some(cursor),
            None => return rows,
        }
    }
    panic!("a listing that does not end: {asked:?}");
}

/// Applies all that the log has, `facts_max` at a time.
fn catch_up(view: &View, log: &log::Log, facts_max: usize) {
    while view.apply(log, facts_max).unwrap().advanced {}
}
