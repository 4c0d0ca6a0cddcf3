//! The guards that the tests of Redis stand on do what they say; and the traps of Redis that our design goes around,
//! shown on plain Redis, so that it is known when one is gone.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use redis::{Connection, RedisResult};
use support::proxy::FaultProxy;
use support::redis::aof::logged;
use support::redis::{Fsync, RedisServer, Setup};
use support::{Dice, PATIENCE, await_until};

/// Two writes to one key: what our scripts never do.
const TWO_WRITES: &str = "redis.call('RPUSH', KEYS[1], ARGV[1]) return redis.call('RPUSH', KEYS[1], ARGV[2])";
const ONE_WRITE: &str = "return redis.call('RPUSH', KEYS[1], ARGV[1], ARGV[2])";

fn push(connection: &mut Connection, value: &str) -> RedisResult<u64> {
    redis::cmd("RPUSH").arg("list").arg(value).query(connection)
}

fn eval(connection: &mut Connection, script: &str) {
    redis::cmd("EVAL").arg(script).arg(1).arg("list").arg("a").arg("b").exec(connection).unwrap();
}

fn length(server: &RedisServer) -> u64 {
    server.cli(&["LLEN", "list"]).parse().unwrap()
}

fn list(server: &RedisServer) -> Vec<String> {
    redis::cmd("LRANGE").arg("list").arg(0).arg(-1).query(&mut server.connect()).unwrap()
}

#[test]
fn a_kill_leaves_what_is_in_the_file() {
    for (fsync, left) in [(Fsync::NoFile, 0), (Fsync::EverySecond, 3), (Fsync::Always, 3)] {
        let mut server = RedisServer::start(Setup::new(fsync));
        let (port, pid) = (server.port(), server.pid());
        let mut connection = server.connect();
        for value in ["a", "b", "c"] {
            push(&mut connection, value).unwrap();
        }
        server.sigkill();
        assert!(server.try_connect().is_err(), "{fsync:?}: the port is closed");
        server.restart();
        assert_eq!((length(&server), server.port()), (left, port), "{fsync:?}");
        assert_ne!(server.pid(), pid);
    }
}

#[test]
fn what_stands_still_answers_later() {
    let server = RedisServer::start(Setup::new(Fsync::NoFile));
    let mut connection = server.connect();
    connection.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    server.sigstop();
    assert!(push(&mut connection, "late").unwrap_err().is_timeout());
    server.sigcont();
    await_until("the push to be done", PATIENCE, || (length(&server) == 1).then_some(()));
}

#[test]
fn settings_are_as_asked() {
    let setup = Setup::new(Fsync::Always).password("secret").tls();
    let server = RedisServer::start(setup.set("maxmemory", "3mb").set("maxmemory-policy", "noeviction"));
    assert!(server.url().starts_with("rediss://:secret@127.0.0.1:"), "{}", server.url());
    let value = "x".repeat(10_000);
    let mut connection = server.connect();
    let full = (0..1_000).find_map(|_| push(&mut connection, &value).err());
    assert_eq!(full.expect("full").code(), Some("OOM"));
    assert_eq!(server.info("maxmemory_policy").as_deref(), Some("noeviction"));
    let plain = redis::Client::open(server.url().replace("rediss", "redis")).unwrap();
    assert!(plain.get_connection_with_timeout(Duration::from_secs(1)).is_err(), "only TLS");
    let refused = server.try_cli(&["CONFIG", "SET", "no-such-thing", "1"]).unwrap_err();
    assert!(refused.contains("ERR"), "{refused}");
}

#[test]
fn the_reader_of_the_file_finds_whole_commands() {
    let (a, b) = ("*1\r\n$5\r\nMULTI\r\n", "*2\r\n$3\r\nDEL\r\n$7\r\n\r\nMULTI\r\n");
    let table = [
        (String::new(), vec![]),
        (a.to_owned(), vec!["MULTI"]),
        (format!("{b}#TS:1700000000\r\n{a}"), vec!["DEL", "MULTI"]),
        (format!("{b}{}", &a[..a.len() - 1]), vec!["DEL"]),
        (format!("{a}nonsense\r\n{b}"), vec!["MULTI"]),
        (b[..20].to_owned(), vec![]),
    ];
    for (text, names) in table {
        let found: Vec<String> = logged(text.as_bytes()).iter().map(|command| command.name()).collect();
        assert_eq!(found, names, "{text:?}");
    }
}

#[test]
fn two_writes_of_a_script_are_a_transaction_in_the_file() {
    for (script, multi) in [(ONE_WRITE, false), (TWO_WRITES, true)] {
        let server = RedisServer::start(Setup::new(Fsync::Always));
        eval(&mut server.connect(), script);
        // As a value it is none.
        push(&mut server.connect(), "\r\n*1\r\n$5\r\nMULTI\r\n").unwrap();
        assert_eq!(server.has_multi_in_aof(), multi, "{script}");
        assert!(server.aof_files().contains(&server.aof_incr_path()) && server.aof_files().len() == 2);
    }
}

/// Why every script of ours writes one key with one command: a server that is allowed to cut off a torn end of its
/// file (the default) keeps the MULTI before it, and at the next start whatever was pushed and acknowledged since
/// is part of a transaction that never ends.
#[test]
fn a_torn_transaction_swallows_what_follows() {
    for (script, survive) in [(ONE_WRITE, 100), (TWO_WRITES, 0)] {
        let mut server = RedisServer::start(Setup::new(Fsync::Always).set("aof-load-truncated", "yes"));
        eval(&mut server.connect(), script);
        server.sigkill();
        let last = server.aof_commands().into_iter().rfind(|command| command.name() == "RPUSH").unwrap();
        let cut = server.cut_aof_to(last.begin + 10);
        assert!(cut.bytes_lost > 0);
        server.restart();
        assert_eq!(length(&server), 0, "what is torn was not acknowledged in full, and is gone");
        let mut connection = server.connect();
        for n in 1..=100 {
            assert_eq!(push(&mut connection, "acknowledged").unwrap(), n);
        }
        server.restart();
        assert_eq!(length(&server), survive, "{script}");
    }
}

#[test]
fn a_torn_file_is_refused_where_that_is_asked() {
    let mut server = RedisServer::start(Setup::new(Fsync::Always).set("aof-load-truncated", "no"));
    push(&mut server.connect(), "acknowledged").unwrap();
    server.sigkill();
    server.append_to_aof(b"*3\r\n$5\r\nRPUSH\r\n$4\r\nli");
    let said = server.try_restart().unwrap_err();
    assert!(said.contains("Unexpected end of file"), "{said}");
    server.set("aof-load-truncated", "yes");
    server.restart();
    assert_eq!(length(&server), 1);
}

/// A hundred pushes that were synced and a hundred that were not; then the power goes, and `cut` says how much goes
/// with it. Answers how many are left, which are the first ones.
fn left_after(cut: impl FnOnce(&RedisServer)) -> usize {
    let mut server = RedisServer::start(Setup::new(Fsync::EverySecond));
    let mut connection = server.connect();
    let names: Vec<String> = (0..200).map(|n| format!("value-{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        if n == 100 {
            server.await_synced();
        }
        push(&mut connection, name).unwrap();
    }
    server.sigkill();
    let bytes_before = std::fs::metadata(server.aof_incr_path()).unwrap().len();
    cut(&server);
    assert!(std::fs::metadata(server.aof_incr_path()).unwrap().len() <= bytes_before);
    server.restart();
    let left = list(&server);
    assert_eq!(left, names[..left.len()]);
    left.len()
}

#[test]
fn a_loss_of_power_takes_the_last_second_at_most() {
    assert_eq!(left_after(|_| ()), 200, "a kill alone takes nothing");
    let all = left_after(|server| assert!(server.cut_aof_back_to_last_sync().bytes_lost > 0));
    assert_eq!(all, 100, "all that was not synced");
    let mut dice = Dice(support::seed());
    let part = left_after(|server| assert!(server.cut_aof_at_random(&mut dice).bytes_left > 0));
    assert!((100..=200).contains(&part), "{part}");
}

/// A rewrite begins new files; what was there before it is not lost with them.
#[test]
fn a_rewritten_file_is_cut_as_well() {
    let mut server = RedisServer::start(Setup::new(Fsync::EverySecond));
    let mut connection = server.connect();
    push(&mut connection, "before").unwrap();
    server.await_synced();
    let before = server.aof_incr_path();
    server.cli(&["BGREWRITEAOF"]);
    await_until("the rewrite to be over", PATIENCE, || {
        let over = server.info("aof_rewrite_in_progress")? == "0" && server.aof_incr_path() != before;
        (over && server.aof_files().len() == 2).then_some(())
    });
    server.await_synced();
    push(&mut connection, "after").unwrap();
    server.sigkill();
    assert!(server.cut_aof_back_to_last_sync().bytes_lost > 0);
    server.restart();
    assert_eq!(list(&server), ["before"]);
}

#[test]
fn under_always_a_loss_of_power_takes_nothing_acknowledged() {
    let mut server = RedisServer::start(Setup::new(Fsync::Always));
    push(&mut server.connect(), "acknowledged").unwrap();
    server.sigkill();
    assert_eq!(server.cut_aof_back_to_last_sync().bytes_lost, 0);
    server.restart();
    assert_eq!(length(&server), 1);
}

/// A client through a proxy, and a way past it to see what was done.
fn through_a_proxy() -> (RedisServer, FaultProxy, impl Fn() -> Connection) {
    let server = RedisServer::start(Setup::new(Fsync::NoFile));
    let proxy = FaultProxy::start(server.address());
    let url = server.url_at(proxy.address().port());
    let connect = move || {
        let connection = redis::Client::open(url.as_str()).unwrap().get_connection().unwrap();
        connection.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        connection
    };
    (server, proxy, connect)
}

#[test]
fn a_reply_can_be_lost_after_the_command_was_done() {
    let (server, proxy, connect) = through_a_proxy();
    let mut connection = connect();
    push(&mut connection, "whole").unwrap();
    proxy.drop_next_reply();
    let error = push(&mut connection, "unknown").unwrap_err();
    assert!(error.is_connection_dropped() && !error.is_timeout(), "{error}");
    assert_eq!((length(&server), proxy.counts().replies_dropped), (2, 1));
    assert_eq!(push(&mut connect(), "once only").unwrap(), 3);
}

#[test]
fn replies_can_vanish_while_commands_arrive() {
    let (server, proxy, connect) = through_a_proxy();
    let mut connection = connect();
    push(&mut connection, "whole").unwrap();
    proxy.swallow_replies(true);
    // More than fits one read, so that the first replies come before the last command. Not sent as a pipeline: the
    // crate waits out its timeout once for each of the replies.
    let mut command = redis::cmd("RPUSH");
    let packed = command.arg("list").arg("x".repeat(1_000)).get_packed_command().repeat(1_000);
    connection.send_packed_command(&packed).unwrap();
    let error = connection.recv_response().unwrap_err();
    assert!(error.is_timeout(), "{error}");
    await_until("all of it to be done", PATIENCE, || (length(&server) == 1_001).then_some(()));
    proxy.swallow_replies(false);
    assert!(push(&mut connection, "on a deaf connection").is_err());
    assert_eq!(push(&mut connect(), "fresh").unwrap(), 1_003);
}

#[test]
fn a_reply_can_be_cut_in_its_middle() {
    let (server, proxy, connect) = through_a_proxy();
    let value = "x".repeat(100_000);
    push(&mut server.connect(), &value).unwrap();
    for bytes in [0, 1, 30_000, 100_010] {
        proxy.cut_after_reply_bytes(Some(bytes));
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"LRANGE list 0 -1\r\n").unwrap();
        let mut got = Vec::new();
        // What was on its way beyond the cut may make it a reset.
        let _ = stream.read_to_end(&mut got);
        assert_eq!(got.len() as u64, bytes);
        let mut again = connect();
        let whole: Vec<String> = redis::cmd("LRANGE").arg("list").arg(0).arg(-1).query(&mut again).unwrap();
        assert_eq!(whole, [value.as_str()], "once only");
    }
}

#[test]
fn a_connection_can_be_reset() {
    let (_server, proxy, _) = through_a_proxy();
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut pong = [0; 7];
    for cut in [false, true] {
        stream.write_all(b"PING\r\n").unwrap();
        stream.read_exact(&mut pong).unwrap();
        if cut {
            proxy.cut();
            assert_eq!(stream.read(&mut pong).unwrap(), 0, "a cut is orderly");
        } else {
            proxy.reset();
            let kind = stream.read(&mut pong).unwrap_err().kind();
            assert_eq!(kind, std::io::ErrorKind::ConnectionReset);
            stream = TcpStream::connect(proxy.address()).unwrap();
        }
    }
    assert_eq!(proxy.counts().connections_cut, 2);
}
