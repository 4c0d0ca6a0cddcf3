//! The three scripts on leases, and what they leave in the append-only file.

use hongbao::intake::redis::lease::{self, Acquired, Lease, acquired};
use hongbao::redis::{Failure, Link, Value, reply};

use crate::server::{Server, code};
use crate::support::{PATIENCE, await_until};

const KEY: &str = "{t:0}:owner";

fn acquire(link: &mut Link, who: &str, ttl_ms: u64, was_seen: bool) -> Result<Acquired, Failure> {
    link.call(lease::acquire(KEY, who, ttl_ms, was_seen, 0)).and_then(acquired)
}

fn stored(link: &mut Link) -> Lease {
    let value = link.call(hongbao::redis::Command::new("GET", KEY)).unwrap();
    Lease::parse(&reply::text("GET", value).unwrap().expect("a lease")).expect("a lease")
}

#[test]
fn who_may_take_keep_and_release_a_lease() {
    let server = Server::start();
    let mut link = server.link();
    let link = &mut link;
    assert_eq!(code(acquire(link, "a", 60_000, true).map(|_| Value::Nil)), lease::GONE);
    assert_eq!(code(link.call(lease::renew(KEY, 1, "a", 60_000))), lease::GONE);
    assert_eq!(code(link.call(lease::release(KEY, 1, "a"))), lease::GONE);
    assert_eq!(acquire(link, "a", 60_000, false), Ok(Acquired::Ours(1)));
    let held = stored(link);
    assert_eq!((held.epoch, held.incarnation.as_str()), (1, "a"));
    let theirs = format!("1|a|{}", held.deadline_ms);
    assert_eq!(acquire(link, "b", 60_000, true), Ok(Acquired::Theirs(theirs)));
    // One's own lease is taken anew under a new epoch: an answer may have been lost.
    assert_eq!(acquire(link, "a", 60_000, true), Ok(Acquired::Ours(2)));
    for (epoch, who) in [(1, "a"), (3, "a"), (2, "b"), (2, "")] {
        assert_eq!(code(link.call(lease::renew(KEY, epoch, who, 9))), lease::STALE, "{epoch} {who}");
        assert_eq!(code(link.call(lease::release(KEY, epoch, who))), lease::STALE, "{epoch} {who}");
    }
    // A lease that ran out is its owner's until another takes it.
    link.call(lease::renew(KEY, 2, "a", 1)).unwrap();
    let taken = await_until("the lease to run out", PATIENCE, || match acquire(link, "b", 1, true) {
        Ok(Acquired::Ours(epoch)) => Some(epoch),
        _ => None,
    });
    assert_eq!(taken, 3);
    link.call(lease::renew(KEY, 3, "b", 60_000)).unwrap();
    assert_eq!(code(link.call(lease::renew(KEY, 2, "a", 60_000))), lease::STALE);
    link.call(lease::release(KEY, 3, "b")).unwrap();
    assert_eq!(stored(link), Lease { epoch: 3, incarnation: "b".to_owned(), deadline_ms: 0 });
    assert_eq!(acquire(link, "c", 60_000, true), Ok(Acquired::Ours(4)));
    // Where Redis went back to an older state, who saw a later epoch takes one later still.
    server.ask(&["SET", KEY, "2|a|0"]);
    let after = link.call(lease::acquire(KEY, "c", 60_000, true, 4)).and_then(acquired);
    assert_eq!((after, stored(link).epoch), (Ok(Acquired::Ours(5)), 5));
    // What is no lease is nobody's, and is left as it is.
    for value in ["", "x|a|5", "7|a", "7|a|5|6"] {
        server.ask(&["SET", KEY, value]);
        assert_eq!(code(acquire(link, "a", 1, true).map(|_| Value::Nil)), lease::ODD, "{value:?}");
    }
    server.ask(&["DEL", KEY]);
    server.ask(&["RPUSH", KEY, "x"]);
    assert_eq!(code(acquire(link, "a", 1, true).map(|_| Value::Nil)), "WRONGTYPE");
}

#[test]
fn a_full_redis_lets_leases_be_and_no_script_makes_a_transaction() {
    let server = Server::start();
    let mut link = server.link();
    server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(acquire(&mut link, "a", 60_000, false), Ok(Acquired::Ours(1)));
    link.call(lease::renew(KEY, 1, "a", 60_000)).unwrap();
    link.call(lease::release(KEY, 1, "a")).unwrap();
    assert_eq!(code(link.call(hongbao::redis::Command::new("SET", "x").arg("y"))), "OOM");
    server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    server.ask(&["CONFIG", "SET", "appendfsync", "always"]);
    server.ask(&["SET", "a-mark", "in the file"]);
    let appended = server.appended();
    assert!(appended.contains("a-mark") && appended.contains("1|a|0"), "{appended}");
    assert!(!appended.contains("MULTI"), "{appended}");
}
