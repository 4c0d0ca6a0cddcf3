//! What stands beside the lists, against a real Redis: dead letters, what is parked, results.

#[path = "../support/mod.rs"]
mod support;

mod dead;
mod parked;
mod results;
mod waiting;

use std::time::Duration;

use hongbao::intake::redis::{ForeignList, Keys, Order, Units};
use hongbao::redis::{Link, Target};
use support::redis::{Fsync, RedisServer, Setup};

fn list(name: &str, client: &str, order: Order) -> ForeignList {
    ForeignList { name: name.to_owned(), client: client.to_owned(), order, hmac_key: None }
}

/// Two shards, then `hongbao:intake` of the shop, and `upside` of the mall, which is pushed to at the head.
fn keys() -> Keys {
    let foreign = vec![list("hongbao:intake", "shop", Order::Rpush), list("upside", "mall", Order::Lpush)];
    Keys::new("hongbao", Units { shard_count: 2, fair_queue_count: 8, foreign })
}

fn server() -> RedisServer {
    RedisServer::start(Setup::new(Fsync::EverySecond))
}

fn link(server: &RedisServer) -> Link {
    let target = Target {
        url: server.url(),
        connect_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_secs(20),
        ..Target::default()
    };
    Link::new(&target).expect("the URL is good")
}
