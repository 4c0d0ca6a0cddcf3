//! A private Redis: a folder of its own, a free port, killed and removed with its guard.
//!
//! Its settings are a file that the server may rewrite (Sentinel has it do so), so that a restart finds the role it
//! had. What its append-only file holds, and what a loss of power would leave of it, is in `aof`; several servers
//! together are in `sentinel` and `cluster`.

pub mod aof;
pub mod cluster;
pub mod sentinel;
pub mod setup;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Client, Connection, RedisResult, TlsCertificates};
use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, await_until};
use aof::SizeWatch;
pub use setup::{Fsync, Setup, free_port};

const SETTINGS: &str = "redis.conf";
/// How often another port is tried where somebody was quicker.
const PORTS_TRIED_MAX: usize = 10;
/// What a test that fails shows of each server's log.
const LOG_LINES_SHOWN: usize = 40;

pub struct RedisServer {
    folder: tempfile::TempDir,
    setup: Setup,
    port: u16,
    program: &'static str,
    child: Option<Child>,
    /// Sizes of the append-only files while it runs, where it is synced every second.
    watch: Option<SizeWatch>,
    killed_at: Option<Instant>,
}

impl RedisServer {
    /// Starts it on a free port and waits until it answers.
    pub fn start(setup: Setup) -> RedisServer {
        let text = setup.clone();
        RedisServer::run("redis-server", setup, move |port| text.text(port))
    }

    /// A server whose settings file is made for its port.
    fn run(program: &'static str, setup: Setup, settings: impl Fn(u16) -> String) -> RedisServer {
        let folder = tempfile::Builder::new().prefix("hongbao-redis").tempdir().expect("a temporary folder");
        if setup.tls {
            setup::write_certificates(folder.path());
        }
        let mut server =
            RedisServer { folder, setup, port: 0, program, child: None, watch: None, killed_at: None };
        let mut said = String::new();
        for _ in 0..PORTS_TRIED_MAX {
            server.port = free_port();
            std::fs::write(server.folder.path().join(SETTINGS), settings(server.port)).expect("settings");
            match server.launch() {
                Ok(()) => return server,
                Err(error) => said = error,
            }
            // Another test may have taken the port since it was seen free; nothing else is worth a second try.
            if !said.contains("Address already in use") {
                break;
            }
        }
        panic!(
            "{program} did not start (Debian, Ubuntu: apt-get install redis-server redis-sentinel): {said}"
        );
    }

    /// Starts it and waits until it answers; its log if it ended instead.
    fn launch(&mut self) -> Result<(), String> {
        assert!(self.child.is_none(), "it runs already");
        let log_file = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path());
        let log_file = log_file.expect("a log file");
        let log_bytes_before = log_file.metadata().expect("a log file").len() as usize;
        let mut command = Command::new(self.program);
        command.arg(SETTINGS).current_dir(self.folder.path()).stdin(Stdio::null());
        command.stdout(log_file.try_clone().expect("a descriptor")).stderr(log_file);
        // From before the start: clients may write before it is known here that it answers.
        let watched = self.setup.fsync == Fsync::EverySecond;
        self.watch = watched.then(|| SizeWatch::start(&self.aof_folder()));
        self.killed_at = None;
        let child = command.spawn().map_err(|error| format!("it cannot be run: {error}"))?;
        let pid = child.id();
        self.child = Some(child);
        let ended = await_until("Redis to answer or to end", PATIENCE, || {
            let child = self.child.as_mut().expect("just started");
            match child.try_wait().expect("a child can be waited for") {
                Some(status) => Some(Some(status)),
                None => self.answers(pid).then_some(None),
            }
        });
        let Some(status) = ended else { return Ok(()) };
        self.sigkill();
        let log = self.log();
        Err(format!("{status}: {}", log.get(log_bytes_before..).unwrap_or(&log)))
    }

    /// Whether this very process serves, with its data loaded: the port may be another server's.
    fn answers(&self, pid: u32) -> bool {
        let ask = || -> RedisResult<String> {
            let mut connection = self.try_connect()?;
            redis::cmd("PING").exec(&mut connection)?;
            redis::cmd("INFO").arg("server").query(&mut connection)
        };
        ask().is_ok_and(|info| info.lines().any(|line| line == format!("process_id:{pid}")))
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`
    pub fn address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// With the password, if there is one.
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The same server at another port: that of a proxy before it.
    pub fn url_at(&self, port: u16) -> String {
        let scheme = if self.setup.tls { "rediss" } else { "redis" };
        let user = self.setup.password.as_ref().map_or_else(String::new, |password| format!(":{password}@"));
        format!("{scheme}://{user}127.0.0.1:{port}/")
    }

    /// The authority that its certificate is from.
    pub fn authority_file(&self) -> PathBuf {
        assert!(self.setup.tls, "it speaks no TLS");
        self.folder.path().join(setup::AUTHORITY)
    }

    /// A plain connection, by the crate.
    pub fn connect(&self) -> Connection {
        self.try_connect().unwrap_or_else(|error| panic!("no connection to {}: {error}", self.url()))
    }

    pub fn try_connect(&self) -> RedisResult<Connection> {
        let client = if self.setup.tls {
            let root = std::fs::read(self.authority_file()).expect("the authority's certificate");
            Client::build_with_tls(self.url(), TlsCertificates { client_tls: None, root_cert: Some(root) })?
        } else {
            Client::open(self.url())?
        };
        let connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        connection.set_read_timeout(Some(PATIENCE))?;
        Ok(connection)
    }

    /// Runs a command through `redis-cli`; its answer without decoration.
    pub fn cli(&self, args: &[&str]) -> String {
        self.try_cli(args).unwrap_or_else(|error| panic!("{args:?}: {error}"))
    }

    pub fn try_cli(&self, args: &[&str]) -> Result<String, String> {
        let mut cli = Command::new("redis-cli");
        cli.args(["-e", "-p", &self.port.to_string()]);
        if let Some(password) = &self.setup.password {
            cli.args(["--no-auth-warning", "-a", password]);
        }
        if self.setup.tls {
            cli.arg("--tls").arg("--cacert").arg(self.authority_file());
        }
        let said = cli.args(args).stdin(Stdio::null()).output().expect("redis-cli runs");
        let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        if said.status.success() { Ok(out.trim_end().to_owned()) } else { Err(format!("{out}{err}")) }
    }

    /// A field of `INFO`; nothing where there is none, or no answer: a server that changes its role cuts its clients.
    pub fn info(&self, field: &str) -> Option<String> {
        let info = self.try_cli(&["INFO", "everything"]).ok()?;
        let mut fields = info.lines().filter_map(|line| line.trim_end().split_once(':'));
        fields.find(|(name, _)| *name == field).map(|(_, value)| value.to_owned())
    }

    /// What a later start finds in the settings file: replaces every line of that name.
    pub fn set(&mut self, name: &str, value: &str) {
        let path = self.folder.path().join(SETTINGS);
        let text = std::fs::read_to_string(&path).expect("the settings file");
        let others = text.lines().filter(|line| line.split(' ').next() != Some(name));
        let lines: Vec<String> = others.map(str::to_owned).chain([format!("{name} {value}")]).collect();
        std::fs::write(&path, lines.join("\n") + "\n").expect("the settings file");
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("the process is ours");
    }

    /// The process is gone; what the kernel got from it stays.
    pub fn sigkill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            child.wait().expect("a killed child ends");
            self.killed_at = Some(Instant::now());
            self.watch.iter_mut().for_each(SizeWatch::stop);
        }
    }

    /// Stands still and keeps its connections: what a machine without processor time looks like.
    pub fn sigstop(&self) {
        self.signal(Signal::STOP);
    }

    pub fn sigcont(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills it if it runs, and starts it on the same port with what is in its folder.
    pub fn restart(&mut self) {
        self.try_restart().unwrap_or_else(|said| panic!("the server did not start again: {said}"));
    }

    /// Its log if it refuses to start.
    pub fn try_restart(&mut self) -> Result<(), String> {
        self.sigkill();
        self.launch()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.sigkill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            eprintln!("the end of the log of {} on port {}:\n{}", self.program, self.port, last.join("\n"));
        }
    }
}
