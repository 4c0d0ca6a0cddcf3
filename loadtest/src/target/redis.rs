//! A Redis server under a guard.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::server::{Server, ServerSpec};
use super::{TargetError, binary};

/// The address of `redis://HOST:PORT`: no user, password or TLS, for the generator speaks plain RESP.
pub fn resolve(url: &str) -> Result<SocketAddr, TargetError> {
    let found = url.strip_prefix("redis://").map(|host| host.trim_end_matches('/')).and_then(|host| {
        let host = if host.contains(':') { host.to_owned() } else { format!("{host}:6379") };
        host.to_socket_addrs().ok()?.next()
    });
    found.ok_or_else(|| TargetError::RedisUrl { url: url.to_owned() })
}

pub fn find() -> Result<PathBuf, TargetError> {
    binary::on_path("redis-server").ok_or(TargetError::NoRedis)
}

/// Starts one with an append-only file, its data below the folder; `more` are further settings.
pub fn start_redis(
    appendfsync: &str,
    folder: &Path,
    more: &[&str],
    stop: &AtomicBool,
) -> Result<Server, TargetError> {
    let data = folder.join("data-redis");
    std::fs::create_dir_all(&data)
        .map_err(|error| TargetError::Io { what: format!("making {}", data.display()), error })?;
    let data = data.display().to_string();
    let mut args = vec!["--appendonly", "yes", "--save", "", "--aof-load-truncated", "no"];
    args.extend(["--appendfsync", appendfsync, "--dir", &data]);
    args.extend(more);
    let spec = ServerSpec {
        name: "redis".to_owned(),
        program: find()?,
        args: args.into_iter().map(str::to_owned).collect(),
        listen: |args, address| {
            let (host, port) = address.rsplit_once(':').expect("an address has a port");
            args.extend(["--bind", host, "--port", port].iter().map(|arg| (*arg).to_owned()));
        },
        log: folder.join("redis.log"),
        ready: "Ready to accept connections",
        hint: "",
    };
    Server::start(spec, stop)
}
