//! A private PostgreSQL: a database folder of its own, a free port, killed and removed with its guard.
//!
//! The server refuses to run as root; run by root, it is started as the user `postgres`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// Where the server's programs are: beside `pg_config`'s, or the newest that Debian installed.
pub fn programs() -> PathBuf {
    let mut places: Vec<PathBuf> = Vec::new();
    if let Ok(said) = Command::new("pg_config").arg("--bindir").output() {
        places.push(PathBuf::from(String::from_utf8_lossy(&said.stdout).trim()));
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut installed: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    installed.sort();
    places.extend(installed.into_iter().rev());
    let path = std::env::var_os("PATH").unwrap_or_default();
    places.extend(std::env::split_paths(&path));
    places
        .into_iter()
        .find(|place| place.join("initdb").is_file() && place.join("postgres").is_file())
        .expect("a PostgreSQL server (Debian, Ubuntu: apt-get install postgresql)")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command that does not run as root.
fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program);
    command
}

/// How the server is to run.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Off is faster, and right wherever only the server's process may die, not the machine.
    pub fsync: bool,
    /// Further settings, `name=value`.
    pub settings: Vec<String>,
}

pub struct Postgres {
    folder: tempfile::TempDir,
    setup: Setup,
    port: u16,
}

impl Postgres {
    pub fn start(setup: Setup) -> Postgres {
        let folder = tempfile::Builder::new().prefix("hongbao-pg").tempdir().expect("a temporary folder");
        if is_root() {
            let given = Command::new("chown").arg("postgres").arg(folder.path()).status();
            assert!(given.is_ok_and(|status| status.success()), "no user postgres to run the server as");
        }
        let data = folder.path().join("data");
        let mut initdb = unprivileged(&programs().join("initdb"));
        initdb.current_dir(folder.path()).arg("-D").arg(&data);
        initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]);
        let said = initdb.output().expect("initdb runs");
        assert!(said.status.success(), "initdb: {}", String::from_utf8_lossy(&said.stderr));
        let mut server = Postgres { folder, setup, port: 0 };
        server.launch();
        server
    }

    /// Starts it on a free port (the same one after a restart) and waits until it answers.
    fn launch(&mut self) {
        if self.port == 0 {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
            self.port = free.expect("a free port").port();
        }
        // A killed server leaves its file of process ids; its number may be another process's by now.
        let _ = std::fs::remove_file(self.data().join("postmaster.pid"));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log"));
        let log = log.expect("a log file");
        let mut server = unprivileged(&programs().join("postgres"));
        server.current_dir(self.folder.path()).arg("-D").arg(self.data());
        server.args(["-p", &self.port.to_string(), "-k", "", "-h", "127.0.0.1"]);
        let fsync = if self.setup.fsync { "fsync=on" } else { "fsync=off" };
        for setting in
            [fsync, "max_connections=60"].into_iter().chain(self.setup.settings.iter().map(String::as_str))
        {
            server.args(["-c", setting]);
        }
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut child = server.spawn().expect("the server starts");
        // Its end is waited for, so that nothing is left of it; `runuser` ends with it.
        std::thread::spawn(move || child.wait());
        let until = Instant::now() + PATIENCE;
        loop {
            let ready = Command::new(programs().join("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres"])
                .status();
            if ready.is_ok_and(|status| status.success()) {
                return;
            }
            assert!(Instant::now() < until, "the server does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:secret@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs statements through `psql`, rows without decoration.
    pub fn sql(&self, database: &str, statements: &str) -> String {
        self.try_sql(database, statements).unwrap_or_else(|error| panic!("{statements}: {error}"))
    }

    pub fn try_sql(&self, database: &str, statements: &str) -> Result<String, String> {
        let mut psql = Command::new(programs().join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.url(database)]);
        let said = psql.args(["-c", statements]).output().expect("psql runs");
        let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        if said.status.success() { Ok(out.trim().to_owned()) } else { Err(err.into_owned()) }
    }

    /// A database of its own; its URL.
    pub fn database(&self, name: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(name)
    }

    /// SIGKILL to the server and everything it started: what a crash of the machine's software looks like.
    pub fn kill_hard(&mut self) {
        for pid in self.processes() {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                // It may have ended since it was seen.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        super::await_until("the end of the server's processes", PATIENCE, || {
            self.processes().is_empty().then_some(())
        });
    }

    pub fn restart(&mut self) {
        self.launch();
    }

    /// The server and its workers: those that stand in our database folder.
    fn processes(&self) -> Vec<i32> {
        let data = self.data();
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let ours = all.filter(|entry| {
            let cwd = std::fs::read_link(entry.path().join("cwd"));
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            name.trim() == "postgres" && cwd.is_ok_and(|cwd| cwd == data)
        });
        ours.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill_hard();
    }
}
