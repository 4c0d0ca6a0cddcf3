//! The demo from the outside: the real binary, its last line, its exit code, and what the audit says of the
//! folder it leaves, whole and damaged. `HONGBAO_DEMO_STRICT=1` holds the fleet to its figures, which a busy machine may miss.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use serde_json::Value;

fn hongbao(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hongbao")).args(arguments).output().expect("the binary runs")
}

fn demo(data: &Path) -> Value {
    let data = data.to_str().unwrap();
    let run = hongbao(&["demo", "--count", "3000", "--wallet-tps", "2000", "--json", "--data", data]);
    let (stdout, stderr) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert_eq!(run.status.code(), Some(0), "{stdout}\n{stderr}");
    assert_eq!(stdout.lines().count(), 1, "one line of JSON and nothing else: {stdout}");
    serde_json::from_str(&stdout).expect("JSON")
}

fn audit(data: &Path, acks: &Path) -> Output {
    hongbao(&["audit", "--data", data.to_str().unwrap(), "--acks", acks.to_str().unwrap(), "--drained"])
}

fn number(summary: &Value, key: &str) -> u64 {
    summary[key].as_u64().unwrap_or_else(|| panic!("{key} in {summary}"))
}

/// A demo that must end well: what it sums up, and what it told meanwhile.
fn played(arguments: &[&str]) -> (Value, String) {
    let run = hongbao(arguments);
    let (said, lines) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}\n{lines}");
    let summary: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(number(&summary, "succeeded"), number(&summary, "accepted"), "{summary}");
    for nothing in ["lost", "double_paid", "pending", "unknown", "failed"] {
        assert_eq!(number(&summary, nothing), 0, "{nothing} in {summary}");
    }
    (summary, lines.into_owned())
}

/// What the door told of when a request would be done: it is reported, and near enough for a busy machine.
fn check_part(part: &Value, count_min: u64, (median_max, p90_max): (f64, f64)) {
    let percent = |key: &str| part[key].as_f64().unwrap_or_else(|| panic!("{key} in {part}"));
    let (median, p90) = (percent("error_percent_median"), percent("error_percent_p90"));
    assert!(number(part, "count") >= count_min, "{part}");
    assert!(median <= p90 && median <= median_max && p90 <= p90_max, "{part}");
}

/// The same of all estimates; with `HONGBAO_ESTIMATES_STRICT` as near as they should be on a quiet machine.
fn check_estimates(summary: &Value, count_min: u64, busy: (f64, f64)) {
    let is_strict = std::env::var_os("HONGBAO_ESTIMATES_STRICT").is_some();
    check_part(&summary["estimates"], count_min, if is_strict { (20.0, 40.0) } else { busy });
}

#[test]
fn a_campaign_is_settled_exactly_once_and_damage_is_found() {
    let temp = tempfile::tempdir().unwrap();
    let (data, acks) = (temp.path().join("data"), temp.path().join("data-acks.txt"));
    let summary = demo(&data);
    // 3,000 packets, half of 30 claims, 4 collections, 2 reversals, 2 fundings.
    let expected = [
        ("submitted", 3_083),
        ("accepted", 3_023),
        ("duplicates", 15),
        ("refused", 45),
        ("succeeded", 3_023),
        ("failed", 0),
        ("unknown", 0),
        ("pending", 0),
        ("lost", 0),
        ("double_paid", 0),
    ];
    for (key, expected) in expected {
        assert_eq!(number(&summary, key), expected, "{key} in {summary}");
    }
    assert_eq!(summary["books_balanced"], true);
    assert_eq!(summary["durability"], "fsync");
    for latency in ["accept_us", "settle_us"] {
        let at = |percentile| number(&summary[latency], percentile);
        assert!(0 < at("p50") && at("p50") <= at("p99") && at("p999") <= at("max"), "{latency}: {summary}");
    }
    // 30 singles and 21 batches, but for what was reversed since or answered twice.
    check_estimates(&summary, 40, (150.0, 400.0));
    // The pace, and what a burst of it may add.
    let peak = number(&summary, "wallet_peak_per_s");
    assert!((200..=2_200).contains(&peak), "the wallet saw {peak}/s at a pace of 2,000");
    assert!(number(&summary, "accept_per_s") > 0 && number(&summary, "settle_per_s") > 0);
    assert_eq!(fs::read_to_string(&acks).unwrap().lines().count(), 3_023);

    let whole = audit(&data, &acks);
    assert_eq!(whole.status.code(), Some(0), "{}", String::from_utf8_lossy(&whole.stdout));

    // A second run in the same folder knows what was there before.
    let again = demo(&data);
    assert_eq!((number(&again, "accepted"), number(&again, "succeeded")), (3_023, 3_023));
    assert_eq!(audit(&data, &acks).status.code(), Some(0));

    // An acknowledged request that never came, then a journal with one bit turned.
    let promised = fs::read_to_string(&acks).unwrap();
    fs::write(&acks, format!("{promised}default never-there 5\n")).unwrap();
    let lost = audit(&data, &acks);
    assert_eq!(lost.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&lost.stdout).contains("never-there"));
    fs::write(&acks, promised).unwrap();
    turn_a_bit(&data.join("journal"));
    let damaged = audit(&data, &acks);
    assert!(matches!(damaged.status.code(), Some(1 | 2)), "{}", String::from_utf8_lossy(&damaged.stdout));
}

/// Turns one bit in the middle of what the first segment holds.
fn turn_a_bit(journal: &Path) {
    let names = fs::read_dir(journal).unwrap().map(|entry| entry.unwrap().path());
    let segments = names.filter(|path| path.extension().is_some_and(|name| name == "seg"));
    let first = segments.min().expect("there is a segment");
    let bytes = fs::read(&first).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("it is not empty");
    let file = fs::OpenOptions::new().write(true).open(&first).unwrap();
    file.write_all_at(&[bytes[end / 2] ^ 0x10], end as u64 / 2).unwrap();
}

#[test]
fn the_wallet_in_a_second_process_agrees() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("demo");
    let arguments = ["demo", "--wallet", "http", "--outage", "0", "--count", "3000", "--wallet-tps", "2000"];
    let run = hongbao(&[&arguments[..], &["--json", "--data", data.to_str().unwrap()]].concat());
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{said} {}", String::from_utf8_lossy(&run.stderr));
    let summary: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((number(&summary, "succeeded"), number(&summary, "lost")), (3_023, 0), "{summary}");
    assert_eq!((number(&summary, "double_paid"), number(&summary, "pending")), (0, 0), "{summary}");
    assert!(summary.get("outage").is_none(), "none was asked for: {summary}");
    // The wallet is gone with the demo: an audit that cannot ask it does not say that all is well with it.
    let alone = hongbao(&["audit", "--data", data.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&alone.stdout).contains("NOT compared"));
}

#[test]
fn an_outage_of_the_wallet_is_ridden_out() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("demo");
    let arguments =
        ["demo", "--wallet", "http", "--count", "4000", "--wallet-tps", "800", "--json", "--data"];
    let (summary, lines) = played(&[&arguments[..], &[data.to_str().unwrap()]].concat());
    // 40 singles and 21 batches. Nobody foresees an outage: what was in line when it began is told apart.
    let estimates = &summary["estimates"];
    check_part(&estimates["others"], 1, (150.0, 400.0));
    let parts = ["in_line_when_it_began", "others"].map(|part| number(&estimates[part], "count"));
    let count = number(estimates, "count");
    assert!(count >= 40 && parts.iter().sum::<u64>() == count, "{estimates}");
    let outage = &summary["outage"];
    let took = number(outage, "ended_ms") - number(outage, "began_ms");
    assert!(took >= 3_000, "it was down for {took} ms");
    assert!(number(outage, "opened_after_ms") < took, "it opened while the wallet was down: {outage}");
    assert!(number(outage, "tries") > 0, "{outage}");
    // About a hundred calls a second go by the pace; tries that fall beside their time may be among these.
    assert!(number(outage, "calls_while_open") < 10, "{outage}");
    assert!(number(outage, "backlog_max") > number(outage, "backlog_before"), "{outage}");
    assert!(outage["closed_after_ms"].is_u64(), "it was back before all was done: {outage}");
    let turns = outage["breaker"].as_array().expect("how it stood");
    let place = |word: &str| turns.iter().rposition(|turn| turn["to"] == word);
    assert_eq!(turns[0]["to"], "closed");
    let (open, ramp, closed) = (place("open"), place("ramp"), place("closed"));
    assert!(Some(0) < open && open < ramp && ramp < closed, "{outage}");
    // A line every two seconds says how it stands.
    for word in ["breaker closed", "open"] {
        assert!(lines.contains(word), "{word:?} in {lines}");
    }
}

#[test]
fn estimates_hold_through_a_brownout_of_the_wallet() {
    let arguments =
        ["demo", "--wallet", "http", "--brownout", "4", "--count", "12000", "--wallet-tps", "700", "--json"];
    let (summary, _) = played(&arguments);
    assert!(summary.get("outage").is_none(), "{summary}");
    let brownout = &summary["brownout"];
    let took = number(brownout, "ended_ms") - number(brownout, "began_ms");
    assert!(took >= 4_000, "it lasted {took} ms");
    assert_eq!(number(brownout, "capacity_per_s"), 350);
    let settled = number(brownout, "settled_per_s");
    assert!((1..=385).contains(&settled), "{settled}/s of the 350/s that it bore: {brownout}");
    assert!(number(brownout, "backlog_max") > number(brownout, "backlog_before"), "{brownout}");
    // 120 singles and 24 batches, but for what was reversed since or answered twice.
    check_estimates(&summary, 120, (40.0, 80.0));
    let parts = ["in_line_when_it_began", "others"].map(|part| number(&summary["estimates"][part], "count"));
    assert!(parts.iter().all(|count| *count > 0), "{summary}");
}

#[test]
fn a_brownout_that_cannot_be_is_refused() {
    for (arguments, says) in [
        (&["demo", "--brownout", "4"][..], "--wallet http"),
        (&["demo", "--wallet", "http", "--brownout", "4", "--outage", "2"], "give one of them"),
    ] {
        let run = hongbao(arguments);
        let said = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{said}");
        assert!(said.contains(says), "{says:?} in {said}");
    }
}

#[test]
fn a_fleet_rides_an_outage_out_and_the_wallet_proves_it() {
    let is_strict = std::env::var("HONGBAO_DEMO_STRICT").is_ok_and(|value| value == "1");
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("demo");
    let arguments = ["demo", "--fleet", "3", "--count", "4000", "--wallet-tps", "800", "--json", "--data"];
    let run = hongbao(&[&arguments[..], &[data.to_str().unwrap()]].concat());
    let (said, lines) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    let summary: Value = serde_json::from_str(said.lines().last().unwrap_or_default())
        .unwrap_or_else(|error| panic!("{error}: {said}\n{lines}"));
    let complaints = summary["complaints"].as_array().expect("a list");
    let is_peak = |complaint: &Value| complaint.as_str().is_some_and(|text| text.contains("of the budget"));
    assert!(complaints.iter().all(|complaint| is_peak(complaint) && !is_strict), "{complaints:?}\n{lines}");
    assert_eq!(run.status.success(), complaints.is_empty(), "{said}\n{lines}");
    for nothing in ["lost", "double_paid", "pending", "unknown"] {
        assert_eq!(number(&summary, nothing), 0, "{nothing} in {summary}");
    }

    // 4,000 packets, half of 40 claims, 2 fundings, 4 collections, 2 reversals: once each, by the wallet's count.
    let fleet = &summary["fleet"];
    assert_eq!((number(fleet, "wallet_executed"), number(fleet, "wallet_executed_due")), (4_028, 4_028));
    let peak = number(fleet, "wallet_peak_permille");
    assert!(peak <= if is_strict { 1_050 } else { 1_300 }, "{peak} thousandths of the budget in a second");
    let instances = fleet["instances"].as_array().expect("instances");
    assert_eq!(instances.len(), 3);
    for instance in instances {
        assert!(number(instance, "accepted") > 0 && number(instance, "succeeded") > 0, "{instance}");
    }

    let outage = &summary["outage"];
    let took = number(outage, "ended_ms") - number(outage, "began_ms");
    assert!(number(outage, "opened_after_ms") < took, "it opened while the wallet was down: {outage}");
    let within = number(fleet, "stopped_within_ms");
    assert!(within <= if is_strict { 200 } else { took }, "the last stopped {within} ms after the first");
    assert!(number(outage, "tries") > 0 && number(outage, "calls_while_open") < 10, "{outage}");
    assert!(number(outage, "backlog_max") > number(outage, "backlog_before"), "{outage}");
    let turns = outage["breaker"].as_array().expect("how it stood");
    let place = |word: &str| turns.iter().rposition(|turn| turn["to"] == word);
    let (open, half_open, ramp, closed) = (place("open"), place("half_open"), place("ramp"), place("closed"));
    assert!(Some(0) < open && open < half_open && half_open < ramp && ramp < closed, "{outage}");

    // The wallet's books, by themselves.
    let whole = audit(&data.join("wallet"), &temp.path().join("demo-acks.txt"));
    assert!(matches!(whole.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&whole.stdout));
    let again = hongbao(&["demo", "--fleet", "2", "--data", data.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("is not empty"));
}

/// A demo that ends with the test, and what it should have taken with it.
struct Running(Child, Vec<u32>);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        for pid in self.1.iter().filter(|pid| is_running(**pid, None)) {
            let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw);
            let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
        }
    }
}

/// Processes that a process has started and that still run.
fn children_of(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| is_running(*pid, Some(parent))).collect()
}

fn is_running(pid: u32, parent: Option<u32>) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name stands in brackets and may hold anything.
    let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
    let mut fields = after.split(' ');
    let (state, found) = (fields.next(), fields.next());
    !matches!(state, Some("Z" | "X")) && parent.is_none_or(|parent| found == Some(&*parent.to_string()))
}

#[test]
fn nothing_is_left_of_a_fleet_that_is_stopped_or_killed() {
    for signal in [Signal::INT, Signal::KILL] {
        let temp = tempfile::tempdir().unwrap();
        let data = temp.path().join("demo");
        let mut command = Command::new(env!("CARGO_BIN_EXE_hongbao"));
        command
            .args(["demo", "--fleet", "2", "--count", "100000", "--wallet-tps", "500", "--data"])
            .arg(&data);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let mut demo = Running(child, Vec::new());
        let mut lines = BufReader::new(demo.0.stderr.take().expect("piped")).lines();
        assert!(lines.any(|line| line.expect("UTF-8").contains(" burst ")), "it ended before the burst");
        let started = children_of(demo.0.id());
        demo.1.clone_from(&started);
        assert_eq!(started.len(), 4, "two instances, a wallet and a redis-server: {started:?}");
        kill_process(Pid::from_child(&demo.0), signal).expect("the process is ours");
        // Whatever it still says must not hold it up; who is left over would hold the pipe open.
        let saying = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<String>>());
        let status = demo.0.wait().expect("it ends");
        let deadline = Instant::now() + Duration::from_secs(30);
        while started.iter().any(|pid| is_running(*pid, None)) {
            let left: Vec<_> = started.iter().filter(|pid| is_running(**pid, None)).collect();
            assert!(Instant::now() < deadline, "{left:?} still run after {signal:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        if signal == Signal::INT {
            let mut told = String::new();
            std::io::Read::read_to_string(&mut demo.0.stdout.take().expect("piped"), &mut told).unwrap();
            assert_eq!(status.code(), Some(1), "{told}\n{:?}", saying.join());
            assert!(told.contains("Stopped on request") && told.contains("lost 0, paid twice 0"), "{told}");
        }
    }
}

#[test]
fn a_fleet_without_redis_says_what_to_install() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("demo");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hongbao"));
    command.args(["demo", "--fleet", "2", "--data"]).arg(&data).env("PATH", temp.path());
    let run = command.output().expect("the binary runs");
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(2), "{said}");
    assert!(said.contains("apt-get install redis-server") && said.contains("--redis URL"), "{said}");
    assert!(!data.exists(), "and it leaves nothing");
}

#[test]
fn a_folder_of_somebody_else_is_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("photos");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("cat.jpg"), "cat").unwrap();
    let run = hongbao(&["demo", "--count", "10", "--data", data.to_str().unwrap()]);
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("cat.jpg"), "{stderr}");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "no acks file either");
}
