//! Crash suspects that a fleet shares, in a real Redis.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hongbao::pipeline::suspects::{NOBODY, REMEMBERED_MS, RedisSuspects, Suspects};

use crate::instance::keys;
use crate::server::Server;

const NOW: u64 = 1_700_000_000_000;

fn suspects(server: &Server) -> Suspects {
    Suspects::none(Arc::new(RedisSuspects::new(&server.target(), &keys()).expect("a plain URL")))
}

#[test]
fn two_crashes_in_two_processes_condemn_everywhere() {
    let server = Server::start();
    let poison = u64::MAX - 7;
    let (one, two, third) = (suspects(&server), suspects(&server), suspects(&server));
    third.reload(NOW).unwrap();
    one.blame(poison, &[], "test");
    two.blame(poison, &[], "test");
    assert!(!third.is_condemned(poison), "it has not looked since");
    third.reload(NOW).unwrap();
    assert!(third.is_condemned(poison) && !third.is_condemned(7));

    one.blame(NOBODY, &[1, 2, 3, 4, 5], "test");
    third.reload(NOW).unwrap();
    assert_eq!((third.is_isolating(), third.batch_count_max()), (true, 3));
    third.passed(5);
    two.reload(NOW).unwrap();
    assert!(!two.is_isolating() && two.is_condemned(poison));
}

#[test]
fn a_dying_process_does_not_wait_for_redis() {
    let mut server = Server::start();
    let one = suspects(&server);
    one.reload(NOW).unwrap();
    let frozen = server.freeze();
    let began = Instant::now();
    one.blame(7, &[], "test");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(one.reload(NOW).is_err());
    drop(frozen);
    server.kill();
    one.blame(7, &[], "test");
    assert!(one.reload(NOW).is_err());
}

#[test]
fn a_crash_on_a_full_redis_is_written_down() {
    let server = Server::start();
    let (one, two) = (suspects(&server), suspects(&server));
    server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    (0..2).for_each(|_| one.blame(7, &[], "test"));
    one.blame(1_000, &[], "test");
    two.reload(NOW).unwrap();
    assert!(two.is_condemned(7) && !two.is_condemned(1_000));
}

#[test]
fn crashes_that_are_long_ago_are_forgotten_by_all() {
    let server = Server::start();
    let (one, two) = (suspects(&server), suspects(&server));
    (0..2).for_each(|_| one.blame(7, &[], "test"));
    one.reload(NOW).unwrap();
    (0..2).for_each(|_| one.blame(8, &[], "test"));
    two.reload(NOW + REMEMBERED_MS - 1).unwrap();
    assert!(two.is_condemned(7) && two.is_condemned(8));
    two.reload(NOW + REMEMBERED_MS).unwrap();
    assert!(!two.is_condemned(7) && two.is_condemned(8), "each from when it was first met");
    let key = keys().board("suspects");
    assert_eq!(server.ask(&["HEXISTS", &key, "7"]), server.ask(&["HEXISTS", &key, "nobody"]));
    assert_eq!(server.ask(&["HLEN", &format!("{key}:since")]), server.ask(&["HEXISTS", &key, "8"]));
}
