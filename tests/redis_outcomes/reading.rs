//! Reading the streams, and what is trimmed once everybody has.

use hongbao::domain::Status;
use hongbao::intake::redis::UnitId;
use hongbao::outcome::redis::{Frame, RedisStreams, TrimOptions, Trimmer, trim};
use hongbao::outcome::stream::{Position, StreamId, StreamSource, Tail};
use hongbao::redis::Link;

use crate::sample::{keys, open, target};
use crate::support::redis::RedisServer;
use crate::{append, start, take};

const BYTES_MAX: usize = 1 << 24;

pub fn streams(server: &RedisServer, reader: &str, units: &[u16]) -> RedisStreams {
    let units: Vec<UnitId> = units.iter().copied().map(UnitId).collect();
    RedisStreams::new(&target(server), keys(), reader, Box::new(move || units.clone())).unwrap()
}

fn from_start(stream: &str) -> Position {
    Position { stream: stream.to_owned(), ..Position::default() }
}

/// Every fact of a unit: `id STATUS`.
pub fn told_in(server: &RedisServer, unit: u16) -> Vec<String> {
    let source = streams(server, "test", &[unit]);
    let mut told = Vec::new();
    for stretch in source.read(&[from_start(&source.streams()[0])], BYTES_MAX).unwrap() {
        for entry in stretch.frames {
            let facts = Frame::open(&entry.bytes).unwrap().map(Result::unwrap);
            told.extend(facts.map(|told| format!("{} {}", told.request.id, told.status.as_str())));
        }
    }
    told
}

#[test]
fn a_reader_goes_on_from_its_position_in_every_stream() {
    let server = start();
    let opened = open(&server);
    for number in 0..20 {
        let id = format!("r-{number}");
        append(&opened, &[(&id, number % 2, Status::Succeeded)]);
        take(&opened);
    }
    let source = streams(&server, "test", &[0, 1, 2]);
    let names = source.streams();
    assert_eq!(names, ["hb:0", "hb:1", "hb:2"]);
    let first =
        source.read(&names.iter().map(|name| from_start(name)).collect::<Vec<_>>(), BYTES_MAX).unwrap();
    let counts: Vec<(&str, usize)> =
        first.iter().map(|stretch| (stretch.stream.as_str(), stretch.frames.len())).collect();
    assert_eq!(counts, [("hb:0", 10), ("hb:1", 10)], "what is empty is left out");
    let id = first[0].frames[6].id;
    let behind = source.read(&[Position { stream: "hb:0".into(), id, frame_count: 7 }], BYTES_MAX).unwrap();
    assert_eq!(behind[0].frames, first[0].frames[7..]);
    let tails = source.tails(&names).unwrap();
    let (first_id, last) = (first[0].frames[0].id, first[0].frames[9].id);
    assert_eq!(tails[0], Some(Tail { id: last, frame_count: 10, trimmed_count: 0, first_id }));
    assert_eq!(tails[2], Some(Tail::default()), "not there yet");
    server.cli(&["SET", "{hb:2}:outcomes", "not a stream"]);
    assert_eq!(source.tails(&names).unwrap()[2], None);
    let others =
        source.read(&names.iter().map(|name| from_start(name)).collect::<Vec<_>>(), BYTES_MAX).unwrap();
    assert_eq!(others, first, "one that cannot be read holds up no other");
    assert!(source.read(&[from_start("hb:9")], BYTES_MAX).is_err(), "no unit of ours");
}

#[test]
fn what_is_old_goes_once_everybody_has_it() {
    let server = start();
    // Entries one a node, so that trimming is exact.
    server.cli(&["CONFIG", "SET", "stream-node-max-entries", "1"]);
    let opened = open(&server);
    for number in 0..6 {
        append(&opened, &[(&format!("r-{number}"), 0, Status::Succeeded)]);
        take(&opened);
    }
    let source = streams(&server, "view", &[0]);
    let entries = source.read(&[from_start("hb:0")], BYTES_MAX).unwrap().remove(0).frames;
    let mut link = Link::new(&target(&server)).unwrap();
    let at = |id: StreamId| Position { stream: "hb:0".into(), id, frame_count: 0 };
    let length = || server.cli(&["XLEN", "{hb:0}:outcomes"]);
    let young = TrimOptions::default();
    let old = TrimOptions { retention_ms: 0, ..young };
    source.note(&[at(entries[2].id)]).unwrap();
    assert_eq!(Trimmer::new(keys(), young).run(&mut link, &[UnitId(0)]), Ok(0), "too young to go");
    streams(&server, "other", &[0]).note(&[at(entries[1].id)]).unwrap();
    // What the slowest reader stands on is the last that stays.
    assert_eq!(Trimmer::new(keys(), old).run(&mut link, &[UnitId(0)]), Ok(1));
    assert_eq!(length(), "5");
    let gone = TrimOptions { silent_ms_max: 0, ..old };
    source.note(&[at(entries[4].id)]).unwrap();
    assert_eq!(Trimmer::new(keys(), old).run(&mut link, &[UnitId(0)]), Ok(0), "the other one is still there");
    // By the clock of Redis, both are silent for more than no time at all a moment later.
    let mut trimmer = Trimmer::new(keys(), gone);
    crate::support::await_until("readers to be silent", crate::support::PATIENCE, || {
        // One may be silent a moment before the other, and none before the trimmer itself was there for so long.
        trimmer.run(&mut link, &[UnitId(0)]).unwrap();
        (length() == "0").then_some(())
    });
    let tail = source.tails(&["hb:0".into()]).unwrap()[0].unwrap();
    assert_eq!((tail.trimmed_count, tail.first_id), (6, StreamId::default()));
    assert_eq!(Trimmer::new(keys(), old).run(&mut link, &[UnitId(0), UnitId(1)]), Ok(0), "no such stream");
    assert!(!server.has_multi_in_aof(), "one key and one command a script");
}

#[test]
fn what_is_old_goes_as_fast_as_it_comes_and_no_unit_waits_for_another() {
    let server = start();
    let mut connection = server.connect();
    let fill = "for i = 1, 30000 do redis.call('XADD', KEYS[1], i .. '-0', 'f', 'x') end";
    redis::cmd("EVAL").arg(fill).arg(1).arg("{hb:1}:outcomes").exec(&mut connection).unwrap();
    server.cli(&["SET", "{hb:0}:outcomes", "not a stream"]);
    let mut link = Link::new(&target(&server)).unwrap();
    let failure = Trimmer::new(keys(), TrimOptions::default()).run(&mut link, &[UnitId(0), UnitId(1)]);
    assert!(failure.is_err_and(|failure| failure.is_code("WRONGTYPE")));
    assert_eq!(server.cli(&["XLEN", "{hb:1}:outcomes"]), "0", "in one call");
}

#[test]
fn a_reader_that_is_forgotten_is_waited_for_no_more() {
    let server = start();
    let mut link = Link::new(&target(&server)).unwrap();
    let at =
        |stream: &str| Position { stream: stream.into(), id: StreamId { ms: 5, number: 0 }, frame_count: 0 };
    for reader in ["gone", "here"] {
        streams(&server, reader, &[0, 1]).note(&[at("hb:0"), at("hb:1")]).unwrap();
    }
    let names = |link: &mut Link| trim::readers(link, "hb").unwrap().0.into_keys().collect::<Vec<_>>();
    assert_eq!(names(&mut link), ["gone", "here"]);
    assert_eq!(trim::forget(&mut link, "hb", "nobody"), Ok(0));
    assert_eq!(trim::forget(&mut link, "hb", "gone"), Ok(2));
    assert_eq!(names(&mut link), ["here"]);
}

#[test]
fn who_may_own_nothing_is_not_waited_for() {
    let server = start();
    let (at, mut link) = (from_start("hb:0"), Link::new(&target(&server)).unwrap());
    let is_member = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asked = is_member.clone();
    let counts = Box::new(move || asked.load(std::sync::atomic::Ordering::Acquire));
    let source = streams(&server, "refused", &[0]).counted_while(counts);
    source.note(std::slice::from_ref(&at)).unwrap();
    assert!(trim::readers(&mut link, "hb").unwrap().0.is_empty());
    is_member.store(true, std::sync::atomic::Ordering::Release);
    source.note(&[at]).unwrap();
    assert_eq!(trim::readers(&mut link, "hb").unwrap().0.len(), 1);
}
