use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::signature::Signer;
use super::*;
use crate::digest::{Stamper, key_hash_of};
use crate::domain::{Amount, Campaign, Currency, Kind, Lane, Request, record};
use crate::intake::QueueId;
use crate::intake::redis::contents::Decoded;
use crate::intake::redis::units::Order;

const NOW: UnixMs = 1_767_225_600_000;
const KEY: &[u8] = b"a key of the producer's";
const SHARD: UnitId = UnitId(0);
const OPEN: UnitId = UnitId(2);
const SIGNED: UnitId = UnitId(3);
const GOOD: &str = r#"{"id":"r-1","campaign":"spring","payee":"ann","amount":88,"currency":"CNY"}"#;

fn list(name: &str, client: &str, hmac_key: Option<&[u8]>) -> ForeignList {
    let hmac_key = hmac_key.map(<[u8]>::to_vec);
    ForeignList { name: name.to_owned(), client: client.to_owned(), order: Order::Rpush, hmac_key }
}

fn reader(registry: &Registry) -> ElementReader {
    let foreign = vec![list("hongbao:intake", "shop", None), list("signed", "mall", Some(KEY))];
    ElementReader::new(&Units { shard_count: 2, fair_queue_count: 8, foreign }, registry)
}

fn decode(unit: UnitId, element: impl Into<Bytes>) -> (Contents, Result<(), DeadReason>) {
    let mut out = Contents::default();
    let result = reader(&Registry::default()).decode(unit, &element.into(), NOW, &mut out);
    (out, result)
}

fn ids(decoded: &[Decoded]) -> Vec<&str> {
    decoded.iter().map(|one| Request::decode(&one.record).unwrap().id).collect()
}

fn sign(payload: &str) -> String {
    String::from_utf8(Signer::new(KEY).sign(payload.as_bytes())).unwrap()
}

#[test]
fn a_good_object_is_a_request_of_the_lists_client() {
    let collection = r#" {"id":"r-2","campaign":"c","payer":"ann","merchant":"m","agreement":"a","amount":1,
        "currency":"CNY","lane":"bulk","not_before":"2027-01-01T00:00:00Z","remark":"恭喜发财","metadata":{"a":1}} "#;
    let mut expected = Request {
        party: "ann",
        accepted_at: NOW,
        ..Request::new(Kind::Disbursement, "shop", "r-1", "spring", Amount::new(88).unwrap(), cny())
    };
    Stamper::default().stamp(&mut expected);
    let (out, result) = decode(OPEN, GOOD);
    result.unwrap();
    assert_eq!(Request::decode(&out.requests[0].record).unwrap(), expected);
    assert!(record::holds_id(&out.requests[0].record));
    assert_eq!(out.requests[0].queue, QueueId::of(Lane::Realtime, "spring", 8));
    let (out, result) = decode(OPEN, collection);
    result.unwrap();
    let read = Request::decode(&out.requests[0].record).unwrap();
    assert_eq!((read.kind, read.lane, read.merchant), (Kind::Collection, Lane::Bulk, "m"));
    assert_eq!((read.key_hash, read.metadata), (key_hash_of("shop", "r-2"), r#"{"a":1}"#));
    assert_eq!(out.requests[0].queue, QueueId::of(Lane::Bulk, "c", 8));
}

fn cny() -> Currency {
    Currency::parse("CNY").unwrap()
}

#[test]
fn dead_ones_say_why() {
    let frame = frame_of(&["r"]);
    let many = format!("[{}1]", "1,".repeat(ITEMS_MAX));
    let faulty =
        r#"{"id":"","campaign":"c c","payee":"p","amount":0,"currency":"cny","lane":"x","remark":1}"#;
    let forged = sign(GOOD).replace("88", "89");
    let cut = &sign(GOOD)[..70];
    let table: [(UnitId, &[u8], &str, &str); 23] = [
        (OPEN, b"", code::MALFORMED_JSON, "EOF while parsing a value at line 1 column 0"),
        (OPEN, b"{", code::MALFORMED_JSON, "EOF while parsing an object at line 1 column 1"),
        (OPEN, b"[{},", code::MALFORMED_JSON, "EOF while parsing a value at line 1 column 4"),
        (OPEN, b"\xff", code::MALFORMED_JSON, "not UTF-8 behind byte 0"),
        (OPEN, b"{\"id\":\"\xff\"}", code::MALFORMED_JSON, "not UTF-8 behind byte 7"),
        (OPEN, b"7", code::INVALID_FIELD, "must be an object, not a number"),
        (OPEN, b"{}", code::INVALID_FIELD, "/id: is missing; /campaign: is missing; /payee: is missing"),
        (OPEN, faulty.as_bytes(), code::INVALID_FIELD, "and 1 more"),
        (
            OPEN,
            faulty.as_bytes(),
            code::INVALID_FIELD,
            "/remark: must be a string, not a number; /id: must not",
        ),
        (
            OPEN,
            br#"{"id":"r","campaign":"c","payee":"p","amount":1,"currency":"CNY","amout":1}"#,
            code::UNKNOWN_FIELD,
            r#"/amout: "amout" is not known here; did you mean "amount"?"#,
        ),
        (
            OPEN,
            br#"{"client":"x","id":"r","campaign":"c","payee":"p","amount":1,"currency":"CNY"}"#,
            code::UNKNOWN_FIELD,
            "/client: ",
        ),
        (OPEN, many.as_bytes(), code::TOO_MANY_ITEMS, "the array has 10001 items; at most 10000 are taken"),
        (OPEN, &frame, code::UNEXPECTED, "a binary frame; hongbao:intake takes a JSON object"),
        (OPEN, sign(GOOD).leak().as_bytes(), code::NO_KEY, "the list has no key configured"),
        (SHARD, GOOD.as_bytes(), code::UNEXPECTED, "no frame of a door"),
        (SHARD, b"", code::UNEXPECTED, "no frame of a door"),
        (SIGNED, GOOD.as_bytes(), code::UNSIGNED, "the list has a key"),
        (SIGNED, &frame, code::UNSIGNED, "the list has a key"),
        (SIGNED, forged.as_bytes(), code::BAD_SIGNATURE, "not that of this payload"),
        (SIGNED, cut.as_bytes(), code::BAD_SIGNATURE, "64 hexadecimal digits"),
        (SIGNED, b"hmac-sha256:", code::BAD_SIGNATURE, "64 hexadecimal digits"),
        (SIGNED, sign("{}").leak().as_bytes(), code::INVALID_FIELD, "/id: is missing"),
        (SIGNED, Signer::new(KEY).sign(&frame).leak(), code::UNEXPECTED, "a binary frame; signed takes"),
    ];
    for (row, (unit, element, expected, detail)) in table.into_iter().enumerate() {
        let (out, result) = decode(unit, Bytes::copy_from_slice(element));
        let reason = result.unwrap_err();
        assert_eq!(reason.code, expected, "row {row}: {reason}");
        assert!(reason.detail.contains(detail), "row {row}: {reason}");
        assert!(out.requests.is_empty() && out.dead.is_empty(), "row {row}");
    }
}

#[test]
fn the_signature_is_the_known_one() {
    // RFC 4231, test case 2.
    let signed = Signer::new(b"Jefe").sign(b"what do ya want for nothing?");
    let sum = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(signed, format!("hmac-sha256:{sum}:what do ya want for nothing?").as_bytes());
    let upper = format!("hmac-sha256:{}:what do ya want for nothing?", sum.to_uppercase());
    assert!(Signer::new(b"Jefe").verify(upper.as_bytes()).is_ok());
}

#[test]
fn an_item_of_an_array_dies_alone() {
    let other = GOOD.replace("r-1", "r-2");
    let array = format!("\n[ {GOOD} , {{\"id\":\"x\"}},\"no\", {other}]");
    let (out, result) = decode(OPEN, array.clone());
    result.unwrap();
    assert_eq!(ids(&out.requests), ["r-1", "r-2"]);
    let dead: Vec<_> = out.dead.iter().map(|dead| (&dead.element[..], dead.reason.detail.as_str())).collect();
    assert_eq!(dead[0].0, br#"{"id":"x"}"#);
    assert!(dead[0].1.starts_with("/campaign: is missing; /payee"), "{}", dead[0].1);
    assert_eq!(dead[1], (&br#""no""#[..], "must be an object, not a string"));
    // Of a signed array, it is signed alone: it can be pushed again as it is.
    let (out, result) = decode(SIGNED, sign(&array));
    result.unwrap();
    assert_eq!(ids(&out.requests), ["r-1", "r-2"]);
    assert_eq!(out.dead[0].element, sign(r#"{"id":"x"}"#));
    let (out, result) = decode(OPEN, "[]");
    assert!(result.is_ok() && out.requests.is_empty() && out.dead.is_empty());
}

#[test]
fn a_request_without_a_lane_gets_its_campaigns() {
    let registry = Registry::default();
    let reader = reader(&registry);
    let lane_of = |campaign: &str, lane: &str| {
        let element = GOOD.replace("spring", campaign).replace('}', &format!("{lane}}}"));
        let mut out = Contents::default();
        reader.decode(OPEN, &Bytes::from(element), NOW, &mut out).unwrap();
        let lane = Request::decode(&out.requests[0].record).unwrap().lane;
        assert_eq!(out.requests[0].queue, QueueId::of(lane, campaign, 8));
        lane
    };
    let campaign = |client: &str, id: &str, lane| {
        Arc::new(Campaign { lane, ..Campaign::new(client, id, cny(), Amount::new(1).unwrap()) })
    };
    assert_eq!(lane_of("spring", ""), Lane::Realtime);
    registry.write().unwrap().push(campaign("mall", "spring", Lane::Bulk));
    assert_eq!(lane_of("spring", ""), Lane::Realtime);
    registry.write().unwrap().push(campaign("shop", "spring", Lane::Bulk));
    registry.write().unwrap().push(campaign("shop", "summer", Lane::Realtime));
    assert_eq!(lane_of("spring", ""), Lane::Bulk);
    assert_eq!(lane_of("summer", ""), Lane::Realtime);
    assert_eq!(lane_of("spring", ",\"lane\":\"realtime\""), Lane::Realtime);
    registry.write().unwrap()[1] = campaign("shop", "spring", Lane::Realtime);
    assert_eq!(lane_of("spring", ""), Lane::Realtime);
}

fn encoded(ids: &[&str]) -> Vec<Vec<u8>> {
    let mut stamper = Stamper::default();
    let request = |id| Request {
        party: "ann",
        lane: Lane::Bulk,
        accepted_at: 5,
        ..Request::new(Kind::Disbursement, "any", id, "c", Amount::new(1).unwrap(), cny())
    };
    ids.iter().map(|id| stamper.encode(request(id))).collect()
}

fn frame_of(ids: &[&str]) -> Vec<u8> {
    encode_frame(&encoded(ids))
}

#[test]
fn a_frame_comes_back_as_it_went_and_is_not_copied() {
    let requests = encoded(&["r-1", "a-longer-one", "r-3"]);
    let element = Bytes::from(encode_frame(&requests));
    let (out, result) = decode(SHARD, element.clone());
    result.unwrap();
    assert_eq!(out.requests.iter().map(|one| one.record.to_vec()).collect::<Vec<_>>(), requests);
    assert!(out.requests.iter().all(|one| one.queue == QueueId::of(Lane::Bulk, "c", 8)));
    let frame = element.as_ptr_range();
    assert!(out.requests.iter().all(|one| frame.contains(&one.record.as_ptr())));
    assert!(decode(SHARD, encode_frame::<Vec<u8>>(&[])).1.is_ok());
}

#[test]
fn a_frame_that_is_not_as_it_was_written_is_dead() {
    let whole = frame_of(&["r-1", "r-2"]);
    let with = |at: usize, value: u8| {
        let mut bytes = whole.clone();
        bytes[at] = value;
        bytes
    };
    // Sealed again, so that what lies behind the checksum is reached.
    let sealed = |mut bytes: Vec<u8>| {
        let mut hash = blake3::Hasher::new();
        hash.update(&bytes[..8]);
        hash.update(&bytes[16..]);
        let sum: [u8; 8] = hash.finalize().as_bytes()[..8].try_into().unwrap();
        bytes[8..16].copy_from_slice(&sum);
        bytes
    };
    let table = [
        (with(2, 2), code::UNKNOWN_VERSION, "frame version 2 is unknown to this release"),
        (with(3, 4), code::UNKNOWN_VERSION, "frame flags 0x04"),
        (with(4, 3), code::DAMAGED, "checksum"),
        (with(40, 7), code::DAMAGED, "checksum"),
        (whole[..12].to_vec(), code::DAMAGED, "12 bytes are too few"),
        (b"HB".to_vec(), code::DAMAGED, "2 bytes are too few"),
        (sealed(with(4, 3)), code::DAMAGED, "the frame holds 2 requests and says 3"),
        (sealed(with(16 + 4, 9)), code::DAMAGED, "request 0 of the frame: entry tag 9"),
        (sealed(with(16 + 5, 2)), code::UNKNOWN_VERSION, "request 0 of the frame: version 2 of entry tag 1"),
        (sealed(whole[..whole.len() - 8].to_vec()), code::DAMAGED, "request 1 of the frame"),
    ];
    for (row, (element, expected, detail)) in table.into_iter().enumerate() {
        let reason = decode(SHARD, element).1.unwrap_err();
        assert_eq!(reason.code, expected, "row {row}: {reason}");
        assert!(reason.detail.contains(detail), "row {row}: {reason}");
    }
}

/// Bytes that begin like something.
fn element() -> impl Strategy<Value = Vec<u8>> {
    let heads: [&[u8]; 8] =
        [b"", b"HB\x01\x00", b"HB", b"hmac-sha256:", b"[", b"{\"id\":", b"\xef\xbb\xbf", b"[[[["];
    let whole = [
        GOOD.as_bytes().to_vec(),
        format!("[{GOOD},{GOOD}]").into_bytes(),
        sign(GOOD).into_bytes(),
        frame_of(&["r-1", "r-2"]),
    ];
    let made = (prop::sample::select(heads.to_vec()), prop::collection::vec(any::<u8>(), 0..60))
        .prop_map(|(head, rest)| [head, &rest].concat());
    let changed = (prop::sample::select(whole.to_vec()), any::<(usize, u8, usize)>()).prop_map(
        |(mut bytes, (at, value, cut))| {
            let at = at % bytes.len();
            bytes[at] = value;
            bytes.truncate(bytes.len() - cut % 3 * (cut % bytes.len()) / 2);
            bytes
        },
    );
    prop_oneof![made, changed]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn anything_is_read_or_dead(bytes in element(), unit in prop::sample::select(vec![SHARD, OPEN, SIGNED])) {
        let (out, _) = decode(unit, bytes);
        for one in &out.requests {
            prop_assert!(Request::decode(&one.record).is_ok());
        }
    }
}

/// How fast one core is: `cargo test --release --lib element -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn measure() {
    let object = |n: usize| {
        format!(
            r#"{{"id":"20260217-spring-{n:010}","campaign":"spring-festival-2026","payee":"user-{n:012}","amount":{},"currency":"CNY","remark":"恭喜发财,大吉大利","metadata":{{"room":"{n:08}","seat":17}}}}"#,
            n % 20_000 + 1
        )
    };
    const COUNT: usize = 200_000;
    let singles: Vec<Bytes> = (0..COUNT).map(|n| Bytes::from(object(n))).collect();
    let arrays: Vec<Bytes> = (0..COUNT / 500)
        .map(|n| {
            Bytes::from(format!("[{}]", (n * 500..(n + 1) * 500).map(object).collect::<Vec<_>>().join(",")))
        })
        .collect();
    let registry = Registry::default();
    let campaign = Campaign::new("shop", "spring-festival-2026", cny(), Amount::new(1).unwrap());
    registry.write().unwrap().push(Arc::new(campaign));
    let reader = reader(&registry);
    let run = |what: &str, unit: UnitId, elements: &[Bytes]| {
        let mut out = Contents::default();
        let (started, mut requests) = (std::time::Instant::now(), Vec::new());
        for element in elements {
            reader.decode(unit, element, NOW, &mut out).unwrap();
            if out.requests.len() >= 4_096 {
                requests.extend(out.requests.drain(..));
                requests.truncate(COUNT / 10);
            }
        }
        let rate = COUNT as f64 / started.elapsed().as_secs_f64();
        println!("{what}: {rate:.0} requests/s of {} bytes", object(0).len());
    };
    let signer = Signer::new(KEY);
    let signed: Vec<Bytes> = singles.iter().map(|element| Bytes::from(signer.sign(element))).collect();
    let mut out = Contents::default();
    arrays.iter().for_each(|array| reader.decode(OPEN, array, NOW, &mut out).unwrap());
    let frames: Vec<Bytes> = out
        .requests
        .chunks(500)
        .map(|chunk| chunk.iter().map(|one| one.record.clone()).collect::<Vec<_>>())
        .map(|records| Bytes::from(encode_frame(&records)))
        .collect();
    drop(out);
    run("objects", OPEN, &singles);
    run("arrays of 500", OPEN, &arrays);
    run("signed objects", SIGNED, &signed);
    run("frames of 500", SHARD, &frames);
}
