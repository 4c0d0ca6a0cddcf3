//! Connections that break, keys that vanish or have the wrong type, a Redis that loses everything.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use hongbao::intake::redis::{Anomaly, Order, ReaderOptions, UnitId};

use crate::rig::*;
use crate::support::proxy::FaultProxy;
use crate::support::redis::cluster::ClusterSet;
use crate::support::redis::{Fsync, Setup};
use crate::support::{Dice, PATIENCE, await_until, env_number, seed};

/// Cuts, lost replies and stalls while requests flow: whatever was not acknowledged stands in Redis at any time, and
/// in the end everything was paid and nothing is left.
#[test]
fn broken_connections_lose_nothing_and_acknowledge_nothing_early() {
    let server = server();
    let keys = keys(1, &[("hongbao:intake", Order::Rpush)]);
    let proxy = FaultProxy::start(server.address());
    let instance = Instance::start(&server.url_at(proxy.address().port()), &keys, "one");
    instance.own(&server, 1, 1);
    let (mut till, mut dice) = (Till::new(&instance), Dice(seed()));
    let mut pushed = 0;
    for _ in 0..env_number("HONGBAO_FAULTS", 25) {
        push(&server, "RPUSH", "hongbao:intake", (pushed..pushed + 300).map(|n| format!("f{n}")));
        pushed += 300;
        match dice.roll(4) {
            0 => proxy.cut(),
            1 => proxy.cut_after_reply_bytes(Some(dice.roll(20_000))),
            2 => proxy.reset(),
            _ => proxy.swallow_replies(true),
        }
        let wanted = till.taken.len() + dice.roll(300) as usize;
        let until = Instant::now() + Duration::from_millis(dice.roll(150));
        while till.taken.len() < wanted && Instant::now() < until {
            till.take(20);
            till.ack(dice.roll(30) as usize);
        }
        // Nothing is done meanwhile, so what Redis has is at least what is not done.
        let there: HashSet<String> = standing(&server, &keys, 1).into_iter().collect();
        let missing =
            (0..pushed).map(|n| format!("f{n}")).find(|id| !till.acked.contains(id) && !there.contains(id));
        assert_eq!(missing, None, "acknowledged before it was done");
        proxy.cut_after_reply_bytes(None);
        proxy.swallow_replies(false);
    }
    till.run_until_acked(pushed, 0);
    await_until("the rest to be acknowledged", PATIENCE, || {
        till.take(100);
        till.ack(0);
        standing(&server, &keys, 1).is_empty().then_some(())
    });
    assert!(proxy.counts().connections > 3, "{:?}", proxy.counts());
    assert!(!server.has_multi_in_aof());
    println!("{} read for {pushed} pushed, anomalies {:?}", till.taken.len(), instance.anomalies().len());
}

#[test]
fn a_server_that_stands_still_is_waited_for() {
    let server = server();
    let keys = keys(1, &[("hongbao:intake", Order::Rpush)]);
    let instance = Instance::start(&server.url(), &keys, "one");
    instance.own(&server, 1, 1);
    let mut till = Till::new(&instance);
    push(&server, "RPUSH", "hongbao:intake", (0..100).map(|n| format!("f{n}")));
    await_until("all to be read", PATIENCE, || {
        till.take(100);
        (till.taken.len() == 100).then_some(())
    });
    server.sigstop();
    // Longer than the reader waits for a reply: the ack may be executed when it goes on, or never.
    till.ack(0);
    let until = Instant::now() + Duration::from_millis(1_600);
    await_until("the reply to be given up", PATIENCE, || (Instant::now() > until).then_some(()));
    server.sigcont();
    await_empty(&server, &keys, 1);
    push(&server, "RPUSH", "hongbao:intake", (100..200).map(|n| format!("f{n}")));
    till.run_until_acked(200, 0);
    await_empty(&server, &keys, 1);
    assert_eq!(till.taken.len(), 200, "each once");
    assert!(instance.anomalies().is_empty());
}

#[test]
fn a_redis_that_lost_everything_is_told_of_and_nothing_panics() {
    let server = server();
    let keys = keys(1, &[("hongbao:intake", Order::Rpush)]);
    let instance = Instance::start(&server.url(), &keys, "one");
    instance.own(&server, 1, 1);
    let mut till = Till::new(&instance);
    push(&server, "RPUSH", "hongbao:intake", (0..100).map(|n| format!("f{n}")));
    await_until("all to be read", PATIENCE, || {
        till.take(100);
        (till.taken.len() == 100).then_some(())
    });
    server.cli(&["FLUSHALL"]);
    till.ack(0);
    let told = await_until("it to be told", PATIENCE, || instance.anomalies().first().cloned());
    assert_eq!(told, (UnitId(1), Anomaly::OwnerGone { key: keys.owner(UnitId(1)) }));
    assert!(instance.intake.troubles()[0].1.contains("lost its data"));
    let commands = || server.info("total_commands_processed").unwrap().parse::<u64>().unwrap();
    let (before, since) = (commands(), Instant::now());
    await_until("three seconds of trouble", PATIENCE, || (since.elapsed().as_secs() >= 3).then_some(()));
    let asked = commands() - before;
    assert!(asked < 300, "{asked} commands in three seconds: a hot loop");
    assert_eq!(instance.anomalies().len(), 1, "told once");
    // The operator has the service own it again.
    instance.own(&server, 1, 2);
    push(&server, "RPUSH", "hongbao:intake", (100..200).map(|n| format!("f{n}")));
    till.run_until_acked(200, 0);
    await_empty(&server, &keys, 1);
    assert!(instance.intake.troubles().is_empty());
}

#[test]
fn what_a_restarted_server_brings_back_is_read_again() {
    for lost in ["LTRIM", "RENAME"] {
        brings_back(lost);
    }
}

/// What was written from this command on is lost.
fn brings_back(lost: &str) {
    let mut server = server();
    let keys = keys(1, &[("hongbao:intake", Order::Rpush)]);
    // Each look comes after twice the time of the one before: it first hears of the restart when all is back.
    let options = ReaderOptions { poll_ms_max: 3_600_000, ..ReaderOptions::default() };
    let instance = Instance::start_with(&server.url(), &keys, "one", options, 1_000);
    instance.own(&server, 1, 1);
    let mut till = Till::new(&instance);
    push(&server, "RPUSH", "hongbao:intake", (0..100).map(|n| format!("f{n}")));
    await_until("all to be read", PATIENCE, || {
        instance.intake.wake();
        till.take(100);
        (till.taken.len() == 100).then_some(())
    });
    till.ack(0);
    await_empty(&server, &keys, 1);
    await_until("the acks to be written", PATIENCE, || {
        (server.info("aof_buffer_length").as_deref() == Some("0")).then_some(())
    });
    let looks = || server.info("cmdstat_exists");
    let (mut seen, mut at) = (looks(), Instant::now());
    await_until("looks to be seconds apart", PATIENCE, || {
        let (now, gap) = (looks(), at.elapsed());
        if now != seen {
            (seen, at) = (now, Instant::now());
        }
        (gap > Duration::from_millis(400) && at.elapsed() < gap).then_some(())
    });
    server.sigkill();
    // Lost with the file's end.
    let first = server.aof_commands().into_iter().find(|command| command.name() == lost);
    server.cut_aof_to(first.expect("a seal and an ack").begin);
    server.restart();
    assert_eq!(standing(&server, &keys, 1).len(), 100, "they are back");
    await_until("them to be read and acknowledged again", PATIENCE, || {
        instance.intake.wake();
        till.take(100);
        till.ack(0);
        standing(&server, &keys, 1).is_empty().then_some(())
    });
    assert_eq!(till.taken.len(), 200);
    assert!(till.taken[100..].iter().all(|(_, may_be_sent)| *may_be_sent), "what was sent may have been");
}

#[test]
fn what_a_restarted_server_brings_back_for_another_owner_may_have_been_sent() {
    let mut server = server();
    let keys = keys(1, &[("hongbao:intake", Order::Rpush)]);
    let first = Instance::start(&server.url(), &keys, "first");
    first.own(&server, 1, 1);
    let mut till = Till::new(&first);
    push(&server, "RPUSH", "hongbao:intake", (0..100).map(|n| format!("f{n}")));
    await_until("all to be read", PATIENCE, || {
        till.take(100);
        (till.taken.len() == 100).then_some(())
    });
    drop((till, first));
    await_until("the seal to be written", PATIENCE, || {
        (server.info("aof_buffer_length").as_deref() == Some("0")).then_some(())
    });
    server.sigkill();
    // The seal is lost: what the first one sent stands in the live list again.
    let seal = server.aof_commands().into_iter().find(|command| command.name() == "RENAME");
    server.cut_aof_to(seal.expect("a seal").begin);
    server.restart();
    let second = Instance::start(&server.url(), &keys, "second");
    second.own(&server, 1, 2);
    let mut till = Till::new(&second);
    till.run_until_acked(100, 0);
    assert!(till.taken.iter().all(|(_, may_be_sent)| *may_be_sent), "the first one had them");
    push(&server, "RPUSH", "hongbao:intake", (0..100).map(|n| format!("g{n}")));
    till.run_until_acked(200, 0);
    assert!(till.taken[100..].iter().all(|(_, may_be_sent)| !may_be_sent), "nobody had those");
}

#[test]
fn a_sealed_key_that_somebody_changed_is_read_again() {
    let server = server();
    let keys = keys(1, &[("hongbao:intake", Order::Rpush)]);
    let instance = Instance::start(&server.url(), &keys, "one");
    instance.own(&server, 1, 1);
    let mut till = Till::new(&instance);
    push(&server, "RPUSH", "hongbao:intake", (0..100).map(|n| format!("f{n}")));
    await_until("all to be read", PATIENCE, || {
        till.take(100);
        (till.taken.len() == 100).then_some(())
    });
    server.cli(&["RPUSH", "{hongbao:intake}:a", "late"]);
    till.ack(0);
    till.run_until_acked(101, 0);
    await_empty(&server, &keys, 1);
    let anomalies = instance.anomalies();
    let key = "{hongbao:intake}:a".to_owned();
    assert_eq!(anomalies, [(UnitId(1), Anomaly::LengthChanged { key, expected: 100, found: 101 })]);
    assert_eq!(till.taken[100..].iter().filter(|(_, may_be_sent)| *may_be_sent).count(), 101);
}

#[test]
fn a_key_of_another_type_stops_its_unit_only() {
    let server = server();
    let keys = keys(1, &[("hongbao:intake", Order::Rpush), ("other", Order::Rpush)]);
    server.cli(&["SET", "other", "not a list"]);
    let instance = Instance::start(&server.url(), &keys, "one");
    (1..3).for_each(|unit| instance.own(&server, unit, 1));
    push(&server, "RPUSH", "hongbao:intake", (0..2_000).map(|n| format!("f{n}")));
    let mut till = Till::new(&instance);
    till.run_until_acked(2_000, 0);
    await_until("it to be told", PATIENCE, || (!instance.anomalies().is_empty()).then_some(()));
    assert_eq!(instance.anomalies(), [(UnitId(2), Anomaly::WrongType { key: "other".to_owned() })]);
    assert_eq!(instance.intake.troubles().len(), 1);
    server.cli(&["DEL", "other"]);
    push(&server, "RPUSH", "other", (0..10).map(|n| format!("g{n}")));
    till.run_until_acked(2_010, 0);
    await_until("the trouble to be over", PATIENCE, || instance.intake.troubles().is_empty().then_some(()));
}

#[test]
fn a_unit_whose_outcomes_cannot_be_recorded_stands_still_and_no_other() {
    let server = server();
    let keys = keys(1, &[("hongbao:intake", Order::Rpush), ("other", Order::Rpush)]);
    let instance = Instance::start(&server.url(), &keys, "one");
    for (unit, key) in [(1, keys.outcomes(UnitId(1))), (2, keys.parked(UnitId(2)))] {
        server.cli(&["SET", &key, "neither a stream nor a sorted set"]);
        push(&server, "RPUSH", ["hongbao:intake", "other"][usize::from(unit - 1)], ["w".to_owned() + &key]);
        instance.own(&server, unit, 1);
    }
    let mut till = Till::new(&instance);
    let told = await_until("both to be told", PATIENCE, || {
        let troubles = instance.intake.troubles();
        (troubles.len() == 2).then_some(troubles)
    });
    assert!(told[0].1.contains("{hongbao:intake}:outcomes is no stream"), "{told:?}");
    assert!(told[1].1.contains("{other}:parked is no zset: rename it, or remove it"), "{told:?}");
    assert_eq!(till.take(10), 0);
    server.cli(&["DEL", &keys.parked(UnitId(2))]);
    till.run_until_acked(1, 0);
    assert_eq!(till.taken_of("w"), ["w{other}:parked"]);
    server.cli(&["DEL", &keys.outcomes(UnitId(1))]);
    till.run_until_acked(2, 0);
    await_until("the troubles to be over", PATIENCE, || instance.intake.troubles().is_empty().then_some(()));
}

#[test]
fn a_node_that_comes_back_leaves_what_others_have_as_it_is() {
    let set = ClusterSet::start(&Setup::new(Fsync::NoFile), 3, false);
    let node = |list: &str| &set.nodes[set.owner(set.slot_of(list), 0).expect("an owner")];
    let names: Vec<String> = (0..100).map(|n| format!("list-{n}")).collect();
    let well = names.iter().find(|name| node(name).port() != node(&names[0]).port()).expect("another node");
    let lists = [names[0].as_str(), well.as_str()];
    let keys = keys(1, &lists.map(|name| (name, Order::Rpush)));
    let url = format!("redis+cluster://{}", set.nodes[0].address());
    let instance = Instance::start(&url, &keys, "one");
    for (unit, list) in (1..).zip(lists) {
        instance.own(node(list), unit, 1);
    }
    let mut till = Till::new(&instance);
    let mut count = 0;
    let mut send = |till: &mut Till, list: &str, prefix: &str| {
        push(node(list), "RPUSH", list, (0..10).map(|n| format!("{prefix}-{n}")));
        instance.intake.wake();
        count += 10;
        till.run_until_acked(count, 0);
        till.taken.iter().filter(|(id, may_be_sent)| id.starts_with(prefix) && *may_be_sent).count()
    };
    for list in lists {
        send(&mut till, list, &format!("first-{list}"));
    }
    // A slow machine breaks connections of its own now and then.
    let mut inherited = Vec::new();
    for round in 0..5 {
        node(lists[0]).cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        // At the latest by the second it was seen to be another connection.
        let doubted = [0, 1].map(|n| send(&mut till, lists[0], &format!("back-{round}-{n}-")));
        assert!(doubted.iter().sum::<usize>() >= 10, "what may have been sent before is told: {doubted:?}");
        inherited.push(send(&mut till, lists[1], &format!("well-{round}-")));
    }
    assert!(inherited.contains(&0), "nobody had those of the node that was well: {inherited:?}");
}
