//! What servers say of themselves: what they run, how they keep what they are given, and how full they are.
//!
//! Read by INFO, TIME and CONFIG GET. CONFIG is often forbidden (an access list, a managed service): what only it
//! tells is then `None`. Nothing is judged here; `durability` does that.

use std::collections::HashMap;
use std::fmt;

use redis::Value;

use super::command::Command;
use super::error::Failure;
use super::link::{Link, Shape};
use super::reply;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Master,
    Replica,
}

/// When what was written to the append-only file is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendFsync {
    /// When the operating system does it, usually within 30 s.
    No,
    EverySecond,
    /// Before the replies.
    Always,
}

/// Rewriting the append-only file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AofRewrite {
    pub is_in_progress: bool,
    /// Whether the last one that ended succeeded; true as well if none has.
    pub last_is_ok: bool,
    /// Whether one has ended since the server started.
    pub has_ended: bool,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// `host:port`, or the path of its socket file.
    pub name: String,
    pub version: Version,
    /// Another one after each start.
    pub run_id: String,
    pub role: Role,
    pub is_loading: bool,
    pub appendonly: bool,
    pub appendfsync: Option<AppendFsync>,
    /// No fsync at all while a child process saves.
    pub no_appendfsync_on_rewrite: Option<bool>,
    /// At start, load an append-only file that is cut off in a command, without what is cut off.
    pub aof_load_truncated: Option<bool>,
    pub aof_rewrite: AofRewrite,
    /// Bytes; 0: no bound.
    pub maxmemory: u64,
    pub maxmemory_policy: String,
    /// Bytes.
    pub used_memory: u64,
    /// Bytes of the machine.
    pub system_memory: Option<u64>,
    pub connected_replicas: u32,
    /// Its clock, in microseconds since 1970.
    pub time_us: u64,
}

/// All masters behind a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    pub shape: Shape,
    /// Never empty.
    pub each: Vec<ServerFacts>,
}

impl Servers {
    /// Asks every master; fails if one of them does not tell.
    pub fn read(link: &mut Link) -> Result<Servers, Failure> {
        let config = |name: &str| Command::routed("CONFIG", "").arg("GET").arg(name);
        let questions = [
            Command::routed("INFO", ""),
            Command::routed("TIME", ""),
            config("appendfsync"),
            config("no-appendfsync-on-rewrite"),
            config("aof-load-truncated"),
        ];
        let mut each = Vec::new();
        for (name, answers) in link.everywhere(&questions)? {
            each.push(ServerFacts::read(name, answers)?);
        }
        if each.is_empty() {
            return Err(Failure::NotSent("no master is known".to_owned()));
        }
        Ok(Servers { shape: link.shape(), each })
    }
}

/// A field of INFO, or that it is missing.
macro_rules! field {
    ($info:expr, $name:literal) => {
        $info.get($name).copied().ok_or_else(|| strange(concat!("a text with the field ", $name)))
    };
}

/// A number in a field of INFO.
macro_rules! number {
    ($info:expr, $name:literal) => {
        field!($info, $name)?.parse().map_err(|_| strange(concat!("a number in the field ", $name)))
    };
}

fn strange(expected: &'static str) -> Failure {
    Failure::Strange { command: "INFO".to_owned(), expected }
}

impl ServerFacts {
    fn read(name: String, answers: Vec<Result<Value, Failure>>) -> Result<ServerFacts, Failure> {
        let mut answers = answers.into_iter();
        let mut next = || answers.next().unwrap_or_else(|| Err(strange("an answer")));
        let text = reply::text("INFO", next()?)?.unwrap_or_default();
        let time_us = time(next()?)?;
        let mut config = || configured(next());
        let fsync = config()?;
        let appendfsync = match fsync.as_deref() {
            Some("always") => Some(AppendFsync::Always),
            Some("everysec") => Some(AppendFsync::EverySecond),
            Some("no") => Some(AppendFsync::No),
            _ => None,
        };
        let no_appendfsync_on_rewrite = config()?.map(|value| value == "yes");
        let aof_load_truncated = config()?.map(|value| value == "yes");
        let info: HashMap<&str, &str> =
            text.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
        Ok(ServerFacts {
            name,
            version: version(field!(info, "redis_version")?)
                .ok_or_else(|| strange("a version in the field redis_version"))?,
            run_id: field!(info, "run_id")?.to_owned(),
            role: if field!(info, "role")? == "master" { Role::Master } else { Role::Replica },
            is_loading: field!(info, "loading")? == "1",
            appendonly: field!(info, "aof_enabled")? == "1",
            appendfsync,
            no_appendfsync_on_rewrite,
            aof_load_truncated,
            aof_rewrite: AofRewrite {
                is_in_progress: field!(info, "aof_rewrite_in_progress")? == "1"
                    || field!(info, "aof_rewrite_scheduled")? == "1",
                last_is_ok: field!(info, "aof_last_bgrewrite_status")? == "ok",
                has_ended: field!(info, "aof_last_rewrite_time_sec")? != "-1",
            },
            maxmemory: number!(info, "maxmemory")?,
            maxmemory_policy: field!(info, "maxmemory_policy")?.to_owned(),
            used_memory: number!(info, "used_memory")?,
            system_memory: info.get("total_system_memory").and_then(|bytes| bytes.parse().ok()),
            connected_replicas: number!(info, "connected_slaves")?,
            time_us,
        })
    }
}

fn version(text: &str) -> Option<Version> {
    let mut parts = text.splitn(3, '.').map(|part| {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..digits].parse().ok()
    });
    let (major, minor) = (parts.next()??, parts.next()??);
    Some(Version { major, minor, patch: parts.next().flatten().unwrap_or(0) })
}

/// The reply of TIME: seconds and microseconds.
fn time(value: Value) -> Result<u64, Failure> {
    let wrong = || Failure::Strange { command: "TIME".to_owned(), expected: "seconds and microseconds" };
    let mut parts = reply::array("TIME", value)?.into_iter().map(|part| {
        let text = reply::text("TIME", part)?;
        text.and_then(|text| text.parse::<u64>().ok()).ok_or_else(wrong)
    });
    let (seconds, micros) = (parts.next().ok_or_else(wrong)??, parts.next().ok_or_else(wrong)??);
    seconds.checked_mul(1_000_000).and_then(|whole| whole.checked_add(micros)).ok_or_else(wrong)
}

/// The value that CONFIG GET tells; nothing where it is refused or not known.
fn configured(answer: Result<Value, Failure>) -> Result<Option<String>, Failure> {
    match answer {
        Ok(value) => match reply::array("CONFIG GET", value)?.into_iter().nth(1) {
            Some(value) => reply::text("CONFIG GET", value),
            None => Ok(None),
        },
        Err(Failure::Refused { .. }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
pub(in crate::redis) mod tests;
