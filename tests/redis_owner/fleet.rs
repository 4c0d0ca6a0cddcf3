//! Instances that come and go: shares stay fair, hand-overs quick, and no two hold one unit.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hongbao::intake::redis::lease::{self, Lease};
use hongbao::intake::redis::{ForeignList, Keys, Order, UnitId, Units};
use hongbao::redis::{Value, reply};

use crate::instance::{Instance, Setup, TTL, UNIT_COUNT, keys, units};
use crate::server::{Server, code};
use crate::support::{PATIENCE, await_until};

fn leases(server: &Server) -> BTreeMap<UnitId, Lease> {
    let read = |unit: UnitId| {
        let text = reply::text("GET", server.ask(&["GET", &keys().owner(unit)])).unwrap()?;
        Some((unit, Lease::parse(&text).unwrap_or_else(|| panic!("{text:?} is no lease"))))
    };
    units().ids().filter_map(read).collect()
}

/// Whether every unit is held by exactly one of them, each with its share, and Redis says the same.
fn is_fair(server: &Server, fleet: &[&Instance]) -> bool {
    let leases = leases(server);
    let held: Vec<Vec<UnitId>> = fleet.iter().map(|instance| instance.units()).collect();
    let shares = usize::from(UNIT_COUNT) / fleet.len()..=usize::from(UNIT_COUNT).div_ceil(fleet.len());
    let is_told = |instance: &Instance, unit: UnitId| {
        let lease = leases.get(&unit);
        lease.is_some_and(|lease| {
            lease.incarnation == instance.incarnation() && Some(lease.epoch) == instance.held.epoch(unit)
        })
    };
    held.iter().all(|held| shares.contains(&held.len()))
        && held.iter().map(Vec::len).sum::<usize>() == usize::from(UNIT_COUNT)
        && fleet.iter().zip(&held).all(|(instance, held)| held.iter().all(|unit| is_told(instance, *unit)))
}

/// Looks on until the condition holds: no unit may be held twice, no epoch may fall.
struct Watch<'a> {
    server: &'a Server,
    epochs: BTreeMap<UnitId, u64>,
}

impl Watch<'_> {
    fn until(&mut self, what: &str, fleet: &[&Instance], mut holds: impl FnMut() -> bool) {
        await_until(what, PATIENCE, || {
            for unit in units().ids() {
                for (one, other) in fleet.iter().flat_map(|one| fleet.iter().map(move |other| (one, other))) {
                    let before = one.held.epoch(unit);
                    let others = other.held.epoch(unit);
                    let is_both = before.is_some() && others.is_some() && one.held.epoch(unit) == before;
                    assert!(
                        !is_both || one.incarnation() == other.incarnation(),
                        "{unit:?} is held twice: {before:?} and {others:?}"
                    );
                }
            }
            for (unit, lease) in leases(self.server) {
                let before = self.epochs.insert(unit, lease.epoch).unwrap_or(0);
                assert!(before <= lease.epoch, "the epoch of {unit:?} fell from {before} to {}", lease.epoch);
            }
            holds().then_some(())
        });
    }
}

#[test]
fn shares_stay_fair_through_joins_stops_and_crashes() {
    let server = Server::start();
    let mut watch = Watch { server: &server, epochs: BTreeMap::new() };
    let mut one = Instance::start(&server, "one");
    watch.until("one to hold all", &[&one], || is_fair(&server, &[&one]));
    let mut two = Instance::start(&server, "two");
    watch.until("two to share", &[&one, &two], || is_fair(&server, &[&one, &two]));
    let three = Instance::start(&server, "three");
    let all = [&one, &two, &three];
    watch.until("three to share", &all, || is_fair(&server, &all));
    let figures = three.standing.figures();
    assert_eq!((figures.unit_count, figures.lost), (three.units().len(), 0));
    await_until("the fleet to be known", PATIENCE, || {
        (three.standing.figures().member_count == 3).then_some(())
    });
    assert_eq!(three.gained.load(Ordering::SeqCst) as u64, figures.acquired, "each was announced");

    two.stop(PATIENCE);
    assert_eq!(two.held.count(), 0);
    let left = [&one, &three];
    watch.until("two to share again", &left, || is_fair(&server, &left));
    let board = reply::array("HKEYS", server.ask(&["HKEYS", "t:board:instances"])).unwrap();
    assert_eq!(board.len(), 2, "who stopped is off the board");

    one.crash();
    let crashed = Instant::now();
    watch.until("the units of the crashed one", &[&three], || is_fair(&server, &[&three]));
    assert!(crashed.elapsed() > TTL / 3, "not before the leases ran out");
}

#[test]
fn a_clean_stop_and_a_join_hand_over_long_before_leases_run_out() {
    let server = Server::start();
    // A turn a second: what takes as long as a lease's life is plain to see.
    let slow = || Setup { ttl: Duration::from_secs(12), ..Setup::default() };
    let mut one = Instance::of(&server, "one", slow()).unwrap();
    await_until("one to hold all", PATIENCE, || is_fair(&server, &[&one]).then_some(()));
    let began = Instant::now();
    let two = Instance::of(&server, "two", slow()).unwrap();
    await_until("two to share", PATIENCE, || is_fair(&server, &[&one, &two]).then_some(()));
    assert!(began.elapsed() < slow().ttl * 3 / 4, "joining took {:?}", began.elapsed());
    let began = Instant::now();
    one.stop(PATIENCE);
    assert!(began.elapsed() < slow().ttl / 12, "stopping took {:?}", began.elapsed());
    await_until("the other one to hold all", PATIENCE, || is_fair(&server, &[&two]).then_some(()));
    // A turn, and what the machine needs beside it.
    assert!(began.elapsed() < slow().ttl / 3, "the hand-over took {:?}", began.elapsed());
}

#[test]
fn who_is_not_quiet_is_waited_for_within_bounds() {
    let server = Server::start();
    let mut one = Instance::start(&server, "one");
    await_until("one to hold all", PATIENCE, || is_fair(&server, &[&one]).then_some(()));
    one.is_quiet.store(false, Ordering::SeqCst);
    let began = Instant::now();
    let two = Instance::start(&server, "two");
    await_until("a unit is being left", PATIENCE, || {
        units().ids().any(|unit| one.held.is_leaving(unit)).then_some(())
    });
    await_until("two to share all the same", PATIENCE, || is_fair(&server, &[&one, &two]).then_some(()));
    assert!(began.elapsed() > TTL / 3, "two turns were waited");
    let began = Instant::now();
    one.stop(TTL / 3);
    assert!(began.elapsed() >= TTL / 3, "not quiet: the whole time was waited");
    await_until("the other one to hold all", PATIENCE, || is_fair(&server, &[&two]).then_some(()));
}

#[test]
fn who_was_frozen_has_lost_its_units_when_it_wakes() {
    let server = Server::start();
    let one = Instance::start(&server, "one");
    await_until("one to hold all", PATIENCE, || is_fair(&server, &[&one]).then_some(()));
    let old: Vec<(UnitId, u64)> =
        one.units().into_iter().map(|unit| (unit, one.held.epoch(unit).unwrap())).collect();
    let frozen = one.freeze();
    let two = Instance::start(&server, "two");
    await_until("the other one to take over", PATIENCE, || is_fair(&server, &[&two]).then_some(()));
    assert_eq!(one.held.count(), usize::from(UNIT_COUNT), "it sleeps and knows nothing");
    let renew = |(unit, epoch): &(UnitId, u64)| {
        server.link().call(lease::renew(&keys().owner(*unit), *epoch, one.incarnation(), 60_000))
    };
    assert!(old.iter().all(|lease| code(renew(lease)) == lease::STALE));
    drop(frozen);
    await_until("both to share", PATIENCE, || is_fair(&server, &[&one, &two]).then_some(()));
    assert_eq!(one.standing.figures().lost, u64::from(UNIT_COUNT));
    assert!(old.iter().all(|(unit, epoch)| one.held.epoch(*unit) != Some(*epoch)), "under new epochs only");
}

#[test]
fn without_redis_units_are_lost_in_time_and_owned_again_afterwards() {
    let mut server = Server::start();
    let one = Instance::start(&server, "one");
    await_until("one to hold all", PATIENCE, || is_fair(&server, &[&one]).then_some(()));
    let epochs: Vec<u64> = leases(&server).values().map(|lease| lease.epoch).collect();
    server.kill();
    let began = Instant::now();
    await_until("the units to be lost", PATIENCE, || (one.held.count() == 0).then_some(()));
    assert!(began.elapsed() > TTL / 3, "a hiccup costs nothing");
    assert!(one.standing.unreachable().is_some() && one.standing.door_closed().is_none());
    server.restart();
    await_until("one to hold all again", PATIENCE, || is_fair(&server, &[&one]).then_some(()));
    let later: Vec<u64> = leases(&server).values().map(|lease| lease.epoch).collect();
    assert!(epochs.iter().zip(&later).all(|(before, after)| before < after), "{epochs:?} {later:?}");
    assert!(one.standing.unreachable().is_none() && one.anomaly().is_none());
}

#[test]
fn a_unit_is_opened_once_what_must_be_known_is_known() {
    let server = Server::start();
    let one = Instance::start(&server, "one");
    one.is_ready.store(false, Ordering::SeqCst);
    // It may have been quicker: then the next one is not.
    let two = Instance::of(&server, "two", Setup { keys: keys(), ..Setup::default() }).unwrap();
    two.is_ready.store(false, Ordering::SeqCst);
    await_until("units to be announced again and again", PATIENCE, || {
        (two.gained.load(Ordering::SeqCst) > 3 * usize::from(UNIT_COUNT)).then_some(())
    });
    assert_eq!(two.held.count(), 0);
    two.is_ready.store(true, Ordering::SeqCst);
    one.is_ready.store(true, Ordering::SeqCst);
    await_until("both to share", PATIENCE, || is_fair(&server, &[&one, &two]).then_some(()));
}

#[test]
fn a_board_elsewhere_may_be_away_without_costing_a_unit() {
    let (server, mut board) = (Server::start(), Server::start());
    let apart = || Setup { board: Some(board.target()), ..Setup::default() };
    let one = Instance::of(&server, "one", apart()).unwrap();
    let two = Instance::of(&server, "two", apart()).unwrap();
    let both = [&one, &two];
    await_until("both to share", PATIENCE, || is_fair(&server, &both).then_some(()));
    assert_eq!(server.ask(&["EXISTS", "t:board:instances", "t:board:wallet"]), Value::Int(0));
    assert_eq!(
        board.ask(&["EXISTS", "t:board:instances", "t:board:wallet", "t:board:shards"]),
        Value::Int(3)
    );
    let before = leases(&server);
    let deadline = |leases: &BTreeMap<UnitId, Lease>| leases.values().map(|lease| lease.deadline_ms).min();
    // Dead, and then standing still, which costs each round its timeout.
    board.kill();
    await_until("the outage to be told", PATIENCE, || one.standing.unreachable().map(|_| ()));
    let renewed = |from: &BTreeMap<UnitId, Lease>| {
        let far = deadline(from).map(|at| at + 2 * TTL.as_millis() as u64);
        await_until("renewals for two lives of a lease", PATIENCE, || {
            (deadline(&leases(&server)) > far).then_some(())
        });
    };
    renewed(&before);
    board.restart();
    await_until("the end of the outage", PATIENCE, || one.standing.unreachable().is_none().then_some(()));
    let frozen = board.freeze();
    renewed(&leases(&server));
    let epochs =
        |leases: &BTreeMap<UnitId, Lease>| leases.values().map(|lease| lease.epoch).collect::<Vec<_>>();
    assert_eq!((epochs(&leases(&server)), one.standing.figures().lost), (epochs(&before), 0));
    // What the reader met as lost, and Redis says is ours, is taken back without the board.
    one.units().iter().for_each(|unit| one.held.lost(*unit));
    await_until("both to share again", PATIENCE, || is_fair(&server, &both).then_some(()));
    assert!(one.standing.unreachable().is_some() && one.standing.figures().lost > 0);
    drop(frozen);
    await_until("the end of the silence", PATIENCE, || one.standing.unreachable().is_none().then_some(()));
    await_until("both to share still", PATIENCE, || is_fair(&server, &both).then_some(()));
}

#[test]
fn an_epoch_is_not_issued_twice_by_a_redis_that_went_back_to_an_older_state() {
    let server = Server::start();
    let one = Instance::start(&server, "one");
    let unit = UnitId(3);
    let epoch = || one.held.epoch(unit);
    // The lease is changed behind its back: it takes the unit anew, each time under a later epoch.
    let own = keys().owner(unit);
    let set = |epoch: u64| server.ask(&["SET", &own, &format!("{epoch}|somebody|0")]);
    await_until("the unit to be owned", PATIENCE, epoch);
    set(8);
    let before = await_until("a later epoch", PATIENCE, || epoch().filter(|epoch| *epoch > 8));
    set(2);
    let after = await_until("another epoch", PATIENCE, || epoch().filter(|epoch| *epoch != before));
    assert!(after > before, "{after} behind {before}");
}

#[test]
fn a_list_that_only_some_know_stays_with_them() {
    let server = Server::start();
    let list = |name: &str, client: &str| ForeignList {
        name: name.to_owned(),
        client: client.to_owned(),
        order: Order::Rpush,
        hmac_key: None,
    };
    let setup = |foreign: Vec<ForeignList>| Setup {
        keys: Keys::new("t", Units { foreign, ..units() }),
        ..Setup::default()
    };
    let wide = setup(vec![list("intake", "shop"), list("extra", "shop"), list("more", "shop")]);
    let extra = UnitId(UNIT_COUNT + 1);
    let all = usize::from(UNIT_COUNT) + 3;
    let one = Instance::of(&server, "one", wide).unwrap();
    await_until("all to be owned", PATIENCE, || (one.held.count() == all).then_some(()));
    let two = Instance::of(&server, "two", setup(vec![list("intake", "shop")])).unwrap();
    // Eight are known to both.
    await_until("fair shares", PATIENCE, || (two.held.count() == 4 && one.held.count() == 6).then_some(()));
    assert!(one.held.epoch(extra).is_some() && one.held.epoch(UnitId(UNIT_COUNT + 2)).is_some());
    // Who reads a list in another way than those before it owns nothing, and says what differs.
    let odd = Instance::of(&server, "odd", setup(vec![list("intake", "mall")])).unwrap();
    await_until("the difference to be told", PATIENCE, || {
        (odd.anomaly() == Some("lists_differ")).then_some(())
    });
    let told = odd.standing.door_closed().expect("the door is closed");
    assert!(
        ["list intake", "client mall", "client shop", "intake.redis.lists"].iter().all(|w| told.contains(w)),
        "{told}"
    );
    assert_eq!((odd.held.count(), one.held.count() + two.held.count()), (0, all));
}
