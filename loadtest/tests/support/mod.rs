//! What the tests of the whole harness share: the program under test, and the hongbao that it starts.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The hongbao beside the program under test; built if it is not there (`cargo test --workspace` has built it).
pub fn hongbao() -> PathBuf {
    if let Some(path) = std::env::var_os("HONGBAO_BIN") {
        return PathBuf::from(path);
    }
    let own = Path::new(env!("CARGO_BIN_EXE_hongbao-loadtest"));
    let path = own.with_file_name("hongbao");
    if !path.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built =
            Command::new(cargo).args(["build", "--locked", "-p", "hongbao", "--bin", "hongbao"]).status();
        assert!(built.is_ok_and(|status| status.success()), "hongbao could not be built");
    }
    path
}

/// The campaign's backend, where the harness looks for it: among the examples beside hongbao.
pub fn backend_is_built() {
    let path = hongbao().with_file_name("examples").join("campaign_backend");
    if !path.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let args = ["build", "--locked", "-p", "hongbao", "--example", "campaign_backend"];
        let built = Command::new(cargo).args(args).status();
        assert!(built.is_ok_and(|status| status.success()), "the campaign's backend could not be built");
    }
}

/// All rates times this: from the environment, or small enough for a debug build on a busy machine.
pub fn scale() -> String {
    std::env::var("HONGBAO_LOADTEST_SCALE").unwrap_or_else(|_| "0.3".to_owned())
}

pub fn harness() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hongbao-loadtest"));
    command.env("HONGBAO_BIN", hongbao()).env_remove("HONGBAO_LOADTEST_SCALE");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a finished command said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    /// The JSON of the last line.
    pub fn json(&self) -> Value {
        let last = self.out.lines().last().unwrap_or("");
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub fn run(args: &[&str]) -> Said {
    said(harness().args(args).output().expect("the program runs"))
}

pub fn said(output: std::process::Output) -> Said {
    Said {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Asks again and again until there is an answer, and names what never came.
pub fn await_until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A running process; killed when dropped.
pub struct Guard(pub Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server of hongbao, and where it listens.
pub fn serve(args: &[&str]) -> (Guard, String) {
    use std::io::{BufRead, BufReader};
    let mut command = Command::new(hongbao());
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut guard = Guard(command.spawn().expect("hongbao runs"));
    let mut lines = BufReader::new(guard.0.stdout.take().expect("piped")).lines();
    let line = lines.next().expect("it says where it listens").expect("text");
    let url = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
    // Whatever else it says is read, so that it never waits for a reader.
    std::thread::spawn(move || lines.for_each(drop));
    (guard, url)
}

fn is_running(pid: u32, parent: Option<u32>) -> bool {
    state(pid).is_some_and(|(state, found)| {
        !matches!(state.as_str(), "Z" | "X") && parent.is_none_or(|parent| found == parent)
    })
}

/// State and parent of a process, as `/proc` tells them.
fn state(pid: u32) -> Option<(String, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything.
    let (_, after) = stat.rsplit_once(") ")?;
    let mut fields = after.split(' ');
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

/// Processes that a process has started and that still run, with what they were started as.
pub fn children_of(parent: u32) -> Vec<(u32, String)> {
    let processes = std::fs::read_dir("/proc").expect("Linux").filter_map(Result::ok);
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let children = pids.filter(|pid| is_running(*pid, Some(parent)));
    let named = |pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        (pid, String::from_utf8_lossy(&line).replace('\0', " "))
    };
    children.map(named).collect()
}

pub fn is_frozen(pid: u32) -> bool {
    state(pid).is_some_and(|(state, _)| state == "T")
}

pub fn has_thread(pid: u32, name: &str) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok())
        .any(|comm| comm.trim() == name)
}

/// Waits until none of them runs any more.
pub fn await_end_of(started: &[(u32, String)]) {
    let is_over = || started.iter().all(|(pid, _)| !is_running(*pid, None)).then_some(());
    await_until(&format!("the end of {started:?}"), is_over);
}
