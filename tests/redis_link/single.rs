//! One server: rounds, scripts, restarts, kills and silence.

use std::time::{Duration, Instant};

use hongbao::redis::{Command, Failure, Link, LinkError, Script, Target, Value, reply};
use rustix::process::Signal;

use crate::servers::{Server, free_port};
use crate::{await_until, get, link, one, set, told};

static PUSH: Script = Script::new("push", "return redis.call('RPUSH', KEYS[1], ARGV[1])");
static WRONG: Script = Script::new("wrong", "this is no Lua");

fn push(key: &str, value: &str) -> Command {
    Command::script(&PUSH, &[key.as_bytes()]).arg(value)
}

fn incr(key: &str) -> Command {
    Command::new("INCR", key)
}

#[test]
fn a_round_answers_each_command_in_order() {
    let server = Server::start(&[]);
    let mut link = server.link();
    let round = [set("a", "1"), incr("a"), Command::new("LPUSH", "a").arg("x"), get("a"), get("b")];
    assert_eq!(told(&link.round(&round)), ["ok", "2", "refused WRONGTYPE", "2", "nil"]);
    assert_eq!(told(&link.round(&[push("l", "x"), push("l", "y")])), ["1", "2"]);
    assert!(link.round(&[]).is_empty());
    assert_eq!(link.down_since(), None);
    let large = "z".repeat(3 << 20);
    assert_eq!(one(&mut link, set("large", &large)), "ok");
    assert_eq!(reply::text("GET", link.call(get("large")).unwrap()).unwrap(), Some(large));

    let mut second = Link::new(&Target::new(format!("{}/1", server.url()))).unwrap();
    assert_eq!(told(&second.round(&[get("a"), set("a", "other"), get("a")])), ["nil", "ok", "other"]);
    assert_eq!(one(&mut link, get("a")), "2", "another database");
}

#[test]
fn a_socket_file_and_passwords() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("redis sock");
    let server = Server::start(&["--unixsocket", &file.display().to_string(), "--requirepass", "hunter2"]);
    let users =
        Command::routed("ACL", "").arg("SETUSER").arg("ann").arg(&["on", ">s3cr3t", "~*", "+@all", "-role"]);
    let mut admin = link(&format!("redis://:hunter2@127.0.0.1:{}", server.port));
    assert_eq!(one(&mut admin, users), "ok");
    let mut ann = link(&format!("redis://ann:s3cr3t@127.0.0.1:{}", server.port));
    assert_eq!(told(&ann.round(&[set("a", "1"), Command::routed("ROLE", "")])), ["ok", "refused NOPERM"]);

    let unix = format!("redis+unix://{}", file.display().to_string().replace(' ', "%20"));
    for (url, expect) in [
        (server.url(), "wants a password"),
        (unix, "wants a password"),
        (format!("redis://:s3cr3t@127.0.0.1:{}", server.port), "refused AUTH"),
        (format!("redis://ann:hunter2@127.0.0.1:{}", server.port), "refused AUTH"),
        (format!("redis://:hunter2@127.0.0.1:{}/99", server.port), "refused SELECT"),
    ] {
        let failure = link(&url).call(get("a")).unwrap_err();
        let (text, target) = (failure.to_string(), format!("{:?}", Target::new(&url)));
        assert!(matches!(failure, Failure::NotSent(_)) && text.contains(expect), "{text}");
        for secret in ["hunter2", "s3cr3t"] {
            assert!(!text.contains(secret) && !target.contains(secret), "{text} {target}");
        }
    }
    assert_eq!(one(&mut admin, Command::routed("CONFIG", "").arg(&["SET", "requirepass", ""])), "ok");
    let unix = format!("redis+unix://{}", file.display().to_string().replace(' ', "%20"));
    assert_eq!(one(&mut link(&unix), get("a")), "1");
}

#[test]
fn a_target_that_can_never_work_is_refused() {
    let refused = |target: &Target| match Link::new(target) {
        Err(LinkError(reason)) => reason,
        Ok(_) => panic!("{target:?} was taken"),
    };
    let plain = Target { ca_file: "/x.pem".to_owned(), ..Target::default() };
    assert!(refused(&plain).contains("no TLS"));
    let missing = Target { ca_file: "/no/such.pem".to_owned(), ..Target::new("rediss://h") };
    assert!(refused(&missing).contains("/no/such.pem"));
    assert!(refused(&Target::new("redis://user:hunter2@")).contains("no name"));
}

#[test]
fn scripts_are_loaded_again_after_they_were_flushed() {
    let server = Server::start(&[]);
    let (mut link, mut other) = (server.link(), server.link());
    let flush = || Command::routed("SCRIPT", "").arg("FLUSH");
    assert_eq!(told(&link.round(&[push("a", "1"), get("x"), push("a", "2")])), ["1", "nil", "2"]);
    assert_eq!(one(&mut other, flush()), "ok");
    let round = [push("a", "3"), set("x", "y"), push("a", "4"), push("b", "1")];
    assert_eq!(told(&link.round(&round)), ["3", "ok", "4", "1"]);

    assert_eq!(one(&mut other, flush()), "ok");
    let round = [push("a", "5"), Command::new("LLEN", "a"), push("b", "2")];
    assert_eq!(told(&link.round(&round)), ["refused NOSCRIPT", "4", "2"], "the order of a's commands holds");
    assert_eq!(told(&link.round(&round)), ["5", "5", "3"]);

    let Failure::Refused { command, .. } = link.call(Command::script(&WRONG, &[b"a"])).unwrap_err() else {
        panic!("what is no Lua was taken")
    };
    assert!(command.contains("SCRIPT LOAD of wrong"), "{command}");
    assert_eq!(one(&mut link, push("a", "6")), "6");
}

#[test]
fn a_connection_that_was_closed_while_idle_costs_nothing() {
    let mut server = Server::start(&["--appendonly", "yes"]);
    let (mut link, mut other) = (server.link(), server.link());
    assert_eq!(told(&link.round(&[incr("n"), push("l", "x")])), ["1", "1"]);
    assert_eq!(
        one(&mut other, Command::routed("CLIENT", "").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])),
        "1"
    );
    assert_eq!(told(&link.round(&[incr("n"), push("l", "x")])), ["2", "2"]);
    server.restart();
    assert_eq!(told(&link.round(&[incr("n"), push("l", "x")])), ["3", "3"], "the scripts are loaded anew");
    assert_eq!(link.down_since(), None);
}

#[test]
fn a_server_that_goes_leaves_the_rest_of_the_round_unknown() {
    let mut server = Server::start(&[]);
    let mut link = server.link();
    let round = [set("a", "1"), Command::routed("QUIT", ""), set("b", "1"), get("a")];
    assert_eq!(told(&link.round(&round)), ["ok", "ok", "unknown", "unknown"]);
    assert_eq!(one(&mut link, get("a")), "1");
    assert_eq!(one(&mut link, Command::routed("SHUTDOWN", "").arg("NOSAVE")), "unknown");
    server.kill();
    assert!(link.down_since().is_some());
    let began = Instant::now();
    let failures: Vec<Failure> = (0..200).map(|_| link.call(incr("a")).unwrap_err()).collect();
    assert!(failures.iter().all(|failure| matches!(failure, Failure::NotSent(_))), "{failures:?}");
    assert!(failures.iter().any(|failure| failure.to_string().contains("tried again")), "{failures:?}");
    assert!(began.elapsed() < Duration::from_secs(1), "they are answered at once");
    server.restart();
    await_until("the link's return", || (one(&mut link, set("c", "1")) == "ok").then_some(()));
    assert_eq!(link.down_since(), None);
}

#[test]
fn a_server_killed_between_write_and_reply_leaves_it_unknown() {
    let mut server = Server::start(&[]);
    let mut link = server.link().with_response_timeout(Duration::from_secs(20));
    assert_eq!(one(&mut link, incr("n")), "1");
    server.signal(Signal::STOP);
    let (sent, outcome) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let began = Instant::now();
            (began, one(&mut link, incr("n")))
        });
        // The write cannot be seen from here; a stopped server answers nothing in any case.
        std::thread::sleep(Duration::from_millis(50));
        server.kill();
        asking.join().unwrap()
    });
    assert_eq!(outcome, "unknown");
    assert!(sent.elapsed() < Duration::from_secs(10), "the kill was seen, not the timeout");
}

#[test]
fn a_late_reply_is_not_taken_for_another_commands() {
    let server = Server::start(&[]);
    let mut link = server.link().with_response_timeout(Duration::from_millis(200));
    assert_eq!(one(&mut link, incr("n")), "1");
    server.signal(Signal::STOP);
    let began = Instant::now();
    assert_eq!(told(&link.round(&[incr("n"), incr("n")])), ["unknown", "unknown"]);
    let took = began.elapsed();
    assert!(took > Duration::from_millis(150) && took < Duration::from_secs(2), "{took:?}");
    server.signal(Signal::CONT);
    // An INCR's reply would be a number, and GET's is a text.
    let now = await_until("an answer", || link.call(get("n")).ok());
    assert_eq!(now, Value::BulkString(b"3".to_vec()), "both had been executed");
    for at in 0..20 {
        let value = format!("v{at}");
        assert_eq!(told(&link.round(&[set("x", &value), get("x")])), ["ok".to_owned(), value]);
    }
}

#[test]
fn what_was_never_written_is_certainly_not_sent() {
    let server = Server::start(&[]);
    let mut link = server.link().with_response_timeout(Duration::from_millis(300));
    assert_eq!(one(&mut link, set("a", "0")), "ok");
    server.signal(Signal::STOP);
    // More than what the sockets between us can hold.
    let large = "x".repeat(64 << 20);
    let round = [set("a", "1"), set("b", &large), set("c", "1"), push("d", "1")];
    assert_eq!(told(&link.round(&round)), ["unknown", "unknown", "unsent", "unsent"]);
    server.signal(Signal::CONT);
    let after = [get("a"), Command::new("EXISTS", "b"), get("c"), Command::new("EXISTS", "d")];
    let mut link = server.link();
    await_until("the server's return", || link.call(get("a")).ok());
    assert_eq!(told(&link.round(&after)), ["1", "0", "nil", "0"]);
}

#[test]
fn nobody_there_means_certainly_not_sent() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let quick = |url: String| Target { connect_timeout: Duration::from_millis(200), ..Target::new(url) };
    let table = [
        (quick(format!("redis://127.0.0.1:{}", free_port())), "refused"),
        (quick(format!("redis://127.0.0.1:{port}")), "does not answer in time"),
        (quick("redis+unix:///no/such.sock".to_owned()), "No such file"),
        (quick("redis://no-such-host.invalid".to_owned()), "no-such-host.invalid"),
        (quick(format!("redis+cluster://127.0.0.1:{}", free_port())), "no node of the Cluster"),
        (quick(format!("redis+sentinel://127.0.0.1:{}/m", free_port())), "master m was not found"),
    ];
    for (target, expect) in table {
        let mut link = Link::new(&target).unwrap();
        let failure = link.call(get("a")).unwrap_err();
        assert!(matches!(failure, Failure::NotSent(_)) && failure.to_string().contains(expect), "{failure}");
        assert!(link.down_since().is_some());
    }
}

#[test]
fn a_full_server_refuses_and_executes_nothing() {
    let server = Server::start(&["--maxmemory", "2mb"]);
    let mut link = server.link();
    let large = "x".repeat(1 << 20);
    let results = told(&link.round(&[set("a", &large), set("b", &large), set("c", &large), get("c")]));
    assert_eq!(results[2..], ["refused OOM", "nil"], "{results:?}");
}
