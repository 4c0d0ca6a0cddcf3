//! Dead letters: buried by the reader's command, then listed, pushed again and purged by the binary.

use bytes::Bytes;
use hongbao::intake::redis::UnitId;
use hongbao::intake::redis::contents::{Dead, DeadReason, Graveyard};
use hongbao::intake::redis::dead::{BURIAL_COUNT_MAX, Cemetery, DeadOptions};
use hongbao::intake::redis::element::encode_frame;
use hongbao::redis::Link;
use serde_json::Value;

use super::support::redis::{Fsync, RedisServer, Setup};
use super::support::{Said, hongbao, run};
use super::{keys, link, server};

const SHARD: UnitId = UnitId(1);
const SHOP: UnitId = UnitId(2);
const MALL: UnitId = UnitId(3);
const NOW: u64 = 1_767_225_600_000;

fn dead(element: impl Into<Bytes>, code: &'static str) -> Dead {
    Dead {
        element: element.into(),
        cut_from: None,
        reason: DeadReason { code, detail: format!("it is {code}") },
    }
}

fn bury(link: &mut Link, options: DeadOptions, unit: UnitId, dead: &[Dead]) -> Result<(), String> {
    let command = Cemetery::new(keys(), options).bury(unit, dead, NOW);
    link.call(command).map(drop).map_err(|failure| failure.to_string())
}

fn command(server: &RedisServer, args: &[&str]) -> Said {
    let url = format!("intake.redis.url={}", server.url());
    let lists = r#"intake.redis.lists=[{ name = "hongbao:intake" }, { name = "upside", order = "lpush" }]"#;
    let places = ["--set", &url, "--set", "intake.redis.shards=2", "--set", lists];
    run(&[&["dead"], args, &places].concat())
}

fn rows(said: &Said) -> Vec<Value> {
    said.out.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn what_is_buried_is_listed_and_pushed_again_where_it_came_from() {
    let server = server();
    let mut link = link(&server);
    let options = DeadOptions { element_bytes_max: 200, ..DeadOptions::default() };
    let frame = encode_frame::<Vec<u8>>(&[]);
    bury(
        &mut link,
        options,
        SHOP,
        &[dead("{\"id\":7", "malformed_json"), dead("x".repeat(300), "too_large")],
    )
    .unwrap();
    bury(&mut link, options, SHOP, &[dead("second", "malformed_json")]).unwrap();
    bury(&mut link, options, MALL, &[dead(&b"\xff\x00"[..], "malformed_json")]).unwrap();
    bury(&mut link, options, SHARD, &[dead(frame.clone(), "unknown_version"), dead("{}", "unexpected")])
        .unwrap();
    // By somebody else.
    server.cli(&["RPUSH", "{upside}:dead", "{\"version\":9}"]);

    let all = rows(&command(&server, &["list", "--json"]));
    assert_eq!(all.len(), 7);
    assert_eq!(
        (all[0]["unit"].as_str(), all[0]["reason"].as_str()),
        (Some("hongbao:1"), Some("unknown_version"))
    );
    assert_eq!(all[2]["element"], "{\"id\":7");
    assert_eq!(all[2]["at"], "2026-01-01T00:00:00.000Z");
    assert_eq!(all[3]["element_bytes"], 300);
    assert_eq!(all[3]["truncated"], true);
    assert_eq!(all[5]["element_base64"], "/wA=");
    assert_eq!(all[6]["fault"], "version 9 is unknown to this release, which reads 1");
    assert_eq!(rows(&command(&server, &["list", "--json", "--reason", "malformed_json"])).len(), 3);
    assert_eq!(rows(&command(&server, &["list", "--json", "--list", "upside"])).len(), 2);
    assert_eq!(rows(&command(&server, &["list", "--json", "--limit", "4"])).len(), 4);
    let said = command(&server, &["list", "--list", "nowhere"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("there are hongbao:0, hongbao:1, hongbao:intake, upside"), "{}", said.err);
    let table = command(&server, &["list"]).out;
    assert!(table.contains("7 dead: hongbao:1 2, hongbao:intake 3, upside 2"), "{table}");
    let id = all[0]["id"].as_str().unwrap();
    let shown: Value = serde_json::from_str(&command(&server, &["show", id]).out).unwrap();
    assert_eq!(shown["detail"], "it is unknown_version");

    // The shard's JSON, the one that was cut and the strange one stay.
    let said = command(&server, &["requeue", "--all"]);
    assert_eq!((said.code, said.out.as_str()), (Some(1), "pushed 4 again\n"), "{}", said.err);
    assert!(said.err.contains("a shard's list takes frames of a door only"), "{}", said.err);
    assert!(said.err.contains("it was cut, of 300 bytes"), "{}", said.err);
    assert!(said.err.contains("version 9 is unknown"), "{}", said.err);
    let mut connection = server.connect();
    let mut list = |name: &str| -> Vec<Vec<u8>> {
        redis::cmd("LRANGE").arg(name).arg(0).arg(-1).query(&mut connection).unwrap()
    };
    assert_eq!(list("hongbao:intake"), [&b"{\"id\":7"[..], b"second"]);
    assert_eq!(list("upside"), [&b"\xff\x00"[..]]);
    assert_eq!(list("{hongbao:1}:realtime.0"), [frame]);
    assert_eq!(rows(&command(&server, &["list", "--json"])).len(), 3);
    assert!(!server.has_multi_in_aof());
}

#[test]
fn new_elements_go_where_producers_push() {
    let server = server();
    let mut link = link(&server);
    for unit in [SHOP, MALL] {
        bury(&mut link, DeadOptions::default(), unit, &[dead("again", "invalid_field")]).unwrap();
    }
    for name in ["hongbao:intake", "upside"] {
        server.cli(&["RPUSH", name, "waits"]);
    }
    assert_eq!(command(&server, &["requeue", "--all"]).code, Some(0));
    assert_eq!(server.cli(&["LRANGE", "hongbao:intake", "0", "-1"]), "waits\nagain");
    assert_eq!(server.cli(&["LRANGE", "upside", "0", "-1"]), "again\nwaits");
}

#[test]
fn purging_asks_first() {
    let server = server();
    let mut link = link(&server);
    let same = vec![dead("same", "damaged"), dead("same", "damaged"), dead("other", "unsigned")];
    bury(&mut link, DeadOptions::default(), SHOP, &same).unwrap();
    let said = command(&server, &["purge", "--all"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("3 dead letters would be removed for good; say so with --yes"), "{}", said.err);
    assert_eq!(
        command(&server, &["purge", "--all", "--reason", "damaged", "--limit", "1", "--yes"]).out,
        "removed 1\n"
    );
    assert_eq!(command(&server, &["purge", "0123456789ab", "--yes"]).code, Some(2));
    assert_eq!(command(&server, &["purge", "--yes"]).code, Some(2), "nothing was named");
    assert_eq!(command(&server, &["purge", "--all", "--yes"]).out, "removed 2\n");
    assert_eq!(command(&server, &["list"]).out, "there are no dead letters\n");
}

#[test]
fn burying_is_bounded_and_all_or_nothing() {
    let server = server();
    let mut link = link(&server);
    let key = "{hongbao:intake}:dead";
    let some = |count: usize, bytes: usize| -> Vec<Dead> {
        (0..count).map(|n| dead(format!("{n:0bytes$}"), "damaged")).collect()
    };
    let few = DeadOptions { count_max: 1_200, ..DeadOptions::default() };
    bury(&mut link, few, SHOP, &some(BURIAL_COUNT_MAX, 10)).unwrap();
    let refused = bury(&mut link, few, SHOP, &some(201, 10)).unwrap_err();
    assert!(refused.contains("FULL {hongbao:intake}:dead holds 1000 of at most 1200"), "{refused}");
    bury(&mut link, few, SHOP, &some(200, 10)).unwrap();
    assert_eq!(server.cli(&["LLEN", key]), "1200");
    let small = DeadOptions { bytes_max: 1 << 20, ..DeadOptions::default() };
    bury(&mut link, small, MALL, &some(80, 10_000)).unwrap();
    let refused = bury(&mut link, small, MALL, &some(40, 10_000)).unwrap_err();
    assert!(refused.contains("FULL {upside}:dead would take"), "{refused}");
    server.cli(&["SET", "{hongbao:0}:dead", "x"]);
    let refused = bury(&mut link, small, UnitId(0), &some(1, 10)).unwrap_err();
    assert!(refused.contains("WRONGTYPE"), "{refused}");
    assert!(!server.has_multi_in_aof());
}

#[test]
fn a_full_redis_still_buries() {
    let server = RedisServer::start(Setup::new(Fsync::NoFile).set("maxmemory-policy", "noeviction"));
    let mut link = link(&server);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(server.try_cli(&["RPUSH", "hongbao:intake", "x"]).is_err(), "the test is of a full Redis");
    bury(&mut link, DeadOptions::default(), SHOP, &[dead("x", "damaged")]).unwrap();
    assert_eq!(server.cli(&["LLEN", "{hongbao:intake}:dead"]), "1");
    // Pushing again is for when there is room: the letter stays.
    let url = format!("intake.redis.url={}", server.url());
    let said = hongbao().args(["dead", "requeue", "--all", "--set", &url]).output().unwrap();
    assert_eq!(said.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&said.stderr).contains("OOM"));
    assert_eq!(server.cli(&["LLEN", "{hongbao:intake}:dead"]), "1");
}
