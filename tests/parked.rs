//! What waits in the parking of the real service: a starved campaign stops only its own queue; what waits is listed,
//! released, expires in time, and is the same after a restart.

mod support;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hongbao::domain::Lane;
use hongbao::intake::QueueId;
use serde_json::{Value, json};
use support::{PATIENCE, Said, Server, Setup, await_until, hongbao};

/// Nothing that waits is tried again on its own while a test runs.
const NEVER: &str = "3600000";

fn setup(folder: &tempfile::TempDir) -> Setup {
    let setup = Setup::new(&folder.path().join("data"));
    setup.set(&format!("parking.retry_ms={NEVER}")).set(&format!("parking.retry_ms_max={NEVER}"))
}

fn fair(campaign: &str) -> u8 {
    QueueId::of(Lane::Realtime, campaign, 8).fair
}

/// A campaign's name that is hashed to this fair queue.
fn campaign_in(wanted: u8) -> String {
    (0..).map(|n| format!("c{n}")).find(|name| fair(name) == wanted).expect("every queue has names")
}

fn pay(server: &Server, campaign: &str, ids: std::ops::Range<u64>) {
    let count = ids.end - ids.start;
    let items: Vec<Value> =
        ids.map(|n| json!({"id": format!("{campaign}-{n}"), "payee": "ann", "amount": 1})).collect();
    let batch = json!({"id": format!("b-{}", items[0]["id"].as_str().unwrap()), "campaign": campaign,
        "currency": "CNY", "total_count": count, "total_amount": count, "items": items});
    server.must("POST /v1/batches", &batch.to_string(), 202);
}

fn fund(server: &Server, campaign: &str, amount: u64) {
    let body = json!({"id": format!("more-{campaign}"), "amount": amount}).to_string();
    server.must(&format!("POST /v1/campaigns/{campaign}/fund"), &body, 200);
}

fn ready(server: &Server, fact: &str) -> u64 {
    server.must("GET /readyz", "", 200)[fact].as_str().unwrap().parse().unwrap()
}

fn await_parked(server: &Server, count: u64) {
    await_until(&format!("{count} to be parked"), PATIENCE, || {
        (ready(server, "parked") == count && ready(server, "backlog") == 0).then_some(())
    });
}

fn list(server: &Server, query: &str) -> Value {
    server.must(&format!("GET /v1/parked{query}"), "", 200)
}

fn ids(page: &Value) -> Vec<&str> {
    page["data"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect()
}

fn release(server: &Server, body: Value) -> u64 {
    server.must("POST /v1/parked/release", &body.to_string(), 200)["released"].as_u64().unwrap()
}

fn attempts(server: &Server, id: &str) -> u64 {
    server.must(&format!("GET /v1/disbursements/{id}"), "", 200)["attempts"].as_u64().unwrap()
}

fn await_attempts(server: &Server, id: &str, count: u64) {
    await_until(&format!("{id} to be tried {count} times"), PATIENCE, || {
        (attempts(server, id) >= count).then_some(())
    });
}

#[test]
fn a_starved_campaign_stops_only_its_own_queue() {
    let folder = tempfile::tempdir().unwrap();
    let setup = setup(&folder).set("pipeline.ring_slot_count=64").set("parking.count_max=200");
    let mut server = setup.start();
    let [poor, poorer, rich] = [0, 1, 2].map(campaign_in);
    server.campaign(&poor, 10_000, 0);
    server.campaign(&poorer, 10_000, 0);
    server.campaign(&rich, 10_000, 1_000);
    pay(&server, &poor, 0..500);
    let is_full = |server: &Server, fair: u8| {
        let metrics = server.call("GET /metrics", "").text;
        metrics.contains(&format!("hongbao_parking_full{{lane=\"realtime\",fair=\"{fair}\"}} 1"))
    };
    let stopped = |server: &Server, fair: u8| {
        await_until("the queue to be stopped", PATIENCE, || is_full(server, fair).then_some(()));
    };
    stopped(&server, 0);
    pay(&server, &poorer, 0..500);
    stopped(&server, 1);
    // Once more after a restart: the parking knows what each queue holds.
    let before = await_until("what is under way to be parked", PATIENCE, || {
        let (count, page) = (ready(&server, "parked"), list(&server, "?limit=1000"));
        let metrics = server.call("GET /metrics", "").text;
        (metrics.contains("hongbao_ring_slots_used 0") && ids(&page).len() as u64 == count).then_some(count)
    });
    server.kill();
    server = setup.start();
    for fair in [0, 1] {
        stopped(&server, fair);
    }
    assert!(!is_full(&server, 2) && ready(&server, "parking_full_queues") == 2);
    let after = ready(&server, "parked");
    // A queue that fills up may have a ring's worth under way.
    assert!(after >= before && after <= 200 + 64, "{before} {after}");
    // One that holds nothing is paid at once, now and behind others of its own.
    let began = Instant::now();
    pay(&server, &rich, 0..200);
    server.await_status(&format!("{rich}-199"), "SUCCEEDED");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(ready(&server, "backlog"), 1_000 - ready(&server, "parked"), "the rest waits in its queues");
    // What would have to park where there is no room is refused at the door.
    let later = in_ms(3_600_000);
    let early = |campaign: &str| {
        json!({"id": format!("early-{campaign}"), "campaign": campaign, "payee": "ann", "amount": 1,
            "currency": "CNY", "not_before": later})
        .to_string()
    };
    server.must("POST /v1/disbursements", &early(&poor), 429);
    server.must("POST /v1/disbursements", &early(&rich), 202);
    // Money for one lets its queue go on, and only its own.
    fund(&server, &poor, 500);
    server.await_status(&format!("{poor}-499"), "SUCCEEDED");
    let standing = server.must(&format!("GET /v1/campaigns/{poor}"), "", 200);
    assert_eq!(standing["spent"], 500, "{standing}");
    assert!(is_full(&server, 1) || ready(&server, "backlog") == 0);
    fund(&server, &poorer, 500);
    await_parked(&server, 1);
    assert_eq!(ready(&server, "parking_full_queues"), 0);
    assert_eq!(server.must(&format!("GET /v1/campaigns/{poorer}"), "", 200)["spent"], 500);
}

#[test]
fn what_waits_is_listed_and_released() {
    let folder = tempfile::tempdir().unwrap();
    let server = setup(&folder).start();
    server.campaign("a", 1_000, 0);
    server.campaign("b", 1_000, 0);
    pay(&server, "a", 0..30);
    await_parked(&server, 30);
    pay(&server, "b", 0..10);
    await_parked(&server, 40);
    let whole = list(&server, "");
    assert_eq!((ids(&whole).len(), &whole["counts"]), (40, &json!({"low_balance": 40})));
    let first = &whole["data"][0];
    assert_eq!((&first["status"], &first["reason"]), (&json!("QUEUED"), &json!("low_balance")));
    assert!(first["next_attempt_at"].is_string() && first["waiting_since"].is_string(), "{first}");
    assert_eq!(ids(&list(&server, "?campaign=b")).len(), 10);
    assert_eq!(list(&server, "?reason=not_due")["counts"], json!({}));
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = list(&server, &format!("?campaign=a&limit=7{cursor}"));
        seen.extend(ids(&page).iter().map(|id| (*id).to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        assert_eq!(page["has_more"], true);
        server.must(&format!("GET /v1/parked?campaign=b&cursor={next}"), "", 422);
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, (0..30).map(|n| format!("a-{n}")).collect::<Vec<_>>(), "oldest first");

    // By id: that one, and nothing else; one that is not parked is no error.
    assert_eq!(release(&server, json!({"ids": ["a-3", "a-3", "nobody", "fund-a"]})), 1);
    await_attempts(&server, "a-3", 2);
    await_parked(&server, 40);
    assert_eq!(release(&server, json!({"ids": ["a-3"], "campaign": "b"})), 0, "all that is given must hold");
    assert_eq!(release(&server, json!({"campaign": "b"})), 10);
    await_attempts(&server, "b-9", 2);
    await_parked(&server, 40);
    assert_eq!(attempts(&server, "a-4"), 1);
    assert_eq!(release(&server, json!({"reason": "not_due"})), 0);
    assert_eq!(release(&server, json!({"reason": "low_balance"})), 40);
    await_attempts(&server, "a-29", 2);
    await_attempts(&server, "b-0", 3);
    await_parked(&server, 40);
    assert_eq!(ids(&list(&server, "?limit=1"))[0], "a-0", "since it was parked first");
    // By money.
    fund(&server, "a", 30);
    server.await_status("a-29", "SUCCEEDED");
    await_parked(&server, 10);
    let metrics = server.call("GET /metrics", "").text;
    assert!(metrics.contains("hongbao_parked{reason=\"low_balance\"} 10"), "{metrics}");
}

/// RFC 3339 so many milliseconds from now, on today's date or the next.
fn in_ms(ms: u64) -> String {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64 + ms;
    String::from_utf8(hongbao::request::rfc3339::Rfc3339(at).text().to_vec()).unwrap()
}

#[test]
fn what_waits_for_money_expires_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let server = setup(&folder).start();
    server.campaign("c", 1_000, 0);
    let not_after = in_ms(1_500);
    let body = json!({"id": "late", "campaign": "c", "payee": "ann", "amount": 1, "currency": "CNY",
        "not_after": not_after});
    server.must("POST /v1/disbursements", &body.to_string(), 202);
    let waiting = await_until("it to wait", PATIENCE, || {
        let standing = server.must("GET /v1/disbursements/late", "", 200);
        (standing["reason"] == "low_balance").then_some(standing)
    });
    assert!(waiting["next_attempt_at"].as_str() > Some(&not_after), "{waiting} {not_after}");
    let began = Instant::now();
    server.await_status("late", "EXPIRED");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    await_parked(&server, 0);
}

#[test]
fn a_client_sees_and_releases_only_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let setup = setup(&folder).set("gateway.clients.shop=secret-of-the-shop");
    let server = setup.set("gateway.clients.mall=secret-of-the-mall").start();
    let with = |key: &str, what: &str| format!("{what}\nAuthorization: Bearer {key}");
    for (key, count) in [("secret-of-the-shop", 3), ("secret-of-the-mall", 5)] {
        server.must(&with(key, "PUT /v1/campaigns/c"), r#"{"budget":100,"currency":"CNY"}"#, 200);
        for n in 0..count {
            let body = json!({"id": format!("r-{n}"), "campaign": "c", "payee": "ann", "amount": 1,
                "currency": "CNY"});
            server.must(&with(key, "POST /v1/disbursements"), &body.to_string(), 202);
        }
    }
    await_parked(&server, 8);
    let page = server.must(&with("secret-of-the-shop", "GET /v1/parked"), "", 200);
    assert_eq!((ids(&page), &page["counts"]["low_balance"]), (vec!["r-0", "r-1", "r-2"], &json!(3)));
    let call = with("secret-of-the-mall", "POST /v1/parked/release");
    let released = server.must(&call, r#"{"reason":"low_balance"}"#, 200);
    assert_eq!(released["released"], 5);
    server.must("GET /v1/parked", "", 401);
}

fn parked_command(server: &Server, args: &[&str]) -> Said {
    let mut command = hongbao();
    command.arg("parked").args(args).args(["--url", &format!("http://{}", server.address)]);
    let output = command.output().expect("the binary runs");
    Said {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn by_the_command_and_across_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let setup = setup(&folder);
    let mut server = setup.start();
    server.campaign("c", 10_000, 0);
    pay(&server, "c", 0..1_200);
    await_parked(&server, 1_200);
    let before = list(&server, "?limit=1000");
    server.kill();
    server = setup.start();
    assert_eq!(list(&server, "?limit=1000")["data"], before["data"], "after a kill");
    server.end_well();
    server = setup.start();
    assert_eq!(list(&server, "?limit=1000")["data"], before["data"], "after a stop");

    let said = parked_command(&server, &["list", "--limit", "2"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let words = ["ID", "c-0 ", "low_balance", "c-1 ", "1200 wait: low_balance 1200", "--limit shows more"];
    assert!(words.iter().all(|word| said.out.contains(word)) && !said.out.contains("c-2 "), "{}", said.out);
    let said = parked_command(&server, &["list", "--json", "--limit", "1100", "--campaign", "c"]);
    let page: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((ids(&page).len(), &page["has_more"]), (1_100, &json!(true)));
    let table: [(&[&str], i32, &str); 7] = [
        (&["list", "--reason", "not_due"], 0, "nothing waits"),
        (&["list", "--reason", "low_balanse"], 2, "did you mean \"low_balance\"?"),
        (&["release", "--id", "c-5", "--id", "nobody"], 0, "released 1"),
        (&["release", "--reason", "campaign_paused"], 0, "released 0"),
        (&["release", "--campaign", "c", "--reason", "low_balance"], 0, "released 1"),
        (&["release"], 2, "required"),
        (&["release", "--all", "--id", "c-1"], 2, "cannot be used"),
    ];
    for (args, code, expected) in table {
        let said = parked_command(&server, args);
        assert_eq!(said.code, Some(code), "{args:?} {said:?}");
        assert!(said.out.contains(expected) || said.err.contains(expected), "{args:?} {said:?}");
    }
    await_attempts(&server, "c-1199", 2);
    let said = parked_command(&server, &["release", "--all"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "released 1200\n"), "{said:?}");
    await_attempts(&server, "c-1199", 3);
    fund(&server, "c", 1_200);
    await_parked(&server, 0);
    assert_eq!(server.must("GET /v1/campaigns/c", "", 200)["spent"], 1_200);
    let said = support::run(&["parked", "list", "--url", "http://127.0.0.1:1"]);
    assert!(said.code == Some(2) && said.err.contains("is it running?"), "{said:?}");
}
