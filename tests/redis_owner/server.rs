//! A private Redis with an append-only file, killed and removed with its guard.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hongbao::redis::{Command as Ask, Failure, Link, Target, Value};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{PATIENCE, await_until};

pub struct Server {
    folder: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Server {
    pub fn start() -> Server {
        let folder = tempfile::Builder::new().prefix("hongbao-redis").tempdir().expect("a temporary folder");
        loop {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
            let port = free.expect("a free port").port();
            let mut child = launch(&folder, port);
            // Somebody else may have been quicker with the port.
            if await_until("Redis to answer or to end", PATIENCE, || answers(port, &mut child)) {
                return Server { folder, port, child };
            }
        }
    }

    pub fn target(&self) -> Target {
        target(self.port)
    }

    pub fn link(&self) -> Link {
        Link::new(&self.target()).expect("a plain URL")
    }

    /// One command, given as words.
    pub fn ask(&self, words: &[&str]) -> Value {
        let asked = words[1..].iter().fold(Ask::routed(leak(words[0]), b""), |ask, word| ask.arg(*word));
        self.link().call(asked).unwrap_or_else(|failure| panic!("{words:?}: {failure}"))
    }

    /// It stands still and keeps its connections until the guard is dropped.
    pub fn freeze(&self) -> Frozen {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::STOP).expect("the process is ours");
        Frozen(pid)
    }

    pub fn kill(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("a child can be killed");
    }

    /// Starts it again on the same port, with what its append-only file holds.
    pub fn restart(&mut self) {
        self.child = launch(&self.folder, self.port);
        assert!(await_until("Redis to answer again", PATIENCE, || answers(self.port, &mut self.child)));
    }

    /// Everything that is in the append-only files.
    pub fn appended(&self) -> String {
        let folder = std::fs::read_dir(self.folder.path().join("appendonlydir")).expect("append-only files");
        let files = folder.map(|entry| std::fs::read(entry.expect("an entry").path()).expect("a file"));
        files.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect()
    }
}

pub struct Frozen(Pid);

impl Drop for Frozen {
    fn drop(&mut self) {
        kill_process(self.0, Signal::CONT).expect("the process is ours");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn target(port: u16) -> Target {
    Target {
        url: format!("redis://127.0.0.1:{port}"),
        connect_timeout: Duration::from_secs(2),
        response_timeout: Duration::from_secs(2),
        ..Target::default()
    }
}

fn launch(folder: &tempfile::TempDir, port: u16) -> Child {
    let mut server = Command::new("redis-server");
    server.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
    server.arg("--dir").arg(folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
    server.spawn().expect("redis-server (Debian, Ubuntu: apt-get install redis-server)")
}

/// Whether this very process answers; false if it ended.
fn answers(port: u16, child: &mut Child) -> Option<bool> {
    if child.try_wait().expect("a child can be waited for").is_some() {
        return Some(false);
    }
    let mut link = Link::new(&target(port)).ok()?;
    // Refused while it loads its data.
    link.call(Ask::routed("PING", b"")).ok()?;
    let info = link.call(Ask::routed("INFO", b"").arg("server"));
    let text = hongbao::redis::reply::text("INFO", info.ok()?).ok()??;
    text.lines().any(|line| line == format!("process_id:{}", child.id())).then_some(true)
}

/// Commands have static names; a test has few.
fn leak(word: &str) -> &'static str {
    Box::leak(word.to_owned().into_boxed_str())
}

pub fn code(result: Result<Value, Failure>) -> String {
    match result {
        Err(Failure::Refused { code, .. }) => code,
        other => panic!("not refused: {other:?}"),
    }
}
