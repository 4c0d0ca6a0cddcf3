//! What the tests of the whole service share: the real binary under a guard, a small HTTP client, and waiting
//! for a condition with a deadline.
//!
//! No test sleeps for a fixed time: it waits until something holds, and fails loudly when it does not. Every
//! server listens on a free port and is killed with its guard.

#![allow(dead_code, reason = "each test file uses its own part of this")]

pub mod cases;
pub mod postgres;
pub mod proxy;
pub mod redis;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before a test gives up on it; machines that run tests are slow at times.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until there is an answer, and names what never came.
pub fn await_until<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {within:?} in vain: {what}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// A number from the environment, or the default.
pub fn env_number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a whole number"))
}

/// Pseudo-random numbers (splitmix64, Steele et al. 2014); the seed is printed by whoever uses it.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }
}

/// The seed of this run: from `HONGBAO_SEED`, or the clock; printed, so that a failure can be repeated.
pub fn seed() -> u64 {
    let clock = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(1, |since| since.as_nanos() as u64)
    };
    let seed = std::env::var("HONGBAO_SEED").ok().map_or_else(clock, |text| text.parse().expect("a seed"));
    println!("HONGBAO_SEED={seed}");
    seed
}

/// The binary under test, told nothing by the environment of whoever runs the tests.
pub fn hongbao() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hongbao"));
    for (name, _) in std::env::vars_os() {
        let ours = name.to_str().is_some_and(|name| name.starts_with("HONGBAO__") || name == "FAILPOINTS");
        if ours {
            command.env_remove(name);
        }
    }
    command
}

/// What a finished command said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs a command of the binary to its end.
pub fn run(args: &[&str]) -> Said {
    let output = hongbao().args(args).stdin(Stdio::null()).output().expect("the binary runs");
    Said {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// How to start a server.
#[derive(Clone, Default)]
pub struct Setup {
    pub data: PathBuf,
    pub sets: Vec<String>,
    pub env: Vec<(String, String)>,
}

impl Setup {
    pub fn new(data: &Path) -> Setup {
        Setup { data: data.to_owned(), ..Setup::default() }
    }

    pub fn set(mut self, assignment: &str) -> Setup {
        self.sets.push(assignment.to_owned());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Setup {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it and waits until it listens.
    pub fn start(&self) -> Server {
        self.try_start().unwrap_or_else(|said| panic!("the service did not start: {said:?}"))
    }

    /// Starts it; what it said if it ended before it listened.
    pub fn try_start(&self) -> Result<Server, Said> {
        let mut command = hongbao();
        command.arg("serve").args(["--set", "gateway.listen=127.0.0.1:0", "--set", "log.filter=warn"]);
        command.args(["--set", &format!("data.dir={}", self.data.display())]);
        // The smallest: a debug build reads a segment slowly.
        command.args(["--set", "data.segment_bytes=8388608"]);
        for set in &self.sets {
            command.args(["--set", set]);
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        Server::listening(command, &self.data)
    }
}

impl Server {
    /// Runs a command that serves, and waits until it listens; what it said if it ended before.
    pub fn listening(mut command: Command, data: &Path) -> Result<Server, Said> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let err = Arc::new(Mutex::new(String::new()));
        let (said, stderr) = (err.clone(), child.stderr.take().expect("piped"));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                said.push_str(&line);
                said.push('\n');
            }
        });
        let (tell, told) = mpsc::channel();
        let stdout = child.stdout.take().expect("piped");
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Whoever started the server may be gone.
                let _ = tell.send(line);
            }
        });
        let mut server = Server { child, address: String::new(), data: data.to_owned(), err };
        let listening = told.recv_timeout(PATIENCE);
        match listening.as_deref().map(|line| line.strip_prefix("listening on http://")) {
            Ok(Some(address)) => {
                server.address = address.to_owned();
                Ok(server)
            }
            other => {
                let status = await_until("the server's end", PATIENCE, || server.ended());
                let out = format!("{other:?}");
                // Its last words may still be on their way.
                await_until("its last words", Duration::from_secs(2), || {
                    (!server.stderr().is_empty()).then_some(())
                });
                Err(Said { code: status.code(), out, err: server.stderr() })
            }
        }
    }
}

/// A running service; killed when dropped.
pub struct Server {
    child: Child,
    pub address: String,
    pub data: PathBuf,
    err: Arc<Mutex<String>>,
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said on its error stream.
    pub fn stderr(&self) -> String {
        self.err.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the process is ours");
    }

    /// SIGKILL, and nothing is left of it.
    pub fn kill(mut self) {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("a killed child ends");
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        await_until("the end after SIGTERM", PATIENCE, || self.ended())
    }

    /// SIGTERM, which it must end well after.
    pub fn end_well(mut self) {
        self.signal(rustix::process::Signal::TERM);
        let status = await_until("the end after SIGTERM", PATIENCE, || self.ended());
        assert!(status.success(), "{status}; it wrote:\n{}", self.stderr());
    }

    pub fn call(&self, what: &str, body: &str) -> Reply {
        call(&self.address, what, body).unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// Calls and insists on the status code.
    pub fn must(&self, what: &str, body: &str, code: u16) -> Value {
        let reply = self.call(what, body);
        assert_eq!(reply.code, code, "{what} {body}: {}", reply.text);
        reply.body
    }

    /// A campaign in CNY, funded.
    pub fn campaign(&self, id: &str, budget: u64, funded: u64) {
        let body = format!(r#"{{"budget":{budget},"currency":"CNY"}}"#);
        self.must(&format!("PUT /v1/campaigns/{id}"), &body, 200);
        if funded > 0 {
            let body = format!(r#"{{"id":"fund-{id}","amount":{funded}}}"#);
            let standing = self.must(&format!("POST /v1/campaigns/{id}/fund"), &body, 200);
            assert_eq!(standing["status"], "SUCCEEDED", "{standing}");
        }
    }

    /// Waits until a request has this status.
    pub fn await_status(&self, id: &str, status: &str) -> Value {
        let mut last = Value::Null;
        let what = format!("{id} is {status}");
        let deadline = Instant::now() + PATIENCE;
        await_until(&what, PATIENCE + Duration::from_secs(1), || {
            last = self.call(&format!("GET /v1/disbursements/{id}"), "").body;
            assert!(Instant::now() < deadline, "{what}, never: {last}");
            (last["status"] == status).then(|| last.clone())
        })
    }

    /// Waits until nothing that was accepted is open.
    pub fn await_drained(&self) {
        await_until("the backlog to be empty", PATIENCE, || {
            let ready = call(&self.address, "GET /readyz", "").ok()?.body;
            (ready["backlog"] == "0" && ready["parked"] == "0").then_some(())
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The answer to a call.
#[derive(Debug)]
pub struct Reply {
    pub code: u16,
    pub head: String,
    pub text: String,
    /// Null where the body is not JSON.
    pub body: Value,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let line =
            |line: &'_ str| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
        self.head
            .lines()
            .find(|l| line(l))
            .and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim())
    }
}

/// One call: `what` is method and path, then header lines if any.
pub fn call(address: &str, what: &str, body: &str) -> std::io::Result<Reply> {
    let mut lines = what.lines();
    let request = lines.next().expect("a method and a path");
    let mut text = format!("{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    let extra: Vec<&str> = lines.collect();
    let typed = extra.iter().any(|line| line.to_ascii_lowercase().starts_with("content-type"));
    if !body.is_empty() && !typed {
        text.push_str("Content-Type: application/json\r\n");
    }
    for line in extra {
        text.push_str(line);
        text.push_str("\r\n");
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    send(address, text.as_bytes())
}

/// Sends bytes as they are and reads the answer to its end.
pub fn send(address: &str, bytes: &[u8]) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // A server that refuses early need not read all of it; its answer is still to be read.
    let written = stream.write_all(bytes);
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    if answer.is_empty() {
        written?;
        read?;
    }
    reply(&answer)
}

fn reply(answer: &[u8]) -> std::io::Result<Reply> {
    let broken = |what: &str| std::io::Error::new(std::io::ErrorKind::UnexpectedEof, what.to_owned());
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| broken("no end of the head"))?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| broken("no code"))?;
    let reply = Reply {
        code,
        head: head.to_owned(),
        text: body.to_owned(),
        body: serde_json::from_str(body).unwrap_or(Value::Null),
    };
    // An answer cut short was never given.
    match reply.header("content-length").and_then(|length| length.parse::<usize>().ok()) {
        Some(length) if length > body.len() => Err(broken("the body is cut short")),
        _ => Ok(reply),
    }
}

/// The audit of a data folder as the command gives it: exit code and the report.
pub fn audit(data: &Path, acks: Option<&Path>, drained: bool) -> (Option<i32>, Value, String) {
    let data = data.display().to_string();
    let acks = acks.map(|path| path.display().to_string());
    let mut args = vec!["audit", "--json", "--data", &data];
    if let Some(acks) = &acks {
        args.extend(["--acks", acks]);
    }
    if drained {
        args.push("--drained");
    }
    let said = run(&args);
    let report = serde_json::from_str(&said.out).unwrap_or(Value::Null);
    (said.code, report, said.err)
}

/// Insists on a clean audit of a folder in which everything is final, and on what else must hold.
pub fn must_be_clean(data: &Path, acks: &Path) -> Value {
    let (code, report, err) = audit(data, Some(acks), true);
    assert_eq!(code, Some(0), "the audit found a breach: {report:#} {err}");
    assert_eq!((&report["lost"], &report["double_paid"]), (&Value::from(0), &Value::from(0)), "{report:#}");
    assert_eq!(report["books_balanced"], true, "{report:#}");
    assert_eq!(report["pending"], 0, "{report:#}");
    assert_eq!(report["acks"]["missing"], 0, "{report:#}");
    report
}
