//! The page about Redis: the user that it gives hongbao may do all that hongbao does.

use serde_json::json;

use crate::load::{INTAKE, body, element};
use crate::support::redis::{Fsync, RedisServer, Setup};
use crate::support::{PATIENCE, await_until};
use crate::world::World;

/// The words of the first line of the page that begins so; of a quoted one, what is quoted.
fn words(begins: &str) -> Vec<String> {
    let page = include_str!("../../docs/redis.md");
    let line = page.lines().find(|line| line.starts_with(begins)).expect("the page has such a line");
    line.split_whitespace().map(|word| word.trim_matches('\'').to_owned()).collect()
}

#[test]
fn the_users_of_the_page_may_do_what_they_have_to() {
    let redis = RedisServer::start(Setup::new(Fsync::EverySecond));
    for user in ["hongbao", "producer"] {
        let words = words(&format!("redis-cli ACL SETUSER {user} "));
        let words: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        assert_eq!(redis.cli(&words), "OK", "{words:?}");
    }
    let at = redis.url().replace("redis://", "");
    let mut world = World::start(&format!("redis://hongbao:a-long-password@{at}"), 1, &[]);
    let producer = redis::Client::open(format!("redis://producer:another-password@{at}")).unwrap();
    let mut producer = producer.get_connection().unwrap();
    let mut push = |what: &str| redis::cmd("RPUSH").arg(INTAKE).arg(what).exec(&mut producer).unwrap();
    push("garbage");
    push(&element("list-1", 1));
    for n in 0..20 {
        let reply = world.at(0).call("POST /v1/disbursements", &body(&format!("http-{n}"), n));
        assert_eq!(reply.code, 202, "{}", reply.text);
        world.acks.insert(format!("http-{n}"), 1 + n);
    }
    world.acks.insert("list-1".to_owned(), 2);
    world.at(0).must("POST /v1/disbursements/unseen/cancel", "{}", 200);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let at = hongbao::request::rfc3339::Rfc3339(now + 3_000).to_string();
    let later = json!({"id": "later", "campaign": "k", "payee": "p", "amount": 1, "currency": "CNY",
        "not_before": at});
    world.at(0).must("POST /v1/disbursements", &later.to_string(), 202);
    await_until("it to be parked", PATIENCE, || (world.fact(0, "parked") == "1").then_some(()));
    world.acks.insert("later".to_owned(), 1);
    for id in ["list-1", "http-1", "later"] {
        world.at(0).await_status(id, "SUCCEEDED");
    }
    let told: redis::Value = redis::cmd("XREAD")
        .arg(&["COUNT", "1", "STREAMS", "hongbao:results:default", "0"])
        .query(&mut producer)
        .unwrap();
    assert!(format!("{told:?}").contains("SUCCEEDED"), "{told:?}");
    let url = format!("http://{}", world.at(0).address);
    for words in [
        &["dead", "list"][..],
        &["dead", "purge", "--all", "--yes"],
        &["parked", "list", "--url", &url],
        &["fleet"],
    ] {
        let said = world.run(0, words);
        assert_eq!(said.code, Some(0), "{words:?}: {said:?}");
    }
    let denied = redis.cli(&["ACL", "LOG"]);
    assert!(denied.trim().is_empty(), "refused by the page's rules: {denied}");
    world.must_agree(&[&redis]);
}
