//! The example of a campaign's backend, as users, a bad network and SIGKILL find it: every claim is paid once.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use support::proxy::FaultProxy;
use support::{PATIENCE, Reply, Server, Setup, await_until, call};

const USERS: u32 = 40;
const TOTAL: u64 = 4_000;

/// The example beside the binary under test; built if it is not there (`cargo test` has built it).
fn program() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_hongbao")).with_file_name("examples").join("campaign_backend");
    if !path.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo).args(["build", "--locked", "--example", "campaign_backend"]).status();
        assert!(built.is_ok_and(|status| status.success()), "the example could not be built");
    }
    path
}

fn start(folder: &Path, proxy: &FaultProxy) -> Server {
    let mut command = Command::new(program());
    command.args(["--hongbao", &format!("http://{}", proxy.address()), "--listen", "127.0.0.1:0"]);
    command.args(["--budget", "1000000", "--data"]).arg(folder.join("campaign.db"));
    Server::listening(command, folder).unwrap_or_else(|said| panic!("the backend did not start: {said:?}"))
}

/// As a user's telephone does it: again, until there is an answer.
fn claim(address: &str, user: &str) -> Reply {
    let body = json!({ "user": user }).to_string();
    await_until("an answer to a claim", PATIENCE, || {
        let reply = call(address, "POST /packets/gala/claims", &body).ok()?;
        (reply.code < 500).then_some(reply)
    })
}

/// Users who all shake their telephones at once; payout and amount of each.
fn all_claim(address: &str, users: std::ops::Range<u32>) -> Vec<Value> {
    let next = AtomicU32::new(users.start);
    let claiming = || {
        let mut claims = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= users.end {
                return claims;
            }
            let reply = claim(address, &format!("user-{number}"));
            assert_eq!(reply.code, 202, "{}", reply.text);
            assert_eq!(reply.body["status"], "CLAIMED");
            claims.push(reply.body);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(claiming)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    })
}

fn listed(hongbao: &Server) -> Vec<Value> {
    let page = hongbao.must("GET /v1/disbursements?campaign=red-packets&limit=1000", "", 200);
    page["data"].as_array().expect("a list").clone()
}

#[test]
fn every_claim_is_paid_once_whatever_is_lost_or_killed() {
    let folder = tempfile::tempdir().unwrap();
    let hongbao = Setup::new(&folder.path().join("data")).start();
    let proxy = FaultProxy::start(hongbao.address.parse().unwrap());
    let backend = start(folder.path(), &proxy);
    let packet = json!({ "total": TOTAL, "count": USERS }).to_string();
    assert_eq!(backend.call("PUT /packets/gala", &packet).code, 201);
    assert_eq!(backend.call("PUT /packets/gala", &packet).code, 200, "the same again is the same");
    assert_eq!(backend.call("PUT /packets/gala", r#"{"total":4001,"count":40}"#).code, 409);
    assert_eq!(
        backend.call("PUT /packets/other", r#"{"total":996001,"count":1}"#).code,
        409,
        "past the budget"
    );

    // hongbao takes payouts in, the backend never hears of it, and dies.
    proxy.swallow_replies(true);
    let mut claims = all_claim(&backend.address, 0..USERS / 2);
    await_until("payouts to reach hongbao", PATIENCE, || (!listed(&hongbao).is_empty()).then_some(()));
    backend.kill();
    proxy.swallow_replies(false);
    proxy.swallow_replies(false);
    proxy.drop_replies(0.3, 7);
    let lost_before = proxy.counts().replies_dropped;

    let backend = start(folder.path(), &proxy);
    proxy.drop_next_reply();
    claims.extend(all_claim(&backend.address, USERS / 2..USERS));
    assert_eq!(claim(&backend.address, "too-late").code, 410);
    for number in 0..USERS {
        let path = format!("GET /packets/gala/claims/user-{number}");
        await_until(&format!("user-{number} to be paid"), PATIENCE, || {
            (backend.call(&path, "").body["status"] == "SUCCEEDED").then_some(())
        });
        // Whoever asks again is told of the same payout, and gets no other.
        let again = claim(&backend.address, &format!("user-{number}"));
        let same = claims.iter().find(|claim| claim["payout"] == again.body["payout"]);
        assert_eq!((again.code, same.map(|claim| &claim["amount"])), (200, Some(&again.body["amount"])));
    }
    assert!(proxy.counts().replies_dropped > lost_before, "nothing was lost on the way");

    // hongbao paid these ids, these amounts and nothing else: the packet's total, to the cent.
    let paid = listed(&hongbao);
    assert_eq!(paid.len() as u32, USERS);
    for claim in &claims {
        let payout = paid.iter().find(|payout| payout["id"] == claim["payout"]);
        let payout = payout.unwrap_or_else(|| panic!("{claim} was not paid"));
        assert_eq!((&payout["amount"], &payout["status"]), (&claim["amount"], &json!("SUCCEEDED")));
    }
    let standing = hongbao.must("GET /v1/campaigns/red-packets", "", 200);
    assert_eq!((standing["spent"].as_u64(), standing["funded"].as_u64()), (Some(TOTAL), Some(1_000_000)));
}
