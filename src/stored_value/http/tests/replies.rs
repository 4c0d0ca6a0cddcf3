//! Everything a wallet can answer to a transfer, a burn, a lookup and a question for its identity: one table
//! each, from the bytes to what may be believed of them.

use std::net::TcpListener;
use std::time::Duration;

use super::{Act, PATIENCE, SECRET, Scripted, batch, json, reply, says};
use crate::domain::{PayoutCode, TransferStatus};
use crate::stored_value::http::{HttpOptions, HttpWallet, refusal};
use crate::stored_value::remote::{Answer, CallError, OnRecord, RemoteWallet};

const IDS: [&str; 2] = ["shop:1", "shop:2"];
const DEADLINE: Duration = PATIENCE;
/// For replies that shall not be in time.
const SHORT: Duration = Duration::from_millis(300);

/// What a call is expected to come to.
#[derive(Debug)]
enum Expect {
    Results([TransferStatus; 2]),
    /// Its reason holds this.
    Unknown(&'static str),
    TimedOut,
    Overloaded(Option<u64>),
    Unauthorized(&'static str),
    TooLarge,
    Rejected(&'static str),
}

use Expect::{Overloaded, Rejected, Results, TimedOut, TooLarge, Unauthorized, Unknown};
use TransferStatus::{Failed, Succeeded};

const DONE: TransferStatus = Succeeded;
const OPEN: TransferStatus = TransferStatus::Unknown;

async fn check(name: &str, script: Vec<Act>, expect: Expect) {
    let server = Scripted::start(script).await;
    let deadline = if matches!(expect, TimedOut) { SHORT } else { DEADLINE };
    let call = server.wallet().transfer(batch(&IDS), deadline);
    let got = tokio::time::timeout(PATIENCE * 2, call).await.expect("the deadline holds");
    assert_eq!(server.connections.load(std::sync::atomic::Ordering::SeqCst), 1, "{name}: sent once");
    matches_expectation(name, got, &expect);
}

fn matches_expectation(name: &str, got: Result<Vec<Answer>, CallError>, expect: &Expect) {
    let text = got.as_ref().err().map_or_else(String::new, ToString::to_string);
    assert!(!text.contains("s3cr3t"), "{name}: {text}");
    assert!(!text.contains(|c: char| c.is_control()) && text.len() < 1_000, "{name}: {text:?}");
    let fits = match (&got, expect) {
        (Ok(answers), Results(expected)) => {
            answers.iter().map(|answer| answer.status).collect::<Vec<_>>() == expected
        }
        (Err(CallError::Unknown(reason)), Unknown(part))
        | (Err(CallError::Unauthorized(reason)), Unauthorized(part))
        | (Err(CallError::Rejected(reason)), Rejected(part)) => {
            reason.contains(part) && reason.contains("(trace ") && reason.contains("/v1/transfers: ")
        }
        (Err(CallError::TimedOut { .. }), TimedOut) | (Err(CallError::TooLarge(_)), TooLarge) => true,
        (Err(CallError::Overloaded { retry_after, .. }), Overloaded(seconds)) => {
            *retry_after == seconds.map(Duration::from_secs)
        }
        _ => false,
    };
    assert!(fits, "{name}: expected {expect:?}, got {got:?}");
}

/// The body of a reply about the two entries.
fn results(first: &str, second: &str) -> String {
    format!(r#"{{"results":[{first},{second}]}}"#)
}

fn item(id: &str, rest: &str) -> String {
    format!(r#"{{"id":"{id}",{rest}}}"#)
}

fn succeeded(id: &str) -> String {
    item(id, r#""status":"succeeded""#)
}

/// A good first entry, and a second that says this.
fn second_says(rest: &str) -> Vec<u8> {
    json(&results(&succeeded("shop:1"), &item("shop:2", rest)))
}

fn good_body() -> String {
    results(&succeeded("shop:1"), &succeeded("shop:2"))
}

#[tokio::test]
async fn entries_are_believed_one_by_one() {
    let failed = |code| Results([DONE, Failed(code)]);
    let open = || Results([DONE, OPEN]);
    let table = [
        (r#""status":"succeeded""#, Results([DONE, DONE])),
        (
            r#""status":"succeeded","code":null,"wallet_ref":null,"new_field":{"a":[1]}"#,
            Results([DONE, DONE]),
        ),
        (r#""status":"succeeded","wallet_ref":"w-1","amount":188"#, Results([DONE, DONE])),
        (r#""status":"\u0073ucceeded""#, Results([DONE, DONE])),
        (r#""status":"failed","code":"payee_frozen""#, failed(PayoutCode::PayeeFrozen)),
        (r#""status":"failed","code":"low_balance""#, failed(PayoutCode::LowBalance)),
        (r#""status":"failed","code":"wallet_overloaded""#, failed(PayoutCode::WalletOverloaded)),
        (r#""status":"failed","code":"id_conflict""#, failed(PayoutCode::IdConflict)),
        (r#""status":"failed","code":"burned""#, failed(PayoutCode::Burned)),
        (r#""status":"unknown""#, open()),
        (r#""status":"unknown","code":"payee_frozen""#, open()),
        (r#""status":"done""#, open()),
        (r#""status":"SUCCEEDED""#, open()),
        (r#""status":"""#, open()),
        (r#""status":"burned""#, open()),
        (r#""status":"not_found""#, open()),
        (r#""status":"failed","code":"no_such_code""#, open()),
        (r#""status":"failed","code":"""#, open()),
        (r#""status":"failed""#, open()),
        (r#""status":"succeeded","code":"low_balance""#, open()),
        (r#""status":"failed","code":"crash_suspect""#, open()),
        (r#""status":"failed","code":"expired""#, open()),
        (r#""status":"failed","code":"campaign_closed""#, open()),
    ];
    for (rest, expect) in table {
        check(rest, says(second_says(rest)), expect).await;
    }
}

#[tokio::test]
async fn a_reply_is_believed_only_as_a_whole() {
    let one = r#"{"results":[{"id":"shop:1","status":"succeeded"}]}"#.to_owned();
    let three = format!(r#"{{"results":[{0},{0},{1}]}}"#, succeeded("shop:1"), succeeded("shop:2"));
    let page = "<html>502</html>".to_owned();
    let table = [
        ("not JSON", "hello".to_owned(), "not what the contract says"),
        ("an HTML page", page, "not what the contract says"),
        ("nothing", String::new(), "not what the contract says"),
        ("cut JSON", good_body()[..40].to_owned(), "not what the contract says"),
        ("JSON and more", good_body() + "{}", "not what the contract says"),
        ("an error body", r#"{"error":"database is down"}"#.to_owned(), "missing field `results`"),
        ("a problem", r#"{"title":"Oops","status":500}"#.to_owned(), "missing field `results`"),
        ("null", "null".to_owned(), "not what the contract says"),
        ("results null", r#"{"results":null}"#.to_owned(), "not what the contract says"),
        ("results twice", r#"{"results":[],"results":[]}"#.to_owned(), "duplicate field"),
        ("items missing", one, "1 results for 2 entries"),
        ("no items", r#"{"results":[]}"#.to_owned(), "0 results for 2 entries"),
        ("items too many", three, "3 results for 2 entries"),
        ("other order", results(&succeeded("shop:2"), &succeeded("shop:1")), "result 0 is about id"),
        (
            "another id",
            results(&succeeded("shop:1"), &succeeded("shop:3")),
            "result 1 is about id \"shop:3\"",
        ),
        ("duplicates", results(&succeeded("shop:1"), &succeeded("shop:1")), "result 1 is about id"),
        ("an id that echoes", results(&succeeded(SECRET), &succeeded("shop:2")), "result 0 is about id"),
        ("a long id", results(&succeeded(&"x".repeat(3_000)), &succeeded("shop:2")), "result 0 is about id"),
        ("no id", results(&succeeded("shop:1"), r#"{"status":"succeeded"}"#), "missing field `id`"),
        ("no status", results(&succeeded("shop:1"), r#"{"id":"shop:2"}"#), "missing field `status`"),
        ("status a number", results(&succeeded("shop:1"), &item("shop:2", r#""status":1"#)), "invalid type"),
        (
            "two statuses",
            results(&succeeded("shop:1"), &item("shop:2", r#""status":"failed","status":"succeeded""#)),
            "duplicate field",
        ),
    ];
    for (name, body, reason) in table {
        check(name, says(json(&body)), Unknown(reason)).await;
    }
}

#[tokio::test]
async fn the_status_code_decides_what_a_refusal_is() {
    let problem = ["content-type: application/problem+json"];
    let told = |status: &str| reply(status, &problem, r#"{"title":"No","detail":"not\nnow"}"#);
    let with = |status: &str, header: &str| reply(status, &[header], "");
    let echo = format!(r#"{{"title":"Bad","detail":"you sent {SECRET}"}}"#);
    let table = [
        ("401", told("401 Unauthorized"), Unauthorized("401 Unauthorized: No; notnow")),
        ("403", told("403 Forbidden"), Unauthorized("403")),
        ("404", told("404 Not Found"), Rejected("404 Not Found: No; notnow")),
        ("400", told("400 Bad Request"), Rejected("400")),
        (
            "422, good body",
            reply("422 X", &["content-type: application/json"], &good_body()),
            Rejected("422"),
        ),
        ("an echo", reply("400 Bad Request", &problem, &echo), Rejected("you sent …")),
        (
            "a long problem",
            reply("400 X", &problem, &format!(r#"{{"title":"{}"}}"#, "x".repeat(9_000))),
            Rejected("xxx"),
        ),
        ("408", told("408 Request Timeout"), TimedOut),
        ("413", told("413 Content Too Large"), TooLarge),
        ("429", told("429 Too Many Requests"), Overloaded(None)),
        ("429, seconds", with("429 X", "retry-after: 7"), Overloaded(Some(7))),
        ("429, hours", with("429 X", "retry-after: 99999"), Overloaded(Some(60))),
        ("429, nonsense", with("429 X", "retry-after: soon"), Overloaded(None)),
        ("503", told("503 Service Unavailable"), Overloaded(None)),
        ("503, seconds", with("503 X", "retry-after: 1"), Overloaded(Some(1))),
        ("500", told("500 Internal Server Error"), Unknown("500 Internal Server Error: No; notnow")),
        ("502", reply("502 Bad Gateway", &["content-type: text/html"], "<html>"), Unknown("502")),
        ("504", told("504 Gateway Timeout"), Unknown("504")),
        ("204", b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), Unknown("204")),
        ("206, good body", reply("206 X", &["content-type: application/json"], &good_body()), Unknown("206")),
        (
            "302",
            with("302 Found", "location: http://127.0.0.1:1/elsewhere"),
            Rejected("a redirect to http://127"),
        ),
        ("307", with("307 X", "location: /v2/transfers"), Rejected("a redirect to /v2")),
        ("304", b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec(), Rejected("304")),
        ("500, body cut", b"HTTP/1.1 500 X\r\ncontent-length: 90\r\n\r\n{".to_vec(), Unknown("answered 500")),
        (
            "401, body cut",
            b"HTTP/1.1 401 X\r\ncontent-length: 90\r\n\r\n{".to_vec(),
            Unauthorized("answered 401"),
        ),
    ];
    for (name, bytes, expect) in table {
        check(name, says(bytes), expect).await;
    }
}

#[tokio::test]
async fn a_wrong_content_type_is_not_read() {
    let table = [
        ("content-type: application/json; charset=utf-8", Results([DONE, DONE])),
        ("Content-Type: Application/JSON", Results([DONE, DONE])),
        ("content-type: application/problem+json", Unknown("application/problem+json")),
        ("content-type: text/html", Unknown("text/html")),
        ("content-type: application/jsonx", Unknown("application/jsonx")),
        ("x-nothing: here", Unknown("content type none")),
    ];
    for (header, expect) in table {
        check(header, says(reply("200 OK", &[header], &good_body())), expect).await;
    }
}

#[tokio::test]
async fn a_connection_may_break_in_every_phase() {
    let (head, body) = (|| Act::ReadHead, || Act::ReadBody);
    let send = |text: &str| Act::Send(text.as_bytes().to_vec());
    let open = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let long = format!("{open}content-length: 900\r\n\r\n{}", good_body());
    let huge = format!("{open}content-length: 99999999999\r\n\r\n{{");
    let chunked = format!("{open}transfer-encoding: chunked\r\n\r\n4\r\n{{\"re\r\n");
    let endless = format!("{open}transfer-encoding: chunked\r\n\r\n");
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000)).into_bytes();
    let before = "broke before a reply";
    let table = [
        ("on accept", vec![], Unknown(before)),
        ("after the head", vec![head()], Unknown(before)),
        ("after the body", vec![head(), body()], Unknown(before)),
        ("in the status line", vec![head(), body(), send("HTTP/1.1 20")], Unknown(before)),
        ("after the status line", vec![head(), body(), send("HTTP/1.1 200 OK\r\n")], Unknown(before)),
        ("in the headers", vec![head(), body(), send(&open[..30])], Unknown(before)),
        (
            "after the headers",
            vec![head(), body(), send(&format!("{open}content-length: 9\r\n\r\n"))],
            Unknown("broke off"),
        ),
        ("in the body", vec![head(), body(), send(&long)], Unknown("broke off")),
        ("in a chunk", vec![head(), body(), send(&chunked)], Unknown("broke off")),
        ("not HTTP", vec![head(), body(), send("SSH-2.0-OpenSSH_9.2\r\n")], Unknown(before)),
        ("a length past all bounds", vec![head(), body(), send(&huge)], Unknown("longer than")),
        (
            "an endless body",
            vec![head(), body(), send(&endless), Act::Endless(chunk)],
            Unknown("longer than"),
        ),
        (
            "endless headers",
            vec![head(), body(), send(open), Act::Endless(b"x-more: and more\r\n".to_vec())],
            Unknown(before),
        ),
    ];
    for (name, script, expect) in table {
        check(name, script, expect).await;
    }
}

#[tokio::test]
async fn a_reply_may_be_so_long_and_no_longer() {
    // Two entries may take 20 KiB, announced or in chunks.
    for (spaces, expect) in
        [(19 << 10, Results([DONE, DONE])), (20 << 10, Unknown("longer than the 20480 bytes"))]
    {
        let body = " ".repeat(spaces) + &good_body();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunked = format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        check("chunked", says(chunked.into_bytes()), expect).await;
    }
    check("announced", says(json(&(" ".repeat(20 << 10) + &good_body()))), Unknown("longer than")).await;
}

#[tokio::test]
async fn the_deadline_covers_the_last_byte() {
    let pause = Duration::from_millis(20);
    let open = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let (head, body) = (|| Act::ReadHead, || Act::ReadBody);
    let send = |text: &str| Act::Send(text.as_bytes().to_vec());
    let rest = format!("content-length: {}\r\n\r\n", good_body().len());
    let table = [
        ("silence", vec![Act::Hang]),
        ("silence after the request", vec![head(), body(), Act::Hang]),
        ("slow headers", vec![head(), body(), Act::Drip(json(&good_body()), pause)]),
        (
            "a slow body",
            vec![head(), body(), send(open), send(&rest), Act::Drip(good_body().into_bytes(), pause)],
        ),
        ("half a body", vec![head(), body(), send(open), send(&rest), send("{\"res"), Act::Hang]),
    ];
    for (name, script) in table {
        check(name, script, TimedOut).await;
    }
}

#[tokio::test]
async fn a_refusal_outlives_its_explanation() {
    // The head says 429; its body never ends.
    let script = vec![
        Act::ReadHead,
        Act::ReadBody,
        Act::Send(b"HTTP/1.1 429 X\r\nretry-after: 2\r\ncontent-length: 9\r\n\r\n{".to_vec()),
        Act::Hang,
    ];
    let server = Scripted::start(script).await;
    let got = server.wallet().transfer(batch(&IDS), SHORT).await;
    matches_expectation("429 that hangs", got, &Overloaded(Some(2)));
}

#[tokio::test]
async fn no_connection_is_unknown_and_says_why() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let table = [
        (format!("http://{address}"), "Connection refused"),
        ("http://wallet.invalid".to_owned(), "dns error"),
    ];
    for (url, reason) in table {
        let options = HttpOptions { url: url.clone(), connections_max: 1, ..HttpOptions::default() };
        let got = HttpWallet::new(&options).unwrap().transfer(batch(&IDS), DEADLINE).await;
        matches_expectation(&url, got, &Unknown(reason));
    }
}

async fn burn(body: &str) -> Result<Vec<Answer>, CallError> {
    let server = Scripted::start(says(json(body))).await;
    server.wallet().burn(vec!["shop:1".to_owned()], DEADLINE).await
}

#[tokio::test]
async fn a_burn_tells_what_was_recorded_before() {
    let table = [
        (r#""status":"burned""#, Failed(PayoutCode::Burned)),
        (r#""status":"burned","code":"burned""#, Failed(PayoutCode::Burned)),
        (r#""status":"failed","code":"burned""#, Failed(PayoutCode::Burned)),
        (r#""status":"succeeded""#, DONE),
        (r#""status":"failed","code":"payee_frozen""#, Failed(PayoutCode::PayeeFrozen)),
        (r#""status":"unknown""#, OPEN),
        (r#""status":"burned","code":"payee_frozen""#, OPEN),
        (r#""status":"failed","code":"low_balance""#, OPEN),
        (r#""status":"failed","code":"wallet_overloaded""#, OPEN),
        (r#""status":"failed","code":"id_conflict""#, OPEN),
        (r#""status":"failed","code":"crash_suspect""#, OPEN),
        (r#""status":"not_found""#, OPEN),
    ];
    for (rest, expect) in table {
        let got = burn(&format!(r#"{{"results":[{}]}}"#, item("shop:1", rest))).await.unwrap();
        assert_eq!(got.iter().map(|answer| answer.status).collect::<Vec<_>>(), [expect], "{rest}");
    }
    assert!(matches!(burn(r#"{"results":[]}"#).await, Err(CallError::Unknown(_))));
}

#[tokio::test]
async fn a_lookup_tells_what_is_on_record() {
    let found = |status, wallet_ref: &str, amount| {
        Some(OnRecord { answer: Answer { status, wallet_ref: wallet_ref.to_owned() }, amount })
    };
    let table = [
        (r#""status":"not_found""#, None),
        (r#""status":"succeeded","wallet_ref":"w","amount":188"#, found(DONE, "w", Some(188))),
        (r#""status":"failed","code":"burned""#, found(Failed(PayoutCode::Burned), "", None)),
        (r#""status":"unknown""#, found(OPEN, "", None)),
        (r#""status":"not_found","amount":188"#, found(OPEN, "", Some(188))),
        (r#""status":"not_found","code":"burned""#, found(OPEN, "", None)),
        (r#""status":"failed","code":"low_balance""#, found(OPEN, "", None)),
        (r#""status":"burned""#, found(OPEN, "", None)),
    ];
    for (rest, expect) in table {
        let body = format!(r#"{{"results":[{}]}}"#, item("shop:1", rest));
        let server = Scripted::start(says(json(&body))).await;
        let got = server.wallet().lookup(vec!["shop:1".to_owned()], DEADLINE).await.unwrap();
        assert_eq!(got, [expect], "{rest}");
    }
}

#[tokio::test]
async fn a_wallet_is_a_uuid_or_no_wallet() {
    let uuid = "0197f3c2-5a7e-7b11-9d1c-0a4b5c6d7e8f";
    let table = [
        (json(&format!(r#"{{"identity":"{uuid}"}}"#)), Ok(uuid)),
        (json(&format!(r#"{{"identity":"{}","more":1}}"#, uuid.to_uppercase())), Ok(uuid)),
        (json(r#"{"identity":"wallet-1"}"#), Err("Rejected")),
        (json(r#"{"identity":"00000000-0000-0000-0000-000000000000"}"#), Err("Rejected")),
        (json(r#"{"identity":7}"#), Err("Rejected")),
        (json("{}"), Err("Rejected")),
        (reply("404 Not Found", &[], ""), Err("Rejected")),
        (reply("401 Unauthorized", &[], ""), Err("Unauthorized")),
        (reply("500 X", &[], ""), Err("Unknown")),
    ];
    for (bytes, expect) in table {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let server = Scripted::start(says(bytes)).await;
        match (server.wallet().identity().await, expect) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{shown}"),
            (Err(got), Err(kind)) => assert!(format!("{got:?}").starts_with(kind), "{shown}: {got:?}"),
            (got, _) => panic!("{shown}: expected {expect:?}, got {got:?}"),
        }
    }
}

#[tokio::test]
async fn a_reference_is_cut_at_a_character() {
    let long = format!("a{}", "福".repeat(30));
    let table =
        [("w-1", "w-1".to_owned()), (r"a\u0000b\nc\u009f", "abc".to_owned()), (&long, long[..64].to_owned())];
    for (sent, kept) in table {
        let rest = format!(r#""status":"succeeded","wallet_ref":"{sent}""#);
        let server = Scripted::start(says(second_says(&rest))).await;
        let got = server.wallet().transfer(batch(&IDS), DEADLINE).await.unwrap();
        assert_eq!((got[0].wallet_ref.as_str(), &got[1].wallet_ref), ("", &kept));
    }
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
    let wait = |value: &str, date: Option<&str>| {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("retry-after", value.parse().unwrap());
        if let Some(date) = date {
            headers.insert("date", date.parse().unwrap());
        }
        refusal::retry_after(&headers, now).map(|wait| wait.as_secs())
    };
    let table = [
        ("0", None, Some(0)),
        ("3", None, Some(3)),
        ("61", None, Some(60)),
        ("99999999999999999999999", None, Some(60)),
        ("-1", None, None),
        ("1.5", None, None),
        ("", None, None),
        ("Sun, 06 Nov 1994 08:49:40 GMT", None, Some(3)),
        ("Sun, 06 Nov 1994 08:49:30 GMT", None, Some(0)),
        ("Sun, 06 Nov 1994 09:49:37 GMT", None, Some(60)),
        // The wallet's clock is an hour behind ours: its own date counts.
        ("Sun, 06 Nov 1994 07:49:42 GMT", Some("Sun, 06 Nov 1994 07:49:37 GMT"), Some(5)),
    ];
    for (value, date, expect) in table {
        assert_eq!(wait(value, date), expect, "{value} {date:?}");
    }
}
