//! The race that pays twice: an owner dispatches and freezes, another takes over and sees the request expired (or
//! canceled), and the first one's transfer lands late. The request must end SUCCEEDED or burned at the wallet, never
//! EXPIRED (or CANCELED) and paid.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::Scene;
use crate::support::proxy::FaultProxy;
use crate::support::{PATIENCE, await_until, call};

fn balance(scene: &Scene, account: &str) -> Value {
    scene.wallet().must(&format!("GET /balances?account={account}"), "", 200)["accounts"][0]["balance"]
        .clone()
}

fn in_two_seconds() -> String {
    let at = SystemTime::now() + Duration::from_secs(2);
    let ms = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
    hongbao::request::rfc3339::Rfc3339(ms).to_string()
}

/// The first owner sends through a proxy that holds what it sends, and is frozen; the second one goes on from a copy of
/// its data, without the proxy. `lands_first`: whether the held transfer arrives before or after the second one has
/// decided. In the end the first one wakes up.
fn take_over(lands_first: bool, cancels: bool) {
    let mut proxy = None;
    let mut scene =
        Scene::start(&[], &["stored_value.deadline_ms=60000", "shaping.transfers_per_s=500"], |wallet| {
            let started = FaultProxy::start(wallet.parse().unwrap());
            let address = started.address().to_string();
            proxy = Some(started);
            address
        });
    let proxy = proxy.unwrap();
    proxy.pause();
    let mut body = json!({"id": "r", "campaign": "k", "payee": "ann", "amount": 7, "currency": "CNY"});
    if !cancels {
        body["not_after"] = json!(in_two_seconds());
    }
    let before = scene.received()["transfers"].as_u64().unwrap();
    scene.service().must("POST /v1/disbursements", &body.to_string(), 202);
    await_until("the transfer to be held on its way", PATIENCE, || {
        (crate::metric(scene.service(), "hongbao_wallet_calls_under_way") > 0.0).then_some(())
    });
    // It waits before the proxy, or in its hands, where nothing shows it: there a second must do.
    let since = Instant::now();
    await_until("the transfer to be sent", PATIENCE, || {
        (has_unread(proxy.address().port()) || since.elapsed() > Duration::from_secs(1)).then_some(())
    });
    let first = scene.service.take().unwrap();
    first.signal(rustix::process::Signal::STOP);
    assert_eq!(scene.received()["transfers"], before, "it has not arrived");
    let direct = format!("stored_value.http.url=http://{}", scene.wallet().address);
    if lands_first {
        proxy.resume();
        await_until("the late transfer to land", PATIENCE, || {
            (balance(&scene, "person:ann") == 7).then_some(())
        });
    }
    let mut setup = scene.setup.clone().set(&direct);
    setup.data = scene.setup.data.with_file_name("second");
    copy(&scene.setup.data, &setup.data);
    if !cancels {
        std::thread::sleep(Duration::from_millis(2_100));
    }
    scene.service = Some(setup.start());
    if cancels && !lands_first {
        // It may have been paid by the second owner itself before the cancel came, or be under way: either is well.
        let answer = scene.service().call("POST /v1/disbursements/r/cancel", "{}");
        assert!([200, 202, 409].contains(&answer.code), "{}", answer.text);
    }
    let last = await_until("the request to be final", PATIENCE, || {
        let body = call(&scene.service().address, "GET /v1/disbursements/r", "").ok()?.body;
        (body["final"] == true).then_some(body)
    });
    proxy.resume();
    // The late one has landed when the wallet has seen it.
    await_until("the first owner's transfer to land", PATIENCE, || {
        (scene.received()["transfers"].as_u64().unwrap() > before).then_some(())
    });
    let paid = balance(&scene, "person:ann");
    match last["status"].as_str().unwrap() {
        "SUCCEEDED" => assert_eq!(paid, 7, "{last}"),
        "EXPIRED" | "CANCELED" => {
            let looked = scene.wallet().must("POST /v1/transfers/lookup", r#"{"ids":["default:r"]}"#, 200);
            assert_eq!(looked["results"][0]["code"], "burned", "{looked}");
            assert!(paid.is_null() || paid == 0, "{last} and paid {paid}");
            assert!(!lands_first, "it had been paid: {last}");
        }
        other => panic!("{other}: {last}"),
    }
    // The first owner wakes up, and comes to something that agrees.
    first.signal(rustix::process::Signal::CONT);
    let woken = await_until("the first owner to settle it too", PATIENCE, || {
        let body = call(&first.address, "GET /v1/disbursements/r", "").ok()?.body;
        (body["final"] == true).then_some(body)
    });
    assert_eq!(woken["status"] == "SUCCEEDED", paid == 7, "{woken} and paid {paid}");
    first.end_well();
    scene.service.take().unwrap().end_well();
}

/// Whether bytes wait to be read on a connection to this local port, by the kernel's table.
fn has_unread(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields[1].rsplit(':').next().and_then(|hex| u16::from_str_radix(hex, 16).ok());
        let unread = fields[4].rsplit(':').next().and_then(|hex| u64::from_str_radix(hex, 16).ok());
        // Established; a listening socket counts what waits to be accepted there.
        fields[3] == "01" && local == Some(port) && unread.is_some_and(|unread| unread > 0)
    })
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn expired_then_the_late_transfer_lands() {
    take_over(false, false);
}

#[test]
fn the_late_transfer_lands_then_it_expires() {
    take_over(true, false);
}

#[test]
fn canceled_while_the_late_transfer_is_on_its_way() {
    take_over(false, true);
}
