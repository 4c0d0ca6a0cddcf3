//! What servers say of themselves, and what is made of it: durability, wishes, memory.

use std::time::Instant;

use hongbao::redis::durability::{durability, findings};
use hongbao::redis::{Command, Durability, Link, Servers, Severity, Target, Watch, Wish};

use crate::servers::Server;
use crate::{await_until, link, one, set, told};

const ALWAYS: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

fn config(link: &mut Link, name: &str, value: &str) {
    assert_eq!(one(link, Command::routed("CONFIG", "").arg(&["SET", name, value])), "ok");
}

#[test]
fn durability_is_read_from_the_server() {
    let server = Server::start(&[]);
    let mut link = server.link();
    let table = [
        ("appendonly", "yes", Durability::FsyncEverySecond),
        ("appendfsync", "always", Durability::Fsync),
        ("no-appendfsync-on-rewrite", "yes", Durability::Memory),
        ("no-appendfsync-on-rewrite", "no", Durability::Fsync),
        ("appendfsync", "no", Durability::Memory),
    ];
    let facts = Servers::read(&mut link).unwrap();
    assert_eq!(durability(&facts, None), Durability::Memory);
    assert_eq!(facts.each[0].name, format!("127.0.0.1:{}", server.port));
    assert!(facts.each[0].time_us > 1_700_000_000_000_000 && facts.each[0].used_memory > 0);
    for (name, value, expect) in table {
        config(&mut link, name, value);
        assert_eq!(durability(&Servers::read(&mut link).unwrap(), None), expect, "{name} {value}");
    }
}

/// Runs the command that a finding gives, and the finding is gone.
#[test]
fn the_commands_that_findings_give_mend_them() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru", "--no-appendfsync-on-rewrite", "yes"]);
    let mut link = server.link();
    let found = |link: &mut Link| findings(&Servers::read(link).unwrap(), Durability::Fsync, None);
    assert!(found(&mut link).iter().any(|finding| finding.severity == Severity::Refuse));
    await_until("no more findings", || {
        let Some(finding) = found(&mut link).into_iter().next() else { return Some(()) };
        let mut words = finding.command.split(' ');
        let said = std::process::Command::new(words.next().unwrap()).args(words).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "OK", "{finding:?}");
        None
    });
    assert_eq!(found(&mut link), []);
}

#[test]
fn an_unclean_restart_is_followed_by_a_rewrite_before_fsync_is_stated() {
    let mut server = Server::start(&ALWAYS);
    let mut link = server.link();
    let mut watch = Watch::new([]);
    let mut settle = |link: &mut Link| {
        let mut wishes = Vec::new();
        await_until("a rewrite", || {
            let facts = Servers::read(link).unwrap();
            let outlook = watch.see(&facts, None, Instant::now());
            for wish in outlook.wishes {
                let Wish::Rewrite { server } = &wish;
                assert!(link.round_at(server, &[Command::routed("BGREWRITEAOF", "")])[0].is_ok());
                wishes.push(wish);
            }
            (outlook.durability == Durability::Fsync).then_some(())
        });
        wishes.len()
    };
    assert_eq!(settle(&mut link), 1, "a run that was not seen before");
    assert_eq!(settle(&mut link), 0);
    assert_eq!(one(&mut link, set("a", "1")), "ok");
    let connects = link.connects();
    server.restart();
    assert_eq!(settle(&mut link), 1, "another run");
    assert!(link.connects() > connects);
    config(&mut link, "aof-load-truncated", "no");
    server.restart();
    config(&mut link, "aof-load-truncated", "no");
    assert_eq!(settle(&mut link), 0, "it would not have loaded a file that is cut off");
}

#[test]
fn what_an_access_list_hides_is_not_guessed() {
    let server = Server::start(&ALWAYS);
    let mut admin = server.link();
    let rules = ["SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-config"];
    assert_eq!(told(&admin.round(&[Command::routed("ACL", "").arg(&rules)])), ["ok"]);
    let mut app = link(&format!("redis://app:pw@127.0.0.1:{}", server.port));
    let facts = Servers::read(&mut app).unwrap();
    assert_eq!((facts.each[0].appendfsync, facts.each[0].aof_load_truncated), (None, None));
    assert_eq!(durability(&facts, None), Durability::Memory);
    assert_eq!(durability(&facts, Some(Durability::Fsync)), Durability::Fsync);
    let said = findings(&facts, Durability::Fsync, None);
    assert!(
        said[0].severity == Severity::Refuse && said[0].what.contains("CONFIG GET is refused"),
        "{said:?}"
    );
}

#[test]
fn memory_is_watched() {
    let server = Server::start(&["--maxmemory", "8mb"]);
    let mut link = Link::new(&Target::new(server.url())).unwrap();
    let mut watch = Watch::new([]);
    let mut is_full =
        |link: &mut Link| watch.see(&Servers::read(link).unwrap(), None, Instant::now()).is_full;
    assert!(!is_full(&mut link));
    let element = "x".repeat(256 << 10);
    await_until("a full server, told before it refuses", || {
        let pushed = one(&mut link, Command::new("RPUSH", "l").arg(&element));
        assert!(!pushed.starts_with("refused"), "{pushed}");
        is_full(&mut link).then_some(())
    });
    assert_eq!(one(&mut link, Command::new("DEL", "l")), "1");
    await_until("room again", || (!is_full(&mut link)).then_some(()));
}
