//! Redis runs full.

use std::time::Duration;

use redis::Commands;
use serde_json::json;

use crate::load::{INTAKE, body, element};
use crate::support::redis::{Fsync, RedisServer, Setup};
use crate::support::{PATIENCE, await_until, call};
use crate::world::{World, amount};

#[test]
fn a_redis_that_others_filled_is_drained_to_the_last_outcome() {
    let setup = Setup::new(Fsync::EverySecond).set("maxmemory", "24mb").set("maxmemory-policy", "noeviction");
    let redis = RedisServer::start(setup);
    let mut world = World::start(&redis.url(), 1, &["intake.redis.read_ahead_count_max=2000"]);
    world.set_faults(&json!({"pause_s": 3600}));
    let mut connection = redis.connect();
    // A third of it is somebody else's, and stays.
    for n in 0..7 {
        redis::cmd("SET").arg(format!("ballast-{n}")).arg("x".repeat(1 << 20)).exec(&mut connection).unwrap();
    }
    let address = world.addresses()[0].clone();
    let (mut first, mut posted, mut closed_at) = (0, 0u64, None);
    let used = || redis.info("used_memory").unwrap().parse::<u64>().unwrap() * 100 / (24 << 20);
    loop {
        if closed_at.is_none() {
            let id = format!("post-{posted}");
            let reply = call(&address, "POST /v1/disbursements", &body(&id, posted)).unwrap();
            match reply.code {
                200 | 202 => drop(world.acks.insert(id, amount(posted))),
                429 | 503 => closed_at = Some((used(), reply.body["code"].clone())),
                code => panic!("{code}: {}", reply.text),
            }
            posted += 1;
        }
        // Padded, so that an outcome, which is kept for a while, is far smaller than its element.
        let padded = |n: u64| format!("{}{}", element(&format!("fill-{n}"), n), " ".repeat(400));
        let elements: Vec<String> = (first..first + 50).map(padded).collect();
        if connection.rpush::<_, _, ()>(INTAKE, elements).is_err() {
            break;
        }
        world.acks.extend((first..first + 50).map(|n| (format!("fill-{n}"), amount(n))));
        first += 50;
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("full after {first} pushes at {} %, the door closed at {closed_at:?} %", used());
    let (closed_at, code) = closed_at.expect("the door closes before Redis refuses");
    assert_eq!(code, "backlog_full");
    assert!(closed_at < 100, "the door closed at {closed_at} %");
    world.set_faults(&json!({"pause_s": 0}));
    world.await_drained(&[&redis]);
    println!("drained, {} % are used", used());
    // What is left is the others' third, and outcomes, ids and results, which are kept for a while.
    assert!(used() < 70, "{} % are used by what nobody waits for", used());
    let paid = world.acks.len();
    await_until("the view to have every outcome", PATIENCE, || {
        let campaign = world.at(0).must("GET /v1/campaigns/k", "", 200);
        (campaign["counts"] == json!({"SUCCEEDED": paid})).then_some(())
    });
    await_until("the door to be open again", PATIENCE, || {
        let reply = call(&address, "POST /v1/disbursements", &body("open-1", 1)).ok()?;
        matches!(reply.code, 200 | 202).then_some(())
    });
    world.acks.insert("open-1".to_owned(), amount(1));
    world.must_agree(&[&redis]);
}
