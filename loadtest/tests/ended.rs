//! Runs that do not go to their end: killed, stopped, refused; and faults that outlast the load.

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{Guard, await_end_of, await_until, children_of, harness, has_thread, is_frozen, run, said};

fn result(folder: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join("result.json")).expect("a result")).expect("JSON")
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

const FLEET: &str = r#"
about = "a fleet that is left alone"
arrivals = { shape = "constant", per_s = 50, for_s = 600 }
setup = { instances = 2, intake = "redis", pace_per_s = 500 }
[[fault]]
at_s = 0.5
for_s = 0.5
kind = "kill"
on = "instance-1"
[[fault]]
at_s = 0.5
for_s = 1.5
kind = "freeze"
on = "wallet"
"#;

/// Needs `redis-server`.
#[test]
fn nothing_is_left_of_a_run_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = write(folder.path(), "fleet.toml", FLEET);
    let mut command = harness();
    command.args(["run", &scenario, "--json", "--out"]).arg(folder.path().join("out"));
    let harness = Guard(command.spawn().unwrap());
    let pid = harness.0.id();
    let all = |what: &str| await_until(what, || Some(children_of(pid)).filter(|started| started.len() == 4));
    let first = all("two instances, a wallet and a redis-server");
    // One of them is started again by another thread, which ends once the wallet goes on.
    await_until("an instance to be killed", || {
        first
            .iter()
            .any(|(pid, _)| !children_of(harness.0.id()).iter().any(|(now, _)| now == pid))
            .then_some(())
    });
    let wallet = first.iter().find(|(_, line)| line.contains(" wallet ")).expect("a wallet").0;
    await_until("the wallet to be frozen", || is_frozen(wallet).then_some(()));
    assert!(has_thread(pid, "timeline"), "which froze it");
    let started = all("the killed instance to be started again");
    await_until("the thread that makes faults to end", || (!has_thread(pid, "timeline")).then_some(()));
    // By number alone: what was only just started becomes the program a moment later.
    let numbers = |of: &[(u32, String)]| of.iter().map(|(pid, _)| *pid).collect::<Vec<_>>();
    assert_eq!(numbers(&children_of(pid)), numbers(&started), "and what it started goes on");
    kill_process(Pid::from_child(&harness.0), Signal::KILL).unwrap();
    await_end_of(&started);
}

/// A run that is frozen in the load, and one that is frozen after it.
#[test]
fn a_run_that_is_stopped_ends_at_once_and_checks_what_was_promised() {
    for (signal, load_s) in [(Signal::TERM, 900), (Signal::INT, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "about = \"stopped\"\narrivals = {{ shape = \"constant\", per_s = 200, for_s = {load_s} }}\n\
             setup = {{ pace_per_s = 20, settle_within_s = 1000 }}\nload = {{ payees = 5 }}\n\
             [[fault]]\nat_s = 3\nfor_s = 600\nkind = \"freeze\"\non = \"instance-0\"\n\
             [[fault]]\nat_s = 4\nfor_s = 600\nkind = \"wallet_down\"\n"
        );
        let (scenario, out) = (write(folder.path(), "stopped.toml", &text), folder.path().join("out"));
        let mut command = harness();
        command.args(["run", &scenario, "--json", "--out"]).arg(&out);
        let mut harness = Guard(command.spawn().unwrap());
        let pid = harness.0.id();
        let frozen = || children_of(pid).into_iter().find(|(pid, _)| is_frozen(*pid));
        await_until("the instance to be frozen", frozen);
        let started = children_of(pid);
        let stopped = Instant::now();
        kill_process(Pid::from_child(&harness.0), signal).unwrap();
        let status = await_until("the run to end", || harness.0.try_wait().unwrap());
        // Not a tenth of what the faults have still to go.
        assert!(stopped.elapsed() < Duration::from_secs(60), "{signal:?}: {:?}", stopped.elapsed());
        assert_eq!(status.code(), Some(3), "{signal:?}");
        await_end_of(&started);
        let result = result(&out);
        let verdict = &result["verdict"];
        assert!(verdict["headline"].as_str().unwrap().starts_with("VOID (interrupted)"), "{verdict}");
        let events = result["events"].as_array().unwrap();
        let is_mended = |event: &Value| event["failure"].is_null() && !event["until_s"].is_null();
        assert!(!events.is_empty() && events.iter().all(is_mended), "{events:?}");
        // Nobody waited for what is still open, and what was paid while it was counted is no loss.
        let (counts, check) = (&result["counts"], &result["check"]);
        assert!(counts["accepted"].as_u64() > Some(100), "{counts}");
        assert_eq!(check["acknowledged"], counts["accepted"], "{check}");
        assert!(check["pending"].as_u64() > Some(0) && check["books_balanced"] == true, "{check}");
        assert!(check["gaps"].as_array().unwrap().is_empty(), "{check}");
    }
}

#[test]
fn a_fault_after_the_load_is_made_and_is_no_part_of_the_time_to_settle_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let text = "about = \"late\"\narrivals = { shape = \"constant\", per_s = 100, for_s = 1 }\n\
                objectives = { drained_within_s = 10 }\ngenerator = { lag_ms = 5000 }\n\
                [[fault]]\nat_s = 20\nfor_s = 0.5\nkind = \"kill\"\non = \"instance-0\"\n";
    let (scenario, out) = (write(folder.path(), "late.toml", text), folder.path().join("out"));
    let said = said(harness().args(["run", &scenario, "--json", "--out"]).arg(&out).output().unwrap());
    assert_eq!(said.code, Some(0), "{said:?}");
    let result = result(&out);
    let events = result["events"].as_array().unwrap();
    assert!(events.len() == 1 && !events[0]["until_s"].is_null(), "{events:?}");
    assert_eq!(result["check"]["succeeded"], 100);
}

#[test]
fn a_run_that_is_refused_leaves_nothing_and_takes_nothing_away() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = write(
        folder.path(),
        "x.toml",
        "about = \"x\"\narrivals = { shape = \"constant\", per_s = 1, for_s = 5 }\n",
    );
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let nowhere = ["run", &scenario, "--target", &closed];
    let out = folder.path().join("runs/one");
    let refused = |more: &[&str]| {
        let said = run(&[&nowhere[..], &["--out", &out.display().to_string()], more].concat());
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.err.contains("--target http://"), "{said:?}");
    };
    refused(&[]);
    assert!(!folder.path().join("runs").exists(), "neither the folder nor what it would stand in");
    // An earlier run's result stays.
    fs::create_dir_all(&out).unwrap();
    fs::write(out.join("result.json"), "{}").unwrap();
    refused(&[]);
    assert_eq!(fs::read_to_string(out.join("result.json")).unwrap(), "{}");
}

#[test]
fn a_start_that_hongbao_refuses_leaves_the_earlier_result() {
    let folder = tempfile::tempdir().unwrap();
    let text = "about = \"x\"\narrivals = { shape = \"constant\", per_s = 1, for_s = 1 }\n\
                setup = { set = [\"breaker.windw_ms=200\"] }\n";
    let (scenario, out) = (write(folder.path(), "x.toml", text), folder.path().join("out"));
    fs::create_dir_all(out.join("data-0")).unwrap();
    let earlier = ["result.json", "report.html", "acks.txt", "data-0/kept"];
    earlier.iter().for_each(|name| fs::write(out.join(name), "earlier").unwrap());
    let said = run(&["run", &scenario, "--out", &out.display().to_string()]);
    assert_eq!(said.code, Some(2), "{said:?}");
    for words in ["window_ms", "setup.set", "instance-0.log", "are as they were"] {
        assert!(said.err.contains(words), "{words}: {said:?}");
    }
    for name in earlier {
        assert_eq!(fs::read_to_string(out.join(name)).ok().as_deref(), Some("earlier"), "{name}");
    }
    assert!(!out.join("data-wallet").exists(), "of servers that had no load");
}

/// An instance that says that it is ready, and then nothing any more.
fn falls_silent() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let is_ready =
                std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
            silent.push((stream, is_ready));
        }
    });
    url
}

#[test]
fn a_run_that_is_stopped_before_the_load_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let never_ready = write(folder.path(), "hongbao", "#!/bin/sh\nexec sleep 600\n");
    fs::set_permissions(&never_ready, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let silent = falls_silent();
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("result.json"), "earlier").unwrap();
    for (signal, more) in [(Signal::TERM, vec![]), (Signal::INT, vec!["--target", silent.as_str()])] {
        let mut command = harness();
        command
            .env("HONGBAO_BIN", &never_ready)
            .args(["run", "smoke", "--json", "--out"])
            .arg(&out)
            .args(&more);
        let mut harness = Guard(command.spawn().unwrap());
        let is_under_way = || out.join("earlier-run/result.json").exists().then_some(());
        await_until("the earlier result to be set aside", is_under_way);
        let pid = harness.0.id();
        let started = match more.is_empty() {
            true => {
                await_until("a wallet to be started", || Some(children_of(pid)).filter(|all| all.len() == 1))
            }
            false => Vec::new(),
        };
        let stopped = Instant::now();
        kill_process(Pid::from_child(&harness.0), signal).unwrap();
        let status = await_until("the run to end", || harness.0.try_wait().unwrap());
        // What it waits for takes half a minute at least.
        assert!(stopped.elapsed() < Duration::from_secs(15), "{signal:?}: {:?}", stopped.elapsed());
        assert_eq!(status.code(), Some(2), "{signal:?}");
        await_end_of(&started);
        let mut said = String::new();
        std::io::Read::read_to_string(&mut harness.0.stderr.take().unwrap(), &mut said).unwrap();
        assert!(said.contains("before the load began"), "{signal:?}: {said}");
        assert_eq!(fs::read_to_string(out.join("result.json")).unwrap(), "earlier", "{signal:?}");
    }
}
