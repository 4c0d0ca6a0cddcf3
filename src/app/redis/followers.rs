//! What follows a durable outcome: what waits is parked, what is final is announced.
//!
//! Joins the scribe's hooks to the shelf and the results; decides nothing.

use std::sync::Arc;

use crate::config::redis::RedisConfig;
use crate::intake::redis::parked::{Followed, ParkedShelf};
use crate::intake::redis::results::Results;
use crate::intake::redis::{Keys, units};
use crate::outcome::redis::{Announcer, Item, NoAnnouncer, Parker};
use crate::redis::Command;

/// The shelf, as the scribe asks it.
pub struct Parking(pub ParkedShelf);

/// Those that the shelf has anything to do with: what waits, and what waited before.
fn followed<'a>(items: &'a [Item<'a>]) -> Vec<Followed<'a>> {
    let concerns = |item: &&Item<'_>| {
        !item.outcome.status.is_final() || units::is_parked_place(item.outcome.request_place)
    };
    let items = items.iter().filter(concerns);
    items.map(|item| Followed { outcome: item.outcome, record: item.record }).collect()
}

impl Parker for Parking {
    fn park(&self, items: &[Item<'_>]) -> Vec<Command> {
        self.0.park(&followed(items))
    }

    fn unpark(&self, items: &[Item<'_>]) -> Vec<Command> {
        self.0.unpark(&followed(items))
    }

    fn done(&self, items: &[Item<'_>]) {
        self.0.done(&followed(items));
    }
}

/// Tells the producers that only speak Redis.
struct Telling(Results);

impl Announcer for Telling {
    fn announce(&self, items: &[Item<'_>]) -> Vec<Command> {
        self.0.commands(items.iter().map(|item| (&item.outcome, &item.request)))
    }
}

/// Whoever is told of results; nobody if no entries are kept.
pub fn announcer(redis: &RedisConfig, keys: &Keys) -> Arc<dyn Announcer> {
    match redis.results_count_max {
        0 => Arc::new(NoAnnouncer),
        count_max => Arc::new(Telling(Results::new(keys, count_max))),
    }
}
