//! Redis servers under a guard: a folder and a free port of their own, killed with it.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use hongbao::redis::Link;
use rustix::process::{Pid, Signal, kill_process};

use crate::{await_until, link};

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub struct Server {
    child: Child,
    pub port: u16,
    folder: tempfile::TempDir,
    program: &'static str,
    args: Vec<String>,
}

impl Server {
    /// Started with these arguments besides a port, no snapshots and a folder; answers when it is up.
    pub fn start(args: &[&str]) -> Server {
        let server = Server::launch(args);
        server.await_up();
        server
    }

    /// The same without waiting.
    pub fn launch(args: &[&str]) -> Server {
        let port = free_port();
        let mut all = vec!["--port".to_owned(), port.to_string(), "--save".to_owned(), String::new()];
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        Server::spawn("redis-server", port, tempfile::tempdir().unwrap(), all)
    }

    /// One that watches a master of this port.
    pub fn sentinel(master: u16) -> Server {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let text = format!(
            "port {port}\nsentinel monitor mymaster 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds mymaster 300\nsentinel failover-timeout mymaster 2000\n"
        );
        let file = folder.path().join("sentinel.conf");
        fs::write(&file, text).unwrap();
        let server = Server::spawn("redis-sentinel", port, folder, vec![file.display().to_string()]);
        server.await_up();
        server
    }

    fn spawn(program: &'static str, port: u16, folder: tempfile::TempDir, args: Vec<String>) -> Server {
        let child = child(program, folder.path(), &args);
        Server { child, port, folder, program, args }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn link(&self) -> Link {
        link(&self.url())
    }

    pub fn await_up(&self) {
        let mut link = self.link();
        await_until("the server's PONG", || match link.call(hongbao::redis::Command::routed("PING", "")) {
            Ok(_) => Some(()),
            // It is up, and careful.
            Err(failure) => failure.to_string().contains("wants a password").then_some(()),
        });
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Again, with the same port, folder and arguments.
    pub fn restart(&mut self) {
        self.kill();
        self.child = child(self.program, self.folder.path(), &self.args);
        self.await_up();
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }
}

fn child(program: &str, folder: &Path, args: &[String]) -> Child {
    let mut command = Command::new(program);
    command.args(args).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("{program} cannot be started: {error}"))
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
