//! Facts and what they are worth.

use super::super::server::tests::{good, single};
use super::Durability::{Fsync, FsyncEverySecond, Memory, Replicated};
use super::*;

fn replicated(count: u8) -> Durability {
    Replicated(NonZeroU8::new(count).unwrap())
}

#[test]
fn durabilities_have_an_order_and_names() {
    let all = [Memory, FsyncEverySecond, Fsync, replicated(1), replicated(2)];
    assert!(all.is_sorted() && all.windows(2).all(|pair| pair[0] < pair[1]));
    let names = ["memory", "fsync_every_second", "fsync", "replicated:1", "replicated:2"];
    for (durability, name) in all.into_iter().zip(names) {
        assert_eq!((durability.to_string(), name.parse()), (name.to_owned(), Ok(durability)));
    }
    for wrong in ["", "Fsync", "replicated", "replicated:", "replicated:0", "replicated:256", "replicated:+1"]
    {
        assert_eq!(wrong.parse::<Durability>(), Err(NoDurability(wrong.to_owned())));
    }
}

#[test]
fn durability_is_what_the_settings_give_and_the_operators_word_only_where_they_are_hidden() {
    let of = |appendonly, appendfsync, pauses| ServerFacts {
        appendonly,
        appendfsync,
        no_appendfsync_on_rewrite: pauses,
        ..good("h:1")
    };
    let (always, second, never) = (AppendFsync::Always, AppendFsync::EverySecond, AppendFsync::No);
    let table = [
        (of(true, Some(always), Some(false)), None, Fsync),
        (of(true, Some(second), Some(false)), None, FsyncEverySecond),
        (of(true, Some(never), Some(false)), None, Memory),
        (of(false, Some(always), Some(false)), None, Memory),
        (of(true, Some(always), Some(true)), None, Memory),
        (of(true, Some(second), Some(false)), Some(Fsync), FsyncEverySecond),
        (of(true, None, None), None, Memory),
        (of(true, None, None), Some(Fsync), Fsync),
        (of(false, None, None), Some(replicated(2)), replicated(2)),
    ];
    for (facts, assumed, expect) in table {
        assert_eq!(durability(&single(facts.clone()), assumed), expect, "{facts:?} {assumed:?}");
    }
    let second = of(true, Some(second), Some(false));
    let servers = Servers { shape: Shape::Cluster, each: vec![good("a:1"), second, good("b:1")] };
    assert_eq!(durability(&servers, None), FsyncEverySecond, "the worst counts");
}

/// Severity, part of what is said, part of the command.
type Said = (Severity, &'static str, &'static str);

fn check(servers: &Servers, wanted: Durability, expect: &[Said]) {
    let found = findings(servers, wanted, None);
    let matches = found.len() == expect.len()
        && found.iter().zip(expect).all(|(finding, (severity, what, command))| {
            finding.severity == *severity
                && finding.what.contains(what)
                && finding.what.starts_with(&servers.each[0].name)
                && finding.command.contains(command)
        });
    assert!(matches, "{found:#?} instead of {expect:#?}");
}

#[test]
fn findings_name_what_is_wrong_and_what_mends_it() {
    use Severity::{Refuse, Warn};
    let with = |change: fn(&mut ServerFacts)| {
        let mut facts = good("10.0.0.1:6379");
        change(&mut facts);
        single(facts)
    };
    check(&with(|_| ()), Fsync, &[]);
    let old = with(|facts| facts.version = Version { major: 6, minor: 2, patch: 16 });
    check(&old, Memory, &[(Refuse, "Redis 6.2.16", "install Redis 7.0.0")]);
    let replica = with(|facts| facts.role = Role::Replica);
    check(&replica, Memory, &[(Refuse, "a replica", "redis-cli -h 10.0.0.1 -p 6379 REPLICAOF NO ONE")]);
    let evicting = with(|facts| facts.maxmemory_policy = "allkeys-lru".to_owned());
    check(&evicting, Memory, &[(Refuse, "allkeys-lru", "CONFIG SET maxmemory-policy noeviction")]);
    let memory = with(|facts| facts.appendonly = false);
    check(&memory, Memory, &[]);
    check(
        &memory,
        FsyncEverySecond,
        &[(Refuse, "memory, and fsync_every_second", "CONFIG SET appendonly yes")],
    );
    let second = with(|facts| facts.appendfsync = Some(AppendFsync::EverySecond));
    check(&second, FsyncEverySecond, &[]);
    check(&second, Fsync, &[(Refuse, "and fsync is wanted", "-p 6379 CONFIG SET appendfsync always")]);
    let pausing = with(|facts| facts.no_appendfsync_on_rewrite = Some(true));
    check(&pausing, Fsync, &[(Refuse, "is memory", "-p 6379 CONFIG SET no-appendfsync-on-rewrite no")]);
    let truncating = with(|facts| facts.aof_load_truncated = Some(true));
    check(&truncating, Fsync, &[(Warn, "cut off", "CONFIG SET aof-load-truncated no")]);
    let unbounded = with(|facts| facts.maxmemory = 0);
    check(&unbounded, Fsync, &[(Warn, "no bound", "CONFIG SET maxmemory 2000")]);
    check(&with(|facts| facts.used_memory = 750), Fsync, &[]);
    check(&with(|facts| facts.used_memory = 751), Fsync, &[(Warn, "75 %", "CONFIG SET maxmemory 1502")]);
    check(&with(|_| ()), replicated(1), &[(Refuse, "0 replicas, and 1", "REPLICAOF 10.0.0.1 6379")]);
    check(&with(|facts| facts.connected_replicas = 1), replicated(1), &[]);
    check(&with(|facts| facts.connected_replicas = 1), replicated(2), &[(Refuse, "1 replicas, and 2", "")]);
    let followed =
        with(|facts| (facts.appendfsync, facts.connected_replicas) = (Some(AppendFsync::EverySecond), 1));
    check(&followed, replicated(1), &[]);
    let sentinel = Servers { shape: Shape::Sentinel, ..with(|_| ()) };
    check(&sentinel, Fsync, &[(Warn, "at a failover", "CONFIG SET min-replicas-to-write 1")]);
    let both = with(|facts| (facts.maxmemory, facts.maxmemory_policy) = (0, "volatile-ttl".to_owned()));
    check(&both, Fsync, &[(Refuse, "volatile-ttl", ""), (Warn, "no bound", "")]);
    let silent = with(|facts| facts.appendfsync = None);
    check(&silent, Fsync, &[(Refuse, "CONFIG GET is refused", "ACL SETUSER")]);
    assert_eq!(findings(&silent, Fsync, Some(Fsync)), []);
    assert_eq!(findings(&silent, replicated(1), Some(Fsync)).len(), 1, "INFO tells of replicas all the same");
    let file = single(ServerFacts { name: "/run/redis.sock".to_owned(), maxmemory: 0, ..good("") });
    check(&file, Fsync, &[(Warn, "no bound", "redis-cli -s /run/redis.sock CONFIG SET maxmemory")]);
}
