//! Redis is killed, loses power, stands still, or loses everything.

use std::time::{Duration, Instant};

use redis::Commands;

use crate::load::{Ack, INTAKE, Load, body, element, push};
use crate::support::redis::{Fsync, RedisServer, Setup};
use crate::support::{Dice, PATIENCE, await_until, env_number, seed};
use crate::world::World;

const PAUSE: Duration = Duration::from_millis(5);

fn both(world: &World, redis: &RedisServer) -> [Load; 2] {
    [Load::push(redis.url(), "RPUSH", "push", 50, PAUSE), Load::post(world.addresses(), "http", 50, PAUSE)]
}

fn acknowledge(world: &mut World, acks: &[Ack]) {
    world.acks.extend(acks.iter().map(|ack| (ack.id.clone(), ack.amount)));
}

/// Waits until both have had more acknowledged.
fn await_progress(loads: &[Load], more: u64) {
    let marks: Vec<u64> = loads.iter().map(|load| load.acked() + more).collect();
    await_until("the producers to go on", PATIENCE, || {
        loads.iter().zip(&marks).all(|(load, mark)| load.acked() >= *mark).then_some(())
    });
}

#[test]
fn kills_of_redis_lose_nothing_when_every_write_is_synced() {
    let kills = env_number("HONGBAO_REDIS_KILLS", 2);
    let mut dice = Dice(seed());
    let mut redis = RedisServer::start(Setup::new(Fsync::Always));
    let mut world = World::start(&redis.url(), 1, &[]);
    let loads = both(&world, &redis);
    for _ in 0..kills {
        await_progress(&loads, 100 + dice.roll(1_000));
        redis.sigkill();
        // What a write left that nobody had a reply to.
        redis.append_to_aof(
            &b"*3\r\n$5\r\nRPUSH\r\n$14\r\nhongbao:intake\r\n$100\r\n{\"id\":\"torn"
                [..dice.roll(50) as usize],
        );
        redis.restart();
        await_progress(&loads, 100);
        assert!(!redis.has_multi_in_aof(), "a transaction that a torn file could leave open");
    }
    for load in loads {
        acknowledge(&mut world, &load.stop());
    }
    println!("{} acknowledged through {kills} kills", world.acks.len());
    world.must_agree(&[&redis]);
}

/// What is left of the append-only file.
#[derive(Clone, Copy, Debug)]
enum Left {
    /// What was synced.
    Synced,
    /// That, and any number of bytes behind it.
    Some,
}

#[test]
fn a_loss_of_power_takes_no_more_than_two_seconds_and_nothing_that_said_fsync() {
    loses_power(Left::Synced);
}

#[test]
fn a_file_that_is_cut_at_any_byte_behind_its_last_sync_costs_no_more() {
    loses_power(Left::Some);
}

fn loses_power(left: Left) {
    let mut dice = Dice(seed());
    let mut redis = RedisServer::start(Setup::new(Fsync::EverySecond));
    let mut world = World::start(&redis.url(), 1, &[]);
    let loads = both(&world, &redis);
    let began = Instant::now();
    // Older than what may be lost: the campaign and its funding.
    await_until("some work", PATIENCE, || {
        let is_enough = loads.iter().all(|load| load.acked() > 1_000);
        (is_enough && began.elapsed() > Duration::from_secs(4)).then_some(())
    });
    redis.sigkill();
    let killed_at = Instant::now();
    let cut = match left {
        Left::Synced => redis.cut_aof_back_to_last_sync(),
        Left::Some => redis.cut_aof_at_random(&mut dice),
    };
    redis.restart();
    await_progress(&loads, 500);
    let mut acks: Vec<Ack> = Vec::new();
    for load in loads {
        acks.extend(load.stop());
    }
    acknowledge(&mut world, &acks);
    world.await_drained(&[&redis]);
    let lost: std::collections::HashSet<String> = world.unpaid().into_iter().collect();
    let gone: Vec<&Ack> = acks.iter().filter(|ack| lost.contains(&ack.id)).collect();
    println!("{cut:?}: {} of {} acknowledged are lost", gone.len(), acks.len());
    for ack in &gone {
        let (before, after) =
            (killed_at.saturating_duration_since(ack.at), ack.at.saturating_duration_since(killed_at));
        // Redis postpones a write while it syncs; an answer may be on its way while Redis dies.
        let may_be = before < Duration::from_secs(2) && after < Duration::from_millis(200);
        assert!(may_be, "{ack:?} is lost, told {before:?} before or {after:?} after the kill");
        assert_ne!(ack.durability, "fsync", "{ack:?} is lost");
    }
    assert!(acks.iter().all(|ack| ack.durability != "fsync"), "nothing was synced before it was told");
    // Whoever has no outcome sends it again, under the same id.
    let mut connection = redis.connect();
    for ack in gone {
        let n: u64 = ack.id.rsplit('-').next().unwrap().parse().unwrap();
        connection.rpush::<_, _, ()>(INTAKE, element(&ack.id, n)).unwrap();
    }
    world.must_agree(&[&redis]);
}

#[test]
fn a_redis_that_stands_still_holds_everything_and_then_all_goes_on() {
    let stop = Duration::from_secs(env_number("HONGBAO_REDIS_STOP_S", 2));
    let redis = RedisServer::start(Setup::new(Fsync::EverySecond));
    // Below the time that it stands still: calls are given up, and their effect is unknown.
    let mut world = World::start(&redis.url(), 1, &["intake.redis.response_timeout_ms=500"]);
    let loads = both(&world, &redis);
    await_progress(&loads, 500);
    redis.sigstop();
    let stopped = Instant::now();
    let refused =
        crate::support::call(world.addresses().first().unwrap(), "POST /v1/disbursements", &body("one-1", 1));
    std::thread::sleep(stop.saturating_sub(stopped.elapsed()));
    redis.sigcont();
    let refused = refused.unwrap();
    assert_eq!(refused.code, 503, "{}", refused.text);
    world.await_ready(0);
    let again = world.at(0).call("POST /v1/disbursements", &body("one-1", 1));
    assert!(matches!(again.code, 200 | 202), "{}", again.text);
    world.acks.insert("one-1".to_owned(), crate::world::amount(1));
    await_progress(&loads, 500);
    for load in loads {
        acknowledge(&mut world, &load.stop());
    }
    world.must_agree(&[&redis]);
}

#[test]
fn lost_data_closes_the_door_and_says_so() {
    let redis = RedisServer::start(Setup::new(Fsync::EverySecond));
    let world = World::start(&redis.url(), 1, &[]);
    push(&mut redis.connect(), "RPUSH", "f", 0..100).unwrap();
    await_until("something to be paid", PATIENCE, || (world.paid(0) >= 100).then_some(()));
    redis.cli(&["FLUSHALL"]);
    let told = await_until("the loss to be told", PATIENCE, || {
        let reply = world.at(0).call("GET /readyz", "");
        (reply.code == 503).then_some(reply)
    });
    assert!(told.text.contains("lost its data"), "{}", told.text);
    let refused = world.at(0).call("POST /v1/disbursements", &body("late-1", 1));
    assert_eq!(refused.code, 503, "{}", refused.text);
    assert_eq!(refused.body["code"], "not_accepting", "{}", refused.text);
    // Whoever follows the campaigns may have noticed before the owner of the units does.
    await_until("the metric", PATIENCE, || {
        let metrics = world.at(0).call("GET /metrics", "").text;
        metrics.contains("hongbao_anomaly{code=\"data_gone\"} 1").then_some(())
    });
}
