//! What "accepted" can mean on these servers, and what is wrong with them.
//!
//! Pure: judges facts. A finding names the command that mends it; `CONFIG SET` lasts until the server restarts, so
//! the same line belongs into its `redis.conf`. Of several servers the worst counts: a request is on one of them,
//! and nobody knows which will fail.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU8;
use std::str::FromStr;

use super::link::Shape;
use super::server::{AppendFsync, Role, ServerFacts, Servers, Version};

/// The oldest version whose scripts may run on a full server (`allow-oom`).
pub const VERSION_MIN: Version = Version { major: 7, minor: 0, patch: 0 };

/// What a write has survived once it is acknowledged; a later one includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Nothing: it is lost with the server's process or machine.
    Memory,
    /// The end of the process; of the machine, if a second has passed.
    FsyncEverySecond,
    /// The end of the machine.
    Fsync,
    /// The loss of the machine: so many replicas have it too. Not a server's doing: who appends must WAIT.
    Replicated(NonZeroU8),
}

impl Durability {
    pub fn as_str(&self) -> Cow<'static, str> {
        match self {
            Durability::Memory => Cow::Borrowed("memory"),
            Durability::FsyncEverySecond => Cow::Borrowed("fsync_every_second"),
            Durability::Fsync => Cow::Borrowed("fsync"),
            Durability::Replicated(count) => Cow::Owned(format!("replicated:{count}")),
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no durability; it is one of memory, fsync_every_second, fsync, replicated:N (N replicas, 1 to 255)"
)]
pub struct NoDurability(pub String);

impl FromStr for Durability {
    type Err = NoDurability;

    fn from_str(text: &str) -> Result<Durability, NoDurability> {
        match text {
            "memory" => Ok(Durability::Memory),
            "fsync_every_second" => Ok(Durability::FsyncEverySecond),
            "fsync" => Ok(Durability::Fsync),
            _ => text
                .strip_prefix("replicated:")
                .filter(|count| count.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|count| count.parse().ok())
                .map(Durability::Replicated)
                .ok_or_else(|| NoDurability(text.to_owned())),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It works, and someone should know.
    Warn,
    /// It is not safe to accept anything.
    Refuse,
}

/// Something about a server that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// The server, and what is wrong with it.
    pub what: String,
    /// What mends it.
    pub command: String,
}

/// What the servers give a write by themselves. `assumed` is the operator's word, and counts only where a server
/// may not tell (CONFIG is forbidden).
pub fn durability(servers: &Servers, assumed: Option<Durability>) -> Durability {
    servers.each.iter().map(|facts| durability_of(facts, assumed)).min().unwrap_or(Durability::Memory)
}

pub(super) fn durability_of(facts: &ServerFacts, assumed: Option<Durability>) -> Durability {
    let (Some(fsync), Some(pauses)) = (facts.appendfsync, facts.no_appendfsync_on_rewrite) else {
        return assumed.unwrap_or(Durability::Memory);
    };
    match fsync {
        _ if !facts.appendonly || pauses => Durability::Memory,
        AppendFsync::No => Durability::Memory,
        AppendFsync::EverySecond => Durability::FsyncEverySecond,
        AppendFsync::Always => Durability::Fsync,
    }
}

/// What is wrong, the worst first. `wanted` is the least durability that will do.
pub fn findings(servers: &Servers, wanted: Durability, assumed: Option<Durability>) -> Vec<Finding> {
    let mut found = Vec::new();
    for facts in &servers.each {
        let mut add = |severity, what: String, command: String| {
            found.push(Finding { severity, what: format!("{}: {what}", facts.name), command });
        };
        identity(facts, &mut add);
        keeping(facts, wanted, assumed, &mut add);
        memory(facts, &mut add);
        if let Some(way) = match servers.shape {
            Shape::Single => None,
            Shape::Sentinel => Some("Sentinel"),
            Shape::Cluster => Some("Cluster"),
        } {
            let what = format!("writes that were acknowledged can be lost at a failover of the {way}");
            add(Severity::Warn, what, set(facts, "min-replicas-to-write 1 min-replicas-max-lag 1"));
        }
    }
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

type Add<'a> = &'a mut dyn FnMut(Severity, String, String);

/// Whether it is a server that can be used at all.
fn identity(facts: &ServerFacts, add: Add<'_>) {
    if facts.version < VERSION_MIN {
        let what = format!("it is Redis {}, and {VERSION_MIN} is the oldest that will do", facts.version);
        add(Severity::Refuse, what, format!("install Redis {VERSION_MIN} or newer"));
    }
    if facts.role == Role::Replica {
        let what = "it is a replica, which takes no writes".to_owned();
        let command = format!("give the master's URL, or {} REPLICAOF NO ONE", cli(facts));
        add(Severity::Refuse, what, command);
    }
}

/// Whether it keeps what it is given.
fn keeping(facts: &ServerFacts, wanted: Durability, assumed: Option<Durability>, add: Add<'_>) {
    let local = match wanted {
        // The replicas have it too: the server itself keeps it as by default.
        Durability::Replicated(_) => Durability::FsyncEverySecond,
        own => own,
    };
    let has = durability_of(facts, assumed);
    let may_tell = facts.appendfsync.is_some() && facts.no_appendfsync_on_rewrite.is_some();
    if has < local && !may_tell {
        let what = format!("it does not tell its durability (CONFIG GET is refused), and {local} is wanted");
        let cli = cli(facts);
        let command =
            format!("{cli} ACL SETUSER <user> +config|get, or state the durability in the settings");
        add(Severity::Refuse, what, command);
    } else if has < local {
        let fsync = if local == Durability::Fsync { "always" } else { "everysec" };
        let mut settings = Vec::new();
        if !facts.appendonly {
            settings.push("appendonly yes".to_owned());
        }
        if facts.no_appendfsync_on_rewrite == Some(true) {
            settings.push("no-appendfsync-on-rewrite no".to_owned());
        }
        if fsync_of(facts) < local {
            settings.push(format!("appendfsync {fsync}"));
        }
        let what = format!("its durability is {has}, and {local} is wanted");
        add(Severity::Refuse, what, set(facts, &settings.join(" ")));
    }
    if let Durability::Replicated(count) = wanted
        && facts.connected_replicas < u32::from(count.get())
    {
        let what = format!("it has {} replicas, and {count} are wanted", facts.connected_replicas);
        let command = format!("redis-cli -h <replica> REPLICAOF {}", facts.name.replace(':', " "));
        add(Severity::Refuse, what, command);
    }
    if facts.appendfsync == Some(AppendFsync::Always) && facts.aof_load_truncated == Some(true) {
        let what =
            "after a crash it loads an append-only file that is cut off: fsync is stated only after the \
                    file was rewritten"
                .to_owned();
        add(Severity::Warn, what, set(facts, "aof-load-truncated no"));
    }
}

/// What its append-only file alone would give.
fn fsync_of(facts: &ServerFacts) -> Durability {
    let steady = ServerFacts { appendonly: true, no_appendfsync_on_rewrite: Some(false), ..facts.clone() };
    durability_of(&steady, None)
}

/// Whether there is room, and what happens when there is none.
fn memory(facts: &ServerFacts, add: Add<'_>) {
    if facts.maxmemory_policy != "noeviction" {
        let what = format!("when full it throws keys away (maxmemory-policy {})", facts.maxmemory_policy);
        add(Severity::Refuse, what, set(facts, "maxmemory-policy noeviction"));
    }
    if facts.maxmemory == 0 {
        let what = "its memory has no bound: the door cannot close before the machine runs out".to_owned();
        // Half: a rewrite of the append-only file may copy as much again.
        let half = facts.system_memory.map_or_else(|| "<bytes>".to_owned(), |bytes| (bytes / 2).to_string());
        add(Severity::Warn, what, set(facts, &format!("maxmemory {half}")));
    } else if u128::from(facts.used_memory) * 4 > u128::from(facts.maxmemory) * 3 {
        let percent = u128::from(facts.used_memory) * 100 / u128::from(facts.maxmemory);
        let what = format!("{percent} % of its memory is used already");
        add(Severity::Warn, what, set(facts, &format!("maxmemory {}", facts.used_memory.saturating_mul(2))));
    }
}

/// How to call the server by hand.
fn cli(facts: &ServerFacts) -> String {
    match facts.name.rsplit_once(':') {
        Some((host, port)) if !facts.name.starts_with('/') => {
            format!("redis-cli -h {} -p {port}", host.trim_matches(['[', ']']))
        }
        _ => format!("redis-cli -s {}", facts.name),
    }
}

fn set(facts: &ServerFacts, settings: &str) -> String {
    format!("{} CONFIG SET {settings}", cli(facts))
}

#[cfg(test)]
#[path = "durability_tests.rs"]
mod tests;
