//! The instances: `hongbao serve`, a process each, with settings and folder of its own.
//!
//! What holds: they end with this guard; their log stands beside their folder. Absent: looking into them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::super::tether;
use crate::config::Config;

/// A clean stop may take so long; after it the process is killed.
const STOP_MAX: Duration = Duration::from_secs(5);
const STOP_LOOK: Duration = Duration::from_millis(10);
/// Lines of a log that are shown where an instance has failed.
const LAST_LINES: usize = 5;
/// Each follows all streams, so that nothing but Redis is needed.
const VIEW: &str = "sqlite_each";
/// Settings of the demo's user that must not reach what it starts.
const ENVIRONMENT: &str = "HONGBAO__";

struct Instance {
    name: String,
    door: SocketAddr,
    log: PathBuf,
    child: Child,
}

pub struct Instances(Vec<Instance>);

impl Instances {
    /// Starts all of them and waits for their doors. `folder` is what they share.
    pub fn start(config: &Config, folder: &Path, count: usize) -> anyhow::Result<Instances> {
        // All are started before the first is waited for.
        let started: Vec<(Instance, ChildStdout)> =
            (1..=count).map(|n| start(config, folder, n)).collect::<anyhow::Result<_>>()?;
        let mut instances = Instances(Vec::new());
        for (mut instance, stdout) in started {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).context("reading an instance's address")?;
            let address = line.trim().strip_prefix("listening on http://").and_then(|at| at.parse().ok());
            match address {
                Some(door) => instance.door = door,
                None => bail!("instance {} did not start: {}", instance.name, last_words(&instance.log)),
            }
            instances.0.push(instance);
        }
        Ok(instances)
    }

    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|instance| instance.name.clone()).collect()
    }

    pub fn doors(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|instance| instance.door).collect()
    }

    /// What became of one that has ended by itself.
    pub fn fallen(&mut self) -> Option<String> {
        self.0.iter_mut().find_map(|Instance { name, log, child, .. }| {
            let status = child.try_wait().ok().flatten()?;
            Some(format!("instance {name} has ended ({status}): {}", last_words(log)))
        })
    }

    /// Ends them as an operator would: each gives back what it owns.
    pub fn stop(mut self) {
        for Instance { child, .. } in &self.0 {
            // One that has ended already needs no signal.
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
        }
        let deadline = Instant::now() + STOP_MAX;
        for Instance { child, .. } in &mut self.0 {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(STOP_LOOK);
            }
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // What it accepted is in Redis.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(config: &Config, folder: &Path, n: usize) -> anyhow::Result<(Instance, ChildStdout)> {
    let name = format!("i{n}");
    let mut raw = config.raw.clone();
    let data = folder.join(&name);
    raw.data.dir = data.to_str().context("the path of the data folder is not UTF-8")?.to_owned();
    raw.instance.name.clone_from(&name);
    raw.outcome.view = VIEW.to_owned();
    raw.log.filter = "info".to_owned();
    let (settings, log) = (data.with_extension("toml"), data.with_extension("log"));
    fs::write(&settings, toml::to_string(&raw)?)
        .with_context(|| format!("writing {}", settings.display()))?;
    let stderr = File::create(&log).with_context(|| format!("writing {}", log.display()))?;
    let program = std::env::current_exe().context("where this program is")?;
    let mut command = tether::command(program)?;
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with(ENVIRONMENT) {
            command.env_remove(variable);
        }
    }
    let command = command.arg("serve").arg("--config").arg(&settings);
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
    let mut child = command.spawn().with_context(|| format!("starting instance {name}"))?;
    let stdout = child.stdout.take().context("an instance's output")?;
    let door = ([127, 0, 0, 1], 0).into();
    Ok((Instance { name, door, log, child }, stdout))
}

fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n  ");
    if last.is_empty() { "it said nothing".to_owned() } else { last }
}
