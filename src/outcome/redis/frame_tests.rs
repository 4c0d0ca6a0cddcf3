//! The frame against anything: what goes in comes out, and what is damaged never passes or panics.

use proptest::prelude::*;

use super::frame::*;
use crate::digest::Stamper;
use crate::domain::{Amount, Currency, Kind, Lane, Outcome, PayoutCode, Request, Status, WaitReason};
use crate::outcome::Told;

/// Owned parts of a request and its outcome.
#[derive(Clone, Debug)]
struct Parts {
    texts: Vec<String>,
    numbers: [u64; 8],
    digest: [u8; 16],
}

fn parts() -> impl Strategy<Value = Parts> {
    let text = prop_oneof![Just(String::new()), "[a-z]{1,3}", ".{1,20}", "[A-Za-z0-9:_-]{64}"];
    let number = prop_oneof![Just(0), 0u64..100, any::<u64>(), 1_700_000_000_000u64..1_700_000_100_000];
    (prop::collection::vec(text, 12), prop::array::uniform8(number), any::<[u8; 16]>())
        .prop_map(|(texts, numbers, digest)| Parts { texts, numbers, digest })
}

impl Parts {
    fn request(&self) -> Request<'_> {
        let [kind, amount, accepted_at, not_before, not_after, ..] = self.numbers;
        let kind = Kind::from_u8((kind % 6) as u8 + 1).unwrap();
        let mut request = Request {
            lane: Lane::from_u8((amount % 3) as u8).unwrap(),
            amount: Amount::new(amount >> 11).unwrap(),
            currency: Currency::from_bytes([b'C', b'N', b'A' + (amount % 26) as u8]).unwrap(),
            accepted_at,
            not_before,
            not_after,
            campaign: &self.texts[2],
            party: &self.texts[3],
            merchant: &self.texts[4],
            agreement: &self.texts[5],
            batch: &self.texts[6],
            original: &self.texts[7],
            remark: &self.texts[8],
            metadata: &self.texts[9],
            ..Request::new(
                kind,
                &self.texts[0],
                &self.texts[1],
                "",
                Amount::ZERO,
                Currency::parse("CNY").unwrap(),
            )
        };
        Stamper::default().stamp(&mut request);
        Request { digest: self.digest, ..request }
    }

    fn outcome(&self) -> Outcome<'_> {
        let request = self.request();
        let [.., at, next_attempt_at, draw] = self.numbers;
        Outcome {
            status: Status::ALL[(draw % 9) as usize],
            code: PayoutCode::from_u8((draw >> 4) as u8),
            reason: WaitReason::from_u8((draw >> 12) as u8),
            kind: request.kind,
            lane: Some(request.lane),
            request_place: 3,
            follows_place: 3,
            key_hash: request.key_hash,
            at,
            next_attempt_at,
            attempts: draw as u32,
            campaign_number: 0,
            amount: request.amount.minor_units(),
            wallet_ref: &self.texts[10],
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn comes_back_as_it_went(all in prop::collection::vec(parts(), 0..60)) {
        let mut writer = FrameWriter::default();
        for _ in 0..2 {
            all.iter().for_each(|parts| writer.push(&parts.outcome(), &parts.request()));
            prop_assert_eq!(writer.count() as usize, all.len());
            let bytes = writer.finish().to_vec();
            let frame = Frame::open(&bytes).unwrap();
            prop_assert_eq!(frame.left() as usize, all.len());
            let read: Vec<Told<'_>> = frame.map(Result::unwrap).collect();
            for (parts, told) in all.iter().zip(&read) {
                prop_assert_eq!(told, &Told::new(&parts.outcome(), parts.request()));
                prop_assert_eq!(told.outcome(3), parts.outcome());
            }
            prop_assert_eq!(read.len(), all.len());
        }
    }

    #[test]
    fn a_request_alone_comes_back(parts in parts()) {
        let mut bytes = Vec::new();
        encode_request(&parts.request(), &mut bytes);
        prop_assert_eq!(decode_request(&bytes), Ok(parts.request()));
        for cut in 0..bytes.len() {
            prop_assert!(decode_request(&bytes[..cut]).is_err(), "cut at {}", cut);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode_request(&bytes);
        bytes.splice(0..0, [b'R', 1]);
        let _ = decode_request(&bytes);
        prop_assert!(Frame::open(&bytes).is_err());
        // With the right head and checksum, so that the items are met.
        bytes.splice(0..2, *b"HO\x01\0\x09\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        let sum = checksum(&bytes);
        bytes[16..24].copy_from_slice(&sum);
        let items = Frame::open(&bytes).unwrap();
        prop_assert!(items.count() <= 10);
    }
}

fn payout<'a>(id: &'a str, party: &'a str) -> Request<'a> {
    let (amount, currency) = (Amount::new(888).unwrap(), Currency::parse("CNY").unwrap());
    let new = Request::new(Kind::Disbursement, "red-packets", id, "spring-2026", amount, currency);
    Request { party, accepted_at: 1_790_000_000_000, digest: [7; 16], ..new }
}

fn frame_of(count: usize) -> Vec<u8> {
    let mut writer = FrameWriter::default();
    let mut stamper = Stamper::default();
    for number in 0..count {
        let (id, party) = (format!("order-2026-{number:013}"), format!("86138{number:07}"));
        let mut request = payout(&id, &party);
        stamper.stamp(&mut request);
        let told = Told::new(&paid(&request), request);
        writer.push(&told.outcome(0), &request);
    }
    writer.finish().to_vec()
}

fn paid<'a>(request: &Request<'_>) -> Outcome<'a> {
    let at = request.accepted_at + 1_234;
    Outcome {
        status: Status::Succeeded,
        code: None,
        reason: None,
        kind: request.kind,
        lane: Some(request.lane),
        request_place: 0,
        follows_place: 0,
        key_hash: request.key_hash,
        at,
        next_attempt_at: 0,
        attempts: 1,
        campaign_number: 0,
        amount: request.amount.minor_units(),
        wallet_ref: "",
    }
}

#[test]
fn a_typical_payout_takes_few_bytes() {
    let bytes = frame_of(1_000).len();
    assert!(bytes <= 80_000, "{bytes} bytes for 1,000 payouts");
}

#[test]
fn remarks_are_written_once() {
    let bytes_of = |remark_of: fn(usize) -> String| {
        let mut writer = FrameWriter::default();
        for number in 0..1_000 {
            let remark = remark_of(number);
            let request = Request { remark: &remark, ..payout("r", "p") };
            writer.push(&paid(&request), &request);
        }
        let bytes = writer.finish().to_vec();
        let read: Vec<String> =
            Frame::open(&bytes).unwrap().map(|told| told.unwrap().request.remark.to_owned()).collect();
        assert!(read.iter().enumerate().all(|(number, remark)| *remark == remark_of(number)));
        bytes.len()
    };
    let without = bytes_of(|_| String::new());
    // A byte of the mask and a number each; longer than a name may be.
    assert!(bytes_of(|_| "x".repeat(256)) < without + 2_000 + 300);
    assert!(bytes_of(|_| "x".repeat(257)) > without + 1_000 * 257, "longer than a remark may be");
    assert!(bytes_of(|number| format!("{}", number % 3)) < without + 2_000 + 50);
    assert!(bytes_of(|number| format!("{number:04}")) <= without + 1_000 * 7);
}

#[test]
fn a_frame_of_the_version_before_is_read() {
    let remarks = ["first remark", "", "second remark"];
    let mut writer = FrameWriter::default();
    for remark in remarks {
        let request = Request { remark, ..payout("r", "p") };
        writer.push(&paid(&request), &request);
    }
    let mut bytes = writer.finish().to_vec();
    for remark in ["first remark", "second remark"] {
        let at = bytes.windows(remark.len()).position(|window| window == remark.as_bytes()).unwrap();
        // Behind the zero that says that it follows, and its length.
        assert_eq!(bytes.remove(at - 2), 0);
    }
    bytes[2] = 1;
    let sum = checksum(&bytes);
    bytes[16..24].copy_from_slice(&sum);
    let read: Vec<Told<'_>> = Frame::open(&bytes).unwrap().map(Result::unwrap).collect();
    assert!(read.iter().map(|told| told.request.remark).eq(remarks));
}

#[test]
fn what_is_damaged_or_unknown_is_refused_by_name() {
    let good = frame_of(3);
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let table = [
        (changed(2, 9), FrameError::Version(9)),
        (changed(0, b'X'), FrameError::Magic),
        (changed(8, 1), FrameError::Checksum),
        (changed(60, 1), FrameError::Checksum),
        (good[..20].to_vec(), FrameError::Truncated),
        (good[..90].to_vec(), FrameError::Checksum),
        (Vec::new(), FrameError::Magic),
    ];
    for (row, (bytes, expected)) in table.into_iter().enumerate() {
        assert_eq!(Frame::open(&bytes).err(), Some(expected), "row {row}");
    }
    assert!(FrameError::Version(9).to_string().contains("version 9"));
    assert_eq!(decode_request(&[b'R', 2, 0]), Err(FrameError::Version(2)));
    for (count, end) in [(2u8, "bytes left"), (4, "bytes missing")] {
        let mut bytes = changed(4, count);
        let sum = checksum(&bytes);
        bytes[16..24].copy_from_slice(&sum);
        let last = Frame::open(&bytes).unwrap().last().unwrap();
        assert!(last.is_err(), "{end}");
    }
}
