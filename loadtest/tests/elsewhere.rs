//! Runs at a service that is there already: what belongs to somebody else, and what cannot be done there.

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use hongbao_loadtest::http::Caller;
use hongbao_loadtest::observe::metric;
use serde_json::Value;
use support::{Guard, await_until, harness, run, said, serve};

fn result(folder: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join("result.json")).expect("a result")).expect("JSON")
}

fn place(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

fn wallet(folder: &Path, name: &str) -> (Guard, String) {
    let args =
        ["wallet", "--data", &place(folder, name), "--listen", "127.0.0.1:0", "--fault", "latency_ms=7"];
    serve(&args)
}

/// That pays from this wallet.
fn service(folder: &Path, wallet: &str) -> (Guard, String) {
    let sets = [
        "gateway.listen=127.0.0.1:0".to_owned(),
        format!("data.dir={}", place(folder, "data")),
        "stored_value.kind=http".to_owned(),
        format!("stored_value.http.url={wallet}"),
        "shaping.transfers_per_s=500".to_owned(),
    ];
    let sets = sets.iter().flat_map(|set| ["--set", set.as_str()]);
    serve(&["serve"].into_iter().chain(sets).collect::<Vec<_>>())
}

/// A load of a hundred requests, with further tables.
fn scenario(folder: &Path, more: &str) -> String {
    let text = "about = \"elsewhere\"\narrivals = { shape = \"constant\", per_s = 50, for_s = 2 }\n\
                [generator]\nlag_ms = 5000\n";
    let path = place(folder, "elsewhere.toml");
    fs::write(&path, format!("{text}{more}")).unwrap();
    path
}

#[test]
fn the_wallet_of_somebody_else_is_left_as_it_was_and_earlier_runs_are_not_counted() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (_wallet, wallet) = wallet(folder, "wallet");
    let (_service, service) = service(folder, &wallet);
    let change = "[[wallet.change]]\nat_s = 0.5\nfaults = { latency_ms = 20, drop_after_rate = 0.1 }\n";
    let (scenario, out) = (scenario(folder, change), place(folder, "out"));
    let args = ["run", &scenario, "--target", &service, "--wallet", &wallet, "--out", &out];
    let said = run(&[&args[..], &["--json"]].concat());
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(said.json()["counted_at"], "wallet", "{said:?}");
    let changed = result(Path::new(&out))["events"][0].clone();
    assert!(changed["failure"].is_null() && changed["kind"] == "change", "{changed}");
    let address = hongbao_loadtest::http::resolve(&wallet).unwrap();
    let faults = Caller::new(address, None, Duration::from_secs(30)).json("GET", "/faults", "").unwrap();
    assert_eq!(
        (faults["latency_ms"].as_f64(), faults["drop_after_rate"].as_f64()),
        (Some(7.0), Some(0.0)),
        "{faults}"
    );
    // Once more, with a line every two seconds.
    let said = run(&args);
    assert_eq!(said.code, Some(0), "{said:?}");
    let settled = said.err.lines().filter_map(|line| line.split_once(" settled ")).map(|(_, after)| {
        after.split_whitespace().next().and_then(|count| count.parse().ok()).unwrap_or(u64::MAX)
    });
    let settled: Vec<u64> = settled.collect();
    assert!(settled.len() > 1 && settled.iter().all(|count| *count <= 100), "{settled:?}");
}

#[test]
fn a_wallet_that_the_target_does_not_pay_from_is_found_before_the_load() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (_own, own) = wallet(folder, "own");
    let (_other, other) = wallet(folder, "other");
    let (_service, service) = service(folder, &own);
    let (scenario, out) = (scenario(folder, ""), place(folder, "out"));
    let args = ["run", &scenario, "--json", "--target", &service, "--out", &out];
    let refused = run(&[&args[..], &["--wallet", &other]].concat());
    assert_eq!(refused.code, Some(2), "{refused:?}");
    for words in [other.as_str(), "has seen nothing", "stored_value (kind http)", "--client"] {
        assert!(refused.err.contains(words), "{words}: {refused:?}");
    }
    assert!(!Path::new(&out).exists(), "nothing was loaded");
    // For a list from anywhere it is said with the verdict.
    assert_eq!(run(&args).code, Some(0));
    let acks = format!("{out}/acks.txt");
    let checked = |wallet: &str| run(&["check", "--acks", &acks, "--target", &service, "--wallet", wallet]);
    let (right, wrong) = (checked(&own), checked(&other));
    assert_eq!((right.code, wrong.code), (Some(0), Some(4)), "{right:?} {wrong:?}");
    let hint = "knows none of the 100 payments";
    assert!(wrong.out.contains(hint) && !right.out.contains(hint), "{right:?} {wrong:?}");
}

#[test]
fn what_could_not_be_looked_at_is_told_as_nothing_and_not_as_a_figure() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (_wallet, wallet) = wallet(folder, "wallet");
    let (mut service, url) = service(folder, &wallet);
    let more = "persist_s = 0\nanswer_timeout_s = 1\n[setup]\nsettle_within_s = 0\n";
    let (scenario, out) = (scenario(folder, more), place(folder, "out"));
    let mut command = harness();
    command.args(["run", &scenario, "--json", "--target", &url, "--wallet", &wallet, "--out", &out]);
    // Long enough for a slow machine to end the service in the middle of it.
    fs::write(&scenario, fs::read_to_string(&scenario).unwrap().replace("for_s = 2", "for_s = 6")).unwrap();
    let harness = command.spawn().unwrap();
    let address = hongbao_loadtest::http::resolve(&url).unwrap();
    let mut caller = Caller::new(address, None, Duration::from_secs(30));
    // The first is the campaign's money.
    await_until("some of the load to be accepted", || {
        let told = caller.call("GET", "/metrics", b"").unwrap().body;
        let accepted = metric(&String::from_utf8_lossy(&told), "hongbao_accepted_total", |_| true);
        (accepted > 10).then_some(())
    });
    service.0.kill().unwrap();
    let said = said(harness.wait_with_output().unwrap());
    assert_eq!(said.code, Some(3), "{said:?}");
    let summary = said.json();
    assert_eq!(summary["verdict"], "void", "{summary}");
    assert!(summary["accepted"].as_u64() > Some(0) && !summary["accept_us"].is_null(), "{summary}");
    for name in ["succeeded", "failed", "unknown", "pending", "lost", "double_paid", "books_balanced"] {
        assert!(summary[name].is_null(), "{name}: {summary}");
    }
    let check = &result(Path::new(&out))["check"];
    for name in ["succeeded", "pending", "altered", "amount_paid", "lost", "short_paid", "books_balanced"] {
        assert!(check[name].is_null(), "{name}: {check}");
    }
    assert!(!check["gaps"].as_array().unwrap().is_empty(), "{check}");
    assert_eq!(run(&["report", &out]).code, Some(0), "and it is read again");
    let report = fs::read_to_string(Path::new(&out).join("report.html")).unwrap();
    assert!(report.contains("could not be looked up") && report.contains("not looked at"), "{report}");
}

#[test]
fn faults_that_nobody_could_make_are_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // Nobody need listen there to know.
    let nobody = "http://127.0.0.1:1";
    let kill = "[[fault]]\nat_s = 1\nfor_s = 1\nkind = \"kill\"\non = \"instance-0\"\n";
    let change = "[[wallet.change]]\nat_s = 0.5\nfaults = { latency_ms = 20 }\n";
    for (more, says) in [(kill, "kill on instance-0"), (change, "--wallet URL")] {
        let (scenario, out) = (scenario(folder, more), place(folder, "out"));
        let said = run(&["run", &scenario, "--target", nobody, "--out", &out]);
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.err.contains(says), "{says}: {said:?}");
        assert!(!Path::new(&out).exists());
    }
}
