//! Result streams, as a producer reads them.

use hongbao::domain::{Outcome, Request, Status};
use hongbao::intake::redis::results::Results;
use hongbao::intake::redis::{results_room, units};
use redis::streams::StreamRangeReply;

use super::parked::{UNIT, request, waits};
use super::support::redis::{Fsync, RedisServer, Setup};
use super::{keys, link, server};

fn told(results: &Results, count: u64) -> Vec<hongbao::redis::Command> {
    let records: Vec<_> = (0..count).map(|n| request(&format!("r-{n}"), "spring", "shop")).collect();
    let outcomes = records.iter().enumerate().map(|(n, record)| {
        let (outcome, _) = waits(record, units::place(UNIT, n as u64), 0);
        // All in one millisecond: what reached one state together is one entry.
        Outcome { status: Status::Succeeded, reason: None, at: 1_767_225_600_007, ..outcome }
    });
    let settled: Vec<(Outcome<'_>, Request<'_>)> =
        outcomes.zip(records.iter().map(|record| Request::decode(record).unwrap())).collect();
    results.commands(settled.iter().map(|(outcome, request)| (outcome, request)))
}

#[test]
fn a_producer_reads_what_became_of_its_requests() {
    let server = server();
    let mut link = link(&server);
    let results = Results::new(&keys(), 100);
    assert!(link.round(&told(&results, 2_500)).iter().all(Result::is_ok));
    let mut connection = server.connect();
    let read: StreamRangeReply =
        redis::cmd("XRANGE").arg("hongbao:results:shop").arg("-").arg("+").query(&mut connection).unwrap();
    let mut ids = Vec::new();
    for entry in &read.ids {
        let field = |name| entry.get::<String>(name);
        assert_eq!((field("status").as_deref(), field("code")), (Some("SUCCEEDED"), None));
        assert!(field("at").is_some_and(|at| at.ends_with('Z')));
        ids.extend(serde_json::from_str::<Vec<String>>(&field("ids").unwrap()).unwrap());
    }
    assert_eq!(read.ids.len(), 3);
    assert_eq!(ids, (0..2_500).map(|n| format!("r-{n}")).collect::<Vec<_>>());
    // Older ones make room.
    for _ in 0..300 {
        assert!(link.round(&told(&results, 5)).iter().all(Result::is_ok));
    }
    let length: u64 = server.cli(&["XLEN", "hongbao:results:shop"]).parse().unwrap();
    assert!((100..300).contains(&length), "{length} entries");
    assert!(!server.has_multi_in_aof());
}

#[test]
fn a_stream_is_bounded_in_bytes_whatever_is_in_an_entry() {
    let server = server();
    let mut link = link(&server);
    let results = Results::new(&keys(), 100_000);
    // Some 8 KB a thousand.
    for _ in 0..700 {
        assert!(link.round(&told(&results, 1_000)).iter().all(Result::is_ok));
    }
    let number = |args: &[&str]| server.cli(args).parse::<u64>().unwrap();
    let bytes = || number(&["MEMORY", "USAGE", "hongbao:results:shop", "SAMPLES", "0"]);
    let before = bytes();
    assert!(before > 4 << 20, "{before} bytes");
    assert_eq!(results_room::trim(&mut link, &keys(), 1 << 30, false), Ok(0), "it has room");
    let gone = results_room::trim(&mut link, &keys(), 2 << 20, false).unwrap();
    assert!(gone > 0 && bytes() < 3 << 20, "{gone} entries, {} bytes left", bytes());
    let cut = bytes();
    results_room::trim(&mut link, &keys(), 2 << 20, true).unwrap();
    assert!(bytes() < cut * 2 / 3, "{} of {cut} bytes left where memory runs short", bytes());
    // The newest stays, and what cannot be cut is told.
    assert!(number(&["XLEN", "hongbao:results:shop"]) > 1);
    server.cli(&["DEL", "hongbao:results:shop"]);
    server.cli(&["SET", "hongbao:results:shop", "no stream"]);
    let failure = results_room::trim(&mut link, &keys(), 2 << 20, false).unwrap_err();
    assert!(failure.is_code("WRONGTYPE"), "{failure}");
    assert!(!server.has_multi_in_aof());
}

#[test]
fn a_full_redis_is_told_nothing_and_nobody_waits_for_it() {
    let server = RedisServer::start(Setup::new(Fsync::NoFile));
    let mut link = link(&server);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = link.round(&told(&Results::new(&keys(), 100), 1));
    assert!(refused[0].as_ref().is_err_and(|failure| failure.is_code("OOM")), "{refused:?}");
}
