//! What is read of a list, and in which order.

use hongbao::domain::Lane;
use hongbao::intake::redis::{Order, UnitId};
use hongbao::intake::{Intake, QueueId};

use crate::rig::*;
use crate::support::{PATIENCE, await_until};

#[test]
fn each_list_is_read_in_order_whichever_end_is_pushed_to() {
    let server = server();
    let keys = keys(1, &[("hongbao:intake", Order::Rpush), ("odd", Order::Lpush)]);
    let shard = keys.list(UnitId(0), QueueId { lane: Lane::Realtime, fair: 0 });
    let instance = Instance::start(&server.url(), &keys, "one");
    let mut till = Till::new(&instance);
    for round in 0..4 {
        let names =
            |prefix: &'static str| (0..3_000).map(move |n| format!("{prefix}{:05}", round * 3_000 + n));
        push(&server, "RPUSH", &shard, names("s"));
        push(&server, "RPUSH", "hongbao:intake", names("r"));
        push(&server, "LPUSH", "odd", names("l"));
        if round == 0 {
            (0..3).for_each(|unit| instance.own(&server, unit, 1));
        }
        till.run_until_acked(9_000 * (round + 1), 50);
    }
    for prefix in ["s", "r", "l"] {
        for fair in 0..u64::from(FAIR) {
            // What is of one list and one queue comes in order.
            let of_queue = |id: &&str| id.bytes().map(u64::from).sum::<u64>() % u64::from(FAIR) == fair;
            let taken: Vec<&str> = till.taken_of(prefix).into_iter().filter(of_queue).collect();
            assert!(taken.is_sorted(), "{prefix} in queue {fair}");
        }
        assert_eq!(till.taken_of(prefix).len(), 12_000, "{prefix}: each once");
    }
    for (id, may_be_sent) in &till.taken {
        let was_there = id[1..].parse::<u32>().unwrap() < 3_000;
        assert_eq!(*may_be_sent, was_there, "{id}: nobody else had what came later");
    }
    (0..3).for_each(|unit| await_empty(&server, &keys, unit));
    assert!(!server.has_multi_in_aof(), "a script wrote twice");
    let ours = server.aof_commands().into_iter().filter(|command| command.name() == "LTRIM").count();
    assert!(ours > 0, "the append-only file tells of the acks");
}

#[test]
fn a_client_at_the_wrong_end_neither_stops_nor_loses_anything() {
    let server = server();
    let keys = keys(1, &[("hongbao:intake", Order::Rpush)]);
    let instance = Instance::start(&server.url(), &keys, "one");
    instance.own(&server, 1, 1);
    let mut till = Till::new(&instance);
    let pusher = std::thread::spawn({
        let mut connection = server.connect();
        move || {
            for n in 0..5_000 {
                let how = if n % 3 == 0 { "RPUSH" } else { "LPUSH" };
                redis::cmd(how).arg("hongbao:intake").arg(format!("w{n}")).exec(&mut connection).unwrap();
            }
        }
    });
    till.run_until_acked(5_000, 300);
    pusher.join().unwrap();
    assert_eq!(till.taken.len(), 5_000, "each once");
    await_empty(&server, &keys, 1);
}

#[test]
fn one_request_that_takes_long_does_not_keep_those_behind_it_from_being_read() {
    let server = server();
    let keys = keys(1, &[("rpushed", Order::Rpush), ("lpushed", Order::Lpush)]);
    for (unit, key, how) in [(1, "rpushed", "RPUSH"), (2, "lpushed", "LPUSH")] {
        let instance = Instance::start(&server.url(), &keys, "one");
        instance.own(&server, unit, 1);
        let mut till = Till::new(&instance);
        // Nothing is acknowledged: the first two are both generations.
        for n in 0..=130 {
            let count = if n < 100 { 1 } else { 100 };
            push(&server, how, key, (0..count).map(|m| format!("{how}{n:04}x{m:02}")));
            if n < 110 {
                await_until("it to be read", PATIENCE, || (till.take(1_000) > 0).then_some(()));
            }
        }
        await_until("all to be read", PATIENCE, || {
            till.take(1_000);
            (till.taken.len() == 100 + 31 * 100).then_some(())
        });
        for fair in 0..u64::from(FAIR) {
            let of_queue = |id: &&str| id.bytes().map(u64::from).sum::<u64>() % u64::from(FAIR) == fair;
            assert!(till.taken_of(how).into_iter().filter(of_queue).is_sorted(), "{how} in queue {fair}");
        }
        till.ack(0);
        await_empty(&server, &keys, unit);
        assert!(instance.anomalies().is_empty());
    }
    assert!(!server.has_multi_in_aof());
}

#[test]
fn an_array_larger_than_all_credit_is_read_whole_and_handed_out_in_pieces() {
    let server = server();
    let keys = keys(1, &[("hongbao:intake", Order::Rpush)]);
    let options = hongbao::intake::redis::ReaderOptions { requests_max: 100, ..Default::default() };
    let instance = Instance::start_with(&server.url(), &keys, "one", options, 1_000);
    let array = |from: usize| (from..from + 5_000).map(|n| format!("a{n}")).collect::<Vec<_>>().join(",");
    let elements = ["".to_owned(), array(0), "x1,!y,x2".to_owned(), array(5_000), "bad one".to_owned()];
    push(&server, "RPUSH", "hongbao:intake", elements);
    instance.own(&server, 1, 1);
    let mut till = Till::new(&instance);
    await_until("the first array", PATIENCE, || (till.take(7) > 0).then_some(()));
    assert!(till.taken.len() <= 14, "in pieces: {}", till.taken.len());
    let backlog = await_until("its requests to be counted", PATIENCE, || {
        let backlog = instance.intake.backlog();
        (backlog.requests > 4_000).then_some(backlog)
    });
    assert!(backlog.elements >= 2, "{backlog:?}");
    till.run_until_acked(10_002, 0);
    await_empty(&server, &keys, 1);
    let dead = server.cli(&["LRANGE", &keys.dead(UnitId(1)), "0", "-1"]);
    assert_eq!(dead.lines().collect::<Vec<_>>(), ["bad !y", "bad bad one"]);
    let depth = |queue| instance.intake.depth(queue);
    let left: u64 = (0..FAIR).map(|fair| depth(QueueId { lane: Lane::Realtime, fair })).sum();
    assert_eq!(left, 0);
}

#[test]
fn nothing_is_acknowledged_before_its_dead_parts_are_buried() {
    let server = server();
    let keys = keys(1, &[("hongbao:intake", Order::Rpush)]);
    let instance = Instance::start_with(&server.url(), &keys, "one", Default::default(), 2);
    let large = "z".repeat(2 << 20);
    push(
        &server,
        "RPUSH",
        "hongbao:intake",
        ["bad1".to_owned(), large, "a,!bad3".to_owned(), "b".to_owned()],
    );
    instance.own(&server, 1, 1);
    let mut till = Till::new(&instance);
    await_until("the dead to fill their list", PATIENCE, || {
        till.take(10);
        till.ack(0);
        (!instance.intake.troubles().is_empty()).then_some(())
    });
    assert!(instance.intake.troubles()[0].1.contains("no room"), "{:?}", instance.intake.troubles());
    assert_eq!(standing(&server, &keys, 1).len(), 4, "three were to be buried at once, none was");
    server.cli(&["SET", "unrelated", "1"]);
    // Somebody looks after the dead; here, by making the key short enough for what waits.
    drop(instance);
    let instance = Instance::start_with(&server.url(), &keys, "two", Default::default(), 3);
    instance.own(&server, 1, 2);
    let mut till = Till::new(&instance);
    till.run_until_acked(2, 0);
    await_empty(&server, &keys, 1);
    let dead = server.cli(&["LRANGE", &keys.dead(UnitId(1)), "0", "-1"]);
    let codes: Vec<&str> = dead.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(codes, ["bad", "too_large", "bad"]);
    assert!(instance.intake.troubles().is_empty());
}
