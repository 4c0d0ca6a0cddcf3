//! Answers of servers, read; and facts for the tests of what judges them.

use super::*;

/// A server as one would want it.
pub(in crate::redis) fn good(name: &str) -> ServerFacts {
    ServerFacts {
        name: name.to_owned(),
        version: Version { major: 7, minor: 0, patch: 15 },
        run_id: format!("run of {name}"),
        role: Role::Master,
        is_loading: false,
        appendonly: true,
        appendfsync: Some(AppendFsync::Always),
        no_appendfsync_on_rewrite: Some(false),
        aof_load_truncated: Some(false),
        aof_rewrite: AofRewrite { is_in_progress: false, last_is_ok: true, has_ended: false },
        maxmemory: 1000,
        maxmemory_policy: "noeviction".to_owned(),
        used_memory: 100,
        system_memory: Some(4000),
        connected_replicas: 0,
        time_us: 0,
    }
}

pub(in crate::redis) fn single(facts: ServerFacts) -> Servers {
    Servers { shape: Shape::Single, each: vec![facts] }
}

const INFO: &str = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n# Memory\r\nused_memory:917120\r\n\
    total_system_memory:25276510208\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n# Persistence\r\nloading:1\r\n\
    aof_enabled:1\r\naof_rewrite_in_progress:0\r\naof_rewrite_scheduled:1\r\naof_last_rewrite_time_sec:-1\r\n\
    aof_last_bgrewrite_status:err\r\n# Replication\r\nrole:slave\r\nconnected_slaves:2\r\n";

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

fn pair(first: &str, second: &str) -> Result<Value, Failure> {
    Ok(Value::Array(vec![bulk(first), bulk(second)]))
}

fn answers(info: &str) -> Vec<Result<Value, Failure>> {
    vec![
        Ok(bulk(info)),
        pair("1700000000", "000123"),
        pair("appendfsync", "everysec"),
        pair("no-appendfsync-on-rewrite", "no"),
        pair("aof-load-truncated", "yes"),
    ]
}

#[test]
fn answers_become_facts() {
    let facts = ServerFacts::read("h:1".to_owned(), answers(INFO)).unwrap();
    let expect = ServerFacts {
        run_id: "abc".to_owned(),
        role: Role::Replica,
        is_loading: true,
        appendfsync: Some(AppendFsync::EverySecond),
        aof_load_truncated: Some(true),
        aof_rewrite: AofRewrite { is_in_progress: true, last_is_ok: false, has_ended: false },
        maxmemory: 0,
        used_memory: 917_120,
        system_memory: Some(25_276_510_208),
        connected_replicas: 2,
        time_us: 1_700_000_000_000_123,
        ..good("h:1")
    };
    assert_eq!(facts, expect);
}

#[test]
fn what_a_server_may_not_tell_is_none_and_what_it_must_is_asked_for() {
    let refused = || {
        Err(Failure::Refused {
            command: "CONFIG".to_owned(),
            code: "NOPERM".to_owned(),
            detail: String::new(),
        })
    };
    let mut some = answers(INFO);
    (some[2], some[3], some[4]) = (refused(), refused(), Ok(Value::Array(Vec::new())));
    let facts = ServerFacts::read("h:1".to_owned(), some).unwrap();
    assert_eq!(
        (facts.appendfsync, facts.no_appendfsync_on_rewrite, facts.aof_load_truncated),
        (None, None, None)
    );

    let without = INFO.replace("maxmemory:0\r\n", "");
    let error = ServerFacts::read("h:1".to_owned(), answers(&without)).unwrap_err().to_string();
    assert!(error.contains("the field maxmemory"), "{error}");
    let mut cut = answers(INFO);
    cut[2] = Err(Failure::Unknown("gone".to_owned()));
    assert!(ServerFacts::read("h:1".to_owned(), cut).unwrap_err().is_unknown());
}

#[test]
fn versions_are_read_and_compared() {
    let table =
        [("7.0.15", Some((7, 0, 15))), ("6.2", Some((6, 2, 0))), ("8.0-rc1", Some((8, 0, 0))), ("x", None)];
    for (text, expect) in table {
        assert_eq!(version(text).map(|v| (v.major, v.minor, v.patch)), expect, "{text}");
    }
    assert!(version("7.0.0") > version("6.2.16") && version("10.0.0") > version("7.4.1"));
}
