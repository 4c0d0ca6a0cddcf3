//! What a network does between an instance and Redis, while the producer that pushes has a line of its own.

use std::time::Duration;

use crate::load::{Load, body};
use crate::support::proxy::FaultProxy;
use crate::support::redis::{Fsync, RedisServer, Setup};
use crate::support::{Dice, PATIENCE, await_until, call, env_number, seed};
use crate::world::{World, amount};

const SETS: [&str; 2] = ["intake.redis.response_timeout_ms=300", "intake.redis.connect_timeout_ms=300"];

#[test]
fn an_append_without_a_reply_is_unknown_and_safe_to_repeat() {
    let redis = RedisServer::start(Setup::new(Fsync::EverySecond));
    let proxy = FaultProxy::start(redis.address());
    let mut world = World::start(&redis.url_at(proxy.address().port()), 1, &SETS);
    let address = world.addresses()[0].clone();
    let mut unknown = 0;
    // Of every third exchange with Redis nobody hears how it went: looking up, registering, pushing.
    proxy.drop_replies(0.3, seed());
    for round in 0..env_number("HONGBAO_REDIS_COUNT", 10_000) / 500 {
        let id = format!("u-{round}");
        await_until("it to be accepted", PATIENCE, || {
            let reply = call(&address, "POST /v1/disbursements", &body(&id, round)).ok()?;
            if reply.code == 503 && reply.body["code"] == "append_unknown" {
                assert_eq!(reply.body["accepted"], "unknown", "{}", reply.text);
                unknown += 1;
            }
            assert!(matches!(reply.code, 200 | 202 | 503), "{}", reply.text);
            (reply.code != 503).then_some(())
        });
        world.acks.insert(id, amount(round));
    }
    proxy.drop_replies(0.0, 0);
    println!("{unknown} appends were unknown, {:?}", proxy.counts());
    assert!(unknown > 0, "no append was left without a reply");
    world.must_agree(&[&redis]);
}

#[test]
fn resets_black_holes_and_lost_replies_under_load_lose_nothing() {
    let rounds = env_number("HONGBAO_REDIS_KILLS", 2);
    let mut dice = Dice(seed());
    let redis = RedisServer::start(Setup::new(Fsync::EverySecond));
    let proxy = FaultProxy::start(redis.address());
    let mut world = World::start(&redis.url_at(proxy.address().port()), 1, &SETS);
    // However many rounds: what waits at the end is about as much.
    let pause = Duration::from_millis(5) * (rounds as u32).div_ceil(2);
    let loads = [
        Load::push(redis.url(), "RPUSH", "push", 50, pause),
        Load::post(world.addresses(), "http", 50, pause),
    ];
    for round in 0..rounds {
        for fault in 0..5 {
            let paid = world.paid(0);
            await_until("some to be paid", PATIENCE, || (world.paid(0) > paid + 100).then_some(()));
            println!("round {round}, fault {fault}");
            let gone_on = |what: &str| {
                let before = world.paid(0);
                await_until(what, PATIENCE, || (world.paid(0) > before).then_some(()));
            };
            match fault {
                0 => proxy.reset(),
                1 => {
                    let swallowed = proxy.counts().bytes_swallowed;
                    proxy.blackhole(true);
                    await_until("something to be swallowed", PATIENCE, || {
                        (proxy.counts().bytes_swallowed > swallowed).then_some(())
                    });
                    // Longer than a reply is waited for.
                    std::thread::sleep(Duration::from_millis(400));
                    proxy.blackhole(false);
                    proxy.cut();
                }
                2 => {
                    proxy.swallow_replies(true);
                    std::thread::sleep(Duration::from_millis(100 + dice.roll(400)));
                    proxy.swallow_replies(false);
                    proxy.reset();
                }
                3 => {
                    let dropped = proxy.counts().replies_dropped;
                    proxy.drop_replies(0.05, dice.roll(1 << 32));
                    await_until("replies to be lost", PATIENCE, || {
                        (proxy.counts().replies_dropped > dropped + 20).then_some(())
                    });
                    proxy.drop_replies(0.0, 0);
                }
                _ => {
                    proxy.refuse(true);
                    proxy.reset();
                    std::thread::sleep(Duration::from_millis(300));
                    proxy.refuse(false);
                }
            }
            gone_on("it to go on");
        }
    }
    for load in loads {
        world.acks.extend(load.stop().into_iter().map(|ack| (ack.id, ack.amount)));
    }
    println!("{} acknowledged, {:?}", world.acks.len(), proxy.counts());
    world.must_agree(&[&redis]);
}
