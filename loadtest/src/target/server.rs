//! One server process under a guard: started, killed, frozen, started again at the same address.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{TargetError, tether};

/// A start may have to read a journal again.
const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(20);
/// Whoever waits for a start looks so often whether the run was stopped.
const STOP_LOOK: Duration = Duration::from_millis(50);

#[derive(Clone, Debug)]
pub struct ServerSpec {
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// Adds the arguments that say where to listen.
    pub listen: fn(&mut Vec<String>, String),
    /// What it says on both streams is appended here.
    pub log: PathBuf,
    /// A line that holds this says that it is ready.
    pub ready: &'static str,
    /// Added to the error when it does not start.
    pub hint: &'static str,
}

#[derive(Debug)]
pub struct Server {
    spec: ServerSpec,
    pub address: SocketAddr,
    child: Mutex<Option<Child>>,
}

/// A port that was free a moment ago.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

impl Server {
    /// `stop`: who started it wants it no more.
    pub fn start(spec: ServerSpec, stop: &AtomicBool) -> Result<Server, TargetError> {
        let address = free_address()
            .map_err(|error| TargetError::Io { what: "finding a free port".to_owned(), error })?;
        let server = Server { spec, address, child: Mutex::new(None) };
        server.launch(stop)?;
        Ok(server)
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of the process that runs, if one does.
    pub fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// Starts it, at the address it always had, and waits until it is ready, or killed because of `stop`.
    pub fn launch(&self, stop: &AtomicBool) -> Result<(), TargetError> {
        let spec = &self.spec;
        let failed = |detail: String| TargetError::Start {
            name: spec.name.clone(),
            detail,
            hint: spec.hint,
            log: spec.log.clone(),
        };
        let mut args = spec.args.clone();
        (spec.listen)(&mut args, self.address.to_string());
        let mut command = tether::command(&spec.program);
        command.args(&args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // The surroundings of whoever tests are not the set-up under test.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("HONGBAO_")) {
                command.env_remove(name);
            }
        }
        let mut child = tether::spawn(command).map_err(|error| failed(error.to_string()))?;
        let streams: [Option<Box<dyn std::io::Read + Send>>; 2] =
            [child.stdout.take().map(|s| Box::new(s) as _), child.stderr.take().map(|s| Box::new(s) as _)];
        // Under its guard before anything can fail.
        *self.child() = Some(child);
        let log = File::options().create(true).append(true).open(&spec.log);
        let log =
            log.map_err(|error| TargetError::Io { what: format!("writing {}", spec.log.display()), error })?;
        let (tell, told) = mpsc::channel();
        for stream in streams.into_iter().flatten() {
            let (tell, log) = (tell.clone(), log.try_clone());
            // A name of its own: it would bear that of whoever starts the server again.
            let named = std::thread::Builder::new().name("log".to_owned());
            let reader = named.spawn(move || copy_lines(stream, log.ok(), &tell));
            reader.map_err(|error| TargetError::Io {
                what: format!("reading what {} says", spec.name),
                error,
            })?;
        }
        drop(tell);
        let deadline = Instant::now() + START_MAX;
        let mut last = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match told.recv_timeout(left.min(STOP_LOOK)) {
                Ok(line) if line.contains(spec.ready) => return Ok(()),
                Ok(line) => {
                    last.push_str(&line);
                    last.push('\n');
                }
                Err(mpsc::RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => {
                    self.kill();
                    return Err(TargetError::Stopped { name: spec.name.clone() });
                }
                Err(mpsc::RecvTimeoutError::Timeout) if !left.is_zero() => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.kill();
                    return Err(failed(format!("it was not ready within {} s; {last}", START_MAX.as_secs())));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    self.kill();
                    return Err(failed(last.trim_end().to_owned()));
                }
            }
        }
    }

    /// How it ended, if it did by itself.
    pub fn ended(&self) -> Option<String> {
        let status = self.child().as_mut().and_then(|child| child.try_wait().ok()).flatten()?;
        Some(format!("{} ended by itself ({status}); see {}", self.spec.name, self.spec.log.display()))
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &*self.child() {
            // A process that ended by itself is found out when it does not answer.
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }

    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn unfreeze(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits until it has ended; kills it if it does not.
    pub fn stop(&self) {
        self.unfreeze();
        self.signal(Signal::TERM);
        let deadline = Instant::now() + STOP_MAX;
        while Instant::now() < deadline {
            let ended = self.child().as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
    }
}

fn copy_lines(stream: impl std::io::Read, mut log: Option<File>, tell: &mpsc::Sender<String>) {
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if let Some(log) = &mut log {
            // A full disk is found out by whoever writes what matters.
            let _ = writeln!(log, "{line}");
        }
        let _ = tell.send(line);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
