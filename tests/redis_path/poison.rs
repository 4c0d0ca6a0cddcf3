//! A request that crashes whoever works on it, in a fleet whose instances are started again whenever they end.

use serde_json::json;

use crate::load::{INTAKE, element, push};
use crate::support::redis::{Fsync, RedisServer, Setup};
use crate::support::{PATIENCE, await_until, call};
use crate::world::World;

#[test]
fn a_poisonous_request_is_set_aside_after_two_crashes_wherever_they_happen() {
    let redis = RedisServer::start(Setup::new(Fsync::EverySecond));
    let env = [("FAILPOINTS", "check::item=return(poison)")];
    let mut world = World::start_with(&redis.url(), 2, &[], &env);
    let mut connection = redis.connect();
    let mut acks = push(&mut connection, "RPUSH", "before", 0..500).expect("Redis takes it");
    redis::cmd("RPUSH").arg(INTAKE).arg(element("poison", 1)).exec(&mut connection).expect("Redis takes it");
    acks.extend(push(&mut connection, "RPUSH", "after", 0..500).expect("Redis takes it"));
    world.acks.extend(acks.into_iter().map(|ack| (ack.id, ack.amount)));
    let mut crashes = 0;
    let standing = await_until("the poison to be set aside", PATIENCE, || {
        for n in 0..2 {
            let ended = world.instances[n].as_mut().and_then(|instance| instance.ended());
            if let Some(status) = ended {
                assert_eq!(status.code(), Some(2), "{}", world.at(n).stderr());
                crashes += 1;
                drop(world.take(n));
                world.start_again(n);
            }
        }
        let reply = call(world.addresses().first()?, "GET /v1/disbursements/poison", "").ok()?;
        (reply.body["final"] == true).then_some(reply.body)
    });
    assert_eq!(
        (&standing["status"], &standing["code"]),
        (&json!("FAILED"), &json!("crash_suspect")),
        "{standing}"
    );
    assert_eq!(crashes, 2);
    world.must_agree(&[&redis]);
}
