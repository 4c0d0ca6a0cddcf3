//! `hongbao fleet` against a real Redis: what it shows, what it exits with, and changing the wallet.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::instance::{Instance, Setup, UNIT_COUNT, keys, units};
use crate::server::Server;
use crate::support::{PATIENCE, await_until};

fn fleet(server: &Server, args: &[&str]) -> (Option<i32>, String, String) {
    let url = server.target().url;
    let mut command = Command::new(env!("CARGO_BIN_EXE_hongbao"));
    command.arg("fleet").args(args).args([
        "--set",
        &format!("intake.redis.url={url}"),
        "--set",
        "intake.redis.namespace=t",
    ]);
    let Output { status, stdout, stderr } = command.output().expect("the command runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

fn picture(server: &Server) -> (Option<i32>, Value) {
    let (code, out, err) = fleet(server, &["--json"]);
    (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out} {err}")))
}

#[test]
fn a_fleet_is_shown_and_its_wallet_changed() {
    let server = Server::start();
    let (code, _, err) = fleet(&server, &[]);
    assert!(code == Some(2) && err.contains("t:board:shards") && err.contains("no fleet"), "{err}");

    let first = "11111111-2222-4333-8444-555555555555";
    let mut one = Instance::of(&server, "one", Setup { wallet: Some(first), ..Setup::default() }).unwrap();
    await_until("one to hold all", PATIENCE, || (one.held.count() == usize::from(UNIT_COUNT)).then_some(()));
    let unit = units().ids().nth(1).unwrap();
    let queue = keys().queues(unit)[3];
    let [a, _] = keys().sealed(unit, queue);
    server.ask(&["RPUSH", &keys().list(unit, queue), "x", "y"]);
    server.ask(&["RPUSH", &a, "z"]);
    server.ask(&["ZADD", &keys().parked(unit), "1700000000000", "m"]);
    server.ask(&["SET", &keys().dead(unit), "no list"]);
    let (code, seen) = await_until("the heartbeat with the units", PATIENCE, || {
        let (code, seen) = picture(&server);
        (seen["instances"][0]["units"].as_array().map(Vec::len) == Some(usize::from(UNIT_COUNT)))
            .then_some((code, seen))
    });
    assert_eq!(code, Some(1), "a key of another type needs a hand");
    assert_eq!((&seen["shards"], &seen["wallet"]["identity"]), (&json!(UNIT_COUNT), &json!(first)));
    let row = &seen["units"][1];
    assert_eq!(
        (&row["depth"], &row["parked"], &row["owner"]),
        (&json!(3), &json!(1), &json!("one")),
        "{row}"
    );
    assert_eq!(row["parked_due_at"], json!(1_700_000_000_000u64));
    assert!(row["error"].as_str().unwrap().contains("WRONGTYPE"), "{row}");
    server.ask(&["DEL", &keys().dead(unit)]);
    let (code, out, _) = fleet(&server, &[]);
    assert!(code == Some(0) && out.contains("INSTANCE") && out.contains(first), "{out}");

    let second = "99999999-2222-4333-8444-555555555555";
    let (code, _, err) = fleet(&server, &["wallet", "set", "no-uuid", "--reason", "x"]);
    assert!(code == Some(2) && err.contains("no-uuid"), "{err}");
    let (code, _, err) = fleet(&server, &["wallet", "set", second, "--reason", " "]);
    assert!(code == Some(2) && err.contains("--reason"), "{err}");
    let (code, out, err) = fleet(&server, &["wallet", "set", second, "--reason", "moved house"]);
    assert!(code == Some(0) && out.contains(first) && out.contains(second), "{out} {err}");
    await_until("the instance to say so", PATIENCE, || (one.held.count() == 0).then_some(()));
    let out = await_until("the board to say so", PATIENCE, || {
        let (code, out, _) = fleet(&server, &[]);
        (code == Some(1) && out.contains("one owns nothing")).then_some(out)
    });
    assert!(out.contains("moved house") && out.contains("has no owner"), "{out}");
    one.stop(PATIENCE);
    assert_eq!(picture(&server).1["instances"], json!([]));
}

#[test]
fn readers_are_named_and_forgotten() {
    let server = Server::start();
    let noted =
        ["view-old|t:0", "5-0|1700000000000", "view-old|t:1", "5-0|1700000000000", "view|t:0", "6-0|17"];
    server.ask(&[&["HSET", "t:board:readers"][..], &noted].concat());
    let (code, out, _) = fleet(&server, &["forget"]);
    assert_eq!((code, out.lines().count()), (Some(0), 2), "{out}");
    assert!(out.contains("view-old  seen ") && out.contains(" ago"), "{out}");
    let (code, out, error) = fleet(&server, &["forget", "view-old"]);
    assert!(code == Some(0) && out.contains("view-old is forgotten"), "{out}{error}");
    assert_eq!(server.ask(&["HLEN", "t:board:readers"]), hongbao::redis::Value::Int(1));
    let (code, _, error) = fleet(&server, &["forget", "view-old"]);
    assert!(code != Some(0) && error.contains("there is no reader \"view-old\""), "{error}");
}
