//! An append-only file that was torn anywhere, under everything that the service writes.

use std::time::Duration;

use redis::Commands;
use rustix::process::Signal;
use serde_json::json;

use crate::load::{INTAKE, Load, element, push};
use crate::support::redis::{Fsync, RedisServer, Setup};
use crate::support::{Dice, PATIENCE, await_until, env_number, seed};
use crate::world::{World, amount};

/// Pushes that are made after a tear.
const PROBES: u64 = 100;

/// Whatever is not payouts: campaigns changed, dates in the future, garbage, cancellations, repeats.
fn stir(world: &World, redis: &RedisServer, round: u64) {
    let server = world.at(0);
    server.must(&format!("PUT /v1/campaigns/side-{round}"), r#"{"budget":1000,"currency":"CNY"}"#, 200);
    let mut connection = redis.connect();
    connection.rpush::<_, _, ()>(INTAKE, &["{", "[]", "no json at all"]).unwrap();
    // Nothing funds this campaign: what it is to pay waits, and is parked again and again.
    let waits = json!({"id": format!("w-{round}"), "campaign": format!("side-{round}"), "payee": "p", "amount": 5,
        "currency": "CNY"});
    let again = server.must("POST /v1/disbursements", &waits.to_string(), 202);
    assert_eq!(again["status"], "ACCEPTED", "{again}");
    server.must("POST /v1/disbursements", &waits.to_string(), 200);
    server.await_status(&format!("w-{round}"), "QUEUED");
    let canceled = server.call(&format!("POST /v1/disbursements/w-{round}/cancel"), "");
    assert!(matches!(canceled.code, 200 | 202), "{}", canceled.text);
}

#[test]
fn a_torn_file_swallows_nothing_that_was_acknowledged_after_it() {
    let rounds = env_number("HONGBAO_REDIS_KILLS", 2).max(2);
    let mut dice = Dice(seed());
    let mut redis = RedisServer::start(Setup::new(Fsync::EverySecond).set("aof-load-truncated", "yes"));
    let mut world = World::start(&redis.url(), 1, &[]);
    let pause = Duration::from_millis(5);
    let loads = [
        Load::push(redis.url(), "RPUSH", "push", 50, pause),
        Load::post(world.addresses(), "http", 50, pause),
    ];
    for round in 0..rounds {
        world.await_ready(0);
        stir(&world, &redis, round);
        let paid = world.paid(0);
        await_until("some to be paid", PATIENCE, || (world.paid(0) > paid + 500).then_some(()));
        // It must not mend the file before it was looked at.
        world.at(0).signal(Signal::STOP);
        redis.sigkill();
        assert!(!redis.has_multi_in_aof(), "a transaction that a torn file could leave open");
        let commands = redis.aof_commands();
        let last = commands.last().expect("commands");
        let cut = redis.cut_aof_to(last.begin + dice.roll(last.end - last.begin));
        println!("round {round}: {} commands, {cut:?}", commands.len());
        redis.restart();
        let key = format!("probe-{round}");
        let mut connection = redis.connect();
        for n in 0..PROBES {
            connection.rpush::<_, _, ()>(&key, n).unwrap();
        }
        drop(connection);
        // While a sync is under way, Redis answers first and writes later.
        await_until("the pushes to be written", PATIENCE, || {
            (redis.info("aof_buffer_length").as_deref() == Some("0")).then_some(())
        });
        redis.restart();
        assert_eq!(redis.cli(&["LLEN", &key]), PROBES.to_string(), "acknowledged pushes were swallowed");
        world.at(0).signal(Signal::CONT);
    }
    for load in loads {
        world.acks.extend(load.stop().into_iter().map(|ack| (ack.id, ack.amount)));
    }
    world.await_drained(&[&redis]);
    redis.cli(&["DEL", "{hongbao:intake}:dead"]);
    // The tear took the last command, which may have been an acknowledged push; whoever has no outcome sends it again.
    let mut connection = redis.connect();
    for id in world.unpaid() {
        let n: u64 = id.rsplit('-').next().unwrap().parse().unwrap();
        assert_eq!(world.acks[&id], amount(n));
        connection.rpush::<_, _, ()>(INTAKE, element(&id, n)).unwrap();
    }
    world.acks.extend(
        push(&mut connection, "RPUSH", "last", 0..100).unwrap().into_iter().map(|ack| (ack.id, ack.amount)),
    );
    world.must_agree(&[&redis]);
}
