//! The demo from the outside: the real binary, its last line, its exit code, and what the audit says of the
//! folder it leaves, whole and damaged.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

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

/// What the door told of when a request would be done: it is reported, and near enough for a busy machine. With
/// `HONGBAO_ESTIMATES_STRICT` as near as it should be on a quiet one.
fn check_estimates(summary: &Value, count_min: u64) {
    let estimates = &summary["estimates"];
    let percent = |key: &str| estimates[key].as_f64().unwrap_or_else(|| panic!("{key} in {summary}"));
    let (median, p90) = (percent("error_percent_median"), percent("error_percent_p90"));
    let is_strict = std::env::var_os("HONGBAO_ESTIMATES_STRICT").is_some();
    let (median_max, p90_max) = if is_strict { (20.0, 40.0) } else { (60.0, 150.0) };
    assert!(number(estimates, "count") >= count_min, "{estimates}");
    assert!(median <= p90 && median <= median_max && p90 <= p90_max, "{estimates}");
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
    check_estimates(&summary, 40);
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
    let run = hongbao(&[&arguments[..], &[data.to_str().unwrap()]].concat());
    let (said, lines) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}\n{lines}");
    let summary: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    // Everything was paid once all the same.
    assert_eq!(number(&summary, "succeeded"), number(&summary, "accepted"), "{summary}");
    for nothing in ["lost", "double_paid", "pending", "unknown", "failed"] {
        assert_eq!(number(&summary, nothing), 0, "{nothing} in {summary}");
    }

    // 40 singles and 21 batches.
    check_estimates(&summary, 40);
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
