//! The harness against a real hongbao: a run passes, leaves what it promises, and finds what it must find.

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{Guard, await_until, backend_is_built, harness, run, said, scale, serve};

fn result(folder: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join("result.json")).expect("a result")).expect("JSON")
}

#[test]
fn the_smoke_scenario_passes_and_leaves_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let out_text = out.display().to_string();
    let said = run(&["run", "smoke", "--json", "--scale", &scale(), "--out", &out_text]);
    // A busy machine may be late with promises, or with the load itself, and then the verdict says so. Nothing else is
    // excused.
    let summary = said.json();
    let complaints = summary["complaints"].as_array().expect("a list");
    let is_about_time = |words: &Value| {
        let words = words.as_str().unwrap_or("");
        words.contains("load generator itself") || words.contains("promises within")
    };
    assert!(complaints.iter().all(is_about_time), "{said:?}");
    assert_eq!(said.code == Some(0), complaints.is_empty(), "{said:?}");
    for name in ["lost", "double_paid", "pending"] {
        assert_eq!(summary[name], 0, "{name}: {summary}");
    }
    assert_eq!(summary["books_balanced"], true);
    assert_eq!(
        (&summary["counted_at"], &summary["not_checked"]),
        (&"wallet".into(), &Value::Array(Vec::new()))
    );
    assert_eq!((&summary["accepted"], &summary["succeeded"]), (&summary["submitted"], &summary["accepted"]));
    assert!(summary["accepted"].as_u64() > Some(500), "{summary}");
    assert!(summary["duplicates"].as_u64() > Some(0), "{summary}");

    let result = result(&out);
    let counts = &result["counts"];
    assert_eq!(counts["conflicts_sent"], counts["conflicts_refused"]);
    assert_eq!(counts["invalid_sent"], counts["invalid_refused"]);
    assert_eq!(counts["duplicates_sent"], counts["duplicates_recognised"]);
    // Every histogram and every bin counts the same.
    let sum = |name: &str| {
        result["series"][name].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).sum::<f64>()
    };
    let step_s = result["series"]["step_s"].as_f64().unwrap();
    assert_eq!((sum("accepted") * step_s).round() as u64, summary["accepted"].as_u64().unwrap());
    assert_eq!((sum("offered") * step_s).round() as u64, counts["offered"].as_u64().unwrap());
    let evidence = result["check"]["evidence"].to_string();
    for witness in ["at hongbao", "at the wallet", "balances of", "hongbao audit"] {
        assert!(evidence.contains(witness), "{evidence}");
    }
    let acks = fs::read_to_string(out.join("acks.txt")).unwrap();
    assert_eq!(acks.lines().count() as u64, summary["accepted"].as_u64().unwrap());
    let html = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(html.contains("The rush and the valley") && !html.contains("NaN"));
    for log in ["accept.hlog", "settle.hlog"] {
        assert!(fs::read_to_string(out.join(log)).unwrap().contains("HISTF"), "{log}");
    }
    assert!(!out.join("data-0").exists(), "what a good run needs no more is removed");
    // A run is itself again.
    let compared = run(&["compare", &out_text, &out_text, "--json", "--out", &format!("{out_text}/c.html")]);
    assert_eq!(compared.code, Some(0), "{compared:?}");
    let changes = compared.json()["changes"].clone();
    let is_none = |change: &Value| change["says"] == "within noise" || change["says"] == "not measured";
    assert!(changes.as_array().unwrap().iter().all(is_none), "{changes}");
}

#[test]
fn a_generator_that_stood_still_makes_the_run_void() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let scenario = folder.path().join("calm.toml");
    let text = "about = \"calm\"\narrivals = { shape = \"constant\", per_s = 100, for_s = 6 }\n\
                [setup]\nwallet = \"embedded\"\npace_per_s = 0\n[generator]\nconnections = 4\nlag_ms = 500\n";
    fs::write(&scenario, text).unwrap();
    let mut command = harness();
    command.arg("run").arg(&scenario).arg("--json").arg("--out").arg(&out);
    let mut child = Guard(command.spawn().unwrap());
    // The log of latencies is opened when the load begins.
    await_until("the load to begin", || out.join("accept.hlog").exists().then_some(()));
    let pid = Pid::from_child(&child.0);
    kill_process(pid, Signal::STOP).unwrap();
    std::thread::sleep(Duration::from_millis(2_500));
    kill_process(pid, Signal::CONT).unwrap();
    let status = await_until("the run to end", || child.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(3));
    let result = result(&out);
    assert_eq!(result["verdict"]["outcome"], "void");
    assert!(
        result["verdict"]["complaints"][0].as_str().unwrap().contains("load generator itself"),
        "{result}"
    );
    assert!(result["counts"]["late"].as_u64() > Some(50), "{}", result["counts"]);
    // Late is not lost: everything was sent, and paid.
    assert_eq!(result["counts"]["accepted"], 600);
    assert_eq!(result["check"]["succeeded"], 600);
}

#[test]
fn a_payment_that_never_arrived_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let (_server, url) = serve(&[
        "serve",
        "--set",
        "gateway.listen=127.0.0.1:0",
        "--set",
        "log.filter=warn",
        "--set",
        &format!("data.dir={data}"),
    ]);
    let out = folder.path().join("out");
    let scenario = folder.path().join("few.toml");
    fs::write(&scenario, "about = \"few\"\narrivals = { shape = \"constant\", per_s = 50, for_s = 1 }\n[generator]\nlag_ms = 5000\n").unwrap();
    let said_run = said(
        harness()
            .arg("run")
            .arg(&scenario)
            .args(["--json", "--target", &url])
            .arg("--out")
            .arg(&out)
            .output()
            .unwrap(),
    );
    assert_eq!(said_run.code, Some(0), "{said_run:?}");
    // Nobody was told where the wallet is: what that leaves unproven is said wherever the verdict is.
    let summary = said_run.json();
    assert_eq!(summary["counted_at"], "hongbao", "{summary}");
    let report = fs::read_to_string(out.join("report.html")).unwrap();
    for place in [&summary["headline"].to_string(), &summary["not_checked"].to_string(), &report] {
        assert!(place.contains("nothing was counted at the wallet"), "{place}");
    }
    let acks = out.join("acks.txt").display().to_string();
    let check = |acks: &str| run(&["check", "--json", "--acks", acks, "--target", &url]);
    assert_eq!(check(&acks).code, Some(0));

    // Nothing to check is no pass.
    for (name, text) in [("empty", ""), ("others", "somebody-else id-1 100\n")] {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        let found = check(&file.display().to_string());
        assert_eq!(found.code, Some(2), "{name}: {found:?}");
        assert!(found.err.contains("nothing to check"), "{name}: {found:?}");
    }

    // An id that was never sent, and one under another amount.
    let text = fs::read_to_string(&acks).unwrap();
    let first = text.lines().next().unwrap();
    let (words, amount) = first.rsplit_once(' ').unwrap();
    let altered = format!("{words} {}", amount.parse::<u64>().unwrap() + 1);
    for (name, line, field) in
        [("lost", "default never-sent-1 100", "lost"), ("altered", altered.as_str(), "altered")]
    {
        let file = folder.path().join(name);
        fs::write(&file, format!("{text}{line}\n")).unwrap();
        let found = check(&file.display().to_string());
        assert_eq!(found.code, Some(4), "{name}: {found:?}");
        assert_eq!(found.json()[field], 1, "{name}: {found:?}");
    }
}

#[test]
fn a_wallet_that_fails_and_an_instance_that_is_killed_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let scenario = folder.path().join("trouble.toml");
    let text = r#"
about = "trouble"
arrivals = { shape = "poisson", per_s = 300, for_s = 8 }
setup = { pace_per_s = 2000, settle_within_s = 120 }
load = { batch_share = 0.5, batch_size = 10, payees = 50, duplicates = 0.02 }
wallet = { faults = { capacity_per_s = 3000, drop_after_rate = 0.05 } }
generator = { connections = 8, answer_timeout_s = 2, lag_ms = 5000, persist_s = 60 }
[[fault]]
at_s = 2
for_s = 1.5
kind = "kill"
on = "instance-0"
[[fault]]
at_s = 4
for_s = 1
kind = "cut"
on = "wallet"
[[fault]]
at_s = 6
for_s = 1
kind = "kill"
on = "wallet"
"#;
    fs::write(&scenario, text).unwrap();
    let said =
        said(harness().arg("run").arg(&scenario).arg("--json").arg("--out").arg(&out).output().unwrap());
    let (summary, result) = (said.json(), result(&out));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(
        (&summary["lost"], &summary["double_paid"], &summary["pending"]),
        (&0.into(), &0.into(), &0.into())
    );
    // Whatever was under way when it died is sent again; if nothing was, calls wait until it answers.
    let count = |name: &str| result["counts"][name].as_u64().unwrap_or(0);
    assert!(
        count("retried") + count("waited") > 0,
        "the killed instance cost retries or waiting: {}",
        result["counts"]
    );
    let events = result["events"].as_array().unwrap();
    assert_eq!(events.len(), 3);
    assert!(
        events.iter().all(|event| event["failure"].is_null() && !event["until_s"].is_null()),
        "{events:?}"
    );
    let seen = result["states"].as_array().unwrap();
    assert!(seen.iter().any(|span| span["state"] == "does not answer"), "{seen:?}");
}

#[test]
fn users_who_claim_at_a_backend_that_is_killed_are_paid_once() {
    backend_is_built();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let scenario = folder.path().join("claims.toml");
    let text = r#"
about = "claims"
arrivals = { shape = "poisson", per_s = 200, for_s = 6 }
setup = { pace_per_s = 2000, settle_within_s = 120 }
load = { batch_share = 0.5, batch_size = 10, payees = 50 }
claims = { share = 0.3, packet_shares = 50, connections = 8 }
wallet = { faults = { capacity_per_s = 3000, drop_after_rate = 0.05 } }
generator = { connections = 4, answer_timeout_s = 2, lag_ms = 5000, persist_s = 60 }
[[fault]]
at_s = 2
for_s = 1
kind = "kill"
on = "backend"
"#;
    fs::write(&scenario, text).unwrap();
    let said =
        said(harness().arg("run").arg(&scenario).arg("--json").arg("--out").arg(&out).output().unwrap());
    assert_eq!(said.code, Some(0), "{said:?}");
    let result = result(&out);
    let claims = &result["claims"];
    let count = |name: &str| claims[name].as_u64().unwrap_or(0);
    assert!(count("claims") > 250, "{claims}");
    assert_eq!((count("promised"), count("paid")), (count("claims"), count("claims")), "{claims}");
    assert_eq!((count("refused"), count("unanswered"), count("told_another")), (0, 0, 0), "{claims}");
    assert!(count("retried") > 0 && count("asked_again") > 5, "{claims}");
    let evidence = result["check"]["evidence"].to_string();
    for witness in ["claims at the campaign's backend", "the balance of campaign:default:red-packets"] {
        assert!(evidence.contains(witness), "{evidence}");
    }
    assert!(fs::read_to_string(out.join("report.html")).unwrap().contains("claims at the backend"));
}

#[test]
fn usage_errors_are_told_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.toml");
    fs::write(
        &bad,
        "about = \"x\"\narrivals = { shape = \"constant\", per_s = 1, for_s = 5 }\n[load]\nbatch_sise = 3\n",
    )
    .unwrap();
    let bad = bad.display().to_string();
    let acks = folder.path().join("acks.txt");
    fs::write(&acks, "default a one\n").unwrap();
    let acks = acks.display().to_string();
    let taken = format!("{acks}/run");
    let nobody = "http://127.0.0.1:1";
    let table: [(&[&str], &str); 9] = [
        (&["run", "smok"], "smoke"),
        (&["run", &bad], "batch_size"),
        (&["run", "smoke", "--scale", "0"], "--scale"),
        (&["run", "smoke", "--part", "3/2"], "K/N"),
        (&["run", "smoke", "--target", "nonsense"], "http://HOST:PORT"),
        (&["run", "smoke", "--out", &taken], "the folder of the run"),
        (&["check", "--acks", &acks, "--target", nobody], "\"one\" is no amount"),
        (&["report", "/nonexistent-a"], "give the folder of a run"),
        (&["compare", "/nonexistent-a", "/nonexistent-b"], "nonexistent-a"),
    ];
    for (args, says) in table {
        let out = folder.path().join("none").display().to_string();
        let mut args = args.to_vec();
        if args[0] == "run" && !args.contains(&"--out") {
            args.extend(["--out", &out]);
        }
        let said = run(&args);
        assert_eq!(said.code, Some(2), "{args:?}: {said:?}");
        assert!(said.err.contains(says), "{args:?}: {said:?}");
    }
    let list = run(&["list"]);
    assert!(list.out.contains("fleet-failover") && list.out.contains("needs redis"), "{list:?}");
}

#[test]
fn two_generators_make_one_load_and_one_result() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let data = format!("data.dir={data}");
    let sets = ["serve", "--set", "gateway.listen=127.0.0.1:0", "--set", "log.filter=warn", "--set", &data];
    let (_server, url) = serve(&sets);
    let scenario = folder.path().join("shared.toml");
    let text = "about = \"shared\"\narrivals = { shape = \"constant\", per_s = 100, for_s = 3 }\n\
                [load]\nbatch_share = 0.5\nbatch_size = 5\n[generator]\nconnections = 2\nlag_ms = 5000\n";
    fs::write(&scenario, text).unwrap();
    let outs = [folder.path().join("one"), folder.path().join("two")];
    let parts = outs.iter().zip(["1/2", "2/2"]).map(|(out, part)| {
        let mut command = harness();
        command
            .arg("run")
            .arg(&scenario)
            .args(["--json", "--target", &url, "--part", part])
            .arg("--out")
            .arg(out);
        command.spawn().unwrap()
    });
    for part in parts.collect::<Vec<_>>() {
        let said = said(part.wait_with_output().unwrap());
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    let merged = folder.path().join("merged");
    let merged_said = said(harness().arg("merge").args(&outs).arg("--out").arg(&merged).output().unwrap());
    assert_eq!(merged_said.code, Some(0), "{merged_said:?}");
    // Over a result that is another's only by force.
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::copy(outs[1].join("result.json"), other.join("result.json")).unwrap();
    let onto_other = |more: &[&str]| {
        said(harness().arg("merge").args(&outs).arg("--out").arg(&other).args(more).output().unwrap())
    };
    let refused = onto_other(&[]);
    assert!(refused.code == Some(2) && refused.err.contains("--force"), "{refused:?}");
    assert_eq!(result(&other)["part"], "2/2", "it is as it was");
    let forced = onto_other(&["--force"]);
    assert_eq!((forced.code, &result(&other)["part"]), (Some(0), &"1/2 + 2/2".into()), "{forced:?}");
    let (whole, parts) = (result(&merged), outs.map(|out| result(&out)));
    assert_eq!(whole["counts"]["accepted"], 300);
    assert_eq!(whole["check"]["succeeded"], 300);
    let calls = parts.iter().map(|part| part["accept"]["count"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(whole["accept"]["count"], calls);
    assert!(
        parts.iter().all(|part| part["counts"]["accepted"].as_u64() > Some(100)),
        "both made their share"
    );
}
