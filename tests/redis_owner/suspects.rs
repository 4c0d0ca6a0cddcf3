//! Crash suspects that a fleet shares, in a real Redis.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hongbao::pipeline::suspects::{NOBODY, RedisSuspects, Suspects};

use crate::instance::keys;
use crate::server::Server;

fn suspects(server: &Server) -> Suspects {
    Suspects::none(Arc::new(RedisSuspects::new(&server.target(), &keys()).expect("a plain URL")))
}

#[test]
fn two_crashes_in_two_processes_condemn_everywhere() {
    let server = Server::start();
    let poison = u64::MAX - 7;
    let (one, two, third) = (suspects(&server), suspects(&server), suspects(&server));
    third.reload().unwrap();
    one.blame(poison, &[], "test");
    two.blame(poison, &[], "test");
    assert!(!third.is_condemned(poison), "it has not looked since");
    third.reload().unwrap();
    assert!(third.is_condemned(poison) && !third.is_condemned(7));

    one.blame(NOBODY, &[1, 2, 3, 4, 5], "test");
    third.reload().unwrap();
    assert_eq!((third.is_isolating(), third.batch_count_max()), (true, 3));
    third.passed(5);
    two.reload().unwrap();
    assert!(!two.is_isolating() && two.is_condemned(poison));
}

#[test]
fn a_dying_process_does_not_wait_for_redis() {
    let mut server = Server::start();
    let one = suspects(&server);
    one.reload().unwrap();
    let frozen = server.freeze();
    let began = Instant::now();
    one.blame(7, &[], "test");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(one.reload().is_err());
    drop(frozen);
    server.kill();
    one.blame(7, &[], "test");
    assert!(one.reload().is_err());
}

#[test]
fn a_crash_on_a_full_redis_is_written_down() {
    let server = Server::start();
    let (one, two) = (suspects(&server), suspects(&server));
    server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    (0..2).for_each(|_| one.blame(7, &[], "test"));
    one.blame(1_000, &[], "test");
    two.reload().unwrap();
    assert!(two.is_condemned(7) && !two.is_condemned(1_000));
}
