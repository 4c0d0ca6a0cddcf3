//! What is parked: by the scribe's commands, out of Redis again by the loader, and never lost on the way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hongbao::digest::Stamper;
use hongbao::domain::{Amount, Currency, Kind, Lane, Outcome, Request, Status, WaitReason};
use hongbao::intake::redis::parked::{Followed, Loader, LoaderParts, Member, ParkedShelf, ShelfOptions};
use hongbao::intake::redis::{Held, UnitId, units};
use hongbao::intake::{Due, QueueId, Shelf};
use hongbao::redis::{Command, Failure, Link};
use hongbao::ring::poison::Poison;

use super::support::redis::{Fsync, RedisServer, Setup};
use super::support::{PATIENCE, await_until};
use super::{keys, link, server};

pub const UNIT: UnitId = UnitId(0);
const SHOP: UnitId = UnitId(2);

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// One instance: what it owns, its shelf and its loader.
pub struct Instance {
    pub held: Arc<Held>,
    pub shelf: ParkedShelf,
    pub link: Link,
    rung: Arc<AtomicU64>,
    poison: Poison,
    loader: Option<Loader>,
}

impl Instance {
    pub fn start(server: &RedisServer, name: &str, options: ShelfOptions) -> Instance {
        let held = Arc::new(Held::new(name.to_owned(), keys().units().len()));
        let shelf = ParkedShelf::new(keys(), held.clone(), options);
        let (rung, poison) = (Arc::new(AtomicU64::new(0)), Poison::default());
        let counter = rung.clone();
        shelf.on_news(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        let parts = LoaderParts {
            link: link(server),
            now_ms: Arc::new(now_ms),
            poison: poison.clone(),
            on_poison: Arc::new(|| {}),
        };
        let loader = Some(Loader::start(&shelf, parts).unwrap());
        Instance { held, shelf, link: link(server), rung, poison, loader }
    }

    /// Takes a unit over.
    pub fn own(&mut self, unit: UnitId, epoch: u64) {
        let lease = format!("{epoch}|{}|{}", self.held.incarnation(), now_ms() + 600_000);
        self.link.call(Command::new("SET", keys().owner(unit)).arg(lease)).unwrap();
        self.held.gained(unit, epoch);
        self.shelf.wake();
    }

    /// What the scribe does; the failures of its commands.
    pub fn settle(&mut self, settled: &[(Outcome<'static>, Bytes)]) -> Vec<Failure> {
        let followed: Vec<Followed<'_>> =
            settled.iter().map(|(outcome, record)| Followed { outcome: *outcome, record }).collect();
        let parks = self.link.round(&self.shelf.park(&followed));
        let unparks = self.link.round(&self.shelf.unpark(&followed));
        self.shelf.done(&followed);
        parks.into_iter().chain(unparks).filter_map(Result::err).collect()
    }

    pub fn take(&self, count_max: usize) -> Vec<Due> {
        let mut due = Vec::new();
        self.shelf.take_due(now_ms(), count_max, &mut due);
        due
    }

    /// Takes until it has so many.
    pub fn await_due(&self, count: usize) -> Vec<Due> {
        let mut due = Vec::new();
        await_until(&format!("{count} due requests"), PATIENCE, || {
            self.shelf.take_due(now_ms(), count - due.len(), &mut due);
            (due.len() == count).then_some(())
        });
        due
    }

    pub fn await_count(&self, count: usize) {
        await_until(&format!("{count} to be counted"), PATIENCE, || {
            (self.shelf.count() == count).then_some(())
        });
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.loader.take().into_iter().for_each(Loader::stop);
        if !std::thread::panicking() {
            assert_eq!(self.poison.reason(), None);
        }
    }
}

pub fn request(id: &str, campaign: &str, client: &str) -> Bytes {
    let (amount, currency) = (Amount::new(88).unwrap(), Currency::parse("CNY").unwrap());
    let request = Request::new(Kind::Disbursement, client, id, campaign, amount, currency);
    Bytes::from(Stamper::default().encode(Request { party: "ann", accepted_at: 7, ..request }))
}

/// It waits for a balance until then.
pub fn waits(record: &Bytes, place: u64, until: u64) -> (Outcome<'static>, Bytes) {
    let outcome = Outcome {
        status: Status::Queued,
        code: None,
        reason: Some(WaitReason::LowBalance),
        kind: Kind::Disbursement,
        lane: Some(Lane::Realtime),
        request_place: place,
        follows_place: place,
        key_hash: 0,
        at: now_ms(),
        next_attempt_at: until,
        attempts: 1,
        campaign_number: 0,
        amount: 88,
        wallet_ref: "",
    };
    (outcome, record.clone())
}

pub fn succeeded(due: &Due) -> (Outcome<'static>, Bytes) {
    let (outcome, record) = waits(&due.record, due.place, 0);
    (Outcome { status: Status::Succeeded, reason: None, ..outcome }, record)
}

/// So many requests of a campaign, read from the unit's list, that wait until then.
pub fn many(unit: UnitId, campaign: &str, count: u64, until: u64) -> Vec<(Outcome<'static>, Bytes)> {
    let one = |n| waits(&request(&format!("{campaign}-{n}"), campaign, "shop"), units::place(unit, n), until);
    (0..count).map(one).collect()
}

fn id(due: &Due) -> &str {
    Request::decode(&due.record).unwrap().id
}

fn zcard(server: &RedisServer, unit: UnitId) -> String {
    server.cli(&["ZCARD", &keys().parked(unit)])
}

#[test]
fn what_is_parked_comes_back_when_it_is_due_and_goes_when_it_is_settled() {
    let server = server();
    let mut one = Instance::start(&server, "one", ShelfOptions::default());
    one.own(UNIT, 1);
    let (soon, late) = (now_ms() + 150, now_ms() + 600_000);
    assert_eq!(one.settle(&many(UNIT, "spring", 3, soon)), []);
    assert_eq!(one.settle(&many(UNIT, "summer", 2, late)), []);
    assert_eq!(one.take(9).len(), 0, "nothing is due yet");
    one.await_count(5);
    await_until("the bell", PATIENCE, || (one.rung.load(Ordering::SeqCst) > 0).then_some(()));
    let due = one.await_due(3);
    assert!(now_ms() >= soon);
    assert_eq!(
        due.iter().map(id).collect::<BTreeSet<_>>(),
        BTreeSet::from(["spring-0", "spring-1", "spring-2"])
    );
    assert!(due.iter().all(|due| due.attempts == 1 && !due.is_unknown && units::is_parked_place(due.place)));
    // Read, not popped: it goes when its outcome is there.
    assert_eq!(zcard(&server, UNIT), "5");
    assert!(!one.shelf.is_quiet(UNIT));
    let (again, _) = waits(&due[0].record, due[0].place, late);
    let again =
        (Outcome { status: Status::Unknown, reason: None, attempts: 2, ..again }, due[0].record.clone());
    assert_eq!(one.settle(&[again, succeeded(&due[1]), succeeded(&due[2])]), []);
    assert_eq!(zcard(&server, UNIT), "3");
    assert!(one.shelf.is_quiet(UNIT));
    one.await_count(3);
    // The one that waits on does so since it was parked first, and says what its outcome was.
    let members: Vec<Vec<u8>> =
        redis::cmd("ZRANGE").arg(keys().parked(UNIT)).arg(0).arg(-1).query(&mut server.connect()).unwrap();
    let members = members.into_iter().map(|bytes| Member::decode(&Bytes::from(bytes)).unwrap());
    let unknown: Vec<Member> = members.filter(|member| member.is_unknown).collect();
    assert_eq!((unknown.len(), unknown[0].attempts, unknown[0].reason), (1, 2, WaitReason::NoAnswer));
    assert!(unknown[0].since < unknown[0].at);
    assert!(!server.has_multi_in_aof());
}

#[test]
fn parked_again_as_the_same_it_is_not_removed() {
    let server = server();
    let mut one = Instance::start(&server, "one", ShelfOptions::default());
    one.own(UNIT, 1);
    let (mut outcome, record) = many(UNIT, "spring", 1, 1).remove(0);
    assert_eq!(one.settle(&[(outcome, record.clone())]), []);
    for _ in 0..3 {
        let due = one.await_due(1);
        outcome.request_place = due[0].place;
        // The same in all but its time, as a paused campaign's is within one millisecond.
        assert_eq!(one.settle(&[(outcome, record.clone())]), []);
        assert_eq!(zcard(&server, UNIT), "1");
    }
    one.await_count(1);
    let due = one.await_due(1);
    assert_eq!(one.settle(&[succeeded(&due[0])]), []);
    assert_eq!(zcard(&server, UNIT), "0");
    one.await_count(0);
}

#[test]
fn an_older_epoch_neither_parks_nor_removes() {
    let server = server();
    let mut one = Instance::start(&server, "one", ShelfOptions::default());
    let mut two = Instance::start(&server, "two", ShelfOptions::default());
    one.own(UNIT, 1);
    assert_eq!(one.settle(&many(UNIT, "spring", 4, 1)), []);
    let held = one.await_due(4);
    two.own(UNIT, 2);
    // One has not noticed yet. What it was doing is two's now.
    let late = now_ms() + 600_000;
    let stale = one.settle(&[waits(&held[0].record, held[0].place, late), succeeded(&held[1])]);
    assert_eq!(stale.len(), 2);
    assert!(stale.iter().all(|failure| failure.is_code("STALE")), "{stale:?}");
    assert_eq!(zcard(&server, UNIT), "4");
    one.held.lost(UNIT);
    one.shelf.wake();
    one.await_count(0);
    // Nor does it try, once it knows; and what comes of it later is nobody's business here.
    assert_eq!(one.settle(&[waits(&held[2].record, held[2].place, late), succeeded(&held[3])]), []);
    let due = two.await_due(4);
    assert_eq!(two.settle(&due.iter().map(succeeded).collect::<Vec<_>>()), []);
    assert_eq!(zcard(&server, UNIT), "0");
    two.await_count(0);
}

#[test]
fn a_unit_that_is_leaving_hands_nothing_out() {
    let server = server();
    let mut one = Instance::start(&server, "one", ShelfOptions::default());
    one.own(UNIT, 1);
    one.own(SHOP, 1);
    assert_eq!(one.settle(&many(UNIT, "spring", 2, 1)), []);
    await_until("something to be ready", PATIENCE, || one.shelf.next_due());
    one.held.leave(UNIT);
    assert_eq!(one.settle(&many(SHOP, "summer", 1, 1)), []);
    assert_eq!(id(&one.await_due(1)[0]), "summer-0");
    assert_eq!(one.take(9).len(), 0);
    // Nothing is ready: the feed does not spin on it.
    assert_eq!(one.shelf.next_due(), None);
    one.held.lost(UNIT);
    one.own(UNIT, 2);
    assert_eq!(one.await_due(2).len(), 2);
}

#[test]
fn what_is_found_at_a_takeover_is_counted_and_bounds_what_is_read() {
    let server = server();
    let late = now_ms() + 600_000;
    {
        let mut before = Instance::start(&server, "before", ShelfOptions::default());
        before.own(UNIT, 1);
        for (campaign, count) in [("spring", 1_500), ("summer", 700)] {
            assert_eq!(before.settle(&many(UNIT, campaign, count, late)), []);
        }
    }
    // Of a newer release.
    server.cli(&["ZADD", &keys().parked(UNIT), "5", "\x02newer"]);
    let options = ShelfOptions { count_max: 3_000, ..ShelfOptions::default() };
    let mut one = Instance::start(&server, "one", options);
    one.own(UNIT, 2);
    one.await_count(2_201);
    let queue = |campaign: &str| QueueId::of(Lane::Realtime, campaign, 8);
    await_until("the counts by queue", PATIENCE, || {
        let counts: BTreeSet<(QueueId, usize)> = one.shelf.by_queue().into_iter().collect();
        (counts == BTreeSet::from([(queue("spring"), 1_500), (queue("summer"), 700)])).then_some(())
    });
    assert_eq!(one.shelf.unreadable_count(), 1);
    assert_eq!(one.take(9).len(), 0, "nobody knows what the newer one is");
    // 799 are free: spring holds more than that, summer 700, the others nothing.
    let control = QueueId { lane: Lane::Control, fair: 0 };
    let mut rooms = Vec::new();
    one.shelf.rooms(&[queue("spring"), queue("summer"), queue("autumn"), control], 9, &mut rooms);
    assert_eq!(rooms, [0, 90, 790, usize::MAX]);
    let rung = one.rung.load(Ordering::SeqCst);
    assert!(!one.shelf.has_room(&[queue("spring")], 9));
    // Somebody else's release makes some of it due; settled, it makes room, and the feed is rung.
    let released = server.cli(&["EVAL", RELEASE_SOME, "1", &keys().parked(UNIT), "1200"]);
    assert_eq!(released, "1200");
    let due = one.await_due(1_200);
    assert_eq!(one.settle(&due.iter().map(succeeded).collect::<Vec<_>>()), []);
    await_until("the bell", PATIENCE, || (one.rung.load(Ordering::SeqCst) > rung).then_some(()));
    one.await_count(1_001);
    assert!(one.shelf.has_room(&[queue("spring")], 9));
}

const RELEASE_SOME: &str = "local m = redis.call('ZRANGE', KEYS[1], 1, ARGV[1]) local a = {} \
    for i, one in ipairs(m) do a[2 * i - 1] = i a[2 * i] = one end redis.call('ZADD', KEYS[1], 'XX', unpack(a)) return #m";

#[test]
fn many_that_are_due_at_once_are_all_handed_out_once() {
    let server = server();
    let mut one =
        Instance::start(&server, "one", ShelfOptions { ready_count_max: 256, ..ShelfOptions::default() });
    one.own(UNIT, 1);
    one.own(SHOP, 1);
    let at = now_ms() + 300;
    for unit in [UNIT, SHOP] {
        assert_eq!(one.settle(&many(unit, &format!("c{}", unit.0), 5_000, at)), []);
    }
    let mut ids = BTreeSet::new();
    while ids.len() < 10_000 {
        let due = one.await_due(1);
        let more = one.take(300);
        let due: Vec<Due> = due.into_iter().chain(more).collect();
        for one in &due {
            assert!(ids.insert(id(one).to_owned()), "{} came twice", id(one));
        }
        assert_eq!(one.settle(&due.iter().map(succeeded).collect::<Vec<_>>()), []);
    }
    assert_eq!((zcard(&server, UNIT), zcard(&server, SHOP)), ("0".to_owned(), "0".to_owned()));
    one.await_count(0);
}

#[test]
fn a_full_redis_still_parks_and_a_strange_key_stops_only_its_unit() {
    let server = RedisServer::start(Setup::new(Fsync::NoFile));
    let mut one = Instance::start(&server, "one", ShelfOptions::default());
    one.own(UNIT, 1);
    one.own(SHOP, 1);
    server.cli(&["SET", &keys().parked(SHOP), "not a sorted set"]);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(server.try_cli(&["SET", "x", "y"]).is_err(), "the test is of a full Redis");
    assert_eq!(one.settle(&many(UNIT, "spring", 2, 1)), []);
    assert!(one.settle(&many(SHOP, "summer", 1, 1))[0].to_string().contains("WRONGTYPE"));
    assert_eq!(one.await_due(2).len(), 2);
}

#[test]
fn it_survives_an_absence_of_redis() {
    let mut server = RedisServer::start(Setup::new(Fsync::Always));
    let mut one = Instance::start(&server, "one", ShelfOptions::default());
    one.own(UNIT, 1);
    assert_eq!(one.settle(&many(UNIT, "spring", 2, now_ms() + 200)), []);
    server.sigkill();
    std::thread::sleep(Duration::from_millis(300));
    server.restart();
    let due = one.await_due(2);
    await_until("the connection to come back", PATIENCE, || {
        one.settle(&due.iter().map(succeeded).collect::<Vec<_>>()).is_empty().then_some(())
    });
    one.await_count(0);
}
