//! What others do to the lists: the wrong end, the wrong type, garbage, elements that are far too large.

use std::time::{Duration, Instant};

use redis::Commands;
use rustix::process::Signal;
use serde_json::json;

use crate::load::{INTAKE, Load, body, element, push};
use crate::support::redis::{Fsync, RedisServer, Setup};
use crate::support::{PATIENCE, await_until, env_number};
use crate::world::{SETTLE_MAX, World, amount};

#[test]
fn a_client_that_pushes_at_the_wrong_end_stops_nobody() {
    let redis = RedisServer::start(Setup::new(Fsync::EverySecond));
    let mut world = World::start(&redis.url(), 1, &[]);
    world.set_faults(&json!({"latency_ms": 250}));
    let pause = Duration::from_millis(2);
    let loads = [
        Load::push(redis.url(), "LPUSH", "wrong", 5, pause),
        Load::push(redis.url(), "RPUSH", "right", 5, pause),
    ];
    // While they go on, so does the work.
    for _ in 0..6 {
        let paid = world.paid(0);
        await_until("more to be paid", PATIENCE, || (world.paid(0) > paid + 50).then_some(()));
    }
    for load in loads {
        world.acks.extend(load.stop().into_iter().map(|ack| (ack.id, ack.amount)));
    }
    world.must_agree(&[&redis]);
}

#[test]
fn a_key_of_the_wrong_type_is_named_and_stops_nobody_else() {
    let redis = RedisServer::start(Setup::new(Fsync::EverySecond));
    let mut world = World::start(&redis.url(), 1, &[]);
    // A round that finds the list may have begun: an element first, so that it is drained.
    push(&mut redis.connect(), "RPUSH", "before", 0..10).unwrap();
    world.acks.extend((0..10).map(|n| (format!("before-{n}"), amount(n))));
    world.await_drained(&[&redis]);
    redis.cli(&["SET", INTAKE, "not a list"]);
    await_until("the trouble to be told", PATIENCE, || {
        world.fact(0, "troubles").contains(INTAKE).then_some(())
    });
    assert!(world.at(0).call("GET /readyz", "").code == 200, "the door is open for the others");
    for n in 0..20 {
        world.at(0).must("POST /v1/disbursements", &body(&format!("other-{n}"), n), 202);
        world.at(0).await_status(&format!("other-{n}"), "SUCCEEDED");
        world.acks.insert(format!("other-{n}"), amount(n));
    }
    redis.cli(&["DEL", INTAKE]);
    push(&mut redis.connect(), "RPUSH", "after", 0..10).unwrap();
    world.acks.extend((0..10).map(|n| (format!("after-{n}"), amount(n))));
    await_until("the trouble to be over", PATIENCE, || world.fact(0, "troubles").is_empty().then_some(()));
    world.must_agree(&[&redis]);
}

/// Ways to be no request.
fn garbage(n: u64) -> String {
    match n % 4 {
        0 => format!("garbage {n}"),
        1 => format!("{{\"id\":\"g-{n}\""),
        2 => json!({"id": format!("g-{n}"), "campaign": "k", "payee": "p", "amount": -5, "currency": "CNY"})
            .to_string(),
        _ => format!("\u{1}\u{0}{n}"),
    }
}

/// Seconds that so many good ones take, with as much garbage between them or none.
fn drain(world: &mut World, redis: &RedisServer, prefix: &str, count: u64, is_mixed: bool) -> f64 {
    let before = world.paid(0);
    let mut connection = redis.connect();
    // All are there before the first is read, so that it is not the producer that is measured.
    world.at(0).signal(Signal::STOP);
    for first in (0..count).step_by(500) {
        let numbers = first..(first + 500).min(count);
        let mut elements: Vec<String> = Vec::new();
        for n in numbers {
            elements.push(element(&format!("{prefix}-{n}"), n));
            elements.extend(is_mixed.then(|| garbage(n)));
            world.acks.insert(format!("{prefix}-{n}"), amount(n));
        }
        connection.rpush::<_, _, ()>(INTAKE, elements).unwrap();
    }
    world.at(0).signal(Signal::CONT);
    let began = Instant::now();
    // As slow as this may a build without optimisation be, on a machine that others use.
    let settle_max = SETTLE_MAX + Duration::from_millis(count / 2);
    await_until("the good ones to be paid", settle_max, || (world.paid(0) >= before + count).then_some(()));
    began.elapsed().as_secs_f64()
}

#[test]
fn garbage_goes_to_the_dead_letters_and_costs_no_more_than_as_much_good() {
    let count = env_number("HONGBAO_REDIS_COUNT", 10_000);
    let redis = RedisServer::start(Setup::new(Fsync::EverySecond));
    let mut world = World::start(&redis.url(), 1, &[&format!("intake.redis.dead_count_max={}", count + 1)]);
    let pure = drain(&mut world, &redis, "pure", count, false);
    let mixed = drain(&mut world, &redis, "mixed", count, true);
    println!("{count} good ones: {pure:.2} s alone, {mixed:.2} s with as much garbage");
    assert!(mixed <= 2.0 * pure + 0.5, "garbage slows good ones down: {mixed:.2} s, {pure:.2} s without");
    let dead = "{hongbao:intake}:dead";
    await_until("all garbage to be dead", PATIENCE, || {
        (redis.cli(&["LLEN", dead]) == count.to_string()).then_some(())
    });
    let said = crate::support::run(&[
        "dead",
        "list",
        "--json",
        "--limit",
        "8",
        "--set",
        "intake.kind=redis",
        "--set",
        &format!("intake.redis.url={}", redis.url()),
    ]);
    for reason in ["malformed_json", "invalid_field"] {
        assert!(said.out.contains(reason), "{said:?}");
    }
    redis.cli(&["DEL", dead]);
    world.must_agree(&[&redis]);
}

#[test]
fn large_elements_block_redis_for_nobody_and_stay_within_memory() {
    let count = env_number("HONGBAO_REDIS_COUNT", 10_000) / 25;
    // Asked: 50. By the wall clock a machine that is busy with others blocks everybody now and then.
    let slow_us = (env_number("HONGBAO_REDIS_SLOW_MS", 200) * 1_000).to_string();
    let redis = RedisServer::start(Setup::new(Fsync::EverySecond).set("slowlog-log-slower-than", &slow_us));
    let mut world = World::start(&redis.url(), 1, &["intake.redis.read_ahead_bytes_max=16777216"]);
    let resident = |world: &World, field: &str| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", world.at(0).pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap().to_owned();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1_024
    };
    push(&mut redis.connect(), "RPUSH", "warm", 0..1_000).unwrap();
    world.acks.extend((0..1_000).map(|n| (format!("warm-{n}"), amount(n))));
    world.await_drained(&[&redis]);
    let before = resident(&world, "VmRSS:");
    world.set_faults(&json!({"pause_s": 2}));
    let mut connection = redis.connect();
    for n in 0..count {
        // An object may hold any amount of white space.
        let text = element(&format!("large-{n}"), n).replacen('{', &format!("{{{}", " ".repeat(100_000)), 1);
        connection.rpush::<_, _, ()>(INTAKE, text).unwrap();
        world.acks.insert(format!("large-{n}"), amount(n));
    }
    world.await_drained(&[&redis]);
    let grown = resident(&world, "VmHWM:").saturating_sub(before);
    println!("{count} elements of 100 KB: {grown} MiB more at the most");
    assert_eq!(redis.cli(&["SLOWLOG", "LEN"]), "0", "{}", redis.cli(&["SLOWLOG", "GET"]));
    assert!(grown < 96, "{grown} MiB grown, of which 16 are read ahead");
    world.must_agree(&[&redis]);
}
