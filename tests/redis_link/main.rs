//! The link to Redis against real servers: one, one by TLS, a Sentinel group and a Cluster, and what becomes of
//! commands when a server dies, hangs, forgets its scripts or hands its slots over.
//!
//! Needs `redis-server` and `redis-sentinel` (Debian, Ubuntu: `apt-get install redis-server redis-sentinel`).

mod cluster;
mod sentinel;
mod servers;
mod single;
mod state;
mod tls;

use std::time::{Duration, Instant};

use hongbao::redis::{Command, Failure, Link, Target, Value};

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn await_until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn link(url: &str) -> Link {
    Link::new(&Target::new(url)).unwrap()
}

pub fn get(key: &str) -> Command {
    Command::new("GET", key)
}

pub fn set(key: &str, value: &str) -> Command {
    Command::new("SET", key).arg(value)
}

/// Of each result what a test compares: `ok`, `nil`, a number, a text, `refused CODE`, `unsent`, `unknown`.
pub fn told(results: &[Result<Value, Failure>]) -> Vec<String> {
    results
        .iter()
        .map(|result| match result {
            Ok(Value::Okay) => "ok".to_owned(),
            Ok(Value::Nil) => "nil".to_owned(),
            Ok(Value::Int(number)) => number.to_string(),
            Ok(Value::BulkString(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            Ok(value) => format!("{value:?}"),
            Err(Failure::Refused { code, .. }) => format!("refused {code}"),
            Err(Failure::NotSent(_)) => "unsent".to_owned(),
            Err(Failure::Unknown(_)) => "unknown".to_owned(),
            Err(failure) => failure.to_string(),
        })
        .collect()
}

pub fn one(link: &mut Link, command: Command) -> String {
    told(&link.round(&[command])).remove(0)
}
