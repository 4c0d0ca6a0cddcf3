//! A Sentinel group: the master is found, and found again after it died or was demoted.

use hongbao::redis::{Command, Shape, reply};

use crate::servers::{Server, free_port};
use crate::{await_until, get, link, one, set};

fn replica_of(master: &Server) -> Server {
    Server::start(&["--replicaof", &format!("127.0.0.1 {}", master.port)])
}

fn info(server: &Server) -> String {
    let text = server.link().call(Command::routed("INFO", "").arg("replication")).unwrap();
    reply::text("INFO", text).unwrap().unwrap()
}

#[test]
fn the_link_follows_the_master() {
    let mut first = Server::start(&["--repl-diskless-sync-delay", "0"]);
    let second = replica_of(&first);
    await_until("the replica's link", || info(&second).contains("master_link_status:up").then_some(()));
    let sentinel = Server::sentinel(first.port);
    let mut watching = sentinel.link();
    await_until("the sentinel's sight of the replica", || {
        let known = watching.call(Command::routed("SENTINEL", "").arg(&["replicas", "mymaster"])).unwrap();
        format!("{known:?}")
            .contains("slave0")
            .then_some(())
            .or_else(|| (reply::array("SENTINEL", known).unwrap().len() == 1).then_some(()))
    });
    // The first one named is dead.
    let url = format!("redis+sentinel://127.0.0.1:{},127.0.0.1:{}/mymaster", free_port(), sentinel.port);
    let mut group = link(&url);
    assert_eq!(group.shape(), Shape::Sentinel);
    assert_eq!(one(&mut group, set("a", "1")), "ok");
    assert_eq!(one(&mut first.link(), get("a")), "1", "it is the master that was written to");
    let copied = Command::routed("WAIT", "").arg(&[1, 5000]);
    assert_eq!(one(&mut group, copied), "1");
    let unknown = link(&url.replace("mymaster", "another")).call(get("a")).unwrap_err().to_string();
    assert!(unknown.contains("knows no master"), "{unknown}");

    first.kill();
    await_until("the failover", || (one(&mut group, set("b", "2")) == "ok").then_some(()));
    assert_eq!(group.down_since(), None);
    let mut promoted = second.link();
    assert_eq!([one(&mut promoted, get("a")), one(&mut promoted, get("b"))], ["1", "2"]);

    // Demoted by hand: what it refuses ends the connection, and no replica is taken for a master.
    let demote = Command::routed("REPLICAOF", "").arg(&["127.0.0.1", &free_port().to_string()]);
    assert_eq!(one(&mut promoted, demote), "ok");
    assert_eq!(one(&mut group, set("c", "3")), "refused READONLY");
    let failure = group.call(set("c", "3")).unwrap_err().to_string();
    assert!(failure.contains("it is no master"), "{failure}");
    assert_eq!(one(&mut promoted, Command::routed("REPLICAOF", "").arg(&["NO", "ONE"])), "ok");
    await_until("the link's return", || (one(&mut group, set("c", "3")) == "ok").then_some(()));
}
