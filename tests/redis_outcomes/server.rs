//! A private Redis: a folder of its own, a free port, killed and removed with its guard.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{PATIENCE, await_until};

pub struct Server {
    folder: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl Server {
    pub fn start() -> Server {
        let folder = tempfile::Builder::new().prefix("hongbao-redis").tempdir().expect("a temporary folder");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let mut server = Server { folder, port: free.expect("a free port").port(), child: None };
        server.restart();
        server
    }

    /// Kills it if it runs, and starts it again with what is in its folder.
    pub fn restart(&mut self) {
        self.kill();
        let port = self.port.to_string();
        let settings = ["--port", &port, "--bind", "127.0.0.1", "--appendonly", "yes"];
        let more = ["--appendfsync", "always", "--save", "", "--enable-debug-command", "yes"];
        let child = Command::new("redis-server")
            .args(settings.into_iter().chain(more))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        self.child = Some(child.expect("redis-server (Debian, Ubuntu: apt-get install redis-server)"));
        await_until("Redis to answer", PATIENCE, || (self.try_cli(&["PING"]) == "PONG").then_some(()));
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn cli(&self, args: &[&str]) -> String {
        let said = self.try_cli(args);
        assert!(!said.starts_with("ERR") && !said.starts_with("WRONGTYPE"), "{args:?}: {said}");
        said
    }

    fn try_cli(&self, args: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        let said = cli.args(["-p", &self.port.to_string()]).args(args).stdin(Stdio::null()).output();
        String::from_utf8_lossy(&said.expect("redis-cli runs").stdout).trim_end().to_owned()
    }

    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("the process is ours");
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            child.wait().expect("a killed child ends");
        }
    }

    /// Everything in the append-only files, as text.
    pub fn appended(&self) -> String {
        let files = std::fs::read_dir(self.folder.path().join("appendonlydir")).expect("it appends");
        let read = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read(entry.expect("an entry").path());
        let bytes: Vec<u8> = files.flat_map(|entry| read(entry).expect("a file")).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
