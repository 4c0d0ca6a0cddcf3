//! One open connection: logs in, writes commands in one go, reads their replies, and knows which of them left.
//!
//! Scripts that this connection has not used yet are loaded at the head of the same write, so that NOSCRIPT comes
//! only after someone flushed the server's scripts. After any failure the connection is of no more use: a late
//! reply would be taken for another command's.

use std::cell::Cell;
use std::collections::HashSet;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Cmd, Value};
use rustls::ClientConfig;

use super::command::{Command, Script};
use super::error::Failure;
use super::inbox::Inbox;
use super::link::name_of;
use super::socket::{Socket, left};
use super::url::{Address, Credentials};

/// The memory of a round larger than this is given back after it.
const OUTBOX_BYTES_KEPT: usize = 1 << 20;

/// What all connections of a link have in common.
pub(super) struct Access {
    pub credentials: Option<Credentials>,
    pub db: u32,
    pub tls: Option<Arc<ClientConfig>>,
    pub connect_timeout: Duration,
    pub response_timeout: Duration,
    /// Connections to masters made so far.
    pub connects: Cell<u64>,
}

/// How to begin a connection.
pub(super) struct Login<'a> {
    pub credentials: Option<&'a Credentials>,
    pub db: u32,
    /// Refuse a server that says it is a replica.
    pub master_only: bool,
}

/// One command on its way.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub command: &'a Command,
    /// To a node that is importing the command's slot.
    pub asking: bool,
}

/// What was written of a batch and is to be answered.
pub(super) struct Flight {
    loads: Vec<&'static Script>,
    /// Of so many items at least one byte may have left.
    begun: usize,
    /// Why not all of it was written.
    stopped: Option<String>,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NoWire {
    pub reason: String,
    /// It was not given a password, and wants one.
    pub wants_password: bool,
}

pub(super) struct Wire {
    socket: Socket,
    inbox: Inbox,
    outbox: Vec<u8>,
    /// Hashes of scripts that the server has been told in this connection.
    known: HashSet<&'static str>,
    read_timeout: Duration,
}

impl Wire {
    pub fn connect(
        address: &Address,
        access: &Access,
        login: &Login<'_>,
        deadline: Instant,
    ) -> Result<Wire, NoWire> {
        let failed = |reason: String, wants_password: bool| NoWire {
            reason: format!("{address}: {reason}"),
            wants_password,
        };
        let socket = Socket::connect(address, access.tls.as_ref(), deadline)
            .map_err(|error| failed(told(&error), false))?;
        let mut wire = Wire {
            socket,
            inbox: Inbox::default(),
            outbox: Vec::new(),
            known: HashSet::new(),
            read_timeout: Duration::MAX,
        };
        match wire.log_in(login, deadline) {
            Ok(true) => Ok(wire),
            Ok(false) => Err(failed("it wants a password, and was given none".to_owned(), true)),
            Err(reason) => Err(failed(reason, false)),
        }
    }

    /// Whether it let us in; if not, for want of a password.
    fn log_in(&mut self, login: &Login<'_>, deadline: Instant) -> Result<bool, String> {
        let mut steps = Vec::new();
        if let Some(Credentials { user, password }) = login.credentials {
            let mut auth = redis::cmd("AUTH");
            [user, password].into_iter().filter(|text| !text.is_empty()).for_each(|text| {
                auth.arg(text);
            });
            steps.push(("AUTH", auth));
        }
        if login.db != 0 {
            steps.push(("SELECT", redis::cmd("SELECT").arg(login.db).take()));
        }
        // One round trip at least: a server that takes connections and answers nothing is not there. That it may
        // refuse to note a name does not matter.
        steps.push(("CLIENT", redis::cmd("CLIENT").arg("SETNAME").arg("hongbao").take()));
        if login.master_only {
            steps.push(("ROLE", redis::cmd("ROLE")));
        }
        let cmds: Vec<&Cmd> = steps.iter().map(|(_, cmd)| cmd).collect();
        let replies = self.ask(&cmds, deadline).map_err(|error| told(&error))?;
        for ((step, _), reply) in steps.iter().zip(replies) {
            match (*step, reply) {
                ("CLIENT" | "SELECT", Value::ServerError(error)) if error.code() == "NOAUTH" => {
                    return Ok(false);
                }
                ("CLIENT", _) => {}
                (step, Value::ServerError(error)) => {
                    return Err(format!(
                        "it refused {step}: {} {}",
                        error.code(),
                        error.details().unwrap_or_default()
                    ));
                }
                ("ROLE", Value::Array(parts)) => match parts.first() {
                    Some(Value::BulkString(role)) if role == b"master" => {}
                    _ => return Err("it is no master".to_owned()),
                },
                _ => {}
            }
        }
        Ok(true)
    }

    /// Writes the commands and reads a reply for each.
    pub fn ask(&mut self, cmds: &[&Cmd], deadline: Instant) -> io::Result<Vec<Value>> {
        self.outbox.clear();
        cmds.iter().for_each(|cmd| cmd.write_packed_command(&mut self.outbox));
        if let (_, Some(error)) = self.write_out(deadline) {
            return Err(error);
        }
        cmds.iter().map(|_| self.reply(deadline)).collect()
    }

    /// Whether it may be used: nothing came unasked, and the server has not closed.
    pub fn is_fit(&mut self) -> bool {
        self.inbox.is_empty() && self.socket.is_fit()
    }

    /// The server no longer knows the script: it is loaded again when next used.
    pub fn forget(&mut self, script: &Script) {
        self.known.remove(script.hash());
    }

    /// Writes the items, behind the scripts that they need and this connection has not loaded.
    pub fn write(&mut self, items: &[Item<'_>], deadline: Instant) -> Flight {
        let mut loads: Vec<&'static Script> = Vec::new();
        for script in items.iter().filter_map(|item| item.command.script_of()) {
            if !self.known.contains(script.hash()) && !loads.iter().any(|load| load.hash() == script.hash()) {
                loads.push(script);
            }
        }
        self.outbox.clear();
        for load in &loads {
            let cmd = redis::cmd("SCRIPT").arg("LOAD").arg(load.source).take();
            cmd.write_packed_command(&mut self.outbox);
        }
        let mut starts = Vec::with_capacity(items.len());
        for item in items {
            starts.push(self.outbox.len());
            if item.asking {
                redis::cmd("ASKING").write_packed_command(&mut self.outbox);
            }
            item.command.cmd().write_packed_command(&mut self.outbox);
        }
        let (written, error) = self.write_out(deadline);
        if self.outbox.capacity() > OUTBOX_BYTES_KEPT {
            self.outbox = Vec::new();
        }
        let begun = starts.iter().take_while(|start| **start < written).count();
        Flight { loads, begun, stopped: error.map(|error| told(&error)) }
    }

    /// Writes the outbox: how many bytes may have left, and what stopped it.
    fn write_out(&mut self, deadline: Instant) -> (usize, Option<io::Error>) {
        let mut written = 0;
        while written < self.outbox.len() {
            let outcome = left(deadline)
                .and_then(|left| self.socket.set_write_timeout(left))
                .and_then(|()| self.socket.write(&self.outbox[written..]));
            match outcome {
                Ok(0) => return (written, Some(ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return (written, Some(error)),
            }
        }
        (written, self.socket.flush().err())
    }

    /// One result an item, in order, and what broke the connection, if anything did.
    pub fn read(
        &mut self,
        items: &[Item<'_>],
        flight: &Flight,
        deadline: Instant,
    ) -> (Vec<Result<Value, Failure>>, Option<String>) {
        let mut results = Vec::with_capacity(items.len());
        let mut broken = flight.stopped.clone();
        if broken.is_none() {
            broken = self.read_replies(items, flight, deadline, &mut results).err().map(|error| told(&error));
        }
        if let Some(reason) = &broken {
            let fates = (results.len()..items.len()).map(|at| match at < flight.begun {
                true => Failure::Unknown(reason.clone()),
                false => Failure::NotSent(reason.clone()),
            });
            results.extend(fates.map(Err));
        }
        (results, broken)
    }

    fn read_replies(
        &mut self,
        items: &[Item<'_>],
        flight: &Flight,
        deadline: Instant,
        results: &mut Vec<Result<Value, Failure>>,
    ) -> io::Result<()> {
        let mut unloaded = Vec::new();
        for load in &flight.loads {
            match self.reply(deadline)? {
                Value::ServerError(error) => unloaded.push((load.hash(), error)),
                _ => {
                    self.known.insert(load.hash());
                }
            }
        }
        for item in items {
            if item.asking {
                // A refusal of it is told by the command's own reply.
                self.reply(deadline)?;
            }
            let mut result = judge(self.reply(deadline)?, item.command);
            if let (Err(failure), Some(script)) = (&result, item.command.script_of())
                && failure.is_code("NOSCRIPT")
                && let Some((_, error)) = unloaded.iter().find(|(hash, _)| *hash == script.hash())
            {
                let named = format!("SCRIPT LOAD of {}", script.name);
                result = Err(refusal(named, error));
            }
            results.push(result);
        }
        Ok(())
    }

    fn reply(&mut self, deadline: Instant) -> io::Result<Value> {
        loop {
            if let Some(value) = self.inbox.take().map_err(io::Error::other)? {
                return Ok(value);
            }
            let left = left(deadline)?;
            // Most rounds read once: the timeout set before will do if it is nearly right.
            if left < self.read_timeout / 8 * 7 || self.read_timeout < left / 8 * 7 {
                self.socket.set_read_timeout(left)?;
                self.read_timeout = left;
            }
            match self.socket.read(self.inbox.room()) {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "it closed the connection")),
                Ok(count) => self.inbox.filled(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if error.kind() == ErrorKind::WouldBlock && super::socket::left(deadline).is_ok() =>
                {
                    self.read_timeout = Duration::MAX;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn told(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "it does not answer in time".to_owned(),
        _ => error.to_string(),
    }
}

fn judge(value: Value, command: &Command) -> Result<Value, Failure> {
    match value {
        Value::ServerError(error) => Err(refusal(name_of(command), &error)),
        value => Ok(value),
    }
}

fn refusal(command: String, error: &redis::ServerError) -> Failure {
    let detail = error.details().unwrap_or_default().to_owned();
    Failure::Refused { command, code: error.code().to_owned(), detail }
}
