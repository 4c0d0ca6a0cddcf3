//! The Redis of a demo: the user's, in a namespace of the run's own that is removed afterwards; or a private
//! `redis-server` with an append-only file, which ends with this guard.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::tether;
use crate::redis::{Command as Ask, Link, Target, reply};

/// How long a private server may take to answer.
const START_MAX: Duration = Duration::from_secs(10);
/// Keys that are looked at, and removed, in one go.
const PAGE: usize = 1_000;

pub struct DemoRedis {
    pub url: String,
    pub namespace: String,
    server: Option<Child>,
}

fn check_installed() -> anyhow::Result<()> {
    let mut asked = Command::new("redis-server");
    let asked =
        asked.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.context(
        "redis-server cannot be started; install it (Debian, Ubuntu: apt-get install redis-server; macOS: brew \
         install redis), or give --redis URL",
    )?;
    Ok(())
}

impl DemoRedis {
    /// `spawn`: a private one, which keeps its file in `folder`. Anything else is a URL.
    pub fn open(wanted: &str, folder: &Path, run: &str) -> anyhow::Result<DemoRedis> {
        let namespace = format!("hongbao-demo-{run}");
        if wanted != "spawn" {
            let redis = DemoRedis { url: wanted.to_owned(), namespace, server: None };
            redis.link()?.call(Ask::routed("PING", "")).context("asking the Redis of --redis")?;
            return Ok(redis);
        }
        check_installed()?;
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = tether::command("redis-server")?;
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "yes",
        ]);
        command.args(["--appendfsync", "everysec", "--maxmemory-policy", "noeviction", "--dir"]).arg(folder);
        let server = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let server = server.context("starting the demo's redis-server")?;
        let url = format!("redis://127.0.0.1:{port}");
        let mut redis = DemoRedis { url, namespace, server: Some(server) };
        let began = Instant::now();
        while redis.link()?.call(Ask::routed("PING", "")).is_err() {
            if let Some(status) = redis.server.as_mut().and_then(|server| server.try_wait().ok().flatten()) {
                let dir = folder.display();
                bail!("the demo's redis-server has ended ({status}); `redis-server --dir {dir}` says why");
            }
            if began.elapsed() > START_MAX {
                bail!("the demo's redis-server does not answer");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(redis)
    }

    fn link(&self) -> anyhow::Result<Link> {
        Ok(Link::new(&Target::new(self.url.as_str()))?)
    }

    /// Removes what the run left in a Redis that is not its own.
    pub fn clear(&self) -> anyhow::Result<()> {
        if self.server.is_some() {
            return Ok(());
        }
        let mut link = self.link()?;
        for pattern in [format!("{{{}:*", self.namespace), format!("{}:*", self.namespace)] {
            let mut cursor = "0".to_owned();
            loop {
                let scan =
                    Ask::routed("SCAN", "").arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(PAGE);
                let mut parts = reply::array("SCAN", link.call(scan)?)?.into_iter();
                let (next, keys) = (parts.next().context("no cursor")?, parts.next().context("no keys")?);
                for key in reply::array("SCAN", keys)? {
                    if let Some(key) = reply::bytes("SCAN", key)? {
                        link.call(Ask::new("UNLINK", key))?;
                    }
                }
                cursor = reply::text("SCAN", next)?.unwrap_or_default();
                if cursor == "0" || cursor.is_empty() {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Drop for DemoRedis {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            // Its file goes with the demo's folder.
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}
