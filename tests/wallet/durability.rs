//! What was answered is so after a kill and after an orderly stop.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::support::{PATIENCE, audit, await_until, call};
use crate::{balance, batch, look_up, pay, results, start, transfer, try_start};

#[test]
fn what_was_answered_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("w");
    let mut acknowledged: Vec<String> = Vec::new();
    let mut identity = None;
    for round in 0..3 {
        let server = start(&data, &[]);
        let name = server.must("GET /v1/identity", "", 200)["identity"].clone();
        assert_eq!(*identity.get_or_insert(name.clone()), name);
        for id in &acknowledged {
            assert_eq!(look_up(&server, &[id]), ["succeeded"], "{id} was answered and is gone");
        }
        assert_eq!(balance(&server, "person:a").0, acknowledged.len() as i64, "paid once each");

        let done = Mutex::new(Vec::new());
        let stop = AtomicBool::new(false);
        let address = server.address.clone();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (done, stop, address) = (&done, &stop, &address);
                scope.spawn(move || {
                    for n in 0.. {
                        let id = format!("s:{round}-{thread}-{n}");
                        let body = batch(10_000, &[transfer(&id, "funding:s", "person:a", 1)]);
                        match call(address, "POST /v1/transfers", &body) {
                            Ok(reply) if results(&reply.body) == ["succeeded"] => {
                                done.lock().unwrap().push(id);
                            }
                            _ => break,
                        }
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                });
            }
            await_until("payments", PATIENCE, || (done.lock().unwrap().len() >= 40).then_some(()));
            server.kill();
            stop.store(true, Ordering::Relaxed);
        });
        let mut done = done.into_inner().unwrap();
        acknowledged.append(&mut done);
        // One that was on its way may have been paid without an answer: now it gets one, by the same id.
        let server = start(&data, &[]);
        for thread in 0..4 {
            for n in 0.. {
                let id = format!("s:{round}-{thread}-{n}");
                match look_up(&server, &[&id])[0].as_str() {
                    "succeeded" if !acknowledged.contains(&id) => acknowledged.push(id),
                    "succeeded" => {}
                    _ => break,
                }
            }
        }
        server.end_well();
    }
}

#[test]
fn holds_expire_over_a_restart_and_the_snapshot_holds_everything() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("w");
    let server = start(&data, &[]);
    let hold = |id: &str, seconds: u64| {
        let mut hold = transfer(id, "campaign:s:c", "person:b", 10);
        (hold["kind"], hold["expires_in_s"]) = ("hold".into(), seconds.into());
        hold
    };
    let setup = [transfer("s:f", "funding:s", "campaign:s:c", 100), hold("s:h1", 1), hold("s:h2", 4)];
    assert_eq!(pay(&server, &setup), ["succeeded"; 3]);
    server.must("POST /v1/transfers/burn", r#"{"ids":["s:b"]}"#, 200);
    let second = try_start(&data, &[]).map(|_| ()).unwrap_err();
    assert!(second.err.contains("in use by process"), "{second:?}");
    server.kill();

    let server = start(&data, &[]);
    await_until("the short hold to end", PATIENCE, || {
        (balance(&server, "campaign:s:c") == (100, 10)).then_some(())
    });
    server.end_well();

    // From the snapshot of the stop.
    let server = start(&data, &[]);
    assert_eq!(look_up(&server, &["s:f", "s:h1", "s:b"]), ["succeeded", "succeeded", "failed burned"]);
    assert_eq!(pay(&server, &setup), ["succeeded"; 3], "repeats change nothing");
    let post = json!({"id": "s:p", "kind": "post", "of": "s:h1", "amount": 10, "currency": "CNY"});
    assert_eq!(pay(&server, &[post]), ["failed wallet_refused"]);
    await_until("the long hold to end", PATIENCE, || {
        (balance(&server, "campaign:s:c") == (100, 0)).then_some(())
    });
    server.kill();
    let (code, report, err) = audit(&data, None, false);
    assert_eq!((code, &report["books_balanced"]), (Some(0), &json!(true)), "{report:#} {err}");
}
