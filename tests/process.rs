//! The process and its surroundings: who may share its folder, what it makes of a damaged, foreign, read-only
//! or full one, how it stops, what it says on the command line, and what it costs when idle.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use support::{PATIENCE, Server, Setup, await_until, call, must_be_clean, run};

fn pay(id: &str) -> String {
    let note = "x".repeat(700);
    json!({"id": id, "campaign": "c", "payee": "ann", "amount": 1, "currency": "CNY", "metadata": {"n": note}})
        .to_string()
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    (folder, data)
}

/// A folder with a few settled requests in it, and nobody using it.
fn used_folder() -> (tempfile::TempDir, PathBuf) {
    let (folder, data) = folder();
    // Killed, so that there is no snapshot to begin from.
    let server = Setup::new(&data).start();
    server.campaign("c", 1_000, 1_000);
    for n in 0..20 {
        server.must("POST /v1/disbursements", &pay(&format!("r{n}")), 202);
    }
    server.await_status("r19", "SUCCEEDED");
    server.kill();
    (folder, data)
}

fn segment(data: &Path) -> PathBuf {
    data.join("journal").join("0000000000000000.seg")
}

/// The service must not start, and must say all of this.
fn refused(setup: &Setup, says: &[&str]) {
    let said = setup.try_start().map(|server| server.address.clone()).expect_err("it must not start");
    assert_eq!(said.code, Some(2), "{said:?}");
    for word in says {
        assert!(said.err.contains(word), "no {word:?} in {said:?}");
    }
}

#[test]
fn a_folder_has_one_process() {
    let (_folder, data) = folder();
    let server = Setup::new(&data).start();
    refused(&Setup::new(&data), &["in use", &server.pid().to_string()]);
    server.must("GET /readyz", "", 200);
    server.end_well();
    assert!(Setup::new(&data).start().terminate().success(), "and the next one may have it");
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let (_folder, data) = folder();
    fs::create_dir(&data).unwrap();
    fs::write(data.join("thesis.doc"), "precious").unwrap();
    refused(&Setup::new(&data), &["thesis.doc"]);
    assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "nothing was added");
    let (_folder, data) = used_folder();
    fs::write(data.join("journal").join("notes.txt"), "?").unwrap();
    refused(&Setup::new(&data), &["notes.txt"]);
}

#[test]
fn damage_below_what_was_synced_is_named_and_a_torn_tail_is_cut() {
    // What is done to the segment, and what must be said; nothing where the service must start.
    type Harm = fn(&mut Vec<u8>);
    let table: [(&str, Harm, &[&str]); 4] = [
        ("one bit in the middle", |bytes| bytes[4_000] ^= 1, &["0000000000000000.seg", "damaged"]),
        ("cut short", |bytes| bytes.truncate(6_000), &["0000000000000000.seg"]),
        ("foreign", |bytes| bytes[..64].fill(b'#'), &["0000000000000000.seg"]),
        (
            "bytes behind the end",
            |bytes| {
                let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
                let end = end.next_multiple_of(8);
                bytes[end..end + 500].fill(0xAB);
            },
            &[],
        ),
    ];
    for (name, harm, says) in table {
        let (_folder, data) = used_folder();
        let mut bytes = fs::read(segment(&data)).unwrap();
        harm(&mut bytes);
        fs::write(segment(&data), &bytes).unwrap();
        println!("{name}");
        if says.is_empty() {
            let server = Setup::new(&data).start();
            assert_eq!(server.must("GET /v1/disbursements/r19", "", 200)["status"], "SUCCEEDED");
        } else {
            refused(&Setup::new(&data), says);
            assert!(fs::read(segment(&data)).unwrap() == bytes, "{name}: nothing was changed");
        }
    }
}

/// A file system of its own, as long as it lives; `None` where this may not be done.
struct Mount(PathBuf);

impl Mount {
    fn new(at: &Path, options: &str) -> Option<Mount> {
        fs::create_dir_all(at).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(at)
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            println!("skipped: a tmpfs cannot be mounted here (that takes root)");
        }
        mounted.then(|| Mount(at.to_owned()))
    }

    fn remount(&self, options: &str) {
        let status = std::process::Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(&self.0)
            .status();
        assert!(status.is_ok_and(|status| status.success()));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: whatever still has a file open in it is about to end.
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_read_only_folder_is_refused() {
    let (folder, _) = folder();
    let Some(mount) = Mount::new(&folder.path().join("disk"), "size=64m") else { return };
    mount.remount("ro");
    refused(&Setup::new(&mount.0.join("data")), &["cannot be used", "permissions"]);
}

#[test]
fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let (folder, _) = folder();
    let Some(mount) = Mount::new(&folder.path().join("disk"), "size=40m") else { return };
    let data = mount.0.join("data");
    let setup = Setup::new(&data).set("data.checkpoint_bytes=1048576").set("shaping.transfers_per_s=1");
    let server = setup.start();
    server.campaign("c", 1_000_000_000, 1_000_000_000);
    // Somebody else fills the disk, but for less than a segment.
    let spare = || data.join("journal").read_dir().unwrap().flatten().any(|f| f.file_name() == "spare-1");
    await_until("a spare segment", PATIENCE, || spare().then_some(()));
    let filler = mount.0.join("filler");
    let _ = fs::write(&filler, vec![7u8; 40 << 20]);
    let mut acks = String::new();
    let deadline = Instant::now() + PATIENCE;
    let refusal = (0..).find_map(|n| {
        assert!(Instant::now() < deadline, "the disk never fills up");
        let ids: Vec<String> = (0..200).map(|item| format!("r{n}-{item}")).collect();
        let item = |id: &String| json!({"id": id, "payee": "ann", "amount": 1, "metadata": {"n": "x".repeat(3_000)}});
        let items: Vec<_> = ids.iter().map(item).collect();
        let body = json!({"id": format!("b{n}"), "campaign": "c", "currency": "CNY", "total_count": 200,
            "total_amount": 200, "items": items});
        let reply = server.call("POST /v1/batches", &body.to_string());
        if reply.code != 202 {
            return Some(reply);
        }
        acks.extend(ids.iter().map(|id| format!("default {id} 1\n")));
        None
    });
    let refusal = refusal.expect("found");
    assert_eq!((refusal.code, &refusal.body["accepted"]), (503, &json!("unknown")), "{}", refusal.text);
    // From now on nothing is accepted, and that is said.
    let after = call(&server.address, "POST /v1/disbursements", &pay("late"));
    if let Ok(after) = after {
        assert_eq!((after.code, &after.body["code"]), (503, &json!("not_accepting")), "{}", after.text);
    }
    if let Ok(ready) = call(&server.address, "GET /readyz", "") {
        assert_eq!((ready.code, &ready.body["ready"]), (503, &json!(false)), "{}", ready.text);
        assert!(ready.text.contains("space"), "the reason is told: {}", ready.text);
    } else {
        assert!(server.stderr().contains("space"), "the reason is told: {}", server.stderr());
    }
    server.kill();
    fs::remove_file(filler).unwrap();
    mount.remount("size=120m");
    let server = Setup::new(&data).start();
    server.await_drained();
    server.end_well();
    let path = folder.path().join("acks");
    fs::write(&path, &acks).unwrap();
    let report = must_be_clean(&data, &path);
    assert!(report["acks"]["lines"].as_u64() > Some(1_000), "{}", report["acks"]);
}

#[test]
fn terminated_under_load_it_ends_well_and_keeps_what_it_accepted() {
    let (folder, data) = folder();
    let server = Setup::new(&data).set("shaping.transfers_per_s=300").start();
    server.campaign("c", 1_000_000, 1_000_000);
    let (address, stop, count) =
        (server.address.clone(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..3)
        .map(|client| {
            let (address, stop, count) = (address.clone(), stop.clone(), count.clone());
            std::thread::spawn(move || {
                let mut acks = String::new();
                for n in 0.. {
                    let id = format!("r{client}-{n}");
                    match call(&address, "POST /v1/disbursements", &pay(&id)) {
                        Ok(reply) if reply.code == 202 => {
                            acks.push_str(&format!("default {id} 1\n"));
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(reply) => assert_eq!(reply.code, 503, "{}", reply.text),
                        Err(_) if stop.load(Ordering::Acquire) => break,
                        Err(_) => {}
                    }
                }
                acks
            })
        })
        .collect();
    await_until("some load", PATIENCE, || (count.load(Ordering::Relaxed) > 600).then_some(()));
    let began = Instant::now();
    server.end_well();
    assert!(began.elapsed() < Duration::from_secs(15), "it took {:?} to stop", began.elapsed());
    stop.store(true, Ordering::Release);
    let acks: String = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let server = Setup::new(&data).start();
    server.await_drained();
    server.end_well();
    let path = folder.path().join("acks");
    fs::write(&path, &acks).unwrap();
    must_be_clean(&data, &path);
}

#[test]
fn idle_costs_nothing_worth_measuring() {
    let (_folder, data) = folder();
    let server = Setup::new(&data).start();
    server.campaign("c", 1_000, 1_000);
    server.must("POST /v1/disbursements", &pay("r"), 202);
    server.await_status("r", "SUCCEEDED");
    server.await_drained();
    // User and system time in ticks of a hundredth of a second: fields 14 and 15 (proc(5)).
    let ticks = |server: &Server| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
        let fields: Vec<u64> =
            stat.rsplit(')').next().unwrap().split_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
        fields[11] + fields[12]
    };
    // The mark of an idle journal comes after a fifth of a second, and the view writes its last page.
    std::thread::sleep(Duration::from_secs(1));
    let before = ticks(&server);
    std::thread::sleep(Duration::from_secs(2));
    let used = ticks(&server) - before;
    assert!(used <= 2, "{used} hundredths of a second in two seconds");
}

#[test]
fn the_command_line() {
    let version = format!("hongbao {}\n", env!("CARGO_PKG_VERSION"));
    // Arguments, exit code, and what must be said.
    let table: [(&[&str], i32, &str); 10] = [
        (&["--version"], 0, &version),
        (&["--help"], 0, "hongbao demo"),
        (&["completions", "bash"], 0, "complete -F"),
        (&["completions", "zsh"], 0, "#compdef hongbao"),
        (&["config", "check"], 0, "valid"),
        (&["config", "check", "--set", "shaping.transfer_per_s=1"], 2, "shaping.transfers_per_s"),
        (&["config", "check", "--set", "gateway.listen=0.0.0.0:80"], 2, "127.0.0.1"),
        (&["serve", "--set", "gateway.listen=0.0.0.0:0"], 2, "gateway.listen"),
        (&["serve", "--set", "data.segment_bytes=1"], 2, "data.segment_bytes"),
        (&["audit", "--data", "/nowhere/at/all"], 2, "/nowhere/at/all"),
    ];
    for (args, code, says) in table {
        let said = run(args);
        assert_eq!(said.code, Some(code), "{args:?}: {said:?}");
        assert!(format!("{}{}", said.out, said.err).contains(says), "{args:?}: no {says:?} in {said:?}");
    }
}

#[test]
fn printed_settings_are_settings() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("printed.toml").display().to_string();
    let first =
        run(&["config", "print", "--set", "shaping.transfers_per_s=77", "--set", "data.dir=elsewhere"]);
    assert_eq!(first.code, Some(0), "{first:?}");
    assert!(first.out.contains("transfers_per_s = 77") && first.out.contains("\"elsewhere\""), "{first:?}");
    fs::write(&path, &first.out).unwrap();
    assert_eq!(run(&["config", "print", "--config", &path]).out, first.out);
    let secret = run(&["config", "print", "--set", "gateway.clients.shop=secret-of-the-shop"]);
    assert!(!secret.out.contains("secret-of-the-shop"), "{secret:?}");
}
