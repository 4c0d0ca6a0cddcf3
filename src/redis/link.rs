//! A connection that comes back: sends rounds of commands, tells of each what became of it.
//!
//! It connects when it is first needed, and again in a later round after a failure; it never waits for that
//! longer than the connect timeout. A round is one write and as many replies as it has commands.

use std::time::Duration;

use redis::{Client, Connection, ConnectionLike, Value};

use super::command::Command;
use super::error::{Failure, LinkError};

/// Where Redis is, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct Target {
    pub url: String,
    pub connect_timeout: Duration,
    pub response_timeout: Duration,
}

pub struct Link {
    client: Client,
    target: Target,
    connection: Option<Connection>,
}

impl Link {
    pub fn new(target: &Target) -> Result<Link, LinkError> {
        let client = Client::open(target.url.as_str()).map_err(|error| LinkError(error.to_string()))?;
        Ok(Link { client, target: target.clone(), connection: None })
    }

    fn connect(&mut self) -> Result<&mut Connection, Failure> {
        if self.connection.as_ref().is_none_or(|connection| !connection.is_open()) {
            let failed = |error: redis::RedisError| Failure::NotSent(error.to_string());
            let connection =
                self.client.get_connection_with_timeout(self.target.connect_timeout).map_err(failed)?;
            connection.set_read_timeout(Some(self.target.response_timeout)).map_err(failed)?;
            connection.set_write_timeout(Some(self.target.response_timeout)).map_err(failed)?;
            self.connection = Some(connection);
        }
        Ok(self.connection.as_mut().expect("set above"))
    }

    /// Sends the commands in order and answers one result each, in order.
    pub fn round(&mut self, commands: &[Command]) -> Vec<Result<Value, Failure>> {
        if commands.is_empty() {
            return Vec::new();
        }
        let mut results = self.send(commands);
        let missing: Vec<usize> = (0..commands.len())
            .filter(|at| results[*at].as_ref().is_err_and(|failure| failure.is_code("NOSCRIPT")))
            .collect();
        for at in missing {
            // Not executed, so it may be sent again, once the server knows the script.
            let Some(script) = commands[at].script_of() else { continue };
            let load = Command::routed("SCRIPT", commands[at].key()).arg("LOAD").arg(script.source);
            let _ = self.send(&[load]);
            results[at] = self.send(&commands[at..=at]).pop().expect("one result a command");
        }
        results
    }

    /// One command.
    pub fn call(&mut self, command: Command) -> Result<Value, Failure> {
        self.round(&[command]).pop().expect("one result a command")
    }

    fn send(&mut self, commands: &[Command]) -> Vec<Result<Value, Failure>> {
        let mut packed = Vec::new();
        commands.iter().for_each(|command| packed.extend_from_slice(&command.cmd().get_packed_command()));
        let sent = match self.connect() {
            Ok(connection) => connection.req_packed_commands(&packed, 0, commands.len()),
            Err(failure) => return commands.iter().map(|_| Err(failure.clone())).collect(),
        };
        match sent {
            Ok(values) => values.into_iter().zip(commands).map(|(value, of)| judge(value, of)).collect(),
            Err(error) => {
                // What was sent cannot be told from what was not: the connection is of no more use.
                self.connection = None;
                commands.iter().map(|_| Err(Failure::Unknown(error.to_string()))).collect()
            }
        }
    }
}

fn judge(value: Value, command: &Command) -> Result<Value, Failure> {
    match value {
        Value::ServerError(error) => Err(Failure::Refused {
            command: name_of(command),
            code: error.code().to_owned(),
            detail: error.details().unwrap_or_default().to_owned(),
        }),
        value => Ok(value),
    }
}

/// The script's name, or the command's.
pub fn name_of(command: &Command) -> String {
    match command.script_of() {
        Some(script) => script.name.to_owned(),
        None => command.cmd().args_iter().next().map_or_else(String::new, |arg| match arg {
            redis::Arg::Simple(name) => String::from_utf8_lossy(name).into_owned(),
            _ => String::new(),
        }),
    }
}
