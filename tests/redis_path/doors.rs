//! What the door says where others than doors write to Redis: lists of the clients, and the stream of campaigns.

use serde_json::{Value, json};

use crate::load::{INTAKE, body};
use crate::support::redis::{Fsync, RedisServer, Setup};
use crate::support::{PATIENCE, await_until};
use crate::world::World;

fn post(world: &World, id: &str, n: u64) -> (u16, Value) {
    let reply = world.at(0).call("POST /v1/disbursements", &body(id, n));
    (reply.code, reply.body)
}

#[test]
fn what_came_by_list_is_checked_at_settlement_and_the_202_says_so() {
    let redis = RedisServer::start(Setup::new(Fsync::EverySecond));
    let mut world = World::start(&redis.url(), 1, &[]);
    let (code, told) = post(&world, "first", 1);
    assert_eq!((code, &told["duplicate_check"]), (202, &Value::Null), "nobody has pushed yet: {told}");
    world.acks.insert("first".to_owned(), 2);
    let mut connection = redis.connect();
    redis::cmd("RPUSH").arg(INTAKE).arg(body("r-1", 1)).exec(&mut connection).unwrap();
    world.acks.insert("r-1".to_owned(), 2);
    world.at(0).await_status("r-1", "SUCCEEDED");
    let (code, told) = post(&world, "r-1", 7);
    assert_eq!((code, &told["duplicate_check"]), (202, &json!("deferred")), "{told}");
    // Its result is not taken for that of what was paid.
    let results = await_until("the result of the conflict", PATIENCE, || {
        let read = ["XRANGE", "hongbao:results:default", "-", "+"];
        let said = redis.cli(&read);
        said.contains("id_conflict").then_some(said)
    });
    assert!(results.contains("REJECTED\ncode\nid_conflict\n"), "{results}");
    assert_eq!(results.matches("\"r-1\"").count(), 2, "paid once, refused once: {results}");
    let standing = world.at(0).must("GET /v1/disbursements/r-1", "", 200);
    assert_eq!((&standing["status"], &standing["amount"]), (&json!("SUCCEEDED"), &json!(2)));
    world.must_agree(&[&redis]);
}

#[test]
fn a_foreign_entry_among_the_campaigns_closes_the_door_until_it_is_removed() {
    let redis = RedisServer::start(Setup::new(Fsync::EverySecond));
    let mut world = World::start(&redis.url(), 1, &[]);
    let id = redis.cli(&["XADD", "hongbao:campaigns", "*", "note", "hello"]);
    let ready = await_until("it to be noticed", PATIENCE, || {
        let reply = world.at(0).call("GET /readyz", "");
        (reply.code == 503).then_some(reply.text)
    });
    let remedy = format!("XDEL hongbao:campaigns {id}");
    assert!(ready.contains(&remedy), "{ready}");
    let (code, told) = post(&world, "a", 1);
    assert!(code == 503 && told.to_string().contains(&remedy), "{told}");
    redis.cli(&["XDEL", "hongbao:campaigns", &id]);
    world.await_ready(0);
    await_until("the door to take it", PATIENCE, || (post(&world, "a", 1).0 == 202).then_some(()));
    world.acks.insert("a".to_owned(), 2);
    world.must_agree(&[&redis]);
}
