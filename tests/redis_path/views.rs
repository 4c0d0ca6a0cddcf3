//! The outcome view of a single instance, when the streams no longer hold what it was read from.

use serde_json::json;

use crate::load::{body, post, push};
use crate::support::redis::{Fsync, RedisServer, Setup};
use crate::support::{PATIENCE, await_until};
use crate::world::World;

/// What is in the streams is given up, as it is when it is older than the retention.
fn trim(redis: &RedisServer) {
    let mut connection = redis.connect();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*:outcomes").query(&mut connection).unwrap();
    for key in keys {
        redis::cmd("XTRIM").arg(key).arg("MAXLEN").arg(0).exec(&mut connection).unwrap();
    }
}

/// These by list and by HTTP are accepted and paid, as the view says.
fn pay(world: &mut World, redis: &RedisServer, prefixes: [&'static str; 2], paid: u64) {
    let pushed = push(&mut redis.connect(), "RPUSH", prefixes[0], 0..20).expect("Redis takes it");
    let posted = await_until("the door", PATIENCE, || post(&world.at(0).address, prefixes[1], 0..20));
    world.acks.extend(pushed.into_iter().chain(posted).map(|ack| (ack.id, ack.amount)));
    await_until("the view to have it all", PATIENCE, || {
        let campaign = world.at(0).must("GET /v1/campaigns/k", "", 200);
        (campaign["counts"] == json!({"SUCCEEDED": paid})).then_some(())
    });
}

#[test]
fn a_rebuild_loses_nothing_that_the_streams_gave_up() {
    let redis = RedisServer::start(Setup::new(Fsync::EverySecond));
    let mut world = World::start(&redis.url(), 1, &[]);
    pay(&mut world, &redis, ["list-a", "http-a"], 40);
    trim(&redis);
    pay(&mut world, &redis, ["list-b", "http-b"], 80);
    world.take(0).end_well();
    let said = world.run(0, &["view", "rebuild"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let count = said.out.split(' ').find_map(|word| word.parse::<u64>().ok()).unwrap_or_default();
    assert!(count >= 40 && said.out.contains("over what it had"), "the tail is read again: {said:?}");
    world.start_again(0);
    for id in ["list-a-7", "http-a-7", "list-b-7", "http-b-7"] {
        let standing = world.at(0).must(&format!("GET /v1/disbursements/{id}"), "", 200);
        assert_eq!(standing["status"], "SUCCEEDED", "{standing}");
    }
    let campaign = world.at(0).must("GET /v1/campaigns/k", "", 200);
    let paid: u64 = world.acks.values().sum();
    assert_eq!((&campaign["counts"], &campaign["spent"]), (&json!({"SUCCEEDED": 80}), &json!(paid)));
    // Where there is nothing to rebuild from, nothing is made up.
    world.take(0).end_well();
    let view = world.data(0).join("view.sqlite");
    let kept = std::fs::read(&view).unwrap();
    std::fs::remove_file(&view).unwrap();
    let said = world.run(0, &["view", "rebuild"]);
    assert!(said.code != Some(0) && said.err.contains("put a copy of the view there"), "{said:?}");
    assert!(!view.exists());
    std::fs::write(&view, kept).unwrap();
    world.start_again(0);
    world.must_agree(&[&redis]);
}

#[test]
fn a_view_that_begins_late_says_so_and_a_retry_teaches_it() {
    let redis = RedisServer::start(Setup::new(Fsync::EverySecond));
    let mut world = World::start(&redis.url(), 1, &[]);
    pay(&mut world, &redis, ["list", "http"], 40);
    trim(&redis);
    world.take(0).end_well();
    std::fs::remove_dir_all(world.data(0)).unwrap();
    world.start_again(0);
    let said = "this outcome view begins with what the streams still hold";
    await_until("the word of it", PATIENCE, || world.at(0).stderr().contains(said).then_some(()));
    // It came through the door, so that it is known to have been accepted, though not how it ended.
    let standing = world.at(0).must("GET /v1/disbursements/http-7", "", 200);
    assert_eq!((&standing["status"], &standing["final"]), (&json!("QUEUED"), &json!(false)), "{standing}");
    // What came by list alone no id tells of; its producer sends it again, and it is not paid twice.
    assert_eq!(world.at(0).call("GET /v1/disbursements/list-7", "").code, 404);
    push(&mut redis.connect(), "RPUSH", "list", 7..8).expect("Redis takes it");
    world.at(0).await_status("list-7", "SUCCEEDED");
    await_until("the door to be open", PATIENCE, || {
        let reply = world.at(0).call("POST /v1/disbursements", &body("http-7", 7));
        (reply.code == 200).then_some(reply)
    });
    world.at(0).await_status("http-7", "SUCCEEDED");
    world.must_agree(&[&redis]);
}
